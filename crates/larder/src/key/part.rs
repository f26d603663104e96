//! What the arguments of a function look like in a key. Knows nothing of where keys are kept.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use super::{push_part, shorten};

/// A value that can be part of a key: equal values always look the same, different ones never do.
///
/// What kind a value is of shows too: `Some("1")`, `"1"` and `1` are three different parts. Integers of all
/// widths are one kind, and so are the ways to hold a thing (`&str`, `String`, `Arc<str>`; `[T]`, `Vec<T>`), so
/// that a signature can change its mind about those without losing its entries.
///
/// Floats are not: `0.0` equals `-0.0`, `NaN` differs from itself, and most others are the result of rounding.
/// Nor are maps and sets that iterate in no particular order.
///
/// A type of your own says which of its fields tell it apart:
///
/// ```
/// use larder::key::{KeyPart, call_key};
/// struct Page { book: u32, language: String }
/// impl KeyPart for Page {
///     fn write_to(&self, key: &mut String) {
///         (self.book, &self.language).write_to(key);
///     }
/// }
/// let page = Page { book: 7, language: "de".into() };
/// assert_eq!(call_key("page", &[&page]), r#"4:page9:(1:73:"de"#);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "not a `larder::key::KeyPart`",
    note = "leave the argument out with `skip(…)`, or say what the key is made of with `key = (…)`",
    note = "floats are never key parts: use an integer, or `to_bits()` if its every bit counts"
)]
pub trait KeyPart {
    /// Appends what tells this value apart. What is appended need not say where it ends.
    fn write_to(&self, key: &mut String);

    /// Appends several values. Only bytes have reason to do it in another way.
    #[doc(hidden)]
    fn write_all_to(parts: &[Self], key: &mut String)
    where
        Self: Sized,
    {
        key.push('[');
        let mut text = String::new();
        for part in parts {
            text.clear();
            part.write_to(&mut text);
            push_part(key, &text);
        }
    }
}

/// The key under which `#[cached]` keeps the result of a call.
///
/// `function` is what the attribute's `prefix` says; the arguments are those that are part of the key, in order.
/// The result is at most [`BOUNDED_KEY_BYTES_MAX`](super::BOUNDED_KEY_BYTES_MAX) bytes long: a longer one is
/// shortened as by [`compose_bounded`](super::compose_bounded).
///
/// ```
/// use larder::key::call_key;
/// assert_eq!(call_key("user", &[&42, &"de"]), r#"4:user2:423:"de"#);
/// ```
pub fn call_key(function: &str, arguments: &[&dyn KeyPart]) -> String {
    let mut key = String::with_capacity(function.len() + 16 * (arguments.len() + 1));
    push_part(&mut key, function);
    let mut text = String::new();
    for argument in arguments {
        text.clear();
        argument.write_to(&mut text);
        push_part(&mut key, &text);
    }
    shorten(key)
}

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl KeyPart for $integer {
            fn write_to(&self, key: &mut String) {
                // Writing to a string cannot fail.
                let _ = write!(key, "{self}");
            }
        }
    )*};
}
integers!(u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

impl KeyPart for u8 {
    fn write_to(&self, key: &mut String) {
        u16::from(*self).write_to(key);
    }

    /// Bytes, as hex: as a list of numbers they would be five times as long.
    fn write_all_to(parts: &[Self], key: &mut String) {
        key.push('x');
        for byte in parts {
            // Writing to a string cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
    }
}

impl KeyPart for bool {
    fn write_to(&self, key: &mut String) {
        key.push_str(if *self { "true" } else { "false" });
    }
}

impl KeyPart for char {
    fn write_to(&self, key: &mut String) {
        key.push('\'');
        key.push(*self);
    }
}

impl KeyPart for str {
    fn write_to(&self, key: &mut String) {
        key.push('"');
        key.push_str(self);
    }
}

impl KeyPart for String {
    fn write_to(&self, key: &mut String) {
        self.as_str().write_to(key);
    }
}

impl<T: KeyPart> KeyPart for Option<T> {
    fn write_to(&self, key: &mut String) {
        match self {
            // No integer is a sign alone, and none begins with a plus.
            None => key.push('-'),
            Some(part) => {
                key.push('+');
                part.write_to(key);
            }
        }
    }
}

impl<T: KeyPart> KeyPart for [T] {
    fn write_to(&self, key: &mut String) {
        T::write_all_to(self, key);
    }
}

impl<T: KeyPart> KeyPart for Vec<T> {
    fn write_to(&self, key: &mut String) {
        T::write_all_to(self, key);
    }
}

impl<T: KeyPart, const N: usize> KeyPart for [T; N] {
    fn write_to(&self, key: &mut String) {
        T::write_all_to(self, key);
    }
}

macro_rules! pointers {
    ($($pointer:ty)*) => {$(
        impl<T: KeyPart + ?Sized> KeyPart for $pointer {
            fn write_to(&self, key: &mut String) {
                (**self).write_to(key);
            }
        }
    )*};
}
pointers!(&T Box<T> Rc<T> Arc<T>);

impl<T: KeyPart + ToOwned + ?Sized> KeyPart for Cow<'_, T> {
    fn write_to(&self, key: &mut String) {
        (**self).write_to(key);
    }
}

macro_rules! tuples {
    ($(($($part:ident)*))*) => {$(
        impl<$($part: KeyPart),*> KeyPart for ($($part,)*) {
            #[allow(non_snake_case, unused_mut, unused_variables, reason = "the parts are named as their types; `()` has none")]
            fn write_to(&self, key: &mut String) {
                let ($($part,)*) = self;
                key.push('(');
                let mut text = String::new();
                $(
                    text.clear();
                    $part.write_to(&mut text);
                    push_part(key, &text);
                )*
            }
        }
    )*};
}
tuples!(() (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H));

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(part: &dyn KeyPart) -> String {
        let mut text = String::new();
        part.write_to(&mut text);
        text
    }

    #[test]
    fn parts_of_different_kinds_never_look_the_same() {
        let parts: Vec<Box<dyn KeyPart>> = vec![
            Box::new(1),
            Box::new(-1),
            Box::new(10),
            Box::new("1"),
            Box::new("-"),
            Box::new(""),
            Box::new("true"),
            Box::new(true),
            Box::new(false),
            Box::new('1'),
            Box::new('\''),
            Box::new(Some("1")),
            Box::new(Some(1)),
            Box::new(Some(Some(1))),
            Box::new(None::<u32>),
            Box::new(Some(None::<u32>)),
            Box::new(()),
            Box::new(Some(())),
            Box::new((1,)),
            Box::new((1, 2)),
            Box::new(((1, 2),)),
            Box::new((12,)),
            Box::new([1]),
            Box::new([1, 2]),
            Box::new([12]),
            Box::new([[1, 2]]),
            Box::new([[1], [2]]),
            Box::new(["1", "2"]),
            Box::new(["12"]),
            Box::new([""; 0]),
            Box::new([0_u8; 0]),
            Box::new([1_u8, 2]),
            Box::new("x0102"),
            Box::new("0102"),
        ];
        let mut seen = std::collections::BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            let other = seen.insert(text(part), index);
            assert_eq!(other, None, "part {index} looks as {}", text(part));
        }
    }

    #[test]
    fn how_a_thing_is_held_and_how_wide_it_is_do_not_matter() {
        assert_eq!(text(&"a"), text(&String::from("a")));
        assert_eq!(text(&"a"), text(&Arc::<str>::from("a")));
        assert_eq!(text(&"a"), text(&Cow::Borrowed("a")));
        assert_eq!(text(&[1, 2].as_slice()), text(&vec![1_u64, 2]));
        assert_eq!(text(&7_u8), text(&7_i128));
        assert_eq!(text(&[255_u8, 0]), "xff00");
    }

    proptest! {
        #[test]
        fn calls_with_different_arguments_never_share_a_key(
            a in (".{0,3}", proptest::option::of(-11_i64..11), proptest::collection::vec(".{0,2}", 0..3), any::<bool>()),
            b in (".{0,3}", proptest::option::of(-11_i64..11), proptest::collection::vec(".{0,2}", 0..3), any::<bool>()),
        ) {
            let key = |args: &(String, Option<i64>, Vec<String>, bool)| call_key("f", &[&args.0, &args.1, &args.2, &args.3]);
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }
}
