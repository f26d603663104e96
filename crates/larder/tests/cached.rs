//! What `#[cached]` promises: a function is called once for the same arguments, and never answers for others.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder::entry::Freshness;
use larder::key::{KeyPart, call_key};
use larder::testing::{Harness, Tiers};
use larder::time::{Ttl, hours, minutes};
use larder::{Cache, ErrorKind, Larder, cached};

/// A source that counts how often it is asked.
#[derive(Debug, Clone, Default)]
struct Source(Arc<AtomicUsize>);

impl Source {
    fn ask(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
    fn asked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Broken(u32);
impl Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "broken")
    }
}
impl std::error::Error for Broken {}

#[expect(clippy::unwrap_used, reason = "this is a test's setting")]
fn cache() -> (Harness, Cache<String>) {
    let harness = Harness::new(Tiers::Both);
    let cache = harness.stack.cache().unwrap();
    (harness, cache)
}

#[cached(cache = users, prefix = "user", skip(source))]
async fn user(users: &Cache<String>, source: &Source, id: u32, name: &str) -> Result<String, Broken> {
    source.ask();
    if name.is_empty() {
        return Err(Broken(id));
    }
    Ok(format!("{id}/{name}"))
}

#[tokio::test]
async fn a_function_is_called_once_for_the_same_arguments() {
    let (harness, users) = cache();
    let source = Source::default();
    for _ in 0..3 {
        assert_eq!(*user(&users, &source, 1, "a").await.unwrap(), "1/a");
    }
    assert_eq!(*user(&users, &source, 2, "a").await.unwrap(), "2/a");
    assert_eq!(*user(&users, &source, 1, "b").await.unwrap(), "1/b");
    assert_eq!(source.asked(), 3);
    // Five calls, five lookups: looking into memory first is not counted as one of its own.
    harness.finish(5).await;
}

#[tokio::test]
async fn the_key_is_the_one_that_call_key_makes() {
    let (_harness, users) = cache();
    let source = Source::default();
    user(&users, &source, 1, "a").await.unwrap();
    assert!(users.delete(&call_key("user", &[&1, &"a"])).await.unwrap());
    user(&users, &source, 1, "a").await.unwrap();
    assert_eq!(source.asked(), 2);
}

#[tokio::test]
async fn an_error_comes_back_as_it_was_and_is_not_kept() {
    let (_harness, users) = cache();
    let source = Source::default();
    for _ in 0..2 {
        let error = user(&users, &source, 7, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Load);
        assert_eq!(error.load_error::<Broken>(), Some(&Broken(7)));
    }
    assert_eq!(source.asked(), 2);
}

#[tokio::test]
async fn many_callers_at_once_are_one_call() {
    #[cached(cache = cache, skip(source, gate))]
    async fn slow(
        cache: Cache<String>,
        source: Source,
        gate: Arc<tokio::sync::Semaphore>,
    ) -> Result<String, Broken> {
        source.ask();
        let _permit = gate.acquire().await.unwrap();
        Ok("x".to_owned())
    }
    let (_harness, cache) = cache();
    let (source, gate) = (Source::default(), Arc::new(tokio::sync::Semaphore::new(0)));
    let calls: Vec<_> =
        (0..20).map(|_| tokio::spawn(slow(cache.clone(), source.clone(), gate.clone()))).collect();
    while source.asked() == 0 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    for call in calls {
        assert_eq!(*call.await.unwrap().unwrap(), "x");
    }
    assert_eq!(source.asked(), 1);
}

#[cached(cache = cache, skip(source))]
async fn tricky(
    cache: &Cache<String>,
    source: &Source,
    a: Option<String>,
    b: &[String],
    c: Cow<'static, str>,
) -> Result<String, Broken> {
    source.ask();
    Ok(format!("{a:?}{b:?}{c}"))
}

#[tokio::test]
async fn arguments_that_would_look_alike_when_joined_are_kept_apart() {
    let (_harness, cache) = cache();
    let source = Source::default();
    let strings = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let calls = [
        (None, strings(&[]), ""),
        (Some(""), strings(&[]), ""),
        (None, strings(&[""]), ""),
        (None, strings(&["", ""]), ""),
        (None, strings(&["a", "b"]), ""),
        (None, strings(&["ab"]), ""),
        (None, strings(&["a"]), "b"),
        (Some("a"), strings(&["b"]), ""),
        (Some("a:b"), strings(&[]), ""),
        (Some("None"), strings(&[]), ""),
        (Some("1:x"), strings(&["1:x"]), "1:x"),
    ];
    for _ in 0..2 {
        for (a, b, c) in &calls {
            let got = tricky(&cache, &source, a.map(str::to_owned), b, (*c).into()).await.unwrap();
            assert_eq!(*got, format!("{a:?}{b:?}{c}"));
        }
    }
    assert_eq!(source.asked(), calls.len());
}

#[tokio::test]
async fn arguments_too_long_for_a_key_are_kept_apart_too() {
    let (_harness, users) = cache();
    let source = Source::default();
    let (a, b) = ("x".repeat(2_000) + "a", "x".repeat(2_000) + "b");
    for _ in 0..2 {
        assert_eq!(*user(&users, &source, 1, &a).await.unwrap(), format!("1/{a}"));
        assert_eq!(*user(&users, &source, 1, &b).await.unwrap(), format!("1/{b}"));
    }
    assert_eq!(source.asked(), 2);
}

#[tokio::test]
async fn options_land_on_the_entry() {
    #[cached(cache = cache, prefix = "page", ttl = minutes(u64::from(id)), grace = hours(6), tags = ["pages", format!("page:{id}"), by])]
    async fn page(cache: &Cache<String>, id: u32, by: String) -> Result<String, Broken> {
        Ok(by)
    }
    let (harness, cache) = cache();
    page(&cache, 5, "ada".to_owned()).await.unwrap();
    let entry = cache.entry(&call_key("page", &[&5, &"ada"])).await.unwrap().unwrap();
    assert_eq!((entry.ttl_left, entry.life_left), (Some(minutes(5)), Some(hours(6) + minutes(5))));
    assert_eq!(entry.tags.iter().map(larder::Tag::as_str).collect::<Vec<_>>(), ["ada", "page:5", "pages"]);
    harness.clock.advance(minutes(5));
    let entry = cache.entry(&call_key("page", &[&5, &"ada"])).await.unwrap().unwrap();
    assert_eq!(entry.state, Freshness::Stale);
}

#[tokio::test]
async fn a_ttl_may_be_forever_and_an_option_may_fail() {
    fn by_request(ok: bool) -> larder::Result<Ttl> {
        if ok { Ok(Ttl::Forever) } else { Err(larder::Error::new(ErrorKind::Config, "no ttl")) }
    }
    #[cached(cache = cache, prefix = "p", ttl = by_request(ok)?)]
    async fn page(cache: &Cache<String>, ok: bool) -> Result<String, Broken> {
        Ok(String::new())
    }
    let (_harness, cache) = cache();
    page(&cache, true).await.unwrap();
    assert_eq!(cache.entry(&call_key("p", &[&true])).await.unwrap().unwrap().ttl_left, None);
    assert_eq!(page(&cache, false).await.unwrap_err().kind(), ErrorKind::Config);
}

#[derive(Debug, Clone)]
struct Repo<T> {
    cache: Cache<String>,
    source: Source,
    tenant: T,
}

impl<T: Display + KeyPart + Clone + Send + Sync + 'static> Repo<T> {
    #[cached(cache = self.cache)]
    async fn page(&self, id: u32) -> Result<String, Broken> {
        let helper = |n: u32| format!("{}:{n}", self.source.ask());
        Ok(helper(id))
    }

    /// Clones a pointer and not the repository.
    #[cached(cache = self.cache, key = (&self.tenant, id))]
    async fn shared(self: &Arc<Self>, id: u32) -> Result<String, Broken> {
        self.source.ask();
        Ok(format!("{}{id}", self.tenant))
    }

    #[cached(cache = self.cache)]
    async fn owned(mut self, id: u32) -> Result<String, Broken> {
        self.source.ask();
        self.cache = self.cache.clone();
        Ok(format!("{}{id}", self.tenant))
    }

    #[cached(cache = cache, skip(source))]
    async fn of<const N: usize>(cache: &Cache<String>, source: &Source) -> Result<String, Broken> {
        source.ask();
        Ok(format!("{} {N}", std::any::type_name::<T>()))
    }
}

struct Other {
    cache: Cache<String>,
}

impl Other {
    /// Its type is not `Clone`, and need not be: the body does not mention it.
    #[cached(cache = self.cache)]
    async fn page(&self, id: u32) -> Result<String, Broken> {
        Ok(format!("other {id}"))
    }
}

#[tokio::test]
async fn methods_of_different_types_never_share_an_entry() {
    let (_harness, cache) = cache();
    let source = Source::default();
    let repo = Repo { cache: cache.clone(), source: source.clone(), tenant: 'a' };
    let numbered = Repo { cache: cache.clone(), source: source.clone(), tenant: 1_u8 };
    let other = Other { cache };
    for _ in 0..2 {
        assert_eq!(*repo.page(1).await.unwrap(), "1:1");
        assert_eq!(*numbered.page(1).await.unwrap(), "2:1");
        assert_eq!(*other.page(1).await.unwrap(), "other 1");
    }
}

#[tokio::test]
async fn what_a_key_is_made_of_can_be_said() {
    let (_harness, cache) = cache();
    let source = Source::default();
    let repo = |tenant: &str| {
        Arc::new(Repo { cache: cache.clone(), source: source.clone(), tenant: tenant.to_owned() })
    };
    for _ in 0..2 {
        assert_eq!(*repo("a").shared(1).await.unwrap(), "a1");
        assert_eq!(*repo("b").shared(1).await.unwrap(), "b1");
        assert_eq!(*Repo::clone(&repo("c")).owned(1).await.unwrap(), "c1");
    }
    assert_eq!(source.asked(), 3);
}

#[tokio::test]
async fn generic_arguments_are_part_of_the_key() {
    let (_harness, cache) = cache();
    let source = Source::default();
    for _ in 0..2 {
        assert_eq!(*Repo::<char>::of::<1>(&cache, &source).await.unwrap(), "char 1");
        assert_eq!(*Repo::<char>::of::<2>(&cache, &source).await.unwrap(), "char 2");
        assert_eq!(*Repo::<u8>::of::<1>(&cache, &source).await.unwrap(), "u8 1");
    }
    assert_eq!(source.asked(), 3);
}

#[cached(cache = cache, skip(source))]
async fn generic<'a, T, S>(
    cache: &'a Cache<Vec<T>>,
    source: &Source,
    item: &'a T,
    mut count: usize,
    mut label: &'a S,
    note: impl KeyPart + Into<String> + Send + 'static,
) -> std::io::Result<Vec<T>>
where
    T: KeyPart + Clone + Send + Sync + serde::Serialize + serde::de::DeserializeOwned + 'static,
    S: AsRef<str> + KeyPart + ToOwned<Owned: Send + 'static> + ?Sized,
    S: Sync,
{
    let fallback = label;
    if label.as_ref().is_empty() {
        label = fallback;
    }
    count += source.ask() + note.into().len();
    tokio::task::yield_now().await;
    if count > 100 {
        Err(std::io::Error::other("too many"))?;
    }
    Ok(vec![item.clone(); count + label.as_ref().len()])
}

#[tokio::test]
async fn generics_lifetimes_and_impl_arguments_work() {
    let harness = Harness::new(Tiers::Both);
    let source = Source::default();
    let cache = harness.stack.cache::<Vec<String>>().unwrap();
    for _ in 0..2 {
        let got = generic(&cache, &source, &"x".to_owned(), 1, "", "").await.unwrap();
        assert_eq!(*got, ["x", "x"]);
    }
    let error = generic(&cache, &source, &"x".to_owned(), 200, "", "").await.unwrap_err();
    assert!(error.load_error::<std::io::Error>().is_some());
}

#[tokio::test]
async fn a_result_by_another_name_is_still_a_result() {
    type Answer = Result<String, Broken>;
    #[cached(cache = cache, skip(source))]
    async fn aliased(cache: &Cache<String>, source: &Source, ok: bool) -> Answer {
        source.ask();
        if ok { Ok("x".into()) } else { Err(Broken(1)) }
    }
    let (_harness, cache) = cache();
    let source = Source::default();
    for _ in 0..2 {
        // The trap of other macros: an alias is not recognised, and the error is kept.
        assert!(aliased(&cache, &source, false).await.is_err());
        assert_eq!(*aliased(&cache, &source, true).await.unwrap(), "x");
    }
    assert_eq!(source.asked(), 3);
}

#[tokio::test]
async fn a_cache_can_be_found_by_name_and_its_absence_is_the_callers_error() {
    #[derive(Clone)]
    struct App {
        larder: Larder,
        source: Source,
    }
    impl App {
        #[cached(larder = self.larder, name = "test")]
        async fn page(&self, id: u32) -> Result<String, Broken> {
            Ok(format!("{id} {}", self.source.ask()))
        }
        #[cached(larder = self.larder, name = name, skip(name))]
        async fn named(&self, name: &str) -> Result<String, Broken> {
            Ok(name.to_owned())
        }
    }
    let harness = Harness::new(Tiers::Both);
    let app = App { larder: Larder::new([harness.stack.clone()]).unwrap(), source: Source::default() };
    for _ in 0..2 {
        assert_eq!(*app.page(1).await.unwrap(), "1 1");
    }
    assert_eq!(*app.named("test").await.unwrap(), "test");
    assert_eq!(app.named("none").await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn patterns_names_of_the_macro_and_expressions_do_not_get_into_each_others_way() {
    fn choose(cache: &Cache<String>) -> Cache<String> {
        cache.clone()
    }
    #[cached(cache = choose(&store), key = (a + b, key), ttl = minutes(ttl))]
    async fn odd(
        store: Cache<String>,
        (a, b): (u32, u32),
        key: &str,
        ttl: u64,
        mut load: String,
    ) -> Result<String, Broken> {
        let found = store.has("nothing").await.map_err(|_| Broken(0))?;
        load.push_str(key);
        Ok(format!("{a} {b} {load} {ttl} {found}"))
    }
    let (_harness, cache) = cache();
    assert_eq!(*odd(cache.clone(), (1, 2), "k", 3, "l".into()).await.unwrap(), "1 2 lk 3 false");
    assert_eq!(*odd(cache, (2, 1), "k", 3, "m".into()).await.unwrap(), "1 2 lk 3 false");
}

trait Pages {
    async fn page(&self, id: u32) -> larder::Result<Arc<String>>;
}

impl Pages for Other {
    #[cached(cache = self.cache)]
    async fn page(&self, id: u32) -> Result<String, Broken> {
        Ok(format!("trait {id}"))
    }
}

#[tokio::test]
async fn a_method_of_a_trait_has_entries_of_its_own() {
    let (_harness, cache) = cache();
    let other = Other { cache };
    for _ in 0..2 {
        assert_eq!(*other.page(1).await.unwrap(), "other 1");
        assert_eq!(*Pages::page(&other, 1).await.unwrap(), "trait 1");
    }
}

#[tokio::test]
async fn arguments_are_cloned_on_a_miss_only_and_only_those_that_the_body_mentions() {
    struct Pool(Source);
    impl Clone for Pool {
        fn clone(&self) -> Self {
            self.0.ask();
            Self(self.0.clone())
        }
    }
    #[cached(cache = cache, skip(used, _unused))]
    async fn f(cache: &Cache<String>, used: &Pool, _unused: &Pool, id: u32) -> Result<String, Broken> {
        Ok(format!("{} {id}", used.0.asked()))
    }
    let (_harness, cache) = cache();
    let (used, unused) = (Pool(Source::default()), Pool(Source::default()));
    for _ in 0..3 {
        assert_eq!(*f(&cache, &used, &unused, 1).await.unwrap(), "1 1");
    }
    assert_eq!((used.0.asked(), unused.0.asked()), (1, 0));
}

#[deny(warnings)]
mod quiet {
    use larder::{Cache, cached};

    #[cached(cache = cache, key = id + 1, tags = [(id + 1).to_string()])]
    #[rustfmt::skip]
    pub(crate) async fn short(cache: &Cache<u32>, id: u32) -> Result<u32, std::io::Error> { Ok(id) }

    /// Calls itself, for another key; the compiler wants to be told in between that the future is `Send`.
    #[cached(cache = cache)]
    pub(crate) async fn sum(cache: &Cache<u32>, to: u32) -> Result<u32, larder::Error> {
        if to == 0 {
            return Ok(0);
        }
        Ok(to + *boxed_sum(cache, to - 1).await?)
    }

    type Sum<'a> = std::pin::Pin<Box<dyn Future<Output = larder::Result<std::sync::Arc<u32>>> + Send + 'a>>;

    fn boxed_sum(cache: &Cache<u32>, to: u32) -> Sum<'_> {
        Box::pin(sum(cache, to))
    }
}

#[tokio::test]
async fn short_bodies_draw_no_warnings_and_functions_may_call_themselves() {
    let harness = Harness::new(Tiers::Both);
    let cache = harness.stack.cache().unwrap();
    assert_eq!(*quiet::short(&cache, 7).await.unwrap(), 7);
    assert_eq!(*quiet::sum(&cache, 10).await.unwrap(), 55);
    assert_eq!(harness.stack.stats().lookups(), 12);
}
