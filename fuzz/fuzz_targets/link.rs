#![no_main]

#[expect(dead_code, reason = "each target has one door")]
#[path = "../../tests/it/doors.rs"]
mod doors;

libfuzzer_sys::fuzz_target!(|input: &[u8]| doors::link(input));
