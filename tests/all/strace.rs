//! The trace of a program's system calls is the one that `strace` prints.

use crate::support::{RAM_BYTES, build_c, guests, kvm, limit, spec};
use dejavm_engine::machine::{Boot, ProcessPoint, Started};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `strace` 6.1 printed, as [`comparable`] leaves it.
const GOLDEN: &str = "data/traced.strace";

fn program() -> PathBuf {
    build_c("traced", &["-static", "-no-pie", "-fno-stack-protector"])
}

/// The lines from the program's first own call on, without what differs between two runs:
/// addresses of the heap and the stack, and how far the result is from its call.
fn comparable(trace: &str) -> String {
    let own = trace.lines().skip_while(|line| !line.contains("/nonexistent"));
    let mut text = String::new();
    for line in own {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| match word.find("0x") {
                Some(at) if word.len() - at >= 8 => {
                    let digits = word[at + 2..].bytes().take_while(u8::is_ascii_hexdigit).count();
                    format!("{}ADDRESS{}", &word[..at], &word[at + 2 + digits..])
                }
                _ => word.to_owned(),
            })
            .collect();
        text += &words.join(" ");
        text.push('\n');
    }
    text
}

fn golden() -> String {
    std::fs::read_to_string(guests().join(GOLDEN)).unwrap()
}

/// What the installed `strace` prints; `None`, after a line that says why, where it cannot trace.
fn native_trace(program: &Path) -> Option<String> {
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command.arg("-o").arg(out.path()).arg(program).env_clear();
    let done = match command.output() {
        Ok(done) => done,
        Err(error) => {
            eprintln!("not compared with strace: {error} (package strace)");
            return None;
        }
    };
    let trace = std::fs::read_to_string(out.path()).unwrap();
    if trace.is_empty() {
        eprintln!("not compared with strace: {}", String::from_utf8_lossy(&done.stderr));
        return None;
    }
    Some(trace)
}

#[test]
fn a_trace_is_what_strace_prints() {
    if let Some(native) = native_trace(&program()) {
        assert_eq!(comparable(&native), golden(), "another strace than {GOLDEN} is of");
    }
    let Some(system) = kvm() else { return };
    let mut spec = spec(&program(), &[]);
    spec.trace = true;
    let boot = Boot::process(&system, &spec, RAM_BYTES, b"").unwrap();
    let Started::Ended(ended) = boot.start(ProcessPoint::Input, limit()).unwrap() else {
        panic!("it never looks at its input")
    };
    let process = ended.process().unwrap();
    let trace = process.trace().to_owned() + &process.trace_end(&ended.report.outcome);
    assert_eq!(comparable(&trace), golden());
    assert!(trace.starts_with("execve(\""), "{trace}");
}
