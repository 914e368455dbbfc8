//! Holds two states against each other, class by class, and names every difference.
//!
//! Never goes by a rule about what can have changed: it is how the rules are kept honest.

use super::cpu::{CpuState, IrqchipState};
use super::difference::Difference;
use super::msr::runs_by_itself;
use super::xsave::compare_xsave;
use crate::kvm::irqchip_bytes;
use kvm_bindings as k;

impl CpuState {
    /// Names every difference between this state and `now`. Not compared, because they run by
    /// themselves: TSC, MPERF, APERF, the local APIC's current count, when the PIT's counts were
    /// loaded, kvmclock.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        compare_regs(&self.regs, &now.regs, &mut found);
        compare_sregs(&self.sregs, &now.sregs, &mut found);
        let mut note =
            |field: &str, same: bool, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
                if !same {
                    found.push(Difference::new(field, a, b));
                }
            };
        let (then, present) = (effective(&self.events), effective(&now.events));
        note("events", then == present, &then, &present);
        note("debug_regs", self.debug_regs == now.debug_regs, &self.debug_regs, &now.debug_regs);
        note("xcr0", self.xcr0() == now.xcr0(), &self.xcr0(), &now.xcr0());
        note("mp_state", self.mp_state == now.mp_state, &self.mp_state, &now.mp_state);
        compare_xsave(&self.xsave, &now.xsave, &self.cpuid, &mut found);
        // In the same order, but `now` lacks those that its host has not.
        let mut rest = self.msrs.iter();
        for &(index, is) in &now.msrs {
            let was = rest.find(|&&(i, _)| i == index).map(|&(_, was)| was);
            if was != Some(is) && !runs_by_itself(index) {
                found.push(Difference::new(format!("msr {index:#x}"), was, is));
            }
        }
        if let (Some(then), Some(now)) = (&self.irqchip, &now.irqchip) {
            then.compare(now, &mut found);
        }
        found
    }
}

impl IrqchipState {
    fn compare(&self, now: &Self, found: &mut Vec<Difference>) {
        /// Current-count register of the APIC timer (Intel SDM vol. 3, 11.5.4).
        const CURRENT_COUNT: std::ops::Range<usize> = 0x390..0x394;
        for (at, (was, is)) in self.lapic.regs.iter().zip(&now.lapic.regs).enumerate() {
            if was != is && !CURRENT_COUNT.contains(&at) {
                found.push(Difference::new(format!("lapic byte {at:#x}"), was, is));
            }
        }
        for (was, is) in self.chips.iter().zip(&now.chips) {
            let (a, b) = (irqchip_bytes(was), irqchip_bytes(is));
            if a != b {
                found.push(Difference::new(format!("irqchip {}", was.chip_id), a, b));
            }
        }
        if let (Some(was), Some(is)) = (&self.pit, &now.pit) {
            if was.flags != is.flags {
                found.push(Difference::new("pit flags", was.flags, is.flags));
            }
            for (channel, (a, b)) in was.channels.iter().zip(&is.channels).enumerate() {
                // When its count was loaded is the clock.
                if (k::kvm_pit_channel_state { count_load_time: b.count_load_time, ..*a }) != *b {
                    found.push(Difference::new(format!("pit channel {channel}"), a, b));
                }
            }
        }
    }
}

/// The events without what has no effect: the number and the error code of an exception or an
/// interrupt that is neither pending nor injected are left over from the last one delivered.
fn effective(events: &k::kvm_vcpu_events) -> k::kvm_vcpu_events {
    let mut events = *events;
    // Whether KVM reports a triple fault depends on the host.
    events.flags &= !k::KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
    if events.exception.injected == 0 && events.exception.pending == 0 {
        events.exception = Default::default();
        (events.exception_has_payload, events.exception_payload) = (0, 0);
    }
    if events.interrupt.injected == 0 {
        (events.interrupt.nr, events.interrupt.soft) = (0, 0);
    }
    events
}

macro_rules! compare_fields {
    ($then:expr, $now:expr, $found:expr, $prefix:literal: $($field:ident)*) => {
        $(if $then.$field != $now.$field {
            $found.push(Difference::new(
                concat!($prefix, ".", stringify!($field)), $then.$field, $now.$field,
            ));
        })*
    };
}

fn compare_regs(then: &k::kvm_regs, now: &k::kvm_regs, found: &mut Vec<Difference>) {
    compare_fields!(then, now, found, "regs": rax rbx rcx rdx rsi rdi rsp rbp
        r8 r9 r10 r11 r12 r13 r14 r15 rip rflags);
}

fn compare_sregs(then: &k::kvm_sregs, now: &k::kvm_sregs, found: &mut Vec<Difference>) {
    compare_fields!(then, now, found, "sregs": cs ds es fs gs ss tr ldt gdt idt
        cr0 cr2 cr3 cr4 cr8 efer apic_base interrupt_bitmap);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_differ_are_named() {
        let mut found = Vec::new();
        let then = k::kvm_regs { rax: 1, ..Default::default() };
        compare_regs(&then, &k::kvm_regs::default(), &mut found);
        assert_eq!(found[0].field, "regs.rax");
    }

    #[test]
    fn a_guest_that_moved_its_clock_is_told_by_its_adjustment() {
        let state =
            |tsc, adjust| CpuState { msrs: vec![(0x10, tsc), (0x3b, adjust)], ..CpuState::empty() };
        assert_eq!(state(1, 0).differences(&state(2, 0)), []);
        assert_eq!(state(1, 0).differences(&state(2, 1))[0].field, "msr 0x3b");
    }
}
