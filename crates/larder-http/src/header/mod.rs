//! What header fields that matter to a cache say: parsers, and one writer.
//!
//! Every parser takes whatever a peer may send, in work and memory that are linear in its length, and never panics.
//! What a field means for a response is not known here: that is [`policy`](crate::policy).

pub mod age;
pub mod cache_control;
pub mod cache_status;
pub mod connection;
pub mod date;
pub mod etag;
pub mod groups;
pub mod no_vary_search;
pub mod range;
pub mod request_directives;
pub mod targeted;
pub mod vary;

mod lexer;

pub use cache_control::{CacheControl, Delta, Extent};
pub use cache_status::{CacheStatus, Forward};
pub use etag::{EntityTag, TagList};
pub use no_vary_search::{NO_VARY_SEARCH, NoVarySearch};
pub use range::{ByteRange, ContentRange, Ranges, Span};
pub use request_directives::{MaxStale, RequestDirectives};
pub use vary::Vary;

pub(crate) use lexer::{Escapes, Members, is_token, lines, token_words, trim, unquote};
