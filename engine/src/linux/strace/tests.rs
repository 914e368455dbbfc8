//! Lines, as `strace` 6.1 prints them.

use super::*;
use crate::address::Gva;
use crate::linux::abi::errno::{ENOENT, ENOTTY};
use crate::linux::mm::user_memory::{PageRange, Prot};
use crate::linux::signal::siginfo::SI_USER;
use crate::linux::tests::mock::Pages;
use crate::outcome::{Fault, Outcome, Signal};

const AT: u64 = 0x5000;

fn memory(bytes: &[u8]) -> Pages {
    let mut pages = Pages::default();
    let range = PageRange { start: Gva(AT), pages: 1 };
    pages.map(range, Prot::READ | Prot::WRITE).unwrap();
    pages.populate(Gva(AT), bytes).unwrap();
    pages
}

fn shown(nr: i64, args: &[u64], value: u64, bytes: &[u8]) -> String {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let call = SystemCall { nr: nr as u64, args: all };
    line(&call, &SyscallAction::Return(value), &memory(bytes))
}

#[test]
fn names_paths_flags_and_errors() {
    let cwd = libc::AT_FDCWD as i64 as u64;
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
    assert_eq!(
        shown(libc::SYS_openat, &[cwd, AT, flags], 3, b"/etc/ld.so.cache\0"),
        r#"openat(AT_FDCWD, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3"#
    );
    let flags = (libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC) as u64;
    assert_eq!(
        shown(libc::SYS_openat, &[cwd, AT, flags, 0o644], ENOENT.to_return(), b"a/b\0"),
        "openat(AT_FDCWD, \"a/b\", O_WRONLY|O_CREAT|O_TRUNC, 0644) = -1 ENOENT (No such file or \
         directory)"
    );
    assert_eq!(
        shown(libc::SYS_ioctl, &[1, libc::TCGETS, 0x7000], ENOTTY.to_return(), b""),
        "ioctl(1, TCGETS, 0x7000)                = -1 ENOTTY (Inappropriate ioctl for device)"
    );
}

#[test]
fn cuts_and_escapes_strings() {
    assert_eq!(
        shown(libc::SYS_read, &[3, AT, 832], 832, b"\x7fELF\x02\x01\x01\x000\0 \"\\\n"),
        r#"read(3, "\177ELF\2\1\1\0000\0 \"\\\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"..., 832) = 832"#
    );
    assert_eq!(
        shown(libc::SYS_write, &[1, AT, 3], 3, b"hi\n"),
        r#"write(1, "hi\n", 3)                     = 3"#
    );
}

#[test]
fn shows_addresses_protections_and_mappings() {
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    assert_eq!(
        shown(libc::SYS_mmap, &[0, 8192, 3, anonymous, u64::MAX, 0], 0x7fff_f7fb_8000, b""),
        "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7ffff7fb8000"
    );
    assert_eq!(
        shown(libc::SYS_brk, &[0], 0x5555_5557_9000, b""),
        "brk(NULL)                               = 0x555555579000"
    );
}

#[test]
fn shows_structures() {
    let mut stat = [0; 144];
    stat[24..28].copy_from_slice(&(libc::S_IFREG | 0o644).to_le_bytes());
    stat[48..50].copy_from_slice(&712u16.to_le_bytes());
    assert_eq!(
        shown(libc::SYS_fstat, &[3, AT], 0, &stat),
        "fstat(3, {st_mode=S_IFREG|0644, st_size=712, ...}) = 0"
    );
    let limits = [8u64 << 20, u64::MAX].map(u64::to_le_bytes).concat();
    assert_eq!(
        shown(libc::SYS_prlimit64, &[0, libc::RLIMIT_STACK.into(), 0, AT], 0, &limits),
        "prlimit64(0, RLIMIT_STACK, NULL, {rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}) = 0"
    );
    let action = [0x1234u64, 0x1400_0000, 0x5678, 2].map(u64::to_le_bytes).concat();
    assert_eq!(
        shown(libc::SYS_rt_sigaction, &[2, AT, 0, 8], 0, &action),
        "rt_sigaction(SIGINT, {sa_handler=0x1234, sa_mask=[INT], sa_flags=SA_RESTORER|SA_RESTART, \
         sa_restorer=0x5678}, NULL, 8) = 0"
    );
}

#[test]
fn a_call_that_ends_the_program_has_no_result() {
    let call = SystemCall { nr: libc::SYS_exit_group as u64, args: [0; 6] };
    let text = line(&call, &SyscallAction::Exit { status: 0 }, &Pages::default());
    assert_eq!(text, "exit_group(0)                           = ?");
}

#[test]
fn tells_the_end() {
    assert_eq!(end(&Outcome::Exited { status: 3 }), "+++ exited with 3 +++\n");
    let signal = Signal(libc::SIGVTALRM as u8);
    let fault = Fault { signal, rip: 1, access: None, vector: None, error_code: None };
    assert_eq!(end(&Outcome::Crashed(fault)), "+++ killed by SIGVTALRM +++\n");
}

#[test]
fn what_is_ignored_comes_behind_the_call_that_sent_it() {
    let mut trace = Trace::default();
    trace.add_ignored(None, &SigInfo::sent(libc::SIGPIPE as u8, SI_USER, 7));
    let call = SystemCall { nr: libc::SYS_getpid as u64, args: [0; 6] };
    for _ in 0..2 {
        trace.add(None, &call, &SyscallAction::Return(7), &Pages::default());
    }
    let lines: Vec<&str> = trace.text().lines().map(|line| &line[..10]).collect();
    assert_eq!(lines, ["getpid()  ", "--- SIGPIP", "getpid()  "]);
}

#[test]
fn survives_any_call_with_any_arguments() {
    let pages = memory(&[0xff; 4096]);
    for nr in 0..460 {
        for word in [0, 1, 0xffff, AT, AT + 4090, u64::MAX, 1 << 63] {
            let call = SystemCall { nr, args: [word; 6] };
            for value in [0, 4096, u64::MAX, 1 << 62] {
                let text = line(&call, &SyscallAction::Return(value), &pages);
                assert!(text.len() < 40_000, "{text}");
            }
        }
    }
}
