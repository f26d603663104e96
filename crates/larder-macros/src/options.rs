//! What stands in the parentheses of `#[cached(…)]`. Knows nothing of the function.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::spanned::Spanned as _;
use syn::{Error, Expr, Ident, Lit, LitStr, Result, Token, parenthesized};

const NAMES: [&str; 9] = ["cache", "larder", "name", "key", "prefix", "ttl", "grace", "tags", "skip"];

/// What people write who come from other memoizing attributes, and what is meant here.
const FOREIGN: [(&str, &str); 13] = [
    ("time", "ttl"),
    ("ttl_secs", "ttl"),
    ("ttl_millis", "ttl"),
    ("expire", "ttl"),
    ("expires", "ttl"),
    ("convert", "key"),
    ("namespace", "prefix"),
    ("cache_prefix_block", "prefix"),
    ("result_fallback", "grace"),
    ("ignore", "skip"),
    ("exclude", "skip"),
    ("create", "cache"),
    ("ty", "cache"),
];

/// Where the cache comes from.
pub(crate) enum Source {
    /// `cache = …`
    Cache(Box<Expr>),
    /// `larder = …, name = …`
    Named { larder: Box<Expr>, name: Box<Expr> },
}

/// The options, each at most once.
pub(crate) struct Options {
    pub(crate) source: Source,
    pub(crate) key: Option<Expr>,
    pub(crate) prefix: Option<LitStr>,
    pub(crate) ttl: Option<Expr>,
    pub(crate) grace: Option<Expr>,
    pub(crate) tags: Vec<Expr>,
    pub(crate) skip: Vec<Ident>,
}

impl Options {
    pub(crate) fn parse(attribute: TokenStream) -> Result<Self> {
        let found = Found::parse.parse2(attribute)?;
        if let (Some(_), Some((skip, _))) = (&found.key, &found.skip) {
            return Err(Error::new(
                *skip,
                "`key` already says what the key is made of: there is nothing to skip",
            ));
        }
        let source = match (found.cache, found.larder, found.name) {
            (Some((_, cache)), None, None) => Source::Cache(Box::new(cache)),
            (None, Some((_, larder)), Some((_, name))) => {
                Source::Named { larder: larder.into(), name: name.into() }
            }
            (Some(_), Some((at, _)), _) | (Some(_), None, Some((at, _))) => {
                return Err(Error::new(at, "`cache` already says which cache it is"));
            }
            (None, Some((at, _)), None) => {
                return Err(Error::new(at, "say which of its stacks: `larder = …, name = \"…\"`"));
            }
            (None, None, Some((at, _))) => {
                return Err(Error::new(at, "say where the name is looked up: `larder = …, name = \"…\"`"));
            }
            (None, None, None) => {
                return Err(Error::new(
                    Span::call_site(),
                    "say which cache: `#[cached(cache = …)]`, or `#[cached(larder = …, name = \"…\")]`",
                ));
            }
        };
        Ok(Self {
            source,
            key: found.key.map(|(_, key)| key),
            prefix: found.prefix.map(|(_, prefix)| prefix),
            ttl: found.ttl.map(|(_, ttl)| ttl),
            grace: found.grace.map(|(_, grace)| grace),
            tags: found.tags.map(|(_, tags)| tags).unwrap_or_default(),
            skip: found.skip.map(|(_, skip)| skip).unwrap_or_default(),
        })
    }
}

/// An option with the place of its name.
type At<T> = Option<(Span, T)>;

/// The options as they are written, before it is asked whether they make sense together.
#[derive(Default)]
struct Found {
    cache: At<Expr>,
    larder: At<Expr>,
    name: At<Expr>,
    key: At<Expr>,
    prefix: At<LitStr>,
    ttl: At<Expr>,
    grace: At<Expr>,
    tags: At<Vec<Expr>>,
    skip: At<Vec<Ident>>,
}

impl Parse for Found {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut found = Self::default();
        while !input.is_empty() {
            let option: Ident = input.parse()?;
            found.take(&option, input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(found)
    }
}

impl Found {
    fn take(&mut self, option: &Ident, input: ParseStream<'_>) -> Result<()> {
        match option.to_string().as_str() {
            "cache" => once(&mut self.cache, option, || value(option, input)),
            "larder" => once(&mut self.larder, option, || value(option, input)),
            "name" => once(&mut self.name, option, || value(option, input)),
            "key" => once(&mut self.key, option, || value(option, input)),
            "prefix" => once(&mut self.prefix, option, || prefix(option, input)),
            "ttl" => once(&mut self.ttl, option, || duration(option, input)),
            "grace" => once(&mut self.grace, option, || duration(option, input)),
            "tags" => once(&mut self.tags, option, || tags(option, input)),
            "skip" => once(&mut self.skip, option, || skip(option, input)),
            other => {
                let meant = FOREIGN
                    .iter()
                    .find_map(|(foreign, ours)| (*foreign == other).then_some(*ours))
                    .or_else(|| nearest(other, NAMES));
                let hint = match meant {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("there are: {}", NAMES.map(|name| format!("`{name}`")).join(", ")),
                };
                Err(Error::new(option.span(), format!("there is no option `{other}`; {hint}")))
            }
        }
    }
}

fn once<T>(slot: &mut At<T>, option: &Ident, parse: impl FnOnce() -> Result<T>) -> Result<()> {
    if slot.is_some() {
        return Err(Error::new(option.span(), format!("`{option}` is said twice")));
    }
    *slot = Some((option.span(), parse()?));
    Ok(())
}

fn value(option: &Ident, input: ParseStream<'_>) -> Result<Expr> {
    if !input.peek(Token![=]) {
        return Err(Error::new(option.span(), format!("`{option}` needs a value: `{option} = …`")));
    }
    input.parse::<Token![=]>()?;
    input.parse()
}

fn prefix(option: &Ident, input: ParseStream<'_>) -> Result<LitStr> {
    match value(option, input)? {
        Expr::Lit(literal) if matches!(literal.lit, Lit::Str(_)) => match literal.lit {
            Lit::Str(text) => Ok(text),
            other => Err(Error::new(other.span(), "a prefix is a string")),
        },
        other => {
            Err(Error::new(other.span(), "a prefix is a string, the same for every call: `prefix = \"…\"`"))
        }
    }
}

fn duration(option: &Ident, input: ParseStream<'_>) -> Result<Expr> {
    let value = value(option, input)?;
    match &value {
        Expr::Lit(literal) => Err(Error::new(
            literal.span(),
            format!("a `{option}` is a duration: `{option} = larder::time::seconds(…)`"),
        )),
        _ => Ok(value),
    }
}

fn tags(option: &Ident, input: ParseStream<'_>) -> Result<Vec<Expr>> {
    match value(option, input)? {
        Expr::Array(tags) => Ok(tags.elems.into_iter().collect()),
        other => {
            Err(Error::new(other.span(), "tags are a list: `tags = [\"users\", format!(\"user:{id}\")]`"))
        }
    }
}

fn skip(option: &Ident, input: ParseStream<'_>) -> Result<Vec<Ident>> {
    if !input.peek(syn::token::Paren) {
        return Err(Error::new(option.span(), "`skip` needs arguments in parentheses: `skip(db, log)`"));
    }
    let names;
    parenthesized!(names in input);
    // Any identifier, so that `self` is told why it cannot be skipped rather than that it is a keyword.
    Ok(names.parse_terminated(Ident::parse_any, Token![,])?.into_iter().collect())
}

/// The candidate that is most like a word, if any is like it at all.
pub(crate) fn nearest<S: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = S>) -> Option<S> {
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate.as_ref()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.as_ref().len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out or replaced to make one word of another.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (taken, a) in from.chars().enumerate() {
        let mut left = taken + 1;
        let mut above_left = taken;
        let mut next = vec![left];
        for (b, above) in to.chars().zip(row.iter().skip(1)) {
            left = (above_left + usize::from(a != b)).min(above + 1).min(left + 1);
            above_left = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message for options, and the token that it points at.
    fn complaint(options: &str) -> (String, String) {
        let error = Options::parse(options.parse().unwrap()).err().unwrap();
        (error.to_string(), error.span().source_text().unwrap_or_default())
    }

    #[track_caller]
    fn check(options: &str, message: &str, token: &str) {
        let (said, at) = complaint(options);
        assert!(said.contains(message), "{said}");
        assert_eq!(at, token, "{said}");
    }

    #[test]
    fn an_unknown_option_is_pointed_at_and_the_likely_one_named() {
        check("cache = c, tll = x", "no option `tll`; did you mean `ttl`?", "tll");
        check("cache = c, time = x", "did you mean `ttl`?", "time");
        check("cache = c, convert = x", "did you mean `key`?", "convert");
        check("cache = c, zzzzzz = x", "there are: `cache`, `larder`", "zzzzzz");
    }

    #[test]
    fn an_option_that_is_said_twice_is_pointed_at() {
        check("cache = c, ttl = a, ttl = b", "`ttl` is said twice", "ttl");
        let error = Options::parse("cache = c, ttl = a, ttl = b".parse().unwrap()).err().unwrap();
        assert_eq!(error.span().start().column, 20, "the second one");
    }

    #[test]
    fn a_missing_or_doubtful_cache_is_an_error_that_says_how() {
        assert!(complaint("ttl = x").0.contains("say which cache: `#[cached(cache = …)]`"));
        assert!(complaint("").0.contains("say which cache"));
        check("name = \"users\"", "say where the name is looked up", "name");
        check("larder = l", "say which of its stacks", "larder");
        check("cache = c, name = \"n\"", "already says which cache", "name");
    }

    #[test]
    fn values_of_the_wrong_sort_are_pointed_at() {
        check("cache = c, ttl = 300", "a `ttl` is a duration", "300");
        check("cache = c, grace = \"5m\"", "a `grace` is a duration", "\"5m\"");
        check("cache = c, tags = \"users\"", "tags are a list", "\"users\"");
        check("cache = c, prefix = p", "a prefix is a string", "p");
        check("cache = c, skip = db", "`skip` needs arguments in parentheses", "skip");
        check("cache = c, ttl", "`ttl` needs a value", "ttl");
        check("cache = c, key = id, skip(db)", "nothing to skip", "skip");
    }

    #[test]
    fn every_option_is_understood() {
        let options = r#"cache = self.cache, key = (id, lang), prefix = "p", ttl = minutes(5), grace = hours(1), tags = ["a", b],"#;
        let options = Options::parse(options.parse().unwrap()).unwrap();
        assert!(options.key.is_some() && options.ttl.is_some() && options.grace.is_some());
        assert_eq!((options.prefix.unwrap().value(), options.tags.len()), ("p".to_owned(), 2));
        let options = Options::parse(r#"larder = l, name = "n", skip(a, self,)"#.parse().unwrap()).unwrap();
        assert!(matches!(options.source, Source::Named { .. }));
        assert_eq!(options.skip.len(), 2);
    }
}
