//! Files, pipes, time, signals and identity.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::loader::spec::{InputChannel, ProcessSpec};
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};
use crate::outcome::Signal;

const CREATE: i32 = libc::O_CREAT | libc::O_RDWR;

impl Guest {
    fn write_text(&mut self, fd: u64, text: &str) -> i64 {
        let at = self.put(8 * PAGE, text.as_bytes());
        self.call(libc::SYS_write, [fd, at, text.len() as u64])
    }

    fn read_text(&mut self, fd: u64, len: u64) -> String {
        let at = self.scratch + 9 * PAGE;
        let done = self.ok(libc::SYS_read, [fd, at, len]);
        String::from_utf8(self.get(at, done as usize)).unwrap()
    }

    fn on_path(&mut self, nr: i64, path: &str, rest: &[u64]) -> i64 {
        let path = self.text(path);
        self.call(nr, [&[path], rest].concat())
    }
}

#[test]
fn captures_output_up_to_its_limit() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.limits.stdout_bytes = 10;
    let mut guest = Guest::load(&spec, b"");
    assert_eq!(guest.write_text(1, "hello"), 5);
    assert_eq!(guest.write_text(2, "error"), 5);
    assert_eq!(guest.process.stdout(), b"hello");
    assert_eq!(guest.process.stderr(), b"error");
    let at = guest.scratch;
    assert_eq!(guest.verdict(libc::SYS_write, [1, at, 6]), SyscallAction::OutOfMemory);
}

#[test]
fn reads_the_input_from_standard_input() {
    let mut guest = Guest::simple();
    assert_eq!(guest.read_text(0, 3), "inp");
    assert_eq!(guest.read_text(0, 100), "ut");
    assert_eq!(guest.read_text(0, 100), "");
    assert_eq!(guest.ok(libc::SYS_lseek, [0, 1, libc::SEEK_SET as u64]), 1);
    assert_eq!(guest.read_text(0, 100), "nput");
    let fd = guest.open("/dev/stdin", 0);
    assert_eq!(guest.read_text(fd, 100), "input");
}

#[test]
fn reads_the_input_from_a_file() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.input = InputChannel::File { guest: "x.bin".into() };
    let mut guest = Guest::load(&spec, b"bytes");
    assert_eq!(guest.read_text(0, 100), "", "standard input is empty");
    let fd = guest.open("x.bin", 0);
    assert_eq!(guest.read_text(fd, 100), "bytes");
    guest.process.set_input(b"others");
    assert_eq!(guest.ok(libc::SYS_lseek, [fd, 0, 2]), 6);
    assert_eq!(guest.on_path(libc::SYS_open, "x.bin", &[2]), -i64::from(libc::EACCES));
}

#[test]
fn writes_files_in_memory_with_a_limit() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.limits.file_bytes = 100;
    let mut guest = Guest::load(&spec, b"");
    let fd = guest.open("/tmp/f", CREATE);
    assert_eq!(guest.write_text(fd, "0123456789"), 10);
    assert_eq!(guest.ok(libc::SYS_lseek, [fd, 20, 0]), 20);
    assert_eq!(guest.write_text(fd, "x"), 1);
    assert_eq!(guest.ok(libc::SYS_lseek, [fd, 8, 0]), 8);
    assert_eq!(guest.read_text(fd, 100), "89\0\0\0\0\0\0\0\0\0\0x");
    guest.err(libc::SYS_ftruncate, [fd, 101], libc::ENOSPC);
    guest.ok(libc::SYS_lseek, [fd, 1 << 40, 0]);
    assert_eq!(guest.write_text(fd, "x"), -i64::from(libc::ENOSPC));
    guest.ok(libc::SYS_ftruncate, [fd, 5]);
    assert_eq!(guest.on_path(libc::SYS_unlink, "/tmp/f", &[]), 0);
    guest.ok(libc::SYS_lseek, [fd, 0, 0]);
    assert_eq!(guest.read_text(fd, 100), "01234", "open files outlive their names");
    guest.ok(libc::SYS_close, [fd]);
    let fd = guest.open("/tmp/g", CREATE);
    assert_eq!(guest.call(libc::SYS_ftruncate, [fd, 100]), 0, "closing gave the room back");
}

#[test]
fn answers_path_errors_as_linux_does() {
    let mut guest = Guest::simple();
    let cases = [
        ("", 0, libc::ENOENT),
        ("/nonexistent", 0, libc::ENOENT),
        ("/nonexistent/x", CREATE, libc::ENOENT),
        ("/bin/true/x", 0, libc::ENOTDIR),
        ("/bin/true/", 0, libc::ENOTDIR),
        ("/bin/true", libc::O_DIRECTORY, libc::ENOTDIR),
        ("/bin/true", libc::O_WRONLY, libc::EACCES),
        ("/bin/true", libc::O_CREAT | libc::O_EXCL, libc::EEXIST),
        ("/new", CREATE, libc::EACCES),
        ("/tmp", libc::O_RDWR, libc::EISDIR),
        ("/tmp/new/", CREATE, libc::EISDIR),
        ("/proc/self/exe", libc::O_NOFOLLOW, libc::ELOOP),
        ("/proc/self/fd/77", 0, libc::ENOENT),
    ];
    for (path, flags, errno) in cases {
        let found = guest.on_path(libc::SYS_open, path, &[flags as u64, 0o644]);
        assert_eq!(found, -i64::from(errno), "{path}");
    }
    let long = "x".repeat(300);
    assert_eq!(guest.on_path(libc::SYS_open, &long, &[0]), -i64::from(libc::ENAMETOOLONG));
    let endless = guest.put(0, &[b'/'; 5000]);
    guest.err(libc::SYS_open, [endless, 0], libc::ENAMETOOLONG);
    guest.err(libc::SYS_open, [NOWHERE, 0], libc::EFAULT);
    let path = guest.put(0, b"/tmp/loop\0");
    guest.ok(libc::SYS_symlink, [path, path]);
    guest.err(libc::SYS_open, [path, 0], libc::ELOOP);
}

#[test]
fn keeps_directories() {
    let mut guest = Guest::simple();
    assert_eq!(guest.on_path(libc::SYS_mkdir, "/tmp/d", &[0o755]), 0);
    assert_eq!(guest.on_path(libc::SYS_mkdir, "/tmp/d", &[0o755]), -i64::from(libc::EEXIST));
    assert_eq!(guest.on_path(libc::SYS_chdir, "/tmp/d", &[]), 0);
    let fd = guest.open("inner", CREATE);
    guest.ok(libc::SYS_close, [fd]);
    let out = guest.scratch + 4 * PAGE;
    assert_eq!(guest.ok(libc::SYS_getcwd, [out, 100]), 7);
    assert_eq!(guest.get(out, 7), b"/tmp/d\0");
    guest.err(libc::SYS_getcwd, [out, 6], libc::ERANGE);
    let fd = guest.open(".", libc::O_DIRECTORY);
    let len = guest.ok(libc::SYS_getdents64, [fd, out, 1000]);
    assert_eq!(len, 24 + 24 + 32);
    assert_eq!(guest.get(out + 48 + 19, 6), b"inner\0");
    assert_eq!(guest.ok(libc::SYS_getdents64, [fd, out, 1000]), 0);
    assert_eq!(guest.on_path(libc::SYS_rmdir, "/tmp/d", &[]), -i64::from(libc::ENOTEMPTY));
    let (old, new) = (guest.put(0, b"inner\0"), guest.put(100, b"../moved\0"));
    guest.ok(libc::SYS_rename, [old, new]);
    assert_eq!(guest.on_path(libc::SYS_access, "/tmp/moved", &[0]), 0);
}

#[test]
fn shares_offsets_between_duplicates() {
    let mut guest = Guest::simple();
    assert_eq!(guest.ok(libc::SYS_dup, [0]), 3);
    assert_eq!(guest.ok(libc::SYS_dup2, [0, 9]), 9);
    assert_eq!(guest.read_text(3, 2), "in");
    assert_eq!(guest.read_text(9, 2), "pu");
    guest.err(libc::SYS_dup2, [0, 5000], libc::EBADF);
    guest.err(libc::SYS_dup3, [0, 0, 0], libc::EINVAL);
    assert_eq!(guest.ok(libc::SYS_fcntl, [0, libc::F_DUPFD_CLOEXEC as u64, 5]), 5);
    assert_eq!(guest.ok(libc::SYS_fcntl, [5, libc::F_GETFD as u64]), 1);
    guest.ok(libc::SYS_close, [0]);
    guest.err(libc::SYS_close, [0], libc::EBADF);
    assert_eq!(guest.read_text(5, 2), "t");
}

#[test]
fn limits_open_files() {
    let mut guest = Guest::simple();
    for fd in 3..1024 {
        assert_eq!(guest.ok(libc::SYS_dup, [0]), fd);
    }
    guest.err(libc::SYS_dup, [0], libc::EMFILE);
    let out = guest.scratch;
    guest.err(libc::SYS_pipe, [out], libc::EMFILE);
}

#[test]
fn tells_files_apart_by_stat() {
    let mut guest = Guest::simple();
    let out = guest.scratch + 4 * PAGE;
    let mut mode_and_size = |fd: u64| {
        guest.ok(libc::SYS_fstat, [fd, out]);
        (guest.word(out + 24) as u32 & libc::S_IFMT, guest.word(out + 48))
    };
    assert_eq!(mode_and_size(0), (libc::S_IFREG, 5));
    assert_eq!(mode_and_size(1), (libc::S_IFIFO, 0));
    assert_eq!(mode_and_size(2), (libc::S_IFIFO, 0));
    guest.err(libc::SYS_fstat, [0, NOWHERE], libc::EFAULT);
    guest.err(libc::SYS_fstat, [9, out], libc::EBADF);
    guest.err(libc::SYS_ioctl, [1, libc::TCGETS, out], libc::ENOTTY);
    let empty = guest.text("");
    guest.ok(libc::SYS_statx, [0, empty, libc::AT_EMPTY_PATH as u64, 0xfff, out]);
    assert_eq!(guest.word(out + 40), 5);
}

#[test]
fn transfers_vectors() {
    let mut guest = Guest::simple();
    let (first, second) = (guest.scratch + PAGE, guest.scratch + 2 * PAGE);
    let mut parts = Vec::new();
    for word in [first, 2, second, 100] {
        parts.extend(word.to_le_bytes());
    }
    let vector = guest.put(0, &parts);
    assert_eq!(guest.ok(libc::SYS_readv, [0, vector, 2]), 5);
    assert_eq!((guest.get(first, 2), guest.get(second, 3)), (b"in".to_vec(), b"put".to_vec()));
    assert_eq!(guest.ok(libc::SYS_writev, [1, vector, 1]), 2);
    assert_eq!(guest.process.stdout(), b"in");
    guest.err(libc::SYS_writev, [1, vector, 1025], libc::EINVAL);
    guest.put(8, &u64::MAX.to_le_bytes());
    guest.err(libc::SYS_writev, [1, vector, 1], libc::EINVAL);
    guest.err(libc::SYS_writev, [1, NOWHERE, 1], libc::EFAULT);
}

#[test]
fn writes_what_lies_before_a_bad_page() {
    let mut guest = Guest::simple();
    let end = guest.scratch + 16 * PAGE;
    guest.ok(libc::SYS_munmap, [end - PAGE, PAGE]);
    assert_eq!(guest.ok(libc::SYS_write, [1, end - PAGE - 10, 100]), 10);
    assert_eq!(guest.process.stdout(), [0; 10]);
    guest.err(libc::SYS_write, [1, end - PAGE, 100], libc::EFAULT);
    guest.err(libc::SYS_write, [1, u64::MAX, 100], libc::EFAULT);
    guest.err(libc::SYS_write, [1, 0x7f00_0000_0000, 1], libc::EFAULT);
}

#[test]
fn pipes_bytes_to_itself_and_says_when_it_would_wait_for_ever() {
    let mut guest = Guest::simple();
    let out = guest.scratch;
    guest.ok(libc::SYS_pipe2, [out, 0]);
    assert_eq!(guest.word(out), 3 | 4 << 32);
    assert_eq!(guest.write_text(4, "through"), 7);
    assert_eq!(guest.read_text(3, 100), "through");
    let part = guest.put(64, &[out.to_le_bytes(), 1u64.to_le_bytes()].concat());
    let nowait = libc::RWF_NOWAIT as u64;
    guest.err(libc::SYS_preadv2, [3, part, 1, u64::MAX, 0, nowait], libc::EAGAIN);
    assert_eq!(guest.verdict(libc::SYS_read, [3, out, 1]), SyscallAction::Hang);
    guest.ok(libc::SYS_close, [4]);
    assert_eq!(guest.read_text(3, 100), "");
    guest.ok(libc::SYS_pipe2, [out, libc::O_NONBLOCK as u64]);
    guest.err(libc::SYS_read, [4, out, 1], libc::EAGAIN);
    guest.ok(libc::SYS_close, [4]);
    assert_eq!(guest.verdict(libc::SYS_write, [5, out, 1]), SyscallAction::Signal(Signal(13)));
}

#[test]
fn has_a_clock_of_its_own() {
    let mut guest = Guest::simple();
    let out = guest.scratch;
    guest.ok(libc::SYS_clock_gettime, [1, out]);
    let before = (guest.word(out), guest.word(out + 8));
    guest.put(64, &3600u64.to_le_bytes());
    guest.ok(libc::SYS_nanosleep, [out + 64, 0]);
    guest.ok(libc::SYS_clock_gettime, [1, out]);
    assert_eq!(guest.word(out), before.0 + 3600);
    assert!(guest.word(out + 8) > before.1);
    guest.err(libc::SYS_clock_gettime, [99, out], libc::EINVAL);
}

#[test]
fn gives_the_same_random_bytes_for_the_same_seed() {
    let mut random = Vec::new();
    for seed in [1, 1, 2] {
        let mut spec = ProcessSpec::new("/bin/true");
        spec.seed = seed;
        let mut guest = Guest::load(&spec, b"");
        let out = guest.scratch;
        assert_eq!(guest.ok(libc::SYS_getrandom, [out, 100, 0]), 100);
        random.push(guest.get(out, 100));
    }
    assert_eq!(random[0], random[1]);
    assert_ne!(random[0], random[2]);
}

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

#[test]
fn remembers_calls_it_does_not_have() {
    let mut guest = Guest::simple();
    guest.err(libc::SYS_io_uring_setup, [1, 0], libc::ENOSYS);
    guest.err(libc::SYS_io_uring_setup, [1, 0], libc::ENOSYS);
    guest.err(9999, [], libc::ENOSYS);
    assert_eq!(guest.process.unsupported_calls(), ["io_uring_setup", "syscall_9999"]);
}

#[test]
fn has_no_capabilities_and_gains_none() {
    let mut guest = Guest::simple();
    let (header, sets) = (guest.scratch, guest.scratch + 64);
    let mut ask = |nr, version: u32, thread: u32, wanted: &[u32]| {
        let words = [&[version, thread], wanted].concat();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        guest.put(0, &bytes[..8]);
        guest.put(64, &[&bytes[8..], &[0xff; 24][bytes.len() - 8..]].concat());
        let answer = guest.call(nr, [header, sets]);
        (answer, guest.get(header, 4), guest.get(sets, 24))
    };
    const VERSION_1: u32 = 0x1998_0330;
    const VERSION_3: u32 = 0x2008_0522;
    let einval = -i64::from(libc::EINVAL);
    let (answer, version, _) = ask(libc::SYS_capget, 0, 0, &[]);
    assert_eq!((answer, version), (einval, VERSION_3.to_le_bytes().to_vec()));
    assert_eq!(ask(libc::SYS_capget, VERSION_3, 1000, &[]).2, [0; 24]);
    let (answer, _, of_32) = ask(libc::SYS_capget, VERSION_1, 0, &[]);
    assert_eq!((answer, &of_32[..12], &of_32[12..]), (0, &[0; 12][..], &[0xff; 12][..]));
    assert_eq!(ask(libc::SYS_capget, VERSION_3, 7, &[]).0, -i64::from(libc::ESRCH));
    assert_eq!(ask(libc::SYS_capget, VERSION_3, u32::MAX, &[]).0, einval);

    let eperm = -i64::from(libc::EPERM);
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 0, &[0; 6]).0, 0);
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 0, &[0, 1, 0, 0, 0, 0]).0, eperm);
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 0, &[0, 0, 0, 0, 1 << 8, 0]).0, eperm);
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 0, &[0, 0, 0, 0, 1 << 9, 0]).0, 0, "unknown");
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 999, &[0; 6]).0, eperm);

    let bounding = libc::PR_CAPBSET_READ as u64;
    assert_eq!(guest.ok(libc::SYS_prctl, [bounding, 40]), 1);
    guest.err(libc::SYS_prctl, [bounding, 41], libc::EINVAL);
    guest.ok(libc::SYS_capget, [header, 0]);
}

#[test]
fn sets_the_fs_base() {
    let mut guest = Guest::simple();
    guest.ok(libc::SYS_arch_prctl, [0x1002, 0x1234]);
    assert_eq!(guest.cpu.bases, [0x1234, 0]);
    guest.err(libc::SYS_arch_prctl, [0x1002, 1 << 47], libc::EPERM);
    let out = guest.scratch;
    guest.ok(libc::SYS_arch_prctl, [0x1003, out]);
    assert_eq!(guest.word(out), 0x1234);
}
