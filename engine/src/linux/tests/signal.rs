//! Signals.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::{Guest, NOWHERE};
use crate::outcome::{Fault, MemoryAccess, Signal};

#[test]
fn ends_by_signals_to_itself_unless_ignored_or_blocked() {
    let mut guest = Guest::simple();
    let abort = SyscallAction::Signal(Signal::ABRT);
    assert_eq!(guest.verdict(libc::SYS_tgkill, [1000, 1000, 6]), abort);
    assert_eq!(guest.verdict(libc::SYS_kill, [0, 6]), abort);
    guest.ok(libc::SYS_kill, [1000, 0]);
    guest.ok(libc::SYS_kill, [1000, libc::SIGCHLD as u64]);
    guest.err(libc::SYS_kill, [4242, 6], libc::ESRCH);
    guest.err(libc::SYS_kill, [1000, 65], libc::EINVAL);
    let action = guest.put(0, &1u64.to_le_bytes());
    guest.ok(libc::SYS_rt_sigaction, [6, action, 0, 8]);
    guest.ok(libc::SYS_kill, [1000, 6]);
    guest.err(libc::SYS_rt_sigaction, [9, action, 0, 8], libc::EINVAL);
    let set = guest.put(0, &(1u64 << 14).to_le_bytes());
    guest.ok(libc::SYS_rt_sigprocmask, [libc::SIG_BLOCK as u64, set, 0, 8]);
    guest.ok(libc::SYS_kill, [1000, 15]);
    let unblocked = guest.verdict(libc::SYS_rt_sigprocmask, [libc::SIG_UNBLOCK as u64, set, 0, 8]);
    assert_eq!(unblocked, SyscallAction::Signal(Signal(15)));
}

#[test]
fn a_handler_returns_to_where_it_came_in() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGUSR1, 0x40_0000, 0);
    guest.cpu.extended[200] = 0x77;
    let (regs, extended) = (guest.cpu.regs, guest.cpu.extended.clone());
    assert_eq!(guest.verdict(libc::SYS_kill, [1000, libc::SIGUSR1 as u64]), SyscallAction::Resumed);
    assert_eq!((guest.cpu.regs.rip, guest.cpu.regs.rdi), (0x40_0000, 10));
    assert_ne!(guest.cpu.extended, extended, "a handler starts with a state of its own");
    assert_eq!(guest.word(guest.cpu.regs.rsp), 0x1234, "it returns to the restorer");
    // RET.
    guest.cpu.regs.rsp += 8;
    assert_eq!(guest.verdict(libc::SYS_rt_sigreturn, []), SyscallAction::Resumed);
    assert_eq!((guest.cpu.regs.rip, guest.cpu.regs.rsp), (regs.rip, regs.rsp));
    assert_eq!(guest.cpu.regs.rax, 0, "the call that sent the signal has succeeded");
    assert_eq!(guest.cpu.extended[200], 0x77);
}

#[test]
fn a_frame_that_no_kernel_made_is_a_fault() {
    for rsp in [0, NOWHERE, u64::MAX - 100, 1 << 63] {
        let mut guest = Guest::simple();
        guest.cpu.regs.rsp = rsp;
        let verdict = guest.verdict(libc::SYS_rt_sigreturn, []);
        assert_eq!(verdict, SyscallAction::Signal(Signal::SEGV), "{rsp:#x}");
    }
    let mut guest = Guest::simple();
    guest.cpu.regs.rsp = guest.put(0, &[0xff; 2048]);
    assert_eq!(guest.verdict(libc::SYS_rt_sigreturn, []), SyscallAction::Signal(Signal::SEGV));
}

#[test]
fn a_fault_in_a_handler_without_a_stack_ends_the_process() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGSEGV, 0x40_0000, 0);
    guest.cpu.regs.rsp = NOWHERE;
    let access = Some(MemoryAccess { address: Some(NOWHERE), kind: crate::outcome::Access::Write });
    let fault = Fault {
        signal: Signal::SEGV,
        rip: guest.cpu.regs.rip,
        access,
        vector: Some(14),
        error_code: Some(6),
    };
    let verdict = guest.process.fault(&fault, NOWHERE, &mut guest.mem, &mut guest.cpu);
    assert_eq!(verdict, SyscallAction::Signal(Signal::SEGV));
}
