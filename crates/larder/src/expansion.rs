//! What `#[cached]` expands to calls of. Nothing here is for people, and nothing here is promised.
//!
//! It stands beside the doors and uses them as a user would, but for [`find`], which looks into memory before
//! the arguments are cloned.

use std::any::Any;
use std::sync::Arc;

use crate::cache::Cache;
use crate::error::Result;

/// What a cached function is written to return: any `Result`, whatever it is called there.
#[diagnostic::on_unimplemented(
    message = "a cached function returns a `Result`, not `{Self}`",
    label = "not a `Result`"
)]
pub trait Outcome {
    /// What is kept.
    type Value;
}

impl<V, E> Outcome for std::result::Result<V, E> {
    type Value = V;
}

/// The path of the function in which a closure was written, with its generic arguments, and those of its `impl`.
///
/// It may read differently with another compiler: entries of before are then misses.
pub fn path_of<F>(_closure_in_function: &F) -> &'static str {
    let mut path = std::any::type_name::<F>();
    // One for the closure, and one for each async body around it.
    while let Some(outer) = path.strip_suffix("::{{closure}}") {
        path = outer;
    }
    path
}

/// What memory has for a key, or why nothing can be looked up. With `None` no lookup has been counted.
pub fn find<V: Any + Send + Sync>(cache: &Cache<V>, key: &str) -> Option<Result<Arc<V>>> {
    match cache.enter(key) {
        Ok(now) => cache.look(key, now),
        Err(error) => Some(Err(error)),
    }
}

/// The owned form of an argument that the function takes by reference: the load may outlive the call.
pub fn own<T: ToOwned + ?Sized>(argument: &T) -> T::Owned {
    argument.to_owned()
}

/// A tag as its entry keeps it.
pub fn tag<T: AsRef<str> + ?Sized>(tag: &T) -> String {
    tag.as_ref().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Shelf<T>(T);
    impl<T> Shelf<T> {
        async fn path<U: Default>(&self) -> &'static str {
            let _ = (&self.0, U::default());
            path_of(&|| ())
        }
    }
    struct Other;
    impl Other {
        async fn path(&self) -> &'static str {
            path_of(&|| ())
        }
    }

    #[tokio::test]
    async fn a_path_tells_types_and_generic_arguments_apart() {
        let paths = [
            Shelf(1_u8).path::<char>().await,
            Shelf(1_u16).path::<char>().await,
            Shelf(1_u8).path::<bool>().await,
            Other.path().await,
        ];
        assert_eq!(paths[0], "larder::expansion::tests::Shelf<u8>::path<char>");
        for (index, path) in paths.iter().enumerate() {
            assert!(!paths[..index].contains(path), "{paths:?}");
        }
    }
}
