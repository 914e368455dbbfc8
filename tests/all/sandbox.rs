//! A campaign and a replay run in the sandbox, and say so. What its stages refuse is tested
//! where they are (`cli/src/sandbox/tests.rs`).

use crate::invoke::{fuzz, fuzz_planted, only_file, path, run, seeds, text};
use crate::support::{build_elf, kvm};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The line of a thread's status that says 2 where a filter is (proc(5)), for each thread.
fn filters(process: &Child) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let status = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")));
    let line =
        |status: &String| status.lines().find(|l| l.starts_with("Seccomp:")).map(str::to_owned);
    status.map(|status| line(&status.unwrap()).unwrap()).collect()
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Threads of a running campaign and what each is behind, then what the campaign said at its end.
fn campaign(folder: &Path, more: &str) -> (Vec<String>, String) {
    let out = folder.join("out");
    let mut campaign = fuzz_planted(folder, &out, &format!("-V 60 {more}"));
    let child = campaign.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(|| out.join("fuzzer_stats").exists());
    let filters = filters(&child);
    let pid = child.id().to_string();
    std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    (filters, text(&done.stdout))
}

#[test]
fn every_thread_of_a_campaign_is_behind_a_filter() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (filters, told) = campaign(folder.path(), "");
    assert!(filters.len() >= 3, "the campaign, its watchdog, Ctrl-C: {filters:?}");
    assert!(filters.iter().all(|filter| filter == "Seccomp:\t2"), "{filters:?}");
    assert!(told.contains("\nsandbox: seccomp"), "{told}");
}

#[test]
fn a_campaign_without_its_sandbox_says_so() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (filters, told) = campaign(folder.path(), "--no-sandbox");
    assert!(filters.iter().all(|filter| filter == "Seccomp:\t0"), "{filters:?}");
    assert!(told.contains("\nsandbox: off (--no-sandbox)\n"), "{told}");
}

#[test]
fn a_crash_that_was_found_in_the_sandbox_comes_back_in_it_and_without() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut campaign = fuzz_planted(folder.path(), &out, "-s 1 -V 100 --json --until-crash");
    let found = campaign.output().unwrap();
    assert_eq!(found.status.code(), Some(0), "{}", text(&found.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let sandbox = summary["sandbox"].as_str().unwrap();
    assert!(sandbox.starts_with("seccomp"), "{summary}");
    let crash = only_file(&out.join("crashes"));
    for (more, expected) in [(&[][..], sandbox), (&["--no-sandbox"][..], "off (--no-sandbox)")] {
        let back = run(&[&["repro", path(&crash)], more].concat());
        let told = text(&back.stdout) + &text(&back.stderr);
        assert_eq!(back.status.code(), Some(0), "{told}");
        // The symbols and lines of its program, which it can no longer open.
        assert!(told.contains("parse") && told.contains("planted.c:"), "{told}");
        assert!(told.ends_with(&format!("\nsandbox: {expected}\n")), "{told}");
    }
}

/// A guest with interrupt controllers, entered at 0x100f00: it asks for its snapshot and is done.
fn with_interrupt_controllers() -> Vec<u8> {
    let mut image = vec![0; 0xf00];
    // mov edi, 0x200000; mov ecx, 16; out 0xd0, al; mov al, 0; out 0xd1, al
    image.extend([0xbf, 0, 0, 0x20, 0, 0xb9, 16, 0, 0, 0, 0xe6, 0xd0, 0xb0, 0, 0xe6, 0xd1]);
    image
}

#[test]
fn a_bare_guests_campaign_makes_no_call_that_is_refused() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let seeds = seeds(folder.path(), b"d");
    let image = folder.path().join("image");
    for (bare, bytes) in
        [("elf", build_elf("harness", 0x10_0000)), ("lecture", with_interrupt_controllers())]
    {
        std::fs::write(&image, bytes).unwrap();
        for rewind in ["lazy", "full"] {
            let out = folder.path().join(format!("{bare} {rewind}"));
            // Memory and every class of state, read by every ioctl that reads one.
            let how = format!("--bare {bare} --rewind {rewind} -s 1 -t 50 -E 60 --verify-every 1");
            let done = fuzz(&seeds, &out, &how, &[path(&image)]).output().unwrap();
            assert_eq!(done.status.code(), Some(0), "{bare}: {}", text(&done.stderr));
        }
    }
}

#[test]
fn doctor_tells_of_the_sandbox() {
    let told = text(&run(&["doctor"]).stdout);
    assert!(told.contains("\nsandbox of fuzz and repro:   seccomp"), "{told}");
    let report = run(&["doctor", "--json"]).stdout;
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert!(report["sandbox"].as_str().unwrap().starts_with("seccomp"), "{report}");
    assert!(report["verdict"].is_object(), "{report}");
}
