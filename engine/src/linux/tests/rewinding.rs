//! Back to a snapshot, and proof of it.

use crate::linux::process::Process;
use crate::linux::tests::mock::{Guest, PAGE};

/// Touches every part of the process.
fn live(guest: &mut Guest) {
    let fd = guest.open("/tmp/new", libc::O_CREAT | libc::O_RDWR);
    let at = guest.scratch;
    guest.ok(libc::SYS_write, [fd, at, 100]);
    guest.ok(libc::SYS_write, [1, at, 10]);
    guest.ok(libc::SYS_write, [2, at, 10]);
    guest.ok(libc::SYS_read, [0, at, 3]);
    guest.ok(libc::SYS_mmap, [0, 10 * PAGE, 1, 0x22, 0, 0]);
    guest.ok(libc::SYS_pipe, [at]);
    guest.ok(libc::SYS_brk, [0]);
    let event = guest.ok(libc::SYS_eventfd2, [3, 0]);
    let set = guest.ok(libc::SYS_epoll_create1, [0]);
    let interest = guest.put(0, &[1; 12]);
    guest.ok(libc::SYS_epoll_ctl, [set, libc::EPOLL_CTL_ADD as u64, event, interest]);
    let path = guest.text("/tmp/old");
    guest.call(libc::SYS_unlink, [path]);
    let path = guest.text("/bin/true");
    let fd = guest.ok(libc::SYS_open, [path, 0]);
    guest.ok(libc::SYS_mmap, [0, 4 * PAGE, 1, 2, fd, 0]);
    let action = guest.put(0, &1u64.to_le_bytes());
    guest.ok(libc::SYS_rt_sigaction, [10, action, 0, 8]);
}

fn with_file() -> Guest {
    let mut guest = Guest::simple();
    let fd = guest.open("/tmp/old", libc::O_CREAT | libc::O_RDWR);
    let at = guest.put(0, b"contents");
    guest.ok(libc::SYS_write, [fd, at, 8]);
    guest.ok(libc::SYS_close, [fd]);
    guest
}

#[test]
fn names_every_difference_and_takes_it_back() {
    let mut guest = with_file();
    let snapshot = guest.process.clone();
    assert_eq!(guest.process.same_as(&snapshot), Vec::<String>::new());
    for _ in 0..3 {
        live(&mut guest);
        let differences = guest.process.same_as(&snapshot).join("; ");
        for part in [
            "mapping",
            "/tmp/old",
            "descriptor 0",
            "output",
            "error",
            "images",
            "signal",
            "clock",
            "epoll",
        ] {
            assert!(differences.contains(part), "{part} in {differences}");
        }
        guest.process.rewind_to(&snapshot);
        assert_eq!(guest.process.same_as(&snapshot), Vec::<String>::new());
    }
    let path = guest.text("/tmp/old");
    let fd = guest.ok(libc::SYS_open, [path, 0]);
    let at = guest.scratch + PAGE;
    assert_eq!(guest.ok(libc::SYS_read, [fd, at, 100]), 8);
    assert_eq!(guest.get(at, 8), b"contents");
}

#[test]
fn a_rewind_keeps_what_was_looked_for_and_the_trace() {
    let mut guest = Guest::simple();
    guest.process.trace_calls();
    let snapshot = guest.process.clone();
    let path = guest.text("/usr/none");
    guest.err(libc::SYS_open, [path, 0], libc::ENOENT);
    guest.process.rewind_to(&snapshot);
    let wanted: Vec<_> = guest.process.wanted().paths().collect();
    assert_eq!(wanted, [std::path::Path::new("/usr/none")]);
    assert!(guest.process.trace().contains("open(\"/usr/none\", O_RDONLY)"));
}

#[test]
fn moves_between_snapshots() {
    let mut guest = with_file();
    let first = guest.process.clone();
    guest.process.rewind_to(&first);
    live(&mut guest);
    let second = guest.process.clone();
    for _ in 0..2 {
        guest.process.rewind_to(&first);
        assert_eq!(guest.process.same_as(&first), Vec::<String>::new());
        guest.process.rewind_to(&second);
        assert_eq!(guest.process.same_as(&second), Vec::<String>::new());
    }
}

#[test]
fn survives_a_snapshot_file() {
    let mut guest = with_file();
    live(&mut guest);
    let config = bincode::config::standard();
    let blobs = crate::stored::number(&mut guest.process);
    let bytes = bincode::serde::encode_to_vec(&guest.process, config).unwrap();
    let (mut stored, _): (Process, usize) =
        bincode::serde::decode_from_slice(&bytes, config).unwrap();
    assert!(crate::stored::fill(&mut stored, &blobs));
    assert_eq!(stored.same_as(&guest.process), Vec::<String>::new());
    live_again(&mut guest, stored);
}

fn live_again(guest: &mut Guest, stored: Process) {
    let mut twin = guest.clone();
    twin.process = stored;
    let at = guest.scratch;
    for one in [&mut *guest, &mut twin] {
        one.ok(libc::SYS_getrandom, [at, 32, 0]);
        one.ok(libc::SYS_clock_gettime, [0, at + 32]);
    }
    assert_eq!(guest.get(at, 48), twin.get(at, 48));
    assert_eq!(guest.process.same_as(&twin.process), Vec::<String>::new());
}

#[test]
fn ignores_the_input_and_keeps_it() {
    let mut guest = Guest::simple();
    let snapshot = guest.process.clone();
    guest.process.set_input(b"another input");
    assert_eq!(guest.process.same_as(&snapshot), Vec::<String>::new());
    guest.process.rewind_to(&snapshot);
    let at = guest.scratch;
    assert_eq!(guest.ok(libc::SYS_read, [0, at, 100]), 13);
}
