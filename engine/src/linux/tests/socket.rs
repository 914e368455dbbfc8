//! Sockets: there are none, and nothing that is open is one.

use crate::linux::tests::mock::{CLOSED, Guest};

/// The calls on a socket.
const ON_A_SOCKET: [i64; 14] = [
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
];

#[test]
fn no_family_of_sockets_is_supported() {
    let mut guest = Guest::simple();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, 9999] {
        guest.err(libc::SYS_socket, [family as u64, 1, 0], libc::EAFNOSUPPORT);
        let out = guest.at(4);
        guest.err(libc::SYS_socketpair, [family as u64, 1, 0, out], libc::EAFNOSUPPORT);
    }
    assert_eq!(guest.ok(libc::SYS_dup, [0]), 3, "no descriptor is lost");
}

#[test]
fn nothing_that_is_open_is_a_socket() {
    let mut guest = Guest::simple();
    let [reader, _] = guest.pipe(0);
    for nr in ON_A_SOCKET {
        for fd in [0, 1, reader] {
            guest.err(nr, [fd], libc::ENOTSOCK);
        }
        guest.err(nr, [CLOSED], libc::EBADF);
        guest.err(nr, [u64::MAX], libc::EBADF);
    }
}
