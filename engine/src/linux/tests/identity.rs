//! Who and where the process is: numbers, names, limits, random bytes, and what a process is asked by
//! `prctl` and `arch_prctl`.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::loader::spec::ProcessSpec;
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};

const PROCESS: u64 = 1000;
const USER: u64 = 1000;
const STACK: u64 = libc::RLIMIT_STACK as u64;
const CORE: u64 = libc::RLIMIT_CORE as u64;
const FILES: u64 = libc::RLIMIT_NOFILE as u64;
const SET_GS: u64 = 0x1001;
const SET_FS: u64 = 0x1002;
const GET_FS: u64 = 0x1003;
const GET_GS: u64 = 0x1004;

impl Guest {
    /// The soft and the hard limit of a resource.
    fn limit(&mut self, resource: u64) -> [u64; 2] {
        let out = self.at(4);
        self.ok(libc::SYS_prlimit64, [0, resource, 0, out]);
        [self.word(out), self.word(out + 8)]
    }

    fn prctl(&mut self, operation: i32, arg: u64) -> i64 {
        self.call(libc::SYS_prctl, [operation as u64, arg])
    }
}

#[test]
fn gives_the_same_random_bytes_for_the_same_seed() {
    let mut random = Vec::new();
    for seed in [1, 1, 2] {
        let mut spec = ProcessSpec::new("/bin/true");
        spec.seed = seed;
        let mut guest = Guest::load(&spec, b"");
        let out = guest.scratch;
        assert_eq!(guest.ok(libc::SYS_getrandom, [out, 100, 0]), 100);
        random.push(guest.get(out, 100));
    }
    assert_eq!(random[0], random[1]);
    assert_ne!(random[0], random[2]);
}

#[test]
fn sets_the_fs_base() {
    let mut guest = Guest::simple();
    guest.ok(libc::SYS_arch_prctl, [0x1002, 0x1234]);
    assert_eq!(guest.cpu.bases, [0x1234, 0]);
    guest.err(libc::SYS_arch_prctl, [0x1002, 1 << 47], libc::EPERM);
    let out = guest.scratch;
    guest.ok(libc::SYS_arch_prctl, [0x1003, out]);
    assert_eq!(guest.word(out), 0x1234);
}

#[test]
fn the_process_leads_a_group_and_a_session_of_one() {
    let mut guest = Guest::simple();
    for nr in [libc::SYS_getpid, libc::SYS_getpgrp, libc::SYS_gettid] {
        assert_eq!(guest.ok(nr, []), PROCESS);
    }
    for nr in [libc::SYS_getpgid, libc::SYS_getsid] {
        assert_eq!(guest.ok(nr, [0]), PROCESS);
        assert_eq!(guest.ok(nr, [PROCESS]), PROCESS);
    }
    assert!(guest.ok(libc::SYS_getppid, []) < PROCESS);
}

#[test]
fn its_user_is_an_ordinary_one_and_stays_so() {
    let mut guest = Guest::simple();
    for nr in [libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid] {
        assert_eq!(guest.ok(nr, []), USER);
    }
    let out = guest.at(4);
    for nr in [libc::SYS_getresuid, libc::SYS_getresgid] {
        guest.put(4 * PAGE, &[0; 12]);
        guest.ok(nr, [out, out + 4, out + 8]);
        assert_eq!([0, 4, 8].map(|offset| guest.half(out + offset)), [1000; 3]);
        guest.err(nr, [NOWHERE, out, out], libc::EFAULT);
        guest.err(nr, [out, out, NOWHERE], libc::EFAULT);
    }
    for nr in [libc::SYS_setuid, libc::SYS_setgid] {
        guest.ok(nr, [USER]);
        guest.err(nr, [0], libc::EPERM);
    }
    assert_eq!(guest.ok(libc::SYS_getgroups, [0, 0]), 0);
}

#[test]
fn it_runs_on_a_machine_that_does_not_tell_of_the_host() {
    let mut guest = Guest::simple();
    let out = guest.at(4);
    guest.ok(libc::SYS_uname, [out]);
    for (field, text) in [(0, "Linux"), (1, "dejavm"), (2, "6.1.0"), (4, "x86_64")] {
        let found = guest.get(out + field * 65, text.len() + 1);
        assert_eq!(found, format!("{text}\0").as_bytes());
    }
    guest.ok(libc::SYS_sysinfo, [out]);
    let [uptime, total, free] = [0, 32, 40].map(|offset| guest.word(out + offset));
    assert_eq!(uptime, 1000);
    assert!(total > 0 && free > 0 && free <= total);
    assert_eq!(guest.half(out + 80) as u16, 1, "processes");
    guest.err(libc::SYS_uname, [NOWHERE], libc::EFAULT);
    guest.err(libc::SYS_sysinfo, [NOWHERE], libc::EFAULT);
}

#[test]
fn limits_are_set_as_far_down_as_wanted_and_never_up_again() {
    let mut guest = Guest::simple();
    assert_eq!(guest.limit(STACK), [8 << 20, u64::MAX]);
    assert_eq!(guest.limit(FILES), [1024; 2]);
    let (wanted, out) = (guest.words(0, &[1, 5]), guest.at(4));
    guest.ok(libc::SYS_prlimit64, [PROCESS, CORE, wanted, out]);
    assert_eq!([guest.word(out), guest.word(out + 8)], [0, u64::MAX], "what it was");
    assert_eq!(guest.limit(CORE), [1, 5]);
    guest.words(0, &[2, 5]);
    guest.ok(libc::SYS_setrlimit, [CORE, wanted]);
    guest.ok(libc::SYS_getrlimit, [CORE, out]);
    assert_eq!([guest.word(out), guest.word(out + 8)], [2, 5]);
    let [higher, crossed] = [guest.words(0, &[1, 6]), guest.words(16, &[3, 2])];
    guest.fails(&[
        (libc::SYS_setrlimit, &[CORE, higher], libc::EPERM),
        (libc::SYS_prlimit64, &[0, CORE, higher, 0], libc::EPERM),
        (libc::SYS_setrlimit, &[CORE, crossed], libc::EINVAL),
        (libc::SYS_setrlimit, &[16, crossed], libc::EINVAL),
        (libc::SYS_setrlimit, &[CORE, NOWHERE], libc::EFAULT),
        (libc::SYS_getrlimit, &[16, out], libc::EINVAL),
        (libc::SYS_getrlimit, &[CORE, NOWHERE], libc::EFAULT),
        (libc::SYS_prlimit64, &[99_999, CORE, 0, out], libc::ESRCH),
        (libc::SYS_prlimit64, &[0, 16, 0, out], libc::EINVAL),
        (libc::SYS_prlimit64, &[0, CORE, NOWHERE, 0], libc::EFAULT),
    ]);
    assert_eq!(guest.limit(CORE), [2, 5]);
    guest.ok(libc::SYS_prlimit64, [0, CORE, 0, 0]);
}

#[test]
fn random_bytes_come_as_many_as_fit() {
    let mut guest = Guest::simple();
    let out = guest.put(4 * PAGE, &[0; 64]);
    assert_eq!(guest.ok(libc::SYS_getrandom, [out, 10, 0]), 10);
    assert_eq!(guest.get(out + 10, 54), [0; 54]);
    let insecure = 4;
    assert_eq!(guest.ok(libc::SYS_getrandom, [out, 10, insecure]), 10);
    assert_eq!(guest.ok(libc::SYS_getrandom, [out, 10, libc::GRND_RANDOM.into()]), 10);
    assert_eq!(guest.ok(libc::SYS_getrandom, [NOWHERE, 0, 0]), 0);
    guest.fails(&[
        (libc::SYS_getrandom, &[out, 10, 8], libc::EINVAL),
        (libc::SYS_getrandom, &[out, 10, 6], libc::EINVAL),
        (libc::SYS_getrandom, &[NOWHERE, 10, 0], libc::EFAULT),
    ]);
    let last = guest.at(15);
    guest.ok(libc::SYS_munmap, [last, PAGE]);
    assert_eq!(guest.ok(libc::SYS_getrandom, [last - 5, 100, 0]), 5);
}

#[test]
fn a_thread_has_a_name_of_up_to_15_bytes() {
    let mut guest = Guest::simple();
    let out = guest.at(4);
    assert_eq!(guest.prctl(libc::PR_GET_NAME, out), 0);
    assert_eq!(guest.get(out, 5), b"true\0");
    let name = guest.text("0123456789abcdefgh");
    assert_eq!(guest.prctl(libc::PR_SET_NAME, name), 0);
    assert_eq!(guest.prctl(libc::PR_GET_NAME, out), 0);
    assert_eq!(guest.get(out, 16), b"0123456789abcde\0");
    for operation in [libc::PR_SET_NAME, libc::PR_GET_NAME] {
        assert_eq!(guest.prctl(operation, NOWHERE), -i64::from(libc::EFAULT));
    }
    guest.undoes("threads", |guest| guest.prctl(libc::PR_SET_NAME, guest.scratch + 4));
    assert_eq!(guest.prctl(libc::PR_GET_NAME, out), 0);
    assert_eq!(guest.get(out, 4), b"0123");
}

#[test]
fn prctl_tells_of_an_ordinary_process() {
    let mut guest = Guest::simple();
    for (operation, value) in [
        (libc::PR_GET_DUMPABLE, 1),
        (libc::PR_GET_NO_NEW_PRIVS, 0),
        (libc::PR_GET_SECCOMP, 0),
        (libc::PR_GET_KEEPCAPS, 0),
        (libc::PR_GET_SECUREBITS, 0),
        (libc::PR_GET_THP_DISABLE, 0),
        (libc::PR_GET_TIMERSLACK, 50_000),
    ] {
        assert_eq!(guest.prctl(operation, 0), value, "{operation}");
    }
    for (operation, arg) in [
        (libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64),
        (libc::PR_SET_NO_NEW_PRIVS, 1),
        (libc::PR_SET_TIMERSLACK, 50_000),
        (libc::PR_SET_DUMPABLE, 1),
    ] {
        assert_eq!(guest.prctl(operation, arg), 0, "{operation}");
    }
    assert_eq!(guest.prctl(9999, 0), -i64::from(libc::EINVAL));
}

#[test]
fn the_bases_of_fs_and_gs_are_addresses_of_the_program() {
    let mut guest = Guest::simple();
    guest.ok(libc::SYS_arch_prctl, [SET_GS, 0x5000]);
    guest.ok(libc::SYS_arch_prctl, [SET_FS, 0x6000]);
    assert_eq!(guest.cpu.bases, [0x6000, 0x5000]);
    let out = guest.at(4);
    guest.ok(libc::SYS_arch_prctl, [GET_GS, out]);
    assert_eq!(guest.word(out), 0x5000);
    guest.fails(&[
        (libc::SYS_arch_prctl, &[SET_GS, 1 << 63], libc::EPERM),
        (libc::SYS_arch_prctl, &[SET_GS, 0x7fff_ffff_f000], libc::EPERM),
        (libc::SYS_arch_prctl, &[GET_FS, NOWHERE], libc::EFAULT),
        (libc::SYS_arch_prctl, &[0x9999, 0], libc::EINVAL),
    ]);
    assert_eq!(guest.cpu.bases, [0x6000, 0x5000]);
}

#[test]
fn there_is_no_other_process_and_no_other_program() {
    let mut guest = Guest::simple();
    for (nr, name) in [
        (libc::SYS_fork, "fork"),
        (libc::SYS_vfork, "vfork"),
        (libc::SYS_execve, "execve"),
        (libc::SYS_execveat, "execveat"),
    ] {
        let ends = SyscallAction::Unsupported(name.to_owned());
        assert_eq!(guest.clone().verdict(nr, []), ends);
    }
    guest.err(libc::SYS_rseq, [guest.scratch, 32, 0, 0], libc::ENOSYS);
    assert!(guest.process.unsupported_calls().is_empty(), "glibc does without");
}

#[test]
fn a_rewind_puts_limits_and_randomness_back() {
    let mut guest = Guest::simple();
    let (wanted, out) = (guest.words(0, &[1, 5]), guest.at(4));
    guest.undoes("resource limits", |guest| guest.ok(libc::SYS_setrlimit, [CORE, wanted]));
    assert_eq!(guest.limit(CORE), [0, u64::MAX]);
    let mut twice = Vec::new();
    for _ in 0..2 {
        guest.undoes("random", |guest| {
            guest.ok(libc::SYS_getrandom, [out, 16, 0]);
            twice.push(guest.get(out, 16));
        });
    }
    assert_eq!(twice[0], twice[1]);
}
