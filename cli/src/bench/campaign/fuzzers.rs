//! Other fuzzers on the same parser, where they are installed: each for a fixed time, on one CPU,
//! from the same seeds, by its own count of its executions.

use super::build::Programs;
use crate::error::CliError;
use dejavm_corpus::ErrorChain;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// Seconds that each of them runs.
const SECONDS: u32 = 5;
/// Longest input in bytes.
const INPUT_BYTES_MAX: u32 = 4096;

/// One of them.
pub struct Fuzzer {
    /// Its row's name.
    pub name: &'static str,
    /// Its row in words.
    pub what: &'static str,
    kind: Kind,
    compiler: &'static str,
    flags: &'static [&'static str],
    source: &'static str,
    /// The Debian package.
    package: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Afl,
    LibFuzzer,
}

/// Every one that there is a row for.
pub const ALL: [Fuzzer; 3] = [
    Fuzzer {
        name: "afl_persistent",
        what: "AFL++, persistent mode",
        kind: Kind::Afl,
        compiler: "afl-clang-fast",
        flags: &["-DAFL_PERSISTENT"],
        source: "harness.c",
        package: "afl++",
    },
    Fuzzer {
        name: "afl_fork_server",
        what: "AFL++, fork server",
        kind: Kind::Afl,
        compiler: "afl-clang-fast",
        flags: &["-static"],
        source: "json.c",
        package: "afl++",
    },
    Fuzzer {
        name: "libfuzzer",
        what: "libFuzzer",
        kind: Kind::LibFuzzer,
        compiler: "clang",
        flags: &["-DLIBFUZZER", "-fsanitize=fuzzer"],
        source: "harness.c",
        package: "clang",
    },
];

/// What was asked of a fuzzer.
pub enum Attempt<T> {
    /// It was done.
    Done(T),
    /// It cannot be done on this host: why, in words.
    NotHere(String),
}

/// A fuzzer that can be run.
pub struct Prepared {
    program: PathBuf,
    seeds: PathBuf,
    out: PathBuf,
}

impl Fuzzer {
    /// Compiles the parser for it.
    pub fn prepare(&self, programs: &Programs) -> Result<Attempt<Prepared>, CliError> {
        let needed = match self.kind {
            Kind::Afl => "afl-fuzz",
            Kind::LibFuzzer => self.compiler,
        };
        if !is_installed(needed) {
            return Ok(Attempt::NotHere(format!("no {needed}: package {}", self.package)));
        }
        let program = match programs.compile(self.compiler, self.flags, self.source, self.name) {
            Ok(program) => program,
            Err(error) => return Ok(Attempt::NotHere(ErrorChain(&error).to_string())),
        };
        let out = programs.path(&format!("{}-out", self.name));
        fs::create_dir(&out).map_err(CliError::Temporary)?;
        Ok(Attempt::Done(Prepared { program, seeds: programs.seeds.clone(), out }))
    }

    /// Executions per second.
    pub fn run(&self, prepared: &Prepared) -> Result<Attempt<f64>, CliError> {
        let rate = match self.kind {
            Kind::Afl => afl(prepared)?,
            Kind::LibFuzzer => lib_fuzzer(prepared)?,
        };
        let usable = |rate: &f64| rate.is_finite() && *rate > 0.0;
        Ok(match rate.filter(usable) {
            Some(rate) => Attempt::Done(rate),
            None => Attempt::NotHere(format!("{} did not tell its speed", self.what)),
        })
    }
}

fn is_installed(program: &str) -> bool {
    let found = |folder: PathBuf| folder.join(program).is_file();
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(found))
}

fn output(command: &mut Command) -> Result<Output, CliError> {
    command.stdin(Stdio::null()).output().map_err(CliError::process("run a fuzzer"))
}

/// `afl-fuzz`; its `fuzzer_stats` has the mean of the whole time.
fn afl(prepared: &Prepared) -> Result<Option<f64>, CliError> {
    let Prepared { program, seeds, out } = prepared;
    let mut command = Command::new("afl-fuzz");
    command.arg("-i").arg(seeds).arg("-o").arg(out);
    command.args(["-V", &SECONDS.to_string(), "-s", "1", "-G", &INPUT_BYTES_MAX.to_string()]);
    command.arg("--").arg(program);
    // What it would otherwise stop for, before it has run anything.
    for variable in ["AFL_NO_UI", "AFL_SKIP_CPUFREQ", "AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES"] {
        command.env(variable, "1");
    }
    // However it ends, its file says what it did.
    output(&mut command)?;
    Ok(stat(&out.join("default/fuzzer_stats"), "execs_per_sec"))
}

/// The number after `name` in a file of `name : value` lines.
fn stat(file: &Path, name: &str) -> Option<f64> {
    number(&fs::read_to_string(file).ok()?, name)
}

fn number(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| line.split_once(": "));
    values.filter(|(key, _)| key.trim() == name).find_map(|(_, value)| value.trim().parse().ok())
}

fn lib_fuzzer(prepared: &Prepared) -> Result<Option<f64>, CliError> {
    let mut command = Command::new(&prepared.program);
    command.arg(format!("-max_total_time={SECONDS}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    command.args(["-seed=1", "-verbosity=0", "-print_final_stats=1"]);
    // What it finds goes to the first folder.
    command.arg(&prepared.out).arg(&prepared.seeds);
    let start = Instant::now();
    let output = output(&mut command)?;
    let seconds = start.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(number(&said, "stat::number_of_executed_units").map(|units| units / seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read_as_the_fuzzers_write_them() {
        let afl =
            "run_time          : 5\nexecs_done        : 64810\nexecs_per_sec     : 12961.84\n";
        assert_eq!(number(afl, "execs_per_sec"), Some(12961.84));
        let fuzzer = "stat::number_of_executed_units: 3112345\nstat::average_exec_per_sec:     9\n";
        assert_eq!(number(fuzzer, "stat::number_of_executed_units"), Some(3_112_345.0));
        assert_eq!(number(afl, "missing"), None);
    }
}
