//! What the Redis driver adds to the bare client, as a ratio, both in one run.
//!
//! `LARDER_TEST_REDIS_URL=redis://localhost cargo bench -p larder --bench redis` prints one line for each call and
//! number of tasks: microseconds a call, and how many times that is what the client takes for the same commands on
//! a connection of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

mod beside;

use std::sync::Arc;

use futures_util::future::FutureExt as _;
use larder::driver::redis::client::{self, Value, cmd};
use larder::driver::redis::{RedisDriver, RedisOptions};

use beside::{Call, Plan, VALUE_BYTES, call, hundred, stamp, value};

const PLAN: Plan = Plan { keys: 1_000, rounds: 21, calls: 2_000, tasks: &[1, 16, 128] };

/// The least script that does the same write: compare the stamp, store, say what was there.
const SCRIPT: &str = "local head = redis.call('GETRANGE', KEYS[1], 0, 39)
local old, new = string.sub(head, 5, 12), string.sub(ARGV[1], 5, 12)
local newer = #old < 8
for at = 1, #old do
  local x, y = string.byte(old, at), string.byte(new, at)
  if x ~= y then newer = x < y break end
end
if not newer then return {0, old} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, head}";

fn main() {
    let Ok(url) = std::env::var("LARDER_TEST_REDIS_URL") else {
        println!("LARDER_TEST_REDIS_URL is not set: nothing to measure");
        return;
    };
    beside::block_on(run(&url));
}

async fn run(url: &str) {
    let driver = Arc::new(RedisDriver::connect(RedisOptions::new(url).unwrap()).await.unwrap());
    // With the settings of the driver's connection. Without the first one, small calls wait for each other's
    // acknowledgements, which is faster here and slower over a network.
    let tcp = client::io::tcp::TcpSettings::default().set_nodelay(true);
    let info: client::ConnectionInfo = format!("{url}?protocol=resp3").parse().unwrap();
    let client = client::Client::open(info.set_tcp_settings(tcp)).unwrap();
    let settings = client::AsyncConnectionConfig::new().set_pipeline_buffer_size(1_024);
    let bare = client.get_multiplexed_async_connection_with_config(&settings).await.unwrap();
    let script: String = cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut bare.clone()).await.unwrap();
    let bare = (bare, script);
    beside::compare(driver, &PLAN, async |keys| bare_calls(&bare, keys)).await;
}

/// A connection, and the hash of the script.
type Bare = (client::aio::MultiplexedConnection, String);

fn bare_calls(bare: &Bare, keys: &Arc<Vec<String>>) -> [Call; 3] {
    [
        call(bare, keys, |(mut bare, _), keys, n| {
            async move {
                let key = &keys[n % keys.len()];
                let found: Value = cmd("GET").arg(key).query_async(&mut bare).await.unwrap();
                let Value::BulkString(found) = found else { panic!("{found:?}") };
                assert_eq!(bytes::Bytes::from(found).len(), VALUE_BYTES);
            }
            .boxed()
        }),
        call(bare, keys, |(mut bare, script), keys, n| {
            async move {
                let (key, value) = (&keys[n % keys.len()], value(stamp()));
                let mut command = cmd("EVALSHA");
                command.arg(script).arg(1).arg(key).arg(&value[..]).arg(540_000);
                let _: Value = command.query_async(&mut bare).await.unwrap();
            }
            .boxed()
        }),
        call(bare, keys, |(mut bare, _), keys, n| {
            async move {
                let some: Vec<&str> = hundred(&keys, n).collect();
                let found: Vec<Value> = cmd("MGET").arg(some).query_async(&mut bare).await.unwrap();
                assert_eq!(found.len(), 100);
            }
            .boxed()
        }),
    ]
}
