//! Names of flags and constants, as `strace` writes them. Never says what they do.

/// Values and their names.
pub(crate) type Names = &'static [(u64, &'static str)];

macro_rules! names {
    ($($(#[$doc:meta])* $set:ident: $($name:ident)*;)*) => {
        $($(#[$doc])* pub(crate) const $set: Names = &[$((libc::$name as u64, stringify!($name))),*];)*
    };
}

names! {
    ACCESS: R_OK W_OK X_OK;
    AT: AT_SYMLINK_NOFOLLOW AT_REMOVEDIR AT_SYMLINK_FOLLOW AT_NO_AUTOMOUNT AT_EMPTY_PATH;
    CLOCKS: CLOCK_REALTIME CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID
        CLOCK_MONOTONIC_RAW CLOCK_REALTIME_COARSE CLOCK_MONOTONIC_COARSE CLOCK_BOOTTIME;
    DESCRIPTOR_FLAGS: FD_CLOEXEC;
    FCNTL: F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW F_SETOWN F_GETOWN
        F_DUPFD_CLOEXEC F_GETPIPE_SZ F_SETPIPE_SZ F_ADD_SEALS F_GET_SEALS F_OFD_GETLK F_OFD_SETLK
        F_OFD_SETLKW;
    GETRANDOM: GRND_NONBLOCK GRND_RANDOM;
    IOCTL: TCGETS TCSETS TIOCGWINSZ TIOCGPGRP FIONREAD FIONBIO FIOCLEX FIONCLEX FICLONE;
    MADVISE: MADV_NORMAL MADV_RANDOM MADV_SEQUENTIAL MADV_WILLNEED MADV_DONTNEED MADV_FREE
        MADV_DONTFORK MADV_DOFORK MADV_MERGEABLE MADV_UNMERGEABLE MADV_HUGEPAGE MADV_NOHUGEPAGE
        MADV_DONTDUMP MADV_DODUMP;
    /// Without the type, which is one of two values and not a bit.
    MAP: MAP_FIXED MAP_ANONYMOUS MAP_32BIT MAP_GROWSDOWN MAP_DENYWRITE MAP_LOCKED MAP_NORESERVE
        MAP_POPULATE MAP_NONBLOCK MAP_STACK MAP_HUGETLB MAP_FIXED_NOREPLACE;
    MEMFD: MFD_CLOEXEC MFD_ALLOW_SEALING MFD_HUGETLB;
    MREMAP: MREMAP_MAYMOVE MREMAP_FIXED;
    /// Without the access mode.
    OPEN: O_CREAT O_EXCL O_NOCTTY O_TRUNC O_APPEND O_NONBLOCK O_SYNC O_DSYNC O_ASYNC O_DIRECT
        O_NOFOLLOW O_NOATIME O_CLOEXEC O_PATH O_TMPFILE O_DIRECTORY;
    POLL: POLLIN POLLPRI POLLOUT POLLERR POLLHUP POLLNVAL POLLRDNORM POLLWRNORM;
    PROT: PROT_READ PROT_WRITE PROT_EXEC PROT_GROWSDOWN PROT_GROWSUP;
    PRCTL: PR_SET_PDEATHSIG PR_GET_DUMPABLE PR_SET_DUMPABLE PR_SET_NAME PR_GET_NAME
        PR_SET_NO_NEW_PRIVS PR_GET_NO_NEW_PRIVS PR_SET_TIMERSLACK PR_CAPBSET_READ PR_SET_VMA
        PR_SET_PTRACER PR_GET_SECCOMP PR_SET_SECCOMP PR_GET_KEEPCAPS PR_GET_SECUREBITS
        PR_GET_TIMERSLACK PR_GET_THP_DISABLE PR_SET_THP_DISABLE;
    RESOURCES: RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC
        RLIMIT_NOFILE RLIMIT_MEMLOCK RLIMIT_AS RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE
        RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME;
    RUSAGE: RUSAGE_SELF RUSAGE_CHILDREN RUSAGE_THREAD;
    SEEK: SEEK_SET SEEK_CUR SEEK_END SEEK_DATA SEEK_HOLE;
    SIGNAL_MASK: SIG_BLOCK SIG_UNBLOCK SIG_SETMASK;
    SOCKET_DOMAINS: AF_UNSPEC AF_UNIX AF_INET AF_NETLINK AF_INET6 AF_PACKET;
    STATX: STATX_TYPE STATX_MODE STATX_NLINK STATX_UID STATX_GID STATX_ATIME STATX_MTIME STATX_CTIME
        STATX_INO STATX_SIZE STATX_BLOCKS STATX_BTIME STATX_MNT_ID;
}

/// `AT_STATX_SYNC_AS_STAT` is zero; the other two are bits.
pub(crate) const AT_STATX: Names = &[
    (libc::AT_SYMLINK_NOFOLLOW as u64, "AT_SYMLINK_NOFOLLOW"),
    (libc::AT_NO_AUTOMOUNT as u64, "AT_NO_AUTOMOUNT"),
    (libc::AT_EMPTY_PATH as u64, "AT_EMPTY_PATH"),
    (libc::AT_STATX_FORCE_SYNC as u64, "AT_STATX_FORCE_SYNC"),
    (libc::AT_STATX_DONT_SYNC as u64, "AT_STATX_DONT_SYNC"),
];

/// `arch/x86/include/uapi/asm/prctl.h`
pub(crate) const ARCH_PRCTL: Names = &[
    (0x1001, "ARCH_SET_GS"),
    (0x1002, "ARCH_SET_FS"),
    (0x1003, "ARCH_GET_FS"),
    (0x1004, "ARCH_GET_GS"),
];

/// The flags of `sa_flags` (`asm/signal.h`); libc has no `SA_RESTORER`.
pub(crate) const ACTION: Names = &[
    (0x0400_0000, "SA_RESTORER"),
    (libc::SA_ONSTACK as u64, "SA_ONSTACK"),
    (libc::SA_RESTART as u64, "SA_RESTART"),
    (libc::SA_NODEFER as u64, "SA_NODEFER"),
    (libc::SA_RESETHAND as u64, "SA_RESETHAND"),
    (libc::SA_SIGINFO as u64, "SA_SIGINFO"),
    (libc::SA_NOCLDSTOP as u64, "SA_NOCLDSTOP"),
    (libc::SA_NOCLDWAIT as u64, "SA_NOCLDWAIT"),
];

/// Futex operations by number (`linux/futex.h`).
pub(crate) const FUTEX: [&str; 14] = [
    "FUTEX_WAIT",
    "FUTEX_WAKE",
    "FUTEX_FD",
    "FUTEX_REQUEUE",
    "FUTEX_CMP_REQUEUE",
    "FUTEX_WAKE_OP",
    "FUTEX_LOCK_PI",
    "FUTEX_UNLOCK_PI",
    "FUTEX_TRYLOCK_PI",
    "FUTEX_WAIT_BITSET",
    "FUTEX_WAKE_BITSET",
    "FUTEX_WAIT_REQUEUE_PI",
    "FUTEX_CMP_REQUEUE_PI",
    "FUTEX_LOCK_PI2",
];

/// Signals by number minus one, without `SIG`.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal's name without `SIG`.
pub(crate) fn signal(number: u64) -> String {
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    match index.and_then(|index| SIGNALS.get(index)) {
        Some(name) => (*name).to_owned(),
        None if number == 32 => "RTMIN".to_owned(),
        None => format!("RT_{}", number.saturating_sub(32)),
    }
}

/// The bits of `value`, joined; what has no name in hexadecimal.
pub(crate) fn bits(value: u64, names: Names) -> String {
    let mut left = value;
    let mut parts: Vec<String> = Vec::new();
    for (bit, name) in names {
        if *bit != 0 && left & bit == *bit {
            parts.push((*name).to_owned());
            left &= !bit;
        }
    }
    if left != 0 || parts.is_empty() {
        parts.push(if left == 0 { "0".to_owned() } else { format!("{left:#x}") });
    }
    parts.join("|")
}

/// The constant that equals `value`.
pub(crate) fn one(value: u64, names: Names, prefix: &str) -> String {
    match names.iter().find(|(known, _)| *known as u32 == value as u32) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{:#x} /* {prefix}_??? */", value as u32),
    }
}

/// `O_*` flags with their access mode first.
pub(crate) fn open(value: u64) -> String {
    let mode = match value as i32 & libc::O_ACCMODE {
        libc::O_RDONLY => "O_RDONLY",
        libc::O_WRONLY => "O_WRONLY",
        libc::O_RDWR => "O_RDWR",
        _ => "O_ACCMODE",
    };
    // The kernel's own bit, which libc has as zero.
    let large = if value & 0o100_000 != 0 { "|O_LARGEFILE" } else { "" };
    match value & !(libc::O_ACCMODE as u64 | 0o100_000) {
        0 => format!("{mode}{large}"),
        // `O_TMPFILE` has the bit of `O_DIRECTORY` in it, and `O_SYNC` that of `O_DSYNC`.
        rest => format!("{mode}{large}|{}", bits(rest & 0xffff_ffff, OPEN)),
    }
}
