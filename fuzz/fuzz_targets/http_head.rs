//! See `pryamo::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pryamo::fuzz::run("http_head", bytes));
