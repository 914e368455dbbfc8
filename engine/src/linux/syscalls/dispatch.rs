//! System calls: from a number to the function that carries it out.
//!
//! Never carries one out.

use crate::linux::abi::syscall::AT_FDCWD;
use crate::linux::syscalls::getdents::Layout;
use crate::linux::syscalls::identity;
use crate::linux::syscalls::xattr::Of;

use crate::linux::abi::errno::{EAFNOSUPPORT, EINVAL, ENOSYS, ENOTSOCK};
use crate::linux::abi::ids::{PARENT_ID, PROCESS_ID, USER_ID};
use crate::linux::abi::names::system_call_name;
use crate::linux::abi::syscall::{SyscallAction, SystemCall};
use crate::linux::cpu::Cpu;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};
use crate::linux::sched::wait::Wait;
use crate::linux::syscalls::thread::NewThread;

impl Process {
    /// Makes one call. Every step before a wait can be made again.
    pub(crate) fn dispatch(
        &mut self,
        call: &SystemCall,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallResult {
        let [a, b, c, d, e, f] = call.args;
        let cwd = AT_FDCWD;
        match call.nr as i64 {
            libc::SYS_read => self.read(a, b, c, None, mem),
            libc::SYS_pread64 => self.read(a, b, c, Some(d), mem),
            libc::SYS_readv => self.read_vector(a, b, c, None, mem),
            libc::SYS_preadv => self.read_vector(a, b, c, Some(d), mem),
            libc::SYS_write => self.write(a, b, c, None, mem),
            libc::SYS_pwrite64 => self.write(a, b, c, Some(d), mem),
            libc::SYS_writev => self.write_vector(a, b, c, None, mem),
            libc::SYS_pwritev => self.write_vector(a, b, c, Some(d), mem),
            libc::SYS_lseek => self.seek(a, b, c),
            libc::SYS_close => self.close(a),
            libc::SYS_close_range => self.close_range(a, b, c),
            libc::SYS_dup => self.duplicate(a),
            libc::SYS_dup2 => self.duplicate_to(a, b, None),
            libc::SYS_dup3 => self.duplicate_to(a, b, Some(c)),
            libc::SYS_fcntl => self.fcntl(a, b, c, mem),
            libc::SYS_ioctl => self.ioctl(a, b, c, mem),
            libc::SYS_pipe => self.pipe(a, 0, mem),
            libc::SYS_pipe2 => self.pipe(a, b, mem),
            libc::SYS_ftruncate => self.truncate_open(a, b),
            libc::SYS_fallocate => self.allocate(a, b, c, d),
            libc::SYS_sendfile => self.send_file(a, b, c, d, mem),
            libc::SYS_preadv2 => self.transfer_with_flags(call, false, mem),
            libc::SYS_pwritev2 => self.transfer_with_flags(call, true, mem),
            libc::SYS_copy_file_range => self.copy_range((a, b), (c, d), e, f, mem),
            libc::SYS_memfd_create => self.memory_file(a, b, mem),
            libc::SYS_eventfd => self.event_create(a, 0),
            libc::SYS_eventfd2 => self.event_create(a, b),
            libc::SYS_epoll_create if a as i32 <= 0 => Err(EINVAL.into()),
            libc::SYS_epoll_create => self.poll_create(0),
            libc::SYS_epoll_create1 => self.poll_create(a),
            libc::SYS_epoll_ctl => self.poll_control(a, b, c, d, mem),
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait => {
                let timeout_ms = u64::try_from(d as i32).ok();
                self.poll_wait(a, b, c, timeout_ms.map(|ms| ms * 1_000_000), mem)
            }
            libc::SYS_sync => Ok(0),
            libc::SYS_syncfs
            | libc::SYS_sync_file_range
            | libc::SYS_readahead
            | libc::SYS_fsync
            | libc::SYS_fdatasync
            | libc::SYS_flock
            | libc::SYS_fadvise64 => {
                self.files.table.get_usable(a)?;
                Ok(0)
            }

            libc::SYS_open => self.open(cwd, a, b, c, mem),
            libc::SYS_openat => self.open(a, b, c, d, mem),
            libc::SYS_creat => {
                let flags = (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64;
                self.open(cwd, a, flags, b, mem)
            }
            libc::SYS_stat => self.stat_path(cwd, a, b, 0, mem),
            libc::SYS_lstat => self.stat_path(cwd, a, b, libc::AT_SYMLINK_NOFOLLOW as u64, mem),
            libc::SYS_newfstatat => self.stat_path(a, b, c, d, mem),
            libc::SYS_fstat => self.stat_open(a, b, mem),
            libc::SYS_statx => self.statx(a, b, c, e, mem),
            libc::SYS_statfs => self.statfs_path(a, b, mem),
            libc::SYS_fstatfs => self.statfs_open(a, b, mem),
            libc::SYS_access => self.access(cwd, a, b, 0, mem),
            libc::SYS_faccessat => self.access(a, b, c, 0, mem),
            libc::SYS_faccessat2 => self.access(a, b, c, d, mem),
            libc::SYS_readlink => self.read_link(cwd, a, b, c, mem),
            libc::SYS_readlinkat => self.read_link(a, b, c, d, mem),
            libc::SYS_getcwd => self.getcwd(a, b, mem),
            libc::SYS_chdir => self.chdir(a, mem),
            libc::SYS_fchdir => self.fchdir(a),
            libc::SYS_getdents64 => self.read_directory(a, b, c, Layout::New, mem),
            libc::SYS_getdents => self.read_directory(a, b, c, Layout::Old, mem),
            libc::SYS_mkdir => self.make_directory(cwd, a, b, mem),
            libc::SYS_mkdirat => self.make_directory(a, b, c, mem),
            libc::SYS_unlink => self.unlink(cwd, a, 0, mem),
            libc::SYS_rmdir => self.unlink(cwd, a, libc::AT_REMOVEDIR as u64, mem),
            libc::SYS_unlinkat => self.unlink(a, b, c, mem),
            libc::SYS_rename => self.rename(cwd, a, cwd, b, 0, mem),
            libc::SYS_renameat => self.rename(a, b, c, d, 0, mem),
            libc::SYS_renameat2 => self.rename(a, b, c, d, e, mem),
            libc::SYS_symlink => self.symlink(a, cwd, b, mem),
            libc::SYS_symlinkat => self.symlink(a, b, c, mem),
            libc::SYS_link => self.link(cwd, a, cwd, b, 0, mem),
            libc::SYS_linkat => self.link(a, b, c, d, e, mem),
            libc::SYS_truncate => self.truncate_path(a, b, mem),
            libc::SYS_chmod => self.change_mode(cwd, a, b, mem),
            libc::SYS_fchmodat => self.change_mode(a, b, c, mem),
            libc::SYS_fchmod => self.change_mode_open(a, b),
            libc::SYS_utimensat => self.touch(a, b, mem),
            libc::SYS_chown => self.change_owner(cwd, a, b, c, 0, mem),
            libc::SYS_lchown => {
                self.change_owner(cwd, a, b, c, libc::AT_SYMLINK_NOFOLLOW as u64, mem)
            }
            libc::SYS_fchownat => self.change_owner(a, b, c, d, e, mem),
            libc::SYS_fchown => self.change_owner_open(a, b, c),
            libc::SYS_getxattr => self.get_attribute(Of::Path(a), b, mem),
            libc::SYS_lgetxattr => self.get_attribute(Of::Link(a), b, mem),
            libc::SYS_fgetxattr => self.get_attribute(Of::Descriptor(a), b, mem),
            libc::SYS_listxattr => self.list_attributes(Of::Path(a), mem),
            libc::SYS_llistxattr => self.list_attributes(Of::Link(a), mem),
            libc::SYS_flistxattr => self.list_attributes(Of::Descriptor(a), mem),
            libc::SYS_setxattr | libc::SYS_removexattr => self.set_attribute(Of::Path(a), b, mem),
            libc::SYS_lsetxattr | libc::SYS_lremovexattr => self.set_attribute(Of::Link(a), b, mem),
            libc::SYS_fsetxattr | libc::SYS_fremovexattr => {
                self.set_attribute(Of::Descriptor(a), b, mem)
            }
            // No network and no other process: there is nothing to talk to.
            libc::SYS_socket | libc::SYS_socketpair => Err(EAFNOSUPPORT.into()),
            libc::SYS_connect
            | libc::SYS_bind
            | libc::SYS_listen
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_sendto
            | libc::SYS_recvfrom
            | libc::SYS_sendmsg
            | libc::SYS_recvmsg
            | libc::SYS_shutdown
            | libc::SYS_getsockname
            | libc::SYS_getpeername
            | libc::SYS_setsockopt
            | libc::SYS_getsockopt => {
                self.files.table.get(a)?;
                Err(ENOTSOCK.into())
            }
            libc::SYS_umask => {
                let old = self.files.table.umask;
                self.files.table.umask = (a & 0o777) as u32;
                Ok(u64::from(old))
            }
            libc::SYS_poll => self.poll(a, b, c, mem),
            libc::SYS_ppoll => self.ppoll(a, b, c, (d, e), mem),
            libc::SYS_select => self.select(a, [b, c, d], e, 1_000, mem),
            libc::SYS_pselect6 => self.pselect(a, [b, c, d], e, f, mem),

            libc::SYS_mmap => self.mmap(call.args, mem),
            libc::SYS_munmap => self.munmap(a, b, mem),
            libc::SYS_mprotect => self.mprotect(a, b, c, mem),
            libc::SYS_mremap => self.mremap(call.args, mem),
            libc::SYS_madvise => self.madvise(a, b, c, mem),
            libc::SYS_mincore => self.mincore(a, b, c, mem),
            libc::SYS_msync => self.msync(a, b, c),
            libc::SYS_brk => self.brk(a, mem),
            libc::SYS_mlock => self.lock(a, b, 0, mem),
            libc::SYS_mlock2 => self.lock(a, b, c, mem),
            libc::SYS_munlock => self.unlock(a, b),
            libc::SYS_mlockall => self.lock_all(a, mem),
            libc::SYS_munlockall => self.unlock_all(),
            libc::SYS_membarrier => self.memory_barrier(a, b),
            libc::SYS_pkey_mprotect => self.mprotect_with_key(call.args, mem),
            // As on a CPU without protection keys.
            libc::SYS_pkey_alloc | libc::SYS_pkey_free => Err(EINVAL.into()),

            libc::SYS_rt_sigaction => self.set_action(a, b, c, d, mem),
            libc::SYS_rt_sigprocmask => self.set_mask(a, b, c, d, mem),
            libc::SYS_rt_sigpending => self.pending(a, b, mem),
            libc::SYS_sigaltstack => self.alternate_stack(a, b, mem, cpu),
            libc::SYS_rt_sigreturn => Err(self.return_from_handler(mem, cpu)),
            libc::SYS_rt_sigsuspend => self.suspend(a, b, mem),
            libc::SYS_rt_sigtimedwait => self.take_signal(a, b, c, d, mem),
            libc::SYS_rt_sigqueueinfo => self.queue_signal(a, None, b, c, mem),
            libc::SYS_rt_tgsigqueueinfo => self.queue_signal(a, Some(b), c, d, mem),
            libc::SYS_pause => Err(Wait::for_time(None).into()),
            libc::SYS_kill => self.kill(a, b),
            libc::SYS_tkill => self.send_signal(a, b),
            libc::SYS_tgkill => self.kill_thread(a, b, c),
            libc::SYS_futex => self.futex(call.args, mem),
            libc::SYS_exit => self.exit_thread(a, mem),
            libc::SYS_exit_group => {
                Err(SyscallStop::End(SyscallAction::Exit { status: (a & 0xff) as u8 }))
            }
            libc::SYS_clone => {
                let [flags, stack, parent_id_at, child_id_at, fs_base, _] = call.args;
                let new = NewThread { flags, stack, parent_id_at, child_id_at, fs_base };
                self.clone_thread("clone", new, mem, cpu)
            }
            libc::SYS_clone3 => self.clone3(a, b, mem, cpu),
            libc::SYS_set_tid_address => self.set_id_address(a),
            libc::SYS_set_robust_list => self.set_robust_list(a, b),
            libc::SYS_sched_yield => self.yield_to_others(),
            libc::SYS_gettid => Ok(self.threads.current().id),

            libc::SYS_clock_gettime => self.clock_get(a, b, mem),
            libc::SYS_clock_getres => self.clock_resolution(a, b, mem),
            libc::SYS_gettimeofday => self.time_of_day(a, b, mem),
            libc::SYS_time => self.time(a, mem),
            libc::SYS_times => self.times(a, mem),
            libc::SYS_getrusage => self.usage(a, b, mem),
            libc::SYS_nanosleep => self.sleep(a, b, mem),
            libc::SYS_clock_nanosleep => self.clock_sleep(a, b, c, d, mem),
            libc::SYS_alarm => self.alarm(a),
            libc::SYS_setitimer => self.set_interval(a, b, c, mem),
            libc::SYS_getitimer => self.get_interval(a, b, mem),
            libc::SYS_timer_create => self.create_timer(a, b, c, mem),
            libc::SYS_timer_settime => self.set_timer(a, b, c, d, mem),
            libc::SYS_timer_gettime => self.get_timer(a, b, mem),
            libc::SYS_timer_getoverrun => self.timer_overrun(a),
            libc::SYS_timer_delete => self.delete_timer(a),

            libc::SYS_arch_prctl => self.arch_prctl(a, b, mem, cpu),
            libc::SYS_prctl => self.prctl(a, b, mem),
            libc::SYS_getrandom => self.get_random(a, b, c, mem),
            libc::SYS_uname => self.uname(a, mem),
            libc::SYS_sysinfo => self.sysinfo(a, mem),
            libc::SYS_prlimit64 => self.prlimit(a, b, c, d, mem),
            libc::SYS_getrlimit => self.prlimit(0, a, 0, b, mem),
            libc::SYS_setrlimit => self.prlimit(0, a, b, 0, mem),
            libc::SYS_sched_getaffinity => self.get_affinity(a, b, c, mem),
            libc::SYS_getcpu => self.get_cpu(a, b, mem),
            libc::SYS_sched_setaffinity => Ok(0),
            libc::SYS_sched_getscheduler => Ok(libc::SCHED_OTHER as u64),
            libc::SYS_sched_getparam => self.get_scheduling(b, mem),
            libc::SYS_sched_getattr => self.get_scheduling_attributes(b, c, mem),
            libc::SYS_get_mempolicy => self.get_memory_policy(a, b, c, e, mem),
            libc::SYS_sched_get_priority_max => identity::priority_of(a, 99),
            libc::SYS_sched_get_priority_min => identity::priority_of(a, 1),
            libc::SYS_getpid | libc::SYS_getpgrp | libc::SYS_getpgid | libc::SYS_getsid => {
                Ok(PROCESS_ID)
            }
            libc::SYS_getppid => Ok(PARENT_ID),
            libc::SYS_getuid | libc::SYS_geteuid | libc::SYS_getgid | libc::SYS_getegid => {
                Ok(u64::from(USER_ID))
            }
            libc::SYS_getresuid | libc::SYS_getresgid => self.get_ids(a, b, c, mem),
            libc::SYS_setuid | libc::SYS_setgid => self.set_id(a),
            libc::SYS_capget => self.get_capabilities(a, b, mem),
            libc::SYS_capset => self.set_capabilities(a, b, mem),
            libc::SYS_getgroups => Ok(0),
            libc::SYS_getpriority => Ok(20),

            libc::SYS_fork | libc::SYS_vfork | libc::SYS_execve | libc::SYS_execveat => {
                Err(SyscallStop::End(SyscallAction::Unsupported(system_call_name(call.nr))))
            }
            // glibc probes it at every start and does without.
            libc::SYS_rseq => Err(ENOSYS.into()),
            _ => {
                self.missing.remember(call.nr);
                Err(ENOSYS.into())
            }
        }
    }
}
