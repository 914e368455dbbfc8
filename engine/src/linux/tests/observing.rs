//! Which calls see the input.

use crate::linux::loader::spec::{InputChannel, ProcessSpec};
use crate::linux::tests::mock::{Guest, NOWHERE};

#[test]
fn sees_reads_sizes_and_mappings_but_not_opens() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.input = InputChannel::File { guest: "in".into() };
    let mut guest = Guest::load(&spec, b"bytes");
    let path = guest.put(64, b"/work/in\0");
    let empty = guest.put(128, b"\0");
    let other = guest.put(192, b"/bin/true\0");
    assert!(!guest.observes(libc::SYS_open, [path, 0]));
    let fd = guest.ok(libc::SYS_open, [path, 0]);
    let program = guest.ok(libc::SYS_open, [other, 0]);
    let end = libc::SEEK_END as u64;
    let at_empty = libc::AT_EMPTY_PATH as u64;
    let seen: &[(i64, &[u64])] = &[
        (libc::SYS_read, &[fd, 0, 0]),
        (libc::SYS_readv, &[fd, 0, 0]),
        (libc::SYS_pread64, &[fd, 0, 0, 0]),
        (libc::SYS_lseek, &[fd, 0, end]),
        (libc::SYS_fstat, &[fd, 0]),
        (libc::SYS_newfstatat, &[fd, empty, 0, at_empty]),
        (libc::SYS_statx, &[fd, empty, at_empty, 0, 0]),
        (libc::SYS_stat, &[path, 0]),
        (libc::SYS_mmap, &[0, 4096, 1, 2, fd, 0]),
        (libc::SYS_sendfile, &[1, fd, 0, 10]),
        (libc::SYS_ioctl, &[fd, libc::FIONREAD, 0]),
    ];
    for (nr, args) in seen {
        assert!(guest.observes(*nr, args), "{nr}");
    }
    let unseen: &[(i64, &[u64])] = &[
        (libc::SYS_read, &[program, 0, 0]),
        (libc::SYS_read, &[0, 0, 0]),
        (libc::SYS_lseek, &[fd, 0, 0]),
        (libc::SYS_close, &[fd]),
        (libc::SYS_mmap, &[0, 4096, 1, 0x22, fd, 0]),
        (libc::SYS_stat, &[other, 0]),
        (libc::SYS_stat, &[NOWHERE, 0]),
        (libc::SYS_access, &[path, 0]),
    ];
    for (nr, args) in unseen {
        assert!(!guest.observes(*nr, args), "{nr}");
    }
    let twin = guest.ok(libc::SYS_dup, [fd]);
    assert!(guest.observes(libc::SYS_read, [twin, 0, 0]));
}

#[test]
fn sees_standard_input() {
    let guest = Guest::simple();
    assert!(guest.observes(libc::SYS_read, [0, 0, 1]));
    assert!(guest.observes(libc::SYS_fstat, [0, 0]));
    assert!(!guest.observes(libc::SYS_fstat, [1, 0]));
}
