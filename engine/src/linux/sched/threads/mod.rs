//! The process's threads: what each one has of its own, what it waits for, and who goes on next.
//!
//! One CPU runs them all: another one goes on where one waits, yields, ends or has had its turn, so
//! that every run of the same input switches at the same places. Only one that spins is interrupted,
//! by the machine. Never serves a system call, and never touches memory.

mod pending;
mod stored;
mod waiting;

use crate::linux::base::limits::Refused;
use crate::linux::base::tracked::Rewind;
use crate::linux::cpu::Context;
use crate::linux::sched::thread::{THREADS_MAX, Thread};
use crate::linux::sched::timers::Timers;
use crate::linux::signal::siginfo::SigInfo;
use serde::{Deserialize, Serialize};
use stored::StoredThreads;

/// Calls after which a thread lets the others go first.
const TURN_CALLS: u64 = 1024;

/// All threads, and what they share of signals and timers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredThreads")]
pub(crate) struct Threads {
    list: Vec<Thread>,
    current: usize,
    next_id: u64,
    /// Calls made since there are several.
    calls: u64,
    /// Signals for whichever thread takes them first.
    pub(crate) pending: Vec<SigInfo>,
    pub(crate) timers: Timers,
    /// The exit status of the first thread, once it has ended.
    pub(crate) status: Option<u8>,
}

impl TryFrom<StoredThreads> for Threads {
    type Error = Refused;

    fn try_from(stored: StoredThreads) -> Result<Self, Refused> {
        stored.check()?;
        let StoredThreads { list, current, next_id, calls, pending, timers, status } = stored;
        Ok(Self { list, current, next_id, calls, pending, timers, status })
    }
}

impl Threads {
    pub(crate) fn new(first_id: u64, name: [u8; 16]) -> Self {
        Self {
            list: vec![Thread::new(first_id, name)],
            current: 0,
            next_id: first_id + 1,
            calls: 0,
            pending: Vec::new(),
            timers: Timers::default(),
            status: None,
        }
    }

    /// The thread that runs.
    pub(crate) fn current(&self) -> &Thread {
        // `current` is in range always; a process has a thread as long as it lives.
        &self.list[self.current]
    }

    pub(crate) fn current_mut(&mut self) -> &mut Thread {
        &mut self.list[self.current]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Thread> {
        self.list.iter()
    }

    /// The name of the oldest thread: the first, as long as that lives.
    pub(crate) fn name(&self) -> &[u8; 16] {
        self.list.first().map_or(&[0; 16], |thread| &thread.name)
    }

    pub(crate) fn is_single(&self) -> bool {
        self.list.len() == 1
    }

    pub(crate) fn find_mut(&mut self, id: u64) -> Option<&mut Thread> {
        self.list.iter_mut().find(|thread| thread.id == id)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Adds a thread, whose id is [`next_id`](Self::next_id); false if there are too many.
    pub(crate) fn add(&mut self, thread: Thread) -> bool {
        let has_room = self.list.len() < THREADS_MAX;
        if has_room {
            self.next_id += 1;
            self.list.push(thread);
        }
        has_room
    }

    /// A call was made: what waits for others may look again.
    pub(crate) fn count_call(&mut self) {
        self.calls = self.calls.wrapping_add(1);
    }

    /// Calls that were made.
    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    /// Whether the running thread has had its turn, so that one that asks again and again whether
    /// the others have got on does not ask for ever.
    pub(crate) fn turn_is_over(&self) -> bool {
        !self.is_single() && self.calls.is_multiple_of(TURN_CALLS)
    }

    /// Makes thread `index` the running one; its context, if it was not that already.
    pub(crate) fn switch_to(&mut self, index: usize) -> Option<Box<Context>> {
        self.current = index;
        self.current_mut().context.take()
    }

    /// Whether `index` is the running thread's.
    pub(crate) fn is_current(&self, index: usize) -> bool {
        self.current == index
    }

    /// Takes the running thread away, which has ended and is not the last.
    pub(crate) fn remove_current(&mut self) -> Thread {
        let gone = self.list.remove(self.current);
        // The next one in order is at the same place: it is the first to be looked at.
        self.current = self.current.checked_sub(1).unwrap_or(self.list.len() - 1);
        gone
    }
}

impl Rewind for Threads {
    fn rewind_to(&mut self, snapshot: &Self, _related: bool) {
        self.list.clone_from(&snapshot.list);
        self.current = snapshot.current;
        self.next_id = snapshot.next_id;
        self.calls = snapshot.calls;
        self.pending.clone_from(&snapshot.pending);
        self.timers.clone_from(&snapshot.timers);
        self.status = snapshot.status;
    }
}
