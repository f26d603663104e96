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
    let [cache, key, found, tags, load, answer] =
        ["cache", "key", "found", "tags", "load", "answer"].map(|name| Ident::new(name, Span::mixed_site()));
    let value = &returned.value;
    let whole = &returned.whole;
    let source = source(&options.source, value);
    let path = match &options.prefix {
        Some(prefix) => quote!(#prefix),
        None => quote!(::larder::expansion::path_of(&|| ())),
    };
    let parts = parts.iter().map(lend);
    let tag_list = options.tags.iter().map(|tag| {
        let tag_lent = lend(tag);
        quote_spanned!(at(tag)=> ::larder::expansion::tag(#tag_lent))
    });
    let with_tags = (!options.tags.is_empty())
        .then(|| quote!(.tags(::core::iter::Iterator::map(#tags.iter(), ::std::string::String::as_str))));
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
        let #tags: [::std::string::String; _] = [#(#tag_list),*];
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

/// A reference to an expression, about which the compiler complains where the expression stands.
fn lend<T: ToTokens>(expression: &T) -> TokenStream {
    quote_spanned!(at(expression)=> &(#expression))
}

/// Where something stands, for names that nothing of the user's can see.
fn at<T: ToTokens>(tokens: &T) -> Span {
    Span::mixed_site().located_at(tokens.span())
}
