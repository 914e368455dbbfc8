//! System calls while the program has writable shared mappings of files: before a call that could
//! tell, what was written through a mapping is in the file; after a call that changed a file, what
//! it wrote is in the mapping.
//!
//! Never copies by itself: `mm::sharing` does.

use crate::linux::abi::syscall::SystemCall;
use crate::linux::cpu::Cpu;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;

/// Whether a system call neither looks at a file's bytes nor changes them or what is mapped. Any
/// other may.
fn minds_no_file(nr: u64) -> bool {
    matches!(
        nr as i64,
        libc::SYS_clock_gettime
            | libc::SYS_gettimeofday
            | libc::SYS_time
            | libc::SYS_getpid
            | libc::SYS_gettid
            | libc::SYS_futex
            | libc::SYS_sched_yield
            | libc::SYS_rt_sigprocmask
            | libc::SYS_rt_sigaction
            | libc::SYS_lseek
            | libc::SYS_brk
            | libc::SYS_mprotect
            | libc::SYS_exit
            | libc::SYS_exit_group
    )
}

/// Whether a system call can change a file's bytes other than through memory.
fn changes_files(nr: u64) -> bool {
    matches!(
        nr as i64,
        libc::SYS_write
            | libc::SYS_pwrite64
            | libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_sendfile
            | libc::SYS_copy_file_range
            | libc::SYS_splice
            | libc::SYS_open
            | libc::SYS_openat
            | libc::SYS_openat2
            | libc::SYS_creat
            | libc::SYS_truncate
            | libc::SYS_ftruncate
            | libc::SYS_fallocate
    )
}

impl Process {
    /// Carries out a system call with files that are what was written to them through mappings.
    pub(crate) fn dispatch_with_shared_files(
        &mut self,
        call: &SystemCall,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallResult {
        if !self.space.shows_files || minds_no_file(call.nr) {
            return self.dispatch(call, mem, cpu);
        }
        self.save_shared(mem);
        let answer = self.dispatch(call, mem, cpu);
        if changes_files(call.nr) {
            self.space.show_shared(&self.files, mem);
        }
        answer
    }

    /// Copies what the process wrote through shared mappings to the files.
    pub(crate) fn save_shared(&mut self, mem: &mut dyn UserMemory) {
        let Self { space, files, .. } = self;
        space.save_shared(files, mem);
    }
}
