//! How old a response is (RFC 9111 section 4.2.3).

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::Exchange;
use super::freshness::generated_at;
use crate::header;

/// Its age when it was received.
pub(super) fn initial(headers: &HeaderMap, times: Exchange) -> Duration {
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
    //# apparent_age = max(0, response_time - date_value);
    let apparent = since(times.received_at, generated_at(headers, times.received_at));
    // `Date` has whole seconds: of what is less, nobody knows whether it has passed.
    let apparent = Duration::from_secs(apparent.as_secs());
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
    //# response_delay = response_time - request_time;
    //# corrected_age_value = age_value + response_delay;
    let delay = since(times.received_at, times.requested_at);
    let corrected = header::age::parse(headers).unwrap_or_default().saturating_add(delay);
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
    //# corrected_initial_age = max(apparent_age, corrected_age_value);
    apparent.max(corrected)
}

/// Its age now.
//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
//# resident_time = now - response_time;
//# current_age = corrected_initial_age + resident_time;
pub(super) fn current(initial: Duration, received_at: SystemTime, now: SystemTime) -> Duration {
    initial.saturating_add(since(now, received_at))
}

/// How much later one time is than another; zero if it is not.
fn since(later: SystemTime, earlier: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}
