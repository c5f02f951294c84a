#![no_main]

libfuzzer_sys::fuzz_target!(
    // Arrow's reader may panic, and is caught: libFuzzer's hook would end the process before that.
    // A panic that nobody catches still ends it.
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| sparkferry_agent::fuzzing::rows(data)
);
