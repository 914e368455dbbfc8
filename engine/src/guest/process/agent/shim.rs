//! What the shim in the guest knows of the process, and back: the process's state as a few words,
//! and what became of them.
//!
//! Never touches guest memory. What the shim does with the words is in `code`.

use super::layout::memo::OFF;
use super::layout::{facts, shim};
use crate::linux::abi::errno::Errno;
use crate::linux::abi::fd::Fd;
use crate::linux::fs::files::Output;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::NodeId;
use crate::linux::process::Process;
use crate::linux::process::settings::CALL_NS;
use crate::linux::syscalls::open::locate;

/// The shim leaves the descriptor to the host.
pub(super) const HOST: u64 = 0;
/// The input, readable.
pub(super) const INPUT: u64 = 1;
/// Standard output.
pub(super) const STDOUT: u64 = 2;
/// Standard error.
pub(super) const STDERR: u64 = 3;
/// Not in use: the next one that is opened, if it is the lowest.
pub(super) const FREE: u64 = 4;
/// How far beside a kind the flags are that the descriptor was opened with.
pub(super) const FLAGS_SHIFT: u32 = 32;
/// Flags that the shim can give a descriptor of the input's; none of them changes what reading gives.
pub(super) const FLAGS: i32 = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;

/// The kind alone.
pub(super) const fn base(kind: u64) -> u64 {
    kind & u32::MAX as u64
}

/// Bytes of output that the shim counts in one run before it leaves writing to the host.
pub(super) const OUTPUT_MAX: u64 = 1 << 16;

/// Length of a structure that tells about a file, and where in it the size and the number of
/// 512-byte blocks are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) bytes: u64,
    pub(super) size_at: u64,
    pub(super) blocks_at: u64,
}

/// `struct stat`.
pub(super) const STAT: Told = Told { bytes: 144, size_at: 48, blocks_at: 64 };
/// `struct statx`.
pub(super) const STATX: Told = Told { bytes: 256, size_at: 40, blocks_at: 48 };

/// The shim's memory.
pub(super) type Words = [u64; (shim::BYTES / 8) as usize];

pub(super) const fn word(offset: u64) -> usize {
    (offset / 8) as usize
}

/// The sum that the shim's memory must have.
fn sum(words: &Words, cookie: u64) -> u64 {
    let all = words.iter().fold(cookie, |sum, word| sum.wrapping_add(*word));
    all.wrapping_sub(words[word(shim::SUM)])
}

/// Whether only the shim has written to its memory.
pub(super) fn is_whole(words: &Words, cookie: u64) -> bool {
    words[word(shim::SUM)] == sum(words, cookie)
}

/// The shim's memory `words` with `memo`'s state `state` in place of its own.
pub(super) fn in_state(words: &Words, state: u64, cookie: u64) -> Words {
    let mut words = *words;
    words[word(shim::MEMO)] = state;
    words[word(shim::SUM)] = sum(&words, cookie);
    words
}

/// The process as the shim may see it, in `memo`'s state `state`, with the age of its last new mapping;
/// `input_as_told` when what the shim tells about the input is true.
pub(super) fn export(
    process: &Process,
    cookie: u64,
    input_as_told: bool,
    (state, fresh): (u64, u64),
) -> Words {
    if process.counts_calls() {
        return nothing(cookie);
    }
    let mut words = [0; (shim::BYTES / 8) as usize];
    for fd in 0..shim::FDS_MAX {
        let (kind, position) = match descriptor(process, fd) {
            (kind, _) if base(kind) == INPUT && !input_as_told => (HOST, 0),
            known => known,
        };
        let at = word(shim::FDS + fd * 16);
        (words[at], words[at + 1]) = (kind, position);
    }
    if input_as_told {
        words[word(shim::PATH)] = path(process).map_or(0, |path| path.len() as u64 + 1);
    }
    (words[word(shim::MEMO)], words[word(shim::FRESH)]) = (state, fresh);
    let clock = process.scalars.clock_ns;
    words[word(shim::CLOCK)] = clock;
    words[word(shim::IDLE)] = clock.saturating_sub(process.scalars.busy_ns());
    words[word(shim::SUM)] = sum(&words, cookie);
    words
}

/// A shim that serves nothing but the end of a run.
pub(super) fn nothing(cookie: u64) -> Words {
    let mut words = [HOST; (shim::BYTES / 8) as usize];
    words[word(shim::MEMO)] = OFF;
    // Past its end: the shim's clock goes to the host.
    words[word(shim::CLOCK)] = u64::MAX;
    words[word(shim::SUM)] = sum(&words, cookie);
    words
}

/// The input's path, if it is one that the shim can know and that leads to the input.
pub(super) fn path(process: &Process) -> Option<Vec<u8>> {
    let path = process.files.tree.path_of(NodeId::INPUT)?;
    let leads_there = locate(&process.files, Fd::CWD, &path, 0) == Ok(Target::Node(NodeId::INPUT));
    (leads_there && (path.len() as u64) < facts::PATH_BYTES).then_some(path)
}

fn descriptor(process: &Process, number: u64) -> (u64, u64) {
    let table = &process.files.table;
    let fd = Fd::from_register(number);
    let Ok(open) = table.get(fd) else {
        let may_be_used = number < table.descriptors_max() as u64;
        return (if may_be_used { FREE } else { HOST }, 0);
    };
    let has_room = |output: &Output| output.room() >= OUTPUT_MAX;
    let close_on_exec = table.is_close_on_exec(fd).unwrap_or(false);
    match open.target {
        // Descriptors that share a position are the host's, and so are those with flags that the
        // shim could not give them.
        Target::Node(NodeId::INPUT) if open.flags & !FLAGS == 0 && open.references == 1 => {
            let flags = open.flags | if close_on_exec { libc::O_CLOEXEC } else { 0 };
            (INPUT | u64::from(flags.cast_unsigned()) << FLAGS_SHIFT, open.offset)
        }
        Target::Stdout if open.may_write() && has_room(&process.files.stdout) => (STDOUT, 0),
        Target::Stderr if open.may_write() && has_room(&process.files.stderr) => (STDERR, 0),
        _ => (HOST, 0),
    }
}

/// Does to `process` what the shim says it has done since `then` was exported, but for `made` calls
/// that the process has made.
///
/// # Errors
/// It cannot have been so: the shim closes what is open, and opens what is free. Somebody else wrote
/// to its memory then, and to the sum over it.
pub(super) fn import(
    process: &mut Process,
    words: &Words,
    then: &Words,
    made: u64,
) -> Result<(), Errno> {
    let calls = words[word(shim::CALLS)].saturating_sub(made);
    process.scalars.advance(calls.saturating_mul(CALL_NS));
    let outputs = [words[word(shim::OUTPUT)], words[word(shim::OUTPUT + 8)]];
    for (bytes, is_error) in outputs.into_iter().zip([false, true]) {
        if bytes > 0 {
            // Nothing can read them back: how many there were is all that the rest of the run
            // can notice, by the limit.
            let files = &mut process.files;
            let output = if is_error { &mut files.stderr } else { &mut files.stdout };
            output.append_unknown(bytes.min(OUTPUT_MAX));
        }
    }
    apply_descriptors(process, words, then)
}

/// Gives `process` the descriptors of `words`, those of `then` being what it has.
///
/// # Errors
/// As [`import`].
pub(super) fn apply_descriptors(
    process: &mut Process,
    words: &Words,
    then: &Words,
) -> Result<(), Errno> {
    let changed = |fd: &u64| {
        let at = word(shim::FDS + fd * 16);
        words[at..at + 2] != then[at..at + 2]
    };
    for number in (0..shim::FDS_MAX).filter(changed) {
        let (fd, at) = (Fd::from_register(number), word(shim::FDS + number * 16));
        if words[at] == then[at] {
            process.files.table.get_mut(fd)?.offset = words[at + 1];
            continue;
        }
        let was_open = base(then[at]) != FREE;
        if was_open {
            process.files.close(fd)?;
        }
        if base(words[at]) == INPUT {
            open_input(process, fd, (words[at] >> FLAGS_SHIFT) as i32 & FLAGS, words[at + 1])?;
        }
    }
    Ok(())
}

/// Opens the input as descriptor `fd`, which is free.
fn open_input(process: &mut Process, fd: Fd, flags: i32, offset: u64) -> Result<(), Errno> {
    let table = &mut process.files.table;
    let close_on_exec = flags & libc::O_CLOEXEC != 0;
    let lowest = table.open(Target::Node(NodeId::INPUT), flags)?;
    if lowest != fd {
        table.duplicate_to(lowest, fd, close_on_exec)?;
        table.close(lowest)?;
    }
    table.get_mut(fd)?.offset = offset;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::tests::mock::Guest;

    /// Beside a kind.
    const CLOEXEC: u64 = (libc::O_CLOEXEC as u64) << FLAGS_SHIFT;

    #[test]
    fn what_the_shim_did_is_done_to_the_process() {
        let mut process = Guest::simple().process;
        let then = export(&process, 7, true, (0, 0));
        assert_eq!(then[word(shim::FDS)], INPUT, "standard input is the input");
        assert_eq!(then[word(shim::FDS + 16)], STDOUT);
        assert_eq!(then[word(shim::FDS + 3 * 16)], FREE, "not open");
        assert!(is_whole(&then, 7) && !is_whole(&then, 8));
        let mut words = then;
        words[word(shim::CALLS)] = 3;
        words[word(shim::OUTPUT)] = 5;
        words[word(shim::FDS) + 1] = 4;
        words[word(shim::FDS + 2 * 16)] = FREE;
        words[word(shim::FDS + 4 * 16)] = INPUT | CLOEXEC;
        words[word(shim::FDS + 4 * 16) + 1] = 2;
        assert!(!is_whole(&words, 7));
        let clock = process.scalars.clock_ns;
        import(&mut process, &words, &then, 0).unwrap();
        assert_eq!(process.scalars.clock_ns, clock + 3 * CALL_NS);
        assert_eq!(process.stdout().len(), 5);
        assert_eq!(process.files.table.get(Fd::from_register(0)).unwrap().offset, 4);
        assert!(process.files.table.get(Fd::from_register(2)).is_err());
        assert!(process.files.table.get(Fd::from_register(3)).is_err(), "only 4 was opened");
        assert!(process.files.table.is_close_on_exec(Fd::from_register(4)).unwrap());
        let after = export(&process, 7, true, (0, 0));
        assert_eq!(after[word(shim::FDS + 4 * 16)], INPUT | CLOEXEC);
        assert_eq!(after[word(shim::FDS + 4 * 16) + 1], 2);
        assert_eq!(after[word(shim::FDS) + 1], 4);
        assert_eq!(after[word(shim::CALLS)], 0);
    }
}
