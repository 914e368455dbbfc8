//! What the shim in the guest knows of the process, and back: the process's state as a few words,
//! and what became of them.
//!
//! Never touches guest memory. What the shim does with the words is in `code`.

use super::super::Process;
use super::super::files::{NodeId, Output, Target};
use super::layout::shim;

/// The shim leaves the descriptor to the host.
pub(super) const HOST: u64 = 0;
/// The input, readable.
pub(super) const INPUT: u64 = 1;
/// Standard output.
pub(super) const STDOUT: u64 = 2;
/// Standard error.
pub(super) const STDERR: u64 = 3;
/// Closed by the shim.
pub(super) const CLOSED: u64 = 4;

/// Bytes of output that the shim counts in one run before it leaves writing to the host.
pub(super) const OUTPUT_MAX: u64 = 1 << 16;

/// Length of `struct stat`, and where in it the size and the number of 512-byte blocks are.
pub(super) const STAT_BYTES: u64 = 144;
pub(super) const STAT_SIZE_AT: u64 = 48;
pub(super) const STAT_BLOCKS_AT: u64 = 64;

/// The shim's memory.
pub(super) type Words = [u64; (shim::BYTES / 8) as usize];

const fn word(offset: u64) -> usize {
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

/// The process as the shim may see it.
pub(super) fn export(process: &Process, cookie: u64) -> Words {
    let mut words = [0; (shim::BYTES / 8) as usize];
    for fd in 0..shim::FDS_MAX {
        let (kind, position) = descriptor(process, fd);
        let at = word(shim::FDS + fd * 16);
        (words[at], words[at + 1]) = (kind, position);
    }
    words[word(shim::SUM)] = sum(&words, cookie);
    words
}

/// A shim that serves nothing but the end of a run.
pub(super) fn nothing(cookie: u64) -> Words {
    let mut words = [HOST; (shim::BYTES / 8) as usize];
    words[word(shim::SUM)] = cookie;
    words
}

fn descriptor(process: &Process, fd: u64) -> (u64, u64) {
    let Ok(open) = process.files.table.get(fd) else { return (HOST, 0) };
    let has_room = |output: &Output| output.room() >= OUTPUT_MAX;
    match open.target {
        // Descriptors that share a position are the host's.
        Target::Node(NodeId::INPUT) if open.may_read() && open.references == 1 => {
            (INPUT, open.offset)
        }
        Target::Stdout if open.may_write() && has_room(&process.files.stdout) => (STDOUT, 0),
        Target::Stderr if open.may_write() && has_room(&process.files.stderr) => (STDERR, 0),
        _ => (HOST, 0),
    }
}

/// Does to `process` what the shim says it has done since `then` was exported.
pub(super) fn import(process: &mut Process, words: &Words, then: &Words) {
    process.scalars.advance(words[word(shim::CALLS)].saturating_mul(super::super::calls::CALL_NS));
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
    for fd in 0..shim::FDS_MAX {
        let at = word(shim::FDS + fd * 16);
        if words[at] == CLOSED && then[at] != CLOSED {
            // The shim closes only what is open.
            let _ = process.files.close(fd);
        } else if words[at + 1] != then[at + 1]
            && let Ok(open) = process.files.table.get_mut(fd)
        {
            open.offset = words[at + 1];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::process::calls::CALL_NS;
    use crate::guest::process::tests::mock::Guest;

    #[test]
    fn what_the_shim_did_is_done_to_the_process() {
        let mut process = Guest::simple().process;
        let then = export(&process, 7);
        assert_eq!(then[word(shim::FDS)], INPUT, "standard input is the input");
        assert_eq!(then[word(shim::FDS + 16)], STDOUT);
        assert_eq!(then[word(shim::FDS + 3 * 16)], HOST, "not open");
        assert!(is_whole(&then, 7) && !is_whole(&then, 8));
        let mut words = then;
        words[word(shim::CALLS)] = 3;
        words[word(shim::OUTPUT)] = 5;
        words[word(shim::FDS) + 1] = 4;
        words[word(shim::FDS + 2 * 16)] = CLOSED;
        assert!(!is_whole(&words, 7));
        let clock = process.scalars.clock_ns;
        import(&mut process, &words, &then);
        assert_eq!(process.scalars.clock_ns, clock + 3 * CALL_NS);
        assert_eq!(process.stdout().len(), 5);
        assert_eq!(process.files.table.get(0).unwrap().offset, 4);
        assert!(process.files.table.get(2).is_err());
        let after = export(&process, 7);
        assert_eq!(after[word(shim::FDS) + 1], 4);
        assert_eq!(after[word(shim::CALLS)], 0);
    }
}
