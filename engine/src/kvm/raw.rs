//! The ioctls that kvm-ioctls lacks, or makes with an allocation per call.

use kvm_bindings::{KVMIO, kvm_clear_dirty_log, kvm_dirty_log, kvm_interrupt};

nix::ioctl_none!(kvm_run, KVMIO, 0x80);
nix::ioctl_write_ptr!(kvm_get_dirty_log, KVMIO, 0x42, kvm_dirty_log);
nix::ioctl_readwrite!(kvm_clear_dirty_log_range, KVMIO, 0xc0, kvm_clear_dirty_log);
nix::ioctl_write_ptr!(kvm_interrupt_vcpu, KVMIO, 0x86, kvm_interrupt);
