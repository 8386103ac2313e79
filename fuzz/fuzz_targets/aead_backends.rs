//! See `timeball_fuzz::aead_backends`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    timeball_fuzz::aead_backends(input);
});
