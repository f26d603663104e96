//! Any bytes as what a store keeps for a target.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    larder_http::testing::read_record(&bytes::Bytes::copy_from_slice(bytes));
});
