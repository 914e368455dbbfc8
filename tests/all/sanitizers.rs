//! Programs that are built with a sanitizer run, and report what they report natively.

use crate::invoke::{fuzz, path, run, seeds, text};
use crate::support::{build_c, kvm};
use std::path::Path;
use std::process::{Command, Output};

/// No look for leaks, which a guest cannot have; frames by address, because the guest has no
/// debug files of the C library.
const OPTIONS: &str = "detect_leaks=0:symbolize=0";

fn input(folder: &Path, deed: &str) -> std::path::PathBuf {
    let file = folder.join("input");
    std::fs::write(&file, deed).unwrap();
    file
}

fn in_guest(program: &Path, deed: &str, env: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let input = input(folder.path(), deed);
    let mut args = vec!["run", "-q", "-i", path(&input)];
    args.extend(env.iter().flat_map(|entry| ["--env", entry]));
    args.extend(["--", path(program)]);
    run(&args)
}

fn natively(program: &Path, deed: &str, options: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let stdin = std::fs::File::open(input(folder.path(), deed)).unwrap();
    let mut command = Command::new(program);
    command.env_clear().env("ASAN_OPTIONS", options).stdin(stdin).output().unwrap()
}

/// A report without what differs from run to run, even natively: addresses, offsets, process
/// numbers, and the rows of shadow memory, which show by where they start.
fn report(stderr: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stderr);
    let shadow = |line: &str| line.trim_start_matches("=>").trim_start().starts_with("0x");
    let is_report = |line: &&str| !shadow(line) && !line.starts_with("dejavm:");
    text.lines().filter(is_report).map(without_numbers).collect()
}

fn without_numbers(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("0x") {
        out.push_str(&rest[..at]);
        out.push_str("ADDRESS");
        rest = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    out.push_str(rest);
    match out.strip_prefix("==").and_then(|line| line.split_once("==")) {
        Some((pid, line)) if pid.bytes().all(|c| c.is_ascii_digit()) => format!("==PID=={line}"),
        _ => out,
    }
}

#[test]
fn address_sanitizer_reports_what_it_reports_natively() {
    let Some(_) = kvm() else { return };
    for flags in [&["-fsanitize=address"][..], &["-fsanitize=address", "-static-libasan"]] {
        let program = build_c("sanitized", flags);
        for (deed, error) in [
            ("h", "heap-buffer-overflow"),
            ("u", "heap-use-after-free"),
            ("s", "stack-buffer-overflow"),
            ("d", "attempting double-free"),
        ] {
            let native = natively(&program, deed, OPTIONS);
            let guest = in_guest(&program, deed, &[&format!("ASAN_OPTIONS={OPTIONS}")]);
            assert_eq!(native.status.code(), Some(1));
            assert_eq!(guest.status.code(), Some(1), "{:?}", report(&guest.stderr));
            assert!(report(&guest.stderr).iter().any(|line| line.contains(error)), "{error}");
            assert_eq!(report(&guest.stderr), report(&native.stderr), "{deed} {flags:?}");
        }
        let guest = in_guest(&program, "nothing", &[]);
        assert_eq!(guest.status.code(), Some(0), "{:?}", report(&guest.stderr));
        assert_eq!(guest.stdout, b"done\n");
    }
}

#[test]
fn undefined_behaviour_sanitizer_reports_and_goes_on_or_ends() {
    let Some(_) = kvm() else { return };
    let flags = ["-fsanitize=undefined", "-fno-sanitize-recover=all"];
    for (flags, ends) in [(&flags[..1], false), (&flags[..], true)] {
        let program = build_c("sanitized", flags);
        let native = natively(&program, "o", "");
        let guest = in_guest(&program, "o", &[]);
        assert_eq!(guest.status.code(), native.status.code());
        assert_eq!(ends, guest.status.code() == Some(1));
        assert_eq!(report(&guest.stderr), report(&native.stderr));
        assert!(report(&guest.stderr)[0].contains("runtime error: signed integer overflow"));
    }
}

#[test]
fn a_campaign_takes_a_sanitizers_report_for_a_crash() {
    let Some(_) = kvm() else { return };
    for (flags, seed) in [("-fsanitize=address", b"g"), ("-fsanitize=undefined", b"n")] {
        let program = build_c("sanitized", &[flags]);
        let folder = tempfile::tempdir().unwrap();
        let (seeds, out) = (seeds(folder.path(), seed), folder.path().join("out"));
        let mut campaign = fuzz(&seeds, &out, "-s 1 -E 20000 --until-crash", &[path(&program)]);
        let said = text(&campaign.output().unwrap().stderr);
        assert!(said.contains("_OPTIONS="), "{said}");
        let crashes = std::fs::read_dir(out.join("crashes"));
        let crashes: Vec<_> = crashes.unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!crashes.is_empty(), "{said}");
        // Named by the program's function, not by the runtime's.
        assert!(said.contains(" in main@") || said.contains(" in fill@"), "{said}");
    }
}
