//! System calls that the host has answered before, and whose answers the shim repeats.
//!
//! From the snapshot on, a process's state follows from the calls that it makes: those of one
//! state, with the same arguments and the same bytes of memory read, get the same answer and lead
//! to the same state. So states are numbered; a call that may be repeated (`linux::syscalls::repeat`)
//! is an edge from one to another, or back to its own. In the guest the shim follows edges, as long
//! as each call is one of them, and notes where it is. When the host is needed it first makes the
//! calls on the way there once more, for their effect on the process: from then on all is as if the
//! host had served each of them.
//!
//! Edges that do something to page tables, or tell the time, are the host's alone: by them it knows
//! the state after a call that it has served.
//!
//! Never serves a call by itself, and never believes where the guest says it is without a way there.

mod log;

pub(crate) use log::CallLog;

use super::layout::memo::OFF;
use super::layout::{MEMO, STATE, memo, shim, state};
use super::shim::{FREE, HOST, Words, base, word};
use super::words::write_words;
use crate::address::page_ceil;
use crate::linux::abi::registers::Registers;
use crate::linux::abi::syscall::{SyscallAction, SystemCall};
use crate::linux::cpu::{Cpu, ExtendedLayout};
use crate::linux::mm::bounds::USER_END;
use crate::linux::process::Process;
use crate::linux::syscalls::repeat::Repeatable;
use crate::memory::{GuestMemory, OutOfRam};
use log::{Pieces, Replaying, place};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

/// Edges from one state.
const FANOUT_MAX: usize = 16;
/// Calls that were seen once. While edges are few every call becomes one; later only those that are
/// seen again, which what depends on the input mostly is not.
const SIGHTINGS: usize = 64;

/// Descriptors of the shim that a call has changed, and their kinds now.
type Changed = Vec<(u64, u64)>;

#[derive(Clone, Debug)]
struct State {
    /// The last new mapping at an address that the process did not choose: none of its pages was there.
    fresh: Range<u64>,
    /// The state before it, and the edge from there.
    from: Option<(usize, usize)>,
    edges: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Edge {
    call: SystemCall,
    args: usize,
    /// Which arguments are compared, bit by bit.
    by_value: u8,
    /// Kinds of the shim's descriptors before the call.
    kinds: [u64; shim::FDS_MAX as usize],
    reads: Pieces,
    writes: Pieces,
    value: u64,
    changed: Changed,
    target: u64,
    in_guest: bool,
    /// It looked for pages: in the guest only while there are none.
    found_no_page: bool,
}

/// A call that the host is about to serve.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) state: u64,
    pub(super) call: SystemCall,
    pub(super) repeatable: Repeatable,
    /// The shim's memory before it.
    pub(super) before: Words,
}

/// All states and edges.
#[derive(Debug)]
pub(super) struct Memo {
    states: Vec<State>,
    edges: Vec<Edge>,
    /// Bytes used of the pool in the guest.
    pool: u64,
    sightings: [u64; SIGHTINGS],
    sighted: usize,
    /// Whether edges were added since somebody asked.
    has_grown: bool,
    /// Edges on the way to a state; kept for its capacity.
    way: Vec<usize>,
}

impl Default for Memo {
    fn default() -> Self {
        let root = State { fresh: 0..0, from: None, edges: Vec::new() };
        let sightings = [0; SIGHTINGS];
        Self {
            states: vec![root],
            edges: Vec::new(),
            pool: 0,
            sightings,
            sighted: 0,
            has_grown: false,
            way: Vec::new(),
        }
    }
}

/// The kinds of the shim's descriptors.
fn kinds(words: &Words) -> [u64; shim::FDS_MAX as usize] {
    std::array::from_fn(|fd| words[word(shim::FDS) + fd * 2])
}

impl Memo {
    /// Whether the shim has learned an answer since this was asked last.
    pub(super) fn take_has_grown(&mut self) -> bool {
        std::mem::take(&mut self.has_grown)
    }

    /// The state after a call that was served: `log` is what it used of memory, `value` what it
    /// returned, `after` the shim's memory as it would be now.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(super) fn served(
        &mut self,
        memory: &mut GuestMemory,
        made: &Made,
        log: &mut CallLog,
        value: u64,
        after: &Words,
    ) -> Result<u64, OutOfRam> {
        let is_complete =
            log.is_complete && log.make_relative(&made.call, made.repeatable.pointers);
        let Some(changed) = changes(&made.before, after).filter(|_| is_complete) else {
            return Ok(OFF);
        };
        let keeps = changed.is_empty() && made.repeatable.keeps_state(value);
        let in_guest = made.repeatable.answer && log.is_plain;
        if let Some(index) = self.find(made, log) {
            let edge = &self.edges[index];
            if made.repeatable.answer && edge.value != value || edge.changed != changed {
                return Ok(OFF);
            }
            let target = edge.target;
            if in_guest && !edge.in_guest {
                let edge = &mut self.edges[index];
                edge.writes.clone_from(&log.writes);
                edge.found_no_page = log.found_no_page;
                self.show(memory, made.state, index)?;
            }
            return Ok(target);
        }
        let unknown = if keeps { made.state } else { OFF };
        let is_early = self.edges.len() < memo::EDGES_MAX / 2;
        if !(is_early || self.is_seen_again(made, log)) || !self.has_room(made.state, keeps) {
            return Ok(unknown);
        }
        let target = if keeps { made.state } else { self.states.len() as u64 };
        let index = self.edges.len();
        self.edges.push(Edge {
            call: made.call,
            args: made.repeatable.args,
            by_value: by_value(made),
            kinds: kinds(&made.before),
            reads: log.reads.clone(),
            writes: log.writes.clone(),
            value,
            changed,
            target,
            in_guest: false,
            found_no_page: log.found_no_page,
        });
        self.states[made.state as usize].edges.push(index);
        if !keeps {
            let from = Some((made.state as usize, index));
            let fresh = new_mapping(&made.call, value);
            let fresh = fresh.unwrap_or_else(|| self.states[made.state as usize].fresh.clone());
            self.states.push(State { fresh, from, edges: Vec::new() });
        }
        if in_guest {
            self.show(memory, made.state, index)?;
        }
        Ok(target)
    }

    fn find(&self, made: &Made, log: &CallLog) -> Option<usize> {
        let args = made.repeatable.args;
        let before = kinds(&made.before);
        let edges = &self.states.get(made.state as usize)?.edges;
        edges.iter().copied().find(|&index| {
            let edge = &self.edges[index];
            edge.call.nr == made.call.nr
                && edge.args == args
                && edge.by_value == by_value(made)
                && same_args(&edge.call, &made.call, edge.by_value)
                && edge.kinds == before
                && edge.reads == log.reads
        })
    }

    fn is_seen_again(&mut self, made: &Made, log: &CallLog) -> bool {
        // Without a random key: a campaign must not depend on it.
        let mut hasher = DefaultHasher::new();
        (made.state, made.call.nr, by_value(made), kinds(&made.before)).hash(&mut hasher);
        let args = made.call.args.iter().zip(0..6).filter(|(_, i)| by_value(made) & 1 << i != 0);
        args.for_each(|(arg, _)| arg.hash(&mut hasher));
        log.reads.iter().for_each(|piece| piece.hash(&mut hasher));
        let hash = hasher.finish();
        if self.sightings.contains(&hash) {
            return true;
        }
        self.sightings[self.sighted % SIGHTINGS] = hash;
        self.sighted += 1;
        false
    }

    fn has_room(&self, state: u64, keeps: bool) -> bool {
        self.edges.len() < memo::EDGES_MAX
            && (keeps || self.states.len() < memo::STATES_MAX)
            && self.states.get(state as usize).is_some_and(|state| state.edges.len() < FANOUT_MAX)
    }

    /// Writes an edge of state `from` to where the shim finds it, if there is room.
    fn show(&mut self, memory: &mut GuestMemory, from: u64, index: usize) -> Result<(), OutOfRam> {
        let edge = &self.edges[index];
        let bytes = (edge.reads.len() + edge.writes.len()) as u64;
        if self.pool + bytes > memo::POOL_BYTES {
            return Ok(());
        }
        let mut words = [0; memo::EDGE_WORDS];
        let mut at = memo::POOL + self.pool;
        let all = [(memo::READS, &edge.reads), (memo::WRITES, &edge.writes)];
        for (list, pieces) in all {
            for ((to, bytes), slot) in pieces.iter().zip((list..).step_by(4)) {
                let len = bytes.len() as u64;
                // The argument's place in the shim's notes, the distance from it, and the bytes.
                let (arg, offset) = place(to);
                let arg = STATE.va(state::ARGS + arg as u64 * 8);
                words[slot..slot + 4].copy_from_slice(&[arg, offset, len, MEMO.va(at)]);
                memory.write_unmarked(MEMO.gpa(at), bytes)?;
                at += len;
            }
        }
        self.pool += bytes;
        let first = MEMO.gpa(memo::STATES + from * 8);
        words[memo::NEXT] = memory.read_u64(first)?;
        words[memo::NR] = edge.call.nr;
        words[memo::BY_VALUE] = edge.by_value.into();
        words[memo::ARGS..memo::ARGS + 6].copy_from_slice(&edge.call.args);
        words[memo::FLAGS] = self.flags(from, edge);
        words[memo::KINDS..memo::KINDS + edge.kinds.len()].copy_from_slice(&edge.kinds);
        words[memo::VALUE] = edge.value;
        words[memo::TARGET] = edge.target;
        let mut sum = edge.target.wrapping_sub(from);
        for ((fd, now), slot) in edge.changed.iter().zip((memo::CHANGED..).step_by(2)) {
            let at = STATE.va(state::SHIM + shim::FDS + fd * 16);
            words[slot..slot + 2].copy_from_slice(&[at, *now]);
            sum = sum.wrapping_add(*now).wrapping_sub(edge.kinds[*fd as usize]);
        }
        words[memo::SUM] = sum;
        let place = memo::EDGES + (index * memo::EDGE_WORDS * 8) as u64;
        write_words(memory, MEMO.gpa(place), &words)?;
        write_words(memory, first, &[MEMO.va(place)])?;
        self.edges[index].in_guest = true;
        self.has_grown = true;
        Ok(())
    }

    /// When an edge of state `from` holds.
    fn flags(&self, from: u64, edge: &Edge) -> u64 {
        let maps = new_mapping(&edge.call, edge.value).map_or(0, |_| memo::MAPS);
        let fresh = self.states.get(from as usize).map_or(0..0, |state| state.fresh.clone());
        let looked_at = range_of(&edge.call);
        let is_fresh = fresh.start <= looked_at.start && looked_at.end <= fresh.end;
        maps | match (edge.found_no_page, is_fresh) {
            (false, _) => 0,
            (true, true) => memo::IF_FRESH,
            (true, false) => memo::IF_UNMAPPED,
        }
    }

    /// More pages are there at the snapshot than were: a call that found none might now find one.
    ///
    /// # Errors
    /// The agent's memory is missing.
    pub(super) fn pages_were_added(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        for (index, edge) in self.edges.iter_mut().enumerate() {
            if edge.in_guest && edge.found_no_page {
                let place = memo::EDGES + ((index * memo::EDGE_WORDS + memo::FLAGS) * 8) as u64;
                write_words(memory, MEMO.gpa(place), &[memo::NEVER])?;
                edge.found_no_page = false;
            }
        }
        Ok(())
    }

    /// Makes the calls between the states `then` and `words` are of once more, for their effect on
    /// `process`. How many those are, and the shim's memory as it was after the last; `None` if there
    /// is no such way.
    pub(super) fn follow(
        &mut self,
        process: &mut Process,
        words: &Words,
        then: &Words,
    ) -> Option<(u64, Words)> {
        let (from, to) = (then[word(shim::MEMO)], words[word(shim::MEMO)]);
        let mut shown = *then;
        if from == to {
            return Some((0, shown));
        }
        self.way.clear();
        let mut at = usize::try_from(to).ok()?;
        while at as u64 != from {
            let (before, edge) = self.states.get(at)?.from?;
            self.way.push(edge);
            at = before;
        }
        for &index in self.way.iter().rev() {
            let edge = self.edges.get(index).filter(|edge| edge.in_guest)?;
            let mut before = shown;
            for (fd, kind) in edge.kinds.iter().enumerate() {
                let at = word(shim::FDS) + fd * 2;
                if before[at] != *kind {
                    (before[at], before[at + 1]) = (*kind, 0);
                }
            }
            super::shim::apply_descriptors(process, &before, &shown).ok()?;
            let mut mem = Replaying { reads: &edge.reads, call: &edge.call };
            let made = process.syscall(&edge.call, &mut mem, &mut Nobody);
            if made != SyscallAction::Return(edge.value) {
                return None;
            }
            shown = before;
            for (fd, now) in &edge.changed {
                let at = word(shim::FDS + fd * 16);
                shown[at] = *now;
            }
        }
        Some((self.way.len() as u64, shown))
    }
}

/// The range of a call that maps memory at an address that the process did not choose.
pub(super) fn new_mapping(call: &SystemCall, value: u64) -> Option<Range<u64>> {
    const CHOSEN: u64 = (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) as u64;
    let [_, len, _, flags, ..] = call.args;
    let is_new = call.nr == libc::SYS_mmap as u64 && flags & CHOSEN == 0;
    let end = page_ceil(value.checked_add(len)?).filter(|_| is_new)?;
    (end <= USER_END).then_some(value..end)
}

/// The range that a call on memory is about; all of it for one that does not say.
fn range_of(call: &SystemCall) -> Range<u64> {
    let [at, len, ..] = call.args;
    match call.nr as i64 {
        libc::SYS_mmap | libc::SYS_munmap | libc::SYS_mprotect => {
            at..at.checked_add(len).and_then(page_ceil).unwrap_or(u64::MAX)
        }
        _ => 0..u64::MAX,
    }
}

/// Which arguments of a call matter by their value: those that are no addresses, or null.
fn by_value(made: &Made) -> u8 {
    let matters = |index: &usize| {
        let is_pointer = made.repeatable.pointers & 1 << index != 0;
        *index < made.repeatable.args && !(is_pointer && made.call.args[*index] != 0)
    };
    (0..6).filter(matters).fold(0, |mask, index| mask | 1 << index)
}

fn same_args(one: &SystemCall, other: &SystemCall, mask: u8) -> bool {
    (0..6).all(|index| mask & 1 << index == 0 || one.args[index] == other.args[index])
}

/// The shim's descriptors that differ; `None` if that is more than an edge can say.
fn changes(before: &Words, after: &Words) -> Option<Changed> {
    if before[word(shim::PATH)] != after[word(shim::PATH)] {
        return None;
    }
    let mut changed = Vec::new();
    for fd in 0..shim::FDS_MAX {
        let at = word(shim::FDS + fd * 16);
        if before[at] == after[at] {
            continue;
        }
        // A position is 0 where it is not the shim's.
        let keeps_position = match (base(before[at]), base(after[at])) {
            (FREE | HOST, FREE | HOST) => true,
            (before, after) => before == after,
        };
        if !keeps_position || changed.len() == memo::CHANGED_MAX {
            return None;
        }
        changed.push((fd, after[at]));
    }
    Some(changed)
}

/// The CPU of a program that is somewhere else: no call that is repeated looks at it.
struct Nobody;

impl Cpu for Nobody {
    fn registers(&self) -> Registers {
        Registers::default()
    }

    fn set_registers(&mut self, _: &Registers) {}

    fn bases(&self) -> [u64; 2] {
        [0; 2]
    }

    fn set_bases(&mut self, _: [u64; 2]) {}

    fn extended_layout(&mut self) -> ExtendedLayout {
        ExtendedLayout { features: 0, bytes: 0 }
    }

    fn extended(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn set_extended(&mut self, _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::super::layout::memo::ROOT;
    use super::super::shim::{FLAGS_SHIFT, INPUT, STDOUT};
    use super::*;

    fn words(kinds: [u64; 3]) -> Words {
        let mut words = [0; (shim::BYTES / 8) as usize];
        for (fd, kind) in kinds.into_iter().enumerate() {
            words[word(shim::FDS) + fd * 2] = kind;
        }
        words
    }

    #[test]
    fn an_edge_opens_and_closes_files_and_never_moves_the_input() {
        let before = words([INPUT, STDOUT, FREE]);
        assert_eq!(changes(&before, &before), Some(vec![]));
        assert_eq!(changes(&before, &words([INPUT, STDOUT, HOST])), Some(vec![(2, HOST)]));
        assert_eq!(changes(&words([INPUT, STDOUT, HOST]), &before), Some(vec![(2, FREE)]));
        let flagged = INPUT | (libc::O_CLOEXEC as u64) << FLAGS_SHIFT;
        assert_eq!(changes(&before, &words([flagged, STDOUT, FREE])), Some(vec![(0, flagged)]));
        assert_eq!(changes(&before, &words([FREE, STDOUT, FREE])), None);
        assert_eq!(changes(&before, &words([INPUT, HOST, FREE])), None);
    }

    #[test]
    fn only_a_mapping_at_an_address_of_the_kernels_is_new() {
        let call = |flags: i32, len| SystemCall {
            nr: libc::SYS_mmap as u64,
            args: [0x5000, len, 0, flags as u64, 0, 0],
        };
        assert_eq!(new_mapping(&call(libc::MAP_PRIVATE, 5), 0x9000), Some(0x9000..0xa000));
        assert_eq!(new_mapping(&call(libc::MAP_FIXED, 5), 0x5000), None);
        assert_eq!(new_mapping(&call(libc::MAP_PRIVATE, 5), u64::MAX - 11), None, "it failed");
        assert_eq!(range_of(&call(libc::MAP_FIXED, 5)), 0x5000..0x6000);
        assert_eq!(range_of(&call(libc::MAP_FIXED, u64::MAX)), 0x5000..u64::MAX);
    }

    #[test]
    fn there_is_no_way_to_a_state_that_the_guest_made_up() {
        let mut memo = Memo::default();
        let mut process = crate::linux::tests::mock::Guest::simple().process;
        let at = |state| {
            let mut words = words([INPUT, STDOUT, FREE]);
            words[word(shim::MEMO)] = state;
            words
        };
        for state in [1, 7, OFF - 1, OFF] {
            assert!(memo.follow(&mut process, &at(state), &at(ROOT)).is_none());
            assert!(memo.follow(&mut process, &at(ROOT), &at(state)).is_none());
        }
        assert!(memo.follow(&mut process, &at(ROOT), &at(ROOT)).is_some());
    }
}
