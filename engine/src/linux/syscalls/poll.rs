//! `poll` and `select`: what is not ready now only another thread can make ready.

use crate::address::Gva;
use crate::linux::abi::errno::{EBADF, EINVAL};
use crate::linux::abi::fd::Fd;
use crate::linux::fs::table::{PIPE_ATOMIC_BYTES, PIPE_BYTES_MAX, Target};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};
use crate::linux::sched::wait::Wait;

/// What `timeval` counts beside seconds, in nanoseconds.
const NS_PER_US: u64 = 1_000;

const IN: u16 = libc::POLLIN as u16;
const OUT: u16 = libc::POLLOUT as u16;
const HUP: u16 = libc::POLLHUP as u16;
const ERR: u16 = libc::POLLERR as u16;
const INVALID: u16 = libc::POLLNVAL as u16;
/// Events of ordinary files beside `IN` and `OUT`.
const NORMAL: u16 = (libc::POLLRDNORM | libc::POLLWRNORM) as u16;

impl Process {
    /// What is ready on a descriptor of an `epoll` set; nothing on one that was closed.
    pub(crate) fn ready_to_watch(&self, fd: Fd) -> u32 {
        match self.ready(fd) {
            INVALID => 0,
            ready => u32::from(ready),
        }
    }

    /// What is ready on a descriptor.
    fn ready(&self, fd: Fd) -> u16 {
        let Ok(open) = self.files.table.get(fd) else { return INVALID };
        let pipe = |index| self.files.table.pipe(index);
        match open.target {
            Target::Node(_) => IN | OUT | NORMAL,
            Target::Stdout | Target::Stderr => OUT | libc::POLLWRNORM as u16,
            Target::Event(index) => {
                let count = self.files.table.event(index).map_or(0, |event| event.count);
                let readable = if count > 0 { IN } else { 0 };
                readable | if count < u64::MAX - 1 { OUT } else { 0 }
            }
            Target::Watch(index) => {
                let interests = self.files.table.watch(index).into_iter().flatten();
                // A set holds no sets, so that this goes no deeper.
                let mut ready = interests
                    .filter(|(_, interest)| interest.armed)
                    .map(|(fd, interest)| self.ready_to_watch(*fd) & interest.events);
                if ready.any(|ready| ready != 0) { IN | libc::POLLRDNORM as u16 } else { 0 }
            }
            Target::PipeReader(index) => match pipe(index) {
                Some(pipe) => {
                    let data =
                        if pipe.bytes.0.is_empty() { 0 } else { IN | libc::POLLRDNORM as u16 };
                    data | if pipe.writers == 0 { HUP } else { 0 }
                }
                None => HUP,
            },
            Target::PipeWriter(index) => match pipe(index) {
                Some(pipe)
                    if pipe.readers > 0
                        && pipe.bytes.0.len() <= PIPE_BYTES_MAX - PIPE_ATOMIC_BYTES =>
                {
                    OUT
                }
                Some(pipe) if pipe.readers > 0 => 0,
                _ => ERR | OUT,
            },
        }
    }

    /// What to do when nothing is ready: `None` if the time is over that there is to wait.
    pub(crate) fn wait_for_ready(&self, timeout_ns: Option<u64>) -> Option<SyscallStop> {
        let now = self.scalars.clock_ns;
        let until = self.until(timeout_ns.map(|ns| now.saturating_add(ns)));
        let is_over = until.is_some_and(|until| until <= now);
        // Linux never makes these again by itself (signal(7)).
        let wait = Wait { restarts: false, ..Wait::for_others(self.threads.calls(), until) };
        (!is_over).then(|| wait.into())
    }

    pub(crate) fn sys_poll(
        &mut self,
        at: Gva,
        count: u64,
        timeout_ms: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let timeout_ms = u64::try_from(timeout_ms as i32).ok();
        self.poll_for(at, count, timeout_ms.map(|ms| ms * 1_000_000), mem)
    }

    pub(crate) fn sys_ppoll(
        &mut self,
        at: Gva,
        count: u64,
        timeout_at: Gva,
        (set, set_bytes): (Gva, u64),
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let timeout_ns = match timeout_at {
            Gva::NULL => None,
            at => Some(self.read_timespec(at, mem)?),
        };
        if !set.is_null() {
            let set = self.read_set(set, set_bytes, mem)?;
            self.set_mask_for_call(set);
        }
        self.poll_for(at, count, timeout_ns, mem)
    }

    fn poll_for(
        &mut self,
        at: Gva,
        count: u64,
        timeout_ns: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let count = u64::from(count as u32);
        if count > self.files.table.descriptors_max() as u64 {
            return Err(EINVAL.into());
        }
        let mut ready_count = 0;
        for i in 0..count {
            let entry_at = at.wrapping_add(i * 8);
            let entry = self.user(mem).read_u64(entry_at)?;
            let (fd, events) = (entry as u32, (entry >> 32) as u16);
            // A negative descriptor stands for an entry to skip.
            let happened = match i32::try_from(fd) {
                Ok(_) => {
                    self.ready(Fd::from_register(u64::from(fd))) & (events | HUP | ERR | INVALID)
                }
                Err(_) => 0,
            };
            ready_count += u64::from(happened != 0);
            let result_at = entry_at.wrapping_add(6);
            self.user(mem).write(result_at, &happened.to_le_bytes())?;
        }
        if ready_count > 0 {
            return Ok(ready_count);
        }
        match self.wait_for_ready(timeout_ns) {
            Some(wait) => Err(wait),
            None => Ok(0),
        }
    }

    pub(crate) fn sys_select(
        &mut self,
        count: u64,
        sets: [Gva; 3],
        timeout_at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.select_for(count, sets, timeout_at, NS_PER_US, mem)
    }

    /// `pselect6`, with the address of a signal set and its size at `set_at`.
    pub(crate) fn sys_pselect6(
        &mut self,
        count: u64,
        sets: [Gva; 3],
        timeout_at: Gva,
        set_at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if !set_at.is_null() {
            let set = Gva(self.user(mem).read_u64(set_at)?);
            let set_bytes = self.user(mem).read_u64(set_at.wrapping_add(8))?;
            if !set.is_null() {
                let set = self.read_set(set, set_bytes, mem)?;
                self.set_mask_for_call(set);
            }
        }
        self.select_for(count, sets, timeout_at, 1, mem)
    }

    /// `select` and `pselect6`; `unit_ns` is what the timeout's second word counts.
    fn select_for(
        &mut self,
        count: u64,
        sets: [Gva; 3],
        timeout_at: Gva,
        unit_ns: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let count = u64::from(count as u32);
        if count > i32::MAX as u64 {
            return Err(EINVAL.into());
        }
        let words = count.min(self.files.table.descriptors_max() as u64).div_ceil(64);
        let timeout_ns = match timeout_at {
            Gva::NULL => None,
            at => Some(self.read_timeout(at, unit_ns, mem)?),
        };
        let mut ready_count = 0;
        let mut answers = Vec::new();
        for (set, wanted) in sets.into_iter().zip([IN | HUP | ERR, OUT | ERR, 0]) {
            for word in (0..words).filter(|_| !set.is_null()) {
                let at = set.wrapping_add(word * 8);
                let asked = self.user(mem).read_u64(at)?;
                let mut answer = 0u64;
                for bit in (0..64).filter(|bit| asked >> bit & 1 == 1) {
                    let fd = word * 64 + bit;
                    if fd >= count {
                        continue;
                    }
                    let ready = self.ready(Fd::from_register(fd));
                    if ready == INVALID {
                        return Err(EBADF.into());
                    }
                    if ready & wanted != 0 {
                        answer |= 1 << bit;
                        ready_count += 1;
                    }
                }
                answers.push((at, answer));
            }
        }
        // The sets stay as they are while there is still something to wait for.
        if ready_count == 0
            && let Some(wait) = self.wait_for_ready(timeout_ns)
        {
            return Err(wait);
        }
        for (at, answer) in answers {
            self.user(mem).write(at, &answer.to_le_bytes())?;
        }
        Ok(ready_count)
    }
}
