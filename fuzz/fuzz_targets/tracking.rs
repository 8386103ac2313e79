//! See `timeball_fuzz::tracking`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    timeball_fuzz::tracking(input);
});
