//! The agent: a program of the engine's own in the guest that puts the process back to its
//! snapshot after a run and starts the next one, without an exit.
//!
//! Under the agent's page tables every page that the process may write is read-only until its
//! first write. That write faults to the host once, which keeps the page's pristine bytes where
//! the agent finds them and opens the page; from then on it is *hot*, and copied back after
//! every run. System calls that parsers make in every run are served by the agent's shim; all
//! others go to the host, which then undoes at the end of the run what it did.
//!
//! This module has the agent's code and data, and reads back what became of them. It never runs
//! a vCPU and never judges a run: that is `machine::process::batch`.

mod code;
mod hot;
mod layout;
mod maps;
mod memo;
mod shim;
mod syscall_patches;
mod words;

pub(crate) use code::AgentExit;
pub(crate) use layout::{BATCH_BYTES_MAX, BATCH_MAX, INPUT_ALIGN};
pub(crate) use maps::MAPS_MAX;
pub(crate) use memo::CallLog;

use crate::address::{Gpa, Gva, PAGE_SIZE, Pfn};
use crate::guest::process::pages::ProcessPages;
use crate::guest::process::trap;
use crate::guest::process::trap::engine_va;
use crate::linux::abi::syscall::{SYSCALL_BYTES, SystemCall};
use crate::linux::process::Process;
use crate::linux::syscalls::stat::{STAT_BYTES, StatBytes};
use crate::memory::{GuestMemory, MemoryError, OutOfRam, PageFile};
use crate::outcome::ExitStatuses;
use crate::paging::{Frames, Tables, TablesError, leaf_entry};
use hot::{HotPage, HotPages};
use kvm_bindings::kvm_regs;
use layout::memo::{OFF, ROOT};
use layout::{
    CODE, FACTS, GATE_CODE, HASH_FACTOR, HOT, INPUT_BYTES, INPUTS, MEMO, Part, SOURCE, STATE,
    STATUS, TABLES, facts, state,
};
use memo::{Made, Memo};
use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use syscall_patches::{PatchContext, SyscallPatches};
use words::write_words;

/// What the unused part of the agent's writable page holds.
const PATTERN: u8 = 0xa5;
/// The first word of that page.
const CANARY: u64 = 0x5afe_ca4a_12d1_e5ad;
/// Batches between two comparisons of the hot pages.
const AUDIT_EVERY: u64 = 16;
/// Audits in a row after which an unchanged page is no longer hot.
const AUDITS_UNCHANGED: u8 = 4;

/// System calls that can put something else where code was.
const REMAPPING: [i64; 5] =
    [libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_brk];

/// The last batch whose first run shows its system calls; those before it are the powers of two.
const LEARN_LAST: u64 = 1 << 12;

/// Why a machine has no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its memory could not be added.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The page tables do not fit.
    #[error("build the agent's page tables")]
    Tables(#[from] TablesError),
    /// The agent could not see what a run does to the FS and GS bases.
    #[error("the guest's CPU has no RDFSBASE, or its snapshot was taken without it")]
    NoFsGsBase,
    /// The machine is none of a process.
    #[error("the machine has no memory slot for a program")]
    NoUserSlot,
    /// A page that must be RAM is not.
    #[error("the agent's pages are not where they should be")]
    OutOfRam(#[from] OutOfRam),
    /// The code could not be assembled.
    #[error("assemble the agent")]
    Code(#[from] iced_x86::IcedError),
}

/// What of a batch the shim leaves to the host, although it could serve it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ToHost {
    /// Exits with one of these statuses.
    pub exits: ExitStatuses,
    /// Writes to standard output and error.
    pub outputs: bool,
}

/// What the agent needs to know of the snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgentConfig<'a> {
    /// General registers.
    pub regs: &'a kvm_regs,
    /// XCR0.
    pub xcr0: u64,
    /// FS and GS base.
    pub bases: [u64; 2],
    /// The system call that the snapshot stands before and that each run makes anew.
    pub call: Option<&'a SystemCall>,
    /// Pages that the program can have.
    pub user_pages: u64,
}

/// What is around SYSCALL instructions that are replaced.
#[derive(Clone, Copy)]
pub(crate) struct CodeAround<'a> {
    pub process: &'a Process,
    /// Whether the machine has a breakpoint of its own at an address.
    pub is_taken: &'a dyn Fn(u64) -> bool,
    /// What the machine has in a range that the process does not know of.
    pub extent_over: &'a dyn Fn(Range<u64>) -> Option<Range<u64>>,
}

/// The agent of one machine.
#[derive(Debug)]
pub(crate) struct Agent {
    /// The guarded tables, while the machine does not run under them; the exact ones while it
    /// does.
    pub tables: Tables,
    /// The guarded tables' bookkeeping at the snapshot.
    pub baseline: Tables,
    /// The slot that the program's pages are in.
    user_slot: usize,
    entries: code::Entries,
    cookie: u64,
    hot: HotPages,
    batches: u64,
    /// The shim's memory as the run, or the host's last system call in it, gave it to the shim.
    exported: shim::Words,
    /// The shim's memory at the snapshot.
    pristine: shim::Words,
    /// What the shim tells about the input, but for its size.
    told: Option<[u8; STAT_BYTES]>,
    /// Entries of pages that are no longer hot; kept for its capacity.
    cold: Vec<Gpa>,
    patches: SyscallPatches,
    memo: Memo,
    /// The shim's memory as the program left it when the host was needed last.
    live: shim::Words,
    /// The call that the host serves, if it may be repeated.
    made: Option<Made>,
    /// Kept for its capacity.
    log: CallLog,
    /// How often pages were mapped in this run.
    mapped: u64,
    /// The first run of the batch shows its system calls to the host.
    is_learning: bool,
}

impl Agent {
    /// Adds the agent's memory to a machine that has none yet.
    ///
    /// # Errors
    /// The host refuses the memory.
    pub(crate) fn add_memory(memory: &mut GuestMemory) -> Result<(), AgentError> {
        let slot = layout::slot();
        let is_there = memory.layout().any(|other| other == slot);
        if !is_there {
            memory.add_slot(slot)?;
        }
        Ok(())
    }

    /// Puts the agent into memory that has room for it ([`add_memory`](Self::add_memory)), once
    /// in a machine's life: an entry of its tables that loses a permission must be written by the
    /// guest. `tables` are the snapshot's.
    ///
    /// # Errors
    /// The page tables do not fit.
    pub(crate) fn install(
        memory: &mut GuestMemory,
        tables: &Tables,
        process: &Process,
        config: &AgentConfig<'_>,
    ) -> Result<Self, AgentError> {
        let first = Pfn::from(trap::USER_BASE);
        let user = Frames::new(first, Pfn(first.0 + config.user_pages));
        let arena = Frames::new(TABLES.gpa(0).into(), TABLES.gpa(TABLES.bytes).into());
        let mut guarded = tables.guarded_copy(memory, arena, user)?;
        map(memory, &mut guarded)?;
        let baseline = guarded.clone();
        let blob = code::assemble(config.call.is_some())?;
        memory.write_unmarked(GATE_CODE.gpa(0), &blob.gate)?;
        memory.write_unmarked(CODE.gpa(0), &blob.code)?;
        memory.write_unmarked(HOT.gpa(0), &[0; layout::HOT_ENTRY as usize])?;
        let user_slot = memory.layout().position(|slot| slot.start == trap::USER_BASE);
        let cookie = RandomState::new().build_hasher().finish();
        let pristine = shim::export(process, cookie, true, (ROOT, 0));
        let agent = Self {
            tables: guarded,
            baseline,
            user_slot: user_slot.ok_or(AgentError::NoUserSlot)?,
            entries: blob.entries,
            cookie,
            hot: HotPages::default(),
            batches: 0,
            exported: pristine,
            pristine,
            told: without_size(process),
            cold: Vec::new(),
            patches: SyscallPatches::default(),
            memo: Memo::default(),
            live: pristine,
            made: None,
            log: CallLog::default(),
            mapped: 0,
            is_learning: false,
        };
        agent.write_facts(memory, process, config)?;
        Ok(agent)
    }

    fn write_facts(
        &self,
        memory: &mut GuestMemory,
        process: &Process,
        config: &AgentConfig<'_>,
    ) -> Result<(), OutOfRam> {
        let r = config.regs;
        let rip = if config.call.is_some() { r.rip.wrapping_add(SYSCALL_BYTES) } else { r.rip };
        let [fs, gs] = config.bases;
        let head = [self.cookie, config.xcr0, fs, gs, r.rflags, r.rsp, rip];
        write_words(memory, FACTS.gpa(facts::COOKIE), &head)?;
        let regs = [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15,
        ];
        write_words(memory, FACTS.gpa(facts::REGS), &regs)?;
        write_words(memory, FACTS.gpa(facts::SHIM), &self.pristine)?;
        maps::write(memory, &[], false)?;
        for (index, StatBytes { stat, statx }) in
            (0..).zip(process.told_by_the_shim().into_iter().flatten())
        {
            memory.write_unmarked(FACTS.gpa(facts::STAT + index * shim::STAT.bytes), &stat)?;
            memory.write_unmarked(FACTS.gpa(facts::STATX + index * shim::STATX.bytes), &statx)?;
        }
        let mut path = shim::path(process).unwrap_or_default();
        path.push(0);
        memory.write_unmarked(FACTS.gpa(facts::PATH), &path)
    }

    /// Gives the agent a batch, and clears its memory.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn load<'i>(
        &mut self,
        memory: &mut GuestMemory,
        inputs: impl Iterator<Item = &'i [u8]>,
        to_host: ToHost,
    ) -> Result<(), OutOfRam> {
        let mut page = [PATTERN; PAGE_SIZE];
        page[..state::END as usize].fill(0);
        page[..8].copy_from_slice(&CANARY.to_le_bytes());
        page[state::CHECK as usize..][..4].copy_from_slice(&(self.cookie as u32).to_le_bytes());
        memory.write_unmarked(STATE.gpa(0), &page)?;
        let (mut count, mut bytes) = (0, 0);
        for input in inputs {
            memory.write_unmarked(INPUT_BYTES.gpa(bytes), input)?;
            let place = [INPUT_BYTES.va(bytes), input.len() as u64];
            write_words(memory, INPUTS.gpa(count * 16), &place)?;
            count += 1;
            // Apart from each other, so that a copy of one does not share a cache line.
            bytes += input.len().next_multiple_of(INPUT_ALIGN) as u64;
        }
        self.batches += 1;
        self.is_learning = self.batches.is_power_of_two() && self.batches <= LEARN_LAST;
        self.exported = if self.is_learning { shim::nothing(self.cookie) } else { self.pristine };
        write_words(memory, FACTS.gpa(facts::SHIM), &self.exported)?;
        memory.write_unmarked(FACTS.gpa(facts::EXITS), &to_host.exits.0)?;
        let outputs = u32::from(to_host.outputs).to_le_bytes();
        memory.write_unmarked(FACTS.gpa(facts::OUTPUTS), &outputs)?;
        self.set_mapped(memory, false)?;
        self.set_count(memory, count as u32)?;
        self.set_touched(memory, self.is_learning)
    }

    /// After a run, the next one starts from the snapshot again.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn end_run(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        self.exported = self.pristine;
        if std::mem::take(&mut self.is_learning) {
            // A run ends in the shim by the call that the host does not see.
            let number = memory.read_u64(STATE.gpa(state::RAX))?;
            let ret = memory.read_u64(STATE.gpa(state::RET))?;
            self.note_call(number, ret);
            write_words(memory, FACTS.gpa(facts::SHIM), &self.pristine)?;
        }
        self.made = None;
        self.set_mapped(memory, false)?;
        self.set_touched(memory, false)
    }

    /// Tells the shim that pages were `mapped`, or that none were in this run.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn set_mapped(
        &mut self,
        memory: &mut GuestMemory,
        mapped: bool,
    ) -> Result<(), OutOfRam> {
        self.mapped = if mapped { self.mapped + 1 } else { 0 };
        write_words(memory, FACTS.gpa(facts::MAPPED), &[self.mapped])
    }

    /// Whether the shim has learned since this was asked last to answer a call by itself.
    pub(crate) fn take_has_learned(&mut self) -> bool {
        self.memo.take_has_grown()
    }

    /// Pages were mapped that stay.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn pages_were_added(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        self.memo.pages_were_added(memory)
    }

    /// Notes a system call that returns to `ret`, in case that its instruction can be replaced.
    pub(crate) fn note_call(&mut self, number: u64, ret: u64) {
        if code::serves(number) {
            self.patches.note(ret.wrapping_sub(SYSCALL_BYTES));
        }
    }

    /// Replaces the SYSCALL instructions that runs were seen to use, between two batches.
    /// `tables` are the guarded ones, as at the snapshot.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn replace_calls(
        &mut self,
        memory: &mut GuestMemory,
        tables: &mut Tables,
        around: &CodeAround<'_>,
    ) -> Result<(), OutOfRam> {
        if self.patches.has_news() {
            let CodeAround { process, is_taken, extent_over } = *around;
            let around = PatchContext { process, entries: self.entries, is_taken, extent_over };
            self.patches.try_patch(memory, tables, &around)?;
            // Pages for moved code are there from now on.
            self.baseline = tables.clone();
        }
        self.patches.install(memory, true)?;
        let next = memory.read_u64(FACTS.gpa(facts::RIP))?;
        write_words(memory, FACTS.gpa(facts::RESUME), &[self.patches.resume_of(next)])
    }

    /// Shows the program each page of `leaves` by an entry of its own, not while the machine is under
    /// the agent, and compares `maps` after each run: see [`maps::write`]. Gives where the entries are.
    ///
    /// # Errors
    /// The page tables do not fit.
    pub(crate) fn show(
        &mut self,
        memory: &mut GuestMemory,
        leaves: impl Iterator<Item = (Gva, u64)>,
        maps: &[[u64; 3]],
        are_counts: bool,
    ) -> Result<HashSet<Gpa>, AgentError> {
        let mut entries = HashSet::new();
        for (at, entry) in leaves {
            self.tables.set_leaf(memory, at, entry)?;
            entries.extend(self.tables.leaf(memory, at).map(|(slot, _)| slot));
        }
        self.tables.mark();
        self.baseline = self.tables.clone();
        self.patches.forget_pages();
        maps::write(memory, maps, are_counts)?;
        Ok(entries)
    }

    /// Puts every SYSCALL instruction back.
    ///
    /// # Errors
    /// The program's memory is missing.
    pub(crate) fn restore_calls(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        self.patches.install(memory, false)
    }

    /// Looks at every SYSCALL instruction anew. None may be replaced at present.
    pub(crate) fn forget_calls(&mut self) {
        self.patches.forget();
    }

    /// Whether the system call `number`, just served, has mapped something where the agent has
    /// code, or where the program had code that jumps into it. `tables` are the guarded ones.
    #[must_use]
    pub(crate) fn collides(
        &self,
        number: u64,
        memory: &GuestMemory,
        tables: &Tables,
        process: &Process,
    ) -> bool {
        let maps = REMAPPING.iter().any(|call| *call as u64 == number);
        maps && (self.patches.collide(process) || !self.patches.are_in_place(memory, tables))
    }

    /// Whether `rip` is in the program's code that was moved for a jump.
    #[must_use]
    pub(crate) fn is_moved_code(&self, rip: u64) -> bool {
        self.patches.has_moved(rip)
    }

    /// Where the program goes on that would go on at `rip` alone, if it can.
    #[must_use]
    pub(crate) fn in_place_of(&self, rip: u64) -> Option<u64> {
        self.patches.in_place_of(rip)
    }

    /// Tells the agent how many runs the batch has.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn set_count(&self, memory: &mut GuestMemory, count: u32) -> Result<(), OutOfRam> {
        memory.write_unmarked(FACTS.gpa(facts::COUNT), &count.to_le_bytes())
    }

    /// Asks the agent to exit at the end of the present run.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn set_touched(
        &self,
        memory: &mut GuestMemory,
        touched: bool,
    ) -> Result<(), OutOfRam> {
        memory.write_unmarked(FACTS.gpa(facts::TOUCHED), &u32::from(touched).to_le_bytes())
    }

    /// Makes `index` the present run, at the end of one that the host ended.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn set_index(&self, memory: &mut GuestMemory, index: usize) -> Result<(), OutOfRam> {
        let index = index as u32;
        memory.write_unmarked(STATE.gpa(state::INDEX), &index.to_le_bytes())?;
        let check = index ^ self.cookie as u32;
        memory.write_unmarked(STATE.gpa(state::CHECK), &check.to_le_bytes())
    }

    /// How far the batch is: the index of the present run; the number of runs when it is over.
    /// `None` when the agent's memory is not as the agent left it.
    #[must_use]
    pub(crate) fn progress(&self, memory: &GuestMemory) -> Option<usize> {
        let mut head = [0; 24];
        memory.read(STATE.gpa(0), &mut head).ok()?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let (index, check) = (word(8) as u32, (word(8) >> 32) as u32);
        let is_whole = word(0) == CANARY && index ^ check == self.cookie as u32;
        is_whole.then_some(index as usize)
    }

    /// The exit status of run `index`, which ended by itself.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn status(&self, memory: &GuestMemory, index: usize) -> Result<u8, OutOfRam> {
        let mut status = [0];
        memory.read(STATUS.gpa(index as u64), &mut status)?;
        Ok(status[0])
    }

    /// Whether, as far as can be known, nobody but the agent has written to its memory, `statuses`
    /// being those of the runs that ended by themselves.
    #[must_use]
    pub(crate) fn is_whole(
        &self,
        memory: &GuestMemory,
        statuses: impl Iterator<Item = u8>,
    ) -> bool {
        let mut page = [0; PAGE_SIZE];
        if memory.read(STATE.gpa(0), &mut page).is_err() {
            return false;
        }
        let hash = statuses.fold(0_u64, |hash, status| {
            hash.wrapping_mul(HASH_FACTOR).wrapping_add(u64::from(status) + 1)
        });
        let at = state::HASH as usize;
        page[at..at + 8] == hash.to_le_bytes()
            && page[state::END as usize..].iter().all(|byte| *byte == PATTERN)
            && page[..8] == CANARY.to_le_bytes()
    }

    /// Tells `process` what the shim did since the last import; `false` when the shim's memory is
    /// not as the shim left it.
    #[must_use]
    pub(crate) fn import(&mut self, memory: &GuestMemory, process: &mut Process) -> bool {
        let Some(words) = self.shim_words(memory) else { return false };
        if !shim::is_whole(&words, self.cookie) {
            return false;
        }
        self.live = words;
        if words == self.exported {
            return true;
        }
        let Some((made, then)) = self.memo.follow(process, &words, &self.exported) else {
            return false;
        };
        shim::import(process, &words, &then, made).is_ok()
    }

    /// Whether the program made calls that the host has not made, but that are in the process's
    /// state: a fault may depend on them.
    #[must_use]
    pub(crate) fn is_ahead(&self, memory: &GuestMemory) -> bool {
        let at = |words: &shim::Words| words[shim::word(layout::shim::MEMO)];
        memory.read_u64(STATE.gpa(state::SHIM + layout::shim::MEMO)) != Ok(at(&self.exported))
    }

    /// The process is in a state that no call has led to: a handler runs.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn lose_state(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        self.set_mapped(memory, true)?;
        // Whoever wrote to the shim's memory is found by its sum, later.
        if let Some(words) = self.shim_words(memory).filter(|w| shim::is_whole(w, self.cookie)) {
            self.exported[shim::word(layout::shim::MEMO)] = OFF;
            let words = shim::in_state(&words, OFF, self.cookie);
            write_words(memory, STATE.gpa(state::SHIM), &words)?;
        }
        Ok(())
    }

    /// The host is about to serve `call`, everything being imported: what it does shall be written
    /// down, if anything.
    #[must_use]
    pub(crate) fn begin_call(
        &mut self,
        call: &SystemCall,
        process: &Process,
        pages: &ProcessPages<'_>,
    ) -> Option<CallLog> {
        let state = self.live[shim::word(layout::shim::MEMO)];
        self.made = None;
        // A trace would lack what the shim answers.
        if state == OFF || process.counts_calls() || process.is_traced() {
            return None;
        }
        let repeatable = process.repeatable(call, pages)?;
        self.made = Some(Made { state, call: *call, repeatable, before: self.live });
        let mut log = std::mem::take(&mut self.log);
        log.begin(repeatable.path.and_then(|index| call.args.get(index).copied()));
        Some(log)
    }

    /// The call has been served and returned `value`; `log` is what was written down. Tells the shim
    /// what `process` is like now.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn end_call(
        &mut self,
        memory: &mut GuestMemory,
        process: &Process,
        log: Option<CallLog>,
        value: u64,
    ) -> Result<(), OutOfRam> {
        let state = match (self.made.take(), log) {
            (Some(made), Some(mut log)) => {
                if !log.is_plain() {
                    self.set_mapped(memory, true)?;
                }
                if memo::new_mapping(&made.call, value).is_some() {
                    // One that has its pages at once is never as new as the next count.
                    self.live[shim::word(layout::shim::FRESH)] =
                        if log.is_plain() { self.mapped } else { u64::MAX };
                }
                let after = self.words_of(process, made.state);
                if made.repeatable.answer {
                    self.patches.note(self.ret(memory)?.wrapping_sub(SYSCALL_BYTES));
                }
                let state = self.memo.served(memory, &made, &mut log, value, &after)?;
                self.log = log;
                state
            }
            _ => {
                self.set_mapped(memory, true)?;
                OFF
            }
        };
        self.export(memory, process, state)
    }

    fn ret(&self, memory: &GuestMemory) -> Result<u64, OutOfRam> {
        memory.read_u64(STATE.gpa(state::RET))
    }

    /// What the shim may know of `process` in `memo`'s state `state`.
    fn words_of(&self, process: &Process, state: u64) -> shim::Words {
        let told = without_size(process);
        let input_as_told = told.is_some() && told == self.told;
        let fresh = self.live[shim::word(layout::shim::FRESH)];
        shim::export(process, self.cookie, input_as_told, (state, fresh))
    }

    /// Tells the shim what `process` is like now, all that the program did being imported.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn export_again(
        &mut self,
        memory: &mut GuestMemory,
        process: &Process,
    ) -> Result<(), OutOfRam> {
        self.export(memory, process, self.live[shim::word(layout::shim::MEMO)])
    }

    fn shim_words(&self, memory: &GuestMemory) -> Option<shim::Words> {
        let mut bytes = [0; layout::shim::BYTES as usize];
        memory.read(STATE.gpa(state::SHIM), &mut bytes).ok()?;
        let mut words = self.pristine;
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        }
        Some(words)
    }

    /// Tells the shim what `process` is like now.
    ///
    /// # Errors
    /// The agent's memory is missing.
    fn export(
        &mut self,
        memory: &mut GuestMemory,
        process: &Process,
        state: u64,
    ) -> Result<(), OutOfRam> {
        self.exported = self.words_of(process, state);
        write_words(memory, STATE.gpa(state::SHIM), &self.exported)
    }

    /// The registers of the system call that the shim was serving, `now` being those where it
    /// stopped: as if the shim had not begun.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn unserved(
        &self,
        memory: &GuestMemory,
        now: &kvm_regs,
    ) -> Result<kvm_regs, OutOfRam> {
        let word = |at| memory.read_u64(STATE.gpa(at));
        Ok(kvm_regs {
            rax: word(state::RAX)?,
            rdi: word(state::RDI)?,
            rsi: word(state::RSI)?,
            rcx: word(state::RESUME)?,
            r11: word(state::FLAGS)?,
            ..*now
        })
    }

    /// Adds a page of the program's that was just opened to those that are copied back.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn add_hot(
        &mut self,
        memory: &mut GuestMemory,
        (va, pfn, entry): (Gva, Pfn, Gpa),
        pristine: &PageFile,
    ) -> Result<(), OutOfRam> {
        self.hot.add(memory, HotPage { va, pfn, entry, unchanged: 0 }, pristine)
    }

    /// Whether no further page can become hot.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.hot.is_full()
    }

    /// Number of hot pages.
    #[must_use]
    pub(crate) fn pages_hot(&self) -> usize {
        self.hot.len()
    }

    /// The frames of the hot pages.
    pub(crate) fn hot_frames(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.hot.frames()
    }

    /// At the end of a batch, before its last run is undone: from time to time looks which hot
    /// pages have not changed for long, and guards them again. `tables` are the guarded ones.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(crate) fn audit(
        &mut self,
        memory: &mut GuestMemory,
        tables: &mut Tables,
        pristine: &PageFile,
    ) -> Result<(), AgentError> {
        if self.batches.is_multiple_of(AUDIT_EVERY) {
            self.hot.audit(memory, self.user_slot, pristine);
            self.cold.clear();
            self.hot.take_cold(AUDITS_UNCHANGED, &mut self.cold);
            for &entry in &self.cold {
                tables.close(memory, entry)?;
            }
        }
        Ok(self.hot.tidy(memory, pristine)?)
    }

    /// Which exit of the agent's `rip` stands at.
    #[must_use]
    pub(crate) fn exit_at(&self, rip: u64) -> Option<AgentExit> {
        code::exit_at(rip)
    }

    /// Whether `rip` is in the agent's code.
    #[must_use]
    pub(crate) fn contains(&self, rip: u64) -> bool {
        CODE.contains(rip) || Gva(rip).page_floor() == trap::syscall_entry().page_floor()
    }

    /// Whether `rip` is in the shim.
    #[must_use]
    pub(crate) fn in_shim(&self, rip: u64) -> bool {
        (self.entries.shim..self.entries.shim_end).contains(&rip)
    }

    /// Where a batch starts.
    #[must_use]
    pub(crate) fn batch_entry(&self) -> u64 {
        self.entries.batch
    }

    /// Where the agent puts everything back and starts the next run.
    #[must_use]
    pub(crate) fn reset_entry(&self) -> u64 {
        self.entries.reset
    }
}

/// Maps the agent's pages; its gate takes the place of the engine's.
fn map(memory: &mut GuestMemory, tables: &mut Tables) -> Result<(), TablesError> {
    let mut map = |part: Part, writable, executable| {
        part.pages().try_for_each(|(at, frame)| {
            tables.set_leaf(memory, at, leaf_entry(frame, writable, executable, true))
        })
    };
    map(CODE, false, true)?;
    for part in [FACTS, HOT, INPUTS, MEMO, INPUT_BYTES, SOURCE] {
        map(part, false, false)?;
    }
    for part in [STATE, STATUS] {
        map(part, true, false)?;
    }
    // Where the stub that rewrites page-table entries looks for them.
    for (_, frame) in TABLES.pages() {
        tables.set_leaf(memory, engine_va(frame), leaf_entry(frame, true, false, false))?;
    }
    let gate = leaf_entry(GATE_CODE.gpa(0), false, true, true);
    tables.set_leaf(memory, trap::syscall_entry().page_floor(), gate)?;
    tables.mark();
    // Nothing was translated under these tables yet.
    tables.take_stale(&mut Vec::new());
    Ok(())
}

/// What there is to tell about the input, but for its size.
fn without_size(process: &Process) -> Option<[u8; STAT_BYTES]> {
    let mut stat = process.told_by_the_shim()?[0].stat;
    for at in [shim::STAT.size_at, shim::STAT.blocks_at] {
        stat[at as usize..][..8].fill(0);
    }
    Some(stat)
}
