//! See `crates/larder/tests/bodies/memcached.rs`.
#![no_main]

#[allow(dead_code, reason = "the driver uses all of it")]
#[path = "../../crates/larder/src/driver/memcached/reply.rs"]
mod reply;

#[path = "../../crates/larder/tests/bodies/memcached.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|input: (&[u8], &[u8])| {
    let (answers, pieces) = input;
    bodies::check(answers, pieces);
});
