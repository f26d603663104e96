//! Numbers that can be counted with: see [`Cache::increment`](crate::Cache::increment).

/// An integer that a cache can increment and decrement. Implemented for the standard integers up to 64 bits.
///
/// ```
/// use larder::counter::Counter;
/// assert_eq!(5_u8.plus(-5), Some(0));
/// assert_eq!(5_u8.plus(-6), None);
/// ```
pub trait Counter: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// What a missing number counts from.
    const ZERO: Self;

    /// The sum; `None` if it does not fit the type.
    #[must_use]
    fn plus(self, by: i128) -> Option<Self>;
}

macro_rules! counter {
    ($($integer:ty),*) => {$(
        impl Counter for $integer {
            const ZERO: Self = 0;

            fn plus(self, by: i128) -> Option<Self> {
                // Neither operand has more than 65 bits, so their sum fits 128.
                Self::try_from((self as i128).checked_add(by)?).ok()
            }
        }
    )*};
}
counter!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_do_not_fit_are_refused_at_both_ends_of_every_type() {
        fn check<T: Counter + PartialEq>(min: T, max: T) {
            assert_eq!(max.plus(1), None);
            assert_eq!(min.plus(-1), None);
            assert_eq!(max.plus(-1).and_then(|n| n.plus(1)), Some(max));
            assert_eq!(min.plus(1).and_then(|n| n.plus(-1)), Some(min));
        }
        check(i8::MIN, i8::MAX);
        check(i16::MIN, i16::MAX);
        check(i32::MIN, i32::MAX);
        check(i64::MIN, i64::MAX);
        check(isize::MIN, isize::MAX);
        check(u8::MIN, u8::MAX);
        check(u16::MIN, u16::MAX);
        check(u32::MIN, u32::MAX);
        check(u64::MIN, u64::MAX);
        check(usize::MIN, usize::MAX);
    }

    #[test]
    fn the_largest_steps_work() {
        assert_eq!(0_u64.plus(i128::from(u64::MAX)), Some(u64::MAX));
        assert_eq!(i64::MAX.plus(-i128::from(u64::MAX)), Some(i64::MIN));
    }
}
