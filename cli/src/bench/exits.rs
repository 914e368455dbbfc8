//! What an exit costs, from CPL 0 and CPL 3, and what the kernel handles without one: the rows.
//!
//! What a host cannot do becomes a row without figures: by what its KVM says (an extension), by
//! what was tried (a probe of `dejavm doctor`), or by how the row's guest ended.

use super::code;
use super::context::Context;
use super::figures::{Row, Sampled};
use super::interrupts::Raise;
use super::methods::{self, EXITS, INSTRUCTIONS, PAGES, STORES, Where, Written};
use crate::error::CliError;
use dejavm_engine::guest::process::trap;
use dejavm_engine::host::{Answer, HostReport, Probe, Weight};
use dejavm_engine::kvm::IoAddress;

/// First touches of a round by a program whose page tables lack the pages.
const TOUCHES: u32 = 16;

/// What a row needs of the host.
#[derive(Clone, Copy)]
enum Needs {
    Bare,
    Process,
    /// A probe of `dejavm doctor` by its name.
    Probe(&'static str),
    /// A KVM extension by its name, for a bare guest.
    BareWith(&'static str),
    /// Likewise, for a program.
    ProcessWith(&'static str),
}

/// A row before it is measured.
struct RowSpec {
    name: &'static str,
    what: &'static str,
    /// Events in a sample.
    events: u32,
    needs: Needs,
    measure: fn(&Context<'_>) -> Result<Sampled, CliError>,
}

const fn row(
    name: &'static str,
    what: &'static str,
    events: u32,
    needs: Needs,
    measure: fn(&Context<'_>) -> Result<Sampled, CliError>,
) -> RowSpec {
    RowSpec { name, what, events, needs, measure }
}

/// `out 0x10, al` and `in al, 0x10`.
const OUT: [u8; 2] = [0xe6, 0x10];
const IN: [u8; 2] = [0xe4, 0x10];
const PORT: IoAddress = IoAddress::Port(0x10);
/// `mov [0xf0000000], al` and `mov al, [0xf0000000]`.
const STORE: [u8; 5] = [0xa2, 0, 0, 0, 0xf0];
const LOAD: [u8; 5] = [0xa0, 0, 0, 0, 0xf0];
const HOLE: IoAddress = IoAddress::Memory(0xf000_0000);
/// `rdmsr` and `wrmsr`.
const RDMSR: [u8; 2] = [0x0f, 0x32];
const WRMSR: [u8; 2] = [0x0f, 0x30];
/// `mov ecx, MSR; xor eax, eax; xor edx, edx`. The MSR is IA32_MCG_STATUS: no KVM gives it to the
/// guest outright, and writing its 0 changes nothing.
const MCG_STATUS: u32 = 0x17a;
const MCG_STATUS_0: [u8; 9] = [0xb9, 0x7a, 1, 0, 0, 0x31, 0xc0, 0x31, 0xd2];
/// Beside the gate's first bytes, where a system call's store goes.
const ASIDE: u64 = 0x100;
const GATE_ASIDE: IoAddress = IoAddress::Memory(trap::GATE.0 + ASIDE);

const IRQCHIP: Needs = Needs::BareWith("KVM_CAP_IRQCHIP");
const WINDOW: Needs = Needs::Probe("interrupt_window_cpl0");
const MSRS: Needs = Needs::BareWith("KVM_CAP_X86_MSR_FILTER");
const IOEVENTFD: Needs = Needs::BareWith("KVM_CAP_IOEVENTFD");
const PROGRAM_IOEVENTFD: Needs = Needs::ProcessWith("KVM_CAP_IOEVENTFD");
const COALESCED: Needs = Needs::BareWith("KVM_CAP_COALESCED_MMIO");
const COALESCED_PIO: Needs = Needs::BareWith("KVM_CAP_COALESCED_PIO");
const PROGRAM_COALESCED: Needs = Needs::ProcessWith("KVM_CAP_COALESCED_MMIO");
const PORTS_AT_CPL3: Needs = Needs::Probe("out_cpl3_exits");

/// Exits to this process.
const EXITING: [RowSpec; 21] = [
    row("cpl0_out", "CPL 0 OUT", EXITS + 1, Needs::Bare, |c| methods::driven(c, &OUT)),
    row("cpl0_in", "CPL 0 IN", EXITS + 1, Needs::Bare, |c| methods::driven(c, &IN)),
    row("cpl0_mmio_store", "CPL 0 MMIO store", EXITS + 1, Needs::Bare, |c| {
        methods::driven(c, &STORE)
    }),
    row("cpl0_mmio_load", "CPL 0 MMIO load", EXITS + 1, Needs::Bare, |c| methods::driven(c, &LOAD)),
    row("cpl0_hlt", "CPL 0 HLT", EXITS + 1, Needs::Bare, methods::halt),
    row("cpl0_rdmsr_filtered", "CPL 0 RDMSR, filtered", EXITS + 1, MSRS, |c| {
        methods::filtered(c, MCG_STATUS, &MCG_STATUS_0, &RDMSR)
    }),
    row("cpl0_wrmsr_filtered", "CPL 0 WRMSR, filtered", EXITS + 1, MSRS, |c| {
        methods::filtered(c, MCG_STATUS, &MCG_STATUS_0, &WRMSR)
    }),
    row("cpl0_step", "CPL 0 single step", EXITS, Needs::Probe("single_step_cpl0"), |c| {
        methods::bare_steps(c)
    }),
    row("immediate_exit", "KVM_RUN, immediate_exit", EXITS, Needs::Bare, methods::immediate_exit),
    row("cpl0_interrupt_window", "CPL 0 interrupt window", EXITS, WINDOW, |c| {
        methods::interrupt_windows(c)
    }),
    row("cpl0_interrupt", "CPL 0 KVM_INTERRUPT, HLT", EXITS, Needs::Bare, |c| {
        methods::interrupts(c, Raise::Queue)
    }),
    row("cpl0_irq_line", "CPL 0 KVM_IRQ_LINE, OUT", EXITS, IRQCHIP, |c| {
        methods::interrupts(c, Raise::Line)
    }),
    row("cpl0_irqfd", "CPL 0 irqfd, OUT", EXITS, Needs::BareWith("KVM_CAP_IRQFD"), |c| {
        methods::interrupts(c, Raise::EventFd)
    }),
    row("cpl3_syscall", "CPL 3 getppid", EXITS + 1, Needs::Process, |c| {
        methods::driven_process(c, &code::GETPPID.repeat(EXITS as usize), EXITS + 1)
    }),
    row("cpl3_out", "CPL 3 OUT", EXITS + 1, PORTS_AT_CPL3, |c| methods::program_port(c, &OUT)),
    row("cpl3_in", "CPL 3 IN", EXITS + 1, PORTS_AT_CPL3, |c| methods::program_port(c, &IN)),
    row("cpl3_mmio_store", "CPL 3 MMIO store", EXITS + 1, Needs::Process, |c| {
        methods::gate(c, &code::gate_store(0))
    }),
    row("cpl3_mmio_load", "CPL 3 MMIO load", EXITS + 1, Needs::Process, |c| {
        methods::gate(c, &code::gate_load())
    }),
    row("cpl3_ud2_exit", "CPL 3 UD2", EXITS + 1, Needs::Process, |c| {
        methods::exception(c, &code::UD2)
    }),
    row("cpl3_int3_exit", "CPL 3 INT3", EXITS + 1, Needs::Process, |c| {
        methods::exception(c, &code::INT3)
    }),
    row("cpl3_step", "CPL 3 single step", EXITS, Needs::Probe("single_step_cpl3"), |c| {
        methods::program_steps(c)
    }),
];

/// What comes from outside, and what a machine makes more of than an exit.
const RUNS: [RowSpec; 3] = [
    row("cpl3_interrupt", "CPL 3 KVM_INTERRUPT", EXITS, Needs::Probe("interrupt_cpl3"), |c| {
        methods::program_interrupts(c)
    }),
    row("cpl3_ud2", "CPL 3 UD2, a whole run", 1, Needs::Process, |c| {
        methods::driven_process(c, &code::UD2, 1)
    }),
    row("cpl3_first_touch", "CPL 3 page fault", TOUCHES + 1, Needs::Process, |c| {
        methods::driven_process(c, &code::first_touches(TOUCHES), TOUCHES + 1)
    }),
];

/// Handled in the kernel.
const IN_KERNEL: [RowSpec; 19] = [
    row("cpl0_cpuid", "CPL 0 CPUID", INSTRUCTIONS, Needs::Bare, |c| {
        methods::in_kernel(c, Where::Bare, &[], &code::CPUID, &code::CPUID_LESS)
    }),
    row("cpl3_cpuid", "CPL 3 CPUID", INSTRUCTIONS, Needs::Process, |c| {
        methods::in_kernel(c, Where::Program, &[], &code::CPUID, &code::CPUID_LESS)
    }),
    row("cpl0_rdmsr", "CPL 0 RDMSR", INSTRUCTIONS, Needs::Bare, |c| {
        methods::in_kernel(c, Where::Bare, &MCG_STATUS_0, &RDMSR, &[])
    }),
    row("cpl0_wrmsr", "CPL 0 WRMSR", INSTRUCTIONS, Needs::Bare, |c| {
        methods::in_kernel(c, Where::Bare, &MCG_STATUS_0, &WRMSR, &[])
    }),
    // mov rax, cr8
    row("cpl0_cr8_read", "CPL 0 MOV from CR8", INSTRUCTIONS, Needs::Bare, |c| {
        methods::in_kernel(c, Where::Long, &[], &[0x44, 0x0f, 0x20, 0xc0], &[])
    }),
    // xor eax, eax; mov cr8, rax
    row("cpl0_cr8_write", "CPL 0 MOV to CR8", INSTRUCTIONS, Needs::Bare, |c| {
        methods::in_kernel(c, Where::Long, &[0x31, 0xc0], &[0x44, 0x0f, 0x22, 0xc0], &[])
    }),
    // mov eax, -1, which is no hypercall's number; vmcall
    row("cpl0_vmcall", "CPL 0 VMCALL", INSTRUCTIONS, Needs::Probe("vmcall_cpl0"), |c| {
        let (number, vmcall) = ([0xb8, 0xff, 0xff, 0xff, 0xff], [0x0f, 0x01, 0xc1]);
        methods::in_kernel(c, Where::Long, &[], &[&number[..], &vmcall].concat(), &number)
    }),
    // in al, 0x21
    row("cpl0_pic_in", "CPL 0 IN of kernel's PIC", INSTRUCTIONS, IRQCHIP, |c| {
        methods::in_kernel(c, Where::Irqchip, &[], &[0xe4, 0x21], &[])
    }),
    // mov eax, [0xfee00030]: the local APIC's version
    row("cpl0_apic_load", "CPL 0 load of kernel's APIC", INSTRUCTIONS, IRQCHIP, |c| {
        methods::in_kernel(c, Where::Irqchip, &[], &[0xa1, 0x30, 0, 0xe0, 0xfe], &[])
    }),
    row("cpl0_pio_eventfd", "CPL 0 OUT to ioeventfd", STORES, IOEVENTFD, |c| {
        methods::rings(c, 0, PORT, &OUT)
    }),
    row("cpl0_mmio_eventfd", "CPL 0 store to ioeventfd", STORES, IOEVENTFD, |c| {
        methods::rings(c, 0, HOLE, &STORE)
    }),
    row("cpl3_mmio_eventfd", "CPL 3 store to ioeventfd", STORES, PROGRAM_IOEVENTFD, |c| {
        methods::rings(c, 3, GATE_ASIDE, &code::gate_store(ASIDE))
    }),
    row("cpl0_pio_coalesced", "CPL 0 OUT, coalesced", STORES, COALESCED_PIO, |c| {
        methods::coalesced(c, 0, PORT, &OUT)
    }),
    row("cpl0_mmio_coalesced", "CPL 0 store, coalesced", STORES, COALESCED, |c| {
        methods::coalesced(c, 0, HOLE, &STORE)
    }),
    row("cpl3_mmio_coalesced", "CPL 3 store, coalesced", STORES, PROGRAM_COALESCED, |c| {
        methods::coalesced(c, 3, GATE_ASIDE, &code::gate_store(ASIDE))
    }),
    row("cpl0_first_write", "CPL 0 first write to a page", PAGES, Needs::Bare, |c| {
        methods::bare_writes(c, Written::Protected)
    }),
    row("cpl3_first_write", "CPL 3 first write to a page", PAGES, Needs::Process, |c| {
        methods::program_writes(c, Written::Protected)
    }),
    row("cpl0_fresh_page", "CPL 0 first touch of RAM", PAGES, Needs::Bare, |c| {
        methods::bare_writes(c, Written::Fresh)
    }),
    row("cpl3_fresh_page", "CPL 3 first touch of RAM", PAGES, Needs::Process, |c| {
        methods::program_writes(c, Written::Fresh)
    }),
];

/// Measures every row.
pub fn measure(context: &mut Context<'_>) -> Result<Vec<Row>, CliError> {
    let wanted = |event: &&RowSpec| context.wants(event.name);
    let events: Vec<_> = EXITING.iter().chain(&RUNS).chain(&IN_KERNEL).filter(wanted).collect();
    events.into_iter().map(|event| event.row(context)).collect()
}

impl RowSpec {
    fn row(&self, context: &mut Context<'_>) -> Result<Row, CliError> {
        if let Some(why) = self.needs.lacking(context.host) {
            return Ok(Context::absent(self.name, self.what, why));
        }
        context.status.set(&format!("measuring {}", self.what));
        match (self.measure)(context) {
            Ok(sampled) => Ok(context.row(self.name, self.what, self.events, &sampled)),
            // The host's KVM cannot do what the guest does: that is an answer too.
            Err(CliError::BenchGuest { did }) => {
                Ok(Context::absent(self.name, self.what, format!("the guest {did}")))
            }
            Err(error) => Err(error),
        }
    }
}

impl Needs {
    /// What says that this host cannot do it.
    fn lacking(self, host: &HostReport) -> Option<String> {
        let first = |wanted: &dyn Fn(&Probe) -> bool| {
            let no = |probe: &&Probe| probe.answer != Answer::Yes && wanted(probe);
            host.probes.iter().find(no).map(probe_text)
        };
        let bare = || first(&|probe| probe.weight == Weight::Bare);
        let process = || first(&|probe| matches!(probe.weight, Weight::Bare | Weight::Process));
        match self {
            Self::Bare => bare(),
            Self::Process => process(),
            Self::Probe(name) => first(&|probe| probe.name == name),
            Self::BareWith(name) => bare().or_else(|| extension_missing(host, name)),
            Self::ProcessWith(name) => process().or_else(|| extension_missing(host, name)),
        }
    }
}

fn probe_text(probe: &Probe) -> String {
    let answer = match &probe.answer {
        Answer::Yes => "yes",
        Answer::No => "no",
        Answer::Unknown(why) => why,
    };
    format!("probe {}: {answer}", probe.name)
}

fn extension_missing(host: &HostReport, name: &str) -> Option<String> {
    let extension = host.extensions.iter().find(|extension| extension.name == name);
    match extension {
        Some(extension) if extension.present => None,
        _ => Some(format!("extension {name}: missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_of_their_own_and_fit_their_column() {
        let events = || EXITING.iter().chain(&RUNS).chain(&IN_KERNEL);
        let names: std::collections::BTreeSet<_> = events().map(|event| event.name).collect();
        assert_eq!(names.len(), events().count());
        assert!(events().all(|event| event.what.len() < 28));
    }
}
