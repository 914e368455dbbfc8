//! Which calls there are.

use crate::linux::tests::mock::Guest;

#[test]
fn remembers_calls_it_does_not_have() {
    let mut guest = Guest::simple();
    guest.err(libc::SYS_io_uring_setup, [1, 0], libc::ENOSYS);
    guest.err(libc::SYS_io_uring_setup, [1, 0], libc::ENOSYS);
    guest.err(9999, [], libc::ENOSYS);
    assert_eq!(guest.process.unsupported_calls(), ["io_uring_setup", "syscall_9999"]);
}
