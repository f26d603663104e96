//! The PostgreSQL and the MySQL driver, by the same tests: over servers that tests share (`LARDER_TEST_POSTGRES_URL`,
//! `LARDER_TEST_MYSQL_URL`), and with one named, over servers of their own, if such are installed.

mod faults;
mod rows;
mod servers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use larder::driver::Driver;
use larder::driver::memory::MemoryDriver;
use larder::driver::sql::client::pool::PoolOptions;
use larder::driver::sql::client::{AssertSqlSafe, Pool, raw_sql};
use larder::driver::sql::{Dialect, SqlDriver, SqlOptions};

use crate::Need;
use crate::decorated::decorated_suite;
use crate::faults::fault_suite;
use crate::stacks::stack_suite;
use crate::traffic::traffic_suite;
use faults::server_suite;
use rows::row_suite;

/// A database, as tests see it.
pub(crate) trait Subject: Dialect {
    /// The variable that says where a server is.
    const URL: &'static str;
    /// What starts a server.
    const PROGRAM: &'static str;
    /// Keeps everyone else from a table, as long as the connection's transaction lasts.
    const LOCK: &'static [&'static str];
    /// What fails if a session has more than a few statements prepared, where that can be asked.
    const FEW_PREPARED: &'static [&'static str];
    /// How a server of one's own is made and started, with more arguments; see `servers`.
    const MAKE: servers::Make;

    /// Runs statements, each by itself, over one connection, which is given back with its state.
    fn say(
        pool: &Pool<Self::Database>,
        statements: &[String],
    ) -> impl Future<Output = Box<dyn std::any::Any + Send>> + Send;
}

/// The options for the server that tests share, if there is one.
fn shared_options<D: Subject>() -> Option<SqlOptions<D>> {
    Some(SqlOptions::new(&std::env::var(D::URL).ok()?).unwrap())
}

async fn shared<D: Subject>() -> Option<SqlDriver<D>> {
    Some(SqlDriver::connect(shared_options()?).await.unwrap())
}

/// A table that nobody else has. It is left behind when the test fails.
async fn own_table<D: Subject>() -> Option<SqlOptions<D>> {
    let mut options = shared_options::<D>()?;
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "table");
    options.table = format!("larder_{random:016x}");
    Some(options)
}

async fn drop_table<D: Subject>(driver: &SqlDriver<D>, options: &SqlOptions<D>) {
    D::say(driver.pool(), &[format!("DROP TABLE {}", options.table)]).await;
}

/// What the suite runs over. Without a server it is the memory driver, which says nothing about a database; see
/// `what_was_left_out`.
async fn or_memory<D: Subject>(driver: Option<SqlDriver<D>>) -> Arc<dyn Driver> {
    match driver {
        Some(driver) => Arc::new(driver),
        None => Arc::new(MemoryDriver::default()),
    }
}

/// A driver over a pool of somebody's own, without statements that are kept.
async fn borrowed<D: Subject>() -> Option<SqlDriver<D>> {
    let url = std::env::var(D::URL).ok()?;
    let pool = PoolOptions::<D::Database>::new().max_connections(5).connect(&url).await.unwrap();
    Some(SqlDriver::with_pool(pool, SqlOptions::default()).await.unwrap())
}

/// Where the server is that tests share.
fn server<D: Subject>() -> Option<SocketAddr> {
    let url = std::env::var(D::URL).ok()?;
    url.split_once('@')?.1.split('/').next()?.parse().ok()
}

/// A driver that thinks the server that tests share is somewhere else, with little patience.
async fn through<D: Subject>(at: SocketAddr) -> SqlDriver<D> {
    let mut options = shared_options::<D>().unwrap();
    options.port = Some(at.port());
    options.connect_timeout = Duration::from_millis(300);
    options.response_timeout = Duration::from_millis(300);
    SqlDriver::connect(options).await.unwrap()
}

/// What these tests need.
pub(crate) fn needs() -> Vec<Need> {
    let mut needs = Vec::new();
    #[cfg(feature = "postgres")]
    needs.extend(need::<larder::driver::postgres::Postgres>("postgres-server"));
    #[cfg(feature = "mysql")]
    needs.extend(need::<larder::driver::mysql::Mysql>("mysql-server"));
    needs
}

fn need<D: Subject>(own: &'static str) -> [Need; 2] {
    [
        Need { name: D::NAME, found: std::env::var(D::URL).is_ok(), what: D::URL },
        Need { name: own, found: servers::is_installed::<D>(), what: D::PROGRAM },
    ]
}

/// All tests of a database.
macro_rules! database {
    ($feature:literal, $name:ident, $dialect:path, $url:literal, $program:literal, $make:path, $lock:expr, $few:expr) => {
        #[cfg(feature = $feature)]
        mod $name {
            use super::*;
            use $dialect as Subjected;

            impl Subject for Subjected {
                const URL: &'static str = $url;
                const PROGRAM: &'static str = $program;
                const LOCK: &'static [&'static str] = $lock;
                const FEW_PREPARED: &'static [&'static str] = $few;
                const MAKE: servers::Make = $make;

                async fn say(
                    pool: &Pool<Self::Database>,
                    statements: &[String],
                ) -> Box<dyn std::any::Any + Send> {
                    let mut connection = pool.acquire().await.unwrap();
                    for statement in statements {
                        raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *connection).await.unwrap();
                    }
                    Box::new(connection)
                }
            }

            async fn open() -> Arc<dyn Driver> {
                or_memory(shared::<Subjected>().await).await
            }

            async fn open_borrowed() -> Arc<dyn Driver> {
                or_memory(borrowed::<Subjected>().await).await
            }

            larder::driver_suite!(plain, open);
            larder::driver_suite!(over_a_pool_of_ones_own, open_borrowed);
            traffic_suite!(traffic, shared::<Subjected>);
            stack_suite!(two_stacks, shared::<Subjected>);
            fault_suite!(through_a_proxy, server::<Subjected>, through::<Subjected>);
            row_suite!(Subjected);
            server_suite!(Subjected);
            decorated_suite!(open);
        }
    };
}

database!(
    "postgres",
    postgres,
    larder::driver::postgres::Postgres,
    "LARDER_TEST_POSTGRES_URL",
    "postgres",
    servers::postgres,
    &["BEGIN", "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"],
    &["SELECT 1 / (CASE WHEN count(*) > 3 THEN 0 ELSE 1 END) FROM pg_prepared_statements"]
);

database!(
    "mysql",
    mysql,
    larder::driver::mysql::Mysql,
    "LARDER_TEST_MYSQL_URL",
    "mariadbd",
    servers::mariadb,
    &["LOCK TABLES {table} WRITE"],
    &[]
);
