//! Disks that are full, read-only, or hide what is needed.

use super::{Bench, HOST, INPUT, check_by, row};
use crate::invoke::text;
use crate::support::kvm;
use std::fs;
use std::process::{Output, Stdio};

/// Runs `script` in a mount namespace of its own, with `$D` the command and `mnt` a folder for a
/// mount; `None` where that is not allowed, or there is no tool for it.
fn with_mounts(bench: &Bench, script: &str) -> Option<Output> {
    fs::create_dir_all(bench.path("mnt")).unwrap();
    let unshare = |script: &str| {
        let mut shell = bench.in_folder("unshare");
        shell.args(["-m", "sh", "-c", script]).env("D", env!("CARGO_BIN_EXE_dejavm"));
        shell.output()
    };
    let ready = unshare("mount -t tmpfs -o size=64k none mnt && umount mnt");
    if !ready.is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: no mounts of one's own here");
        return None;
    }
    Some(unshare(script).unwrap())
}

#[test]
fn disks_that_are_full_or_read_only() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    let scripts = [
        row(
            "a full disk for a snapshot",
            "mount -t tmpfs -o size=200k none mnt && echo old > mnt/s && \
             $D snapshot -o mnt/s -- ./ends-reads; s=$?; \
             [ \"$(cat mnt/s)\" = old ] && [ $(ls -A mnt | wc -l) = 1 ] || exit 99; exit $s",
        )
        .says(&["write mnt/s", "No space left"]),
        row(
            "a full disk for a campaign's snapshot",
            "mount -t tmpfs -o size=200k none mnt && \
             $D fuzz -i seeds -o mnt/o -V 5 -- ./ends-reads",
        )
        .says(&["write mnt/o/.dejavm/snapshot.dejavm", "No space left"]),
        row(
            "a disk that fills up during a campaign",
            "mount -t tmpfs -o size=8m none mnt && $D fuzz -i seeds -o mnt/o -E 50 -- ./ends-reads \
             >/dev/null 2>&1 && { cat /dev/zero > mnt/fill 2>/dev/null; \
             exec $D fuzz -i seeds -o mnt/o -V 20 -- ./ends-reads; }",
        )
        .says(&["mnt/o", "No space left"]),
        row(
            "a read-only disk",
            "mkdir mnt/o; mount --bind -o ro seeds mnt && mount -o remount,ro,bind mnt && \
             exec $D fuzz -i seeds -o mnt/o -V 5 -- ./ends-reads",
        )
        .says(&["create folder mnt/o", "Read-only file system"]),
        row(
            "a read-only disk for a snapshot",
            "mount --bind seeds mnt && mount -o remount,ro,bind mnt && \
             exec $D snapshot -o mnt/s -- ./ends-reads",
        )
        .says(&["write mnt/s", "Read-only file system"]),
    ];
    check_by(INPUT, &scripts, |script| with_mounts(&bench, script));
    let hidden = row("no KVM", "mount -t tmpfs none /dev && exec $D run -- ./ends-reads");
    let hidden = [hidden.says(&["/dev/kvm", "dejavm doctor"])];
    check_by(HOST, &hidden, |script| with_mounts(&bench, script));
}

/// What works without any right: the system refuses to let a file grow.
#[test]
fn a_limit_on_files_is_told_like_a_full_disk() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    let campaign = "fuzz -i seeds -o o -E 50 -- ./ends-reads";
    bench.succeed(campaign);
    let fuzz = "trap '' XFSZ; ulimit -f 0; exec \"$0\" fuzz -i seeds -o o -V 20 -- ./ends-reads";
    let mut shell = bench.in_folder("sh");
    shell.args(["-c", fuzz, env!("CARGO_BIN_EXE_dejavm")]);
    let done = shell.stdout(Stdio::piped()).output().unwrap();
    let told = text(&done.stderr);
    let line = told.lines().filter(|line| line.starts_with("dejavm: ")).collect::<Vec<_>>();
    assert!(line.len() == 1 && line[0].contains("File too large"), "{told}");
    assert!(matches!(done.status.code(), Some(HOST | INPUT)), "{told}");
    bench.succeed(campaign);
}
