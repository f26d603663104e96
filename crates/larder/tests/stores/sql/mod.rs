//! The PostgreSQL and the MySQL driver.
mod postgres;
mod mysql;
