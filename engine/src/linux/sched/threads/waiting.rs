//! What ends the threads' waits, and which thread goes on next.
//!
//! Never switches to a thread and never lets time pass: `entry` does.

use crate::address::Gva;
use crate::linux::sched::thread::Thread;
use crate::linux::sched::threads::Threads;
use crate::linux::sched::wait::{Cause, Ready, Wait};

impl Threads {
    /// Wakes up to `count` threads that wait at a futex word; how many.
    pub(crate) fn wake_futex(&mut self, word: Gva, bits: u32, count: u64) -> u64 {
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
    pub(crate) fn requeue_futex(&mut self, from: Gva, to: Gva, count: u64) -> u64 {
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
    pub(crate) fn next_ready(&self) -> Option<(usize, Ready)> {
        let count = self.list.len();
        let order = (1..=count).map(|i| (self.current + i) % count);
        order.into_iter().find_map(|index| Some((index, self.ready(self.list.get(index)?)?)))
    }

    /// Whether another thread than the running one can go on, now or when its wait is over.
    pub(crate) fn others_can_go_on(&self) -> bool {
        self.list.iter().enumerate().any(|(index, thread)| {
            let ends = thread.wait.is_some_and(|wait| wait.until.is_some());
            !self.is_current(index) && (ends || self.ready(thread).is_some())
        })
    }

    fn ready(&self, thread: &Thread) -> Option<Ready> {
        let Some(wait) = thread.wait else { return Some(Ready::Return(thread.result)) };
        match wait.cause {
            Cause::Yield => return Some(Ready::Return(0)),
            Cause::Slice => return Some(Ready::Preempted),
            Cause::Others { calls } if calls != self.calls => {
                return Some(Ready::Again);
            }
            Cause::Signals(set) if self.has_pending(thread, set) => {
                return Some(Ready::Again);
            }
            _ => {}
        }
        self.has_pending(thread, !thread.blocked).then_some(Ready::Interrupted)
    }

    /// When the first wait is over.
    pub(crate) fn first_timeout(&self) -> Option<u64> {
        self.list.iter().filter_map(|thread| thread.wait?.until).min()
    }

    /// Ends the waits that are over at `now`.
    pub(crate) fn time_out(&mut self, now: u64) {
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
}
