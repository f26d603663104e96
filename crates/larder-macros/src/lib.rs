//! `#[cached]`: an async function that looks into a cache first. Use it from `larder` (feature `macros`).
//!
//! The attribute turns a function into two: the body becomes a loader, and what callers call makes a key from the
//! arguments and asks `Cache::get_or_set`, with all that this promises: one load
//! whoever asks, grace, tags, a write that wins over a load. Four questions had more than one answer:
//!
//! - **What does it return?** A hit is an `Arc<V>`, so the `-> Result<V, E>` that is written becomes
//!   `-> larder::Result<Arc<V>>` for callers. Inside the body everything is as written, `?` included. Cloning `V` on
//!   each hit, to keep the signature, would hide the largest cost that there is; and `E` alone could not say that a
//!   store failed.
//! - **What becomes of references?** A load belongs to its key and may outlive the call, so the body gets owned
//!   arguments: what the signature takes as `&T` is cloned (`ToOwned`: `&str` becomes a `String`) and lent to the
//!   body as `&T`. Only what the body mentions, and only after memory had no answer. Whatever cannot become owned
//!   is an error at its `&`.
//! - **Which cache?** An expression in scope of the function: an argument, a field, a call. No statics: a global
//!   cache for each function, as in other crates, has no tests of its own, no shared store and no close.
//! - **Which key?** The function's path with its generic arguments, then each argument with its length before it.
//!   The path is that of a closure inside the function, which alone knows the `impl` it stands in: neither
//!   `module_path!()` nor the name tells `A::page` from `B::page`.
//!
//! Rooms: `options` reads what stands in the parentheses, `function` looks at the signature, `expand` puts them
//! together, `tokens` answers questions about code as tokens. What the result calls lives in `larder::expansion`.

mod expand;
mod function;
mod options;
mod tokens;

use proc_macro::TokenStream;

/// Makes an async function or method look into a cache before it runs.
///
/// The function that is written as `-> Result<V, E>` **returns `larder::Result<Arc<V>>` to its callers**; in the
/// body nothing changes. An error of the function's own is inside: `error.load_error::<E>()`.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use larder::{Cache, Stack, cached, memory::MemoryOptions, time::{hours, minutes}};
/// # #[derive(Clone)] struct Database;
/// # impl Database { async fn name_of(&self, id: u32) -> Result<String, std::io::Error> { Ok(format!("Ada {id}")) } }
///
/// #[cached(cache = users, skip(database), ttl = minutes(5), grace = hours(6), tags = ["users", format!("user:{id}")])]
/// async fn user(users: &Cache<String>, database: &Database, id: u32) -> Result<String, std::io::Error> {
///     Ok(database.name_of(id).await?.to_uppercase())
/// }
///
/// let users = Stack::builder("users").memory(MemoryOptions::new(10_000)).build()?.cache()?;
/// assert_eq!(*user(&users, &Database, 7).await?, "ADA 7");
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Options
///
/// | Option | What it says | Default |
/// | --- | --- | --- |
/// | `cache = EXPR` | The cache: any expression for a `Cache<V>` or a reference to one. | needed |
/// | `larder = EXPR, name = EXPR` | In its place: the stack of a name in a `Larder`. | |
/// | `skip(ARG, …)` | Arguments that are not part of the key. | none |
/// | `key = EXPR` or `key = (EXPR, …)` | What the key is made of, in place of the arguments. | the arguments |
/// | `prefix = "…"` | What the key begins with. | the function's path, with its generic arguments |
/// | `ttl = EXPR` | A `Duration` or `Ttl`. | the cache's |
/// | `grace = EXPR` | A `Duration`. | the cache's |
/// | `tags = [EXPR, …]` | Each anything that is `AsRef<str>`. | none |
///
/// All expressions see the arguments, and may use `?` with errors of `larder`.
///
/// # The key
///
/// It is `larder::key::call_key(prefix, &[…])`, of all arguments but `self`, those in `skip`, and the one with which
/// the `cache` (or `larder`) expression begins: the cache or the thing that has it says where, not what. An argument
/// must be a `larder::key::KeyPart`, which integers, `bool`, `char`, text, bytes, `Option`, lists and tuples are, and
/// which takes three lines for a type of one's own. Floats are not.
///
/// **`self` is not in the key.** If two values of a type answer differently, say so: `key = (self.tenant, id)`.
///
/// The default prefix changes when the function is moved or renamed, and may with another compiler; what was cached
/// is then loaded anew. With a `prefix` the key is yours, so that others can `delete` it.
///
/// # Arguments
///
/// A load may outlive the call that started it, so whatever the body mentions moves into it. By value: as it is. As
/// `&T`: by `ToOwned`, on a miss only, and the body still sees a `&T`; so a connection pool, or `Self` of `&self`, has
/// to be `Clone`. Take `self: &Arc<Self>` where cloning is too much. As `&mut T`, or with a reference inside: not
/// at all. What the body does not mention is left alone.
///
/// ```
/// use std::sync::Arc;
/// use larder::{Cache, cached};
/// struct Books { pages: Cache<String>, tenant: u32 }
/// impl Books {
///     #[cached(cache = self.pages, key = (self.tenant, id, language))]
///     async fn page(self: &Arc<Self>, id: u32, language: &str) -> Result<String, std::io::Error> {
///         Ok(format!("page {id} of tenant {} in {language}", self.tenant))
///     }
/// }
/// ```
///
/// # What does not compile
///
/// Besides what the macro itself points at, an argument that is not a key part,
///
/// ```compile_fail,E0277
/// struct Address;
/// #[larder::cached(cache = cache)]
/// async fn find(cache: &larder::Cache<u32>, at: Address) -> Result<u32, std::io::Error> { Ok(1) }
/// ```
///
/// and a reference to what cannot be cloned.
///
/// ```compile_fail,E0277
/// struct Pool;
/// #[larder::cached(cache = cache, skip(pool))]
/// async fn find(cache: &larder::Cache<u32>, pool: &Pool) -> Result<u32, std::io::Error> { let _ = pool; Ok(1) }
/// ```
#[proc_macro_attribute]
pub fn cached(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(attribute.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// The page of the documentation, whose code is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/cached.md")]
mod page {}
