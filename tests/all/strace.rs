//! The trace of a program's system calls is the one that `strace` prints.

use crate::support::{RAM_BYTES, build_c, guests, kvm, limit, spec};
use dejavm_engine::guest::process::trap;
use dejavm_engine::kvm::System;
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
fn native_trace(program: &Path, args: &[&str]) -> Option<String> {
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command.arg("-o").arg(out.path()).arg(program).args(args).env_clear();
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
    if let Some(native) = native_trace(&program(), &[]) {
        assert_eq!(comparable(&native), golden(), "another strace than {GOLDEN} is of");
    }
    let Some(system) = kvm() else { return };
    let trace = trace(&system, &program(), &[]);
    assert_eq!(comparable(&trace), golden());
    assert!(trace.starts_with("execve(\""), "{trace}");
}

/// What a program's run in a guest gives.
fn trace(system: &System, program: &Path, args: &[&str]) -> String {
    let mut spec = spec(program, args);
    spec.trace = true;
    let boot = Boot::process(system, &spec, RAM_BYTES, b"").unwrap();
    let Started::Ended(ended) = boot.start(ProcessPoint::Input, limit()).unwrap() else {
        panic!("it never looks at its input")
    };
    let process = ended.process().unwrap();
    process.trace().to_owned() + &process.trace_end(&ended.report.outcome)
}

/// What `siginfo.c` can do, and what may become of it.
const SIGNALS: [(&str, &[&str]); 25] = [
    ("maperr", &["end", "handle", "ignore", "lost"]),
    ("accerr", &["end", "handle"]),
    ("exec", &["end", "handle"]),
    ("gp", &["end", "handle", "ignore"]),
    ("bus", &["end", "handle"]),
    ("div", &["end", "handle", "lost"]),
    ("sse", &["end", "handle"]),
    ("x87", &["end", "handle"]),
    ("ill", &["end", "handle", "lost"]),
    ("int3", &["end", "handle"]),
    ("step", &["end", "handle"]),
    ("ac", &["end", "handle"]),
    ("frame", &["end", "handle"]),
    ("blocked", &["end", "handle"]),
    ("pipe", &["end", "handle", "ignore"]),
    ("kill", &["end", "handle", "ignore"]),
    ("killed", &["end", "handle"]),
    ("virtual", &["end"]),
    ("realtime", &["end"]),
    ("abort", &["end", "handle", "ignore"]),
    ("alarm", &["end", "handle"]),
    ("queue", &["end", "handle", "ignore"]),
    ("queue-all", &["end"]),
    ("timer", &["end"]),
    ("ignored", &["end"]),
];

fn siginfo() -> PathBuf {
    build_c("siginfo", &["-static", "-no-pie", "-fno-stack-protector"])
}

/// The lines of signals and of the end, each behind the name of the call that came before it,
/// without what differs between two runs: who the program is, and where its mappings are.
fn signal_lines(trace: &str) -> Vec<String> {
    let own = |call: &str| {
        let line = trace.lines().find_map(|line| line.strip_prefix(call));
        line.and_then(|line| line.split_once("= ")).map(|(_, id)| id.to_owned()).unwrap()
    };
    let sender = format!("si_pid={}, si_uid={}", own("getpid("), own("getuid("));
    let mut call = "";
    let mut lines = Vec::new();
    for line in trace.lines() {
        if !line.starts_with(['-', '+']) {
            call = line.split('(').next().unwrap();
            continue;
        }
        let mut line = line.replace(&sender, "OWN");
        if let Some(at) = line.find("si_addr=0x7").filter(|at| line.len() - at > 20) {
            let page_offset = line.split_off(line.len() - " } ---".len() - 2);
            line.truncate(at);
            line += &page_offset;
        }
        lines.push(format!("{call}: {line}"));
    }
    lines
}

#[test]
fn signals_and_the_end_are_shown_as_strace_shows_them() {
    let Some(system) = kvm() else { return };
    let program = siginfo();
    for (what, ends) in SIGNALS {
        for how in ends {
            let Some(native) = native_trace(&program, &[what, how]) else { return };
            let guest = signal_lines(&trace(&system, &program, &[what, how]));
            let native = signal_lines(&native);
            assert!(!native.is_empty());
            assert_eq!(guest.len(), native.len(), "{what} {how}: {guest:#?} {native:#?}");
            for (i, (guest, native)) in guest.iter().zip(&native).enumerate() {
                assert_eq!(guest, native, "{what} {how}, line {i}");
            }
        }
    }
}

#[test]
fn going_on_where_no_program_can_be_is_shown_as_the_kernels_signal() {
    let Some(system) = kvm() else { return };
    let gate = trap::syscall_entry().0.to_string();
    let trace = trace(&system, &siginfo(), &["gate", &gate]);
    let end = "--- SIGSEGV {si_signo=SIGSEGV, si_code=SI_KERNEL, si_addr=NULL} ---\n\
               +++ killed by SIGSEGV +++\n";
    assert!(trace.ends_with(end), "{trace}");
    assert_eq!(trace.matches("---").count(), 2, "{trace}");
}
