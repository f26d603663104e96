//! x
mod expand;
mod function;
mod options;
mod tokens;
/// x
#[proc_macro_attribute]
pub fn cached(attribute: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand::expand(attribute.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}
