//! The example that uses everything is also a test.

#[path = "../examples/tour.rs"]
mod tour;

#[test]
fn every_operation_works_once_over_memory_and_a_sealed_store() {
    tour::main().expect("the tour ends well");
}
