//! What tests of caches and of drivers are made of; behind feature `testing`, and never in a release.
//!
//! [`driver_suite`](crate::driver_suite!) holds every driver to what the engine relies on, [`ManualClock`] is
//! time that moves only when a test says so. It knows the words and the driver's door, and nothing of any
//! one driver.

mod clock;
pub mod driver_suite;

pub use clock::ManualClock;
