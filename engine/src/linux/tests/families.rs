//! Which calls there are, and that each is tried by its family's tests.

use crate::linux::abi::names::system_call_name;
use crate::linux::tests::mock::Guest;
use std::collections::{BTreeMap, BTreeSet};

/// A file of `syscalls` and of these tests, the text of the latter, and the calls that are in both,
/// by number and by the name of the constant.
struct Family {
    name: &'static str,
    tests: &'static str,
    calls: &'static [(i64, &'static str)],
}

macro_rules! families {
    ($($name:ident: $($call:ident)*;)*) => {
        [$(Family {
            name: stringify!($name),
            tests: include_str!(concat!(stringify!($name), ".rs")),
            calls: &[$((libc::$call, stringify!($call))),*],
        }),*]
    };
}

/// All calls that are served.
static FAMILIES: [Family; 24] = families! {
    file: SYS_read SYS_write SYS_pread64 SYS_pwrite64;
    iovec: SYS_readv SYS_writev SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2;
    copy: SYS_sendfile SYS_copy_file_range;
    pipe: SYS_pipe SYS_pipe2;
    event: SYS_eventfd SYS_eventfd2 SYS_epoll_create SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_wait
        SYS_epoll_pwait SYS_memfd_create;
    poll: SYS_poll SYS_ppoll SYS_select SYS_pselect6;
    descriptor: SYS_close SYS_close_range SYS_dup SYS_dup2 SYS_dup3 SYS_fcntl SYS_ioctl SYS_lseek
        SYS_ftruncate SYS_fallocate SYS_sync SYS_syncfs SYS_sync_file_range SYS_readahead SYS_fsync
        SYS_fdatasync SYS_flock SYS_fadvise64;
    open: SYS_open SYS_openat SYS_creat SYS_umask;
    path: SYS_readlink SYS_readlinkat SYS_getcwd SYS_chdir SYS_fchdir SYS_mkdir SYS_mkdirat
        SYS_unlink SYS_unlinkat SYS_rmdir SYS_rename SYS_renameat SYS_renameat2 SYS_symlink
        SYS_symlinkat SYS_link SYS_linkat SYS_truncate;
    stat: SYS_stat SYS_lstat SYS_fstat SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs SYS_access
        SYS_faccessat SYS_faccessat2;
    xattr: SYS_chmod SYS_fchmod SYS_fchmodat SYS_chown SYS_lchown SYS_fchown SYS_fchownat
        SYS_utimensat SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr
        SYS_flistxattr SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr
        SYS_fremovexattr;
    getdents: SYS_getdents SYS_getdents64;
    socket: SYS_socket SYS_socketpair SYS_connect SYS_bind SYS_listen SYS_accept SYS_accept4
        SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_shutdown SYS_getsockname
        SYS_getpeername SYS_setsockopt SYS_getsockopt;
    mmap: SYS_mmap SYS_munmap;
    memory: SYS_brk SYS_mprotect SYS_mremap SYS_membarrier SYS_pkey_mprotect SYS_pkey_alloc
        SYS_pkey_free;
    residency: SYS_madvise SYS_mincore SYS_msync SYS_mlock SYS_mlock2 SYS_munlock SYS_mlockall
        SYS_munlockall;
    signal: SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigpending SYS_rt_sigreturn
        SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo
        SYS_sigaltstack SYS_kill SYS_tkill SYS_tgkill SYS_pause;
    thread: SYS_clone SYS_clone3 SYS_exit SYS_exit_group SYS_set_tid_address SYS_set_robust_list
        SYS_gettid;
    futex: SYS_futex;
    time: SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_gettimeofday SYS_time
        SYS_times SYS_getrusage SYS_nanosleep;
    timer: SYS_alarm SYS_setitimer SYS_getitimer SYS_timer_create SYS_timer_settime
        SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete;
    identity: SYS_getpid SYS_getppid SYS_getpgrp SYS_getpgid SYS_getsid SYS_getuid SYS_geteuid
        SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups SYS_setuid SYS_setgid SYS_uname SYS_sysinfo SYS_prctl SYS_arch_prctl
        SYS_getrandom SYS_prlimit64 SYS_getrlimit SYS_setrlimit SYS_rseq SYS_fork SYS_vfork
        SYS_execve SYS_execveat;
    scheduling: SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getscheduler
        SYS_sched_getparam SYS_sched_getattr SYS_sched_get_priority_max SYS_sched_get_priority_min
        SYS_getcpu SYS_getpriority SYS_get_mempolicy;
    capability: SYS_capget SYS_capset;
};

/// Beyond every number that Linux has given out.
const NUMBERS: i64 = 1024;

/// Whether a fresh process knows the call, which it may well refuse.
fn is_served(fresh: &Guest, nr: i64) -> bool {
    let mut guest = fresh.clone();
    guest.verdict(nr, []);
    guest.process.unsupported_calls().is_empty()
}

#[test]
fn every_call_that_is_served_is_in_one_family_and_every_call_of_a_family_is_served() {
    let mut families = BTreeMap::new();
    for family in &FAMILIES {
        for (nr, _) in family.calls {
            let other = families.insert(*nr, family.name);
            assert_eq!(other, None, "{} is in two families", system_call_name(*nr as u64));
        }
    }
    let fresh = Guest::simple();
    for nr in 0..NUMBERS {
        let name = system_call_name(nr as u64);
        match (is_served(&fresh, nr), families.get(&nr)) {
            (true, None) => panic!("{name} is served, and has no family in this list"),
            (false, Some(family)) => panic!("{name} of {family} is not served"),
            _ => {}
        }
    }
}

#[test]
fn every_call_is_made_in_the_tests_of_its_family() {
    for Family { name, tests, calls } in &FAMILIES {
        let is_part = |c: char| !c.is_alphanumeric() && c != '_';
        let made: BTreeSet<&str> = tests.split(is_part).collect();
        for (_, call) in *calls {
            assert!(made.contains(call), "tests/{name}.rs makes no call {call}");
        }
    }
}

#[test]
fn the_families_are_those_of_the_table_in_linux_mod_rs() {
    let table = include_str!("../mod.rs").split("# Where a system call is").nth(1).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
    let told: BTreeSet<&str> = rows.collect();
    assert_eq!(told, FAMILIES.iter().map(|family| family.name).collect());
}

#[test]
fn remembers_calls_it_does_not_have() {
    let mut guest = Guest::simple();
    guest.err(libc::SYS_io_uring_setup, [1, 0], libc::ENOSYS);
    guest.err(libc::SYS_io_uring_setup, [1, 0], libc::ENOSYS);
    guest.err(9999, [], libc::ENOSYS);
    assert_eq!(guest.process.unsupported_calls(), ["io_uring_setup", "syscall_9999"]);
}
