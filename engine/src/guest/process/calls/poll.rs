//! `poll` and `select`: nothing here ever waits; what is not ready now never will be.

use super::super::errno::{Answer, EBADF, EINVAL, Stop};
use super::super::files::{PIPE_ATOMIC_BYTES, PIPE_BYTES_MAX, Target};
use super::super::memory::UserMemory;
use super::super::{Process, Verdict};
use crate::address::Gva;

const IN: u16 = libc::POLLIN as u16;
const OUT: u16 = libc::POLLOUT as u16;
const HUP: u16 = libc::POLLHUP as u16;
const ERR: u16 = libc::POLLERR as u16;
const INVALID: u16 = libc::POLLNVAL as u16;
/// Events of ordinary files beside `IN` and `OUT`.
const NORMAL: u16 = (libc::POLLRDNORM | libc::POLLWRNORM) as u16;

impl Process {
    /// What is ready on a descriptor of an `epoll` set; nothing on one that was closed.
    pub(super) fn ready_to_watch(&self, fd: u64) -> u32 {
        match self.ready(fd) {
            INVALID => 0,
            ready => u32::from(ready),
        }
    }

    /// What is ready on a descriptor.
    fn ready(&self, fd: u64) -> u16 {
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

    /// The end of a wait that found nothing ready: its time passes, or it lasts for ever.
    pub(super) fn wait_in_vain(&mut self, what: &str, timeout_ns: Option<u64>) -> Answer {
        match timeout_ns {
            Some(ns) => {
                self.scalars.advance(ns);
                Ok(0)
            }
            None => {
                let what = format!("{what} with nothing to wait for");
                Err(Stop::End(Verdict::Unsupported(what)))
            }
        }
    }

    pub(super) fn poll(
        &mut self,
        at: u64,
        count: u64,
        timeout_ms: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let timeout_ms = u64::try_from(timeout_ms as i32).ok();
        self.poll_for(at, count, timeout_ms.map(|ms| ms * 1_000_000), mem)
    }

    pub(super) fn ppoll(
        &mut self,
        at: u64,
        count: u64,
        timeout_at: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let timeout_ns = match timeout_at {
            0 => None,
            at => Some(self.read_timespec(at, mem)?),
        };
        self.poll_for(at, count, timeout_ns, mem)
    }

    fn poll_for(
        &mut self,
        at: u64,
        count: u64,
        timeout_ns: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let count = u64::from(count as u32);
        if count > self.files.table.descriptors_max() as u64 {
            return Err(EINVAL.into());
        }
        let mut ready_count = 0;
        for i in 0..count {
            let entry_at = Gva(at.wrapping_add(i * 8));
            let entry = self.user(mem).read_u64(entry_at)?;
            let (fd, events) = (entry as u32, (entry >> 32) as u16);
            // A negative descriptor stands for an entry to skip.
            let happened = match i32::try_from(fd) {
                Ok(_) => self.ready(u64::from(fd)) & (events | HUP | ERR | INVALID),
                Err(_) => 0,
            };
            ready_count += u64::from(happened != 0);
            let result_at = entry_at.wrapping_add(6);
            self.user(mem).write(result_at, &happened.to_le_bytes())?;
        }
        if ready_count > 0 {
            return Ok(ready_count);
        }
        self.wait_in_vain("poll", timeout_ns)
    }

    /// `select` and `pselect6`; `unit_ns` is what the timeout's second word counts.
    pub(super) fn select(
        &mut self,
        count: u64,
        sets: [u64; 3],
        timeout_at: u64,
        unit_ns: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let count = u64::from(count as u32);
        if count > i32::MAX as u64 {
            return Err(EINVAL.into());
        }
        let words = count.min(self.files.table.descriptors_max() as u64).div_ceil(64);
        let timeout_ns = match timeout_at {
            0 => None,
            at => Some(self.read_timeout(at, unit_ns, mem)?),
        };
        let mut ready_count = 0;
        for (set, wanted) in sets.into_iter().zip([IN | HUP | ERR, OUT | ERR, 0]) {
            if set == 0 {
                continue;
            }
            for word in 0..words {
                let at = Gva(set.wrapping_add(word * 8));
                let asked = self.user(mem).read_u64(at)?;
                let mut answer = 0;
                for bit in (0..64).filter(|bit| asked >> bit & 1 == 1) {
                    let fd = word * 64 + bit;
                    if fd >= count {
                        continue;
                    }
                    let ready = self.ready(fd);
                    if ready == INVALID {
                        return Err(EBADF.into());
                    }
                    if ready & wanted != 0 {
                        answer |= 1 << bit;
                        ready_count += 1;
                    }
                }
                self.user(mem).write(at, &u64::to_le_bytes(answer))?;
            }
        }
        if ready_count > 0 {
            return Ok(ready_count);
        }
        self.wait_in_vain("select", timeout_ns)
    }
}
