//! A VM of a few pages in which one question is asked of the host, and thrown away.
//!
//! Every run has a limit: a thread kicks the vCPU until it is back. Nothing here can hang or
//! panic; what goes wrong is a [`ProbeError`], which becomes an "unknown".

use super::cpuid::offered_cpuid;
use crate::address::{Gpa, Gva};
use crate::exit::Exit;
use crate::guest::bare::{BareSpec, ImageError, Mode};
use crate::guest::process::trap;
use crate::kvm::{KvmError, System, Vm};
use crate::memory::{GuestMemory, MemoryError, OutOfRam, SlotSpec};
use crate::paging::{TablesError, leaf_entry};
use crate::vcpu::Vcpu;
use kvm_bindings::kvm_regs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// How long a question may take.
const LIMIT: Duration = Duration::from_secs(2);
/// How often a vCPU that is over its limit is kicked.
const KICK_EVERY: Duration = Duration::from_millis(5);

/// Where code at CPL 0 starts.
pub(super) const KERNEL_CODE: u64 = 0x8000;
/// Where code at CPL 3 starts.
const USER_CODE: u64 = 0x40_0000;
/// A page that is no memory, for stores from CPL 3.
pub(super) const USER_HOLE: u64 = 0x60_0000;
const USER_STACK: u64 = 0x50_0000;
const HOLE: Gpa = Gpa(0xf000_1000);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// A KVM call failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Memory could not be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The engine's own pages do not fit.
    #[error(transparent)]
    OutOfRam(#[from] OutOfRam),
    /// Likewise.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// Likewise.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The guest did something that answers nothing.
    #[error("the guest ended in {0:x?}")]
    Unexpected(Seen),
    /// The host has no thread to give.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
}

/// What a run came to, without its borrow of the vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Out(u16),
    Store(Gpa),
    /// An exception at CPL 3, by its vector.
    Trap(u8),
    Step,
    Window,
    EmulationFailure,
    Shutdown,
    /// The limit passed.
    Stuck,
    /// Another exit, in words.
    Other(String),
}

impl Seen {
    /// This, as the reason why a question has no answer.
    pub(super) fn unexpected<T>(self) -> Result<T, ProbeError> {
        Err(ProbeError::Unexpected(self))
    }
}

/// The VM. Fields drop in order: the vCPU before the memory, the VM last.
pub(super) struct ProbeVm {
    pub(super) vcpu: Vcpu,
    memory: GuestMemory,
    _vm: Arc<Vm>,
}

impl ProbeVm {
    /// `code` at CPL 0 in long mode, at [`KERNEL_CODE`], without an IDT.
    pub(super) fn kernel(system: &System, code: &[u8]) -> Result<Self, ProbeError> {
        let at = Gpa(KERNEL_CODE);
        let spec =
            BareSpec { irqchip: false, ..BareSpec::flat(Mode::Long, code.to_vec(), at, 1 << 20) };
        let mut probe = Self::new(system, &[spec.slot()])?;
        let entry = spec.load(&mut probe.memory)?;
        let sregs = spec.sregs(probe.vcpu.sregs());
        probe.vcpu.fd().set_sregs(&sregs)?;
        probe.vcpu.fd().set_regs(&spec.regs(entry))?;
        probe.vcpu.reload()?;
        Ok(probe)
    }

    /// `code` at CPL 3, at [`USER_CODE`], with a process guest's stubs around it.
    pub(super) fn user(system: &System, code: &[u8]) -> Result<Self, ProbeError> {
        const PAGES: u64 = 16;
        let page = crate::address::PAGE_SIZE as u64;
        let engine = SlotSpec { start: Gpa(0), bytes: trap::ENGINE_BYTES, log_dirty: false };
        let user = SlotSpec { start: trap::USER_BASE, bytes: PAGES * page, log_dirty: false };
        let mut probe = Self::new(system, &[engine, user])?;
        let memory = &mut probe.memory;
        let mut tables = trap::install(memory, PAGES)?;
        let (text, stack) = (tables.take_frame(memory)?.gpa(), tables.take_frame(memory)?.gpa());
        memory.write(text, code)?;
        tables.set_leaf(memory, Gva(USER_CODE), leaf_entry(text, false, true, true))?;
        tables.set_leaf(memory, Gva(USER_STACK), leaf_entry(stack, true, false, true))?;
        tables.set_leaf(memory, Gva(USER_HOLE), leaf_entry(HOLE, true, false, true))?;
        let sregs = trap::special_registers(probe.vcpu.sregs(), tables.root(), false, false);
        probe.vcpu.fd().set_sregs(&sregs)?;
        probe.vcpu.fd().set_msrs(&trap::msrs())?;
        let regs = kvm_regs {
            rip: USER_CODE,
            rsp: USER_STACK + page - 16,
            rflags: trap::user_flags(0),
            ..Default::default()
        };
        probe.vcpu.fd().set_regs(&regs)?;
        probe.vcpu.reload()?;
        Ok(probe)
    }

    fn new(system: &System, layout: &[SlotSpec]) -> Result<Self, ProbeError> {
        let vm = Arc::new(system.create_vm()?);
        if system.check_extension(kvm_bindings::KVM_CAP_EXIT_ON_EMULATION_FAILURE) > 0 {
            vm.enable(kvm_bindings::KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1)?;
        }
        let memory = GuestMemory::new(&vm, layout)?;
        let mut vcpu = Vcpu::new(vm.create_vcpu()?)?;
        vcpu.fd().set_cpuid(&offered_cpuid(system)?)?;
        Ok(Self { vcpu, memory, _vm: vm })
    }

    /// Runs to the next exit.
    pub(super) fn run(&mut self) -> Result<Seen, ProbeError> {
        self.run_for(LIMIT)
    }

    /// As [`run`](Self::run), with another limit.
    pub(super) fn run_for(&mut self, limit: Duration) -> Result<Seen, ProbeError> {
        guarded(&mut self.vcpu, limit, |vcpu, expired| {
            loop {
                let seen = seen(vcpu)?;
                if seen != Seen::Stuck || expired.load(Ordering::SeqCst) {
                    return Ok(seen);
                }
                vcpu.clear_kick();
            }
        })
    }

    /// Nanoseconds that each of `count` runs took, in order of length. Stops early at the limit.
    pub(super) fn time_exits(&mut self, count: usize) -> Result<Vec<u64>, ProbeError> {
        guarded(&mut self.vcpu, LIMIT, |vcpu, expired| {
            let mut times = Vec::with_capacity(count);
            while times.len() < count && !expired.load(Ordering::SeqCst) {
                let start = std::time::Instant::now();
                match vcpu.run()? {
                    Exit::PortOut { .. } | Exit::MmioWrite { .. } => {
                        times.push(start.elapsed().as_nanos() as u64);
                    }
                    Exit::Interrupted => vcpu.clear_kick(),
                    other => return Seen::Other(format!("{other:x?}")).unexpected(),
                }
            }
            times.sort_unstable();
            Ok(times)
        })
    }
}

fn seen(vcpu: &mut Vcpu) -> Result<Seen, ProbeError> {
    let seen = match vcpu.run()? {
        Exit::PortOut { port, .. } => Seen::Out(port),
        Exit::MmioWrite { at, .. } => Seen::Store(at),
        Exit::Debug { .. } => Seen::Step,
        Exit::InterruptWindow => Seen::Window,
        Exit::EmulationFailure { .. } => Seen::EmulationFailure,
        Exit::Shutdown => Seen::Shutdown,
        Exit::Interrupted => Seen::Stuck,
        other => Seen::Other(format!("{other:x?}")),
    };
    Ok(match (seen, trap::vector_of(vcpu.regs().rip)) {
        (Seen::Out(trap::PORT_TRAP), Some(vector)) => Seen::Trap(vector),
        (seen, _) => seen,
    })
}

/// Calls `run`; once `limit` has passed, sets its flag and kicks the vCPU until it is back.
fn guarded<T>(
    vcpu: &mut Vcpu,
    limit: Duration,
    run: impl FnOnce(&mut Vcpu, &AtomicBool) -> Result<T, ProbeError>,
) -> Result<T, ProbeError> {
    let expired = AtomicBool::new(false);
    let (done, wait) = mpsc::channel::<()>();
    let (kicker, thread) = (vcpu.kicker(), nix::unistd::gettid().as_raw());
    let flag = &expired;
    let result = std::thread::scope(|scope| {
        let guard = std::thread::Builder::new().name("dejavm-probe".to_owned());
        let guard = guard.spawn_scoped(scope, move || {
            let mut pause = limit;
            while wait.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::SeqCst);
                kicker.kick(thread);
                pause = KICK_EVERY;
            }
        });
        guard.map_err(ProbeError::Thread)?;
        let result = run(vcpu, flag);
        drop(done);
        result
    });
    vcpu.clear_kick();
    result
}
