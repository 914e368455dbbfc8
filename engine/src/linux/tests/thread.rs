//! Making and ending threads, and who runs meanwhile.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::sched::thread::THREADS_MAX;
use crate::linux::tests::mock::threads::THREAD;
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};

const WAIT: u64 = libc::FUTEX_WAIT as u64;
const WAKE: u64 = libc::FUTEX_WAKE as u64;
const SET_TLS: u64 = libc::CLONE_SETTLS as u64;
const TELL_PARENT: u64 = libc::CLONE_PARENT_SETTID as u64;
const TELL_CHILD: u64 = libc::CLONE_CHILD_SETTID as u64;
const OWNER_DIED: u32 = 1 << 30;
const WAITERS: u32 = 1 << 31;

/// `struct clone_args` in its first version.
#[derive(Clone, Copy, Default)]
struct CloneArgs {
    flags: u64,
    child_id_at: u64,
    parent_id_at: u64,
    exit_signal: u64,
    stack: u64,
    stack_bytes: u64,
    tls: u64,
}

impl Guest {
    fn clone3(&mut self, args: CloneArgs) -> i64 {
        let CloneArgs { flags, child_id_at, parent_id_at, exit_signal, .. } = args;
        let pidfd_at = 0;
        let words = [flags, pidfd_at, child_id_at, parent_id_at, exit_signal];
        let at = self.words(0, &[&words[..], &[args.stack, args.stack_bytes, args.tls]].concat());
        self.call(libc::SYS_clone3, [at, 64])
    }
}

#[test]
fn another_thread_goes_on_where_one_waits_and_finds_its_own_registers() {
    let mut guest = Guest::simple();
    let word = guest.put(0, &7u64.to_le_bytes());
    let stack = guest.scratch + 4 * PAGE;
    assert_eq!(guest.spawn(stack), 1001);
    guest.cpu.bases = [0x1000, 0];
    let first = guest.cpu.regs;
    assert_eq!(guest.switch(libc::SYS_futex, [word, WAIT, 7, 0]), 0, "the child's clone");
    assert_eq!((guest.cpu.regs.rsp, guest.cpu.bases), (stack, [0; 2]));
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1001);
    assert_eq!(guest.ok(libc::SYS_getpid, []), 1000);
    assert_eq!(guest.ok(libc::SYS_futex, [word, WAKE, 9]), 1, "one thread waited");
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1001, "a wake-up is no switch");
    assert_eq!(guest.switch(libc::SYS_sched_yield, []), 0);
    assert_eq!((guest.cpu.regs.rsp, guest.cpu.bases), (first.rsp, [0x1000, 0]));
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1000);
}

#[test]
fn the_end_of_a_thread_wakes_who_joins_it() {
    let mut guest = Guest::simple();
    let id_at = guest.put(8 * PAGE, &1001u64.to_le_bytes());
    guest.spawn(0);
    guest.switch(libc::SYS_futex, [id_at, WAIT, 1001, 0]);
    assert_eq!(guest.switch(libc::SYS_exit, [3]), 0, "the join's wait is over");
    assert_eq!(guest.word(id_at), 0);
    assert_eq!(guest.verdict(libc::SYS_exit, [4]), SyscallAction::Exit { status: 4 });
}

#[test]
fn the_process_has_the_status_of_its_first_thread() {
    let mut guest = Guest::simple();
    guest.spawn(0);
    guest.switch(libc::SYS_exit, [3]);
    assert_eq!(guest.verdict(libc::SYS_exit, [4]), SyscallAction::Exit { status: 3 });
}

#[test]
fn threads_and_signals_in_line_are_bounded() {
    let mut guest = Guest::simple();
    for _ in 1..THREADS_MAX {
        guest.spawn(0);
    }
    guest.err(libc::SYS_clone, [THREAD, 0, 0, 0, 0], libc::EAGAIN);
    let set = guest.put(0, &u64::MAX.to_le_bytes());
    guest.ok(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, set, 0, 8]);
    let queued = (0..300).map(|_| guest.call(libc::SYS_tgkill, [1000, 1000, 40]));
    assert_eq!(queued.filter(|sent| *sent == 0).count(), 256);
}

#[test]
fn a_thread_is_told_of_itself_and_has_its_own_storage() {
    let mut guest = Guest::simple();
    let [parent_at, child_at] = [guest.at(4), guest.at(5)];
    let stack = guest.at(12);
    let flags = THREAD | SET_TLS | TELL_PARENT | TELL_CHILD;
    assert_eq!(guest.ok(libc::SYS_clone, [flags, stack, parent_at, child_at, 0x5000]), 1001);
    assert_eq!((guest.half(parent_at), guest.half(child_at)), (1001, 1001));
    assert_eq!(guest.let_others_run(), 0, "what clone returns in the new thread");
    assert_eq!((guest.cpu.regs.rsp, guest.cpu.bases), (stack, [0x5000, 0]));
    // What cannot be told is not.
    assert_eq!(guest.ok(libc::SYS_clone, [flags, stack, NOWHERE, NOWHERE, 0]), 1002);
}

#[test]
fn clone3_takes_a_stack_by_its_lowest_address_and_its_size() {
    let mut guest = Guest::simple();
    let stack = guest.at(11);
    let [parent_id_at, child_id_at] = [guest.at(4), guest.at(5)];
    let flags = THREAD | SET_TLS | TELL_PARENT | TELL_CHILD;
    let args = CloneArgs {
        flags,
        child_id_at,
        parent_id_at,
        stack,
        stack_bytes: PAGE,
        tls: 0x5000,
        exit_signal: 0,
    };
    assert_eq!(guest.clone3(args), 1001);
    assert_eq!((guest.half(parent_id_at), guest.half(child_id_at)), (1001, 1001));
    assert_eq!(guest.let_others_run(), 0);
    assert_eq!((guest.cpu.regs.rsp, guest.cpu.bases), (stack + PAGE, [0x5000, 0]));
}

#[test]
fn what_a_thread_shares_is_checked_as_linux_does() {
    let mut guest = Guest::simple();
    let thread = libc::CLONE_THREAD as u64;
    let handlers = libc::CLONE_SIGHAND as u64;
    let beyond = 1 << 47;
    guest.fails(&[
        (libc::SYS_clone, &[thread], libc::EINVAL),
        (libc::SYS_clone, &[thread | handlers], libc::EINVAL),
        (libc::SYS_clone, &[THREAD | SET_TLS, 0, 0, 0, beyond], libc::EPERM),
        (libc::SYS_clone3, &[guest.scratch, 63], libc::EINVAL),
        (libc::SYS_clone3, &[NOWHERE, 64], libc::EFAULT),
    ]);
    let args = CloneArgs { flags: THREAD, ..CloneArgs::default() };
    for (args, errno) in [
        (CloneArgs { exit_signal: 5, ..args }, libc::EINVAL),
        (CloneArgs { flags: THREAD | 1, ..args }, libc::EINVAL),
        (CloneArgs { stack: 1, ..args }, libc::EINVAL),
        (CloneArgs { stack_bytes: 1, ..args }, libc::EINVAL),
        (CloneArgs { flags: THREAD | SET_TLS, tls: beyond, ..args }, libc::EPERM),
    ] {
        assert_eq!(guest.clone3(args), -i64::from(errno));
    }
    assert_eq!(guest.clone3(args), 1001, "no number is lost");
}

#[test]
fn a_process_of_its_own_is_not_supported_and_says_which_call_wanted_it() {
    let mut guest = Guest::simple();
    let wanted = |name: &str| SyscallAction::Unsupported(name.to_owned());
    let child = libc::SIGCHLD as u64;
    assert_eq!(guest.clone().verdict(libc::SYS_clone, [child]), wanted("clone"));
    let memory_alone = (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | child;
    assert_eq!(guest.clone().verdict(libc::SYS_clone, [memory_alone]), wanted("clone"));
    let at = guest.words(0, &[0, 0, 0, 0, child, 0, 0, 0]);
    assert_eq!(guest.verdict(libc::SYS_clone3, [at, 64]), wanted("clone3"));
}

#[test]
fn a_new_thread_inherits_mask_and_name_and_not_what_is_pending() {
    let mut guest = Guest::simple();
    let name = guest.text("parent");
    guest.ok(libc::SYS_prctl, [libc::PR_SET_NAME as u64, name]);
    guest.block(&[libc::SIGUSR1, libc::SIGUSR2]);
    guest.ok(libc::SYS_tkill, [1000, libc::SIGUSR1 as u64]);
    guest.spawn(0);
    guest.let_others_run();
    let out = guest.at(4);
    guest.ok(libc::SYS_rt_sigprocmask, [0, 0, out, 8]);
    assert_eq!(guest.word(out), 1 << (libc::SIGUSR1 - 1) | 1 << (libc::SIGUSR2 - 1));
    guest.ok(libc::SYS_rt_sigpending, [out, 8]);
    assert_eq!(guest.word(out), 0);
    guest.ok(libc::SYS_prctl, [libc::PR_GET_NAME as u64, out]);
    assert_eq!(guest.get(out, 7), b"parent\0");
}

#[test]
fn the_end_of_the_process_takes_all_of_its_threads() {
    let mut guest = Guest::simple();
    guest.spawn(0);
    guest.let_others_run();
    assert_eq!(guest.verdict(libc::SYS_exit_group, [0x105]), SyscallAction::Exit { status: 5 });
}

#[test]
fn who_joins_a_thread_waits_at_the_word_that_it_named_last() {
    let mut guest = Guest::simple();
    let [first, second] = [guest.words(4 * PAGE, &[7]), guest.words(5 * PAGE, &[7])];
    guest.ok(libc::SYS_clone, [THREAD | libc::CLONE_CHILD_CLEARTID as u64, 0, 0, first, 0]);
    guest.switch(libc::SYS_futex, [second, WAIT, 7, 0]);
    assert_eq!(guest.ok(libc::SYS_set_tid_address, [second]), 1001);
    assert_eq!(guest.switch(libc::SYS_exit, [0]), 0);
    assert_eq!((guest.half(first), guest.half(second)), (7, 0));
}

#[test]
fn a_thread_whose_word_is_nowhere_ends_all_the_same() {
    let mut guest = Guest::simple();
    guest.spawn(0);
    guest.let_others_run();
    guest.ok(libc::SYS_set_tid_address, [NOWHERE]);
    guest.ok(libc::SYS_set_robust_list, [NOWHERE, 24]);
    guest.switch(libc::SYS_exit, [0]);
    assert_eq!(guest.thread(), 1000);
}

/// A list of one lock, 16 bytes behind its entry, that the running thread holds.
fn robust_list(guest: &mut Guest, lock: u32) -> [u64; 2] {
    let [head, entry] = [guest.at(4), guest.at(5)];
    guest.words(4 * PAGE, &[entry, 16, 0]);
    guest.words(5 * PAGE, &[head, 0, lock.into()]);
    [head, entry + 16]
}

#[test]
fn locks_that_a_thread_held_are_released_with_a_mark_and_one_waiter_is_woken() {
    let mut guest = Guest::simple();
    let [head, lock] = robust_list(&mut guest, 1001 | WAITERS);
    guest.spawn(0);
    let value = u64::from(1001 | WAITERS);
    guest.switch(libc::SYS_futex, [lock, WAIT, value, 0]);
    guest.ok(libc::SYS_set_robust_list, [head, 24]);
    assert_eq!(guest.switch(libc::SYS_exit, [0]), 0, "the waiter goes on");
    assert_eq!(guest.half(lock), OWNER_DIED | WAITERS);
    guest.err(libc::SYS_set_robust_list, [head, 23], libc::EINVAL);
}

#[test]
fn a_lock_of_another_thread_is_left_alone_and_a_list_without_end_ends() {
    let mut guest = Guest::simple();
    let [head, lock] = robust_list(&mut guest, 1000);
    guest.words(5 * PAGE, &[lock - 16]);
    guest.spawn(0);
    guest.let_others_run();
    guest.ok(libc::SYS_set_robust_list, [head, 24]);
    guest.switch(libc::SYS_exit, [0]);
    assert_eq!(guest.half(lock), 1000);
}

#[test]
fn a_rewind_brings_threads_back_and_takes_new_ones_away() {
    let mut guest = Guest::simple();
    guest.undoes("threads", |guest| guest.spawn(0));
    guest.undoes("threads", |guest| guest.ok(libc::SYS_set_tid_address, [NOWHERE]));
    guest.undoes("threads", |guest| guest.ok(libc::SYS_set_robust_list, [NOWHERE, 24]));
    assert_eq!(guest.spawn(0), 1001);
    guest.undoes("threads", |guest| guest.switch(libc::SYS_exit, [0]));
    assert_eq!(guest.thread(), 1000);
    guest.let_others_run();
    assert_eq!(guest.thread(), 1001);
}
