//! See `fuzz::extract`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::extract(data));
