//! The options of a sanitizer's runtime: a program that was built with one has them in its
//! environment, which is otherwise what `--env` says.
//!
//! Never changes an option that `--env` sets.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

/// What a program is booted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// To see what it does.
    Run,
    /// To find crashes.
    Campaign,
}

/// A sanitizer's runtime.
struct Runtime {
    /// What a program that is built with it refers to.
    symbol: &'static [u8],
    variable: &'static str,
    /// For any run: what cannot work in a guest is off.
    run: &'static str,
    /// For a campaign: a report is a crash, and a fault is the program's own.
    campaign: &'static str,
}

const RUNTIMES: [Runtime; 2] = [
    Runtime {
        symbol: b"__asan_init",
        variable: "ASAN_OPTIONS",
        // The search for leaks stops the process from a second one.
        run: "detect_leaks=0",
        campaign: "abort_on_error=1:detect_leaks=0:symbolize=0:allocator_may_return_null=1:\
                   handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0",
    },
    Runtime {
        symbol: b"__ubsan_handle_",
        variable: "UBSAN_OPTIONS",
        run: "",
        campaign: "halt_on_error=1:abort_on_error=1:symbolize=0:\
                   handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0",
    },
];

/// The variables to add to `env` for the program whose file has these bytes.
pub fn options(program: &[u8], env: &[OsString], aim: Aim) -> Vec<OsString> {
    let is_set = |variable: &str| {
        env.iter().any(|entry| {
            let rest = entry.as_bytes().strip_prefix(variable.as_bytes());
            rest.is_some_and(|rest| rest.first() == Some(&b'='))
        })
    };
    let wanted = RUNTIMES.iter().filter_map(|runtime| {
        let options = match aim {
            Aim::Run => runtime.run,
            Aim::Campaign => runtime.campaign,
        };
        let is_wanted =
            !options.is_empty() && !is_set(runtime.variable) && contains(program, runtime.symbol);
        is_wanted.then(|| format!("{}={options}", runtime.variable).into())
    });
    wanted.collect()
}

/// Whether `bytes` have `name` in them.
pub fn contains(bytes: &[u8], name: &[u8]) -> bool {
    let Some(&first) = name.first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(name) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_own_options_stay() {
        let program = b"\x7fELF ____asan_init\0__ubsan_handle_add_overflow\0";
        let names = |env: &[&str], aim| {
            let env: Vec<OsString> = env.iter().map(OsString::from).collect();
            let options = options(program, &env, aim);
            options
                .iter()
                .map(|o| o.to_str().unwrap().split('=').next().unwrap().to_owned())
                .collect()
        };
        let all: Vec<String> = names(&["A=b"], Aim::Campaign);
        assert_eq!(all, ["ASAN_OPTIONS", "UBSAN_OPTIONS"]);
        let rest: Vec<String> = names(&["ASAN_OPTIONS="], Aim::Campaign);
        assert_eq!(rest, ["UBSAN_OPTIONS"]);
        let run: Vec<String> = names(&[], Aim::Run);
        assert_eq!(run, ["ASAN_OPTIONS"]);
        assert!(super::options(b"\x7fELF __asan_ini", &[], Aim::Campaign).is_empty());
    }
}
