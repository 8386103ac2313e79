//! See `timeball_fuzz::ntp_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    timeball_fuzz::ntp_request(input);
});
