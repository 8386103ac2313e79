//! See `timeball_fuzz::control_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    timeball_fuzz::control_request(input);
});
