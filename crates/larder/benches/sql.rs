//! What the PostgreSQL and the MySQL driver add to the bare client, as a ratio, both in one run.
//!
//! `LARDER_TEST_POSTGRES_URL=… LARDER_TEST_MYSQL_URL=… cargo bench -p larder --bench sql` prints one line for each call
//! and number of tasks: microseconds a call, and how many times that is what the client takes with a pool of its own, set
//! as the driver's is, for statements that do the same: a read that minds the time, an upsert that is refused by a newer
//! stamp and says what it replaced (in MySQL: a transaction that looks, locks and writes). Values have 1 KiB. Rounds
//! alternate, so that a busy moment meets both; the ratio is the median of the rounds' ratios.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use larder::driver::mysql::{Mysql, MysqlOptions};
use larder::driver::postgres::{Postgres, PostgresOptions};
use larder::driver::sql::client::pool::PoolOptions;
use larder::driver::sql::client::{Acquire as _, MySqlPool, PgPool, Row as _, query};
use larder::driver::sql::{Dialect, SqlDriver, SqlOptions};
use larder::driver::{Driver, When};
use larder::time::{Stamp, minutes, seconds};

const KEYS: usize = 1_000;
const ROUNDS: usize = 15;
const CALLS_PER_ROUND: usize = 1_000;

/// Writes are newer than those before, as most are.
static STAMP: AtomicU64 = AtomicU64::new(1);

fn stamp() -> u64 {
    STAMP.fetch_add(1, Ordering::Relaxed)
}

type Call = Arc<dyn Fn(usize) -> BoxFuture<'static, ()> + Send + Sync>;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{:<34} {:>6} {:>10} {:>10} {:>8}", "1 KiB values", "tasks", "µs", "bare µs", "ratio");
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
    let keys: Arc<Vec<String>> = Arc::new((0..KEYS).map(|n| format!("larder bench:{n:09}")).collect());
    for key in keys.iter() {
        driver.set(key, value(1), None, When::Always).await.unwrap();
    }
    let names = ["get", "set, if newer", "get_many, 100 keys"];
    for ((name, ours), theirs) in names.into_iter().zip(ours(&driver, &keys)).zip(bare(&keys)) {
        for tasks in [1, 16, 128] {
            let calls = if name.contains("100") { CALLS_PER_ROUND / 20 } else { CALLS_PER_ROUND };
            let calls = if tasks == 1 { calls / 4 } else { calls };
            let mut samples = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                samples.push((time(&ours, tasks, calls).await, time(&theirs, tasks, calls).await));
            }
            let ratio = median(samples.iter().map(|(ours, theirs)| ours / theirs).collect());
            let ours = median(samples.iter().map(|(ours, _)| *ours).collect());
            let theirs = median(samples.iter().map(|(_, theirs)| *theirs).collect());
            println!(
                "{:<34} {tasks:>6} {ours:>10.1} {theirs:>10.1} {ratio:>8.2}",
                format!("{}: {name}", D::NAME)
            );
        }
    }
    driver.clear("larder bench:", Stamp::MAX).await.unwrap();
}

fn call<S: Clone + Send + Sync + 'static>(
    subject: &S,
    keys: &Arc<Vec<String>>,
    make: fn(S, Arc<Vec<String>>, usize) -> BoxFuture<'static, ()>,
) -> Call {
    let (subject, keys) = (subject.clone(), Arc::clone(keys));
    Arc::new(move |n| make(subject.clone(), Arc::clone(&keys), n))
}

fn ours<D: Dialect>(driver: &Arc<SqlDriver<D>>, keys: &Arc<Vec<String>>) -> [Call; 3] {
    [
        call(driver, keys, |driver, keys, n| {
            async move { assert_eq!(driver.get(&keys[n % KEYS]).await.unwrap().unwrap().len(), 1_024) }
                .boxed()
        }),
        call(driver, keys, |driver, keys, n| {
            async move {
                driver.set(&keys[n % KEYS], value(stamp()), Some(minutes(9)), When::Newer).await.unwrap();
            }
            .boxed()
        }),
        call(driver, keys, |driver, keys, n| {
            async move {
                let some: Vec<&str> = (0..100).map(|at| keys[(n * 7 + at) % KEYS].as_str()).collect();
                assert_eq!(driver.get_many(&some).await.unwrap().len(), 100);
            }
            .boxed()
        }),
    ]
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
                let row = query(GET).bind(keys[n % KEYS].as_bytes()).fetch_one(&pool).await.unwrap();
                assert_eq!(Bytes::from(row.get::<Vec<u8>, _>(0)).len(), 1_024);
            }
            .boxed()
        }),
        call(pool, keys, |pool, keys, n| {
            async move {
                let (key, stamp) = (keys[n % KEYS].as_bytes(), stamp());
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
                let some: Vec<&[u8]> = (0..100).map(|at| keys[(n * 7 + at) % KEYS].as_bytes()).collect();
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
                let row = query(GET).bind(keys[n % KEYS].as_bytes()).fetch_one(&pool).await.unwrap();
                assert_eq!(Bytes::from(row.get::<Vec<u8>, _>(0)).len(), 1_024);
            }
            .boxed()
        }),
        call(pool, keys, |pool, keys, n| {
            async move {
                let (key, stamp) = (keys[n % KEYS].as_bytes(), stamp());
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
                let some = (0..100).map(|at| keys[(n * 7 + at) % KEYS].as_bytes());
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

fn value(stamp: u64) -> Bytes {
    let mut value = vec![7; 1_024];
    value[4..12].copy_from_slice(&stamp.to_be_bytes());
    value.into()
}

/// Microseconds a call, with so many tasks at it.
async fn time(call: &Call, tasks: usize, calls: usize) -> f64 {
    let each = calls / tasks + 1;
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
    let begun = Instant::now();
    let running = (0..tasks).map(|task| {
        let call = call.clone();
        tokio::spawn(async move {
            for n in 0..each {
                call(task * each + n).await;
            }
        })
    });
    for done in join_all(running).await {
        done.unwrap();
    }
    begun.elapsed().as_secs_f64() * 1e6 / (each * tasks) as f64
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
