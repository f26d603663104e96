//! One call over the link: a command and its answer, scripts that the server may have forgotten, and what to do if a
//! node of a cluster says that a key lives elsewhere.
//!
//! Knows commands, and nothing of records.

use redis::aio::ConnectionLike as _;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, FromRedisValue as _, Pipeline, RedisError, RedisResult, Value, cmd};

use super::failure;
use super::link::{Held, Line, Link, RedisConnection};
use super::script::Named;
use crate::error::{Error, ErrorKind, Result};

/// A node of a cluster; `None` is the one server there is.
pub(super) type Node = Option<(String, u16)>;

impl Link {
    /// Sends what may be sent twice.
    pub(super) async fn ask(&self, what: &'static str, command: &Cmd) -> Result<Value> {
        let held = self.held().await?;
        let outcome = self.attempt_on(&held.reads, command).await;
        outcome.map_err(|cause| self.failed(what, cause))
    }

    /// As [`Link::ask`]; what is no string is answered with nothing.
    pub(super) async fn ask_string(&self, what: &'static str, command: &Cmd) -> Result<Value> {
        let held = self.held().await?;
        match self.attempt_on(&held.reads, command).await {
            Err(cause) if failure::is_wrong_type(&cause) => Ok(Value::Nil),
            outcome => outcome.map_err(|cause| self.failed(what, cause)),
        }
    }

    /// Sends what changes something: once.
    pub(super) async fn change(&self, what: &'static str, command: &Cmd) -> Result<Value> {
        let held = self.held().await?;
        self.change_over(&held, command).await.map_err(|cause| self.failed(what, cause))
    }

    /// As [`Link::change`], with a script: by its hash, and by its text if the server does not know it.
    pub(super) async fn run(
        &self,
        what: &'static str,
        script: impl Fn(Named) -> Cmd + Send,
    ) -> Result<Value> {
        let held = self.held().await?;
        let outcome = match self.change_over(&held, &script(Named::ByHash)).await {
            Err(cause) if failure::is_no_script(&cause) => {
                self.change_over(&held, &script(Named::ByText)).await
            }
            outcome => outcome,
        };
        outcome.map_err(|cause| self.failed(what, cause))
    }

    /// Sends several commands to one server in one go. The answers may be errors.
    pub(super) async fn pipeline(&self, what: &'static str, pipeline: &Pipeline) -> Result<Vec<Value>> {
        let held = self.held().await?;
        let send = async |mut connection: RedisConnection| {
            connection.req_packed_commands(pipeline, 0, pipeline.len()).await
        };
        let outcome = self.over(&held.writes, send).await;
        outcome.map_err(|cause| self.failed(what, cause))
    }

    /// The nodes that keys live on.
    pub(super) async fn primaries(&self, what: &'static str) -> Result<Vec<Node>> {
        let held = self.held().await?;
        if !self.is_cluster() {
            return Ok(vec![None]);
        }
        let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let slots = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
        let reached = self.route(&held.reads, cmd("PING"), all).await;
        let Value::Map(reached) = reached.map_err(|cause| self.failed(what, cause))? else {
            return Err(failure::unexpected(what, &Value::Nil));
        };
        let known = self.route(&held.reads, cmd("CLUSTER").arg("SLOTS").to_owned(), slots).await;
        let known = primaries_of(&known.map_err(|cause| self.failed(what, cause))?);
        let nodes: Vec<Node> =
            reached.iter().filter_map(|(at, answer)| node_of(at, answer)).map(Some).collect();
        // The client leaves out the nodes that it cannot reach.
        if nodes.is_empty() || nodes.len() < known {
            // And looks for them only when somebody asks for their keys. A new connection looks now.
            held.reads.give_up();
            let message = format!(
                "redis {what}: {} of the cluster's {known} primaries can be reached, and it needs all",
                nodes.len()
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(nodes)
    }

    /// Asks one node.
    pub(super) async fn ask_node(&self, what: &'static str, node: &Node, command: Cmd) -> Result<Value> {
        let Some((host, port)) = node.clone() else { return self.ask(what, &command).await };
        let held = self.held().await?;
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host, port });
        let outcome = self.route(&held.reads, command, route).await;
        outcome.map_err(|cause| self.failed(what, cause))
    }

    /// Sends a command to some nodes of a cluster.
    async fn route(&self, line: &Line, command: Cmd, route: RoutingInfo) -> RedisResult<Value> {
        let send = async |connection: RedisConnection| match connection {
            RedisConnection::Cluster(mut cluster) => cluster.route_command(command, route).await,
            mut other => other.req_packed_command(&command).await,
        };
        self.over(line, async |connection| send(connection).await.and_then(checked)).await
    }

    fn failed(&self, what: &str, cause: RedisError) -> Error {
        if self.is_cluster() && failure::is_elsewhere(&cause) {
            return failure::unreachable_node(what, &cause);
        }
        failure::failed(what, cause)
    }

    async fn change_over(&self, held: &Held, command: &Cmd) -> RedisResult<Value> {
        let outcome = self.attempt_on(&held.writes, command).await;
        match outcome {
            // The node did nothing and said so: now it may be sent to wherever it belongs.
            Err(cause) if failure::is_elsewhere(&cause) && self.is_cluster() => {
                self.attempt_on(&held.reads, command).await
            }
            outcome => outcome,
        }
    }

    async fn attempt_on(&self, line: &Line, command: &Cmd) -> RedisResult<Value> {
        let send = async |connection: RedisConnection| match connection {
            // By itself, it does not box what it is waited for with.
            RedisConnection::Single(mut single) => {
                single.send_packed_command(command).await.and_then(checked)
            }
            mut other => other.req_packed_command(command).await.and_then(checked),
        };
        self.over(line, send).await
    }
}

/// An answer that is an error, as one.
pub(super) fn checked(answer: Value) -> RedisResult<Value> {
    match answer {
        Value::ServerError(error) => Err(RedisError::from(error)),
        answer => Ok(answer),
    }
}

/// A number, as some servers write it.
pub(super) fn number(what: &'static str, answer: Value) -> Result<u64> {
    u64::from_redis_value_ref(&answer).map_err(|_| failure::unexpected(what, &answer))
}

fn node_of(at: &Value, answer: &Value) -> Option<(String, u16)> {
    let Value::BulkString(at) = at else { return None };
    if matches!(answer, Value::ServerError(_)) {
        return None;
    }
    let (host, port) = std::str::from_utf8(at).ok()?.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// How many primaries an answer to `CLUSTER SLOTS` names: lists of a first slot, a last one, the primary, replicas.
pub(super) fn primaries_of(slots: &Value) -> usize {
    let Value::Array(ranges) = slots else { return 0 };
    let primaries = ranges.iter().filter_map(|range| {
        let Value::Array(parts) = range else { return None };
        let Some(Value::Array(primary)) = parts.get(2) else { return None };
        // Host, port, and the node's id; the host may be missing, the id is not.
        primary.get(2).or(primary.get(1)).map(|id| format!("{id:?}"))
    });
    primaries.collect::<std::collections::HashSet<String>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primaries_of_a_cluster_are_counted_once_each() {
        let node = |id: &[u8]| {
            Value::Array(vec![
                Value::Nil,
                Value::Int(7000),
                Value::BulkString(id.to_vec()),
                Value::Array(vec![]),
            ])
        };
        let range = |from, to, id| Value::Array(vec![Value::Int(from), Value::Int(to), node(id), node(b"r")]);
        let slots = Value::Array(vec![range(0, 5, b"a"), range(6, 9, b"b"), range(10, 16_383, b"a")]);
        assert_eq!(primaries_of(&slots), 2);
        assert_eq!(primaries_of(&Value::Nil), 0);
    }

    #[test]
    fn an_address_of_a_node_is_taken_apart_at_its_last_colon() {
        let at = |text: &str| node_of(&Value::BulkString(text.into()), &Value::Okay);
        assert_eq!(at("h:1"), Some(("h".to_owned(), 1)));
        assert_eq!(at("::1:7000"), Some(("::1".to_owned(), 7000)));
        assert_eq!(at("h"), None);
    }
}
