//! Events without an exit: a guest's store that rings an eventfd (`KVM_IOEVENTFD`), and an eventfd
//! that raises an interrupt (`KVM_IRQFD`).
//!
//! Never reads or writes an eventfd itself.

use super::error::{KvmError, errno_of, failed};
use super::vm::Vm;
use kvm_ioctls::{IoEventAddress, NoDatamatch};

pub use vmm_sys_util::eventfd::EventFd;

/// An eventfd that is read and written without waiting; it starts at 0.
///
/// # Errors
/// The process has no descriptor left.
pub fn event_fd() -> Result<EventFd, KvmError> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
        .map_err(|error| KvmError::Ioctl { call: "eventfd", source: errno_of(&error) })
}

/// Where a guest's store goes: a port, or guest-physical memory that no slot covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoAddress {
    /// An I/O port, for OUT.
    Port(u16),
    /// A guest-physical address.
    Memory(u64),
}

impl IoAddress {
    pub(super) fn to_kvm(self) -> IoEventAddress {
        match self {
            Self::Port(port) => IoEventAddress::Pio(port.into()),
            Self::Memory(at) => IoEventAddress::Mmio(at),
        }
    }
}

/// Which stores ring an eventfd; any other store to the address exits as if there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataMatch {
    /// A store of any value and any length (`KVM_CAP_IOEVENTFD_ANY_LENGTH`, Linux 4.4).
    Any,
    /// A store of this byte.
    U8(u8),
    /// A store of these 2 bytes.
    U16(u16),
    /// A store of these 4 bytes.
    U32(u32),
    /// A store of these 8 bytes; not for a port.
    U64(u64),
}

/// Makes a call with the value of a [`DataMatch`], whose type gives KVM its width.
macro_rules! by_width {
    ($matching:expr, $value:ident => $call:expr) => {
        match $matching {
            DataMatch::Any => {
                let $value = NoDatamatch;
                $call
            }
            DataMatch::U8($value) => $call,
            DataMatch::U16($value) => $call,
            DataMatch::U32($value) => $call,
            DataMatch::U64($value) => $call,
        }
    };
}

impl Vm {
    /// `KVM_IOEVENTFD`: from now on a store to `at` that matches adds 1 to `event` and does not
    /// exit. Loads still do.
    ///
    /// # Errors
    /// The address has such an event already (EEXIST), or the kernel refuses it.
    pub fn add_ioeventfd(
        &self,
        event: &EventFd,
        at: IoAddress,
        matching: DataMatch,
    ) -> Result<(), KvmError> {
        let (fd, at) = (&self.fd, at.to_kvm());
        by_width!(matching, value => fd.register_ioevent(event, &at, value))
            .map_err(failed("KVM_IOEVENTFD"))
    }

    /// Takes back what [`add_ioeventfd`](Self::add_ioeventfd) made with the same arguments.
    ///
    /// # Errors
    /// There is none (ENOENT).
    pub fn remove_ioeventfd(
        &self,
        event: &EventFd,
        at: IoAddress,
        matching: DataMatch,
    ) -> Result<(), KvmError> {
        let (fd, at) = (&self.fd, at.to_kvm());
        by_width!(matching, value => fd.unregister_ioevent(event, &at, value))
            .map_err(failed("KVM_IOEVENTFD"))
    }

    /// `KVM_IRQFD`: from now on a write to `event` raises interrupt line `line` of the in-kernel
    /// interrupt controllers and lowers it again, on a kernel thread: not before the write returns.
    ///
    /// # Errors
    /// There is no irqchip (EINVAL), or the eventfd raises a line already (EBUSY).
    pub fn add_irqfd(&self, event: &EventFd, line: u32) -> Result<(), KvmError> {
        self.fd.register_irqfd(event, line).map_err(failed("KVM_IRQFD"))
    }

    /// Takes back what [`add_irqfd`](Self::add_irqfd) made.
    ///
    /// # Errors
    /// There is no irqchip.
    pub fn remove_irqfd(&self, event: &EventFd, line: u32) -> Result<(), KvmError> {
        self.fd.unregister_irqfd(event, line).map_err(failed("KVM_IRQFD"))
    }
}
