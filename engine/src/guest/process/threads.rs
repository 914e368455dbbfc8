//! The process's threads: what each one has of its own, what it waits for, and who goes on next.
//!
//! One CPU runs them all, and none is ever interrupted: another one goes on where one waits,
//! yields or ends. So every run of the same input switches at the same places. Never serves a
//! system call, and never touches memory.

use super::cpu::Context;
use super::signals::Info;
use super::timers::Timers;
use super::tracked::Rewind;
use serde::{Deserialize, Serialize};

/// Threads that may exist at once.
pub(super) const THREADS_MAX: usize = 256;
/// Signals that may wait for one thread, or for any (`RLIMIT_SIGPENDING`).
const PENDING_MAX: usize = 256;

/// What a thread waits for, besides a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    /// To be woken at a futex word, by a waker of one of these kinds.
    Futex {
        /// Address of the word.
        at: u64,
        /// `FUTEX_BITSET_*`.
        bits: u32,
    },
    /// One of these signals, which `rt_sigtimedwait` then takes.
    Signals(u64),
    /// Something that only another thread can do; then the call is made again.
    Others {
        /// Calls that had been made when this one was.
        calls: u64,
    },
    /// Nothing: it lets the others go first.
    Yield,
    /// Nothing but a moment, or a signal.
    Time,
}

/// A wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wait {
    pub(super) cause: Cause,
    /// Until this moment on the guest's clock.
    pub(super) until: Option<u64>,
    /// What the call returns then; made again where only another thread can end the wait.
    pub(super) timed_out: u64,
    /// A handler with `SA_RESTART` has the call made again.
    pub(super) restarts: bool,
}

/// `sigaltstack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AlternateStack {
    pub(super) base: u64,
    /// 0: there is none.
    pub(super) bytes: u64,
    /// `SS_AUTODISARM`.
    pub(super) disarms: bool,
}

/// `SS_AUTODISARM`.
pub(super) const SS_AUTODISARM: u64 = 1 << 31;

impl AlternateStack {
    /// Whether a stack pointer is on it.
    pub(super) fn holds(&self, rsp: u64) -> bool {
        !self.disarms && rsp > self.base && rsp - self.base <= self.bytes
    }

    /// `ss_flags` as a frame tells them.
    pub(super) fn flags(&self) -> u64 {
        let mode = if self.bytes == 0 { libc::SS_DISABLE as u64 } else { 0 };
        mode | if self.disarms { SS_AUTODISARM } else { 0 }
    }
}

/// The last fault that became a signal, as a frame tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trap {
    pub(super) vector: u64,
    pub(super) error_code: u64,
    /// CR2.
    pub(super) address: u64,
}

/// A call that a signal has ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Interrupted {
    /// The call's number.
    pub(super) nr: u64,
    /// A handler with `SA_RESTART` has it made again.
    pub(super) restarts: bool,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Thread {
    pub(super) id: u64,
    /// Its CPU state; `None` while it runs.
    pub(super) context: Option<Box<Context>>,
    /// The number of its last call, where it waits in one.
    pub(super) call: u64,
    pub(super) wait: Option<Wait>,
    /// RAX when it goes on.
    pub(super) result: u64,
    /// When a wait in a call that is made again is over.
    pub(super) until: Option<u64>,
    pub(super) interrupted: Option<Interrupted>,
    /// Blocked signals, bit `n - 1` for signal `n`.
    pub(super) blocked: u64,
    /// The mask from before a call that has one for its own time.
    pub(super) blocked_before: Option<u64>,
    pub(super) pending: Vec<Info>,
    pub(super) alternate_stack: AlternateStack,
    /// `CLONE_CHILD_CLEARTID` and `set_tid_address`.
    pub(super) clear_id_at: u64,
    /// `set_robust_list`.
    pub(super) robust_list: u64,
    pub(super) trap: Trap,
    pub(super) name: [u8; 16],
}

impl Thread {
    fn new(id: u64, name: [u8; 16]) -> Self {
        Self {
            id,
            context: None,
            call: 0,
            wait: None,
            result: 0,
            until: None,
            interrupted: None,
            blocked: 0,
            blocked_before: None,
            pending: Vec::new(),
            alternate_stack: AlternateStack::default(),
            clear_id_at: 0,
            robust_list: 0,
            trap: Trap::default(),
            name,
        }
    }

    /// A thread that this one makes.
    pub(super) fn child(&self, id: u64, context: Context) -> Self {
        let context = Some(Box::new(context));
        Self { blocked: self.blocked, context, ..Self::new(id, self.name) }
    }

    /// Whether it waits to take a signal of this set.
    pub(super) fn waits_for(&self, set: u64) -> bool {
        matches!(self.wait, Some(Wait { cause: Cause::Signals(wanted), .. }) if wanted & set != 0)
    }

    /// Ends the wait: the call returns `result`.
    fn wake(&mut self, result: u64) {
        self.wait = None;
        self.until = None;
        self.result = result;
    }
}

/// All threads, and what they share of signals and timers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub(super) struct Threads {
    list: Vec<Thread>,
    current: usize,
    next_id: u64,
    /// Calls made since there are several.
    calls: u64,
    /// Signals for whichever thread takes them first.
    pub(super) pending: Vec<Info>,
    pub(super) timers: Timers,
    /// The exit status of the first thread, once it has ended.
    pub(super) status: Option<u8>,
}

/// [`Threads`] as a file has them.
#[derive(Deserialize)]
struct Stored {
    list: Vec<Thread>,
    current: usize,
    next_id: u64,
    calls: u64,
    pending: Vec<Info>,
    timers: Timers,
    status: Option<u8>,
}

impl TryFrom<Stored> for Threads {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored { list, current, next_id, calls, pending, timers, status } = stored;
        let waiting = list.iter().enumerate().all(|(i, t)| t.context.is_none() == (i == current));
        if list.len() > THREADS_MAX || current >= list.len() || !waiting {
            return Err("threads of which not exactly one runs");
        }
        let signals = list.iter().flat_map(|thread| &thread.pending).chain(&pending);
        if signals.into_iter().any(|info| !(1..=64).contains(&info.signal)) {
            return Err("a pending signal that does not exist");
        }
        let rips = list.iter().filter_map(|thread| thread.context.as_ref());
        if rips.into_iter().any(|context| context.regs.rip >= 1 << 47) {
            return Err("a thread outside of user space");
        }
        Ok(Self { list, current, next_id, calls, pending, timers, status })
    }
}

/// How the thread goes on that is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// Its call returns this.
    Return(u64),
    /// Its call, with this number, is made again.
    Again(u64),
    /// A signal ends its call.
    Interrupted,
}

impl Threads {
    pub(super) fn new(first_id: u64) -> Self {
        let mut name = [0; 16];
        name[..6].copy_from_slice(b"dejavm");
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
    pub(super) fn current(&self) -> &Thread {
        // `current` is in range always; a process has a thread as long as it lives.
        &self.list[self.current]
    }

    pub(super) fn current_mut(&mut self) -> &mut Thread {
        &mut self.list[self.current]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Thread> {
        self.list.iter()
    }

    pub(super) fn is_single(&self) -> bool {
        self.list.len() == 1
    }

    pub(super) fn find_mut(&mut self, id: u64) -> Option<&mut Thread> {
        self.list.iter_mut().find(|thread| thread.id == id)
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Adds a thread, whose id is [`next_id`](Self::next_id); false if there are too many.
    pub(super) fn add(&mut self, thread: Thread) -> bool {
        let has_room = self.list.len() < THREADS_MAX;
        if has_room {
            self.next_id += 1;
            self.list.push(thread);
        }
        has_room
    }

    /// A call was made: what waits for others may look again.
    pub(super) fn count_call(&mut self) {
        self.calls = self.calls.wrapping_add(1);
    }

    /// Calls that were made.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Wakes up to `count` threads that wait at a futex word; how many.
    pub(super) fn wake_futex(&mut self, word: u64, bits: u32, count: u64) -> u64 {
        let mut woken = 0;
        let first = self.current + 1;
        let order = (0..self.list.len()).map(|i| (first + i) % self.list.len());
        for index in order.collect::<Vec<_>>() {
            let thread = &mut self.list[index];
            let Some(Wait { cause: Cause::Futex { at, bits: theirs }, .. }) = thread.wait else {
                continue;
            };
            if woken < count && at == word && theirs & bits != 0 {
                thread.wake(0);
                woken += 1;
            }
        }
        woken
    }

    /// Has up to `count` threads that wait at `from` wait at `to` instead; how many.
    pub(super) fn requeue_futex(&mut self, from: u64, to: u64, count: u64) -> u64 {
        let mut moved = 0;
        for thread in &mut self.list {
            if let Some(Wait { cause: Cause::Futex { at, .. }, .. }) = &mut thread.wait
                && *at == from
                && moved < count
            {
                *at = to;
                moved += 1;
            }
        }
        moved
    }

    /// The next thread that can go on, the running one last.
    pub(super) fn next_ready(&self) -> Option<(usize, Ready)> {
        let count = self.list.len();
        let order = (1..=count).map(|i| (self.current + i) % count);
        order.into_iter().find_map(|index| Some((index, self.ready(self.list.get(index)?)?)))
    }

    fn ready(&self, thread: &Thread) -> Option<Ready> {
        let Some(wait) = thread.wait else { return Some(Ready::Return(thread.result)) };
        match wait.cause {
            Cause::Yield => return Some(Ready::Return(0)),
            Cause::Others { calls } if calls != self.calls => {
                return Some(Ready::Again(thread.call));
            }
            Cause::Signals(set) if self.has_pending(thread, set) => {
                return Some(Ready::Again(thread.call));
            }
            _ => {}
        }
        self.has_pending(thread, !thread.blocked).then_some(Ready::Interrupted)
    }

    /// Whether a signal of `set` waits that `thread` can take.
    pub(super) fn has_pending(&self, thread: &Thread, set: u64) -> bool {
        let mut all = thread.pending.iter().chain(&self.pending);
        all.any(|info| bit(info.signal) & set != 0)
    }

    /// When the first wait is over.
    pub(super) fn first_timeout(&self) -> Option<u64> {
        self.list.iter().filter_map(|thread| thread.wait?.until).min()
    }

    /// Ends the waits that are over at `now`.
    pub(super) fn time_out(&mut self, now: u64) {
        for thread in &mut self.list {
            let Some(wait) = thread.wait else { continue };
            if wait.until.is_none_or(|until| until > now) {
                continue;
            }
            match &mut thread.wait {
                Some(Wait { cause: Cause::Others { calls }, .. }) => *calls = u64::MAX,
                _ => thread.wake(wait.timed_out),
            }
        }
    }

    /// Makes thread `index` the running one; its context, if it was not that already.
    pub(super) fn switch_to(&mut self, index: usize) -> Option<Box<Context>> {
        self.current = index;
        self.current_mut().context.take()
    }

    /// Whether `index` is the running thread's.
    pub(super) fn is_current(&self, index: usize) -> bool {
        self.current == index
    }

    /// Takes the running thread away, which has ended and is not the last.
    pub(super) fn remove_current(&mut self) -> Thread {
        let gone = self.list.remove(self.current);
        // The next one in order is at the same place: it is the first to be looked at.
        self.current = self.current.checked_sub(1).unwrap_or(self.list.len() - 1);
        gone
    }

    /// Puts a signal into line, for the thread with this id or for any; false if there are too
    /// many. A standard signal that waits already is not put there twice.
    pub(super) fn queue(&mut self, info: Info, thread: Option<u64>) -> bool {
        let queue = match thread.and_then(|id| self.list.iter_mut().find(|t| t.id == id)) {
            Some(thread) => &mut thread.pending,
            None => &mut self.pending,
        };
        let is_there = info.signal < 32 && queue.iter().any(|other| other.signal == info.signal);
        if !is_there && queue.len() >= PENDING_MAX {
            return false;
        }
        if !is_there {
            queue.push(info);
        }
        true
    }

    /// Takes the next signal of `set` for the running thread: faults first, then by number; the
    /// thread's own first.
    pub(super) fn take_signal(&mut self, set: u64) -> Option<Info> {
        let own = next_in(&self.current().pending, set);
        if let Some(index) = own {
            return Some(self.current_mut().pending.remove(index));
        }
        let index = next_in(&self.pending, set)?;
        Some(self.pending.remove(index))
    }

    /// Forgets pending signals with this number: it is ignored from now on.
    pub(super) fn forget_signal(&mut self, signal: u8) {
        self.pending.retain(|info| info.signal != signal);
        for thread in &mut self.list {
            thread.pending.retain(|info| info.signal != signal);
        }
    }
}

/// Signals that a fault raises; they are delivered before others (`SYNCHRONOUS_MASK`).
const SYNCHRONOUS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGFPE, libc::SIGSYS];

fn next_in(queue: &[Info], set: u64) -> Option<usize> {
    let allowed = queue.iter().enumerate().filter(|(_, info)| bit(info.signal) & set != 0);
    let order = |info: &Info| (!SYNCHRONOUS.contains(&i32::from(info.signal)), info.signal);
    allowed.min_by_key(|(_, info)| order(info)).map(|(index, _)| index)
}

/// A signal's bit in a set.
pub(super) fn bit(signal: u8) -> u64 {
    1u64.checked_shl(u32::from(signal).wrapping_sub(1)).unwrap_or(0)
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
