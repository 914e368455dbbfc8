//! Futexes: words that threads wait at. Never touches a thread's state but to make it wait or to
//! wake it.

use crate::address::Gva;
use crate::linux::abi::errno::{EAGAIN, EINVAL, ENOSYS, ETIMEDOUT};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;
use crate::linux::sched::wait::{Cause, Wait};
use crate::linux::syscalls::time::{EPOCH_SECONDS, NS_PER_SECOND, UPTIME_SECONDS};

/// `FUTEX_BITSET_MATCH_ANY`.
const ANY: u32 = u32::MAX;
/// Threads in a robust list that the end of a thread looks at (`ROBUST_LIST_LIMIT`).
const ROBUST_MAX: usize = 2048;
const FUTEX_WAITERS: u32 = 1 << 31;
const FUTEX_OWNER_DIED: u32 = 1 << 30;
const FUTEX_TID_MASK: u32 = FUTEX_OWNER_DIED - 1;

/// Whether a futex word can be at `at`.
const fn is_aligned(at: Gva) -> bool {
    at.0.is_multiple_of(4)
}

/// `op` and `cmp` of `FUTEX_WAKE_OP`, packed in its last argument.
struct WakeOperation(u32);

impl WakeOperation {
    fn arguments(&self) -> (i32, i32) {
        // Both are signed and 12 bits long.
        let signed = |bits: u32| (bits << 20) as i32 >> 20;
        (signed(self.0 >> 12 & 0xfff), signed(self.0 & 0xfff))
    }

    /// The word's new value; `None` for an operation that does not exist.
    fn apply(&self, old: u32) -> Option<u32> {
        let (argument, _) = self.arguments();
        let shifts = self.0 >> 31 == 1;
        let argument = if shifts { 1u32 << (argument & 31) } else { argument as u32 };
        Some(match (self.0 >> 28 & 7) as i32 {
            libc::FUTEX_OP_SET => argument,
            libc::FUTEX_OP_ADD => old.wrapping_add(argument),
            libc::FUTEX_OP_OR => old | argument,
            libc::FUTEX_OP_ANDN => old & !argument,
            libc::FUTEX_OP_XOR => old ^ argument,
            _ => return None,
        })
    }

    fn compare(&self, old: u32) -> Option<bool> {
        let (_, than) = self.arguments();
        let old = old as i32;
        Some(match (self.0 >> 24 & 0xf) as i32 {
            libc::FUTEX_OP_CMP_EQ => old == than,
            libc::FUTEX_OP_CMP_NE => old != than,
            libc::FUTEX_OP_CMP_LT => old < than,
            libc::FUTEX_OP_CMP_LE => old <= than,
            libc::FUTEX_OP_CMP_GT => old > than,
            libc::FUTEX_OP_CMP_GE => old >= than,
            _ => return None,
        })
    }
}

impl Process {
    pub(crate) fn sys_futex(&mut self, args: [u64; 6], mem: &mut dyn UserMemory) -> SyscallResult {
        let [at, operation, value, fourth, other, last] = args;
        let (at, other) = (Gva(at), Gva(other));
        let flags = libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME;
        let operation = operation as i32;
        let command = operation & !flags;
        if !is_aligned(at) {
            return Err(EINVAL.into());
        }
        match command {
            libc::FUTEX_WAIT => self.futex_wait(at, value as u32, ANY, Gva(fourth), operation, mem),
            libc::FUTEX_WAIT_BITSET if last as u32 == 0 => Err(EINVAL.into()),
            libc::FUTEX_WAIT_BITSET => {
                self.futex_wait(at, value as u32, last as u32, Gva(fourth), operation, mem)
            }
            libc::FUTEX_WAKE => Ok(self.wake(at, ANY, value)),
            libc::FUTEX_WAKE_BITSET if last as u32 == 0 => Err(EINVAL.into()),
            libc::FUTEX_WAKE_BITSET => Ok(self.wake(at, last as u32, value)),
            libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE => {
                if value as i32 | fourth as i32 <= -1 || !is_aligned(other) {
                    return Err(EINVAL.into());
                }
                let is_compared = command == libc::FUTEX_CMP_REQUEUE;
                if is_compared && self.user(mem).read_u32(at)? != last as u32 {
                    return Err(EAGAIN.into());
                }
                let woken = self.wake(at, ANY, value & 0xffff_ffff);
                if self.threads.is_single() {
                    return Ok(woken);
                }
                let moved = self.threads.requeue_futex(at, other, fourth & 0xffff_ffff);
                Ok(woken + if is_compared { moved } else { 0 })
            }
            libc::FUTEX_WAKE_OP => self.wake_and_change(args, mem),
            _ => Err(ENOSYS.into()),
        }
    }

    fn wake(&mut self, at: Gva, bits: u32, count: u64) -> u64 {
        if self.threads.is_single() {
            return 0;
        }
        // Linux wakes one even where none is asked for.
        self.threads.wake_futex(at, bits, u64::from(count as u32).max(1))
    }

    fn futex_wait(
        &mut self,
        at: Gva,
        value: u32,
        bits: u32,
        timeout_at: Gva,
        operation: i32,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let timeout_ns = match timeout_at {
            Gva::NULL => None,
            at => Some(self.read_timespec(at, mem)?),
        };
        if self.user(mem).read_u32(at)? != value {
            return Err(EAGAIN.into());
        }
        // The bitset form gives a moment, the other a duration.
        let is_moment = operation & 0xf == libc::FUTEX_WAIT_BITSET;
        let is_real = operation & libc::FUTEX_CLOCK_REALTIME != 0;
        let start = if is_real { EPOCH_SECONDS } else { UPTIME_SECONDS } * NS_PER_SECOND;
        let until = timeout_ns.map(|ns| match is_moment {
            true => ns.saturating_sub(start),
            false => self.scalars.clock_ns.saturating_add(ns),
        });
        if until.is_some_and(|until| until <= self.scalars.clock_ns) {
            return Err(ETIMEDOUT.into());
        }
        let wait = Wait::for_time(until);
        let (cause, timed_out) = (Cause::Futex { at, bits }, ETIMEDOUT.to_return());
        Err(Wait { cause, timed_out, restarts: until.is_none(), ..wait }.into())
    }

    /// `FUTEX_WAKE_OP`.
    fn wake_and_change(&mut self, args: [u64; 6], mem: &mut dyn UserMemory) -> SyscallResult {
        let [at, _, count, count_other, other, operation] = args;
        let (at, other) = (Gva(at), Gva(other));
        if !is_aligned(other) {
            return Err(EINVAL.into());
        }
        let operation = WakeOperation(operation as u32);
        let old = self.user(mem).read_u32(other)?;
        let new = operation.apply(old).ok_or(ENOSYS)?;
        self.user(mem).write(other, &new.to_le_bytes())?;
        let wakes_other = operation.compare(old).ok_or(ENOSYS)?;
        let woken = self.wake(at, ANY, count);
        Ok(woken + if wakes_other { self.wake(other, ANY, count_other) } else { 0 })
    }

    /// What Linux does with the futexes that a thread held when it ended (`exit_robust_list`).
    /// Its list may be anything.
    pub(crate) fn release_robust_list(&mut self, head: Gva, id: u64, mem: &mut dyn UserMemory) {
        let word =
            |process: &Self, at: Gva, mem: &mut dyn UserMemory| process.user(mem).read_u64(at).ok();
        let Some(mut entry) = word(self, head, mem) else { return };
        let Some(offset) = word(self, head.wrapping_add(8), mem) else { return };
        let pending = word(self, head.wrapping_add(16), mem).unwrap_or(0);
        for _ in 0..ROBUST_MAX {
            if entry == head.0 {
                break;
            }
            // The lowest bit marks a mutex with priority inheritance.
            let next = word(self, Gva(entry & !1), mem);
            if entry != pending {
                self.release(Gva(entry.wrapping_add(offset) & !1), id, mem);
            }
            let Some(next) = next else { break };
            entry = next;
        }
        if pending != 0 {
            self.release(Gva(pending.wrapping_add(offset) & !1), id, mem);
        }
    }

    fn release(&mut self, at: Gva, id: u64, mem: &mut dyn UserMemory) {
        let Ok(value) = self.user(mem).read_u32(at) else { return };
        if u64::from(value & FUTEX_TID_MASK) != id {
            return;
        }
        let released = value & FUTEX_WAITERS | FUTEX_OWNER_DIED;
        let written = self.user(mem).write(at, &released.to_le_bytes());
        if written.is_ok() && value & FUTEX_WAITERS != 0 {
            self.wake(at, ANY, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_of_wake_op_is_unpacked() {
        // op = ADD (1), cmp = GT (4), oparg = 3, cmparg = -1.
        let operation = WakeOperation(1 << 28 | 4 << 24 | 3 << 12 | 0xfff);
        assert_eq!(operation.arguments(), (3, -1));
        assert_eq!((operation.apply(7), operation.compare(7)), (Some(10), Some(true)));
        assert_eq!(operation.compare(u32::MAX), Some(false));
        let shifted = WakeOperation(1 << 31 | 2 << 28 | 5 << 12);
        assert_eq!(shifted.apply(1), Some(33));
        assert_eq!(WakeOperation(5 << 28).apply(0), None);
    }
}
