//! Who the process is and where it runs: names, numbers, limits, random bytes. All made up, and
//! the same on every host.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::{EINVAL, EPERM, ESRCH};
use crate::linux::abi::ids::PROCESS_ID;
use crate::linux::abi::syscall::DEVICE_BYTES_MAX;
use crate::linux::cpu::Cpu;
use crate::linux::mm::bounds::USER_END;
use crate::linux::mm::uaccess::UserError;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;
use crate::linux::syscalls::capability;

/// How late a timer may be by default (`init_task.timer_slack_ns`); none is late here.
const TIMER_SLACK_NS: u64 = 50_000;

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;

/// A limit of a scheduling policy's priorities, `real_time` for the two that have any.
pub(crate) fn priority_of(policy: u64, real_time: u64) -> SyscallResult {
    match policy as i32 {
        libc::SCHED_FIFO | libc::SCHED_RR => Ok(real_time),
        libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE => Ok(0),
        _ => Err(EINVAL.into()),
    }
}

impl Process {
    pub(crate) fn arch_prctl(
        &mut self,
        operation: u64,
        base: u64,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallResult {
        let [fs, gs] = cpu.bases();
        match operation {
            ARCH_SET_FS | ARCH_SET_GS if base >= USER_END => return Err(EPERM.into()),
            ARCH_SET_FS => cpu.set_bases([base, gs]),
            ARCH_SET_GS => cpu.set_bases([fs, base]),
            ARCH_GET_FS => self.user(mem).write(Gva(base), &fs.to_le_bytes())?,
            ARCH_GET_GS => self.user(mem).write(Gva(base), &gs.to_le_bytes())?,
            _ => return Err(EINVAL.into()),
        }
        Ok(0)
    }

    pub(crate) fn prctl(
        &mut self,
        operation: u64,
        arg: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        match operation as i32 {
            libc::PR_SET_NAME => {
                let mut name = [0; 16];
                for (i, byte) in name.iter_mut().take(15).enumerate() {
                    let mut one = [0];
                    self.user(mem).read(Gva(arg.wrapping_add(i as u64)), &mut one)?;
                    if one == [0] {
                        break;
                    }
                    *byte = one[0];
                }
                self.threads.current_mut().name = name;
                Ok(0)
            }
            libc::PR_GET_NAME => {
                let name = self.threads.current().name;
                self.user(mem).write(Gva(arg), &name)?;
                Ok(0)
            }
            libc::PR_GET_DUMPABLE => Ok(1),
            libc::PR_GET_NO_NEW_PRIVS
            | libc::PR_GET_SECCOMP
            | libc::PR_GET_KEEPCAPS
            | libc::PR_GET_SECUREBITS
            | libc::PR_GET_THP_DISABLE => Ok(0),
            libc::PR_GET_TIMERSLACK => Ok(TIMER_SLACK_NS),
            libc::PR_CAPBSET_READ => capability::in_bounding_set(arg),
            libc::PR_SET_DUMPABLE
            | libc::PR_SET_PDEATHSIG
            | libc::PR_SET_NO_NEW_PRIVS
            | libc::PR_SET_PTRACER
            | libc::PR_SET_THP_DISABLE
            | libc::PR_SET_TIMERSLACK => Ok(0),
            _ => Err(EINVAL.into()),
        }
    }

    pub(crate) fn get_random(
        &mut self,
        at: u64,
        len: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let both = u64::from(libc::GRND_RANDOM) | 4;
        if flags & !7 != 0 || flags & both == both {
            return Err(EINVAL.into());
        }
        let len = len.min(DEVICE_BYTES_MAX);
        let mut done = 0;
        while done < len {
            let mut chunk = [0; PAGE_SIZE];
            let part = (len - done).min(PAGE_SIZE as u64) as usize;
            let chunk = chunk.get_mut(..part).unwrap_or_default();
            self.scalars.fill_random(chunk);
            let (copied, stop) = self.user(mem).write_some(Gva(at.wrapping_add(done)), chunk);
            done += copied as u64;
            match stop {
                Some(UserError::Errno(_)) if done > 0 => break,
                Some(stop) => return Err(stop.into()),
                None => {}
            }
        }
        Ok(done)
    }

    pub(crate) fn uname(&mut self, at: u64, mem: &mut dyn UserMemory) -> SyscallResult {
        const FIELD_BYTES: usize = 65;
        let fields = ["Linux", "dejavm", "6.1.0", "#1 SMP dejavm", "x86_64", "(none)"];
        let mut bytes = [0; FIELD_BYTES * 6];
        for (to, text) in bytes.chunks_exact_mut(FIELD_BYTES).zip(fields) {
            for (to, from) in to.iter_mut().zip(text.bytes()) {
                *to = from;
            }
        }
        self.user(mem).write(Gva(at), &bytes)?;
        Ok(0)
    }

    pub(crate) fn sysinfo(&mut self, at: u64, mem: &mut dyn UserMemory) -> SyscallResult {
        let uptime = 1_000 + self.scalars.clock_ns / 1_000_000_000;
        let total = self.ram_bytes;
        let free = mem.frames_free().saturating_mul(PAGE_SIZE as u64).min(total);
        let words = [uptime, 0, 0, 0, total, free, 0, 0, 0, 0, 1, 0, 0, 1];
        let mut bytes = [0; 112];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        self.user(mem).write(Gva(at), &bytes)?;
        Ok(0)
    }

    /// `prlimit64`; limits are recorded, and what the engine enforces does not depend on them.
    pub(crate) fn prlimit(
        &mut self,
        process: u64,
        resource: u64,
        new: u64,
        old: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if process as u32 != 0 && u64::from(process as u32) != PROCESS_ID {
            return Err(ESRCH.into());
        }
        let index = resource as u32 as usize;
        let present = self.settings.resources.get(index).copied().ok_or(EINVAL)?;
        let mut user = self.user(mem);
        let mut wanted = None;
        if new != 0 {
            let soft = user.read_u64(Gva(new))?;
            let hard = user.read_u64(Gva(new.wrapping_add(8)))?;
            if soft > hard {
                return Err(EINVAL.into());
            }
            if hard > present.1 {
                return Err(EPERM.into());
            }
            wanted = Some((soft, hard));
        }
        if old != 0 {
            user.write(Gva(old), &present.0.to_le_bytes())?;
            user.write(Gva(old.wrapping_add(8)), &present.1.to_le_bytes())?;
        }
        if let (Some(wanted), Some(slot)) = (wanted, self.settings.resources.get_mut(index)) {
            *slot = wanted;
        }
        Ok(0)
    }

    pub(crate) fn get_affinity(
        &mut self,
        thread: u64,
        len: u64,
        at: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let thread = u64::from(thread as u32);
        if thread != 0 && !self.threads.iter().any(|other| other.id == thread) {
            return Err(ESRCH.into());
        }
        if len < 8 || !len.is_multiple_of(8) {
            return Err(EINVAL.into());
        }
        self.user(mem).write(Gva(at), &1u64.to_le_bytes())?;
        Ok(8)
    }

    /// `sched_getparam`: ordinary scheduling has no priority.
    pub(crate) fn get_scheduling(&mut self, at: u64, mem: &mut dyn UserMemory) -> SyscallResult {
        self.user(mem).write(Gva(at), &[0; 4])?;
        Ok(0)
    }

    pub(crate) fn get_cpu(
        &mut self,
        cpu: u64,
        node: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        for at in [cpu, node] {
            if at != 0 {
                self.user(mem).write(Gva(at), &[0; 4])?;
            }
        }
        Ok(0)
    }

    /// `sched_getattr`: ordinary scheduling, in the fields of the structure's first version.
    pub(crate) fn get_scheduling_attributes(
        &mut self,
        at: u64,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        const FIRST_VERSION_BYTES: u32 = 48;
        if !(FIRST_VERSION_BYTES.into()..=PAGE_SIZE as u64).contains(&len) {
            return Err(EINVAL.into());
        }
        let mut bytes = [0; FIRST_VERSION_BYTES as usize];
        bytes[..4].copy_from_slice(&FIRST_VERSION_BYTES.to_le_bytes());
        self.user(mem).write(Gva(at), &bytes)?;
        Ok(0)
    }

    /// `get_mempolicy`: the default one, on the only node.
    pub(crate) fn get_memory_policy(
        &mut self,
        policy: u64,
        nodes: u64,
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
        if policy != 0 {
            user.write(Gva(policy), &[0; 4])?;
        }
        if nodes != 0 {
            let bytes = nodes_max.div_ceil(64).saturating_mul(8);
            if !(8..=PAGE_SIZE as u64).contains(&bytes) {
                return Err(EINVAL.into());
            }
            let mut mask = vec![0; bytes as usize];
            mask[..8].copy_from_slice(&allowed.to_le_bytes());
            user.write(Gva(nodes), &mask)?;
        }
        Ok(0)
    }
}
