//! System calls as `strace` prints them: one line for each, with names for flags, strings and
//! structures.
//!
//! A line is made of a call, its answer and the memory as it is then; making it changes nothing
//! that the process could notice. Never decides what a call does.

mod errors;
mod flags;
mod signals;
mod signature;
mod values;

pub(crate) use signals::end;

use crate::linux::abi::syscall::{SyscallAction, SystemCall};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::signal::siginfo::SigInfo;
use signature::{Arg, Result as Shown};
use values::{Values, pointer};

/// Bytes of a trace; what comes after them is not kept.
const TRACE_BYTES_MAX: usize = 64 << 20;
/// Column of the equals sign before a result.
const RESULT_COLUMN: usize = 40;
/// Highest error number (`MAX_ERRNO`).
const ERROR_MAX: u64 = 4095;

/// The lines so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    text: String,
    /// Lines that come after the next call's.
    deferred: String,
}

impl Trace {
    /// A trace that begins with the call that started the program, of which the stack is at `rsp`.
    pub(crate) fn new(argv: &[std::ffi::OsString], env: usize, rsp: u64) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        let quoted = |text: &std::ffi::OsString| values::quoted(text.as_bytes());
        let program = argv.first().map(quoted).unwrap_or_default();
        let all: Vec<String> = argv.iter().map(quoted).collect();
        // After the arguments' number, their pointers and a null one.
        let env_at = rsp.saturating_add(8 * (argv.len() as u64 + 2));
        let all = all.join(", ");
        let call = format!("execve({program}, [{all}], {env_at:#x} /* {env} vars */)");
        let mut trace = Self::default();
        trace.line(&result(call, "0"));
        trace
    }

    /// The lines.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Adds the line of a call that was answered.
    ///
    /// `thread` is whose call it was, where there are several.
    pub(crate) fn add(
        &mut self,
        thread: Option<u64>,
        call: &SystemCall,
        verdict: &SyscallAction,
        mem: &dyn UserMemory,
    ) {
        self.line(&format!("{}{}", prefix(thread), line(call, verdict, mem)));
        self.text.push_str(&std::mem::take(&mut self.deferred));
    }

    /// Adds the line of a signal that is taken.
    pub(crate) fn add_signal(&mut self, thread: Option<u64>, info: &SigInfo) {
        self.line(&format!("{}{}", prefix(thread), signals::line(info)));
    }

    /// Adds the line of a signal that comes to nothing, after that of the call that is being made.
    pub(crate) fn add_ignored(&mut self, thread: Option<u64>, info: &SigInfo) {
        let line = format!("{}{}\n", prefix(thread), signals::line(info));
        if self.has_room(&line) {
            self.deferred.push_str(&line);
        }
    }

    /// Has what is in the text from byte `from` on come after the call that is being made.
    pub(crate) fn defer(&mut self, from: usize) {
        let lines = self.text.split_off(from);
        self.deferred.push_str(&lines);
    }

    fn line(&mut self, line: &str) {
        if self.has_room(line) {
            self.text.push_str(line);
            self.text.push('\n');
        }
    }

    fn has_room(&self, line: &str) -> bool {
        self.text.len() + self.deferred.len() + line.len() < TRACE_BYTES_MAX
    }
}

/// `[pid N] ` before a line, where there are several threads.
fn prefix(thread: Option<u64>) -> String {
    thread.map(|id| format!("[pid {id}] ")).unwrap_or_default()
}

/// `call = shown`, with the result in its column.
fn result(call: String, shown: &str) -> String {
    format!("{call:<width$}= {shown}", width = RESULT_COLUMN.max(call.chars().count() + 1))
}

/// One line.
fn line(call: &SystemCall, verdict: &SyscallAction, mem: &dyn UserMemory) -> String {
    let value = match verdict {
        SyscallAction::Return(value) => Some(*value),
        SyscallAction::Signal(_) => Some(0),
        _ => None,
    };
    let failed = value.is_some_and(|value| value.wrapping_neg().wrapping_sub(1) < ERROR_MAX);
    let done = value.filter(|_| !failed);
    let (arguments, shown) = match signature::of(call.nr) {
        Some((arguments, shown)) => (written(call, arguments, done, mem), shown),
        None => (call.args.map(|arg| format!("{arg:#x}")).join(", "), Shown::Number),
    };
    let text = format!("{}({arguments})", call.name());
    let value = match value {
        None => "?".to_owned(),
        Some(error) if failed => errors::text(error.wrapping_neg() as u16),
        Some(value) => succeeded(call, shown, value, mem),
    };
    result(text, &value)
}

fn succeeded(call: &SystemCall, shown: Shown, value: u64, mem: &dyn UserMemory) -> String {
    let [first, second, ..] = call.args;
    match shown {
        Shown::Address => format!("{value:#x}"),
        Shown::Octal => format!("0{value:o}"),
        Shown::Ready if value == 0 => "0 (Timeout)".to_owned(),
        Shown::Ready => format!("{value} ({})", Values(mem).polled(first, second, true)),
        Shown::FileFlags => match second as i32 {
            libc::F_GETFL => format!("{value:#x} (flags {})", flags::open(value)),
            libc::F_GETFD if value != 0 => {
                format!("{value:#x} (flags {})", flags::bits(value, flags::DESCRIPTOR_FLAGS))
            }
            _ => value.to_string(),
        },
        Shown::Number => (value as i64).to_string(),
    }
}

/// The arguments of `call`; `done` is its result if it succeeded.
fn written(call: &SystemCall, kinds: &[Arg], done: Option<u64>, mem: &dyn UserMemory) -> String {
    let mut parts = Vec::with_capacity(kinds.len());
    for (i, kind) in kinds.iter().enumerate() {
        if let Some(text) = argument(call, i, *kind, done, mem) {
            parts.push(text);
        }
    }
    parts.join(", ")
}

/// One argument; `None` for one that the call does not take here.
fn argument(
    call: &SystemCall,
    index: usize,
    kind: Arg,
    done: Option<u64>,
    mem: &dyn UserMemory,
) -> Option<String> {
    let at = |index: usize| call.args.get(index).copied().unwrap_or(0);
    let value = at(index);
    let values = Values(mem);
    // What a call that failed would have written is not there.
    let output = |show: &dyn Fn(u64) -> String| done.map_or_else(|| pointer(value), show);
    Some(match kind {
        Arg::Int | Arg::Fd => (value as i32).to_string(),
        Arg::DirFd if value as i32 == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
        Arg::DirFd => (value as i32).to_string(),
        Arg::Long => (value as i64).to_string(),
        Arg::Unsigned => value.to_string(),
        Arg::Unsigned32 => (value as u32).to_string(),
        Arg::Octal => format!("0{value:o}"),
        Arg::Hex | Arg::MapOffset if value == 0 => "0".to_owned(),
        Arg::Hex | Arg::MapOffset => format!("{value:#x}"),
        Arg::Hex32 => return futex_takes_more(call).then(|| format!("{:#x}", value as u32)),
        Arg::Pointer => match call.nr as i64 {
            libc::SYS_futex if index > 2 && !futex_takes_more(call) && !futex_waits(call) => {
                return None;
            }
            libc::SYS_futex if index > 3 && !futex_takes_more(call) => return None,
            libc::SYS_mremap if at(3) & libc::MREMAP_FIXED as u64 == 0 => return None,
            libc::SYS_prctl if at(0) as i32 == libc::PR_SET_NAME => values.path(value),
            _ => pointer(value),
        },
        Arg::Path => values.path(value),
        Arg::Input(len) => values.buffer(value, at(len)),
        Arg::Output => output(&|len| values.buffer(value, len)),
        Arg::Random => output(&|len| values.random(value, len)),
        Arg::Text => output(&|_| values.path(value)),
        Arg::Bits(names) => flags::bits(value & 0xffff_ffff, names),
        Arg::One(names, prefix) => flags::one(value, names, prefix),
        Arg::AccessMode if value == 0 => "F_OK".to_owned(),
        Arg::AccessMode => flags::bits(value, flags::ACCESS),
        Arg::StatxFlags => match value & !(libc::AT_STATX_SYNC_TYPE as u64) {
            0 if value == 0 => "AT_STATX_SYNC_AS_STAT".to_owned(),
            rest if rest == value => {
                format!("AT_STATX_SYNC_AS_STAT|{}", flags::bits(value, flags::AT_STATX))
            }
            _ => flags::bits(value, flags::AT_STATX),
        },
        Arg::OpenFlags => flags::open(value),
        Arg::CreateMode => {
            let flags = at(index.wrapping_sub(1)) as i32;
            let creates = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
            return creates.then(|| format!("0{:o}", value & 0o7777));
        }
        Arg::Prot if value == 0 => "PROT_NONE".to_owned(),
        Arg::Prot => flags::bits(value, flags::PROT),
        Arg::MapFlags => map_flags(value),
        Arg::Futex => futex(value),
        Arg::Signal => match value as u32 {
            0 => "0".to_owned(),
            number => format!("SIG{}", flags::signal(u64::from(number))),
        },
        Arg::SignalSet if index > 1 => output(&|_| values.signals(value)),
        Arg::SignalSet => values.signals(value),
        Arg::Action if index > 1 => output(&|_| values.action(value)),
        Arg::Action => values.action(value),
        Arg::Stat => output(&|_| values.stat(value)),
        Arg::Statx => output(&|_| values.statx(value)),
        Arg::Timespec => values.pair(value, "tv_sec", "tv_nsec"),
        Arg::Timeval => values.pair(value, "tv_sec", "tv_usec"),
        Arg::Limit if index == 3 => output(&|_| values.limit(value)),
        Arg::Limit => values.limit(value),
        Arg::Parts(reads) => {
            let count = u64::from(at(index + 1) as u32);
            match (reads, done) {
                (true, None) => pointer(value),
                (true, done) => values.parts(value, count, done),
                (false, _) => values.parts(value, count, None),
            }
        }
        Arg::Descriptors => output(&|_| values.descriptors(value)),
        Arg::Polled => values.polled(value, at(index + 1), false),
        Arg::Uname => output(&|_| values.uname(value)),
        Arg::Entries => output(&|len| values.entries(value, len)),
        Arg::Fcntl => return fcntl_argument(at(1), value),
    })
}

fn map_flags(value: u64) -> String {
    let kind = match value & 0xf {
        1 => "MAP_SHARED",
        2 => "MAP_PRIVATE",
        3 => "MAP_SHARED_VALIDATE",
        _ => "0",
    };
    match value & !0xf {
        rest if rest == 0 && value & 0x10 == 0 => kind.to_owned(),
        rest => format!("{kind}|{}", flags::bits(rest, flags::MAP)),
    }
}

fn futex(value: u64) -> String {
    let operation = value as i32 & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    let name = usize::try_from(operation).ok().and_then(|operation| flags::FUTEX.get(operation));
    let mut text = name.map_or_else(|| format!("{operation:#x}"), |name| (*name).to_owned());
    if value as i32 & libc::FUTEX_PRIVATE_FLAG != 0 {
        text.push_str("_PRIVATE");
    }
    if value as i32 & libc::FUTEX_CLOCK_REALTIME != 0 {
        text.push_str("|FUTEX_CLOCK_REALTIME");
    }
    text
}

/// Whether a futex call has a timeout.
fn futex_waits(call: &SystemCall) -> bool {
    matches!(call.args[1] & 0x7f, 0 | 6 | 9 | 11)
}

/// Whether a futex call has its last two arguments too.
fn futex_takes_more(call: &SystemCall) -> bool {
    matches!(call.args[1] & 0x7f, 3 | 4 | 5 | 9 | 11 | 12)
}

fn fcntl_argument(command: u64, value: u64) -> Option<String> {
    Some(match command as i32 {
        libc::F_GETFD | libc::F_GETFL | libc::F_GETOWN | libc::F_GETPIPE_SZ => return None,
        libc::F_SETFD => flags::bits(value, flags::DESCRIPTOR_FLAGS),
        libc::F_SETFL => flags::open(value),
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => (value as i32).to_string(),
        _ => pointer(value),
    })
}

#[cfg(test)]
mod tests;
