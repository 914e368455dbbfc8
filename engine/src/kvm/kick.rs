//! The kick that makes a vCPU's `KVM_RUN` return, from any thread.
//!
//! Never reads an exit and never runs a vCPU: of `struct kvm_run` it has `immediate_exit` alone,
//! the one field that a thread may touch while another one is in `KVM_RUN`.

use super::error::KvmError;
use super::mapping::SharedMapping;
use kvm_bindings::kvm_run;
use nix::errno::Errno;
use std::os::fd::RawFd;
use std::ptr::addr_of_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// `immediate_exit` of one vCPU, through a mapping of its own: while it is 1, `KVM_RUN` finishes
/// what is pending and returns EINTR (Documentation/virt/kvm/api.rst, 5. The kvm_run structure).
#[derive(Debug)]
pub(super) struct KickPage {
    page: SharedMapping<kvm_run>,
}

// SAFETY: the mapping is not tied to a thread, and everything that can be done with a `KickPage`,
// by `&self` or `&mut self`, is an atomic access to `immediate_exit`, which the kernel only reads.
unsafe impl Send for KickPage {}
// SAFETY: as above.
unsafe impl Sync for KickPage {}

impl KickPage {
    /// Maps the page of the vCPU behind `fd`; `bytes` is `KVM_GET_VCPU_MMAP_SIZE`.
    pub(super) fn map(fd: RawFd, bytes: usize) -> Result<Self, Errno> {
        Ok(Self { page: SharedMapping::map(fd, 0, bytes)? })
    }

    /// Sets or clears the flag.
    pub(super) fn set(&self, kicked: bool) {
        self.immediate_exit().store(u8::from(kicked), Ordering::SeqCst);
    }

    /// Sets or clears the flag; whether it was set before.
    pub(super) fn replace(&self, kicked: bool) -> bool {
        self.immediate_exit().swap(u8::from(kicked), Ordering::SeqCst) != 0
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the field lies inside the mapping, which outlives the reference, and every
        // access in this process is made through this atomic: `RunPage` has no way to it.
        unsafe { AtomicU8::from_ptr(addr_of_mut!((*self.page.as_ptr()).immediate_exit)) }
    }
}

/// Makes a vCPU's `KVM_RUN` return, from any thread.
#[derive(Clone, Debug)]
pub struct Kicker {
    page: Arc<KickPage>,
}

impl Kicker {
    pub(super) fn new(page: Arc<KickPage>) -> Self {
        Self { page }
    }

    /// Makes the current or the next `KVM_RUN` of the vCPU return with EINTR. `thread` is the
    /// kernel's id (`gettid`) of the thread that runs it.
    pub fn kick(&self, thread: i32) {
        // The flag first: should the signal land just before KVM_RUN, the flag still stops it.
        self.page.set(true);
        // SAFETY: tgkill takes plain numbers; a thread that has ended gives ESRCH, and the
        // handler for the signal is installed by `install_kick_handler`.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, kick_signal()) };
    }
}

/// The signal that interrupts `KVM_RUN`: the second real-time one, because debuggers and thread
/// libraries use the first.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN() + 1
}

/// Installs the empty handler that lets the kick's signal interrupt an ioctl. Once per process;
/// more calls do no harm.
///
/// # Errors
/// `sigaction` was refused.
pub fn install_kick_handler() -> Result<(), KvmError> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing, so it is async-signal-safe; no SA_RESTART, because the
    // ioctl must return; `action` is fully initialised.
    let refused = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut()) != 0
    };
    if refused {
        return Err(KvmError::Ioctl { call: "sigaction", source: Errno::last() });
    }
    Ok(())
}

/// A kick is for every thread: this does not compile if it is not.
const _: () = {
    const fn is_for_every_thread<T: Send + Sync>() {}
    is_for_every_thread::<KickPage>();
    is_for_every_thread::<Kicker>();
};
