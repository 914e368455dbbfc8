//! How the process is scheduled: as every ordinary one, on the only CPU and node. Never chooses which
//! thread goes on.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::{EINVAL, ESRCH};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;
use crate::linux::sched::wait::{Cause, Wait};

/// The highest priority of the two policies that have any (`MAX_RT_PRIO` - 1), and the lowest.
const REAL_TIME_MAX: u64 = 99;
const REAL_TIME_MIN: u64 = 1;
/// `getpriority` as the kernel returns it: 20 less the nice value, which is 0.
const PRIORITY: u64 = 20;

/// A limit of a scheduling policy's priorities, `real_time` for the two that have any.
fn priority_of(policy: u64, real_time: u64) -> SyscallResult {
    match policy as i32 {
        libc::SCHED_FIFO | libc::SCHED_RR => Ok(real_time),
        libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE => Ok(0),
        _ => Err(EINVAL.into()),
    }
}

impl Process {
    pub(crate) fn sys_sched_yield(&mut self) -> SyscallResult {
        if self.threads.is_single() {
            return Ok(0);
        }
        let wait = Wait::for_time(None);
        Err(Wait { cause: Cause::Yield, ..wait }.into())
    }

    /// `sched_setaffinity`: to the only CPU.
    pub(crate) fn sys_sched_setaffinity(&self) -> SyscallResult {
        Ok(0)
    }

    pub(crate) fn sys_sched_getscheduler(&self) -> SyscallResult {
        Ok(libc::SCHED_OTHER as u64)
    }

    pub(crate) fn sys_sched_get_priority_max(&self, policy: u64) -> SyscallResult {
        priority_of(policy, REAL_TIME_MAX)
    }

    pub(crate) fn sys_sched_get_priority_min(&self, policy: u64) -> SyscallResult {
        priority_of(policy, REAL_TIME_MIN)
    }

    pub(crate) fn sys_getpriority(&self) -> SyscallResult {
        Ok(PRIORITY)
    }

    pub(crate) fn sys_sched_getaffinity(
        &mut self,
        thread: u64,
        len: u64,
        at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let thread = u64::from(thread as u32);
        if thread != 0 && !self.threads.iter().any(|other| other.id == thread) {
            return Err(ESRCH.into());
        }
        if len < 8 || !len.is_multiple_of(8) {
            return Err(EINVAL.into());
        }
        self.user(mem).write(at, &1u64.to_le_bytes())?;
        Ok(8)
    }

    /// `sched_getparam`: ordinary scheduling has no priority.
    pub(crate) fn sys_sched_getparam(
        &mut self,
        at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.user(mem).write(at, &[0; 4])?;
        Ok(0)
    }

    pub(crate) fn sys_getcpu(
        &mut self,
        cpu: Gva,
        node: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        for at in [cpu, node] {
            if !at.is_null() {
                self.user(mem).write(at, &[0; 4])?;
            }
        }
        Ok(0)
    }

    /// `sched_getattr`: ordinary scheduling, in the fields of the structure's first version.
    pub(crate) fn sys_sched_getattr(
        &mut self,
        at: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        const FIRST_VERSION_BYTES: u32 = 48;
        if !(FIRST_VERSION_BYTES.into()..=PAGE_SIZE as u64).contains(&len) {
            return Err(EINVAL.into());
        }
        let mut bytes = [0; FIRST_VERSION_BYTES as usize];
        bytes[..4].copy_from_slice(&FIRST_VERSION_BYTES.to_le_bytes());
        self.user(mem).write(at, &bytes)?;
        Ok(0)
    }

    /// `get_mempolicy`: the default one, on the only node.
    pub(crate) fn sys_get_mempolicy(
        &mut self,
        policy: Gva,
        nodes: Gva,
        nodes_max: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        const MPOL_F_MEMS_ALLOWED: u64 = 4;
        let allowed = match flags {
            0 => 0u64,
            MPOL_F_MEMS_ALLOWED => 1,
            _ => return Err(EINVAL.into()),
        };
        let mut user = self.user(mem);
        if !policy.is_null() {
            user.write(policy, &[0; 4])?;
        }
        if !nodes.is_null() {
            let bytes = nodes_max.div_ceil(64).saturating_mul(8);
            if !(8..=PAGE_SIZE as u64).contains(&bytes) {
                return Err(EINVAL.into());
            }
            let mut mask = vec![0; bytes as usize];
            mask[..8].copy_from_slice(&allowed.to_le_bytes());
            user.write(nodes, &mask)?;
        }
        Ok(0)
    }
}
