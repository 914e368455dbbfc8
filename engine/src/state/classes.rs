//! The classes of state that are not memory, in the one order in which they are put back: beside
//! each the reason for its place, and the rule for when a run can have changed it.
//!
//! Never puts anything back: `CpuState::load` and `state::rewind` walk this list. Every rule is
//! held against the truth by `Machine::verify`, which compares all classes whatever a rule says.

use super::cpu::CpuState;
use super::reach::Reach;

/// A class of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What the CPU has cached of the guest's page tables. Not captured: it follows from memory
    /// and special registers, if it is dropped.
    Tlb,
    /// Segments, descriptor tables, control registers with CR8, EFER, APIC base.
    Sregs,
    /// XCR0.
    Xcrs,
    /// x87, SSE, AVX, AVX-512, PKRU.
    Xsave,
    /// The local APIC.
    Lapic,
    /// The MSRs that this host lets be read and written.
    Msrs,
    /// The 8254.
    Pit,
    /// Both PICs and the IOAPIC.
    Irqchips,
    /// Running, halted, waiting.
    MpState,
    /// DR0 to DR7.
    DebugRegs,
    /// General registers, RIP, RFLAGS.
    Regs,
    /// Pending exceptions, interrupts, NMIs, interrupt shadow.
    Events,
}

/// When a run can have changed a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// In every run: nothing that the host sees rules it out.
    Always,
    /// In no run: the guest cannot reach it.
    Never,
    /// In every run, but the guest itself puts it back at the start of the next.
    ByTheGuest,
    /// When the run page, which has it after every exit, shows another value.
    WhenShown,
    /// In a run that did not end by the guest's own request: only then can the vCPU have been
    /// stopped between two steps of one event.
    WhenInterrupted,
    /// In a run that took a #DB, or that was stopped before a #DB could be seen.
    WhenDebugged,
}

/// How a run ended, as far as rules go by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// By an instruction of the guest that asked for it.
    #[default]
    Asked,
    /// By a fault or a crash that the guest's own code reported.
    Reported,
    /// Anywhere: out of time, halted, shut down, or at something that is not supported.
    Interrupted,
}

/// What is known of the run since the last rewind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// How it ended.
    pub ending: Ending,
    /// A #DB was taken.
    pub debug_exception: bool,
}

impl RunFacts {
    /// Nothing is known, and anything may have happened.
    pub const UNKNOWN: Self = Self { ending: Ending::Interrupted, debug_exception: true };
}

/// A class with its rules.
#[derive(Clone, Copy, Debug)]
pub struct ClassRules {
    /// Which.
    pub class: Class,
    /// The rule for code at CPL 3 behind the engine's gate.
    pub program: Rule,
    /// The rule for code at CPL 0.
    pub kernel: Rule,
}

const fn rules(class: Class, program: Rule, kernel: Rule) -> ClassRules {
    ClassRules { class, program, kernel }
}

/// The order in which state is put back. CPUID goes before all of it, into a vCPU that never ran:
/// it decides which CR4, XCR0 and MSR bits are legal, and no run can change it. The clocks (TSC,
/// kvmclock) are in no class, because they go on.
pub const ORDER: [ClassRules; 12] = [
    // Before the special registers: it loads them once with another CR4.
    // Program: entries that lose a permission are written by the guest, which reloads CR3
    // (`paging::tables`). Kernel: it can change its tables and flush or not, which no exit shows.
    rules(Class::Tlb, Rule::Never, Rule::Always),
    // EFER, CR4 and the APIC base decide what the later calls accept, and CR4.OSXSAVE must be set
    // before XCR0 means anything.
    // Program: exceptions change CS, SS and CR2, the engine FS and GS; the run page has them all.
    // Kernel: likewise, but `Tlb` has loaded others by then, and after a triple fault
    // KVM wants them anew; no ioctl is saved.
    rules(Class::Sregs, Rule::WhenShown, Rule::Always),
    // Before XSAVE: the kernel masks XSTATE_BV by what XCR0 allows.
    // Program: XSETBV faults at CPL 3 (Intel SDM vol. 2). Kernel: CR4.OSXSAVE as it is at the end
    // does not tell whether it was set in between.
    rules(Class::Xcrs, Rule::Never, Rule::Always),
    // Program: the trampoline's XRSTOR loads every component that XCR0 enables, for less than the
    // ioctl costs. PKRU is in none of them, but CR4.PKE is off and WRPKRU faults.
    rules(Class::Xsave, Rule::ByTheGuest, Rule::Always),
    // Before the MSRs: the TSC-deadline MSR needs its timer mode.
    // Exists with an irqchip only, which no program has. Its registers change without an exit.
    rules(Class::Lapic, Rule::Never, Rule::Always),
    // Program: WRMSR faults at CPL 3, and SWAPGS with it; WRFSBASE and WRGSBASE write special
    // registers. Kernel: WRMSR and SWAPGS change them without an exit.
    rules(Class::Msrs, Rule::Never, Rule::Always),
    // Before the chips: until it is set, the timer that the guest left running may raise its
    // interrupt in the PIC. KVM cancels the timer and waits for its work there.
    // Exists with an irqchip only; ports in the kernel, without an exit.
    rules(Class::Pit, Rule::Never, Rule::Always),
    // As the PIT.
    rules(Class::Irqchips, Rule::Never, Rule::Always),
    // Exists with an irqchip only: without one a vCPU is always runnable. A vCPU that executes an
    // instruction which exits is runnable (`vcpu_run`, arch/x86/kvm/x86.c), as it was when it
    // executed the OUT after which the snapshot was taken. Only a run that ended otherwise can have
    // left it halted or waiting.
    rules(Class::MpState, Rule::Never, Rule::WhenInterrupted),
    // Program: MOV DR faults at CPL 3, so that only a #DB reaches one: it leaves its cause in DR6.
    // Kernel: MOV DR does not exit.
    rules(Class::DebugRegs, Rule::WhenDebugged, Rule::Always),
    // Through the run page, at no cost; a run changes RIP at least.
    rules(Class::Regs, Rule::Always, Rule::Always),
    // Last: KVM drops a pending exception when it loads general registers (KVM_SET_REGS).
    // Program: nothing is pending at an exit, unless the vCPU was stopped while KVM delivered a
    // fault. Kernel: an interrupt shadow or a masked NMI stays; through the run page, at no cost.
    rules(Class::Events, Rule::WhenInterrupted, Rule::Always),
];

impl ClassRules {
    /// The rule for guests of this reach.
    #[must_use]
    pub const fn rule(&self, reach: Reach) -> Rule {
        match reach {
            Reach::Program => self.program,
            Reach::Kernel => self.kernel,
        }
    }
}

impl Class {
    /// Whether the guest of this state has such a class at all.
    #[must_use]
    pub const fn exists(self, state: &CpuState) -> bool {
        match self {
            Self::Lapic | Self::Irqchips | Self::MpState => state.irqchip.is_some(),
            Self::Pit => matches!(&state.irqchip, Some(irqchip) if irqchip.pit.is_some()),
            Self::Tlb
            | Self::Sregs
            | Self::Xcrs
            | Self::Xsave
            | Self::Msrs
            | Self::DebugRegs
            | Self::Regs
            | Self::Events => true,
        }
    }
}

impl Rule {
    /// Whether the host must put the class back after such a run; `shown` is whether the run
    /// page shows another value of it than the snapshot's.
    #[must_use]
    pub fn asks_for_it(self, ran: RunFacts, shown: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never | Self::ByTheGuest => false,
            Self::WhenShown => shown,
            Self::WhenInterrupted => ran.ending != Ending::Asked,
            Self::WhenDebugged => ran.debug_exception || ran.ending == Ending::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_in_the_order_once() {
        for (at, entry) in ORDER.iter().enumerate() {
            assert!(ORDER[at + 1..].iter().all(|other| other.class != entry.class), "{entry:?}");
        }
    }

    #[test]
    fn of_an_unknown_run_nothing_is_taken_for_granted() {
        for rule in [Rule::Always, Rule::WhenInterrupted, Rule::WhenDebugged] {
            assert!(rule.asks_for_it(RunFacts::UNKNOWN, false), "{rule:?}");
        }
        let asked = RunFacts { ending: Ending::Asked, debug_exception: false };
        assert!(!Rule::WhenInterrupted.asks_for_it(asked, true));
        assert!(!Rule::WhenDebugged.asks_for_it(asked, true));
        assert!(Rule::WhenDebugged.asks_for_it(RunFacts { debug_exception: true, ..asked }, false));
    }
}
