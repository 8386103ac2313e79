//! See `timeball_fuzz::ntskeys`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    timeball_fuzz::ntskeys(input);
});
