//! A crowd that asks for the same at the same moment: how often the origin is asked, and who waits how long.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use super::args::Ask as Asked;
use super::client::{Answer, Ask, get, get_on};
use super::{Bench, Claims};
use crate::proxy::Kind;

/// How many ask, and how long the origin takes.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    clients: usize,
    wait: Duration,
}

/// # Errors
/// The proxy cannot be started, or does not answer at all.
pub(crate) fn run(kind: &Kind, asked: &Asked, claims: &mut Claims) -> io::Result<()> {
    // What is to be told apart is a wait for the origin and none; a busy machine takes its time for two hundred threads.
    let (clients, wait) = if asked.is_small { (50, 1_000) } else { (200, 500) };
    let crowd = Crowd { clients, wait: Duration::from_millis(wait) };
    let bench = Bench::start(kind, |place| place.collapses = true)?;
    cold(kind, &bench, crowd, claims)?;
    stale(kind, &bench, crowd, claims)?;
    uncacheable(kind, &bench, crowd, claims)?;
    cut(kind, &bench, crowd, claims)?;
    leaver(kind, &bench, crowd, claims)
}

fn cold(kind: &Kind, bench: &Bench, crowd: Crowd, claims: &mut Claims) -> io::Result<()> {
    let target = format!("/cold?wait={}", crowd.wait.as_millis());
    let seen = crowd.asks(bench.proxy.address, &target)?;
    let requests = bench.origin.count(&target).requests;
    let holds = requests == 1 && seen.right(1024) == crowd.clients;
    claims.claim(kind, "a cold key is fetched once", holds, &seen.text(requests));
    Ok(())
}

fn stale(kind: &Kind, bench: &Bench, crowd: Crowd, claims: &mut Claims) -> io::Result<()> {
    for (name, waits, what) in [
        ("stale", false, "a key that may be served stale is revalidated once, and nobody waits"),
        ("brief", true, "a key that is over is revalidated once"),
    ] {
        let target = format!("/{name}?fresh={name}&wait={}", crowd.wait.as_millis());
        get(bench.proxy.address, &Ask::of(&target))?;
        // Until its time is over.
        thread::sleep(Duration::from_millis(3_100));
        let seen = crowd.asks(bench.proxy.address, &target)?;
        // What runs on in the background.
        thread::sleep(crowd.wait);
        let requests = bench.origin.count(&target).requests - 1;
        let holds = requests == 1 && seen.right(1024) == crowd.clients && (waits || seen.last() < crowd.wait);
        claims.claim(kind, what, holds, &seen.text(requests));
    }
    Ok(())
}

fn uncacheable(kind: &Kind, bench: &Bench, crowd: Crowd, claims: &mut Claims) -> io::Result<()> {
    let target = format!("/uncacheable?fresh=no&wait={}", crowd.wait.as_millis());
    let each = u32::try_from(crowd.clients).unwrap_or(u32::MAX);
    // So that the proxy has its connections: the origin's socket lets 128 wait to be accepted, and turns others away for a
    // second, which would be no fault of the proxy's.
    for crowd in [Crowd { clients: crowd.clients / 2, ..crowd }, crowd] {
        crowd.asks(bench.proxy.address, "/warm?fresh=no")?;
    }
    let first = crowd.asks(bench.proxy.address, &target)?;
    let requests = bench.origin.count(&target).requests;
    let holds = requests == each && first.last() < crowd.wait * 3;
    claims.claim(
        kind,
        "an uncacheable key is fetched by each, after one wait at most",
        holds,
        &first.text(requests),
    );
    let later = crowd.asks(bench.proxy.address, &target)?;
    let count = bench.origin.count(&target);
    let holds = count.requests == 2 * each && later.last() < crowd.wait * 2;
    let what = "a key that is known to be uncacheable is fetched side by side at once";
    claims.claim(kind, what, holds, &later.text(count.requests - requests));
    Ok(())
}

/// The origin breaks off in the middle of the first answer.
fn cut(kind: &Kind, bench: &Bench, crowd: Crowd, claims: &mut Claims) -> io::Result<()> {
    const SIZE: u64 = 512 * 1024;
    for frame in ["length", "chunked"] {
        let wait = crowd.wait.as_millis();
        let target = format!("/cut?size={SIZE}&cut={}&rate=1000000&wait={wait}&frame={frame}", SIZE / 2);
        let seen = crowd.asks(bench.proxy.address, &target)?;
        let after = get(bench.proxy.address, &Ask::of(&target))?;
        let requests = bench.origin.count(&target).requests;
        let holds = seen.lies(SIZE) == 0 && after.is_right(SIZE);
        let what =
            format!("an answer that is cut (by {frame}) is given out as whole to nobody, and not kept");
        claims.claim(kind, &what, holds, &seen.text(requests));
    }
    Ok(())
}

/// The client that came first hangs up in the middle of its answer.
fn leaver(kind: &Kind, bench: &Bench, crowd: Crowd, claims: &mut Claims) -> io::Result<()> {
    const SIZE: u64 = 1 << 20;
    let address = bench.proxy.address;
    let target = format!("/leaver?size={SIZE}&rate=1000000&wait={}", crowd.wait.as_millis());
    let seen = thread::scope(|scope| {
        let ask = Ask { leaves_after: SIZE / 4, ..Ask::of(&target) };
        let leader = scope.spawn(move || get(address, &ask));
        // The others come while its answer does.
        thread::sleep(crowd.wait / 2);
        let seen = crowd.asks(address, &target);
        // It got what it wanted, or nothing: it does not care.
        drop(leader.join());
        seen
    })?;
    let requests = bench.origin.count(&target).requests;
    let holds = seen.right(SIZE) == crowd.clients && requests == 1;
    claims.claim(kind, "a first client that hangs up harms nobody", holds, &seen.text(requests));
    Ok(())
}

impl Crowd {
    /// All of them ask for this at the same moment, on connections that are there already.
    fn asks(self, address: SocketAddr, target: &str) -> io::Result<Seen> {
        let barrier = Barrier::new(self.clients);
        let one = || {
            let stream = TcpStream::connect(address);
            barrier.wait();
            stream.and_then(|stream| get_on(&stream, &Ask::of(target)))
        };
        let outcomes: Vec<io::Result<Answer>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.clients).map(|_| scope.spawn(one)).collect();
            let lost = |_| Err(io::Error::other("a client panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(lost)).collect()
        });
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        let mut answers: Vec<Answer> = outcomes.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|answer| answer.took);
        Ok(Seen { answers, failed })
    }
}

/// What a crowd saw, the quickest first.
#[derive(Debug)]
struct Seen {
    answers: Vec<Answer>,
    failed: usize,
}

impl Seen {
    fn right(&self, size: u64) -> usize {
        self.answers.iter().filter(|answer| answer.is_right(size)).count()
    }

    fn lies(&self, size: u64) -> usize {
        self.answers.iter().filter(|answer| answer.is_lie(size)).count()
    }

    fn last(&self) -> Duration {
        self.answers.last().map_or(Duration::MAX, |answer| answer.took)
    }

    fn text(&self, requests: u32) -> String {
        let half = self.answers.get(self.answers.len() / 2).map_or(Duration::ZERO, |answer| answer.took);
        let good = self.answers.iter().filter(|answer| answer.status == 200 && answer.is_whole).count();
        let broken = self.answers.iter().filter(|answer| !answer.is_whole).count();
        let (half, last) = (half.as_millis(), self.last().as_millis());
        let clients = self.answers.len() + self.failed;
        let mut text = format!(
            "{requests} at the origin for {clients} clients, half within {half} ms, all within {last} ms"
        );
        if good < clients {
            text += &format!(", {good} whole, {broken} cut, {} without an answer", self.failed);
        }
        text
    }
}
