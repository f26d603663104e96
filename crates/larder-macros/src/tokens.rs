//! Questions to token streams: is a name mentioned, is something borrowed; and `self` under another name.
//!
//! Tokens and not syntax trees, because the arguments of other macros (`format!("{id}")`) are tokens only.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;

/// Whether code may mean a variable by this name: as an identifier, or inside a string that a macro may read.
pub(crate) fn mention(tokens: TokenStream, name: &Ident) -> bool {
    let name = name.unraw().to_string();
    any(tokens, &mut |token| match token {
        TokenTree::Ident(ident) => ident.unraw() == name,
        TokenTree::Literal(literal) => literal.to_string().contains(&name),
        _ => false,
    })
}

fn any(tokens: TokenStream, found: &mut impl FnMut(&TokenTree) -> bool) -> bool {
    tokens.into_iter().any(|token| match &token {
        TokenTree::Group(group) => any(group.stream(), found),
        token => found(token),
    })
}

/// Where a type borrows, other than from the whole program: a `&` or a lifetime that is not `'static`.
///
/// What stands in the parentheses of `fn(…)` and `Fn(…)` is not held by a value of that type.
pub(crate) fn borrowed(tokens: TokenStream) -> Option<Span> {
    let mut tokens = tokens.into_iter().peekable();
    let mut is_function = false;
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == '&' && !is_punct(tokens.peek(), '\'') => {
                return Some(punct.span());
            }
            TokenTree::Punct(punct) if punct.as_char() == '\'' && !is_word(tokens.peek(), "static") => {
                return tokens.next().map(|name| name.span());
            }
            TokenTree::Group(group) if !is_function => {
                if let Some(span) = borrowed(group.stream()) {
                    return Some(span);
                }
            }
            _ => {}
        }
        let functions = ["fn", "Fn", "FnMut", "FnOnce"];
        is_function = matches!(&token, TokenTree::Ident(name) if functions.iter().any(|one| name == one));
    }
    None
}

/// The first of these words in some code.
pub(crate) fn word(tokens: TokenStream, words: &[&str]) -> Option<Ident> {
    let mut first = None;
    any(tokens, &mut |token| {
        if let TokenTree::Ident(ident) = token
            && words.iter().any(|word| ident == word)
        {
            first = Some(ident.clone());
        }
        first.is_some()
    });
    first
}

/// A function's body with `self` under another name. Functions, `impl`s and traits inside have their own.
///
/// # Errors
/// At a string in which a macro would read `{self}`: strings are not changed.
pub(crate) fn rename_self(body: TokenStream, to: &Ident) -> syn::Result<TokenStream> {
    rename(body, to, false)
}

fn rename(body: TokenStream, to: &Ident, in_macro: bool) -> syn::Result<TokenStream> {
    let mut out = TokenStream::new();
    let mut tokens = body.into_iter().peekable();
    let mut before: Option<TokenTree> = None;
    let mut is_item = false;
    while let Some(token) = tokens.next() {
        let renamed = match &token {
            TokenTree::Ident(ident) if ident == "self" && !is_item => {
                let is_path = is_punct(tokens.peek(), ':') && !is_punct(before.as_ref(), ':');
                if is_path {
                    token.clone()
                } else {
                    Ident::new(&to.to_string(), to.span().located_at(ident.span())).into()
                }
            }
            TokenTree::Group(group) if !(is_item && group.delimiter() == Delimiter::Brace) => {
                let in_macro = in_macro || is_punct(before.as_ref(), '!');
                let mut inner = Group::new(group.delimiter(), rename(group.stream(), to, in_macro)?);
                inner.set_span(group.span());
                inner.into()
            }
            TokenTree::Literal(literal) if in_macro && literal.to_string().contains("{self") => {
                return Err(syn::Error::new(
                    literal.span(),
                    "a cached method cannot read `self` inside a string: write it as an argument of the macro",
                ));
            }
            token => token.clone(),
        };
        is_item = match &token {
            TokenTree::Ident(ident) if ident == "fn" => matches!(tokens.peek(), Some(TokenTree::Ident(_))),
            TokenTree::Ident(ident) if ident == "impl" || ident == "trait" => {
                starts_statement(before.as_ref())
            }
            TokenTree::Group(group) => is_item && group.delimiter() != Delimiter::Brace,
            TokenTree::Punct(punct) => is_item && punct.as_char() != ';',
            _ => is_item,
        };
        out.extend([renamed]);
        before = Some(token);
    }
    Ok(out)
}

fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == word)
}

fn starts_statement(before: Option<&TokenTree>) -> bool {
    match before {
        None => true,
        Some(TokenTree::Punct(punct)) => punct.as_char() == ';',
        Some(TokenTree::Group(group)) => group.delimiter() != Delimiter::Parenthesis,
        Some(TokenTree::Ident(ident)) => ident == "unsafe" || ident == "pub",
        Some(TokenTree::Literal(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(body: &str) -> syn::Result<String> {
        let this = Ident::new("this", Span::call_site());
        let tokens = rename_self(body.parse().unwrap(), &this)?;
        let plain: TokenStream = body.replace("self", "this").parse().unwrap();
        // "=" where every `self` was renamed, else the whole.
        Ok(if tokens.to_string() == plain.to_string() { "=".into() } else { tokens.to_string() })
    }

    #[test]
    fn self_is_renamed_wherever_it_is_the_receiver() {
        for body in [
            "{ self.db.get(id).await? }",
            "{ let f = |x: fn(u32) -> u32| x(self.a); f }",
            r#"{ println!("{}", self.a); vec![self.b; 2] }"#,
            "{ let f: fn(u32) -> u32 = g; if f(1) == 1 { self.x } else { y(self) } }",
            "{ match self { _ if true => self, _ => self } }",
        ] {
            assert_eq!(renamed(body).unwrap(), "=", "{body}");
        }
    }

    #[test]
    fn functions_and_impls_inside_keep_their_own_self() {
        let kept = renamed("{ impl X for Y { fn a(&self) { self.b() } } self.c() }").unwrap();
        assert!(kept.contains("self . b ()") && kept.contains("this . c ()"), "{kept}");
        let kept = renamed("{ fn a(y: self::Y) -> u32 { self::b() } self.c() }").unwrap();
        assert!(kept.contains("self :: b ()") && kept.contains("this . c ()"), "{kept}");
        assert!(renamed("{ self::module::call() }").unwrap().contains("self :: module"));
        assert!(renamed("{ vec![self::call(), self.x] }").unwrap().contains("self :: call () , this . x"));
    }

    #[test]
    fn self_in_a_string_of_a_macro_is_an_error_there() {
        let error = renamed(r#"{ format!("{self:?}") }"#).unwrap_err();
        assert_eq!(error.span().source_text().unwrap(), r#""{self:?}""#);
        assert!(renamed(r#"{ "{self}".len() }"#).is_ok());
    }

    #[test]
    fn a_type_borrows_where_it_says_so() {
        let at = |ty: &str| borrowed(ty.parse().unwrap()).map(|span| span.source_text().unwrap());
        assert_eq!(at("Option<&str>").as_deref(), Some("&"));
        assert_eq!(at("(u32, Cow<'a, str>)").as_deref(), Some("a"));
        assert_eq!(at("Vec<&'a str>").as_deref(), Some("a"));
        assert_eq!(at("Arc<dyn Fn(&str) -> u32 + 'static>"), None);
        assert_eq!(at("fn(&str)"), None);
        assert_eq!(at("&'static str"), None);
    }

    #[test]
    fn a_name_in_a_format_string_is_a_mention() {
        let mentions = |code: &str| mention(code.parse().unwrap(), &Ident::new("id", Span::call_site()));
        assert!(mentions("a(id)") && mentions(r#"format!("{id:?}")"#) && mentions("{ { id } }"));
        assert!(!mentions("a(ids, \"x\")"));
    }
}
