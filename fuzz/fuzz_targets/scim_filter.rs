#![no_main]

#[expect(dead_code, reason = "each target uses one function")]
#[path = "../../tests/it/untrusted_scim.rs"]
mod inputs;

libfuzzer_sys::fuzz_target!(|input: &[u8]| inputs::filter(input));
