//! A large body to clients that are slow: how much memory the proxy takes meanwhile.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::args::Ask as Asked;
use super::client::{Answer, Ask, get};
use super::{Bench, Claims};
use crate::proxy::{Kind, is_seen, now, usage};

const MIB: u64 = 1 << 20;
/// How much memory the proxy may take.
const MEMORY_MAX: u64 = 200 * MIB;
const LOOK: Duration = Duration::from_millis(20);

/// # Errors
/// The proxy cannot be started.
pub(crate) fn run(kind: &Kind, asked: &Asked, claims: &mut Claims) -> io::Result<()> {
    let (size, clients, rate) =
        if asked.is_small { (256 * MIB, 8, 64 * MIB) } else { (1024 * MIB, 50, 32 * MIB) };
    let bench = Bench::start(kind, |place| (place.collapses, place.keeps) = (true, true))?;
    let (address, pid) = (bench.proxy.address, bench.proxy.pid());
    let (is_over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    for round in ["cold", "again"] {
        is_over.store(false, Ordering::Relaxed);
        let target = format!("/large?size={size}");
        let ask = Ask { rate, ..Ask::of(&target) };
        let one = || get(address, &ask);
        let began = now();
        let answers: Vec<io::Result<Answer>> = thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    peak.fetch_max(usage(pid).resident_bytes, Ordering::Relaxed);
                    thread::sleep(LOOK);
                }
            });
            let threads: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
            let lost = |_| Err(io::Error::other("a client panicked"));
            let answers = threads.into_iter().map(|thread| thread.join().unwrap_or_else(lost)).collect();
            is_over.store(true, Ordering::Relaxed);
            answers
        });
        let right = answers.iter().flatten().filter(|answer| answer.is_right(size)).count();
        let resident = peak.load(Ordering::Relaxed);
        let seen = is_seen();
        let saw = format!(
            "{round}: {right} of {clients} got all of {} MiB in {:.1} s, {} requests at the origin so far, {}",
            size / MIB,
            began.elapsed().as_secs_f64(),
            bench.origin.count(&target).requests,
            if seen {
                format!("{} MiB resident at most", resident / MIB)
            } else {
                "how much memory it took cannot be seen: /proc shows the processes of somebody else"
                    .to_owned()
            },
        );
        let is_small = !seen || (1..MEMORY_MAX).contains(&resident);
        let what = format!("a large body takes less than {} MiB of memory", MEMORY_MAX / MIB);
        claims.claim(kind, &what, right == clients && is_small, &saw);
    }
    Ok(())
}
