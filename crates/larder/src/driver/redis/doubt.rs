//! A cluster's connection that is in doubt: one node may leave its calls without answers while the others go on.
//!
//! The client gives up a connection to a node when it breaks, and not because nothing comes over it: where one answer
//! was lost, every later one goes to the wrong call, for ever. So after a call that was in vain all nodes are asked
//! whether they are there, and if one does not say so as it should, another connection is made. Meanwhile the one that
//! there is serves the other nodes' keys, and it stays unless the new one is better: a node that is silent to everybody
//! is silent to that one too.

use std::sync::Arc;
use std::time::Duration;

use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, Value, cmd};

use super::dial::Dial;
use super::exchange::primaries_of;
use super::link::{Held, Line, Link, RedisConnection};
use crate::time::Clock as _;

/// How long a call waits at least before it says anything about its node that nobody waits for it any longer.
const IN_VAIN: Duration = Duration::from_millis(100);

/// A call to a cluster that has no answer yet. One that ends so, be it that its caller left, raises doubt.
pub(super) struct Unanswered<'a> {
    link: &'a Link,
    since: Duration,
}

impl<'a> Unanswered<'a> {
    /// A call that begins now; `None` if it is not to a cluster, or to one whose connection is somebody else's.
    pub(super) fn begin(link: &'a Link, now: Duration) -> Option<Self> {
        (link.is_cluster() && link.dial.is_some()).then_some(Self { link, since: now })
    }

    /// It was answered.
    pub(super) fn end(mut self) {
        self.since = Duration::MAX;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.link.clock.monotonic().saturating_sub(self.since) >= IN_VAIN {
            self.link.doubt();
        }
    }
}

impl Link {
    /// Has another connection made in place of this one, unless that is no better. One at a time.
    fn doubt(&self) {
        let (Some(dial), Ok(runtime)) = (&self.dial, tokio::runtime::Handle::try_current()) else { return };
        let mut state = self.state.lock();
        let is_asking = state.doubt.as_ref().is_some_and(|asking| !asking.is_finished());
        let Some(held) = state.held.clone().filter(|_| !is_asking) else { return };
        let (shared, dial) = (Arc::clone(&self.state), Arc::clone(dial));
        state.doubt = Some(runtime.spawn(async move {
            if all_answer(&held, &dial).await {
                return;
            }
            match dial.connect().await {
                Ok(better) if all_answer(&better, &dial).await => {
                    let mut state = shared.lock();
                    if state.held.as_ref().is_some_and(|now| Arc::ptr_eq(now, &held)) {
                        state.held = Some(better);
                    }
                }
                // It is the node, or the way to it. Asking on and on would be a burden to the others.
                _ => tokio::time::sleep(dial.patience()).await,
            }
        }));
    }
}

/// Whether every primary that the cluster has answers over both connections, and as it should.
async fn all_answer(held: &Held, dial: &Dial) -> bool {
    let both = async { futures_util::join!(answers(&held.reads), answers(&held.writes)) };
    tokio::time::timeout(dial.patience_for_one(), both).await.is_ok_and(|both| both == (true, true))
}

async fn answers(line: &Line) -> bool {
    let RedisConnection::Cluster(mut cluster) = line.connection.clone() else { return false };
    let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let Ok(Value::Map(answers)) = cluster.route_command(cmd("PING"), all).await else { return false };
    // Another call's answer is one too.
    let pong = |answer: &Value| matches!(answer, Value::SimpleString(said) if said == "PONG");
    if !answers.iter().all(|(_, answer)| pong(answer)) {
        return false;
    }
    let mut slots = Cmd::new();
    slots.arg("CLUSTER").arg("SLOTS");
    // What the client has no connection to, it leaves out.
    cluster.route_command(slots, any).await.is_ok_and(|slots| {
        let known = primaries_of(&slots);
        known > 0 && answers.len() >= known
    })
}
