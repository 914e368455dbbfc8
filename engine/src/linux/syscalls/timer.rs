//! The calls on timers: `alarm`, `setitimer` and its relatives, `timer_create` and its. All run on
//! the guest's clock, which moves with system calls and with waits, so that a program that only
//! computes never sees one expire.

use crate::address::Gva;
use crate::linux::abi::errno::{EAGAIN, EINVAL};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;
use crate::linux::sched::timers::{Created, Timer};
use crate::linux::syscalls::time::NS_PER_SECOND;

const US_PER_SECOND: u64 = 1_000_000;
const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD_ID: i32 = 4;

impl Process {
    pub(crate) fn sys_alarm(&mut self, seconds: u64) -> SyscallResult {
        let now = self.scalars.clock_ns;
        let (left_ns, _) = self.threads.timers.interval[0].left(now);
        let ns = u64::from(seconds as u32).saturating_mul(NS_PER_SECOND);
        if ns != 0 || left_ns != 0 {
            let next = (ns != 0).then(|| now.saturating_add(ns));
            self.threads.timers.interval[0].arm(next, 0);
        }
        // Linux rounds, and never to nothing.
        let left = (left_ns + NS_PER_SECOND / 2) / NS_PER_SECOND;
        Ok(if left_ns > 0 { left.max(1) } else { 0 })
    }

    /// What the clock of interval timer `which` says.
    fn interval_now(&self, which: usize) -> u64 {
        if which == 0 { self.scalars.clock_ns } else { self.scalars.busy_ns() }
    }

    pub(crate) fn sys_getitimer(
        &mut self,
        which: u64,
        at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let which = which as u32 as usize;
        let timer = *self.threads.timers.interval.get(which).ok_or(EINVAL)?;
        let (left, interval) = timer.left(self.interval_now(which));
        self.write_setting(at, interval, left, NS_PER_SECOND / US_PER_SECOND, mem)
    }

    pub(crate) fn sys_setitimer(
        &mut self,
        which: u64,
        new: Gva,
        old: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let index = which as u32 as usize;
        if index > 2 {
            return Err(EINVAL.into());
        }
        // Linux takes a missing setting for one of zeros.
        let unit_ns = NS_PER_SECOND / US_PER_SECOND;
        let (interval, value) = match new {
            Gva::NULL => (0, 0),
            at => (
                self.read_timeout(at, unit_ns, mem)?,
                self.read_timeout(at.wrapping_add(16), unit_ns, mem)?,
            ),
        };
        if !old.is_null() {
            self.sys_getitimer(which, old, mem)?;
        }
        let next = (value != 0).then(|| self.interval_now(index).saturating_add(value));
        if let Some(timer) = self.threads.timers.interval.get_mut(index) {
            timer.arm(next, interval);
        }
        Ok(0)
    }

    /// `itimerval` or `itimerspec`: the interval, then what is left.
    fn write_setting(
        &mut self,
        at: Gva,
        interval: u64,
        left: u64,
        unit_ns: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let mut bytes = [0; 32];
        let words = [interval, left].into_iter();
        let words = words.flat_map(|ns| [ns / NS_PER_SECOND, ns % NS_PER_SECOND / unit_ns]);
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        self.user(mem).write(at, &bytes)?;
        Ok(0)
    }

    pub(crate) fn sys_timer_create(
        &mut self,
        clock: u64,
        event: Gva,
        id_at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let clock_start = Self::clock_start(clock)?;
        let (mut signal, mut value, mut thread) = (libc::SIGALRM as u8, None, None);
        if !event.is_null() {
            let mut user = self.user(mem);
            value = Some(user.read_u64(event)?);
            let asked = user.read_u32(event.wrapping_add(8))?;
            let notify = user.read_u32(event.wrapping_add(12))? as i32;
            let id = u64::from(user.read_u32(event.wrapping_add(16))?);
            signal = match notify {
                SIGEV_NONE => 0,
                SIGEV_SIGNAL | SIGEV_THREAD_ID if (1..=64).contains(&asked) => asked as u8,
                _ => return Err(EINVAL.into()),
            };
            if notify == SIGEV_THREAD_ID {
                if !self.threads.iter().any(|thread| thread.id == id) {
                    return Err(EINVAL.into());
                }
                thread = Some(id);
            }
        }
        let (timer, overrun) = (Timer::default(), 0);
        let created = Created {
            id: 0,
            timer,
            signal,
            value: value.unwrap_or(0),
            thread,
            clock_start,
            overrun,
        };
        let id = self.threads.timers.create(created).ok_or(EAGAIN)?;
        if value.is_none()
            && let Some(created) = self.threads.timers.created(u64::from(id))
        {
            created.value = u64::from(id);
        }
        if let Err(stop) = self.user(mem).write(id_at, &id.to_le_bytes()) {
            self.threads.timers.delete(u64::from(id));
            return Err(stop.into());
        }
        Ok(0)
    }

    fn timer_of(&mut self, id: u64) -> Result<Created, crate::linux::abi::errno::Errno> {
        self.threads.timers.created(u64::from(id as u32)).map(|created| *created).ok_or(EINVAL)
    }

    pub(crate) fn sys_timer_settime(
        &mut self,
        id: u64,
        flags: u64,
        new: Gva,
        old: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let created = self.timer_of(id)?;
        let interval = self.read_timespec(new, mem)?;
        let value = self.read_timespec(new.wrapping_add(16), mem)?;
        if !old.is_null() {
            self.sys_timer_gettime(id, old, mem)?;
        }
        let now = self.scalars.clock_ns;
        let next = if flags & libc::TIMER_ABSTIME as u64 != 0 {
            value.saturating_sub(created.clock_start.saturating_mul(NS_PER_SECOND))
        } else {
            now.saturating_add(value)
        };
        if let Some(created) = self.threads.timers.created(u64::from(id as u32)) {
            created.timer.arm((value != 0).then_some(next), interval);
        }
        Ok(0)
    }

    pub(crate) fn sys_timer_gettime(
        &mut self,
        id: u64,
        at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let (left, interval) = self.timer_of(id)?.timer.left(self.scalars.clock_ns);
        self.write_setting(at, interval, left, 1, mem)
    }

    pub(crate) fn sys_timer_getoverrun(&mut self, id: u64) -> SyscallResult {
        Ok(u64::from(self.timer_of(id)?.overrun))
    }

    pub(crate) fn sys_timer_delete(&mut self, id: u64) -> SyscallResult {
        let is_there = self.threads.timers.delete(u64::from(id as u32));
        if is_there { Ok(0) } else { Err(EINVAL.into()) }
    }
}
