//! The ioctls that kvm-ioctls lacks, or makes with an allocation per call.

use kvm_bindings::{KVMIO, kvm_clear_dirty_log, kvm_dirty_log, kvm_interrupt};

// Not `ioctl_none!`: KVM_RUN refuses any third argument but 0, and that macro passes none.
nix::ioctl_write_int_bad!(kvm_run, nix::request_code_none!(KVMIO, 0x80));
// Any argument will do; one is passed for the same reason.
nix::ioctl_write_int_bad!(kvm_reset_dirty_rings, nix::request_code_none!(KVMIO, 0xc7));
nix::ioctl_write_ptr!(kvm_get_dirty_log, KVMIO, 0x42, kvm_dirty_log);
nix::ioctl_readwrite!(kvm_clear_dirty_log_range, KVMIO, 0xc0, kvm_clear_dirty_log);
nix::ioctl_write_ptr!(kvm_interrupt_vcpu, KVMIO, 0x86, kvm_interrupt);
nix::ioctl_write_ptr!(kvm_x86_setup_mce, KVMIO, 0x9c, u64);
