//! `larder ping`.

use std::sync::Arc;
use std::time::Duration;

use larder::driver::Driver;
use larder::time::{Clock, SystemClock, seconds};
use serde_json::{Value, json};

use super::print_json;
use super::stats::each_cache;
use crate::args::high::{Target, mask};
use crate::args::units::bytes_words;
use crate::failure::{FOUND, Failure, NOT_FOUND, Outcome};
use crate::output::{escape, print_line};
use crate::progress::Progress;
use crate::store::{Access, Store, open_url};

/// How long opening a store, and each answer of it, is waited for.
const PATIENCE: Duration = seconds(10);
/// A key that nobody has.
const KEY: &str = "larder:ping";

/// Who is asked.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Stores by their URLs.
    Stores(Vec<String>),
    /// Every cache of a configuration that has a store, or the one store that was named.
    Caches(Target),
}

/// What a store answered.
struct Answered {
    opened: Duration,
    version: Option<String>,
    driver: Arc<dyn Driver>,
    pings: Vec<Duration>,
    gets: Vec<Duration>,
}

/// Asks one store after the other.
pub(crate) async fn ping(asked: Asked, count: u32, json: bool) -> Outcome {
    let mut status = FOUND;
    let mut heard = |name: &str, answered: Result<Answered, Failure>| {
        let answered = match answered {
            Ok(answered) => Ok(answered),
            Err(Failure::Message { text, .. }) => {
                status = NOT_FOUND;
                Err(text)
            }
            Err(failure) => return Err(failure),
        };
        if json { as_json(name, &answered) } else { as_text(name, &answered) }
    };
    match asked {
        Asked::Stores(urls) => {
            for url in urls {
                let asking = async {
                    let clock = SystemClock::default();
                    let driver = in_time("opening it", open_url(&url, "STORE", Access::Read)).await??;
                    let answered = ask(Arc::clone(&driver), clock.monotonic(), count).await;
                    let closed = driver.close().await;
                    let answered = answered?;
                    closed?;
                    Ok(answered)
                };
                let answered = Progress::new("asking").watch(asking).await;
                heard(&mask(&url), answered)?;
            }
        }
        Asked::Caches(target) => {
            for (name, target) in each_cache(target)? {
                let asking = async {
                    let clock = SystemClock::default();
                    let store = in_time("opening it", Store::open(&target, Access::Read)).await??;
                    let opened = clock.monotonic();
                    let Some(driver) = store.driver() else {
                        return Err(Failure::usage("there is no store: it is in the memory of its process"));
                    };
                    let answered = ask(driver, opened, count).await;
                    let closed = store.close().await;
                    let answered = answered?;
                    closed?;
                    Ok(answered)
                };
                let answered = Progress::new("asking").watch(asking).await;
                heard(&name, answered)?;
            }
        }
    }
    Ok(status)
}

async fn ask(driver: Arc<dyn Driver>, opened: Duration, count: u32) -> Result<Answered, Failure> {
    let (mut pings, mut gets) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let clock = SystemClock::default();
        in_time("a ping", driver.ping()).await??;
        pings.push(clock.monotonic());
        let clock = SystemClock::default();
        in_time("a get", driver.get(KEY)).await??;
        gets.push(clock.monotonic());
    }
    pings.sort_unstable();
    gets.sort_unstable();
    let version = in_time("its version", driver.version()).await??;
    Ok(Answered { opened, version, driver, pings, gets })
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.map_err(|_| Failure::failed(format!("timed out: {what} took more than {} s", PATIENCE.as_secs())))
}

fn as_json(name: &str, answered: &Result<Answered, String>) -> Result<(), Failure> {
    let micros = |time: Duration| json!(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    let spread = |times: &[Duration]| -> Value {
        spread(times)
            .map(|(name, time)| (name.to_owned(), micros(time)))
            .into_iter()
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    match answered {
        Ok(answered) => {
            let can = answered.driver.capabilities();
            print_json([
                ("store", json!(name)),
                ("reached", json!(true)),
                ("error", Value::Null),
                ("driver", json!(answered.driver.name())),
                ("version", json!(answered.version)),
                ("enumerates", json!(can.enumerates)),
                ("shared", json!(can.shared)),
                ("persistent", json!(can.persistent)),
                ("value_bytes_max", json!(can.value_bytes_max)),
                ("opened_us", micros(answered.opened)),
                ("count", json!(answered.pings.len())),
                ("ping_us", spread(&answered.pings)),
                ("get_us", spread(&answered.gets)),
            ])
        }
        Err(error) => {
            print_json([("store", json!(name)), ("reached", json!(false)), ("error", json!(error))])
        }
    }
}

fn as_text(name: &str, answered: &Result<Answered, String>) -> Result<(), Failure> {
    let name = escape(name);
    let answered = match answered {
        Ok(answered) => answered,
        Err(error) => return print_line(format_args!("{name}: not reached: {}", escape(error))),
    };
    let can = answered.driver.capabilities();
    let mut abilities = vec![answered.driver.name().to_owned()];
    abilities.extend(answered.version.as_deref().map(|version| escape(version).into_owned()));
    for (is_so, word) in
        [(can.shared, "shared"), (can.persistent, "persistent"), (can.enumerates, "can be listed")]
    {
        abilities.extend(is_so.then(|| word.to_owned()));
    }
    abilities.extend(can.value_bytes_max.map(|bytes| format!("values up to {}", bytes_words(bytes))));
    print_line(format_args!("{name}: reached in {}", words(answered.opened)))?;
    print_line(format_args!("  {}", abilities.join(", ")))?;
    for (what, times) in [("ping", &answered.pings), ("get", &answered.gets)] {
        let spread = spread(times).map(|(name, time)| format!("{name} {:>8}", words(time))).join("  ");
        print_line(format_args!("  {what:4}  {:>4} times  {spread}", times.len()))?;
    }
    Ok(())
}

/// The least, the middle, the 99th of a hundred and the most of some times in order.
fn spread(times: &[Duration]) -> [(&'static str, Duration); 4] {
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1) - 1;
        times.get(rank).copied().unwrap_or_default()
    };
    [("min", at(0)), ("p50", at(50)), ("p99", at(99)), ("max", at(100))]
}

/// A short time for people.
fn words(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        micros => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_times_is_by_their_rank() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(spread(&times).map(|(_, time)| time.as_micros()), [1, 100, 198, 200]);
        let one = [Duration::from_micros(7)];
        assert_eq!(spread(&one).map(|(_, time)| time.as_micros()), [7; 4]);
    }

    #[test]
    fn times_are_short() {
        let words = |micros| words(Duration::from_micros(micros));
        assert_eq!(
            [words(0), words(999), words(1_050), words(2_300_000)],
            ["0 µs", "999 µs", "1.0 ms", "2.3 s"]
        );
    }
}
