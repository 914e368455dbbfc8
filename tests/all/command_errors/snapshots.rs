//! Snapshots, crashes and reports that cannot be read or written.

use super::{Bench, INPUT, row};
use crate::support::kvm;
use std::fs;
use std::process::Command;

#[test]
fn snapshots_and_crashes_that_cannot_be_used() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.succeed("snapshot -o s -- ./ends-reads");
    let whole = fs::read(bench.path("s")).unwrap();
    let mut other = whole.clone();
    other[8..12].copy_from_slice(&999_u32.to_le_bytes());
    bench.write("other-version", &other);
    bench.write("half", &whole[..whole.len() / 2]);
    bench.write("noise", &[7; 5000]);
    Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap();
    let rows = [
        row("a missing one", "inspect gone").says(&["open gone"]),
        row("no snapshot", "inspect noise").says(&["noise", "magic"]),
        row("half a snapshot", "run --snapshot half").says(&["half", "truncated"]),
        row("another version's", "run --snapshot other-version").says(&[
            "other-version",
            "version is 999",
            "take the snapshot again",
        ]),
        row("a folder", "inspect seeds").says(&["seeds", "no regular file"]),
        row("a pipe", "inspect pipe").says(&["pipe", "no regular file"]),
        row("a crash without its snapshot", "repro seeds/a").says(&[
            "seeds/a",
            "snapshot.dejavm does not exist",
            "--snapshot",
        ]),
        row("a missing crash", "repro gone").says(&["read gone"]),
    ];
    bench.check(INPUT, &rows);
}

#[test]
fn snapshots_and_reports_that_cannot_be_written() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    let rows = [
        row("no folder to write to", "snapshot -o gone/s -- ./ends-reads")
            .says(&["write gone/s", "No such file"]),
        row("a folder to write over", "snapshot -o empty -- ./ends-reads")
            .says(&["write empty", "something else than a file"]),
        row("a report that goes nowhere", "run --report gone/r -- ./ends-reads")
            .says(&["create gone/r", "No such file"]),
        row("a report that is too much", "run --report /dev/full -- ./ends-reads")
            .says(&["write /dev/full", "No space left"]),
    ];
    bench.check(INPUT, &rows);
    assert!(!fs::metadata("/dev/full").unwrap().is_file(), "a device stays a device");
}
