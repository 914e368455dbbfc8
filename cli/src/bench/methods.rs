//! The methods of measuring an exit: beside the engine's vCPU, beside a whole machine, as a
//! difference of two runs, and on pages in another state.
//!
//! Each guest that could loop runs once in a machine, under a limit on time, before it is measured.

use super::context::Context;
use super::figures::{Layer, LayerSamples, Sampled};
use super::floor_vm::FloorVm;
use super::interrupts::{InterruptedGuest, Raise};
use super::sample::{interleave, per_event};
use super::{code, guests};
use crate::error::CliError;
use dejavm_engine::address::{Gpa, PAGE_SIZE};
use dejavm_engine::kvm::IoAddress;
use dejavm_engine::machine::Machine;
use dejavm_engine::outcome::Outcome;
use std::time::{Duration, Instant};

/// Exits of a round, besides the guest's last one.
pub const EXITS: u32 = 64;
/// Instructions of a round that the kernel handles.
pub const INSTRUCTIONS: u32 = 256;
/// Stores of a round that ring an eventfd, or that the kernel keeps: fewer than its ring holds.
pub const STORES: u32 = 64;
const _: () = assert!((STORES as usize) < dejavm_engine::kvm::COALESCED_MIN);
/// Pages written in a round.
pub const PAGES: u32 = 64;
/// Where a bare guest's pages are.
const BARE_PAGES_AT: u32 = 0x10_0000;

/// One round in a machine.
struct MachineRound {
    outcome: Outcome,
    time: Duration,
}

/// Makes one round in a machine; the rewind after it is not counted.
fn machine_round(machine: &mut Machine) -> Result<MachineRound, CliError> {
    let start = Instant::now();
    let report = machine.run(b"", guests::limit()).map_err(CliError::machine("run a guest"))?;
    let time = start.elapsed();
    machine.rewind().map_err(CliError::machine("rewind a guest"))?;
    Ok(MachineRound { outcome: report.outcome, time })
}

/// Runs a guest once under a limit: it has to end as its code says.
fn tried(machine: &mut Machine) -> Result<(), CliError> {
    match machine_round(machine)?.outcome {
        Outcome::Exited { .. } | Outcome::Halted | Outcome::Crashed(_) => Ok(()),
        other => Err(CliError::BenchGuest { did: other.to_string() }),
    }
}

/// As [`tried`], for a guest to which an exception would be its end before its time.
fn tried_to_its_exit(machine: &mut Machine) -> Result<(), CliError> {
    match machine_round(machine)?.outcome {
        Outcome::Exited { .. } => Ok(()),
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
    let mut vm = FloorVm::new(context.system, machine.snapshot())?;
    let [floor, driven] = interleave(context.plan, |variant| {
        let time = match variant {
            0 => vm.round_of(Layer::Floor, events)?,
            _ => machine_round(&mut machine)?.time,
        };
        Ok(per_event(time, events))
    })?;
    Ok(vec![LayerSamples::new(Layer::Floor, floor), LayerSamples::new(Layer::Machine, driven)])
}

/// The floor beside the engine's vCPU, for what a machine's run does not go on after: `time` gives
/// the time of `events` events through a layer.
fn beside_vcpu(
    context: &Context<'_>,
    events: u32,
    mut time: impl FnMut(Layer) -> Result<Duration, CliError>,
) -> Result<Sampled, CliError> {
    let [floor, vcpu] = interleave(context.plan, |variant| {
        let layer = if variant == 0 { Layer::Floor } else { Layer::Vcpu };
        Ok(per_event(time(layer)?, events))
    })?;
    Ok(vec![LayerSamples::new(Layer::Floor, floor), LayerSamples::new(Layer::Vcpu, vcpu)])
}

/// Rounds of [`EXITS`] exits and one last one, beside the engine's vCPU.
fn rounds_beside_vcpu(context: &Context<'_>, mut vm: FloorVm) -> Result<Sampled, CliError> {
    beside_vcpu(context, EXITS + 1, |layer| vm.round_of(layer, EXITS + 1))
}

fn bare(context: &Context<'_>, before: &[u8], body: &[u8]) -> Result<Machine, CliError> {
    guests::bare(context.system, code::bare(before, body, EXITS))
}

fn program(context: &Context<'_>, body: &[u8]) -> Result<Machine, CliError> {
    guests::process(context.system, &[], body, guests::RAM_BYTES)
}

fn floor(context: &Context<'_>, machine: &Machine) -> Result<FloorVm, CliError> {
    FloorVm::new(context.system, machine.snapshot())
}

/// `body`, an exit, at CPL 0.
pub fn driven(context: &Context<'_>, body: &[u8]) -> Result<Sampled, CliError> {
    beside_machine(context, bare(context, &[], body)?, EXITS + 1)
}

/// `body`, `events` exits with the last, at CPL 3.
pub fn driven_process(
    context: &Context<'_>,
    body: &[u8],
    events: u32,
) -> Result<Sampled, CliError> {
    beside_machine(context, program(context, body)?, events)
}

/// HLT, which ends a machine's run.
pub fn halt(context: &Context<'_>) -> Result<Sampled, CliError> {
    let mut machine = bare(context, &[], &[0xf4])?;
    tried(&mut machine)?;
    rounds_beside_vcpu(context, floor(context, &machine)?)
}

/// `body`, an access to the gate, at CPL 3. To a program's driver that is the program poking at
/// the engine.
pub fn gate(context: &Context<'_>, body: &[u8]) -> Result<Sampled, CliError> {
    let machine = program(context, &body.repeat(EXITS as usize))?;
    rounds_beside_vcpu(context, floor(context, &machine)?)
}

/// `body`, a port access, by a program that may.
pub fn program_port(context: &Context<'_>, body: &[u8]) -> Result<Sampled, CliError> {
    let machine = program(context, &body.repeat(EXITS as usize))?;
    rounds_beside_vcpu(context, floor(context, &machine)?.with_ports())
}

/// `body`, an exception after which the program goes on. A machine takes it for a crash.
pub fn exception(context: &Context<'_>, body: &[u8]) -> Result<Sampled, CliError> {
    let machine = program(context, &body.repeat(EXITS as usize))?;
    rounds_beside_vcpu(context, floor(context, &machine)?.step_over_exceptions())
}

/// `body`, an access to the MSR that `before` names, which this process answers for.
pub fn filtered(
    context: &Context<'_>,
    msr: u32,
    before: &[u8],
    body: &[u8],
) -> Result<Sampled, CliError> {
    let mut machine = bare(context, before, body)?;
    tried_to_its_exit(&mut machine)?;
    let vm = floor(context, &machine)?;
    vm.filter_msr(msr)?;
    rounds_beside_vcpu(context, vm)
}

/// A run that is over before the guest is entered.
pub fn immediate_exit(context: &Context<'_>) -> Result<Sampled, CliError> {
    let machine = guests::bare(context.system, code::bare(&[], &[], 0))?;
    let mut vm = floor(context, &machine)?;
    beside_vcpu(context, EXITS, |layer| vm.immediate_exits(layer, EXITS))
}

/// Single steps through `machine`'s code.
pub fn steps(context: &Context<'_>, machine: &Machine) -> Result<Sampled, CliError> {
    let mut vm = floor(context, machine)?;
    beside_vcpu(context, EXITS, |layer| vm.steps(layer, EXITS))
}

/// Single steps at CPL 0.
pub fn bare_steps(context: &Context<'_>) -> Result<Sampled, CliError> {
    let nops = code::bare(&[], &code::NOP, 2 * EXITS);
    steps(context, &guests::bare(context.system, nops)?)
}

/// Single steps at CPL 3.
pub fn program_steps(context: &Context<'_>) -> Result<Sampled, CliError> {
    steps(context, &program(context, &code::NOP.repeat(2 * EXITS as usize))?)
}

/// Interrupts to a handler at CPL 0.
pub fn interrupts(context: &Context<'_>, raise: Raise) -> Result<Sampled, CliError> {
    let mut guest = InterruptedGuest::new(context.system, raise)?;
    beside_vcpu(context, EXITS, |layer| guest.take(layer, EXITS))
}

/// Exits for an interrupt that could be taken.
pub fn interrupt_windows(context: &Context<'_>) -> Result<Sampled, CliError> {
    let mut guest = InterruptedGuest::new(context.system, Raise::Nothing)?;
    beside_vcpu(context, EXITS, |layer| guest.windows(layer, EXITS))
}

/// Interrupts to a stub out of CPL 3. Where none came the program would be at an UD2.
pub fn program_interrupts(context: &Context<'_>) -> Result<Sampled, CliError> {
    let machine = program(context, &code::UD2)?;
    let mut vm = floor(context, &machine)?;
    beside_vcpu(context, EXITS, |layer| vm.interrupts(layer, EXITS))
}

/// Who has an instruction that the kernel handles.
#[derive(Clone, Copy)]
pub enum Where {
    /// CPL 0, 32-bit.
    Bare,
    /// CPL 0, 64-bit.
    Long,
    /// CPL 0, with interrupt controllers in the kernel.
    Irqchip,
    /// CPL 3.
    Program,
}

impl Where {
    fn machine(
        self,
        context: &Context<'_>,
        before: &[u8],
        body: &[u8],
    ) -> Result<Machine, CliError> {
        let system = context.system;
        let bare = || code::bare(before, body, INSTRUCTIONS);
        match self {
            Self::Bare => guests::bare(system, bare()),
            Self::Long => guests::bare_long(system, bare()),
            Self::Irqchip => guests::bare_with_irqchip(system, bare()),
            Self::Program => {
                let body = [before, &body.repeat(INSTRUCTIONS as usize)].concat();
                guests::process(system, &[], &body, guests::RAM_BYTES)
            }
        }
    }
}

/// An instruction that does not exit to this process: a run with it, less the same run `without`.
pub fn in_kernel(
    context: &Context<'_>,
    place: Where,
    before: &[u8],
    with: &[u8],
    without: &[u8],
) -> Result<Sampled, CliError> {
    let floor_of = |body: &[u8]| {
        let mut machine = place.machine(context, before, body)?;
        // Without descriptors for it, a #GP is a triple fault.
        tried_to_its_exit(&mut machine)?;
        floor(context, &machine)
    };
    let (mut with, mut without) = (floor_of(with)?, floor_of(without)?);
    difference(context, INSTRUCTIONS, &mut without, &mut with, |_| Ok(()))
}

/// `with`'s round less `without`'s, for each of `events` events that it has more. `check` looks,
/// outside of the time, whether they were what they should be.
fn difference(
    context: &Context<'_>,
    events: u32,
    without: &mut FloorVm,
    with: &mut FloorVm,
    mut check: impl FnMut(&mut FloorVm) -> Result<(), CliError>,
) -> Result<Sampled, CliError> {
    let [without, with] = interleave(context.plan, |variant| {
        let time = if variant == 0 {
            without.round(Layer::Floor)?
        } else {
            let time = with.round(Layer::Floor)?;
            check(with)?;
            time
        };
        Ok(per_event(time, events))
    })?;
    let less = with.iter().zip(&without).map(|(with, without)| with - without).collect();
    Ok(vec![LayerSamples::new(Layer::Kernel, less)])
}

/// Two guests that differ in [`STORES`] times `store`, at either privilege.
fn with_stores(context: &Context<'_>, cpl: u8, store: &[u8]) -> Result<[FloorVm; 2], CliError> {
    let vm_of = |count: u32| {
        let machine = if cpl == 0 {
            guests::bare(context.system, code::bare(&[], store, count))?
        } else {
            program(context, &store.repeat(count as usize))?
        };
        floor(context, &machine)
    };
    Ok([vm_of(0)?, vm_of(STORES)?])
}

/// `store`, which goes to `at`, rings an eventfd.
pub fn rings(
    context: &Context<'_>,
    cpl: u8,
    at: IoAddress,
    store: &[u8],
) -> Result<Sampled, CliError> {
    let [mut without, mut with] = with_stores(context, cpl, store)?;
    let event = with.ring_at(at)?;
    difference(context, STORES, &mut without, &mut with, |_| {
        // It does not wait: an error says that it did not ring.
        counted("rang the eventfd", event.read().unwrap_or(0))
    })
}

/// `store`, which goes to `at`, is kept by the kernel. Reading it back is not counted.
pub fn coalesced(
    context: &Context<'_>,
    cpl: u8,
    at: IoAddress,
    store: &[u8],
) -> Result<Sampled, CliError> {
    let [mut without, mut with] = with_stores(context, cpl, store)?;
    with.coalesce(at)?;
    difference(context, STORES, &mut without, &mut with, |vm| {
        counted("left stores in the ring", vm.take_coalesced()?.into())
    })
}

fn counted(what: &str, times: u64) -> Result<(), CliError> {
    if times == u64::from(STORES) {
        return Ok(());
    }
    Err(CliError::BenchGuest { did: format!("{what} {times} times instead of {STORES}") })
}

/// Whose pages, and what their state is before they are written.
#[derive(Clone, Copy)]
pub enum Written {
    /// Write-protected for the dirty log.
    Protected,
    /// Not there: neither in the guest's second level nor in the host's tables.
    Fresh,
}

/// A bare guest that writes [`PAGES`] pages.
pub fn bare_writes(context: &Context<'_>, state: Written) -> Result<Sampled, CliError> {
    let machine = guests::bare(context.system, code::bare_page_writes(BARE_PAGES_AT, PAGES))?;
    let page = |index: u32| Gpa(u64::from(BARE_PAGES_AT) + u64::from(index) * PAGE_SIZE as u64);
    let pages: Vec<Gpa> = (0..PAGES).map(page).collect();
    writes(context, machine, state, |_| pages)
}

/// A program that writes [`PAGES`] pages, which its page tables have already.
pub fn program_writes(context: &Context<'_>, state: Written) -> Result<Sampled, CliError> {
    let writes_pages = code::page_writes(PAGES);
    let machine = guests::process(context.system, &writes_pages, &writes_pages, guests::RAM_BYTES)?;
    writes(context, machine, state, |vm| vm.program_pages(PAGES))
}

/// Writes to pages in `state`, beside the same writes to pages that are there and writable. A host
/// that emulates the store may not fault at all.
fn writes(
    context: &Context<'_>,
    mut machine: Machine,
    state: Written,
    pages: impl FnOnce(&FloorVm) -> Vec<Gpa>,
) -> Result<Sampled, CliError> {
    tried_to_its_exit(&mut machine)?;
    let mut vm = floor(context, &machine)?;
    let pages = pages(&vm);
    if pages.len() != PAGES as usize {
        return Err(CliError::BenchGuest { did: format!("has {} of its pages", pages.len()) });
    }
    if matches!(state, Written::Protected) {
        vm.log_writes()?;
    }
    let [there, other] = interleave(context.plan, |variant| {
        match state {
            Written::Protected if variant == 1 => vm.protect_written()?,
            Written::Fresh if variant == 1 => vm.forget(&pages)?,
            _ => {}
        }
        Ok(per_event(vm.round(Layer::Floor)?, PAGES))
    })?;
    let layer = match state {
        Written::Protected => Layer::Protected,
        Written::Fresh => Layer::Fresh,
    };
    Ok(vec![LayerSamples::new(Layer::Floor, there), LayerSamples::new(layer, other)])
}
