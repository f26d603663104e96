//! What the PostgreSQL and the MySQL driver add to the bare client, as a ratio, both in one run.
//!
//! `LARDER_TEST_POSTGRES_URL=… LARDER_TEST_MYSQL_URL=… cargo bench -p larder --bench sql` prints one line for each call
//! and number of tasks: microseconds a call, and how many times that is what the client takes with a pool of its own, set
//! as the driver's is, for statements that do the same: a read that minds the time, an upsert that is refused by a newer
//! stamp and says what it replaced (in MySQL: a transaction that looks, locks and writes).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

mod beside;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use larder::driver::mysql::{Mysql, MysqlOptions};
use larder::driver::postgres::{Postgres, PostgresOptions};
use larder::driver::sql::client::pool::PoolOptions;
use larder::driver::sql::client::{Acquire as _, MySqlPool, PgPool, Row as _, query};
use larder::driver::sql::{Dialect, SqlDriver, SqlOptions};
use larder::time::seconds;

use beside::{Call, Plan, VALUE_BYTES, call, hundred, stamp, value};

const PLAN: Plan = Plan { keys: 1_000, rounds: 15, calls: 1_000, tasks: &[1, 16, 128] };

fn main() {
    beside::block_on(async {
        if let Ok(url) = std::env::var("LARDER_TEST_POSTGRES_URL") {
            // As the driver's: the server's timer for each statement is no small part of a call where timers are dear.
            let same = format!("{url}?options[statement_timeout]=900");
            let pool = pool_options::<Postgres>().connect(&same).await.unwrap();
            run(PostgresOptions::new(&url).unwrap(), |keys| bare_postgres(&pool, keys)).await;
        }
        if let Ok(url) = std::env::var("LARDER_TEST_MYSQL_URL") {
            let pool = pool_options::<Mysql>().connect(&url).await.unwrap();
            run(MysqlOptions::new(&url).unwrap(), |keys| bare_mysql(&pool, keys)).await;
        }
    });
}

fn pool_options<D: Dialect>() -> PoolOptions<D::Database> {
    PoolOptions::new().max_connections(10).acquire_timeout(seconds(9)).test_before_acquire(false)
}

async fn run<D: Dialect>(mut options: SqlOptions<D>, bare: impl Fn(&Arc<Vec<String>>) -> [Call; 3]) {
    options.table = "larder_bench".to_owned();
    // With 128 tasks at ten connections, nobody is to be turned away.
    options.connect_timeout = seconds(9);
    let driver = Arc::new(SqlDriver::connect(options).await.unwrap());
    beside::compare(driver, &PLAN, async |keys| bare(keys)).await;
}

fn bare_postgres(pool: &PgPool, keys: &Arc<Vec<String>>) -> [Call; 3] {
    const GET: &str =
        "SELECT value FROM larder_bench WHERE key = $1 AND (expires_at IS NULL OR expires_at > now())";
    const SET: &str = "INSERT INTO larder_bench AS t (key, stamp, expires_at, value) \
        VALUES ($1, $2, now() + interval '9 minutes', $3) ON CONFLICT (key) DO UPDATE SET stamp = excluded.stamp, \
        expires_at = excluded.expires_at, previous = substring(t.value FROM 1 FOR 40), value = excluded.value \
        WHERE t.stamp < excluded.stamp RETURNING previous";
    const REFUSED: &str = "SELECT substring(value FROM 1 FOR 40) FROM larder_bench WHERE key = $1";
    const GET_MANY: &str = "SELECT key, value FROM larder_bench WHERE key = ANY($1) \
        AND (expires_at IS NULL OR expires_at > now())";
    [
        call(pool, keys, |pool, keys, n| {
            async move {
                let row = query(GET).bind(keys[n % keys.len()].as_bytes()).fetch_one(&pool).await.unwrap();
                assert_eq!(Bytes::from(row.get::<Vec<u8>, _>(0)).len(), VALUE_BYTES);
            }
            .boxed()
        }),
        call(pool, keys, |pool, keys, n| {
            async move {
                let (key, stamp) = (keys[n % keys.len()].as_bytes(), stamp());
                let mut connection = pool.acquire().await.unwrap();
                let set =
                    query(SET).bind(key).bind((stamp ^ 1 << 63).cast_signed()).bind(value(stamp).to_vec());
                if set.fetch_optional(&mut *connection).await.unwrap().is_none() {
                    query(REFUSED).bind(key).fetch_optional(&mut *connection).await.unwrap();
                }
            }
            .boxed()
        }),
        call(pool, keys, |pool, keys, n| {
            async move {
                let some: Vec<&[u8]> = hundred(&keys, n).map(str::as_bytes).collect();
                let rows = query(GET_MANY).bind(some).fetch_all(&pool).await.unwrap();
                let found: Vec<(Vec<u8>, Vec<u8>)> =
                    rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                assert_eq!(found.len(), 100);
            }
            .boxed()
        }),
    ]
}

fn bare_mysql(pool: &MySqlPool, keys: &Arc<Vec<String>>) -> [Call; 3] {
    const GET: &str = "SELECT value FROM larder_bench WHERE `key` = ? AND (expires_at IS NULL OR expires_at > UTC_TIMESTAMP(3))";
    const LOOK: &str = "SELECT LEFT(value, 40), stamp FROM larder_bench WHERE `key` = ? FOR UPDATE";
    const SET: &str = "UPDATE larder_bench SET stamp = ?, expires_at = UTC_TIMESTAMP(3) + INTERVAL 9 MINUTE, \
        value = ? WHERE `key` = ?";
    [
        call(pool, keys, |pool, keys, n| {
            async move {
                let row = query(GET).bind(keys[n % keys.len()].as_bytes()).fetch_one(&pool).await.unwrap();
                assert_eq!(Bytes::from(row.get::<Vec<u8>, _>(0)).len(), VALUE_BYTES);
            }
            .boxed()
        }),
        call(pool, keys, |pool, keys, n| {
            async move {
                let (key, stamp) = (keys[n % keys.len()].as_bytes(), stamp());
                let mut connection = pool.acquire().await.unwrap();
                let mut transaction = connection.begin().await.unwrap();
                let row = query(LOOK).bind(key).fetch_one(&mut *transaction).await.unwrap();
                if row.get::<u64, _>(1) < stamp {
                    let set = query(SET).bind(stamp).bind(value(stamp).to_vec()).bind(key);
                    set.execute(&mut *transaction).await.unwrap();
                }
                transaction.commit().await.unwrap();
            }
            .boxed()
        }),
        call(pool, keys, |pool, keys, n| {
            async move {
                static GET_MANY: std::sync::LazyLock<&str> = std::sync::LazyLock::new(|| {
                    let places = vec!["?"; 100].join(", ");
                    let alive = "(expires_at IS NULL OR expires_at > UTC_TIMESTAMP(3))";
                    format!("SELECT `key`, value FROM larder_bench WHERE {alive} AND `key` IN ({places})")
                        .leak()
                });
                let some = hundred(&keys, n).map(str::as_bytes);
                let asked = some.fold(query(*GET_MANY), |asked, key| asked.bind(key));
                let rows = asked.fetch_all(&pool).await.unwrap();
                let found: Vec<(Vec<u8>, Vec<u8>)> =
                    rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                assert_eq!(found.len(), 100);
            }
            .boxed()
        }),
    ]
}
