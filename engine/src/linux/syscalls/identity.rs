//! Who the process is and where it runs: names, numbers, limits, random bytes. All made up, and
//! the same on every host.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::{EINVAL, ENOSYS, EPERM, ESRCH};
use crate::linux::abi::ids::{PARENT_ID, PROCESS_ID, USER_ID};
use crate::linux::abi::syscall::{DEVICE_BYTES_MAX, SyscallAction};
use crate::linux::cpu::Cpu;
use crate::linux::mm::bounds::USER_END;
use crate::linux::mm::uaccess::UserError;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};
use crate::linux::syscalls::capability;

/// How late a timer may be by default (`init_task.timer_slack_ns`); none is late here.
const TIMER_SLACK_NS: u64 = 50_000;

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;

/// The end of a program that cannot go on without this call.
fn unsupported(name: &str) -> SyscallStop {
    SyscallStop::End(SyscallAction::Unsupported(name.to_owned()))
}

impl Process {
    pub(crate) fn sys_getpid(&self) -> SyscallResult {
        Ok(PROCESS_ID)
    }

    pub(crate) fn sys_getpgrp(&self) -> SyscallResult {
        Ok(PROCESS_ID)
    }

    pub(crate) fn sys_getpgid(&self) -> SyscallResult {
        Ok(PROCESS_ID)
    }

    pub(crate) fn sys_getsid(&self) -> SyscallResult {
        Ok(PROCESS_ID)
    }

    pub(crate) fn sys_getppid(&self) -> SyscallResult {
        Ok(PARENT_ID)
    }

    pub(crate) fn sys_getuid(&self) -> SyscallResult {
        Ok(u64::from(USER_ID))
    }

    pub(crate) fn sys_geteuid(&self) -> SyscallResult {
        Ok(u64::from(USER_ID))
    }

    pub(crate) fn sys_getgid(&self) -> SyscallResult {
        Ok(u64::from(USER_ID))
    }

    pub(crate) fn sys_getegid(&self) -> SyscallResult {
        Ok(u64::from(USER_ID))
    }

    pub(crate) fn sys_setuid(&self, id: u64) -> SyscallResult {
        self.set_id(id)
    }

    pub(crate) fn sys_setgid(&self, id: u64) -> SyscallResult {
        self.set_id(id)
    }

    pub(crate) fn sys_getresuid(
        &mut self,
        real: Gva,
        effective: Gva,
        saved: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.get_ids([real, effective, saved], mem)
    }

    pub(crate) fn sys_getresgid(
        &mut self,
        real: Gva,
        effective: Gva,
        saved: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.get_ids([real, effective, saved], mem)
    }

    /// `setuid`, `setgid`: to what it is already.
    fn set_id(&self, id: u64) -> SyscallResult {
        if id as u32 == USER_ID { Ok(0) } else { Err(EPERM.into()) }
    }

    /// `getresuid`, `getresgid`: the same three times.
    fn get_ids(&mut self, ids_at: [Gva; 3], mem: &mut dyn UserMemory) -> SyscallResult {
        for at in ids_at {
            self.user(mem).write(at, &USER_ID.to_le_bytes())?;
        }
        Ok(0)
    }

    /// `getgroups`: none beside its own.
    pub(crate) fn sys_getgroups(&self) -> SyscallResult {
        Ok(0)
    }

    pub(crate) fn sys_fork(&self) -> SyscallResult {
        Err(unsupported("fork"))
    }

    pub(crate) fn sys_vfork(&self) -> SyscallResult {
        Err(unsupported("vfork"))
    }

    pub(crate) fn sys_execve(&self) -> SyscallResult {
        Err(unsupported("execve"))
    }

    pub(crate) fn sys_execveat(&self) -> SyscallResult {
        Err(unsupported("execveat"))
    }

    /// `rseq`: glibc probes it at every start and does without.
    pub(crate) fn sys_rseq(&self) -> SyscallResult {
        Err(ENOSYS.into())
    }

    pub(crate) fn sys_getrlimit(
        &mut self,
        resource: u64,
        old: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_prlimit64(0, resource, Gva::NULL, old, mem)
    }

    pub(crate) fn sys_setrlimit(
        &mut self,
        resource: u64,
        new: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_prlimit64(0, resource, new, Gva::NULL, mem)
    }

    pub(crate) fn sys_arch_prctl(
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

    pub(crate) fn sys_prctl(
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

    pub(crate) fn sys_getrandom(
        &mut self,
        at: Gva,
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
            let (copied, stop) = self.user(mem).write_some(at.wrapping_add(done), chunk);
            done += copied as u64;
            match stop {
                Some(UserError::Errno(_)) if done > 0 => break,
                Some(stop) => return Err(stop.into()),
                None => {}
            }
        }
        Ok(done)
    }

    pub(crate) fn sys_uname(&mut self, at: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        const FIELD_BYTES: usize = 65;
        let fields = ["Linux", "dejavm", "6.1.0", "#1 SMP dejavm", "x86_64", "(none)"];
        let mut bytes = [0; FIELD_BYTES * 6];
        for (to, text) in bytes.chunks_exact_mut(FIELD_BYTES).zip(fields) {
            for (to, from) in to.iter_mut().zip(text.bytes()) {
                *to = from;
            }
        }
        self.user(mem).write(at, &bytes)?;
        Ok(0)
    }

    pub(crate) fn sys_sysinfo(&mut self, at: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        let uptime = 1_000 + self.scalars.clock_ns / 1_000_000_000;
        let total = self.ram_bytes;
        let free = mem.frames_free().saturating_mul(PAGE_SIZE as u64).min(total);
        let words = [uptime, 0, 0, 0, total, free, 0, 0, 0, 0, 1, 0, 0, 1];
        let mut bytes = [0; 112];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        self.user(mem).write(at, &bytes)?;
        Ok(0)
    }

    /// `prlimit64`; limits are recorded, and what the engine enforces does not depend on them.
    pub(crate) fn sys_prlimit64(
        &mut self,
        process: u64,
        resource: u64,
        new: Gva,
        old: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if process as u32 != 0 && u64::from(process as u32) != PROCESS_ID {
            return Err(ESRCH.into());
        }
        let index = resource as u32 as usize;
        let present = self.settings.resources.get(index).copied().ok_or(EINVAL)?;
        let mut user = self.user(mem);
        let mut wanted = None;
        if !new.is_null() {
            let soft = user.read_u64(new)?;
            let hard = user.read_u64(new.wrapping_add(8))?;
            if soft > hard {
                return Err(EINVAL.into());
            }
            if hard > present.1 {
                return Err(EPERM.into());
            }
            wanted = Some((soft, hard));
        }
        if !old.is_null() {
            user.write(old, &present.0.to_le_bytes())?;
            user.write(old.wrapping_add(8), &present.1.to_le_bytes())?;
        }
        if let (Some(wanted), Some(slot)) = (wanted, self.settings.resources.get_mut(index)) {
            *slot = wanted;
        }
        Ok(0)
    }
}
