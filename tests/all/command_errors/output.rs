//! Output folders that are not the campaign's, and a standard output that takes nothing.

use super::{Bench, HOST, INPUT, row};
use crate::invoke::text;
use crate::support::{kvm, patience};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

#[test]
fn output_folders_that_are_not_ours() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.write("foreign/thesis.tex", b"x");
    let mine = "fuzz -i seeds -o mine -E 50 -- ./ends-reads";
    bench.succeed(mine);
    let snapshot = fs::read(bench.path("mine/.dejavm/snapshot.dejavm")).unwrap();
    let rows = [
        row("a file", "fuzz -i seeds -o file -E 9 -- ./ends-reads")
            .says(&["create folder file", "name another folder with -o"]),
        row("somebody's files", "fuzz -i seeds -o foreign -E 9 -- ./ends-reads").says(&[
            "foreign",
            "thesis.tex",
            "name another folder with -o",
        ]),
        row("another program's", "fuzz -i seeds -o mine -E 9 -- ./ends-crash").says(&[
            "ends-crash",
            "mine holds a campaign of",
            "ends-reads",
            "-o",
            "-i mine/queue",
        ]),
    ];
    bench.check(INPUT, &rows);
    assert!(fs::read(bench.path("mine/.dejavm/snapshot.dejavm")).unwrap() == snapshot);
    let held = Held::start(&bench, "mine");
    let holder = held.child.id().to_string();
    let taken = row("a running campaign's", "fuzz -i seeds -o mine -E 9 -- ./ends-reads");
    bench.check(INPUT, &[taken.says(&["mine is in use", &holder, "wait for it"])]);
    drop(held);
    bench.succeed(mine);
    assert_eq!(fs::read_dir(bench.path("foreign")).unwrap().count(), 1);
}

/// A campaign that runs, until this is dropped.
struct Held {
    child: Child,
}

impl Held {
    fn start(bench: &Bench, out: &str) -> Self {
        let mut command = bench.command(&format!("fuzz -i seeds -o {out} -V 120 -- ./ends-reads"));
        let stats = bench.path(out).join("fuzzer_stats");
        let before = fs::metadata(&stats).unwrap().mtime_nsec();
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let held = Self { child };
        let start = Instant::now();
        while fs::metadata(&stats).unwrap().mtime_nsec() == before {
            assert!(start.elapsed() < patience(Duration::from_secs(20)), "it never began");
            std::thread::sleep(Duration::from_millis(10));
        }
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn standard_output_that_takes_nothing() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.succeed("snapshot -o s -- ./ends-reads");
    for line in ["inspect s", "inspect --json s", "doctor"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let done = bench.command(line).stdout(full).output().unwrap();
        row("a full one", line)
            .says(&["write to standard output", "No space left"])
            .check(&done, HOST);
        // A reader that goes away has what it wanted.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = bench.command(line).stdout(writer).output().unwrap();
        assert_eq!((done.status.code(), text(&done.stderr).as_str()), (Some(0), ""), "{line}");
    }
    let mut shell = bench.in_folder("sh");
    shell.args(["-c", "exec \"$0\" inspect s >&-", env!("CARGO_BIN_EXE_dejavm")]);
    let done = shell.output().unwrap();
    assert!(!text(&done.stderr).contains("panicked"), "{}", text(&done.stderr));
}
