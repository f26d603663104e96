//! What tests of caches and of drivers are made of; behind feature `testing`, and never in a release.
//!
//! [`driver_suite`](crate::driver_suite!) holds every driver to what the engine relies on, [`ManualClock`] is
//! time that moves only when a test says so, [`Chaos`] is a store that fails on command, and [`Proxy`] stands
//! before a server and spoils its answers. It knows the words and the driver's door, and nothing of any one driver.

mod chaos;
mod clock;
pub mod driver_suite;
mod harness;
mod model;
mod proxy;

pub use chaos::{Chaos, ChaosHandle, Operation};
pub use clock::ManualClock;
pub use harness::{Harness, Recorder, Tiers};
pub use model::Model;
pub use proxy::{Fault, Proxy};
