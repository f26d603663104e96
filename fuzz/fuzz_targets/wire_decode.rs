//! See `crates/larder/tests/bodies/wire.rs`.
#![no_main]

#[allow(dead_code, reason = "each target uses one body")]
#[path = "../../crates/larder/tests/bodies/wire.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bodies::decode(input);
});
