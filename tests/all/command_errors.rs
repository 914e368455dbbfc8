//! Every mistake and every bad day gets one line that says what was wrong, where, and what to do,
//! and the exit status that `--help` promises.
//!
//! A row that needs rights or tools which are not there says so and is left out.

use crate::support::{build_c, kvm, patience};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const USAGE: i32 = 2;
const HOST: i32 = 3;
const INPUT: i32 = 4;
/// Nobody, on every Linux: has no right to anything here.
const NOBODY: u32 = 65534;

/// A folder with programs and files to make mistakes with.
struct Bench {
    folder: tempfile::TempDir,
}

/// A row: what it is, the arguments, the status, and what the line has in it.
type Row<'a> = (&'a str, &'a [&'a str], i32, &'a [&'a str]);

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let name_of = |how: &str| format!("ends-{how}");
        for how in ["reads", "unread", "early-crash", "early-loop", "crash", "hang"] {
            let flag = format!("-DHOW_{}", how.replace('-', "_"));
            bench.copy(&build_c("ends", &[&flag, "-static"]), &name_of(how));
        }
        bench.write("seeds/a", b"hello");
        bench.write("file", b"x");
        bench.write("script", b"#!/no/interpreter\necho\n");
        bench.write("text", b"no program");
        bench.write("32-bit", &[b"\x7fELF\x01\x01\x01".as_slice(), &[0; 100]].concat());
        let whole = fs::read(bench.path("ends-reads")).unwrap();
        bench.write("cut", &whole[..1000]);
        let mut other = whole.clone();
        other[18] = 0xb7;
        bench.write("for-arm", &other);
        let mut object = whole;
        object[16] = 1;
        bench.write("object", &object);
        bench.write("bad.dict", b"\"ok\"\nbad\n");
        fs::create_dir(bench.path("empty")).unwrap();
        bench.write("foreign/thesis.tex", b"x");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn copy(&self, from: &Path, name: &str) {
        fs::copy(from, self.path(name)).unwrap();
    }

    /// `dejavm args`, in the folder.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dejavm"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn succeed(&self, args: &[&str]) {
        let done = self.run(args);
        assert!(done.status.success(), "{args:?}: {}", text(&done.stderr));
    }

    fn check(&self, rows: &[Row<'_>]) {
        for (what, args, status, words) in rows {
            assert_is_told(what, &self.run(args), *status, words);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One line says it, and it is the last one, or clap's own of a few.
fn assert_is_told(what: &str, done: &Output, status: i32, words: &[&str]) {
    let told = text(&done.stderr);
    assert_eq!(done.status.code(), Some(status), "{what}: {told}");
    assert!(!told.contains("panicked"), "{what}: {told}");
    let mut lines = told.lines().filter(|line| line.starts_with("dejavm: "));
    let line = match (lines.next(), lines.next()) {
        (Some(line), None) => {
            assert_eq!(told.lines().last(), Some(line), "{what}: nothing follows: {told}");
            line
        }
        (None, None) if status == USAGE => {
            told.lines().find(|line| line.starts_with("error: ")).expect(what)
        }
        _ => panic!("{what}: not one line: {told}"),
    };
    for word in words {
        assert!(line.contains(word), "{what}: {word:?} is not in {line:?}");
    }
}

#[test]
fn arguments_that_make_no_sense() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.check(&[
        ("no program", &["run"], USAGE, &["name a program", "--snapshot"]),
        ("no memory", &["run", "--ram", "0", "--", "./ends-reads"], USAGE, &["--ram", "64K"]),
        ("huge memory", &["run", "--ram", "9999999T", "--", "./x"], USAGE, &["--ram", "1T"]),
        ("memory in words", &["run", "--ram", "lots", "--", "./x"], USAGE, &["--ram", "lots"]),
        (
            "a seed that is no number",
            &["fuzz", "-i", "seeds", "-o", "o", "-s", "nonsense", "--", "./x"],
            USAGE,
            &["nonsense", "--seed"],
        ),
        (
            "no time for a run",
            &["fuzz", "-i", "seeds", "-o", "o", "-t", "0", "--", "./ends-reads"],
            USAGE,
            &["time limit of a run is zero", "leave -t out"],
        ),
        (
            "no length for an input",
            &["fuzz", "-i", "seeds", "-o", "o", "--max-len", "0", "--", "./ends-reads"],
            USAGE,
            &["0 bytes", "--max-len"],
        ),
        (
            "a symbol that is not there",
            &["run", "--at", "no_such_symbol", "--", "./ends-reads"],
            USAGE,
            &["no_such_symbol", "nm -C"],
        ),
    ]);
    assert!(!bench.path("o").exists(), "no folder for a command that makes no sense");
}

#[test]
fn programs_that_are_none() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    let run = |program: &'static str| ["run", "--", program];
    for (what, program, words) in [
        ("a missing program", "./gone", &["./gone", "check that the path"][..]),
        ("one that is nowhere in PATH", "no-such-program", &["no-such-program", "PATH"]),
        ("a script of no interpreter", "./script", &["/no/interpreter", "check that"]),
        ("no ELF file", "./text", &["./text", "no ELF executable"]),
        ("a 32-bit one", "./32-bit", &["./32-bit", "-m64"]),
        ("one for another machine", "./for-arm", &["./for-arm", "x86-64"]),
        ("an object file", "./object", &["./object", "link it"]),
        ("half a program", "./cut", &["./cut", "damaged"]),
        ("a folder", "./seeds", &["./seeds", "directory"]),
    ] {
        assert_is_told(what, &bench.run(&run(program)), INPUT, words);
    }
    bench.check(&[(
        "a program larger than its memory",
        &["run", "--ram", "64K", "--", "./ends-reads"],
        INPUT,
        &["raise --ram"],
    )]);
}

#[test]
fn programs_that_reach_no_snapshot_point() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.check(&[
        (
            "one that never reads its input",
            &["fuzz", "-i", "seeds", "-o", "o1", "-V", "1", "--", "./ends-unread"],
            INPUT,
            &["exited with status 0 before it looked at its input", "`@@`"],
        ),
        (
            "one that crashes before",
            &["fuzz", "-i", "seeds", "-o", "o2", "-V", "1", "--", "./ends-early-crash"],
            INPUT,
            &["SIGSEGV", "before it looked at its input", "dejavm run"],
        ),
        (
            "one that loops before",
            &["snapshot", "-t", "300", "-o", "s", "--", "./ends-early-loop"],
            INPUT,
            &["time limit before it looked at its input", "--timeout"],
        ),
        (
            "a point that is not reached",
            &["snapshot", "-o", "s", "--at", "never", "--", "./ends-unread"],
            INPUT,
            &["before it reached the point of --at"],
        ),
    ]);
    assert!(!bench.path("s").exists());
}

#[test]
fn seeds_that_are_of_no_use() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    let large = fs::File::create(bench.path("large")).unwrap();
    large.set_len(100_000_000).unwrap();
    fs::create_dir(bench.path("large-seeds")).unwrap();
    fs::rename(bench.path("large"), bench.path("large-seeds/large")).unwrap();
    bench.check(&[
        (
            "an empty folder",
            &["fuzz", "-i", "empty", "-o", "o1", "--", "./ends-reads"],
            INPUT,
            &["no usable seed in empty", "holds no file", "a seed is"],
        ),
        (
            "a seed of 100 MB",
            &["fuzz", "-i", "large-seeds", "-o", "o2", "--", "./ends-reads"],
            INPUT,
            &["no usable seed in large-seeds", "large: it is longer than 1048576", "--max-len"],
        ),
        (
            "no folder",
            &["fuzz", "-i", "gone", "-o", "o3", "--", "./ends-reads"],
            INPUT,
            &["gone", "No such file", "folder of seeds"],
        ),
        (
            "a file for a folder",
            &["fuzz", "-i", "file", "-o", "o3", "--", "./ends-reads"],
            INPUT,
            &["list the seeds in file", "folder of seeds"],
        ),
        (
            "a program that crashes on every seed",
            &["fuzz", "-i", "seeds", "-o", "o4", "-V", "5", "--", "./ends-crash"],
            INPUT,
            &["no usable seed in seeds", "a: it crashes; recorded as a crash"],
        ),
        (
            "a program that hangs on every seed",
            &["fuzz", "-i", "seeds", "-o", "o5", "-t", "50", "-V", "5", "--", "./ends-hang"],
            INPUT,
            &["no usable seed in seeds", "a: it reaches the time limit"],
        ),
        (
            "a bad dictionary",
            &["fuzz", "-i", "seeds", "-o", "o6", "-x", "bad.dict", "--", "./ends-reads"],
            INPUT,
            &["bad.dict, line 2", "no opening quote"],
        ),
        (
            "a missing dictionary",
            &["fuzz", "-i", "seeds", "-o", "o6", "-x", "gone", "--", "./ends-reads"],
            INPUT,
            &["read dictionary gone"],
        ),
        (
            "an input without an end",
            &["run", "-i", "/dev/zero", "--", "./ends-reads"],
            INPUT,
            &["read /dev/zero", "longer than 256 MiB"],
        ),
        ("a missing input", &["run", "-i", "gone", "--", "./ends-reads"], INPUT, &["read gone"]),
        (
            "nothing to resume",
            &["fuzz", "-o", "o7", "--", "./ends-reads"],
            INPUT,
            &["o7", "give seeds with -i"],
        ),
    ]);
    let kept = |folder: &str| fs::read_dir(bench.path(folder)).unwrap().count();
    assert_eq!((kept("o4/crashes"), kept("o5/hangs")), (1, 1), "what was found is kept");
}

#[test]
fn output_folders_that_are_not_ours() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.succeed(&["fuzz", "-i", "seeds", "-o", "mine", "-E", "50", "--", "./ends-reads"]);
    let snapshot = fs::read(bench.path("mine/.dejavm/snapshot.dejavm")).unwrap();
    bench.check(&[
        (
            "a file",
            &["fuzz", "-i", "seeds", "-o", "file", "--", "./ends-reads"],
            INPUT,
            &["create folder file", "name another folder with -o"],
        ),
        (
            "somebody's files",
            &["fuzz", "-i", "seeds", "-o", "foreign", "--", "./ends-reads"],
            INPUT,
            &["foreign", "thesis.tex", "name another folder with -o"],
        ),
        (
            "another program's campaign",
            &["fuzz", "-i", "seeds", "-o", "mine", "--", "./ends-crash"],
            INPUT,
            &["ends-crash", "mine holds a campaign of", "ends-reads", "-o", "-i mine/queue"],
        ),
    ]);
    assert!(fs::read(bench.path("mine/.dejavm/snapshot.dejavm")).unwrap() == snapshot);
    let held = Held::start(&bench, "mine");
    bench.check(&[(
        "a running campaign's",
        &["fuzz", "-i", "seeds", "-o", "mine", "--", "./ends-reads"],
        INPUT,
        &["mine is in use", &held.child.id().to_string(), "wait for it"],
    )]);
    drop(held);
    bench.succeed(&["fuzz", "-i", "seeds", "-o", "mine", "-E", "50", "--", "./ends-reads"]);
    assert_eq!(fs::read_dir(bench.path("foreign")).unwrap().count(), 1);
}

/// A campaign that runs, until this is dropped.
struct Held {
    child: Child,
}

impl Held {
    fn start(bench: &Bench, out: &str) -> Self {
        let args = ["fuzz", "-i", "seeds", "-o", out, "-V", "120", "--", "./ends-reads"];
        let mut command = bench.command(&args);
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
fn snapshots_and_crashes_that_cannot_be_used() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.succeed(&["snapshot", "-o", "s", "--", "./ends-reads"]);
    let whole = fs::read(bench.path("s")).unwrap();
    let mut other = whole.clone();
    other[8..12].copy_from_slice(&999_u32.to_le_bytes());
    bench.write("other-version", &other);
    bench.write("half", &whole[..whole.len() / 2]);
    bench.write("noise", &[7; 5000]);
    Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap();
    bench.check(&[
        ("a missing one", &["inspect", "gone"], INPUT, &["open gone"]),
        ("no snapshot", &["inspect", "noise"], INPUT, &["noise", "magic"]),
        ("half a snapshot", &["run", "--snapshot", "half"], INPUT, &["half", "truncated"]),
        (
            "another version's",
            &["run", "--snapshot", "other-version"],
            INPUT,
            &["other-version", "version is 999", "take the snapshot again"],
        ),
        ("a folder", &["inspect", "seeds"], INPUT, &["seeds", "no regular file"]),
        ("a pipe", &["inspect", "pipe"], INPUT, &["pipe", "no regular file"]),
        (
            "a crash without its snapshot",
            &["repro", "seeds/a"],
            INPUT,
            &["seeds/a", "snapshot.dejavm does not exist", "--snapshot"],
        ),
        ("a missing crash", &["repro", "gone"], INPUT, &["read gone"]),
        (
            "no folder to write to",
            &["snapshot", "-o", "gone/s", "--", "./ends-reads"],
            INPUT,
            &["write gone/s", "No such file"],
        ),
        (
            "a folder to write over",
            &["snapshot", "-o", "empty", "--", "./ends-reads"],
            INPUT,
            &["write empty", "something else than a file"],
        ),
        (
            "a report that goes nowhere",
            &["run", "--report", "gone/r", "--", "./ends-reads"],
            INPUT,
            &["create gone/r", "No such file"],
        ),
        (
            "a report that is too much",
            &["run", "--report", "/dev/full", "--", "./ends-reads"],
            INPUT,
            &["write /dev/full", "No space left"],
        ),
    ]);
    assert!(!fs::metadata("/dev/full").unwrap().is_file(), "a device stays a device");
}

#[test]
fn standard_output_that_takes_nothing() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.succeed(&["snapshot", "-o", "s", "--", "./ends-reads"]);
    for args in [&["inspect", "s"][..], &["inspect", "--json", "s"], &["doctor"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let done = bench.command(args).stdout(full).output().unwrap();
        assert_is_told("full", &done, HOST, &["write to standard output", "No space left"]);
        // A reader that goes away has what it wanted.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = bench.command(args).stdout(writer).output().unwrap();
        assert_eq!((done.status.code(), text(&done.stderr).as_str()), (Some(0), ""), "{args:?}");
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" inspect s >&-", env!("CARGO_BIN_EXE_dejavm")]);
    let done = shell.current_dir(bench.folder.path()).output().unwrap();
    assert!(!text(&done.stderr).contains("panicked"), "{}", text(&done.stderr));
}

/// Whether this process has all rights, so that file modes say nothing to it.
fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The same command as somebody who may not read or write what the modes deny.
fn humbly(bench: &Bench, args: &[&str]) -> Option<Output> {
    let mut command = bench.command(args);
    if is_root() {
        // The folder and the command themselves must be within reach.
        let modes = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bench.folder.path(), modes).unwrap();
        let copy = bench.path("dejavm");
        if !copy.exists() {
            bench.copy(Path::new(env!("CARGO_BIN_EXE_dejavm")), "dejavm");
        }
        command = Command::new(copy);
        command.args(args).current_dir(bench.folder.path()).stdin(Stdio::null());
        command.uid(NOBODY).gid(NOBODY);
    }
    match command.output() {
        Ok(done) => Some(done),
        Err(error) => {
            eprintln!("skipped: cannot be somebody else: {error}");
            None
        }
    }
}

#[test]
fn rights_that_are_missing() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    let mode = |name: &str, mode| {
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    bench.copy(&bench.path("ends-reads"), "unreadable");
    bench.write("unreadable-seeds/a", b"x");
    bench.write("out/x", b"");
    fs::remove_file(bench.path("out/x")).unwrap();
    mode("unreadable", 0o100);
    mode("unreadable-seeds/a", 0);
    mode("empty", 0o555);
    mode("out", 0o777);
    for (what, args, status, words) in [
        (
            "a read-only folder",
            &["fuzz", "-i", "seeds", "-o", "empty", "--", "./ends-reads"][..],
            INPUT,
            &["empty", "Permission denied"][..],
        ),
        (
            "a read-only folder for a new one",
            &["fuzz", "-i", "seeds", "-o", "empty/new", "--", "./ends-reads"],
            INPUT,
            &["create folder empty/new", "Permission denied", "-o"],
        ),
    ] {
        let Some(done) = humbly(&bench, args) else { return };
        assert_is_told(what, &done, status, words);
    }
    if is_root() && fs::metadata("/dev/kvm").unwrap().mode() & 0o006 == 0 {
        let done = humbly(&bench, &["run", "--", "./ends-reads"]).unwrap();
        assert_is_told("no right to KVM", &done, HOST, &["/dev/kvm", "ermission", "dejavm doctor"]);
    } else if !is_root() {
        for (what, args, words) in [
            ("a program", &["run", "--", "./unreadable"][..], &["./unreadable", "denied"][..]),
            (
                "a seed",
                &["fuzz", "-i", "unreadable-seeds", "-o", "out", "--", "./ends-reads"],
                &["no usable seed", "a: it cannot be read"],
            ),
            (
                "a file",
                &["snapshot", "-o", "empty/s", "--", "./ends-reads"],
                &["empty/s", "denied"],
            ),
        ] {
            assert_is_told(what, &humbly(&bench, args).unwrap(), INPUT, words);
        }
    }
}

/// Runs `script` in a mount namespace of its own, with `$D` the command and `$1` a folder for a
/// mount; `None` where that is not allowed, or there is no tool for it.
fn with_mounts(bench: &Bench, script: &str) -> Option<Output> {
    fs::create_dir_all(bench.path("mnt")).unwrap();
    let ready = "mount -t tmpfs -o size=64k none mnt && umount mnt";
    let mut probe = Command::new("unshare");
    probe.args(["-m", "sh", "-c", ready]).current_dir(bench.folder.path());
    if !probe.output().is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: no mounts of one's own here");
        return None;
    }
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", script]).env("D", env!("CARGO_BIN_EXE_dejavm"));
    Some(shell.current_dir(bench.folder.path()).stdin(Stdio::null()).output().unwrap())
}

#[test]
fn disks_that_are_full_or_read_only() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    let small = "mount -t tmpfs -o size=200k none mnt";
    let scripts: &[(&str, String, &[&str])] = &[
        (
            "a full disk for a snapshot",
            format!("{small} && echo old > mnt/s && $D snapshot -o mnt/s -- ./ends-reads; s=$?; \
                     [ \"$(cat mnt/s)\" = old ] && [ $(ls -A mnt | wc -l) = 1 ] || exit 99; exit $s"),
            &["write mnt/s", "No space left"],
        ),
        (
            "a full disk for a campaign's snapshot",
            format!("{small} && $D fuzz -i seeds -o mnt/o -V 5 -- ./ends-reads"),
            &["write mnt/o/.dejavm/snapshot.dejavm", "No space left"],
        ),
        (
            "a disk that fills up during a campaign",
            "mount -t tmpfs -o size=8m none mnt && $D fuzz -i seeds -o mnt/o -E 50 -- ./ends-reads \
             >/dev/null 2>&1 && { cat /dev/zero > mnt/fill 2>/dev/null; \
             exec $D fuzz -i seeds -o mnt/o -V 20 -- ./ends-reads; }"
                .to_owned(),
            &["mnt/o", "No space left"],
        ),
        (
            "a read-only disk",
            "mkdir mnt/o; mount --bind -o ro seeds mnt && mount -o remount,ro,bind mnt && \
             exec $D fuzz -i seeds -o mnt/o -V 5 -- ./ends-reads"
                .to_owned(),
            &["create folder mnt/o", "Read-only file system"],
        ),
        (
            "a read-only disk for a snapshot",
            "mount --bind seeds mnt && mount -o remount,ro,bind mnt && \
             exec $D snapshot -o mnt/s -- ./ends-reads"
                .to_owned(),
            &["write mnt/s", "Read-only file system"],
        ),
    ];
    for (what, script, words) in scripts {
        let Some(done) = with_mounts(&bench, script) else { return };
        assert_is_told(what, &done, INPUT, words);
    }
    let hidden = "mount -t tmpfs none /dev && exec $D run -- ./ends-reads";
    let Some(done) = with_mounts(&bench, hidden) else { return };
    assert_is_told("no KVM", &done, HOST, &["/dev/kvm", "dejavm doctor"]);
}

/// What works without any right: the system refuses to let a file grow.
#[test]
fn a_limit_on_files_is_told_like_a_full_disk() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.succeed(&["fuzz", "-i", "seeds", "-o", "o", "-E", "50", "--", "./ends-reads"]);
    let fuzz = "trap '' XFSZ; ulimit -f 0; exec \"$0\" fuzz -i seeds -o o -V 20 -- ./ends-reads";
    let mut shell = Command::new("sh");
    shell.args(["-c", fuzz, env!("CARGO_BIN_EXE_dejavm")]).current_dir(bench.folder.path());
    let done = shell.stdin(Stdio::null()).stdout(Stdio::piped()).output().unwrap();
    let told = text(&done.stderr);
    let line = told.lines().filter(|line| line.starts_with("dejavm: ")).collect::<Vec<_>>();
    assert!(line.len() == 1 && line[0].contains("File too large"), "{told}");
    assert!(matches!(done.status.code(), Some(HOST | INPUT)), "{told}");
    bench.succeed(&["fuzz", "-i", "seeds", "-o", "o", "-E", "50", "--", "./ends-reads"]);
}
