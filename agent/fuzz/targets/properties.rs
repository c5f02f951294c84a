#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sparkferry_agent::fuzzing::properties(data));
