//! `Larder`: the stacks of an application, by name.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::advisor::{Advice, advise_together};
use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::stack::Stack;

/// Stacks by name. Cheap to clone.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use larder::{Larder, Stack, memory::MemoryOptions};
///
/// let larder = Larder::new([
///     Stack::builder("users").memory(MemoryOptions::new(10_000)).build()?,
///     Stack::builder("pages").memory(MemoryOptions::new(500)).build()?,
/// ])?;
/// let users = larder.cache::<String>("users")?;
/// users.set("42", "Ada".to_owned()).await?;
/// let error = larder.stack("user").unwrap_err();
/// assert_eq!(error.message(), r#"there is no stack "user"; there are: pages, users"#);
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Larder {
    stacks: Arc<BTreeMap<String, Stack>>,
    default: Option<Arc<str>>,
}

impl Larder {
    /// A larder of these stacks.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if two have the same name.
    pub fn new(stacks: impl IntoIterator<Item = Stack>) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for stack in stacks {
            let name = stack.name().to_owned();
            if by_name.insert(name.clone(), stack).is_some() {
                return Err(Error::new(ErrorKind::Config, format!("two stacks have the name {name:?}")));
            }
        }
        Ok(Self { stacks: Arc::new(by_name), default: None })
    }

    /// This larder with the stack of a name as its default one.
    ///
    /// # Errors
    /// As [`Larder::stack`].
    pub fn with_default(self, name: &str) -> Result<Self> {
        let default = self.stack(name)?.name().into();
        Ok(Self { default: Some(default), ..self })
    }

    /// The default stack: the one that [`Larder::with_default`] or a configuration's `default` names, else the only
    /// one there is.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the names that there are, if none is named and there is not exactly one.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Larder, Stack, memory::MemoryOptions};
    /// # let stack = |name: &str| Stack::builder(name).memory(MemoryOptions::new(10)).build();
    /// let larder = Larder::new([stack("users")?, stack("pages")?])?;
    /// let error = larder.default_stack().unwrap_err();
    /// assert_eq!(error.message(), "no stack is the default one; there are: pages, users");
    /// assert_eq!(larder.with_default("pages")?.default_stack()?.name(), "pages");
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn default_stack(&self) -> Result<&Stack> {
        if let Some(name) = &self.default {
            return self.stack(name);
        }
        let mut stacks = self.stacks.values();
        match (stacks.next(), stacks.next()) {
            (Some(only), None) => Ok(only),
            _ => {
                let message = format!("no stack is the default one; there are: {}", self.names());
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.stacks.keys().map(String::as_str).collect();
        names.join(", ")
    }

    /// The stack of a name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the names that there are, if there is none.
    pub fn stack(&self, name: &str) -> Result<&Stack> {
        self.stacks.get(name).ok_or_else(|| {
            let message = format!("there is no stack {name:?}; there are: {}", self.names());
            Error::new(ErrorKind::Config, message)
        })
    }

    /// A typed handle to the stack of a name: see [`Stack::cache`].
    ///
    /// # Errors
    /// As [`Larder::stack`] and [`Stack::cache`].
    #[cfg(any(feature = "json", feature = "messagepack"))]
    pub fn cache<V>(&self, name: &str) -> Result<Cache<V>>
    where
        V: serde::Serialize + serde::de::DeserializeOwned + Any + Send + Sync,
    {
        self.stack(name)?.cache()
    }

    /// A typed handle, without a codec, to the stack of a name: see [`Stack::memory_cache`].
    ///
    /// # Errors
    /// As [`Larder::stack`] and [`Stack::memory_cache`].
    pub fn memory_cache<V: Any + Send + Sync>(&self, name: &str) -> Result<Cache<V>> {
        self.stack(name)?.memory_cache()
    }

    /// All stacks, by name.
    pub fn stacks(&self) -> impl Iterator<Item = &Stack> {
        self.stacks.values()
    }

    /// What the options of these stacks should rather not say: [`Stack::advice`] of each, and what is to be said
    /// about them together.
    pub fn advice(&self) -> Vec<Advice> {
        let facts: Vec<_> = self.stacks().map(|stack| (stack.name(), stack.facts())).collect();
        let each = self.stacks().flat_map(Stack::advice).cloned();
        each.chain(advise_together(&facts)).collect()
    }

    /// Closes every stack: see [`Stack::close`].
    ///
    /// # Errors
    /// The first failure; the others are closed all the same.
    pub async fn close(&self) -> Result<()> {
        let mut outcome = Ok(());
        for stack in self.stacks.values() {
            let closed = stack.close().await;
            outcome = outcome.and(closed);
        }
        outcome
    }
}
