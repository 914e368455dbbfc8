//! The first unsafe fence: safe handles over the KVM API's system, VM and vCPU descriptors.
//!
//! kvm-ioctls makes the calls it has; `raw` adds the few it lacks. `run_page` is the only reader of
//! the exits in the memory that a vCPU shares with the kernel; `kick` has the one field of it that
//! other threads write. This module never decides what a call means for a guest, and it never
//! allocates on the path of [`VcpuFd::run`].
#![allow(unsafe_code)]

mod coalesced;
mod dirty_ring;
mod error;
mod eventfd;
mod kick;
mod mapping;
mod msr_filter;
mod raw;
mod run_page;
mod selectors;
mod signals;
mod system;
mod vcpu;
mod vm;

pub use coalesced::{COALESCED_MAX, COALESCED_MIN, CoalescedWrite};
pub use dirty_ring::{
    DIRTY_RING_ENTRIES_MAX, DIRTY_RING_ENTRIES_MIN, DirtyPage, DirtyRing, GivenBack,
};
pub use error::KvmError;
pub use eventfd::{DataMatch, EventFd, IoAddress, event_fd};
pub use kick::{Kicker, install_kick_handler};
pub use msr_filter::{FilteredMsr, MsrAccess};
pub use run_page::{RawExit, RunPage};
pub use selectors::clear_selectors;
pub use system::System;
pub use vcpu::{Ran, VcpuFd};
pub use vm::{DirtyBitmap, Vm, irqchip_bytes};
