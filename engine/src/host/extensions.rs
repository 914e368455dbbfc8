//! Every KVM extension that the engine uses: whether it can do without, and what that costs.

use crate::kvm::System;
use kvm_bindings as k;
use serde::Serialize;

/// What is known of an extension before a host is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) number: u32,
    pub(super) name: &'static str,
    /// The bits of its value that the engine uses; 0 where any positive value will do.
    pub(super) bits: i32,
    pub(super) needed: bool,
    pub(super) costs: &'static str,
    pub(super) remedy: &'static str,
}

/// An extension on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Extension {
    /// Its name in the KVM API.
    pub name: &'static str,
    /// What `KVM_CHECK_EXTENSION` answered; 0 is missing.
    pub value: i32,
    /// Whether the engine cannot do without it.
    pub needed: bool,
    /// Whether it has all that the engine uses of it.
    pub present: bool,
    /// What it costs when it is missing.
    pub costs: &'static str,
}

const fn needed(
    number: u32,
    name: &'static str,
    bits: i32,
    costs: &'static str,
    remedy: &'static str,
) -> Known {
    Known { number, name, bits, needed: true, costs, remedy }
}

const fn optional(number: u32, name: &'static str, costs: &'static str) -> Known {
    Known { number, name, bits: 0, needed: false, costs, remedy: "" }
}

const BENCH_ROWS: &str = "rows of `dejavm bench exits`; no machine uses it";

/// The list; versions are those in which x86 KVM got the extension.
pub(super) const EXTENSIONS: [Known; 25] = [
    needed(
        k::KVM_CAP_USER_MEMORY,
        "KVM_CAP_USER_MEMORY",
        0,
        "a guest has no memory",
        "any kernel since Linux 2.6.25 has it",
    ),
    needed(
        k::KVM_CAP_SYNC_REGS,
        "KVM_CAP_SYNC_REGS",
        (k::KVM_SYNC_X86_REGS | k::KVM_SYNC_X86_SREGS | k::KVM_SYNC_X86_EVENTS) as i32,
        "registers cannot be reached through the run page",
        "use Linux 4.17 or later",
    ),
    needed(
        k::KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
        k::KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE as i32,
        "every rewind would write-protect every page again",
        "use Linux 5.2 or later",
    ),
    needed(
        k::KVM_CAP_IMMEDIATE_EXIT,
        "KVM_CAP_IMMEDIATE_EXIT",
        0,
        "a time limit could miss the run that it is for",
        "use Linux 4.12 or later",
    ),
    needed(
        k::KVM_CAP_XSAVE,
        "KVM_CAP_XSAVE",
        0,
        "vector registers cannot be saved",
        "use Linux 2.6.36 or later on a CPU with XSAVE",
    ),
    needed(
        k::KVM_CAP_XCRS,
        "KVM_CAP_XCRS",
        0,
        "XCR0 cannot be saved",
        "use Linux 2.6.36 or later on a CPU with XSAVE",
    ),
    needed(
        k::KVM_CAP_DEBUGREGS,
        "KVM_CAP_DEBUGREGS",
        0,
        "debug registers cannot be saved",
        "use Linux 2.6.35 or later",
    ),
    needed(
        k::KVM_CAP_VCPU_EVENTS,
        "KVM_CAP_VCPU_EVENTS",
        0,
        "pending exceptions cannot be saved",
        "use Linux 2.6.33 or later",
    ),
    needed(
        k::KVM_CAP_EXT_CPUID,
        "KVM_CAP_EXT_CPUID",
        0,
        "a guest's CPUID cannot be chosen",
        "use Linux 2.6.26 or later",
    ),
    optional(
        k::KVM_CAP_EXIT_ON_EMULATION_FAILURE,
        "KVM_CAP_EXIT_ON_EMULATION_FAILURE",
        "an outcome cannot name the bytes of an instruction that KVM cannot emulate (Linux 5.14)",
    ),
    optional(
        k::KVM_CAP_X86_TRIPLE_FAULT_EVENT,
        "KVM_CAP_X86_TRIPLE_FAULT_EVENT",
        "a guest that is stopped at its limit within a triple fault may seem to crash in the next \
         run (Linux 6.0)",
    ),
    optional(
        k::KVM_CAP_IRQCHIP,
        "KVM_CAP_IRQCHIP",
        "no bare guest with interrupt controllers, so not the lecture's",
    ),
    optional(
        k::KVM_CAP_PIT2,
        "KVM_CAP_PIT2",
        "no timer for bare guests with interrupt controllers",
    ),
    optional(
        k::KVM_CAP_SET_TSS_ADDR,
        "KVM_CAP_SET_TSS_ADDR",
        "no real mode on Intel CPUs without unrestricted guest mode",
    ),
    optional(
        k::KVM_CAP_SET_IDENTITY_MAP_ADDR,
        "KVM_CAP_SET_IDENTITY_MAP_ADDR",
        "no real mode on Intel CPUs without unrestricted guest mode",
    ),
    optional(
        k::KVM_CAP_MP_STATE,
        "KVM_CAP_MP_STATE",
        "a halted guest with interrupt controllers looks like one that passed its time limit",
    ),
    optional(
        k::KVM_CAP_SET_GUEST_DEBUG,
        "KVM_CAP_SET_GUEST_DEBUG",
        "no single-step from the host; process guests step by RFLAGS.TF",
    ),
    optional(
        k::KVM_CAP_XSAVE2,
        "KVM_CAP_XSAVE2",
        "none today: the engine gives no guest more state than 4096 bytes hold",
    ),
    optional(
        k::KVM_CAP_DIRTY_LOG_RING,
        "KVM_CAP_DIRTY_LOG_RING",
        "a program's rewind costs 1 us more, and more with its RAM, for the dirty log (Linux 5.11)",
    ),
    optional(k::KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD", BENCH_ROWS),
    optional(k::KVM_CAP_IRQFD, "KVM_CAP_IRQFD", BENCH_ROWS),
    optional(k::KVM_CAP_COALESCED_MMIO, "KVM_CAP_COALESCED_MMIO", BENCH_ROWS),
    optional(k::KVM_CAP_COALESCED_PIO, "KVM_CAP_COALESCED_PIO", BENCH_ROWS),
    optional(k::KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR", BENCH_ROWS),
    optional(k::KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER", BENCH_ROWS),
];

/// Asks the host for every extension.
pub(super) fn check(system: &System) -> Vec<Extension> {
    EXTENSIONS
        .iter()
        .map(|known| {
            let value = system.check_extension(known.number);
            Extension {
                name: known.name,
                value,
                needed: known.needed,
                present: known.is_in(value),
                costs: known.costs,
            }
        })
        .collect()
}

impl Known {
    pub(super) const fn is_in(&self, value: i32) -> bool {
        value > 0 && value & self.bits == self.bits
    }
}

/// Where a missing extension can be had.
pub(super) fn remedy(name: &str) -> Option<&'static str> {
    let known = EXTENSIONS.iter().find(|known| known.name == name)?;
    (!known.remedy.is_empty()).then_some(known.remedy)
}
