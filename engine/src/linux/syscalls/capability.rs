//! What the process may do: it has no capability, and can gain none.

use crate::address::Gva;
use crate::linux::abi::errno::{EINVAL, EPERM, ESRCH};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};

/// The last capability that the kernel which `uname` names knows (`CAP_CHECKPOINT_RESTORE`).
const CAPABILITY_LAST: u64 = 40;
/// `_LINUX_CAPABILITY_VERSION_1`, `_2` and `_3`, and how many times 32 capabilities each has
/// (`linux/capability.h`).
const VERSIONS: [(u32, u64); 3] = [(0x1998_0330, 1), (0x2007_1026, 2), (0x2008_0522, 2)];
/// The sets of one 32: effective, permitted, inheritable.
const SETS: u64 = 3;

/// `PR_CAPBSET_READ`: nothing is taken from what a program run from here could have.
pub(crate) fn in_bounding_set(capability: u64) -> SyscallResult {
    if capability > CAPABILITY_LAST { Err(EINVAL.into()) } else { Ok(1) }
}

impl Process {
    /// `capget`.
    pub(crate) fn sys_capget(
        &mut self,
        header: Gva,
        sets: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let words = match self.capability_words(header, mem) {
            // How a program asks for the version.
            Err(SyscallStop::Errno(EINVAL)) if sets.is_null() => return Ok(0),
            words => words?,
        };
        if sets.is_null() {
            return Ok(0);
        }
        let process = self.user(mem).read_u32(header.wrapping_add(4))?;
        match process as i32 {
            ..0 => return Err(EINVAL.into()),
            0 => {}
            id if self.threads.iter().any(|thread| thread.id == id as u64) => {}
            _ => return Err(ESRCH.into()),
        }
        let none = [0; 4 * 2 * SETS as usize];
        let none = none.get(..(words * SETS * 4) as usize).unwrap_or_default();
        self.user(mem).write(sets, none)?;
        Ok(0)
    }

    /// `capset`: nothing but what it has, which is nothing.
    pub(crate) fn sys_capset(
        &mut self,
        header: Gva,
        sets: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let words = self.capability_words(header, mem)?;
        let process = self.user(mem).read_u32(header.wrapping_add(4))?;
        if process != 0 && u64::from(process) != self.threads.current().id {
            return Err(EPERM.into());
        }
        let mut wanted = 0;
        for word in 0..words * SETS {
            let at = sets.wrapping_add(word * 4);
            // Those beyond the last are ignored.
            let known = if word < SETS { u32::MAX } else { (1 << (CAPABILITY_LAST - 31)) - 1 };
            wanted |= self.user(mem).read_u32(at)? & known;
        }
        if wanted == 0 { Ok(0) } else { Err(EPERM.into()) }
    }

    /// How many times 32 capabilities the sets have; tells the caller the version if it names none.
    fn capability_words(&mut self, header: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        let mut user = self.user(mem);
        let version = user.read_u32(header)?;
        if let Some((_, words)) = VERSIONS.iter().find(|known| known.0 == version) {
            return Ok(*words);
        }
        user.write(header, &VERSIONS[2].0.to_le_bytes())?;
        Err(EINVAL.into())
    }
}
