//! A campaign that runs for long takes no more memory, descriptors or threads than after a while.
//!
//! `DEJAVM_SOAK_SECONDS=N` makes it N seconds, and prints what was sampled.

use crate::support::{build_c, kvm};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What one look at a process and its folder shows.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "some of it is only printed")]
struct Sample {
    at: Duration,
    rss_kib: u64,
    swap_kib: u64,
    threads: u64,
    descriptors: u64,
    mappings: u64,
    findings: u64,
    finding_bytes: u64,
    folder_bytes: u64,
    /// Of the whole host: what the kernel cannot give back. Others' too, and so no claim.
    slab_kib: u64,
}

/// A field of a file such as `/proc/self/status`, in its unit.
fn field(file: &str, name: &str) -> Option<u64> {
    let line = file.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Files under `folder`, and their bytes.
fn weigh(folder: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (files, bytes) = match entry.metadata() {
            Ok(it) if it.is_dir() => weigh(&entry.path()),
            Ok(it) => (1, it.len()),
            // Renamed meanwhile.
            Err(_) => (0, 0),
        };
        sum = (sum.0 + files, sum.1 + bytes);
    }
    sum
}

impl Sample {
    /// `None` once the process is over.
    fn take(child: &Child, out: &Path, start: Instant) -> Option<Self> {
        let process = Path::new("/proc").join(child.id().to_string());
        let status = fs::read_to_string(process.join("status")).ok()?;
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let parts = ["queue", "crashes", "hangs"].map(|name| weigh(&out.join(name)));
        Some(Self {
            at: start.elapsed(),
            rss_kib: field(&status, "VmRSS:")?,
            swap_kib: field(&status, "VmSwap:").unwrap_or(0),
            threads: field(&status, "Threads:")?,
            descriptors: fs::read_dir(process.join("fd")).ok()?.count() as u64,
            mappings: fs::read_to_string(process.join("maps")).ok()?.lines().count() as u64,
            findings: parts.iter().map(|part| part.0).sum(),
            finding_bytes: parts.iter().map(|part| part.1).sum(),
            folder_bytes: weigh(out).1,
            slab_kib: field(&memory, "SUnreclaim:").unwrap_or(0),
        })
    }

    fn memory_kib(&self) -> u64 {
        self.rss_kib + self.swap_kib
    }
}

/// Runs a campaign for `time` and looks at it now and then, from its first entry on.
fn soak(time: Duration, out: &Path, args: &[&str]) -> Vec<Sample> {
    let seconds = time.as_secs().to_string();
    let fuzz = ["fuzz", "-o", out.to_str().unwrap(), "-V", &seconds];
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dejavm"))
        .args([&fuzz[..], args].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut samples = Vec::new();
    let pause = (time / 60).max(Duration::from_millis(250));
    loop {
        std::thread::sleep(pause);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return samples;
        }
        // Before the first entry it boots, which takes seconds on a slow host.
        samples.extend(Sample::take(&child, out, start).filter(|sample| sample.findings > 0));
    }
}

#[test]
fn a_campaign_is_flat_after_a_while() {
    let Some(_) = kvm() else { return };
    let asked = std::env::var("DEJAVM_SOAK_SECONDS").ok().map(|s| s.parse().expect("seconds"));
    let time = Duration::from_secs(asked.unwrap_or(16));
    let folder = tempfile::tempdir().unwrap();
    let seeds = folder.path().join("seeds");
    fs::create_dir(&seeds).unwrap();
    fs::write(seeds.join("a"), b"{\"a\": [1, true, \"x\"]}").unwrap();
    let program = build_c("json", &[]);
    let (seeds, program) = (seeds.to_str().unwrap(), program.to_str().unwrap());
    let out = folder.path().join("out");
    // No input longer than a page or so: how much of its memory a guest has touched is its own.
    let args = ["-i", seeds, "--max-len", "4K", "-s", "1", "--", program];
    let samples = soak(time, &out, &args);
    if asked.is_some() {
        samples.iter().for_each(|sample| eprintln!("{sample:?}"));
    }
    assert!(samples.len() >= 4, "the campaign was seen only {} times", samples.len());
    let (warm, last) = (samples[samples.len() / 2], samples[samples.len() - 1]);
    let peak = |part: &[Sample]| part.iter().map(Sample::memory_kib).max().unwrap();
    let (first_half, second_half) = samples.split_at(samples.len() / 2);
    let grown = peak(second_half).saturating_sub(peak(first_half));
    // The queue is in memory, with what its scheduler knows of each entry.
    let findings = last.findings - warm.findings;
    let explained = 2 * (last.finding_bytes - warm.finding_bytes) / 1024 + 4 * findings;
    assert!(
        grown < 2048 + explained,
        "{grown} KiB more, {explained} KiB by {findings} findings: {warm:?} {last:?}"
    );
    // A sample may find a file that is just being written.
    let fewest = |part: &[Sample]| part.iter().map(|sample| sample.descriptors).min().unwrap();
    assert!(fewest(second_half) <= fewest(first_half), "{warm:?} {last:?}");
    for sample in second_half {
        assert!(sample.descriptors <= warm.descriptors + 2, "{sample:?} after {warm:?}");
        assert!(sample.threads <= warm.threads, "{sample:?} after {warm:?}");
        assert!(sample.mappings <= warm.mappings + 8, "{sample:?} after {warm:?}");
    }
    // Numbers, one line in five seconds, and the findings.
    let lines = 512 * (last.at - warm.at).as_secs().div_ceil(5);
    let folder = last.folder_bytes.saturating_sub(warm.folder_bytes);
    assert!(folder <= 16_384 + lines + 2 * (last.finding_bytes - warm.finding_bytes), "{folder}");
}
