use larder::driver::Driver;
use larder::driver::memory::MemoryDriver;
use larder::driver::postgres::{PostgresDriver, PostgresOptions};
use std::sync::Arc;
async fn open() -> Arc<dyn Driver> {
    match std::env::var("LARDER_TEST_POSTGRES_URL") {
        Ok(url) => Arc::new(PostgresDriver::connect(PostgresOptions::new(&url).unwrap()).await.unwrap()),
        Err(_) => Arc::new(MemoryDriver::default()),
    }
}
larder::driver_suite!(plain, open);
