//! Accounts in words, for people; and numbers for programs.

use std::fmt;
use std::time::Duration;

use super::{Account, Because, Fact, Finding, Load, NotKept, Step, WaitEnd};
use crate::entry::Freshness;
use crate::event::Tier;

impl fmt::Display for Account {
    /// A line for each step: when it was, of which key if there are several, and what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |step: &Step| step.key.as_ref().map(|key| (step.namespace.clone(), key.clone()));
        let mut names: Vec<_> = self.steps.iter().filter_map(name).collect();
        names.dedup();
        let has_several = names.iter().any(|name| Some(name) != names.first());
        for step in &self.steps {
            write!(f, "{:>9}  ", Span(step.at).to_string())?;
            if let (true, Some(key)) = (has_several, &step.key) {
                match step.namespace.as_str() {
                    "" => write!(f, "{key:?}: ")?,
                    namespace => write!(f, "{:?}: ", format!("{namespace}:{key}"))?,
                }
            }
            writeln!(f, "{}", step.what)?;
        }
        if self.omitted > 0 {
            writeln!(f, "           and {} steps more", self.omitted)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looked { tier, found } => write!(f, "{}: {found}", word(*tier)),
            Self::Called { driver, operation, took, error: None } => {
                write!(f, "store: {operation} on {driver} took {}", Span(*took))
            }
            Self::Called { driver, operation, took, error: Some(error) } => {
                write!(f, "store: {operation} on {driver} failed after {}: {error}", Span(*took))
            }
            Self::Refused { driver, operation, left } => {
                write!(f, "store: {operation} on {driver} was not tried, because its breaker is open ")?;
                match left {
                    Some(left) => write!(f, "for {} more", Span(*left)),
                    None => f.write_str("while another call tries it"),
                }
            }
            Self::Heeded => {
                f.write_str("store: a write that it did not take is newer than what it has, and holds")
            }
            Self::Leads => f.write_str("nobody else is at it: this call goes on"),
            Self::Joins { age } => {
                write!(f, "somebody has been at it for {}: this call waits for that", Span(*age))
            }
            Self::Replaces { age } => {
                write!(f, "the load has taken {}, longer than replace_after: another one begins", Span(*age))
            }
            Self::TurnWaited { took } => {
                write!(f, "another process had the turn to load it: waited {} for that", Span(*took))
            }
            Self::Renews => f.write_str("it is due: it is loaded again in the background"),
            Self::StoodIn => f.write_str("the fallback of the call stands in"),
            Self::RuledOut => f.write_str("the filter of known keys rules it out: the source is not asked"),
            Self::Slides { until } => write!(f, "it slides: fresh for {} from now", Span(*until)),
            Self::LeftAlone { left, error } => {
                write!(
                    f,
                    "its source is left alone for {} more, because of the last load: {error}",
                    Span(*left)
                )
            }
            Self::Loaded { took, outcome } => {
                write!(f, "loader: after {}, {outcome}", Span(*took))
            }
            Self::Kept { tier } => write!(f, "{}: took it in", word(*tier)),
            Self::NotKept { why } => write!(f, "not kept: {why}"),
            Self::Waited { took, end } => write!(f, "waited {}: {end}", Span(*took)),
            Self::Hit { tier, stale: false } => write!(f, "hit, from {}", place(*tier)),
            Self::Hit { tier, stale: true } => write!(f, "stale hit, from {}", place(*tier)),
            Self::Miss => f.write_str("miss"),
            Self::Damaged { damage } => write!(f, "store: what it has is {damage}, and is removed"),
            Self::Told { event, detail } if detail.is_empty() => f.write_str(&event.replace('_', " ")),
            Self::Told { event, detail } => write!(f, "{}: {detail}", event.replace('_', " ")),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (freshness, because, age, ttl_left, life_left) = match self {
            Self::Nothing => return f.write_str("nothing"),
            Self::Deleted { ago } => return write!(f, "deleted {} ago", Span(*ago)),
            Self::Entry { freshness, because, age, ttl_left, life_left, .. } => {
                (*freshness, because, Span(*age), *ttl_left, *life_left)
            }
        };
        match (freshness, because) {
            (Freshness::Fresh, _) => write!(f, "fresh, with {} left of its TTL; {age} old", Left(ttl_left)),
            (_, Because::MemoryTtl) => write!(
                f,
                "fresh, with {} left of its TTL, but its memory_ttl is over; {age} old",
                Left(ttl_left)
            ),
            (Freshness::Stale, Because::Times) => {
                write!(f, "stale, with {} left of its grace; {age} old", Left(life_left))
            }
            (Freshness::Stale, _) => {
                write!(f, "stale, because {because}, with {} left of its life; {age} old", Left(life_left))
            }
            (Freshness::Expired, Because::Times) => write!(f, "over, with its TTL and grace; {age} old"),
            (Freshness::Expired, _) => write!(f, "gone, because {because}; {age} old"),
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times => f.write_str("of its times"),
            Self::MemoryTtl => f.write_str("its memory_ttl is over"),
            Self::Cleared { cleared, soft, ago } => {
                match cleared.as_str() {
                    "" => f.write_str("everything was cleared")?,
                    cleared => write!(f, "namespace {cleared:?} was cleared")?,
                }
                write!(f, "{} {} ago", softly(*soft), Span(*ago))
            }
            Self::Tag { tag, soft, ago } => {
                write!(f, "tag {tag:?} was invalidated{} {} ago", softly(*soft), Span(*ago))
            }
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { ttl, unchanged } => {
                let value = if *unchanged { "\"unchanged\"" } else { "a value" };
                write!(f, "{value}, fresh for {}", Left(*ttl))
            }
            Self::Failed { error } => write!(f, "a failure: {error}"),
        }
    }
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "its TTL is zero",
            Self::Superseded => {
                "the key was written, deleted, expired, cleared or invalidated during the load, or another load began"
            }
            Self::NewerInStore => "the store has something newer",
            Self::TooLate => "the load took longer than load_max",
        })
    }
}

impl fmt::Display for WaitEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { tier } => write!(f, "it is fresh in {}", place(*tier)),
            Self::Loaded => f.write_str("its loaded value"),
            Self::StaleForFailure { tier, error } => {
                write!(f, "the earlier entry of {}, in place of a failure: {error}", place(*tier))
            }
            Self::StaleForTime { tier, option } => {
                write!(f, "the earlier entry of {}, because {option} is over; the load goes on", place(*tier))
            }
            Self::Failed { error } => write!(f, "a failure: {error}"),
        }
    }
}

fn word(tier: Tier) -> &'static str {
    match tier {
        Tier::L1 => "memory",
        Tier::L2 => "store",
    }
}

fn place(tier: Tier) -> &'static str {
    match tier {
        Tier::L1 => "memory",
        Tier::L2 => "the store",
    }
}

fn softly(soft: bool) -> &'static str {
    if soft { " softly" } else { "" }
}

/// How much is left; `None` is forever.
struct Left(Option<Duration>);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(left) => Span(left).fmt(f),
            None => f.write_str("forever"),
        }
    }
}

/// A length of time in its largest unit, with one decimal below a minute and the next unit above.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.as_secs_f64() * 1e3);
        match seconds {
            0 if self.0.is_zero() => f.write_str("0 ms"),
            0 => write!(f, "{millis:.1} ms"),
            1..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            60..3_600 => write!(f, "{} m {} s", seconds / 60, seconds % 60),
            3_600..86_400 => write!(f, "{} h {} m", seconds / 3_600, seconds % 3_600 / 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
        }
    }
}

#[cfg(feature = "json")]
mod json {
    use super::Duration;
    use serde::{Serialize, Serializer};

    pub(crate) fn micros<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
        u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).serialize(out)
    }

    pub(crate) fn maybe_micros<S: Serializer>(
        duration: &Option<Duration>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        let micros = duration.map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        micros.serialize(out)
    }

    pub(crate) fn text<S: Serializer>(value: &impl std::fmt::Display, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(value)
    }

    pub(crate) fn debug<S: Serializer>(value: &impl std::fmt::Debug, out: S) -> Result<S::Ok, S::Error> {
        format!("{value:?}").to_lowercase().serialize(out)
    }
}
#[cfg(feature = "json")]
pub(super) use json::{debug, maybe_micros, micros, text};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_said_in_its_largest_units() {
        let said = |millis: u64| Span(Duration::from_millis(millis)).to_string();
        let spans = [0, 7, 1_500, 60_000, 3_599_999, 7_260_000, 90_000_000].map(said);
        assert_eq!(spans, ["0 ms", "7.0 ms", "1.5 s", "1 m 0 s", "59 m 59 s", "2 h 1 m", "1 d 1 h"]);
        assert_eq!(Span(Duration::from_micros(42)).to_string(), "0.0 ms");
    }
}
