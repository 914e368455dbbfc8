//! Where the agent's pages lie, and what is where in them.
//!
//! The agent has a memory slot of its own, which is no part of any snapshot. The program can read
//! it where it is mapped, and can write [`STATE`] and [`STATUS`] only, because the agent itself
//! runs with the program's rights.

use crate::address::{Gpa, Gva, PAGE_SIZE};
use crate::guest::process::trap::ENGINE_BASE;
use crate::memory::SlotSpec;

/// What the hash of the exit statuses is multiplied with at each.
pub(super) const HASH_FACTOR: u64 = 31;

/// First guest-physical address of the slot: between the engine's pages and the 32-bit MMIO hole.
const SLOT: Gpa = Gpa(0x1000_0000);
const SLOT_BYTES: u64 = 0x300_0000;
/// The first of the agent's virtual addresses: in the engine's part of the address space, near
/// enough to the system-call gate to be reached from it, and in 1 GiB of its own.
const BASE: u64 = ENGINE_BASE + 0x4000_0000;

/// The slot.
pub(super) const fn slot() -> SlotSpec {
    SlotSpec { start: SLOT, bytes: SLOT_BYTES, log_dirty: false }
}

/// A run of the agent's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    offset: u64,
    /// Length in bytes; whole pages.
    pub bytes: u64,
}

impl Part {
    const fn new(offset: u64, bytes: u64) -> Self {
        Self { offset, bytes }
    }

    /// Guest-physical address of byte `at`.
    #[must_use]
    pub(super) const fn gpa(self, at: u64) -> Gpa {
        Gpa(SLOT.0 + self.offset + at)
    }

    /// Guest-virtual address of byte `at`.
    #[must_use]
    pub(super) const fn va(self, at: u64) -> u64 {
        BASE + self.offset + at
    }

    /// Whether `address` lies in the part.
    #[must_use]
    pub(super) const fn contains(self, address: u64) -> bool {
        address >= self.va(0) && address < self.va(self.bytes)
    }

    /// Guest-virtual and guest-physical addresses of its pages.
    pub(super) fn pages(self) -> impl Iterator<Item = (Gva, Gpa)> {
        (0..self.bytes).step_by(PAGE_SIZE).map(move |at| (Gva(self.va(at)), self.gpa(at)))
    }
}

/// The gate that SYSCALL jumps to; mapped over the engine's own gate, under the agent's tables.
pub(super) const GATE_CODE: Part = Part::new(0, 0x1000);
/// The agent's code.
pub(super) const CODE: Part = Part::new(0x1000, 0x2000);
/// What the host tells the agent.
pub(super) const FACTS: Part = Part::new(0x3000, 0x2000);
/// What the agent remembers.
pub(super) const STATE: Part = Part::new(0x5000, 0x1000);
/// The exit status of each run of a batch, one byte each.
pub(super) const STATUS: Part = Part::new(0x6000, 0x1000);
/// The list of what is copied back after each run.
pub(super) const HOT: Part = Part::new(0x7000, 0x1_9000);
/// Address and length of each input, 8 bytes each.
pub(super) const INPUTS: Part = Part::new(0x2_0000, 0x1_0000);
/// Code that takes the place of SYSCALL instructions; mapped where the program can reach it.
pub(super) const TRAMPOLINES: Part = Part::new(0x3_0000, 0x4000);
/// Answers that the shim repeats.
pub(super) const MEMO: Part = Part::new(0x4_0000, 0x8_0000);
/// The inputs' bytes.
pub(super) const INPUT_BYTES: Part = Part::new(0x10_0000, 0x80_0000);
/// Pristine copies of the hot pages.
pub(super) const SOURCE: Part = Part::new(0x90_0000, 0x100_0000);
/// Frames for the page tables.
pub(super) const TABLES: Part = Part::new(0x190_0000, SLOT_BYTES - 0x190_0000);

/// The most inputs of one batch.
pub(crate) const BATCH_MAX: usize = STATUS.bytes as usize;
/// The most bytes that the inputs of one batch have together.
pub(crate) const BATCH_BYTES_MAX: usize = INPUT_BYTES.bytes as usize;
/// Each input starts at a multiple of this.
pub(crate) const INPUT_ALIGN: usize = 64;
/// The most pages that may be hot.
pub(super) const HOT_MAX: usize = (SOURCE.bytes as usize) / PAGE_SIZE;
/// Bytes of an entry of [`HOT`]: destination, source, length.
pub(super) const HOT_ENTRY: u64 = 24;

/// Offsets in [`FACTS`].
pub(super) mod facts {
    /// Number of inputs in the batch; u32.
    pub(in super::super) const COUNT: u64 = 0;
    /// Whether the host changed something that only the host can undo; u32.
    pub(in super::super) const TOUCHED: u64 = 4;
    /// A random number; u64.
    pub(in super::super) const COOKIE: u64 = 8;
    /// XCR0; u64.
    pub(in super::super) const XCR0: u64 = 16;
    /// FS base; u64.
    pub(in super::super) const FS: u64 = 24;
    /// GS base; u64.
    pub(in super::super) const GS: u64 = 32;
    /// RFLAGS, and RSP behind it; u64 each.
    pub(in super::super) const FLAGS: u64 = 40;
    /// RIP at which a run starts; after the system call where it starts with one; u64.
    pub(in super::super) const RIP: u64 = 56;
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15; u64 each.
    pub(in super::super) const REGS: u64 = 64;
    /// Where the program goes on after the system call that a run starts with: at `RIP`, or in
    /// moved code; u64.
    pub(in super::super) const RESUME: u64 = 192;
    /// Whether writing is the host's; u32.
    pub(in super::super) const OUTPUTS: u64 = 200;
    /// A bit for each exit status with which an exit is the host's; 32 bytes.
    pub(in super::super) const EXITS: u64 = 208;
    /// How often in this run the host mapped pages, or may have; u64.
    pub(in super::super) const MAPPED: u64 = 240;
    /// The shim's memory as each run starts with it.
    pub(in super::super) const SHIM: u64 = 0x200;
    /// `struct stat` of the input, standard output and standard error.
    pub(in super::super) const STAT: u64 = 0x400;
    /// `struct statx` of the same.
    pub(in super::super) const STATX: u64 = 0x600;
    /// The input's path, and how long it may be with its NUL.
    pub(in super::super) const PATH: u64 = 0xa00;
    pub(in super::super) const PATH_BYTES: u64 = 0x200;
    /// Classes of low counts, of high ones by their upper half, and a mask for half a byte; 16 bytes
    /// each.
    pub(in super::super) const CLASSES: u64 = 0xc00;
    /// The maps that are compared after each run, with an end behind the last: address, bytes, and
    /// where it is said what is news; u64 each.
    pub(in super::super) const MAPS: u64 = 0xc40;
    pub(in super::super) const MAP_ENTRY: u64 = 24;
    pub(in super::super) const MAPS_MAX: u64 = 200;
}

/// Offsets in [`STATE`].
pub(super) mod state {
    // The first word never changes.
    /// Index of the run in its batch; u32.
    pub(in super::super) const INDEX: u64 = 8;
    /// The index exclusive-or the cookie; u32.
    pub(in super::super) const CHECK: u64 = 12;
    /// A hash of the exit statuses so far; u64.
    pub(in super::super) const HASH: u64 = 16;
    /// Selectors of DS, ES, FS and GS as the batch started; u32 each.
    pub(in super::super) const SELECTORS: u64 = 24;
    /// Where the system call returns to; u64.
    pub(in super::super) const RET: u64 = 40;
    /// RFLAGS of the program during a system call; u64.
    pub(in super::super) const FLAGS: u64 = 48;
    /// RSP of the program; u64.
    pub(in super::super) const RSP: u64 = 56;
    /// RAX, RDI and RSI of the program during a system call; u64 each.
    pub(in super::super) const RAX: u64 = 64;
    pub(in super::super) const RDI: u64 = 72;
    pub(in super::super) const RSI: u64 = 80;
    /// Where the program goes on after a system call: at `RET`, or in moved code; u64.
    pub(in super::super) const RESUME: u64 = 112;
    /// Address and length of the run's input; u64 each.
    pub(in super::super) const INPUT: u64 = 96;
    pub(in super::super) const INPUT_LEN: u64 = 104;
    /// All six arguments of a call that may be answered from memory; u64 each.
    pub(in super::super) const ARGS: u64 = 128;
    /// The shim's memory.
    pub(in super::super) const SHIM: u64 = ARGS + 48;
    /// First byte behind all of these; the page's rest never changes.
    pub(in super::super) const END: u64 = SHIM + super::shim::BYTES;
}

/// Offsets in the shim's memory, which each run gets anew.
pub(super) mod shim {
    /// System calls served; u64.
    pub(in super::super) const CALLS: u64 = 0;
    /// Bytes written to standard output, then to standard error; u64 each.
    pub(in super::super) const OUTPUT: u64 = 8;
    /// The cookie plus every other word of the shim's memory; u64.
    pub(in super::super) const SUM: u64 = 24;
    /// Bytes of the input's path, with its NUL, as long as the path leads to the input; else 0;
    /// u64.
    pub(in super::super) const PATH: u64 = 32;
    /// The process's state in `memo`; u64.
    pub(in super::super) const MEMO: u64 = 40;
    /// Descriptors: kind (u32), whether `exec` closes it (u32), and position (u64).
    pub(in super::super) const FDS: u64 = 48;
    /// Descriptors that the shim knows.
    pub(in super::super) const FDS_MAX: u64 = 8;
    /// The process's clock when the count of system calls was 0, and how much of it the process had
    /// waited; nanoseconds, u64 each.
    pub(in super::super) const CLOCK: u64 = FDS + FDS_MAX * 16;
    pub(in super::super) const IDLE: u64 = CLOCK + 8;
    /// What [`MAPPED`](super::facts::MAPPED) was when the process got its last new mapping at an address
    /// that it did not choose; u64. The next word is not used.
    pub(in super::super) const FRESH: u64 = IDLE + 8;
    /// Length.
    pub(in super::super) const BYTES: u64 = FRESH + 16;
}

/// Offsets in [`MEMO`], in bytes, and within an edge, in words.
pub(super) mod memo {
    /// The state that a process has at its snapshot, and one that has no number.
    pub(in super::super) const ROOT: u64 = 0;
    pub(in super::super) const OFF: u64 = u64::MAX;
    /// States, and edges between them.
    pub(in super::super) const STATES_MAX: usize = 512;
    pub(in super::super) const EDGES_MAX: usize = 256;
    /// Descriptors of the shim that an edge changes.
    pub(in super::super) const CHANGED_MAX: usize = 2;
    /// The address of each state's first edge; 0 for none; u64.
    pub(in super::super) const STATES: u64 = 0;
    pub(in super::super) const EDGES: u64 = 0x1000;
    pub(in super::super) const EDGE_WORDS: usize = 64;
    /// Bytes that edges compare and write.
    pub(in super::super) const POOL: u64 = EDGES + (EDGES_MAX * EDGE_WORDS * 8) as u64;
    pub(in super::super) const POOL_BYTES: u64 = super::MEMO.bytes - POOL;
    /// In `FLAGS`: the edge holds while the host has mapped nothing in this run.
    pub(in super::super) const IF_UNMAPPED: u64 = 1;
    /// It holds while the host has mapped nothing since the last new mapping.
    pub(in super::super) const IF_FRESH: u64 = 2;
    /// It holds no more.
    pub(in super::super) const NEVER: u64 = 4;
    /// It is a new mapping.
    pub(in super::super) const MAPS: u64 = 8;

    /// The address of the state's next edge, or 0.
    pub(in super::super) const NEXT: usize = 0;
    /// The call's number, which arguments are compared (bits), and all six.
    pub(in super::super) const NR: usize = 1;
    pub(in super::super) const BY_VALUE: usize = 2;
    pub(in super::super) const ARGS: usize = 3;
    /// When it holds, and whether it is a new mapping.
    pub(in super::super) const FLAGS: usize = 9;
    /// The kinds of the shim's descriptors.
    pub(in super::super) const KINDS: usize = 10;
    /// Three pieces of memory that must hold certain bytes: where the argument is noted that they are
    /// at, the distance from it, their length, and where the bytes are.
    pub(in super::super) const READS: usize = 18;
    pub(in super::super) const PIECE_WORDS: usize = 4;
    /// Three pieces that are written, likewise.
    pub(in super::super) const WRITES: usize = 30;
    /// What the call returns.
    pub(in super::super) const VALUE: usize = 42;
    /// The state after it, and what the shim's sum grows by.
    pub(in super::super) const TARGET: usize = 43;
    pub(in super::super) const SUM: usize = 44;
    /// Where the shim keeps the kind of a descriptor that changes, and the kind; twice.
    pub(in super::super) const CHANGED: usize = 45;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_overlaps_another() {
        let parts = [
            GATE_CODE,
            CODE,
            FACTS,
            STATE,
            STATUS,
            HOT,
            INPUTS,
            TRAMPOLINES,
            MEMO,
            INPUT_BYTES,
            SOURCE,
            TABLES,
        ];
        for pair in parts.windows(2) {
            assert!(pair[0].offset + pair[0].bytes <= pair[1].offset, "{pair:x?}");
        }
        assert_eq!(TABLES.offset + TABLES.bytes, SLOT_BYTES);
        assert!(HOT.bytes >= (HOT_MAX as u64 + 1) * HOT_ENTRY, "an end behind the last");
        assert!(INPUTS.bytes >= BATCH_MAX as u64 * 16);
    }

    const _: () = assert!(facts::PATH + facts::PATH_BYTES <= facts::CLASSES);
    const _: () = assert!(facts::MAPS + (facts::MAPS_MAX + 1) * facts::MAP_ENTRY <= FACTS.bytes);
    const _: () = assert!(facts::SHIM + shim::BYTES <= facts::STAT && state::END < STATE.bytes);
    const _: () = assert!(memo::CHANGED + memo::CHANGED_MAX * 2 <= memo::EDGE_WORDS);
    const _: () = assert!(memo::STATES_MAX as u64 * 8 <= memo::EDGES);
}
