//! Why a cache did what it did: types for programs, sentences for people.

use std::fmt;

use crate::header::Forward;

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $sentence:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = $sentence] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The sentence, with the section that it rests on.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $sentence,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a response is not stored.
    NotStorable {
        Method = "the answer to this method cannot be used for later requests (RFC 9111 section 3)",
        PostWithoutLocation = "an answer to POST is for later requests only if its Content-Location is the target and it says how long it is fresh (RFC 9110 section 9.3.3)",
        RequestContent = "the request has content, which the key does not have (RFC 9110 section 9.3.1)",
        OtherTarget = "the client was redirected, so that the response is of another target (RFC 9111 section 2)",
        Interim = "the response is not final (RFC 9111 section 3)",
        NotModified = "a 304 updates what is stored and is not stored itself (RFC 9111 section 4.3.4)",
        Conditional = "the status answers a condition or a range of this one request (RFC 9110 section 13.2)",
        ForbiddenStatus = "responses with this status must not be stored (RFC 6585 sections 3 to 6)",
        PartialUnusable = "the part of a representation cannot be told from the others (RFC 9111 section 3.3)",
        RequestNoStore = "the request has no-store (RFC 9111 section 5.2.1.5)",
        NoStore = "the response has no-store (RFC 9111 section 5.2.2.5)",
        NotUnderstood = "the response has must-understand, and what its status asks of a cache is not known here (RFC 9111 section 5.2.2.3)",
        Private = "the response is private, and this cache is shared (RFC 9111 section 5.2.2.7)",
        Authorization = "the request has Authorization, and the response does not say that others may have it (RFC 9111 section 3.5)",
        NotByDefault = "the response has neither explicit freshness nor a status that is cacheable without (RFC 9111 section 3)",
        VaryAny = "the response depends on more than the request (RFC 9111 section 4.1)",
        VaryMalformed = "the response does not say in a way that can be understood what it depends on (RFC 9111 section 4.1)",
        CookieByHeuristic = "the response sets a cookie and does not say that it may be kept (RFC 9111 section 7.3)",
        NothingToReuse = "the response could neither be used without validation nor be validated (RFC 9111 section 4)",
    }
}

reasons! {
    /// Why a request is answered as it is.
    Reason {
        Fresh = "it is fresh (RFC 9111 section 4.2)",
        Immutable = "it is fresh and will not change while it is (RFC 8246 section 2)",
        MaxStale = "it is stale, and the request takes it so (RFC 9111 section 5.2.1.2)",
        WhileRevalidate = "it is stale and may be used while it is validated (RFC 5861 section 3)",
        Disconnected = "it is stale, and the origin cannot be reached (RFC 9111 section 4.2.4)",
        IfError = "it is stale and may be used because the origin failed (RFC 5861 section 4)",
        StillFresh = "it is fresh, and the origin failed (RFC 9111 section 4.3.3)",
        Stale = "it is stale (RFC 9111 section 4.2)",
        Invalidated = "it was invalidated (RFC 9111 section 4.4)",
        NoCache = "it is not to be used without validation (RFC 9111 section 5.2.2.4)",
        RequestNoCache = "the request takes nothing without validation (RFC 9111 section 5.2.1.4)",
        RequestMaxAge = "it is older than the request takes (RFC 9111 section 5.2.1.1)",
        RequestMinFresh = "it will not be fresh as long as the request takes (RFC 9111 section 5.2.1.3)",
        OnlyIfCached = "the request takes only what is stored, and nothing that is can be used (RFC 9111 section 5.2.1.7)",
        NothingStored = "nothing is stored for this target (RFC 9111 section 4)",
        VaryMiss = "what is stored is for requests with other fields (RFC 9111 section 4.1)",
        Partial = "not all of what is asked for is stored (RFC 9111 section 3.3)",
        Method = "the method has to be passed on (RFC 9111 section 4)",
        Content = "the request has content, which may have changed the response (RFC 9110 section 9.3.1)",
        OriginCondition = "the request has a condition that only the origin can judge (RFC 9111 section 4.3.2)",
        MustRevalidate = "must-revalidate forbids to use it once stale (RFC 9111 section 5.2.2.2)",
        ProxyRevalidate = "proxy-revalidate forbids to use it once stale (RFC 9111 section 5.2.2.8)",
        SMaxage = "s-maxage forbids a shared cache to use it once stale (RFC 9111 section 5.2.2.10)",
        NotPermitted = "nothing permits to use it this far past its freshness (RFC 9111 section 4.2.4)",
        Confirmed = "the origin confirmed it (RFC 9111 section 4.3.4)",
        Replaced = "the origin sent another response (RFC 9111 section 4.3.3)",
        NotAFailure = "the origin answered, and the answer is no failure (RFC 9111 section 4.3.3)",
    }
}

impl std::error::Error for NotStorable {}

impl NotStorable {
    /// Whether it is the request that forbids to store its answer, so that it says nothing about what is stored.
    pub(crate) fn is_of_request(self) -> bool {
        matches!(self, Self::RequestNoStore | Self::Authorization)
    }
}

impl Reason {
    /// Why the request went on, as `Cache-Status` has it (RFC 9211 section 2.2); `None` if it did not.
    pub fn forward(self) -> Option<Forward> {
        match self {
            Self::Stale
            | Self::Invalidated
            | Self::NoCache
            | Self::MustRevalidate
            | Self::ProxyRevalidate
            | Self::SMaxage
            | Self::NotPermitted
            | Self::Confirmed
            | Self::Replaced
            | Self::IfError
            | Self::NotAFailure => Some(Forward::Stale),
            Self::RequestNoCache
            | Self::RequestMaxAge
            | Self::RequestMinFresh
            | Self::OriginCondition
            | Self::Content
            | Self::StillFresh => Some(Forward::Request),
            Self::NothingStored => Some(Forward::UriMiss),
            Self::VaryMiss => Some(Forward::VaryMiss),
            Self::Partial => Some(Forward::Partial),
            Self::Method => Some(Forward::Method),
            Self::Fresh
            | Self::Immutable
            | Self::MaxStale
            | Self::WhileRevalidate
            // What never arrived did not go forward (RFC 9211 section 2.1).
            | Self::Disconnected
            | Self::OnlyIfCached => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_a_sentence_with_its_section() {
        let all = NotStorable::ALL.iter().map(ToString::to_string);
        for sentence in all.chain(Reason::ALL.iter().map(ToString::to_string)) {
            assert!(sentence.contains("(RFC ") && sentence.contains(" section"), "{sentence}");
            assert!(sentence.ends_with(')') && !sentence.starts_with(char::is_uppercase), "{sentence}");
        }
    }
}
