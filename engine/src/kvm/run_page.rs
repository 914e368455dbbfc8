//! The page that a vCPU shares with the kernel (`struct kvm_run`).
//!
//! The kernel writes the page only during `KVM_RUN`, which takes `&mut` of it. This module never
//! touches `immediate_exit`, the one field that other threads write too and that `kick` has, and
//! never makes a reference to the whole structure.

use super::mapping::SharedMapping;
use super::raw;
use kvm_bindings::{kvm_run, kvm_run__bindgen_ty_1, kvm_sync_regs};
use nix::errno::Errno;
use std::os::fd::RawFd;
use std::ptr::{addr_of, addr_of_mut};

/// A mapping of one vCPU's `struct kvm_run`, for the thread that runs the vCPU. It can move to
/// another thread and is not shared between two: `&RunPage` reads what the kernel writes during
/// `KVM_RUN`.
#[derive(Debug)]
pub struct RunPage {
    page: SharedMapping<kvm_run>,
}

// SAFETY: the mapping lives as long as `self` and is not tied to a thread. Not Sync: `sync_regs`
// reads through `&self` what the kernel writes while `run` has `&mut self`.
unsafe impl Send for RunPage {}

/// Two candidates for one name, and an error, as soon as `RunPage` is Sync.
const _: fn() = || {
    trait AmbiguousIfSync<A> {
        fn is_not_sync() {}
    }
    impl<T: ?Sized> AmbiguousIfSync<()> for T {}
    impl<T: ?Sized + Sync> AmbiguousIfSync<u8> for T {}
    <RunPage as AmbiguousIfSync<_>>::is_not_sync();
};

impl RunPage {
    /// Maps the page of the vCPU behind `fd`; `bytes` is `KVM_GET_VCPU_MMAP_SIZE`.
    pub(super) fn map(fd: RawFd, bytes: usize) -> Result<Self, Errno> {
        Ok(Self { page: SharedMapping::map(fd, 0, bytes)? })
    }

    fn at(&self) -> *mut kvm_run {
        self.page.as_ptr()
    }

    pub(super) fn exit_reason(&self) -> u32 {
        // SAFETY: inside the mapping; the kernel writes it only during KVM_RUN, which needs
        // `&mut VcpuFd`, as does every caller's path to here.
        unsafe { addr_of!((*self.at()).exit_reason).read() }
    }

    fn detail(&self) -> *mut kvm_run__bindgen_ty_1 {
        // SAFETY: only an address inside the mapping is computed.
        unsafe { addr_of_mut!((*self.at()).__bindgen_anon_1) }
    }

    pub(super) fn set_valid_regs(&mut self, classes: u64) {
        // SAFETY: inside the mapping, and `&mut self` excludes a concurrent KVM_RUN.
        unsafe { addr_of_mut!((*self.at()).kvm_valid_regs).write(classes) }
    }

    pub(super) fn mark_dirty_regs(&mut self, classes: u64) {
        // SAFETY: as `set_valid_regs`.
        unsafe {
            let field = addr_of_mut!((*self.at()).kvm_dirty_regs);
            field.write(field.read() | classes);
        }
    }

    pub(super) fn sync_regs(&self) -> &kvm_sync_regs {
        // SAFETY: `s.regs` lies inside the mapping; every bit pattern is a valid kvm_sync_regs;
        // the kernel writes it only during KVM_RUN, which `&mut VcpuFd` excludes.
        unsafe { &*addr_of!((*self.at()).s.regs) }
    }

    pub(super) fn sync_regs_mut(&mut self) -> &mut kvm_sync_regs {
        // SAFETY: as `sync_regs`, with `&mut self` for exclusivity.
        unsafe { &mut *addr_of_mut!((*self.at()).s.regs) }
    }

    pub(super) fn set_task_priority(&mut self, cr8: u64) {
        // SAFETY: as `set_valid_regs`.
        unsafe { addr_of_mut!((*self.at()).cr8).write(cr8) }
    }

    pub(super) fn request_interrupt_window(&mut self, wanted: bool) {
        // SAFETY: as `set_valid_regs`.
        unsafe {
            addr_of_mut!((*self.at()).request_interrupt_window).write(u8::from(wanted));
        }
    }

    pub(super) fn ready_for_interrupt(&self) -> bool {
        // SAFETY: as `exit_reason`.
        unsafe { addr_of!((*self.at()).ready_for_interrupt_injection).read() != 0 }
    }

    /// The exit's own data, by its reason. `&mut self`: IN and MMIO-read data is written here.
    pub(super) fn raw_exit(&mut self) -> RawExit<'_> {
        use kvm_bindings as k;
        let reason = self.exit_reason();
        let detail = self.detail();
        // SAFETY: the kernel filled the union's member that belongs to the reason; every member
        // is plain data, valid for every bit pattern, and lies inside the mapping.
        unsafe {
            match reason {
                k::KVM_EXIT_IO => self.io(),
                k::KVM_EXIT_MMIO => {
                    let mmio = &mut (*detail).mmio;
                    let bytes = (mmio.len as usize).min(mmio.data.len());
                    RawExit::Mmio {
                        at: mmio.phys_addr,
                        write: mmio.is_write != 0,
                        data: &mut mmio.data[..bytes],
                    }
                }
                k::KVM_EXIT_INTERNAL_ERROR => {
                    let internal = &(*detail).internal;
                    let words = (internal.ndata as usize).min(internal.data.len());
                    let failure = &(*detail).emulation_failure;
                    // The flags word exists only when KVM says that it filled it (ndata >= 1),
                    // the bytes when the flag says so (Documentation/virt/kvm/api.rst).
                    let has_bytes = internal.suberror == k::KVM_INTERNAL_ERROR_EMULATION
                        && failure.ndata >= 3
                        && failure.flags & EMULATION_FLAG_INSTRUCTION_BYTES != 0;
                    let insn = &failure.__bindgen_anon_1.__bindgen_anon_1;
                    let size = usize::from(insn.insn_size).min(insn.insn_bytes.len());
                    RawExit::InternalError {
                        suberror: internal.suberror,
                        data: &internal.data[..words],
                        instruction: if has_bytes { &insn.insn_bytes[..size] } else { &[] },
                    }
                }
                k::KVM_EXIT_FAIL_ENTRY => {
                    let fail = (*detail).fail_entry;
                    RawExit::FailEntry { reason: fail.hardware_entry_failure_reason, cpu: fail.cpu }
                }
                k::KVM_EXIT_EXCEPTION => {
                    let ex = (*detail).ex;
                    RawExit::Exception { vector: ex.exception, error_code: ex.error_code }
                }
                k::KVM_EXIT_DEBUG => {
                    let arch = (*detail).debug.arch;
                    RawExit::Debug { vector: arch.exception, pc: arch.pc, dr6: arch.dr6 }
                }
                k::KVM_EXIT_X86_RDMSR | k::KVM_EXIT_X86_WRMSR => {
                    let msr = &mut (*detail).msr;
                    RawExit::Msr {
                        index: msr.index,
                        write: reason == k::KVM_EXIT_X86_WRMSR,
                        reason: msr.reason,
                        data: &mut msr.data,
                        error: &mut msr.error,
                    }
                }
                k::KVM_EXIT_SYSTEM_EVENT => {
                    RawExit::SystemEvent { kind: (*detail).system_event.type_ }
                }
                reason => {
                    let words = detail.cast::<u64>();
                    RawExit::Plain { reason, detail: [words.read(), words.add(1).read()] }
                }
            }
        }
    }

    /// A port I/O exit, its data bounded by the mapping.
    fn io(&mut self) -> RawExit<'_> {
        // SAFETY: the exit reason is KVM_EXIT_IO, so `io` is the member that the kernel filled.
        let io = unsafe { (*self.detail()).io };
        let wanted = usize::from(io.size) * io.count as usize;
        let from = (io.data_offset as usize).min(self.page.bytes());
        let bytes = wanted.min(self.page.bytes() - from);
        // SAFETY: `from + bytes` was just bounded by the mapping's size; plain bytes.
        let data =
            unsafe { std::slice::from_raw_parts_mut(self.at().cast::<u8>().add(from), bytes) };
        RawExit::Io {
            port: io.port,
            size: io.size,
            out: u32::from(io.direction) == kvm_bindings::KVM_EXIT_IO_OUT,
            data,
        }
    }

    /// `KVM_RUN` on the vCPU behind `fd`.
    pub(super) fn run(&mut self, fd: RawFd) -> Result<(), Errno> {
        // SAFETY: `fd` is the vCPU that this page belongs to; `&mut self` means that nobody
        // holds a reference into the page while the kernel writes it.
        unsafe { raw::kvm_run(fd, 0) }.map(drop)
    }
}

/// `KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES` (uapi/linux/kvm.h).
const EMULATION_FLAG_INSTRUCTION_BYTES: u64 = 1;

/// An exit as the kernel describes it, borrowed from the run page.
#[derive(Debug)]
#[allow(missing_docs, reason = "field names are those of struct kvm_run")]
pub enum RawExit<'a> {
    Io { port: u16, size: u8, out: bool, data: &'a mut [u8] },
    Mmio { at: u64, write: bool, data: &'a mut [u8] },
    InternalError { suberror: u32, data: &'a [u64], instruction: &'a [u8] },
    FailEntry { reason: u64, cpu: u32 },
    Exception { vector: u32, error_code: u32 },
    Debug { vector: u32, pc: u64, dr6: u64 },
    Msr { index: u32, write: bool, reason: u32, data: &'a mut u64, error: &'a mut u8 },
    SystemEvent { kind: u32 },
    Plain { reason: u32, detail: [u64; 2] },
}
