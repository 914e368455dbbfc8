//! What an exit costs, from CPL 0 and CPL 3, and what the kernel handles without one.
//!
//! Each guest runs once in a machine, under a limit on time, before anything is measured; what it
//! cannot do there becomes a row without figures.

use super::rig::Rig;
use super::sample::{interleave, per_event};
use super::{Context, Layer, Row, Sampled, code, guests};
use crate::error::CliError;
use dejavm_engine::host::{Answer, Report, Weight};
use dejavm_engine::machine::Machine;
use dejavm_engine::outcome::Outcome;
use std::time::{Duration, Instant};

/// Exits of a round, besides the guest's last one.
const EXITS: u32 = 64;
/// Instructions of a round that the kernel handles.
const INSTRUCTIONS: u32 = 256;
/// First touches of a round.
const TOUCHES: u32 = 16;
/// Pages written in a round.
const PAGES: u32 = 64;
/// Where a bare guest's pages are.
const BARE_PAGES_AT: u32 = 0x10_0000;

/// What a row needs of the host.
#[derive(Clone, Copy)]
enum Needs {
    Bare,
    Process,
    /// A probe of `dejavm doctor` by its name.
    Probe(&'static str),
}

/// A row before it is measured.
struct Event {
    name: &'static str,
    what: &'static str,
    /// Events in a sample.
    events: u32,
    needs: Needs,
    measure: fn(&Context<'_>) -> Result<Sampled, CliError>,
}

const fn event(
    name: &'static str,
    what: &'static str,
    events: u32,
    needs: Needs,
    measure: fn(&Context<'_>) -> Result<Sampled, CliError>,
) -> Event {
    Event { name, what, events, needs, measure }
}

/// `mov ecx, MSR; xor eax, eax; xor edx, edx`. The MSR is IA32_MCG_STATUS: no KVM gives it to the
/// guest outright, and writing its 0 changes nothing.
const MCG_STATUS: [u8; 9] = [0xb9, 0x7a, 1, 0, 0, 0x31, 0xc0, 0x31, 0xd2];

const EVENTS: [Event; 17] = [
    event("cpl0_out", "CPL 0 OUT", EXITS + 1, Needs::Bare, |c| driven(c, &[0xe6, 0x10])),
    event("cpl0_in", "CPL 0 IN", EXITS + 1, Needs::Bare, |c| driven(c, &[0xe4, 0x10])),
    // mov [0xf0000000], al
    event("cpl0_mmio_store", "CPL 0 MMIO store", EXITS + 1, Needs::Bare, |c| {
        driven(c, &[0xa2, 0, 0, 0, 0xf0])
    }),
    // mov al, [0xf0000000]
    event("cpl0_mmio_load", "CPL 0 MMIO load", EXITS + 1, Needs::Bare, |c| {
        driven(c, &[0xa0, 0, 0, 0, 0xf0])
    }),
    event("cpl0_hlt", "CPL 0 HLT", EXITS + 1, Needs::Bare, halt),
    event("immediate_exit", "KVM_RUN, immediate_exit", EXITS, Needs::Bare, immediate_exit),
    // xor eax, eax; cpuid
    event("cpl0_cpuid", "CPL 0 CPUID, in kernel", INSTRUCTIONS, Needs::Bare, |c| {
        in_kernel(c, &[], &[0x31, 0xc0, 0x0f, 0xa2], &[0x31, 0xc0])
    }),
    event("cpl0_rdmsr", "CPL 0 RDMSR, in kernel", INSTRUCTIONS, Needs::Bare, |c| {
        in_kernel(c, &MCG_STATUS, &[0x0f, 0x32], &[])
    }),
    event("cpl0_wrmsr", "CPL 0 WRMSR, in kernel", INSTRUCTIONS, Needs::Bare, |c| {
        in_kernel(c, &MCG_STATUS, &[0x0f, 0x30], &[])
    }),
    event("cpl0_first_write", "CPL 0 first write to a page", PAGES, Needs::Bare, |c| {
        first_write(c, guests::bare(c.system, code::bare_page_writes(BARE_PAGES_AT, PAGES))?)
    }),
    event("cpl0_step", "CPL 0 single step", EXITS, Needs::Probe("single_step_cpl0"), |c| {
        steps(c, guests::bare(c.system, code::bare(&[], &code::NOP, 2 * EXITS))?)
    }),
    event("cpl3_syscall", "CPL 3 getppid", EXITS + 1, Needs::Process, |c| {
        driven_process(c, &code::GETPPID.repeat(EXITS as usize), EXITS + 1)
    }),
    event("cpl3_ud2", "CPL 3 UD2, a whole run", 1, Needs::Process, |c| {
        driven_process(c, &code::UD2, 1)
    }),
    event("cpl3_mmio_store", "CPL 3 MMIO store", EXITS + 1, Needs::Process, gate_store),
    event("cpl3_first_touch", "CPL 3 page fault", TOUCHES + 1, Needs::Process, |c| {
        driven_process(c, &code::first_touches(TOUCHES), TOUCHES + 1)
    }),
    event("cpl3_first_write", "CPL 3 first write to a page", PAGES, Needs::Process, |c| {
        let writes = code::page_writes(PAGES);
        first_write(c, guests::process(c.system, &writes, &writes, guests::RAM_BYTES)?)
    }),
    event("cpl3_step", "CPL 3 single step", EXITS, Needs::Probe("single_step_cpl3"), |c| {
        let nops = code::NOP.repeat(2 * EXITS as usize);
        steps(c, guests::process(c.system, &[], &nops, guests::RAM_BYTES)?)
    }),
];

/// Measures every row.
pub fn measure(context: &mut Context<'_>) -> Result<Vec<Row>, CliError> {
    let wanted = |event: &&Event| context.wants(event.name);
    let events: Vec<_> = EVENTS.iter().filter(wanted).collect();
    events.into_iter().map(|event| event.row(context)).collect()
}

impl Event {
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
    /// The probe that says that this host cannot do it.
    fn lacking(self, host: &Report) -> Option<String> {
        let wanted = |weight: Weight| match self {
            Self::Bare => weight == Weight::Bare,
            Self::Process => matches!(weight, Weight::Bare | Weight::Process),
            Self::Probe(_) => false,
        };
        let lacks = |probe: &&dejavm_engine::host::Probe| {
            probe.answer != Answer::Yes
                && match self {
                    Self::Probe(name) => probe.name == name,
                    _ => wanted(probe.weight),
                }
        };
        let probe = host.probes.iter().find(lacks)?;
        let answer = match &probe.answer {
            Answer::Yes => "yes",
            Answer::No => "no",
            Answer::Unknown(why) => why,
        };
        Some(format!("probe {}: {answer}", probe.name))
    }
}

/// One round in a machine; the rewind after it is not counted.
fn machine_round(machine: &mut Machine) -> Result<(Outcome, Duration), CliError> {
    let start = Instant::now();
    let report = machine.run(b"", guests::limit()).map_err(CliError::machine("run a guest"))?;
    let time = start.elapsed();
    machine.rewind().map_err(CliError::machine("rewind a guest"))?;
    Ok((report.outcome, time))
}

/// Runs a guest once under a limit: it has to end as its code says.
fn tried(machine: &mut Machine) -> Result<(), CliError> {
    match machine_round(machine)?.0 {
        Outcome::Exited { .. } | Outcome::Halted | Outcome::Crashed(_) => Ok(()),
        other => Err(CliError::BenchGuest { did: other.to_string() }),
    }
}

/// The floor beside the machine.
fn beside_machine(
    context: &Context<'_>,
    mut machine: Machine,
    events: u32,
) -> Result<Sampled, CliError> {
    tried(&mut machine)?;
    let mut rig = Rig::new(context.system, machine.snapshot())?;
    let [floor, driven] = interleave(context.plan, |variant| {
        let time = match variant {
            0 => rig.round(Layer::Floor)?,
            _ => machine_round(&mut machine)?.1,
        };
        Ok(per_event(time, events))
    })?;
    Ok(vec![(Layer::Floor, floor), (Layer::Machine, driven)])
}

/// The floor beside the engine's vCPU, for what a machine's run does not go on after.
fn beside_vcpu(mut rig: Rig, context: &Context<'_>, events: u32) -> Result<Sampled, CliError> {
    let [floor, vcpu] = interleave(context.plan, |variant| {
        let layer = if variant == 0 { Layer::Floor } else { Layer::Vcpu };
        Ok(per_event(rig.round(layer)?, events))
    })?;
    Ok(vec![(Layer::Floor, floor), (Layer::Vcpu, vcpu)])
}

fn driven(context: &Context<'_>, body: &[u8]) -> Result<Sampled, CliError> {
    let machine = guests::bare(context.system, code::bare(&[], body, EXITS))?;
    beside_machine(context, machine, EXITS + 1)
}

fn driven_process(context: &Context<'_>, body: &[u8], events: u32) -> Result<Sampled, CliError> {
    let machine = guests::process(context.system, &[], body, guests::RAM_BYTES)?;
    beside_machine(context, machine, events)
}

/// HLT ends a machine's run.
fn halt(context: &Context<'_>) -> Result<Sampled, CliError> {
    let mut machine = guests::bare(context.system, code::bare(&[], &[0xf4], EXITS))?;
    tried(&mut machine)?;
    beside_vcpu(Rig::new(context.system, machine.snapshot())?, context, EXITS + 1)
}

/// To a program's driver a store to the gate is the program poking at the engine.
fn gate_store(context: &Context<'_>) -> Result<Sampled, CliError> {
    let body = code::gate_store().repeat(EXITS as usize);
    let machine = guests::process(context.system, &[], &body, guests::RAM_BYTES)?;
    beside_vcpu(Rig::new(context.system, machine.snapshot())?, context, EXITS + 1)
}

fn immediate_exit(context: &Context<'_>) -> Result<Sampled, CliError> {
    let machine = guests::bare(context.system, code::bare(&[], &[], 0))?;
    let mut rig = Rig::new(context.system, machine.snapshot())?;
    let [floor] = interleave(context.plan, |_| Ok(per_event(rig.immediate_exits(EXITS)?, EXITS)))?;
    Ok(vec![(Layer::Floor, floor)])
}

/// An instruction that does not exit to this process: a run with it, less the same run `without`.
fn in_kernel(
    context: &Context<'_>,
    before: &[u8],
    with: &[u8],
    without: &[u8],
) -> Result<Sampled, CliError> {
    let rig = |body: &[u8]| {
        let mut machine = guests::bare(context.system, code::bare(before, body, INSTRUCTIONS))?;
        match machine_round(&mut machine)?.0 {
            Outcome::Exited { .. } => Rig::new(context.system, machine.snapshot()),
            // Without descriptors for it, a #GP is a triple fault.
            other => Err(CliError::BenchGuest { did: other.to_string() }),
        }
    };
    let (mut with, mut without) = (rig(with)?, rig(without)?);
    let [without, with] = interleave(context.plan, |variant| {
        let rig = if variant == 0 { &mut without } else { &mut with };
        Ok(per_event(rig.round(Layer::Floor)?, INSTRUCTIONS))
    })?;
    let less = with.iter().zip(&without).map(|(with, without)| with - without).collect();
    Ok(vec![(Layer::Kernel, less)])
}

/// The first write to a page that was write-protected for the dirty log, beside the same write to
/// a page that was not. A host that emulates the store may not fault at all.
fn first_write(context: &Context<'_>, mut machine: Machine) -> Result<Sampled, CliError> {
    tried(&mut machine)?;
    let mut rig = Rig::new(context.system, machine.snapshot())?;
    rig.log_writes()?;
    let [writable, protected] = interleave(context.plan, |variant| {
        if variant == 1 {
            rig.protect_written()?;
        }
        Ok(per_event(rig.round(Layer::Floor)?, PAGES))
    })?;
    Ok(vec![(Layer::Floor, writable), (Layer::Protected, protected)])
}

fn steps(context: &Context<'_>, machine: Machine) -> Result<Sampled, CliError> {
    let mut rig = Rig::new(context.system, machine.snapshot())?;
    let [floor, vcpu] = interleave(context.plan, |variant| {
        let layer = if variant == 0 { Layer::Floor } else { Layer::Vcpu };
        Ok(per_event(rig.steps(layer, EXITS)?, EXITS))
    })?;
    Ok(vec![(Layer::Floor, floor), (Layer::Vcpu, vcpu)])
}
