//! A proxy that is killed while it stores a body, and started again on the same store: what it serves then is whole or
//! nothing.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::Claims;
use super::args::Ask as Asked;
use super::client::{Ask, get};
use super::origin::Origin;
use crate::proxy::{Kind, Place, Proxy, Scratch, free_port, now};

const SIZE: u64 = 8 << 20;
/// Of the origin, in bytes a second: the body takes a third of a second.
const RATE: u64 = 24 << 20;
/// How long an origin that was away may be left alone.
const PATIENCE: Duration = Duration::from_secs(20);

/// # Errors
/// The proxy cannot be started.
pub(crate) fn run(kind: &Kind, asked: &Asked, claims: &mut Claims) -> io::Result<()> {
    let rounds = if asked.is_small { 6 } else { 24 };
    let scratch = Scratch::new(&format!("crash-{kind}"))?;
    let origin_port = free_port()?;
    let origin = Origin::start(origin_port)?;
    let mut place = Place::new(scratch.path(), free_port()?, origin_port);
    place.keeps = true;
    // One body that is stored before anything bad happens.
    let kept = "/kept?size=100000";
    let mut proxy = Proxy::start(kind, &place)?;
    get(proxy.address, &Ask::of(kept))?;
    // What is still on its way to the store has the time that it takes.
    thread::sleep(Duration::from_millis(500));
    let mut targets = Vec::new();
    for round in 0..rounds {
        let frame = if round % 2 == 0 { "length" } else { "chunked" };
        let target = format!("/crash?size={SIZE}&rate={RATE}&frame={frame}&round={round}");
        let address = proxy.address;
        // From the first bytes to well after the last ones.
        let moment = Duration::from_millis(20 + 600 * round / rounds);
        thread::scope(|scope| {
            let client = scope.spawn(|| get(address, &Ask::of(&target)));
            thread::sleep(moment);
            let killed = proxy.crash();
            // It got what came before.
            drop(client.join());
            killed
        })?;
        targets.push(target);
        proxy = again(kind, &place)?;
    }
    let mut lies = 0;
    // First while the origin is away: what comes now comes from the store.
    drop(origin);
    let mut stored = 0;
    for target in &targets {
        let outcomes = asks(proxy.address, target);
        lies += outcomes.lies;
        stored += outcomes.whole;
    }
    let survived = get(proxy.address, &Ask::of(kept)).is_ok_and(|answer| answer.is_right(100_000));
    let _origin = Origin::start(origin_port)?;
    // A proxy may leave an origin alone for a while that was away.
    let deadline = now() + PATIENCE;
    while !get(proxy.address, &Ask::of("/probe?size=1&fresh=no")).is_ok_and(|answer| answer.status == 200) {
        if now() >= deadline {
            return Err(io::Error::other(format!(
                "{kind} did not ask an origin that came back, for {PATIENCE:?}"
            )));
        }
        thread::sleep(Duration::from_millis(200));
    }
    let mut right = 0;
    for target in &targets {
        let outcomes = asks(proxy.address, target);
        lies += outcomes.lies;
        right += outcomes.whole;
    }
    let all = targets.len();
    let saw = format!(
        "{rounds} crashes, {stored} bodies were whole already, {lies} parts served, {right} of {all} right afterwards"
    );
    claims.claim(kind, "what a crash cut short is never served", lies == 0 && right == all, &saw);
    let what = "what was stored before a crash is there after it, with the origin away";
    claims.claim(kind, what, survived, if survived { "it is" } else { "it is not" });
    Ok(())
}

/// What came of asking for a body, and for ranges of it.
#[derive(Debug, Default)]
struct Outcomes {
    whole: usize,
    lies: usize,
}

fn asks(address: SocketAddr, target: &str) -> Outcomes {
    let mut outcomes = Outcomes::default();
    if let Ok(answer) = get(address, &Ask::of(target)) {
        outcomes.whole += usize::from(answer.is_right(SIZE));
        outcomes.lies += usize::from(answer.is_lie(SIZE));
    }
    for (first, last) in [(0, 99), (SIZE / 2, SIZE / 2 + 99_999), (SIZE - 100, SIZE - 1)] {
        let fields = format!("Range: bytes={first}-{last}\r\n");
        let Ok(answer) = get(address, &Ask { fields: &fields, position: first, ..Ask::of(target) }) else {
            continue;
        };
        if answer.status == 206 {
            let is_right = answer.is_intact && answer.bytes == last - first + 1;
            outcomes.lies += usize::from(answer.is_whole && !is_right);
        }
    }
    outcomes
}

/// Starts it on the port that it had, which the system may hold for a moment.
fn again(kind: &Kind, place: &Place<'_>) -> io::Result<Proxy> {
    let mut outcome = Proxy::start(kind, place);
    for _ in 0..5 {
        if outcome.is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(500));
        outcome = Proxy::start(kind, place);
    }
    outcome
}
