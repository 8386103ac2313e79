//! See `timeball_fuzz::ke_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    timeball_fuzz::ke_session(input);
});
