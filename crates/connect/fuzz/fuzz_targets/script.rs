//! Splitting, planning and binding over all dialects, with the invariants of the tests.
//!
//! From `crates/connect`: `cargo +nightly fuzz run script -- -dict=fuzz/script.dict -max_total_time=600`
#![no_main]

#[path = "../../tests/script_invariants/mod.rs"]
mod script_invariants;

libfuzzer_sys::fuzz_target!(|input: (u8, &str)| {
    let (dialect, script) = input;
    let dialects = script_invariants::DIALECTS;
    script_invariants::check_invariants(dialects[usize::from(dialect) % dialects.len()], script);
});
