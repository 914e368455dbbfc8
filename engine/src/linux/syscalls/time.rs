//! The guest's clock: starts at a fixed moment, advances a little with every system call, and by
//! what the guest sleeps. Never reads the host's clock, so that every run sees the same times.

use crate::address::Gva;
use crate::linux::abi::errno::EINVAL;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};
use crate::linux::sched::wait::Wait;

/// Wall-clock time at boot: the start of 2024, UTC.
pub(crate) const EPOCH_SECONDS: u64 = 1_704_067_200;
/// Monotonic time at boot, as if the system had been up for a while.
pub(crate) const UPTIME_SECONDS: u64 = 1_000;
pub(crate) const NS_PER_SECOND: u64 = 1_000_000_000;

/// Two words, as `timespec` and `timeval` are.
fn pair(first: u64, second: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..].copy_from_slice(&second.to_le_bytes());
    bytes
}

impl Process {
    /// Seconds and nanoseconds on a clock that read `start_seconds` at boot; 0 for a CPU clock.
    fn now(&self, start_seconds: u64) -> (u64, u64) {
        let ns = if start_seconds == 0 { self.scalars.busy_ns() } else { self.scalars.clock_ns };
        (start_seconds.saturating_add(ns / NS_PER_SECOND), ns % NS_PER_SECOND)
    }

    /// Where a clock stood at boot.
    pub(crate) fn clock_start(clock: u64) -> Result<u64, SyscallStop> {
        match clock as i32 {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => {
                Ok(EPOCH_SECONDS)
            }
            libc::CLOCK_MONOTONIC
            | libc::CLOCK_MONOTONIC_RAW
            | libc::CLOCK_MONOTONIC_COARSE
            | libc::CLOCK_BOOTTIME => Ok(UPTIME_SECONDS),
            libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID => Ok(0),
            // Negative numbers name the CPU clock of a process: only this one exists.
            clock if clock < 0 => Ok(0),
            _ => Err(EINVAL.into()),
        }
    }

    pub(crate) fn sys_clock_gettime(
        &mut self,
        clock: u64,
        at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let (seconds, ns) = self.now(Self::clock_start(clock)?);
        self.user(mem).write(at, &pair(seconds, ns))?;
        Ok(0)
    }

    pub(crate) fn sys_clock_getres(
        &mut self,
        clock: u64,
        at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        Self::clock_start(clock)?;
        if !at.is_null() {
            self.user(mem).write(at, &pair(0, 1))?;
        }
        Ok(0)
    }

    pub(crate) fn sys_gettimeofday(
        &mut self,
        at: Gva,
        zone: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let (seconds, ns) = self.now(EPOCH_SECONDS);
        if !at.is_null() {
            self.user(mem).write(at, &pair(seconds, ns / 1_000))?;
        }
        if !zone.is_null() {
            self.user(mem).write(zone, &[0; 8])?;
        }
        Ok(0)
    }

    pub(crate) fn sys_time(&mut self, at: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        let (seconds, _) = self.now(EPOCH_SECONDS);
        if !at.is_null() {
            self.user(mem).write(at, &seconds.to_le_bytes())?;
        }
        Ok(seconds)
    }

    pub(crate) fn sys_times(&mut self, at: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        let ticks = self.scalars.clock_ns / 10_000_000;
        if !at.is_null() {
            let busy = self.scalars.busy_ns() / 10_000_000;
            self.user(mem).write(at, &pair(busy, 0))?;
            self.user(mem).write(at.wrapping_add(16), &pair(0, 0))?;
        }
        Ok(ticks)
    }

    pub(crate) fn sys_getrusage(
        &mut self,
        who: u64,
        at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if !matches!(who as i32, -1..=1) {
            return Err(EINVAL.into());
        }
        let mut bytes = [0; 144];
        if who as i32 != libc::RUSAGE_CHILDREN {
            let (seconds, ns) = self.now(0);
            bytes[..16].copy_from_slice(&pair(seconds, ns / 1_000));
        }
        self.user(mem).write(at, &bytes)?;
        Ok(0)
    }

    /// A `timespec` as nanoseconds.
    pub(crate) fn read_timespec(&mut self, at: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        self.read_timeout(at, 1, mem)
    }

    /// Seconds and a fraction counted in `unit_ns`, as nanoseconds.
    pub(crate) fn read_timeout(
        &mut self,
        at: Gva,
        unit_ns: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let mut user = self.user(mem);
        let seconds = user.read_u64(at)?;
        let fraction = user.read_u64(at.wrapping_add(8))?;
        if seconds > i64::MAX as u64 || fraction >= NS_PER_SECOND / unit_ns.max(1) {
            return Err(EINVAL.into());
        }
        Ok(seconds.saturating_mul(NS_PER_SECOND).saturating_add(fraction * unit_ns))
    }

    pub(crate) fn sys_nanosleep(
        &mut self,
        at: Gva,
        left_at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let ns = self.read_timespec(at, mem)?;
        let until = self.scalars.clock_ns.saturating_add(ns);
        self.sleep_until(until, left_at, mem)
    }

    /// A signal that ends the sleep finds, at `left_at`, how much was left.
    fn sleep_until(&mut self, until: u64, left_at: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        let left = until.saturating_sub(self.scalars.clock_ns);
        let timer = self.threads.timers.next().filter(|timer| *timer < until);
        if let (Some(timer), true) = (timer, !left_at.is_null()) {
            let left = until.saturating_sub(timer);
            let bytes = pair(left / NS_PER_SECOND, left % NS_PER_SECOND);
            self.user(mem).write(left_at, &bytes)?;
        }
        if left == 0 {
            return Ok(0);
        }
        Err(Wait::for_time(Some(until)).into())
    }

    pub(crate) fn sys_clock_nanosleep(
        &mut self,
        clock: u64,
        flags: u64,
        at: Gva,
        left_at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let start = Self::clock_start(clock)?;
        let ns = self.read_timespec(at, mem)?;
        if flags & libc::TIMER_ABSTIME as u64 != 0 {
            let until = ns.saturating_sub(start.saturating_mul(NS_PER_SECOND));
            return self.sleep_until(until, Gva::NULL, mem);
        }
        let until = self.scalars.clock_ns.saturating_add(ns);
        self.sleep_until(until, left_at, mem)
    }
}
