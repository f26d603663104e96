//! The function under the attribute: what of it is part of the key, and how it gets into the loader.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Error, Expr, FnArg, GenericArgument, GenericParam, ItemFn, Pat, PatType, PathArguments};
use syn::{Receiver, ReceiverKind, Result, ReturnType, Type, TypeReference};

use crate::options::{Options, Source, nearest};
use crate::tokens::{borrowed, mention, rename_self, word};

/// What the function returns, as it is written.
pub(crate) struct Returned {
    /// The whole type.
    pub(crate) whole: Type,
    /// The type of what is kept.
    pub(crate) value: TokenStream,
}

/// How what the body mentions comes into the loader.
#[derive(Default)]
pub(crate) struct Luggage {
    /// Statements before the loader: arguments become owned.
    pub(crate) packed: TokenStream,
    /// Statements inside the loader: they look as the signature says again.
    pub(crate) unpacked: TokenStream,
    /// The body, with `self` under another name if there is one.
    pub(crate) body: TokenStream,
}

/// Whether the attribute can be on this function at all.
pub(crate) fn check(function: &ItemFn, options: &Options) -> Result<()> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        let message = "only async functions can be cached: a load is awaited (if another attribute has already \
                       rewritten this one, put `#[cached]` above it)";
        return Err(Error::new(signature.fn_token.span(), message));
    }
    let parameters = signature.generics.params.iter();
    let generic =
        parameters.filter(|one| !matches!(one, GenericParam::Lifetime(_))).map(syn::spanned::Spanned::span);
    if let (Some(_), None, Some(at)) = (&options.prefix, &options.key, generic.into_iter().next()) {
        let message = "with a `prefix`, calls with different generic arguments would share their keys: say what \
                       tells them apart with `key = (…)`, or leave the prefix out";
        return Err(Error::new(at, message));
    }
    for name in &options.skip {
        check_skip(function, options, name)?;
    }
    Ok(())
}

fn check_skip(function: &ItemFn, options: &Options, name: &Ident) -> Result<()> {
    if name == "self" {
        return Err(Error::new(name.span(), "`self` is never part of the key"));
    }
    if options.skip.iter().filter(|other| *other == name).count() > 1 {
        return Err(Error::new(name.span(), format!("`{name}` is skipped twice")));
    }
    let arguments: Vec<Ident> = named_arguments(function).map(|(name, _)| name.clone()).collect();
    if arguments.contains(name) {
        return Ok(());
    }
    let hint = nearest(&name.to_string(), arguments.iter().map(ToString::to_string))
        .map(|near| format!("; did you mean `{near}`?"));
    Err(Error::new(name.span(), format!("there is no argument `{name}`{}", hint.unwrap_or_default())))
}

/// What the function returns.
pub(crate) fn returned(function: &ItemFn) -> Result<Returned> {
    let ReturnType::Type(_, whole) = &function.sig.output else {
        let message = "a cached function returns a `Result`: a load can fail";
        return Err(Error::new(function.sig.paren_token.span.close(), message));
    };
    if let Some(at) = borrowed(whole.to_token_stream()) {
        return Err(Error::new(
            at,
            "what is cached outlives the call, so it cannot borrow: return owned values",
        ));
    }
    if let Some(at) = word(whole.to_token_stream(), &["impl"]) {
        return Err(Error::new(
            at.span(),
            "what is cached has one type, with a name: it cannot be an `impl Trait`",
        ));
    }
    if is_plain(whole) {
        return Err(Error::new(whole.span(), "a cached function returns a `Result`: a load can fail"));
    }
    let value = match value_of(whole) {
        Some(value) => value.to_token_stream(),
        // A type by another name: what it stands for is known to the compiler alone.
        None => quote!(<#whole as ::larder::expansion::Outcome>::Value),
    };
    Ok(Returned { whole: (**whole).clone(), value })
}

/// `V` of `Result<V, E>`, `io::Result<V>` and the like.
fn value_of(whole: &Type) -> Option<&Type> {
    let Type::Path(path) = whole else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(value) => Some(value),
        _ => None,
    }
}

/// Whether a type is surely no `Result`. Of others the compiler says so, in more words.
fn is_plain(whole: &Type) -> bool {
    const PLAIN: [&str; 20] = [
        "Option", "Vec", "String", "Box", "Arc", "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize",
        "i8", "i16", "i32", "i64", "i128", "isize", "HashMap",
    ];
    match whole {
        Type::Path(path) => {
            path.path.segments.last().is_some_and(|last| PLAIN.iter().any(|one| last.ident == one))
        }
        Type::Tuple(_) | Type::Array(_) => true,
        _ => false,
    }
}

/// The arguments with a name, and what they are.
fn named_arguments(function: &ItemFn) -> impl Iterator<Item = (&Ident, &PatType)> {
    function.sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(argument) => name_of(argument).map(|name| (name, argument)),
        FnArg::Receiver(_) => None,
    })
}

fn name_of(argument: &PatType) -> Option<&Ident> {
    match &*argument.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => Some(&pattern.ident),
        _ => None,
    }
}

/// The expressions that are part of the key.
pub(crate) fn key_parts(function: &ItemFn, options: &Options) -> Result<Vec<TokenStream>> {
    match &options.key {
        Some(Expr::Tuple(parts)) => return Ok(parts.elems.iter().map(|part| quote!(#part)).collect()),
        Some(part) => return Ok(vec![quote!(#part)]),
        None => {}
    }
    let handle = match &options.source {
        Source::Cache(source) | Source::Named { larder: source, .. } => root(source),
    };
    let mut parts = Vec::new();
    for input in &function.sig.inputs {
        let FnArg::Typed(argument) = input else { continue };
        let Some(name) = name_of(argument) else {
            let message =
                "a pattern has no name to be part of the key: name the argument, or say `key = (…)`";
            return Err(Error::new(argument.pat.span(), message));
        };
        if handle == Some(name) || options.skip.contains(name) {
            continue;
        }
        if let Some(float) = word(argument.ty.to_token_stream(), &["f32", "f64"]) {
            let message = format!(
                "a float cannot be part of the key: equal ones may look different; say `skip({name})`, or what the \
                 key is made of with `key = (…)`"
            );
            return Err(Error::new(float.span(), message));
        }
        parts.push(quote!(#name));
    }
    Ok(parts)
}

/// The variable at the beginning of an expression: `repo` of `repo.caches().users`.
fn root(expression: &Expr) -> Option<&Ident> {
    match expression {
        Expr::Path(path) => path.path.get_ident(),
        Expr::Field(field) => root(&field.base),
        Expr::MethodCall(call) => root(&call.receiver),
        Expr::Reference(reference) => root(&reference.expr),
        Expr::Unary(unary) => root(&unary.expr),
        Expr::Paren(inner) => root(&inner.expr),
        Expr::Group(inner) => root(&inner.expr),
        Expr::Try(inner) => root(&inner.expr),
        Expr::Await(inner) => root(&inner.base),
        Expr::Index(inner) => root(&inner.expr),
        _ => None,
    }
}

/// Moves what the body mentions into the loader. Arguments by value are simply captured.
pub(crate) fn pack(function: &mut ItemFn) -> Result<Luggage> {
    // Its statements: in braces of their own they would be reported as superfluous ones of the user's.
    let statements = &function.block.stmts;
    let mut luggage = Luggage { body: quote!(#(#statements)*), ..Luggage::default() };
    let written = luggage.body.clone();
    for input in &mut function.sig.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                if word(written.clone(), &["self"]).is_some()
                    || mention(written.clone(), &receiver_name(receiver))
                {
                    pack_receiver(receiver, &mut luggage)?;
                }
            }
            FnArg::Typed(argument) => {
                if name_of(argument).is_some_and(|name| mention(written.clone(), name)) {
                    pack_argument(argument, &mut luggage)?;
                }
            }
        }
    }
    Ok(luggage)
}

fn receiver_name(receiver: &Receiver) -> Ident {
    Ident::new("self", receiver.self_token.span())
}

fn pack_receiver(receiver: &mut Receiver, luggage: &mut Luggage) -> Result<()> {
    let this = Ident::new("larder_self", Span::mixed_site());
    let owned = Ident::new("larder_own_self", Span::mixed_site());
    let token = receiver.self_token;
    let own = quote::quote_spanned!(token.span()=> ::larder::expansion::own(#token));
    let reference = match &receiver.kind {
        ReceiverKind::Value => None,
        ReceiverKind::Reference(_, _, mutability) => Some(*mutability),
        ReceiverKind::Typed(_, ty) => match &**ty {
            Type::Reference(TypeReference { mutability, .. }) => Some(*mutability),
            _ => None,
        },
        _ => {
            return Err(Error::new(
                token.span(),
                "a cached method takes `&self`, `self`, or `self: &Arc<Self>`",
            ));
        }
    };
    match reference {
        Some(Some(mutable)) => return Err(lent_mutably(mutable.span())),
        Some(None) => {
            luggage.packed.extend(quote!(let #owned = #own;));
            luggage.unpacked.extend(quote!(let #this = &#owned;));
        }
        None => {
            let mutable = receiver.mutability.take();
            luggage.packed.extend(quote!(let #owned = #token;));
            luggage.unpacked.extend(quote!(let #mutable #this = #owned;));
        }
    }
    luggage.body = rename_self(std::mem::take(&mut luggage.body), &this)?;
    Ok(())
}

fn pack_argument(argument: &mut PatType, luggage: &mut Luggage) -> Result<()> {
    let inner = match &*argument.ty {
        Type::Reference(TypeReference { mutability: Some(mutable), .. }) => {
            return Err(lent_mutably(mutable.span()));
        }
        Type::Reference(reference) if reference.lifetime.as_ref().is_none_or(|one| one.ident != "static") => {
            Some((*reference.elem).clone())
        }
        _ => None,
    };
    let held = inner.as_ref().unwrap_or(&argument.ty);
    if let Some(at) = borrowed(held.to_token_stream()) {
        let message = "the load may outlive the call, so an argument cannot hold a reference inside: take an owned \
                       one, or a reference to an owned one";
        return Err(Error::new(at, message));
    }
    let (Some(inner), Pat::Ident(pattern)) = (inner, &mut *argument.pat) else { return Ok(()) };
    let name = pattern.ident.clone();
    let mutable = pattern.mutability.take();
    let owned = format_ident!("larder_own_{}", name.unraw(), span = Span::mixed_site());
    let own = quote::quote_spanned!(name.span()=> ::larder::expansion::own(#name));
    luggage.packed.extend(quote!(let #owned = #own;));
    luggage.unpacked.extend(match word(inner.to_token_stream(), &["impl"]) {
        // Such a type cannot be written here; without `?Sized` its owned form is itself.
        Some(_) => quote!(let #mutable #name = &#owned;),
        None => quote!(let #mutable #name: &#inner = ::core::borrow::Borrow::<#inner>::borrow(&#owned);),
    });
    Ok(())
}

fn lent_mutably(at: Span) -> Error {
    Error::new(at, "the load may outlive the call, so nothing can be lent to it mutably")
}
