//! The command, as a user runs it.

use crate::invoke::{fuzz_planted, only_file, path, run, text};
use crate::support::{build_c, build_rust, guests, kvm};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn run_gives_the_programs_own_output_and_status() {
    let Some(_) = kvm() else { return };
    let photo = guests().join("data/photo.jpg");
    let faults = build_c("faults", &[]);
    let hash = run(&["run", "-i", path(&photo), "--", "/bin/busybox", "sha256sum", "@@"]);
    assert_eq!(hash.status.code(), Some(0), "{}", text(&hash.stderr));
    assert!(text(&hash.stdout).ends_with("  /work/input\n"));
    assert!(text(&hash.stderr).contains("exits"), "the report is on standard error");
    for (input, status) in [("e", 42), ("r", 139), ("d", 136), ("a", 134), ("z", 0)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("input");
        std::fs::write(&file, input).unwrap();
        let out = run(&["run", "-q", "-i", path(&file), "--", path(&faults)]);
        assert_eq!(out.status.code(), Some(status), "{input}: {}", text(&out.stderr));
    }
}

#[test]
fn run_stops_at_its_time_limit() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("input");
    std::fs::write(&file, "l").unwrap();
    let start = Instant::now();
    let out = run(&["run", "-t", "100", "-i", path(&file), "--", path(&build_c("faults", &[]))]);
    assert_eq!(out.status.code(), Some(124), "{}", text(&out.stderr));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_saved_snapshot_is_inspected_checked_and_run() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("words.dejavm");
    let input = folder.path().join("input");
    std::fs::write(&input, "b a").unwrap();
    let made = run(&["snapshot", "-o", path(&file), "--", path(&build_c("words", &[]))]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let inspected = run(&["inspect", "--check", path(&file)]);
    assert_eq!(inspected.status.code(), Some(0), "{}", text(&inspected.stderr));
    let ran = run(&["run", "-q", "--snapshot", path(&file), "-i", path(&input)]);
    assert_eq!(text(&ran.stdout), "a\nb\n2 words, 2.000000\n", "{}", text(&ran.stderr));

    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let checked = run(&["inspect", "--check", path(&file)]);
    assert_eq!(checked.status.code(), Some(1), "{}", text(&checked.stdout));
}

#[test]
fn a_campaign_finds_the_planted_bug_and_repro_brings_it_back() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let options = "-s 1 -V 100 --until-crash --verify-every 500";
    let found = fuzz_planted(folder.path(), &out, options).output().unwrap();
    let told = text(&found.stderr) + &text(&found.stdout);
    assert_eq!(found.status.code(), Some(0), "{told}");
    assert!(told.contains("dejavm repro"), "the summary names the command: {told}");
    assert!(told.contains("blocks by detours, "), "it says how it traces: {told}");
    let crash = only_file(&out.join("crashes"));
    assert!(path(&crash).contains("sig:SIGSEGV"), "{}", crash.display());

    let back = run(&["repro", path(&crash)]);
    let told = text(&back.stdout) + &text(&back.stderr);
    assert_eq!(back.status.code(), Some(0), "{told}");
    for wanted in ["reproduced", "parse", "planted.c:", "rip", "=>"] {
        assert!(told.contains(wanted), "{wanted} is not in {told}");
    }

    let harmless = folder.path().join("harmless");
    std::fs::write(&harmless, b"t\x01a").unwrap();
    let snapshot = find_snapshot(&out);
    let not = run(&["repro", "--snapshot", path(&snapshot), path(&harmless)]);
    assert_eq!(not.status.code(), Some(1), "{}", text(&not.stdout));
}

fn find_snapshot(out: &Path) -> PathBuf {
    let mut folders = vec![out.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "dejavm") {
                return path;
            }
        }
    }
    panic!("no snapshot under {}", out.display());
}

#[test]
fn a_panic_is_a_crash_where_it_happens_if_it_is_asked_for() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    std::fs::write(&input, "n=x").unwrap();
    let program = build_rust("panics");
    let program = path(&program);
    let unwound = run(&["run", "-i", path(&input), "--", program]);
    assert_eq!(unwound.status.code(), Some(101), "{}", text(&unwound.stderr));
    let args = ["run", "-i", path(&input), "--crash-at", "rust_panic", "--", program];
    let crashed = run(&args);
    let told = text(&crashed.stderr);
    assert_eq!(crashed.status.code(), Some(134), "{told}");
    assert!(told.contains("panics.rs:"), "the program's own line is named: {told}");
    assert!(!told.contains("int3"), "the engine's own breakpoint is not shown: {told}");
    let trace = folder.path().join("trace");
    let traced = format!("--strace={}", path(&trace));
    run(&[&args[..1], &[&traced], &args[1..]].concat());
    let trace = std::fs::read_to_string(trace).unwrap();
    let end = "--- SIGABRT {si_signo=SIGABRT, si_code=SI_KERNEL} ---\n+++ killed by SIGABRT +++\n";
    assert!(trace.ends_with(end), "{trace}");
    std::fs::write(&input, "n=7").unwrap();
    let fine = run(&args);
    assert_eq!((fine.status.code(), text(&fine.stdout)), (Some(0), "7\n".to_owned()));

    let saved = folder.path().join("panics.dejavm");
    let made = run(&["snapshot", "-o", path(&saved), "--crash-at", "rust_panic", "--", program]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    std::fs::write(&input, "n=x").unwrap();
    let again = run(&["repro", "--snapshot", path(&saved), path(&input)]);
    assert_eq!(again.status.code(), Some(0), "a snapshot keeps it: {}", text(&again.stdout));
}

#[test]
fn one_seed_is_one_campaign() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let queue = |name: &str| {
        let out = folder.path().join(name);
        let mut campaign = fuzz_planted(folder.path(), &out, "-s 7 -E 1500 -t 1000");
        let done = campaign.output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        let mut entries: Vec<_> = std::fs::read_dir(out.join("queue"))
            .unwrap()
            .map(|e| std::fs::read(e.unwrap().path()).unwrap())
            .collect();
        entries.sort();
        entries
    };
    let first = queue("first");
    assert!(first.len() > 2, "the campaign found something");
    assert_eq!(first, queue("second"));
}

#[test]
fn a_campaign_verifies_itself_in_either_mode_of_rewinding() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    for mode in ["lazy", "full"] {
        let out = folder.path().join(mode);
        let options = format!("-s 7 --rewind {mode} -E 400 --verify-every 20");
        let done = fuzz_planted(folder.path(), &out, &options).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{mode}: {}", text(&done.stderr));
    }
}

#[test]
fn a_campaign_says_how_often_its_runs_leave_a_batch() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let done = fuzz_planted(folder.path(), &out, "-s 7 -E 2000 --json").output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let exits = &summary["exits"];
    let number = |key: &str| exits[key].as_f64().unwrap_or_else(|| panic!("{key}: {summary}"));
    assert!(number("runs") > 0.0 && number("per_run") >= number("ends_per_run"), "{exits}");
    assert!(exits["calls"].as_array().unwrap().len() <= 5, "{exits}");
    let stats = std::fs::read_to_string(out.join("fuzzer_stats")).unwrap();
    let told = format!("exits_per_run     : {:.2}", number("per_run"));
    assert!(stats.lines().any(|line| line == told), "{told} in {stats}");
    // One by one there is no batch to leave.
    let alone = folder.path().join("alone");
    let options = "-s 7 -E 100 --json --rewind lazy";
    let done = fuzz_planted(folder.path(), &alone, options).output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(summary["exits"].is_null(), "{summary}");
}

#[test]
fn ctrl_c_ends_cleanly_and_the_same_command_resumes() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let campaign = |options| fuzz_planted(folder.path(), &out, options);
    for signal in ["INT", "KILL", "INT"] {
        let mut campaign = campaign("-V 60");
        let child = campaign.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for(&out.join("fuzzer_stats"));
        std::thread::sleep(Duration::from_millis(700));
        let pid = child.id().to_string();
        Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        let done = child.wait_with_output().unwrap();
        let told = text(&done.stderr) + &text(&done.stdout);
        if signal == "INT" {
            assert_eq!(done.status.code(), Some(0), "{told}");
            assert!(told.contains("executions"), "a summary: {told}");
        }
    }
    let resumed = campaign("-E 10").output().unwrap();
    let told = text(&resumed.stderr) + &text(&resumed.stdout);
    assert_eq!(resumed.status.code(), Some(0), "{told}");
    assert!(told.contains("resuming"), "{told}");
}

fn wait_for(file: &Path) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "{} never came", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn doctor_answers_for_people_and_for_programs() {
    let Some(_) = kvm() else { return };
    let out = run(&["doctor"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
    assert!(text(&out.stdout).contains("process guests can run here: yes"));
    let json = run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["verdict"]["process_guests"], true);
    let missing = run(&["doctor", "--device", "/nonexistent/kvm"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stdout).contains("mend:"), "{}", text(&missing.stdout));
}

/// `bench WHAT` with few samples, and its JSON; of rows whose name has one of `only` in it, if any.
fn bench(what: &str, only: &[&str]) -> serde_json::Value {
    let mut args = vec!["bench", what, "--samples", "9", "--json", "-"];
    args.extend(only.iter().flat_map(|name| ["--only", name]));
    let out = run(&args);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Every row has figures that are above zero, or the reason why it has none.
fn assert_measured(report: &serde_json::Value, name: &str, layers: &[&str]) {
    let row = report["rows"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    let lines = row["lines"].as_array().unwrap();
    if lines.is_empty() {
        assert!(!row["absent"].as_str().unwrap().is_empty(), "{row}");
        return;
    }
    let found: Vec<_> = lines.iter().map(|line| line["layer"].as_str().unwrap()).collect();
    assert_eq!(found, layers, "{name}");
    for line in lines {
        let of = |percentile: &str| line[percentile].as_f64().unwrap();
        // Hardware that keeps the guest's TPR has nothing to handle at a read of CR8.
        assert!(of("p50_ns") > 0.0 || name == "cpl0_cr8_read", "{name}: {line}");
        assert!(of("p50_ns") <= of("p90_ns") && of("p90_ns") <= of("p99_ns"), "{name}: {line}");
    }
}

/// Rows of `bench exits` by how they are measured.
const BESIDE_VCPU: [&str; 17] = [
    "cpl0_hlt",
    "cpl0_rdmsr_filtered",
    "cpl0_wrmsr_filtered",
    "cpl0_step",
    "immediate_exit",
    "cpl0_interrupt_window",
    "cpl0_interrupt",
    "cpl0_irq_line",
    "cpl0_irqfd",
    "cpl3_out",
    "cpl3_in",
    "cpl3_mmio_store",
    "cpl3_mmio_load",
    "cpl3_ud2_exit",
    "cpl3_int3_exit",
    "cpl3_step",
    "cpl3_interrupt",
];
const IN_KERNEL: [&str; 15] = [
    "cpl0_cpuid",
    "cpl3_cpuid",
    "cpl0_rdmsr",
    "cpl0_wrmsr",
    "cpl0_cr8_read",
    "cpl0_cr8_write",
    "cpl0_vmcall",
    "cpl0_pic_in",
    "cpl0_apic_load",
    "cpl0_pio_eventfd",
    "cpl0_mmio_eventfd",
    "cpl3_mmio_eventfd",
    "cpl0_pio_coalesced",
    "cpl0_mmio_coalesced",
    "cpl3_mmio_coalesced",
];

#[test]
fn bench_measures_every_exit_beside_its_floor() {
    let Some(_) = kvm() else { return };
    let report = bench("exits", &[]);
    for name in ["cpl0_out", "cpl0_in", "cpl0_mmio_store", "cpl0_mmio_load"] {
        assert_measured(&report, name, &["floor", "machine"]);
    }
    for name in ["cpl3_syscall", "cpl3_ud2", "cpl3_first_touch"] {
        assert_measured(&report, name, &["floor", "machine"]);
    }
    for name in BESIDE_VCPU {
        assert_measured(&report, name, &["floor", "vcpu"]);
    }
    for name in IN_KERNEL {
        assert_measured(&report, name, &["kernel"]);
    }
    for name in ["cpl0_first_write", "cpl3_first_write"] {
        assert_measured(&report, name, &["floor", "protected"]);
    }
    for name in ["cpl0_fresh_page", "cpl3_fresh_page"] {
        assert_measured(&report, name, &["floor", "fresh"]);
    }
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4 + 3 + BESIDE_VCPU.len() + IN_KERNEL.len() + 2 + 2, "{rows:?}");
    // What this host cannot do is known before it is tried.
    let absent = rows.iter().filter_map(|row| row["absent"].as_str());
    for why in absent {
        assert!(why.starts_with("probe ") || why.starts_with("extension "), "{why}");
    }
    let host = &report["host"];
    assert!(host["cpu"].is_string() && host["kvm"].is_string() && host["engine"].is_string());
}

#[test]
fn bench_boots_in_new_processes_and_shares_a_snapshot() {
    let Some(_) = kvm() else { return };
    let report = bench("boot", &["file_to_first_run", "tenth_machine"]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4, "those that were asked for: {rows:?}");
    for ram in ["64m", "1g", "4g"] {
        assert_measured(&report, &format!("file_to_first_run_{ram}"), &["floor", "first_run"]);
    }
    assert_measured(&report, "tenth_machine", &["floor", "first_run"]);
    let tenth = rows.iter().find(|row| row["name"] == "tenth_machine").unwrap();
    // Of 1 GiB: what it has for itself is bookkeeping, no page of the guest.
    let private = tenth["lines"][1]["private_bytes"].as_u64().unwrap();
    assert!((1..(1 << 30) / 100).contains(&private), "{private}");
}

#[test]
fn bench_runs_one_parser_in_several_ways() {
    let Some(_) = kvm() else { return };
    let ways = [
        ("machine_one_per_entry", &["execution"][..]),
        ("machine_batches_8", &["execution"]),
        ("machine_batches_64", &["execution"]),
        ("machine_batches_256", &["execution"]),
        ("machine_batches_1024", &["execution"]),
        ("machine_batches_64_pages", &["floor", "execution"]),
        ("native_fork_server", &["execution"]),
        ("native_fork_exec", &["execution"]),
        ("native_loop", &["execution"]),
    ];
    let report = bench("campaign", &["machine", "native"]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), ways.len(), "{rows:?}");
    for (name, layers) in ways {
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        if row["lines"].as_array().unwrap().is_empty() {
            let why = row["absent"].as_str().unwrap();
            assert!(why.contains("compiler"), "only a compiler may be missing: {why}");
            continue;
        }
        assert_measured(&report, name, layers);
        let executions = &row["lines"][layers.len() - 1]["executions"];
        assert!(executions["per_second"].as_f64().unwrap() > 0.0, "{row}");
        for (ratio, itself) in [
            ("of_machine", "machine_one_per_entry"),
            ("of_fork_server", "native_fork_server"),
            ("of_loop", "native_loop"),
        ] {
            let is_one = executions[ratio].as_f64().unwrap() == 1.0;
            assert_eq!(is_one, name == itself, "{name}, {ratio}: {row}");
        }
        // One exit for all of a batch's runs, where one input per entry has two for each.
        if name == "machine_batches_256" {
            assert!(executions["of_machine"].as_f64().unwrap() > 2.0, "{row}");
        }
    }
}

#[test]
fn bench_rewinds_by_the_host_and_in_the_guest() {
    let Some(_) = kvm() else { return };
    // What 4096 pages take in batches is long on an emulated CPU.
    let report = bench("rewind", &["64m_0", "64m_8", "64m_64", "1g_8", "4g_8"]);
    let mut rows = 0;
    let by_log = report["rows"].to_string().contains("\"log_64m_0\"");
    for kind in ["", "full_"].into_iter().chain(by_log.then_some("log_")) {
        assert_measured(&report, &format!("{kind}64m_0"), &["floor", "run", "rewind", "cycle"]);
        for cell in ["64m_8", "64m_64", "1g_8", "4g_8"] {
            let layers = ["floor", "run", "rewind", "cycle", "memcpy"];
            assert_measured(&report, &format!("{kind}{cell}"), &layers);
        }
        rows += 5;
    }
    assert_measured(&report, "agent_64m_0", &["execution", "cycle"]);
    for cell in ["64m_8", "64m_64", "1g_8", "4g_8"] {
        assert_measured(&report, &format!("agent_{cell}"), &["execution", "cycle", "memcpy"]);
    }
    assert_eq!(report["rows"].as_array().unwrap().len(), rows + 5);
    let row = report["rows"].as_array().unwrap().iter().find(|row| row["name"] == "agent_64m_8");
    let of = |line: usize| row.unwrap()["lines"][line]["p50_ns"].as_f64().unwrap();
    assert!(of(0) < of(1) / 2.0, "no exit of its own for each run: {row:?}");
}

#[test]
fn bench_compares_with_an_earlier_measurement_of_the_same_kind() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json");
    let rows = ["--only", "4g_1", "--only", "4g_64"];
    let rewind =
        |last: [&str; 2]| run(&[&["bench", "rewind", "--samples", "2"][..], &rows, &last].concat());
    let made = rewind(["--json", path(&file)]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    assert!(text(&made.stdout).contains("log scale"), "{}", text(&made.stdout));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    // Where there is a dirty ring, the host's rows are there once more, by the dirty log.
    let by_log = report["rows"].to_string().contains("\"log_4g_64\"");
    let kinds = if by_log { 4 } else { 3 };
    assert_eq!(report["rows"].as_array().unwrap().len(), 2 * kinds);
    let again = rewind(["--compare", path(&file)]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    let told = text(&again.stdout);
    assert!(told.contains("WARNING: a debug build") == cfg!(debug_assertions), "{told}");
    assert!(!told.contains("WARNING: two hosts"), "{told}");
    let header = told.lines().find(|line| line.contains("old p50 ns")).unwrap();
    assert!(header.ends_with("ratio"), "{header}");
    assert_eq!(
        told.matches(" x").count(),
        2 * (5 * (kinds - 1) + 3),
        "a ratio for each line: {told}"
    );
    let other = run(&["bench", "exits", "--samples", "1", "--compare", path(&file)]);
    assert_eq!(other.status.code(), Some(4));
    assert!(text(&other.stderr).contains("`rewind`"), "{}", text(&other.stderr));
    let none = run(&["bench", "exits", "--compare", path(&guests().join("data/photo.jpg"))]);
    assert_eq!(none.status.code(), Some(4), "{}", text(&none.stderr));
}
