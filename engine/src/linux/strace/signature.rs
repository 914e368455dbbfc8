//! What the arguments of each system call are, for `strace`'s way of writing them.

use super::flags::{self, Names};

/// How one argument is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    /// A signed 32-bit number.
    Int,
    /// A signed 64-bit number.
    Long,
    /// A number without sign.
    Unsigned,
    Octal,
    Hex,
    Pointer,
    Fd,
    /// A directory's descriptor, or `AT_FDCWD`.
    DirFd,
    Path,
    /// Bytes that the call reads, as many as this argument says.
    Input(usize),
    /// Bytes that the call wrote, as many as it returned.
    Output,
    /// The same, always in hexadecimal.
    Random,
    /// Text with a NUL that the call wrote.
    Text,
    /// Any of these bits.
    Bits(Names),
    /// One of these values, and what begins their names.
    One(Names, &'static str),
    OpenFlags,
    /// A file's permission bits, only where the flags two before them create one.
    CreateMode,
    Prot,
    MapFlags,
    Futex,
    Signal,
    SignalSet,
    Action,
    Stat,
    Statx,
    Timespec,
    Timeval,
    Limit,
    /// Parts of a vectored transfer, as many as the next argument says; whether the call reads.
    Parts(bool),
    Descriptors,
    Polled,
    Uname,
    /// Entries of a directory that were read.
    Entries,
    Fcntl,
    AccessMode,
    StatxFlags,
    MapOffset,
    Unsigned32,
    Hex32,
}

/// How a result that is no error is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Result {
    Number,
    Address,
    Octal,
    /// What came out of a poll follows it.
    Ready,
    FileFlags,
}

use Arg::*;

const AT: Arg = Bits(flags::AT);
const LENGTH: Arg = Unsigned;

/// The arguments of call `nr`, and how its result is written; `None` for one not described here.
pub(crate) fn of(nr: u64) -> Option<(&'static [Arg], Result)> {
    let result = match nr as i64 {
        libc::SYS_mmap | libc::SYS_mremap | libc::SYS_brk | libc::SYS_shmat => Result::Address,
        libc::SYS_umask => Result::Octal,
        libc::SYS_poll | libc::SYS_ppoll => Result::Ready,
        libc::SYS_fcntl => Result::FileFlags,
        _ => Result::Number,
    };
    let arguments: &'static [Arg] = match nr as i64 {
        libc::SYS_read => &[Fd, Output, LENGTH],
        libc::SYS_pread64 => &[Fd, Output, LENGTH, Long],
        libc::SYS_write => &[Fd, Input(2), LENGTH],
        libc::SYS_pwrite64 => &[Fd, Input(2), LENGTH, Long],
        libc::SYS_readv => &[Fd, Parts(true), Int],
        libc::SYS_writev => &[Fd, Parts(false), Int],
        libc::SYS_preadv => &[Fd, Parts(true), Int, Long],
        libc::SYS_pwritev => &[Fd, Parts(false), Int, Long],
        libc::SYS_open => &[Path, OpenFlags, CreateMode],
        libc::SYS_openat => &[DirFd, Path, OpenFlags, CreateMode],
        libc::SYS_creat => &[Path, Octal],
        libc::SYS_close | libc::SYS_dup | libc::SYS_fsync | libc::SYS_fdatasync => &[Fd],
        libc::SYS_fchdir | libc::SYS_syncfs => &[Fd],
        libc::SYS_close_range => &[Fd, Unsigned, Hex],
        libc::SYS_dup2 => &[Fd, Fd],
        libc::SYS_dup3 => &[Fd, Fd, Bits(flags::OPEN)],
        libc::SYS_stat | libc::SYS_lstat => &[Path, Stat],
        libc::SYS_fstat => &[Fd, Stat],
        libc::SYS_newfstatat => &[DirFd, Path, Stat, AT],
        libc::SYS_statx => &[DirFd, Path, StatxFlags, Bits(flags::STATX), Statx],
        libc::SYS_statfs => &[Path, Pointer],
        libc::SYS_fstatfs => &[Fd, Pointer],
        libc::SYS_access => &[Path, AccessMode],
        libc::SYS_faccessat => &[DirFd, Path, AccessMode],
        libc::SYS_faccessat2 => &[DirFd, Path, AccessMode, AT],
        libc::SYS_readlink => &[Path, Output, LENGTH],
        libc::SYS_readlinkat => &[DirFd, Path, Output, LENGTH],
        libc::SYS_getcwd => &[Text, LENGTH],
        libc::SYS_chdir | libc::SYS_rmdir | libc::SYS_unlink => &[Path],
        libc::SYS_getdents64 | libc::SYS_getdents => &[Fd, Entries, LENGTH],
        libc::SYS_mkdir | libc::SYS_chmod => &[Path, Octal],
        libc::SYS_mkdirat | libc::SYS_fchmodat => &[DirFd, Path, Octal],
        libc::SYS_fchmod => &[Fd, Octal],
        libc::SYS_unlinkat => &[DirFd, Path, AT],
        libc::SYS_rename | libc::SYS_symlink | libc::SYS_link => &[Path, Path],
        libc::SYS_renameat => &[DirFd, Path, DirFd, Path],
        libc::SYS_renameat2 => &[DirFd, Path, DirFd, Path, Hex],
        libc::SYS_symlinkat => &[Path, DirFd, Path],
        libc::SYS_linkat => &[DirFd, Path, DirFd, Path, AT],
        libc::SYS_truncate => &[Path, Long],
        libc::SYS_ftruncate => &[Fd, Long],
        libc::SYS_fallocate => &[Fd, Hex, Long, Long],
        libc::SYS_utimensat => &[DirFd, Path, Pointer, AT],
        libc::SYS_chown | libc::SYS_lchown => &[Path, Int, Int],
        libc::SYS_fchown => &[Fd, Int, Int],
        libc::SYS_fchownat => &[DirFd, Path, Int, Int, AT],
        libc::SYS_umask => &[Octal],
        libc::SYS_lseek => &[Fd, Long, One(flags::SEEK, "SEEK")],
        libc::SYS_fcntl => &[Fd, One(flags::FCNTL, "F"), Fcntl],
        libc::SYS_ioctl => &[Fd, One(flags::IOCTL, "IOCTL"), Pointer],
        libc::SYS_flock => &[Fd, Hex],
        libc::SYS_fadvise64 => &[Fd, Long, Long, Int],
        libc::SYS_pipe => &[Descriptors],
        libc::SYS_pipe2 => &[Descriptors, Bits(flags::OPEN)],
        libc::SYS_sendfile => &[Fd, Fd, Pointer, LENGTH],
        libc::SYS_copy_file_range => &[Fd, Pointer, Fd, Pointer, LENGTH, Hex],
        libc::SYS_memfd_create => &[Path, Bits(flags::MEMFD)],
        libc::SYS_eventfd2 => &[Unsigned, Hex],
        libc::SYS_epoll_create1 => &[Hex],
        libc::SYS_getxattr | libc::SYS_lgetxattr => &[Path, Path, Pointer, LENGTH],
        libc::SYS_fgetxattr => &[Fd, Path, Pointer, LENGTH],
        libc::SYS_socket => &[One(flags::SOCKET_DOMAINS, "AF"), Hex, Int],
        libc::SYS_poll => &[Polled, Unsigned, Int],
        libc::SYS_ppoll => &[Polled, Unsigned, Timespec, SignalSet, LENGTH],
        libc::SYS_select => &[Int, Pointer, Pointer, Pointer, Timeval],
        libc::SYS_pselect6 => &[Int, Pointer, Pointer, Pointer, Timespec, Pointer],
        libc::SYS_mmap => &[Pointer, LENGTH, Prot, MapFlags, Fd, MapOffset],
        libc::SYS_munmap => &[Pointer, LENGTH],
        libc::SYS_mprotect => &[Pointer, LENGTH, Prot],
        libc::SYS_mremap => &[Pointer, LENGTH, LENGTH, Bits(flags::MREMAP), Pointer],
        libc::SYS_madvise => &[Pointer, LENGTH, One(flags::MADVISE, "MADV")],
        libc::SYS_msync => &[Pointer, LENGTH, Hex],
        libc::SYS_mlock | libc::SYS_munlock => &[Pointer, LENGTH],
        libc::SYS_brk | libc::SYS_set_tid_address => &[Pointer],
        libc::SYS_rt_sigaction => &[Signal, Action, Action, LENGTH],
        libc::SYS_rt_sigprocmask => &[One(flags::SIGNAL_MASK, "SIG"), SignalSet, SignalSet, LENGTH],
        libc::SYS_rt_sigpending => &[SignalSet, LENGTH],
        libc::SYS_sigaltstack => &[Pointer, Pointer],
        libc::SYS_kill | libc::SYS_tkill => &[Int, Signal],
        libc::SYS_tgkill => &[Int, Int, Signal],
        libc::SYS_futex => &[Pointer, Futex, Unsigned32, Pointer, Pointer, Hex32],
        libc::SYS_exit | libc::SYS_exit_group | libc::SYS_alarm => &[Int],
        libc::SYS_clock_gettime | libc::SYS_clock_getres => {
            &[One(flags::CLOCKS, "CLOCK"), Timespec]
        }
        libc::SYS_gettimeofday => &[Timeval, Pointer],
        libc::SYS_time | libc::SYS_times | libc::SYS_sysinfo => &[Pointer],
        libc::SYS_getrusage => &[One(flags::RUSAGE, "RUSAGE"), Pointer],
        libc::SYS_nanosleep => &[Timespec, Pointer],
        libc::SYS_clock_nanosleep => &[One(flags::CLOCKS, "CLOCK"), Hex, Timespec, Pointer],
        libc::SYS_setitimer => &[Int, Pointer, Pointer],
        libc::SYS_getitimer => &[Int, Pointer],
        libc::SYS_arch_prctl => &[One(flags::ARCH_PRCTL, "ARCH"), Pointer],
        libc::SYS_prctl => &[One(flags::PRCTL, "PR"), Pointer],
        libc::SYS_getrandom => &[Random, LENGTH, Bits(flags::GETRANDOM)],
        libc::SYS_uname => &[Uname],
        libc::SYS_prlimit64 => &[Int, One(flags::RESOURCES, "RLIMIT"), Limit, Limit],
        libc::SYS_getrlimit | libc::SYS_setrlimit => &[One(flags::RESOURCES, "RLIMIT"), Limit],
        libc::SYS_sched_getaffinity | libc::SYS_sched_setaffinity => &[Int, LENGTH, Pointer],
        libc::SYS_getcpu => &[Pointer, Pointer, Pointer],
        libc::SYS_set_robust_list => &[Pointer, LENGTH],
        libc::SYS_rseq => &[Pointer, Hex, Hex, Hex],
        libc::SYS_getpid | libc::SYS_gettid | libc::SYS_getppid | libc::SYS_getpgrp => &[],
        libc::SYS_getuid | libc::SYS_geteuid | libc::SYS_getgid | libc::SYS_getegid => &[],
        libc::SYS_sched_yield | libc::SYS_sync | libc::SYS_pause => &[],
        libc::SYS_getpgid | libc::SYS_getsid | libc::SYS_setuid | libc::SYS_setgid => &[Int],
        libc::SYS_getresuid | libc::SYS_getresgid => &[Pointer, Pointer, Pointer],
        libc::SYS_capget | libc::SYS_capset => &[Pointer, Pointer],
        libc::SYS_getgroups => &[Int, Pointer],
        libc::SYS_getpriority => &[Int, Int],
        libc::SYS_execve => &[Path, Pointer, Pointer],
        _ => return None,
    };
    Some((arguments, result))
}
