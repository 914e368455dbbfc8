//! `eventfd`, `memfd_create` and the `epoll` calls.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::threads::HANDLER;
use crate::linux::tests::mock::{CLOSED, Guest, NOWHERE, PAGE};

const ADD: u64 = libc::EPOLL_CTL_ADD as u64;
const MODIFY: u64 = libc::EPOLL_CTL_MOD as u64;
const DELETE: u64 = libc::EPOLL_CTL_DEL as u64;
const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const HANGS_UP: u32 = libc::EPOLLHUP as u32;
const ONE_SHOT: u32 = libc::EPOLLONESHOT as u32;
const FOREVER: u64 = u64::MAX;

impl Guest {
    fn event(&mut self, count: u64, flags: i32) -> u64 {
        self.ok(libc::SYS_eventfd2, [count, flags as u64])
    }

    /// Adds to an eventfd; what the call returns.
    fn add(&mut self, fd: u64, count: u64) -> i64 {
        let at = self.words(64, &[count]);
        self.call(libc::SYS_write, [fd, at, 8])
    }

    /// What a read of an eventfd gives.
    fn take(&mut self, fd: u64) -> u64 {
        let at = self.at(4);
        assert_eq!(self.ok(libc::SYS_read, [fd, at, 8]), 8);
        self.word(at)
    }

    /// A `struct epoll_event`.
    fn interest(&mut self, events: u32, data: u64) -> u64 {
        let bytes = [&events.to_le_bytes()[..], &data.to_le_bytes()].concat();
        self.put(64, &bytes)
    }

    /// Changes what an epoll set waits for on `fd`, with the descriptor as its data.
    fn watch(&mut self, set: u64, operation: u64, fd: u64, events: u32) -> i64 {
        let at = self.interest(events, fd);
        self.call(libc::SYS_epoll_ctl, [set, operation, fd, at])
    }

    /// The events of an epoll set and their data, without waiting.
    fn ready(&mut self, set: u64) -> Vec<(u32, u64)> {
        let at = self.at(5);
        let count = self.ok(libc::SYS_epoll_wait, [set, at, 8, 0]);
        (0..count).map(|i| (self.half(at + i * 12), self.word(at + i * 12 + 4))).collect()
    }

    /// An epoll set and a pipe.
    fn set_and_pipe(&mut self) -> (u64, [u64; 2]) {
        (self.ok(libc::SYS_epoll_create1, [0]), self.pipe(0))
    }
}

#[test]
fn an_eventfd_counts_up_and_a_read_takes_all_of_it() {
    let mut guest = Guest::simple();
    let fd = guest.event(3, libc::EFD_NONBLOCK);
    assert_eq!(guest.add(fd, 4), 8);
    assert_eq!(guest.take(fd), 7);
    let at = guest.at(4);
    guest.err(libc::SYS_read, [fd, at, 8], libc::EAGAIN);
    assert_eq!(guest.add(fd, 0), 8);
    guest.err(libc::SYS_read, [fd, at, 8], libc::EAGAIN);
    let old = guest.ok(libc::SYS_eventfd, [5]);
    assert_eq!(guest.take(old), 5);
}

#[test]
fn a_semaphore_gives_one_at_a_time() {
    let mut guest = Guest::simple();
    let flags = libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK | libc::EFD_CLOEXEC;
    let fd = guest.event(2, flags);
    assert_eq!([guest.take(fd), guest.take(fd)], [1, 1]);
    let at = guest.at(4);
    guest.err(libc::SYS_read, [fd, at, 8], libc::EAGAIN);
    assert_eq!(guest.ok(libc::SYS_fcntl, [fd, libc::F_GETFD as u64]), 1);
    let flags = guest.ok(libc::SYS_fcntl, [fd, libc::F_GETFL as u64]) as i32;
    assert_eq!(flags & 0o7777, libc::O_RDWR | libc::O_NONBLOCK);
}

#[test]
fn an_eventfd_never_reaches_the_highest_value() {
    let mut guest = Guest::simple();
    let fd = guest.event(0, libc::EFD_NONBLOCK);
    assert_eq!(guest.add(fd, u64::MAX), -i64::from(libc::EINVAL));
    assert_eq!(guest.add(fd, u64::MAX - 1), 8);
    assert_eq!(guest.add(fd, 1), -i64::from(libc::EAGAIN));
    assert_eq!(guest.take(fd), u64::MAX - 1);
    let at = guest.at(4);
    guest.fails(&[
        (libc::SYS_eventfd2, &[0, 0x10], libc::EINVAL),
        (libc::SYS_read, &[fd, at, 7], libc::EINVAL),
        (libc::SYS_write, &[fd, at, 7], libc::EINVAL),
        (libc::SYS_write, &[fd, NOWHERE, 8], libc::EFAULT),
        (libc::SYS_pread64, &[fd, at, 8, 0], libc::ESPIPE),
    ]);
    guest.add(fd, 6);
    guest.err(libc::SYS_read, [fd, NOWHERE, 8], libc::EFAULT);
}

#[test]
fn who_reads_an_empty_eventfd_waits_for_another_thread_to_add() {
    let mut guest = Guest::simple();
    let fd = guest.event(0, 0);
    let at = guest.at(4);
    assert_eq!(guest.clone().verdict(libc::SYS_read, [fd, at, 8]), SyscallAction::Hang);
    guest.spawn(0);
    guest.switch(libc::SYS_read, [fd, at, 8]);
    assert_eq!(guest.add(fd, 9), 8);
    assert_eq!(guest.let_others_run(), 8);
    assert_eq!((guest.thread(), guest.word(at)), (1000, 9));
}

#[test]
fn a_memory_file_is_a_file_without_a_name_in_the_tree() {
    let mut guest = Guest::simple();
    let name = guest.text("name");
    let fd = guest.ok(libc::SYS_memfd_create, [name, u64::from(libc::MFD_CLOEXEC)]);
    assert_eq!(guest.ok(libc::SYS_fcntl, [fd, libc::F_GETFD as u64]), 1);
    assert_eq!(guest.write_text(fd, "kept in memory"), 14);
    guest.ok(libc::SYS_ftruncate, [fd, 4]);
    assert_eq!(guest.contents(fd), "kept");
    let out = guest.at(4);
    guest.ok(libc::SYS_fstat, [fd, out]);
    assert_eq!((guest.word(out + 16), guest.word(out + 48)), (0, 4), "links and size");
    assert_eq!(guest.half(out + 24), libc::S_IFREG | 0o777);
}

#[test]
fn the_name_of_a_memory_file_is_bounded() {
    let mut guest = Guest::simple();
    let (longest, longer) = ("n".repeat(249), "n".repeat(250));
    assert_eq!(guest.on_path(libc::SYS_memfd_create, &longest, &[0]), 3);
    assert_eq!(guest.on_path(libc::SYS_memfd_create, "", &[0]), 4, "none is as good");
    guest.fails_on(&[
        (libc::SYS_memfd_create, &longer, &[0], libc::EINVAL),
        (libc::SYS_memfd_create, "n", &[0x100], libc::EINVAL),
    ]);
    let endless = guest.put(0, &[b'n'; 5000]);
    guest.err(libc::SYS_memfd_create, [endless, 0], libc::EINVAL);
    guest.err(libc::SYS_memfd_create, [NOWHERE, 0], libc::EFAULT);
}

#[test]
fn an_epoll_set_tells_what_is_ready_as_long_as_it_is() {
    let mut guest = Guest::simple();
    let (set, [reader, writer]) = guest.set_and_pipe();
    assert_eq!(guest.watch(set, ADD, reader, IN), 0);
    assert_eq!(guest.ready(set), []);
    assert_eq!(guest.write_text(writer, "x"), 1);
    assert_eq!(guest.ready(set), [(IN, reader)]);
    assert_eq!(guest.watch(set, ADD, writer, OUT), 0);
    assert_eq!(guest.ready(set), [(IN, reader), (OUT, writer)]);
    let at = guest.at(5);
    assert_eq!(guest.ok(libc::SYS_epoll_wait, [set, at, 1, 0]), 1, "no more than asked for");
    assert_eq!(guest.read_text(reader, 1), "x");
    assert_eq!(guest.watch(set, DELETE, writer, 0), 0);
    assert_eq!(guest.ready(set), []);
    guest.ok(libc::SYS_close, [writer]);
    assert_eq!(guest.ready(set), [(HANGS_UP, reader)], "whether asked for or not");
}

#[test]
fn an_interest_for_once_is_asleep_until_it_is_renewed() {
    let mut guest = Guest::simple();
    let (set, [reader, writer]) = guest.set_and_pipe();
    guest.write_text(writer, "x");
    assert_eq!(guest.watch(set, ADD, reader, IN | ONE_SHOT), 0);
    assert_eq!(guest.ready(set), [(IN, reader)]);
    assert_eq!(guest.ready(set), []);
    assert_eq!(guest.watch(set, MODIFY, reader, IN | ONE_SHOT), 0);
    assert_eq!(guest.ready(set), [(IN, reader)]);
}

#[test]
fn an_epoll_set_that_is_watched_by_poll_is_ready_when_one_of_its_own_is() {
    let mut guest = Guest::simple();
    let (set, [reader, writer]) = guest.set_and_pipe();
    guest.watch(set, ADD, reader, IN);
    let asked = guest.words(PAGE, &[set | 1 << 32]);
    assert_eq!(guest.ok(libc::SYS_poll, [asked, 1, 0]), 0);
    guest.write_text(writer, "x");
    assert_eq!(guest.ok(libc::SYS_poll, [asked, 1, 0]), 1);
}

#[test]
fn epoll_calls_check_their_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    let (set, [reader, _]) = guest.set_and_pipe();
    let file = guest.open("/tmp", libc::O_DIRECTORY);
    let (event, out) = (guest.interest(IN, 0), guest.at(5));
    let add = guest.clone();
    guest.fails(&[
        (libc::SYS_epoll_create, &[0], libc::EINVAL),
        (libc::SYS_epoll_create, &[u64::MAX], libc::EINVAL),
        (libc::SYS_epoll_create1, &[1], libc::EINVAL),
        (libc::SYS_epoll_ctl, &[set, ADD, file, event], libc::EPERM),
        (libc::SYS_epoll_ctl, &[set, ADD, set, event], libc::EINVAL),
        (libc::SYS_epoll_ctl, &[file, ADD, reader, event], libc::EINVAL),
        (libc::SYS_epoll_ctl, &[CLOSED, ADD, reader, event], libc::EBADF),
        (libc::SYS_epoll_ctl, &[set, ADD, CLOSED, event], libc::EBADF),
        (libc::SYS_epoll_ctl, &[file, ADD, CLOSED, event], libc::EBADF),
        (libc::SYS_epoll_ctl, &[set, ADD, reader, NOWHERE], libc::EFAULT),
        (libc::SYS_epoll_ctl, &[set, 9, reader, event], libc::EINVAL),
        (libc::SYS_epoll_ctl, &[set, DELETE, reader, 0], libc::ENOENT),
        (libc::SYS_epoll_ctl, &[set, MODIFY, reader, event], libc::ENOENT),
        (libc::SYS_epoll_wait, &[set, out, 0, 0], libc::EINVAL),
        (libc::SYS_epoll_wait, &[set, out, u64::MAX, 0], libc::EINVAL),
        (libc::SYS_epoll_wait, &[reader, out, 1, 0], libc::EINVAL),
        (libc::SYS_epoll_wait, &[CLOSED, out, 1, 0], libc::EBADF),
        (libc::SYS_read, &[set, out, 8], libc::EINVAL),
        (libc::SYS_write, &[set, out, 8], libc::EINVAL),
    ]);
    assert_eq!(guest.process.same_as(&add.process).len(), 1, "nothing but the clock");
    assert_eq!(guest.watch(set, ADD, reader, IN), 0);
    assert_eq!(guest.watch(set, ADD, reader, IN), -i64::from(libc::EEXIST));
    assert_eq!(guest.ok(libc::SYS_epoll_create, [1]), 7);
}

#[test]
fn an_event_that_cannot_be_told_stays_to_be_told() {
    let mut guest = Guest::simple();
    let (set, [reader, writer]) = guest.set_and_pipe();
    guest.watch(set, ADD, reader, IN | ONE_SHOT);
    guest.write_text(writer, "x");
    guest.err(libc::SYS_epoll_wait, [set, NOWHERE, 4, 0], libc::EFAULT);
    assert_eq!(guest.ready(set), [(IN, reader)]);
}

#[test]
fn who_waits_for_events_goes_on_at_one_at_a_timeout_or_at_a_signal() {
    let mut guest = Guest::simple();
    let (set, [reader, writer]) = guest.set_and_pipe();
    guest.watch(set, ADD, reader, IN);
    let at = guest.at(5);
    let before = guest.process.scalars.clock_ns;
    assert_eq!(guest.ok(libc::SYS_epoll_wait, [set, at, 8, 250]), 0);
    assert!(guest.process.scalars.clock_ns - before >= 250_000_000);
    let hangs = guest.clone().verdict(libc::SYS_epoll_pwait, [set, at, 8, FOREVER, 0, 8]);
    assert_eq!(hangs, SyscallAction::Hang);

    guest.handle(libc::SIGALRM, HANDLER, libc::SA_RESTART);
    guest.ok(libc::SYS_alarm, [1]);
    guest.enters_handler(libc::SYS_epoll_pwait, [set, at, 8, FOREVER, 0, 8]);
    assert_eq!(guest.return_from_handler(), -i64::from(libc::EINTR), "it is never made again");

    guest.spawn(0);
    guest.switch(libc::SYS_epoll_pwait, [set, at, 8, FOREVER, 0, 8]);
    guest.write_text(writer, "x");
    assert_eq!(guest.let_others_run(), 1);
    assert_eq!((guest.thread(), guest.half(at), guest.word(at + 4)), (1000, IN, reader));
}

#[test]
fn a_rewind_takes_back_counts_interests_and_memory_files() {
    let mut guest = Guest::simple();
    let (set, [reader, _]) = guest.set_and_pipe();
    let event = guest.event(3, 0);
    guest.watch(set, ADD, reader, IN);
    guest.undoes("eventfd or epoll", |guest| assert_eq!(guest.take(event), 3));
    guest.undoes("eventfd or epoll", |guest| assert_eq!(guest.watch(set, ADD, event, IN), 0));
    guest.undoes("eventfd or epoll", |guest| assert_eq!(guest.watch(set, DELETE, reader, 0), 0));
    guest.undoes("eventfd or epoll", |guest| guest.event(1, 0));
    guest.undoes("descriptor 7", |guest| {
        assert_eq!(guest.on_path(libc::SYS_memfd_create, "m", &[0]), 7);
    });
    assert_eq!(guest.take(event), 3);
    assert_eq!(guest.watch(set, MODIFY, reader, IN), 0);
}
