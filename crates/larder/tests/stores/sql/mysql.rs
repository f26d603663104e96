use larder::driver::Driver;
use larder::driver::memory::MemoryDriver;
use larder::driver::mysql::{MysqlDriver, MysqlOptions};
use std::sync::Arc;
async fn open() -> Arc<dyn Driver> {
    match std::env::var("LARDER_TEST_MYSQL_URL") {
        Ok(url) => Arc::new(MysqlDriver::connect(MysqlOptions::new(&url).unwrap()).await.unwrap()),
        Err(_) => Arc::new(MemoryDriver::default()),
    }
}
larder::driver_suite!(plain, open);
