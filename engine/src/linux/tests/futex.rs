//! Futexes.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::Guest;

#[test]
fn hangs_where_only_a_second_thread_could_go_on() {
    let mut guest = Guest::simple();
    let word = guest.put(0, &7u64.to_le_bytes());
    guest.err(libc::SYS_futex, [word, 0, 8, 0], libc::EAGAIN);
    assert_eq!(guest.verdict(libc::SYS_futex, [word, 0, 7, 0]), SyscallAction::Hang);
    let timeout = guest.put(64, &[0; 16]);
    guest.err(libc::SYS_futex, [word, 0, 7, timeout], libc::ETIMEDOUT);
    assert_eq!(guest.ok(libc::SYS_futex, [word, 1, 1, 0]), 0);
    assert_eq!(guest.verdict(libc::SYS_fork, []), SyscallAction::Unsupported("fork".to_owned()));
    assert_eq!(guest.verdict(libc::SYS_exit_group, [259]), SyscallAction::Exit { status: 3 });
}
