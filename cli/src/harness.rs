//! What a harness, a program around a function `LLVMFuzzerTestOneInput`, is started with.
//!
//! Never looks for the function: `boot` does.

use crate::sanitizers::contains;
use std::ffi::OsString;

/// The function, unless another is named (<https://llvm.org/docs/LibFuzzer.html#fuzz-target>).
pub const FUNCTION: &str = "LLVMFuzzerTestOneInput";
/// What `@@` stands for: a driver that reads a file reads nothing.
pub const NO_INPUT: &str = "/dev/null";
/// What a program with libFuzzer's driver has in it.
const LIB_FUZZER: &[u8] = b"LLVMFuzzerRunDriver";
/// libFuzzer leaves faults and time to the engine, and starts no thread.
const LIB_FUZZER_OPTIONS: [&str; 14] = [
    "-handle_abrt=0",
    "-handle_bus=0",
    "-handle_fpe=0",
    "-handle_ill=0",
    "-handle_int=0",
    "-handle_segv=0",
    "-handle_term=0",
    "-handle_usr1=0",
    "-handle_usr2=0",
    "-handle_xfsz=0",
    "-detect_leaks=0",
    "-rss_limit_mb=0",
    "-timeout=0",
    "-seed=1",
];

/// The arguments that go before those typed, for the program whose file has these bytes.
pub fn arguments(program: &[u8]) -> impl Iterator<Item = OsString> {
    let options = if contains(program, LIB_FUZZER) { &LIB_FUZZER_OPTIONS[..] } else { &[] };
    options.iter().map(OsString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lib_fuzzers_driver_is_given_its_options() {
        assert_eq!(arguments(b"a driver of our own").count(), 0);
        assert!(arguments(b"..LLVMFuzzerRunDriver..").any(|option| option == "-handle_segv=0"));
    }
}
