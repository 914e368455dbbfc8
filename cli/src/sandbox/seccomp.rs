//! Which system calls are left: two seccomp filters.
//!
//! One knows what nothing in this process ever has a reason for: another program, another
//! process's memory, the network, the kernel itself. Such a call can only be an attack, and kills
//! the process (SIGSYS; 159 in a shell). The other knows what a campaign does; whatever else is
//! called returns EPERM. It has no effect either way, and a C library that tries a new system call
//! before an old one must not cost a campaign of days.

use super::error::SandboxError;
use kvm_bindings as k;
use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Kills.
const FORBIDDEN: &[c_long] = &[
    // Programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    // The network.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_accept4,
    // Rights, namespaces, mounts.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    // The kernel; io_uring would do all of the above without a system call of its name.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
];

/// What a campaign, and the end of a process, may call with any arguments.
const ALLOWED: &[c_long] = &[
    // The output folder, the terminal, the pipe by which Ctrl-C comes.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_open,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_poll,
    libc::SYS_ppoll,
    // Memory that holds no code.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads that are there already, time, chance.
    libc::SYS_futex,
    // A thread may have been made and not begun: its C library would end the process over the
    // first two.
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// ioctl request numbers (include/uapi/asm-generic/ioctl.h).
const fn request(direction: u64, kind: u64, number: u64, bytes: usize) -> u64 {
    direction << 30 | (bytes as u64) << 16 | kind << 8 | number
}
const fn none(number: u64) -> u64 {
    request(0, k::KVMIO as u64, number, 0)
}
const fn writes<T>(number: u64) -> u64 {
    request(1, k::KVMIO as u64, number, size_of::<T>())
}
const fn reads<T>(number: u64) -> u64 {
    request(2, k::KVMIO as u64, number, size_of::<T>())
}
const fn both<T>(number: u64) -> u64 {
    request(3, k::KVMIO as u64, number, size_of::<T>())
}

/// `struct pm_scan_arg` (include/uapi/linux/fs.h) has twelve words.
const PAGEMAP_SCAN: u64 = request(3, b'f' as u64, 16, 96);

/// ioctls of runs, rewinds and verifications, the most frequent first; and of the terminal. None
/// makes a VM, a vCPU or a device.
const IOCTLS: &[u64] = &[
    none(0x80),                                     // KVM_RUN
    writes::<k::kvm_dirty_log>(0x42),               // KVM_GET_DIRTY_LOG
    both::<k::kvm_clear_dirty_log>(0xc0),           // KVM_CLEAR_DIRTY_LOG
    none(0xc7),                                     // KVM_RESET_DIRTY_RINGS
    reads::<k::kvm_regs>(0x81),                     // KVM_GET_REGS
    writes::<k::kvm_regs>(0x82),                    // KVM_SET_REGS
    reads::<k::kvm_sregs>(0x83),                    // KVM_GET_SREGS
    writes::<k::kvm_sregs>(0x84),                   // KVM_SET_SREGS
    both::<k::kvm_msrs>(0x88),                      // KVM_GET_MSRS
    writes::<k::kvm_msrs>(0x89),                    // KVM_SET_MSRS
    reads::<k::kvm_xsave>(0xa4),                    // KVM_GET_XSAVE
    reads::<k::kvm_xsave>(0xcf),                    // KVM_GET_XSAVE2
    writes::<k::kvm_xsave>(0xa5),                   // KVM_SET_XSAVE
    reads::<k::kvm_xcrs>(0xa6),                     // KVM_GET_XCRS
    writes::<k::kvm_xcrs>(0xa7),                    // KVM_SET_XCRS
    reads::<k::kvm_debugregs>(0xa1),                // KVM_GET_DEBUGREGS
    writes::<k::kvm_debugregs>(0xa2),               // KVM_SET_DEBUGREGS
    reads::<k::kvm_vcpu_events>(0x9f),              // KVM_GET_VCPU_EVENTS
    writes::<k::kvm_vcpu_events>(0xa0),             // KVM_SET_VCPU_EVENTS
    reads::<k::kvm_mp_state>(0x98),                 // KVM_GET_MP_STATE
    writes::<k::kvm_mp_state>(0x99),                // KVM_SET_MP_STATE
    reads::<k::kvm_lapic_state>(0x8e),              // KVM_GET_LAPIC
    writes::<k::kvm_lapic_state>(0x8f),             // KVM_SET_LAPIC
    both::<k::kvm_irqchip>(0x62),                   // KVM_GET_IRQCHIP
    reads::<k::kvm_irqchip>(0x63),                  // KVM_SET_IRQCHIP
    reads::<k::kvm_pit_state2>(0x9f),               // KVM_GET_PIT2
    writes::<k::kvm_pit_state2>(0xa0),              // KVM_SET_PIT2
    reads::<k::kvm_clock_data>(0x7c),               // KVM_GET_CLOCK
    writes::<k::kvm_clock_data>(0x7b),              // KVM_SET_CLOCK
    both::<k::kvm_cpuid2>(0x91),                    // KVM_GET_CPUID2
    writes::<k::kvm_userspace_memory_region>(0x46), // KVM_SET_USER_MEMORY_REGION
    PAGEMAP_SCAN,
    libc::TCGETS,
    libc::TIOCGWINSZ,
];

/// Kills this process, by any of its threads and those to come, for what it has no reason for.
pub fn forbid() -> Result<(), SandboxError> {
    let rules = FORBIDDEN.iter().map(|&call| (call, vec![])).collect();
    let filter = filter(rules, SeccompAction::Allow, SeccompAction::KillProcess)?;
    Ok(seccompiler::apply_filter_all_threads(&filter)?)
}

/// Leaves all threads of this process what a campaign does.
pub fn allow_only_what_a_campaign_does() -> Result<(), SandboxError> {
    Ok(seccompiler::apply_filter_all_threads(&campaign()?)?)
}

/// Whether this thread can be restricted; afterwards it is.
pub fn probe() -> Result<(), SandboxError> {
    Ok(seccompiler::apply_filter(&campaign()?)?)
}

fn campaign() -> Result<BpfProgram, seccompiler::Error> {
    let mut rules: Rules = ALLOWED.iter().map(|&call| (call, vec![])).collect();
    let ioctls = IOCTLS.iter().map(|&number| argument(1, SeccompCmpOp::Eq, number));
    rules.insert(libc::SYS_ioctl, ioctls.collect::<Result<_, _>>()?);
    let exec = libc::PROT_EXEC as u64;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![argument(2, SeccompCmpOp::MaskedEq(exec), 0)?]);
    }
    // The watchdog's kick, an abort.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![argument(0, SeccompCmpOp::Eq, own)?]);
    let name = libc::PR_SET_NAME as u64;
    rules.insert(libc::SYS_prctl, vec![argument(0, SeccompCmpOp::Eq, name)?]);
    filter(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

fn argument(index: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, is, value)?;
    SeccompRule::new(vec![condition])
}

fn filter(
    rules: Rules,
    others: SeccompAction,
    named: SeccompAction,
) -> Result<BpfProgram, seccompiler::Error> {
    let filter = SeccompFilter::new(rules, others, named, TargetArch::x86_64)?;
    Ok(BpfProgram::try_from(filter)?)
}
