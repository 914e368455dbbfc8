//! A million system calls that nobody would make, from inside a guest (`storm.c`), while a filter of
//! system calls kills this process at the first path, socket or process that it would touch.

use crate::footprint::{kib, kvm_alone};
use crate::support::{RAM_BYTES, build_c, limit, machine, rounds, spec};
use dejavm_engine::linux::Limits;
use dejavm_engine::machine::Limit;
use dejavm_engine::outcome::Outcome;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// Every system call that takes a path, makes a socket or a process, or speaks to one.
const WATCHED: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_getdents,
    libc::SYS_getdents64,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_chown,
    libc::SYS_utimensat,
    libc::SYS_mount,
    libc::SYS_chroot,
    libc::SYS_inotify_add_watch,
    libc::SYS_name_to_handle_at,
    libc::SYS_memfd_create,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_sendfile,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_sendto,
    libc::SYS_io_uring_setup,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_ptrace,
    libc::SYS_setuid,
    libc::SYS_setrlimit,
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
];

/// From here on each of them kills the process, whichever thread makes it.
fn watch() {
    let rules = WATCHED.iter().map(|&call| (call, vec![])).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::KillProcess,
        TargetArch::x86_64,
    );
    let program = BpfProgram::try_from(filter.unwrap()).unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
}

/// Says which of its deeds the process that the next test starts shall do.
const DEED: &str = "DEJAVM_TEST_DEED";

#[test]
fn the_watch_kills_what_touches_the_host() {
    type Deed = (&'static str, fn());
    let deeds: [Deed; 5] = [
        ("open", || drop(File::open("/etc/passwd"))),
        ("look", || drop(std::fs::metadata("/nonexistent"))),
        ("socket", || drop(std::net::UdpSocket::bind("127.0.0.1:0"))),
        ("program", || drop(Command::new("true").status())),
        ("nothing", || println!("done")),
    ];
    if let Ok(wanted) = std::env::var(DEED) {
        watch();
        deeds.iter().filter(|(name, _)| *name == wanted).for_each(|(_, deed)| deed());
        return;
    }
    for (name, _) in deeds {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "hostile_calls::the_watch_kills_what_touches_the_host"]);
        let done = test.env(DEED, name).output().unwrap();
        let killed = (name != "nothing").then_some(libc::SIGSYS);
        assert_eq!(done.status.signal(), killed, "{name}: {}", done.status);
    }
}

/// Of the process of which `status` is open, in KiB.
fn status_kib(status: &File, name: &str) -> u64 {
    let mut text = [0; 8192];
    let length = status.read_at(&mut text, 0).unwrap();
    kib(&String::from_utf8_lossy(&text[..length]), name).unwrap()
}

/// The lowest descriptor that is free.
fn free_descriptor(file: &File) -> i32 {
    file.try_clone().unwrap().as_raw_fd()
}

#[test]
fn a_million_system_calls_touch_nothing_of_the_host() {
    let name = "hostile_calls::a_million_system_calls_touch_nothing_of_the_host";
    let Some(system) = kvm_alone(name) else { return };
    let mut machine = machine(&system, &spec(&build_c("storm", &["-static"]), &[]));
    let status = File::open("/proc/self/status").unwrap();
    let (memory_kib, free) = (status_kib(&status, "VmRSS:"), free_descriptor(&status));
    watch();
    let (mut calls, mut seed, mut slowest) = (0, 0_u64, Duration::ZERO);
    let mut ends = BTreeMap::new();
    let wanted = u64::from(rounds(1_000_000));
    while calls < wanted {
        seed += 1;
        let start = Instant::now();
        let report = machine
            .run(&seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes(), Limit::time(LIMIT))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        machine.rewind().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        slowest = slowest.max(start.elapsed());
        assert!(start.elapsed() < limit().time.unwrap(), "seed {seed}: {:?}", start.elapsed());
        calls += report.system_calls;
        let end = match report.outcome {
            Outcome::Crashed(fault) => format!("crashed: {}", fault.signal),
            outcome => outcome.to_string(),
        };
        *ends.entry(end).or_insert(0) += 1;
        if seed % 50 == 0 {
            assert_eq!(machine.verify().unwrap(), [], "seed {seed}");
        }
        assert_eq!(free_descriptor(&status), free, "seed {seed}");
    }
    let peak_kib = status_kib(&status, "VmHWM:") - memory_kib;
    println!(
        "{calls} calls in {seed} runs, the slowest {slowest:?}; {peak_kib} KiB more: {ends:#?}"
    );
    assert!(ends.contains_key("exited with status 7"), "none made all of its calls: {ends:?}");
    // RAM, files, output; twice, because a list that grows is in memory twice.
    let limits = Limits::default();
    let bytes = RAM_BYTES + limits.file_bytes + limits.stdout_bytes + limits.stderr_bytes;
    assert!(peak_kib < 2 * bytes / 1024, "{peak_kib} KiB");
}

/// Time limit of a run; what takes longer is an outcome too.
const LIMIT: Duration = Duration::from_secs(2);
