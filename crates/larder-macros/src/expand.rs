//! From a function and its options to the function that looks into the cache first.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Error, Expr, ItemFn, Result, parse_quote};

use crate::function::{check, key_parts, pack, returned};
use crate::options::{Options, Source};

/// What `#[cached(attribute)] item` becomes.
///
/// # Errors
/// Each points at the token that is to blame.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = Options::parse(attribute)?;
    let mut function: ItemFn = syn::parse2(item).map_err(|error| {
        Error::new(
            error.span(),
            format!("`#[cached]` stands on an async function or method with a body: {error}"),
        )
    })?;
    check(&function, &options)?;
    let returned = returned(&function)?;
    let parts = key_parts(&function, &options)?;
    let luggage = pack(&mut function)?;

    // Of the macro's own context, so that they are not seen by the user's expressions.
    let [cache, key, found, load, answer] =
        ["cache", "key", "found", "load", "answer"].map(|name| Ident::new(name, Span::mixed_site()));
    let value = &returned.value;
    let whole = &returned.whole;
    let source = source(&options.source, value);
    let path = match &options.prefix {
        Some(prefix) => quote!(#prefix),
        None => quote!(::larder::expansion::path_of(&|| ())),
    };
    let parts = parts.iter().map(lend);
    let (set_tags, with_tags) = tags(&options.tags);
    let (set_ttl, with_ttl) = setting("ttl", options.ttl.as_ref());
    let (set_grace, with_grace) = setting("grace", options.grace.as_ref());
    let (packed, unpacked, body) = (&luggage.packed, &luggage.unpacked, &luggage.body);

    function.sig.output = parse_quote!(-> ::larder::Result<::std::sync::Arc<#value>>);
    *function.block = parse_quote!({
        let (#key, #cache) = {
            let #cache: &::larder::Cache<#value> = #source;
            let #key = ::larder::key::call_key(#path, &[#(#parts),*]);
            if let ::core::option::Option::Some(#found) = ::larder::expansion::find(#cache, &#key) {
                return #found;
            }
            (#key, ::core::clone::Clone::clone(#cache))
        };
        #set_tags
        #set_ttl
        #set_grace
        #packed
        let #load = move || async move {
            #unpacked
            // Never taken: it tells the compiler what `?` in the body converts its errors to.
            if let ::core::option::Option::Some(#answer) = ::core::option::Option::None::<#whole> {
                return #answer;
            }
            #body
        };
        ::larder::Cache::get_or_set(&#cache, &#key, #load)#with_ttl #with_grace #with_tags.await
    });
    Ok(function.into_token_stream())
}

/// A reference to the cache.
fn source(source: &Source, value: &TokenStream) -> TokenStream {
    match source {
        Source::Cache(cache) => lend(cache),
        Source::Named { larder, name } => {
            let (larder, name_lent) = (lend(larder), lend(name));
            quote_spanned!(at(name)=> &::larder::Larder::cache::<#value>(#larder, #name_lent)?)
        }
    }
}

/// The statement that evaluates an option, which comes before arguments move away, and the call that uses it.
fn setting(option: &str, value: Option<&Expr>) -> (TokenStream, TokenStream) {
    let Some(value) = value else { return (TokenStream::new(), TokenStream::new()) };
    let variable = Ident::new(option, at(value));
    let method = Ident::new(option, Span::call_site());
    (quote!(let #variable = #value;), quote!(.#method(#variable)))
}

/// The statement that makes the tags, and the call that uses them.
fn tags(tags: &[Expr]) -> (TokenStream, TokenStream) {
    if tags.is_empty() {
        return (TokenStream::new(), TokenStream::new());
    }
    let variable = Ident::new("tags", Span::mixed_site());
    let texts = tags.iter().map(|tag| {
        let lent = lend(tag);
        quote_spanned!(at(tag)=> ::larder::expansion::tag(#lent))
    });
    (
        quote!(let #variable = [#(#texts),*];),
        quote!(.tags(::core::iter::Iterator::map(#variable.iter(), ::std::string::String::as_str))),
    )
}

/// A reference to an expression, about which the compiler complains where the expression stands.
fn lend<T: ToTokens>(expression: &T) -> TokenStream {
    quote_spanned!(at(expression)=> &(#expression))
}

/// Where something stands, for names that nothing of the user's can see.
fn at<T: ToTokens>(tokens: &T) -> Span {
    Span::mixed_site().located_at(tokens.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds an attribute on a function to a message, and to the token that it points at.
    #[track_caller]
    fn check(options: &str, function: &str, message: &str, token: &str) {
        let error = expand(options.parse().unwrap(), function.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.span().source_text().unwrap_or_default(), token, "{error}");
    }

    #[test]
    fn only_async_functions_with_bodies_can_be_cached() {
        check("cache = c", "fn f(c: C) -> Result<u32, E> { Ok(1) }", "only async functions", "fn");
        check("cache = c", "struct S;", "stands on an async function", "struct");
        check("cache = c", "async fn f(c: C) -> Result<u32, E>;", "with a body", ";");
    }

    #[test]
    fn what_cannot_be_kept_is_pointed_at_in_the_return_type() {
        check("cache = c", "async fn f(c: C) {}", "returns a `Result`", ")");
        check("cache = c", "async fn f(c: C) -> Option<u32> { None }", "returns a `Result`", "Option<u32>");
        check("cache = c", "async fn f(c: C) -> Result<&str, E> { x }", "cannot borrow", "&");
        check("cache = c", "async fn f<'a>(c: &'a C) -> Result<Cow<'a, str>, E> { x }", "cannot borrow", "a");
        check("cache = c", "async fn f(c: C) -> Result<impl Display, E> { x }", "impl Trait", "impl");
    }

    #[test]
    fn what_is_skipped_must_be_an_argument() {
        let function = "async fn f(&self, c: C, pool: Db) -> Result<u32, E> { Ok(1) }";
        check("cache = c, skip(poll)", function, "no argument `poll`; did you mean `pool`?", "poll");
        check("cache = c, skip(request)", function, "there is no argument `request`", "request");
        check("cache = c, skip(pool, pool)", function, "skipped twice", "pool");
        check("cache = c, skip(self)", function, "`self` is never part of the key", "self");
    }

    #[test]
    fn what_cannot_be_part_of_a_key_is_pointed_at() {
        let message = "a pattern has no name";
        check("cache = c", "async fn f(c: C, (a, b): (u32, u32)) -> R { x }", message, "(a, b)");
        check("cache = c", "async fn f(c: C, _: u32) -> R { x }", message, "_");
        check("cache = c", "async fn f(c: C, at: Option<f64>) -> R { x }", "a float cannot be part", "f64");
        assert!(
            expand(
                "cache = c, skip(at)".parse().unwrap(),
                "async fn f(c: C, at: f64) -> R { x }".parse().unwrap()
            )
            .is_ok()
        );
    }

    #[test]
    fn what_cannot_move_into_the_loader_is_pointed_at() {
        check("cache = c", "async fn f(c: C, x: &mut Db) -> R { x.get() }", "lent to it mutably", "mut");
        check("cache = self.c", "async fn f(&mut self) -> R { self.get() }", "lent to it mutably", "mut");
        check(
            "cache = self.c",
            "async fn f(self: &mut Self) -> R { self.get() }",
            "lent to it mutably",
            "mut",
        );
        check("cache = c", "async fn f(c: C, x: Option<&str>) -> R { x.get() }", "a reference inside", "&");
        check("cache = c", "async fn f(c: C, x: &[&str]) -> R { x.get() }", "a reference inside", "&");
        check("cache = c", "async fn f<'a>(c: C, x: User<'a>) -> R { x.get() }", "a reference inside", "a");
        let unused = "async fn f(c: C, x: Option<&str>) -> R { y() }";
        assert!(expand("cache = c".parse().unwrap(), unused.parse().unwrap()).is_ok());
    }

    #[test]
    fn a_prefix_on_a_generic_function_needs_a_key() {
        let function = "async fn f<'a, T: X>(c: &'a C, id: u32) -> R { x::<T>(id) }";
        check("cache = c, prefix = \"f\"", function, "tells them apart with `key = (…)`", "T: X");
        let ok = expand("cache = c, prefix = \"f\", key = id".parse().unwrap(), function.parse().unwrap());
        assert!(ok.is_ok());
    }
}
