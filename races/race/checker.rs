//! How a race is run: so many times, each time in another order, and again in the order in which it failed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, thread};

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

/// As many orders of each kind of scheduler as a race is run in, times this; the seed then changes as well.
const TIMES: &str = "LARDER_RACE_TIMES";
/// The file of a schedule that failed.
const REPLAY: &str = "LARDER_RACE_REPLAY";
/// How many times the scheduler takes the processor from a task that would go on. Most races need two.
const PREEMPTIONS: usize = 3;

/// Runs a race in `orders` orders: half of them drawn at random, where everyone moves on at about the same pace,
/// and half with few preemptions, where one is far ahead of the others.
pub(crate) fn explore(orders: usize, race: impl Fn() + Send + Sync + 'static) {
    let race = std::sync::Arc::new(race);
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let race = std::sync::Arc::clone(&race);
        let ran = thread::spawn(move || Runner::new(scheduler, config()).run(move || race()));
        // The message and the schedule have been printed.
        assert!(ran.join().is_ok(), "the race failed; {REPLAY}=FILE runs it again in the order that failed");
    };
    if let Ok(file) = env::var(REPLAY) {
        return run(Box::new(ReplayScheduler::new_from_file(file).unwrap()));
    }
    let times = env::var(TIMES).map_or(1, |times| times.parse().unwrap());
    // The same orders every time, unless more are asked for: then each run sees new ones.
    let seed = if times == 1 { 0x1a_4de4 } else { shuttle_seed() };
    let orders = orders * times;
    run(Box::new(RandomScheduler::new_from_seed(seed, orders / 2)));
    run(Box::new(PctScheduler::new_from_seed(seed, PREEMPTIONS, orders / 2)));
}

/// A seed that nobody has chosen.
fn shuttle_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(TIMES)
}

fn config() -> Config {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    let mut config = Config::new();
    // The engine's futures are deep.
    config.stack_size = 1 << 20;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    config.failure_persistence = FailurePersistence::File(Some(folder.to_owned()));
    config.silence_warnings = IS_SAID.swap(true, Ordering::Relaxed);
    config
}
