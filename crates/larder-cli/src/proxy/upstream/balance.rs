//! Which of several upstreams is asked, and which are left alone. Sends nothing, and reads no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::options::{Balance, Check, Eject};

/// The upstreams of an origin, by their number.
#[derive(Debug)]
pub(super) struct Balancer {
    balance: Balance,
    eject: Option<Eject>,
    members: Vec<Member>,
    /// Where each stands in the round: what it is owed.
    owed: Mutex<Vec<i64>>,
}

#[derive(Debug)]
struct Member {
    weight: u32,
    requests: Arc<AtomicUsize>,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    /// Requests that failed in a row.
    failures: u32,
    /// Until when it is left alone, on the monotonic clock.
    out_until: Option<Duration>,
    /// Checks in a row that went otherwise than it stands.
    contrary: u32,
    /// Whether checks have taken it out.
    down: bool,
}

/// One request at an upstream, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Balancer {
    pub(super) fn new(
        balance: Balance,
        eject: Option<Eject>,
        weights: impl IntoIterator<Item = u32>,
    ) -> Self {
        let members: Vec<_> = weights
            .into_iter()
            .map(|weight| Member {
                weight: weight.max(1),
                requests: Arc::default(),
                health: Mutex::default(),
            })
            .collect();
        let owed = Mutex::new(vec![0; members.len()]);
        Self { balance, eject, members, owed }
    }

    /// The upstream to ask now, other than those that were asked already; `None` if there is none left that is well.
    pub(super) fn choose(&self, tried: &[usize], now: Duration) -> Option<usize> {
        let well =
            |at: &usize| !tried.contains(at) && self.members.get(*at).is_some_and(|one| one.is_well(now));
        let candidates: Vec<usize> = (0..self.members.len()).filter(well).collect();
        let candidates = match self.balance {
            Balance::RoundRobin => candidates,
            Balance::LeastRequests => self.least(&candidates),
        };
        match candidates.as_slice() {
            [] | [_] => candidates.first().copied(),
            _ => self.next_in_turn(&candidates),
        }
    }

    /// Those with the fewest requests for their weight.
    fn least(&self, candidates: &[usize]) -> Vec<usize> {
        let load = |at: &usize| {
            // Scaled, because it is a fraction.
            self.members.get(*at).map_or(u64::MAX, |one| {
                let requests = one.requests.load(Ordering::Relaxed) as u64;
                (requests << 20) / u64::from(one.weight)
            })
        };
        // Read once: they change meanwhile.
        let loads: Vec<(usize, u64)> = candidates.iter().map(|at| (*at, load(at))).collect();
        let least = loads.iter().map(|(_, load)| *load).min();
        loads.into_iter().filter(|(_, load)| Some(*load) == least).map(|(at, _)| at).collect()
    }

    /// Smooth weighted round robin: each is owed its weight in every turn, and who is owed most pays for the turn.
    fn next_in_turn(&self, candidates: &[usize]) -> Option<usize> {
        let mut owed = self.owed.lock();
        let mut turn = 0;
        for at in candidates {
            if let (Some(owed), Some(member)) = (owed.get_mut(*at), self.members.get(*at)) {
                *owed += i64::from(member.weight);
                turn += i64::from(member.weight);
            }
        }
        // Of those that are owed the same, the first.
        let chosen =
            candidates.iter().copied().rev().max_by_key(|at| owed.get(*at).copied().unwrap_or(i64::MIN))?;
        if let Some(owed) = owed.get_mut(chosen) {
            *owed -= turn;
        }
        Some(chosen)
    }

    /// Counts a request at an upstream.
    pub(super) fn count(&self, at: usize) -> Option<Counted> {
        let requests = self.members.get(at)?.requests.clone();
        requests.fetch_add(1, Ordering::Relaxed);
        Some(Counted(requests))
    }

    /// It answered.
    pub(super) fn succeeded(&self, at: usize) {
        if let Some(member) = self.members.get(at) {
            member.health.lock().failures = 0;
        }
    }

    /// It did not answer. The only upstream is never left alone for that: nobody else would be asked, and the next
    /// request is as likely to find it back as any.
    pub(super) fn failed(&self, at: usize, now: Duration) {
        let (Some(eject), Some(member), true) = (self.eject, self.members.get(at), self.members.len() > 1)
        else {
            return;
        };
        let mut health = member.health.lock();
        health.failures = health.failures.saturating_add(1);
        if health.failures >= eject.failures {
            health.out_until = Some(now.saturating_add(eject.pause));
        }
    }

    /// What a check of it came to.
    pub(super) fn checked(&self, at: usize, good: bool, check: &Check) {
        let Some(member) = self.members.get(at) else { return };
        let mut health = member.health.lock();
        if good != health.down {
            health.contrary = 0;
            return;
        }
        health.contrary = health.contrary.saturating_add(1);
        let enough = if good { check.rise } else { check.fall };
        if health.contrary >= enough.max(1) {
            health.down = !good;
            health.contrary = 0;
            if good {
                (health.failures, health.out_until) = (0, None);
            }
        }
    }

    /// Whether it would be asked.
    pub(super) fn is_well(&self, at: usize, now: Duration) -> bool {
        self.members.get(at).is_some_and(|member| member.is_well(now))
    }
}

impl Member {
    fn is_well(&self, now: Duration) -> bool {
        let health = self.health.lock();
        !health.down && health.out_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn of(balance: Balance, weights: &[u32]) -> Balancer {
        Balancer::new(balance, Some(Eject { failures: 2, pause: Duration::from_secs(10) }), weights.to_vec())
    }

    fn turns(balancer: &Balancer, count: usize) -> Vec<usize> {
        (0..count).map(|_| balancer.choose(&[], NOW).unwrap()).collect()
    }

    #[test]
    fn each_has_its_turn_by_weight_and_turns_are_spread() {
        assert_eq!(turns(&of(Balance::RoundRobin, &[1, 1, 1]), 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(turns(&of(Balance::RoundRobin, &[5, 1, 1]), 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_one_with_the_fewest_requests_is_next() {
        let balancer = of(Balance::LeastRequests, &[1, 1]);
        let busy = balancer.count(0);
        assert_eq!(turns(&balancer, 3), [1, 1, 1]);
        let _busier = [balancer.count(1), balancer.count(1)];
        assert_eq!(turns(&balancer, 2), [0, 0]);
        drop(busy);
        assert_eq!(turns(&balancer, 2), [0, 0]);
        let weighty = of(Balance::LeastRequests, &[1, 4]);
        let _held = [weighty.count(0), weighty.count(1), weighty.count(1), weighty.count(1)];
        assert_eq!(turns(&weighty, 1), [1]);
    }

    #[test]
    fn what_fails_again_and_again_is_left_alone_for_a_while() {
        let balancer = of(Balance::RoundRobin, &[1, 1]);
        balancer.failed(0, NOW);
        balancer.succeeded(0);
        balancer.failed(0, NOW);
        assert!(balancer.is_well(0, NOW));
        balancer.failed(0, NOW);
        assert_eq!(turns(&balancer, 3), [1, 1, 1]);
        let later = NOW + Duration::from_secs(10);
        assert!(balancer.is_well(0, later));
        balancer.failed(0, later);
        assert!(!balancer.is_well(0, later), "a failure after the pause is one too many");
    }

    #[test]
    fn all_may_be_out_but_never_for_failures_the_only_one() {
        let balancer = of(Balance::RoundRobin, &[1, 1]);
        for at in [0, 0, 1, 1] {
            balancer.failed(at, NOW);
        }
        assert_eq!(balancer.choose(&[], NOW), None);
        let only = of(Balance::RoundRobin, &[1]);
        (0..9).for_each(|_| only.failed(0, NOW));
        assert_eq!(only.choose(&[], NOW), Some(0));
    }

    #[test]
    fn checks_take_out_and_put_back() {
        let check = Check { fall: 2, rise: 2, ..Check::default() };
        let balancer = of(Balance::RoundRobin, &[1]);
        let mut well = Vec::new();
        for good in [false, true, false, false, true, false, true, true] {
            balancer.checked(0, good, &check);
            well.push(balancer.is_well(0, NOW));
        }
        assert_eq!(well, [true, true, true, false, false, false, false, true]);
    }

    #[test]
    fn nobody_is_asked_twice() {
        let balancer = of(Balance::RoundRobin, &[1, 1, 1]);
        assert_eq!(balancer.choose(&[0, 2], NOW), Some(1));
        assert_eq!(balancer.choose(&[0, 1, 2], NOW), None);
    }
}
