//! Which system calls give the same answer, and leave the same state behind, whenever a process in
//! the same state makes them: whatever the input, the time, or where its other threads are.
//!
//! Never carries one out. What such a call reads of the process's memory is part of the question;
//! who repeats an answer has to compare it.

use crate::address::Gva;
use crate::linux::abi::fd::Fd;
use crate::linux::abi::syscall::SystemCall;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::{Kind, NodeId};
use crate::linux::mm::uaccess::PATH_MAX;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::syscalls::observe::read_path;
use crate::linux::syscalls::open::locate;

/// What a call does to the process's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changes {
    Never,
    UnlessItFails,
    Perhaps,
}

/// A call that can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeatable {
    /// How many of its arguments matter, from the first on.
    pub(crate) args: usize,
    /// Which arguments are addresses of memory that the call reads or writes, bit by bit: what is there
    /// matters, not where it is.
    pub(crate) pointers: u8,
    /// Which argument is a path, of which nothing past its NUL matters.
    pub(crate) path: Option<usize>,
    /// Whether its answer is always the same, not only the state after it: it tells no time.
    pub(crate) answer: bool,
    changes: Changes,
}

/// Errors are the last page of addresses (include/linux/err.h).
const ERROR_MAX: u64 = 4095;

impl Repeatable {
    const fn new(args: usize, changes: Changes) -> Self {
        Self { args, pointers: 0, path: None, answer: true, changes }
    }

    const fn of_path(args: usize, path: usize, changes: Changes) -> Self {
        Self { path: Some(path), pointers: 1 << path, ..Self::new(args, changes) }
    }

    /// With memory at these arguments, too.
    const fn at(self, pointers: u8) -> Self {
        Self { pointers: self.pointers | pointers, ..self }
    }

    /// Whether the call, which returned `value`, has left the process's state alone, but for the
    /// clock.
    pub(crate) const fn keeps_state(self, value: u64) -> bool {
        match self.changes {
            Changes::Never => true,
            Changes::UnlessItFails => value >= ERROR_MAX.wrapping_neg(),
            Changes::Perhaps => false,
        }
    }
}

impl Process {
    /// Whether `call`, before it is made, can be repeated, and how.
    pub(crate) fn repeatable(&self, call: &SystemCall, mem: &dyn UserMemory) -> Option<Repeatable> {
        if self.observes_input(call, mem) {
            return None;
        }
        of_files(self, call, mem).or_else(|| of_itself(call)).or_else(|| of_memory(call))
    }
}

/// Calls on files.
fn of_files(process: &Process, call: &SystemCall, mem: &dyn UserMemory) -> Option<Repeatable> {
    use Changes::{Never, Perhaps, UnlessItFails};
    let [a, b, c, ..] = call.args;
    let reads = |repeatable| is_file(process, a).then_some(repeatable);
    let opens = |fd: Fd, at: usize, flags: u64| {
        let opened = opens_alike(process, fd, Gva(call.args[at]), flags, mem);
        opened.then_some(Repeatable::of_path(at + 2, at, UnlessItFails))
    };
    match call.nr as i64 {
        libc::SYS_read | libc::SYS_getdents64 => reads(Repeatable::new(3, UnlessItFails).at(0b10)),
        libc::SYS_lseek => reads(Repeatable::new(3, UnlessItFails)),
        libc::SYS_pread64 => reads(Repeatable::new(4, Never).at(0b10)),
        // Does nothing, to whatever file.
        libc::SYS_fadvise64 => Some(Repeatable::new(4, Never)),
        libc::SYS_close => reads(Repeatable::new(1, Perhaps)),
        libc::SYS_fstat => reads(Repeatable::new(2, Never).at(0b10)),
        libc::SYS_open => opens(Fd::CWD, 0, b),
        libc::SYS_openat => opens(Fd::from_register(a), 1, c),
        libc::SYS_access => Some(Repeatable::of_path(2, 0, Never)),
        libc::SYS_stat | libc::SYS_lstat => Some(Repeatable::of_path(2, 0, Never).at(0b10)),
        libc::SYS_newfstatat | libc::SYS_readlinkat => {
            Some(Repeatable::of_path(4, 1, Never).at(0b100))
        }
        libc::SYS_faccessat2 => Some(Repeatable::of_path(4, 1, Never)),
        libc::SYS_faccessat => Some(Repeatable::of_path(3, 1, Never)),
        libc::SYS_statx => Some(Repeatable::of_path(5, 1, Never).at(0b1_0000)),
        libc::SYS_readlink => Some(Repeatable::of_path(3, 0, Never).at(0b10)),
        libc::SYS_chdir => Some(Repeatable::of_path(1, 0, UnlessItFails)),
        libc::SYS_getcwd => Some(Repeatable::new(2, Never).at(0b1)),
        libc::SYS_fcntl => match b as i32 {
            libc::F_GETFD | libc::F_GETFL => Some(Repeatable::new(2, Never)),
            libc::F_SETFD | libc::F_SETFL | libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
                Some(Repeatable::new(3, UnlessItFails))
            }
            _ => None,
        },
        libc::SYS_ioctl if matches!(u64::from(b as u32), libc::TCGETS | libc::TIOCGWINSZ) => {
            Some(Repeatable::new(3, Never).at(0b100))
        }
        _ => None,
    }
}

/// Calls about the process itself.
fn of_itself(call: &SystemCall) -> Option<Repeatable> {
    use Changes::{Never, Perhaps};
    let [_, b, c, ..] = call.args;
    let unless = |pointer: u64| if pointer == 0 { Never } else { Perhaps };
    let of_time = |args| Some(Repeatable { answer: false, ..Repeatable::new(args, Never) });
    let repeatable = |args, changes| Some(Repeatable::new(args, changes));
    let of_memory = |args, changes, pointers| Some(Repeatable::new(args, changes).at(pointers));
    match call.nr as i64 {
        libc::SYS_getpid
        | libc::SYS_gettid
        | libc::SYS_getppid
        | libc::SYS_getpgrp
        | libc::SYS_getuid
        | libc::SYS_geteuid
        | libc::SYS_getgid
        | libc::SYS_getegid => repeatable(0, Never),
        libc::SYS_getpgid | libc::SYS_getsid => repeatable(1, Never),
        libc::SYS_uname => of_memory(1, Never, 0b1),
        libc::SYS_getrlimit | libc::SYS_getgroups => of_memory(2, Never, 0b10),
        libc::SYS_getresuid | libc::SYS_getresgid => of_memory(3, Never, 0b111),
        libc::SYS_sched_getaffinity => of_memory(3, Never, 0b100),
        libc::SYS_prlimit64 => of_memory(4, unless(c), 0b1100),
        libc::SYS_rt_sigaction | libc::SYS_rt_sigprocmask => of_memory(4, unless(b), 0b110),
        libc::SYS_getrandom => of_memory(3, Perhaps, 0b1),
        libc::SYS_umask => repeatable(1, Perhaps),
        libc::SYS_socket => repeatable(3, Changes::UnlessItFails),
        libc::SYS_futex if is_wake(b) => repeatable(3, Never),
        libc::SYS_clock_gettime
        | libc::SYS_gettimeofday
        | libc::SYS_time
        | libc::SYS_times
        | libc::SYS_getrusage
        | libc::SYS_sysinfo => of_time(2),
        _ => None,
    }
}

/// Calls that change the address space. What they do to pages that are there is not the process's
/// state.
const fn of_memory(call: &SystemCall) -> Option<Repeatable> {
    let args = match call.nr as i64 {
        libc::SYS_mmap => 6,
        libc::SYS_mprotect => 3,
        libc::SYS_munmap => 2,
        libc::SYS_brk => 1,
        _ => return None,
    };
    Some(Repeatable::new(args, Changes::Perhaps))
}

/// `FUTEX_WAKE`, which finds nobody where there is one thread.
fn is_wake(operation: u64) -> bool {
    const FLAGS: i32 = libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME;
    operation as i32 & !FLAGS == libc::FUTEX_WAKE
}

/// Whether a descriptor is a file's other than the input, or nobody's.
fn is_file(process: &Process, fd: u64) -> bool {
    match process.files.table.get(Fd::from_register(fd)) {
        Ok(open) => matches!(open.target, Target::Node(node) if node != NodeId::INPUT),
        Err(_) => true,
    }
}

/// Whether opening a path makes nothing new: no file, and no text about the process as it is now.
fn opens_alike(process: &Process, fd: Fd, path: Gva, flags: u64, mem: &dyn UserMemory) -> bool {
    const MAKES: i32 = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE;
    // A directory has a bit in common with O_TMPFILE.
    if flags as i32 & MAKES & !libc::O_DIRECTORY != 0 {
        return false;
    }
    let mut buffer = [0; PATH_MAX];
    let Some(path) = read_path(path, &mut buffer, mem) else { return false };
    match locate(&process.files, fd, path, 0) {
        Err(_) => true,
        Ok(Target::Node(node)) => {
            let node = process.files.tree.node(node).filter(|_| node != NodeId::INPUT);
            node.is_some_and(|node| !matches!(node.kind, Kind::Proc(_) | Kind::Descriptors))
        }
        Ok(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::tests::mock::Guest;

    fn call(nr: i64, args: [u64; 3]) -> SystemCall {
        SystemCall { nr: nr as u64, args: [args[0], args[1], args[2], 0, 0, 0] }
    }

    #[test]
    fn what_tells_of_the_input_or_makes_a_file_is_not_repeated() {
        let guest = Guest::simple();
        let repeatable = |nr, args| guest.process.repeatable(&call(nr, args), &guest.mem);
        assert_eq!(repeatable(libc::SYS_read, [0, 0, 9]), None, "the input");
        assert_eq!(repeatable(libc::SYS_close, [0, 0, 0]), None);
        assert_eq!(repeatable(libc::SYS_write, [1, 0, 0]), None);
        assert!(repeatable(libc::SYS_read, [7, 0, 9]).is_some(), "no such descriptor, always");
        assert_eq!(repeatable(libc::SYS_futex, [0, libc::FUTEX_WAIT as u64, 0]), None);
        assert!(repeatable(libc::SYS_futex, [0, libc::FUTEX_WAKE as u64 | 128, 1]).is_some());
    }

    #[test]
    fn a_call_that_fails_to_open_keeps_the_state() {
        let fails = Repeatable::new(3, Changes::UnlessItFails);
        assert!(fails.keeps_state((-i64::from(libc::ENOENT)) as u64));
        assert!(!fails.keeps_state(3));
        assert!(!Repeatable::new(1, Changes::Perhaps).keeps_state(u64::MAX));
    }

    #[test]
    fn the_time_is_no_answer_to_be_repeated_but_changes_nothing() {
        let clock = of_itself(&call(libc::SYS_clock_gettime, [0; 3])).unwrap();
        assert!(!clock.answer && clock.keeps_state(0));
    }
}
