//! Making and ending threads, and letting others go first. Never chooses who goes on.

use crate::address::Gva;
use crate::linux::abi::errno::{EAGAIN, EINVAL, EPERM};
use crate::linux::abi::syscall::SyscallAction;
use crate::linux::cpu::{Context, Cpu};
use crate::linux::mm::bounds::USER_END;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};

/// What a thread shares with the one that makes it; without any of these it is another process.
const SHARED: u64 =
    (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;
/// What else `pthread_create` asks for, and what changes nothing here.
const KNOWN: u64 = SHARED
    | (libc::CLONE_FS
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_SETTID
        | libc::CLONE_CHILD_CLEARTID
        | libc::CLONE_DETACHED
        | libc::CLONE_IO) as u64;
/// Bytes of `struct clone_args` in its first version.
const CLONE_ARGS_BYTES_MIN: u64 = 64;

/// What is asked of `clone` or `clone3`.
#[derive(Clone, Copy, Debug)]
struct NewThread {
    flags: u64,
    /// The stack pointer to start with; 0 for the caller's.
    stack: u64,
    parent_id_at: Gva,
    child_id_at: Gva,
    fs_base: u64,
}

impl Process {
    pub(crate) fn sys_clone(
        &mut self,
        [flags, stack, parent_id_at, child_id_at, fs_base, _]: [u64; 6],
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallResult {
        let (parent_id_at, child_id_at) = (Gva(parent_id_at), Gva(child_id_at));
        let new = NewThread { flags, stack, parent_id_at, child_id_at, fs_base };
        self.clone_thread("clone", new, mem, cpu)
    }

    pub(crate) fn sys_exit_group(&self, status: u64) -> SyscallResult {
        Err(SyscallStop::End(SyscallAction::Exit { status: (status & 0xff) as u8 }))
    }

    pub(crate) fn sys_gettid(&self) -> SyscallResult {
        Ok(self.threads.current().id)
    }

    fn clone_thread(
        &mut self,
        name: &str,
        new: NewThread,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallResult {
        let has = |flag: i32| new.flags & flag as u64 != 0;
        if has(libc::CLONE_THREAD) && !has(libc::CLONE_SIGHAND)
            || has(libc::CLONE_SIGHAND) && !has(libc::CLONE_VM)
        {
            return Err(EINVAL.into());
        }
        if new.flags & SHARED != SHARED || new.flags & !KNOWN != 0 {
            return Err(SyscallStop::End(SyscallAction::Unsupported(name.to_owned())));
        }
        if has(libc::CLONE_SETTLS) && new.fs_base >= USER_END {
            return Err(EPERM.into());
        }
        let fs_base = has(libc::CLONE_SETTLS).then_some(new.fs_base);
        let id = self.threads.next_id();
        let context = Context::child(cpu, new.stack, fs_base);
        let mut child = self.threads.current().child(id, context);
        if has(libc::CLONE_CHILD_CLEARTID) {
            child.clear_id_at = new.child_id_at;
        }
        if !self.threads.add(child) {
            return Err(EAGAIN.into());
        }
        // What cannot be written is not, as in Linux.
        let word = (id as u32).to_le_bytes();
        for (flag, at) in [
            (libc::CLONE_PARENT_SETTID, new.parent_id_at),
            (libc::CLONE_CHILD_SETTID, new.child_id_at),
        ] {
            if has(flag) {
                let _ = self.user(mem).write(at, &word);
            }
        }
        Ok(id)
    }

    /// `clone3`: the same, from a structure.
    pub(crate) fn sys_clone3(
        &mut self,
        at: Gva,
        bytes: u64,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallResult {
        if !(CLONE_ARGS_BYTES_MIN..=4096).contains(&bytes) {
            return Err(EINVAL.into());
        }
        let mut words = [0; 8];
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.user(mem).read_u64(at.wrapping_add(i as u64 * 8))?;
        }
        let [flags, _, child_id_at, parent_id_at, signal, stack, stack_bytes, fs_base] = words;
        let is_thread = flags & libc::CLONE_THREAD as u64 != 0;
        if flags & 0xff != 0 || is_thread && signal != 0 || (stack == 0) != (stack_bytes == 0) {
            return Err(EINVAL.into());
        }
        let stack = stack.wrapping_add(stack_bytes);
        let (parent_id_at, child_id_at) = (Gva(parent_id_at), Gva(child_id_at));
        let new = NewThread { flags, stack, parent_id_at, child_id_at, fs_base };
        self.clone_thread("clone3", new, mem, cpu)
    }

    /// `exit`: the end of the thread, and of the process if it is the last.
    pub(crate) fn sys_exit(&mut self, status: u64, mem: &mut dyn UserMemory) -> SyscallResult {
        let status = (status & 0xff) as u8;
        let thread = self.threads.current();
        let (id, is_first) = (thread.id, thread.id == crate::linux::abi::ids::PROCESS_ID);
        let (list, clear_id_at) = (thread.robust_list, thread.clear_id_at);
        if self.threads.is_single() {
            let status = if is_first { status } else { self.threads.status.unwrap_or(status) };
            return Err(SyscallStop::End(SyscallAction::Exit { status }));
        }
        if is_first {
            self.threads.status = Some(status);
        }
        if !list.is_null() {
            self.release_robust_list(list, id, mem);
        }
        if !clear_id_at.is_null() && self.user(mem).write(clear_id_at, &[0; 4]).is_ok() {
            self.threads.wake_futex(clear_id_at, u32::MAX, 1);
        }
        self.threads.remove_current();
        self.threads.count_call();
        Err(SyscallStop::Ended)
    }

    pub(crate) fn sys_set_tid_address(&mut self, at: Gva) -> SyscallResult {
        if self.threads.current().clear_id_at != at {
            self.threads.current_mut().clear_id_at = at;
        }
        Ok(self.threads.current().id)
    }

    pub(crate) fn sys_set_robust_list(&mut self, at: Gva, bytes: u64) -> SyscallResult {
        if bytes != 24 {
            return Err(EINVAL.into());
        }
        if self.threads.current().robust_list != at {
            self.threads.current_mut().robust_list = at;
        }
        Ok(0)
    }
}
