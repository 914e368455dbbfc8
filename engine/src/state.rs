//! Everything of a VM that is not memory: capture, restore, compare, in one ordered list whose
//! constraints have their reasons beside them.
//!
//! Never decides *when* a class must be restored on a rewind; that rule belongs to `rewind`,
//! which knows what the guest can reach.

mod rewind;

pub use rewind::Prepared;

use crate::kvm::{KvmError, Vm, irqchip_bytes};
use crate::vcpu::Vcpu;
use kvm_bindings as k;
use serde::{Deserialize, Serialize};

/// Bytes of a standard-format XSAVE area that the engine keeps (`KVM_GET_XSAVE`).
pub const XSAVE_BYTES: usize = 4096;
/// Offset of XSTATE_BV in an XSAVE area (Intel SDM vol. 1, 13.4.2).
pub const XSTATE_BV_AT: usize = 512;

/// IA32_TIME_STAMP_COUNTER: runs by itself, so it is neither compared nor rewound.
const MSR_TSC: u32 = 0x10;
/// IA32_TSC_ADJUST: moves when the TSC is written.
const MSR_TSC_ADJUST: u32 = 0x3b;
/// IA32_TSC_DEADLINE: needs a configured local APIC, and is 0 once it has fired.
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// IA32_MPERF, IA32_APERF: run by themselves.
const MSR_MPERF: u32 = 0xe7;
const MSR_APERF: u32 = 0xe8;
/// Hyper-V's VP_RUNTIME and TIME_REF_COUNT, which KVM emulates: clocks.
const MSR_HV_CLOCKS: [u32; 2] = [0x4000_0010, 0x4000_0020];

/// How far a guest reaches into the CPU, which decides which of its MSRs a host may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Code at CPL 3, behind the engine's own gate: RDMSR and WRMSR fault.
    Program,
    /// Code at CPL 0, which can read and write any MSR that there is.
    Kernel,
}

impl Reach {
    /// Whether a guest can tell that its CPU lacks the MSR `index`.
    #[must_use]
    pub fn notices(self, index: u32) -> bool {
        self == Self::Kernel || REACH_CPL_3.contains(&index)
    }
}

/// The MSRs that decide what an instruction at CPL 3 does (Intel SDM vol. 4, table 2-2; AMD APM
/// vol. 2, appendix A). FS and GS bases and EFER are special registers.
const REACH_CPL_3: [u32; 9] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0x140,       // MISC_FEATURES_ENABLES: CPUID faults
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // FMASK
    0xc000_0103, // TSC_AUX, which RDTSCP and RDPID read
];

/// MSRs that cannot be compared, each because it changes by itself.
#[must_use]
pub fn runs_by_itself(index: u32) -> bool {
    matches!(index, MSR_TSC | MSR_TSC_ADJUST | MSR_MPERF | MSR_APERF)
        || MSR_HV_CLOCKS.contains(&index)
}

/// The CPU's and the in-kernel devices' state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CpuState {
    /// General registers, RIP, RFLAGS.
    pub regs: k::kvm_regs,
    /// Segments, descriptor tables, control registers, EFER, APIC base.
    pub sregs: k::kvm_sregs,
    /// Pending exceptions, interrupts, NMIs, shadows.
    pub events: k::kvm_vcpu_events,
    /// DR0 to DR7.
    pub debug_regs: k::kvm_debugregs,
    /// XCR0.
    pub xcrs: k::kvm_xcrs,
    /// The XSAVE area in standard format, [`XSAVE_BYTES`] long.
    pub xsave: Vec<u8>,
    /// The MSRs that this host lets be both read and written, in index-list order.
    pub msrs: Vec<(u32, u64)>,
    /// Running, halted, waiting...
    pub mp_state: k::kvm_mp_state,
    /// What the in-kernel interrupt controllers and timer hold, where the VM has them.
    pub irqchip: Option<IrqchipState>,
    /// CPUID as the guest sees it.
    pub cpuid: Vec<k::kvm_cpuid_entry2>,
}

/// The state behind `KVM_CREATE_IRQCHIP` and `KVM_CREATE_PIT2`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IrqchipState {
    /// The local APIC.
    pub lapic: k::kvm_lapic_state,
    /// Master PIC, slave PIC, IOAPIC.
    pub chips: [k::kvm_irqchip; 3],
    /// The 8254, where the VM has one.
    pub pit: Option<k::kvm_pit_state2>,
}

/// One field that differs from the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which field, such as `regs.rax` or `page 0x1000`.
    pub field: String,
    /// What the snapshot has.
    pub expected: String,
    /// What the machine has.
    pub found: String,
}

impl Difference {
    /// A difference between two values that print in hexadecimal.
    pub fn new(
        field: impl Into<String>,
        expected: impl std::fmt::Debug,
        found: impl std::fmt::Debug,
    ) -> Self {
        Self {
            field: field.into(),
            expected: format!("{expected:x?}"),
            found: format!("{found:x?}"),
        }
    }
}

impl CpuState {
    /// Captures the state. Finishes a half-done I/O access first, so that what is saved is a
    /// moment between two instructions.
    ///
    /// # Errors
    /// A KVM call failed.
    pub fn capture(vcpu: &mut Vcpu, vm: &Vm, parts: &Parts) -> Result<Self, KvmError> {
        vcpu.settle_fully()?;
        let fd = vcpu.fd();
        // MP_STATE first: reading it makes KVM accept a pending INIT or SIPI, which changes what
        // the reads after it return (Documentation/virt/kvm/api.rst, 4.38).
        let mp_state = if parts.irqchip { fd.mp_state()? } else { k::kvm_mp_state::default() };
        let mut msrs = fd.msrs(&parts.msrs)?;
        // The TSC deadline last, so that a restore in this order finds the TSC already set.
        msrs.sort_by_key(|&(index, _)| index == MSR_TSC_DEADLINE);
        Ok(Self {
            regs: fd.regs()?,
            sregs: fd.sregs()?,
            events: fd.events()?,
            debug_regs: fd.debug_regs()?,
            xcrs: fd.xcrs()?,
            xsave: xsave_bytes(&fd.xsave()?),
            msrs,
            mp_state,
            irqchip: if parts.irqchip {
                Some(IrqchipState::capture(fd, vm, parts.pit)?)
            } else {
                None
            },
            cpuid: fd.cpuid()?,
        })
    }

    /// Loads the state into a vCPU that never ran: everything, CPUID and TSC included. Returns the
    /// MSRs that it loaded, which are all but those that the host lacks and a guest of this `reach`
    /// does not notice: KVM's MSRs differ between Intel, AMD and its own versions.
    ///
    /// # Errors
    /// The host refuses a part; the error names the call or the MSR.
    pub fn load(&self, vcpu: &mut Vcpu, vm: &Vm, reach: Reach) -> Result<Vec<u32>, KvmError> {
        let cpuid = k::CpuId::from_entries(&self.cpuid).map_err(|_| KvmError::Ioctl {
            call: "KVM_SET_CPUID2",
            source: nix::errno::Errno::E2BIG,
        })?;
        let fd = vcpu.fd();
        // CPUID before everything: it decides which CR4, XCR0 and MSR bits are legal.
        fd.set_cpuid(&cpuid)?;
        // SREGS first: EFER, CR4 and the APIC base decide what the later calls accept, and
        // CR4.OSXSAVE must be set before XCR0 means anything.
        fd.set_sregs(&self.sregs)?;
        // XCRS before XSAVE: the kernel masks XSTATE_BV by what XCR0 allows.
        fd.set_xcrs(&self.xcrs)?;
        fd.set_xsave(&self.loadable_xsave())?;
        if let Some(irqchip) = &self.irqchip {
            // The local APIC before the MSRs: the TSC-deadline MSR needs its timer mode.
            fd.set_lapic(&irqchip.lapic)?;
        }
        let loaded = load_msrs(fd, &self.msrs, reach)?;
        if let Some(irqchip) = &self.irqchip {
            irqchip.restore_chips(vm)?;
            fd.set_mp_state(self.mp_state)?;
        }
        fd.set_debug_regs(&self.debug_regs)?;
        fd.set_regs(&self.regs)?;
        // Events last: KVM_SET_REGS drops a pending exception.
        fd.set_events(&self.events)?;
        vcpu.reload()?;
        Ok(loaded)
    }

    /// The XSAVE area without components that the guest's own XCR0 does not enable. KVM reports
    /// PKRU in XSTATE_BV wherever the host has it, and refuses it where it does not.
    fn loadable_xsave(&self) -> k::kvm_xsave {
        const PKRU: u64 = 1 << 9;
        const CR4_PKE: u64 = 1 << 22;
        // RDPKRU goes by CR4 alone.
        let pkru = if self.sregs.cr4 & CR4_PKE != 0 { PKRU } else { 0 };
        let mut area = xsave_from(&self.xsave);
        // x87 and SSE cannot be turned off.
        let enabled = self.xcr0() | pkru | 3;
        area.region[XSTATE_BV_AT / 4] &= enabled as u32;
        area.region[XSTATE_BV_AT / 4 + 1] &= (enabled >> 32) as u32;
        area
    }

    /// XCR0 as captured.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        let used = &self.xcrs.xcrs[..(self.xcrs.nr_xcrs as usize).min(self.xcrs.xcrs.len())];
        used.iter().find(|x| x.xcr == 0).map_or(1, |x| x.value)
    }

    /// Names every difference between this state and `now`. Not compared, because they run by
    /// themselves: TSC, TSC_ADJUST, MPERF, APERF, the local APIC's current count, the PIT's count
    /// and load time, kvmclock.
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
        compare_xsave(&self.xsave, &now.xsave, &mut found);
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

/// Sets `msrs` in order, without those that the host refuses and `reach` does not notice; returns
/// the ones that were set.
fn load_msrs(
    fd: &mut crate::kvm::Vcpu,
    msrs: &[(u32, u64)],
    reach: Reach,
) -> Result<Vec<u32>, KvmError> {
    let mut loaded: Vec<u32> = msrs.iter().map(|&(index, _)| index).collect();
    let mut rest = msrs;
    loop {
        match fd.set_msrs(rest) {
            Ok(()) => return Ok(loaded),
            Err(KvmError::Msr { index, .. }) if !reach.notices(index) => {
                tracing::debug!("the host lacks MSR {index:#x} of the snapshot: left out");
                loaded.retain(|&i| i != index);
                let after =
                    rest.iter().position(|&(i, _)| i == index).map_or(rest.len(), |at| at + 1);
                rest = rest.get(after..).unwrap_or(&[]);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Which parts of the state a VM has.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The MSRs to keep: see [`savable_msrs`].
    pub msrs: Vec<u32>,
    /// Whether the interrupt controllers are in the kernel.
    pub irqchip: bool,
    /// Whether the PIT is.
    pub pit: bool,
}

/// The MSRs of `candidates` that this vCPU lets be read and written back. Some of the kernel's
/// index list are read-only, or exist only with other hardware.
///
/// # Errors
/// A KVM call failed for another reason than a refused MSR.
pub fn savable_msrs(vcpu: &mut Vcpu, candidates: &[u32]) -> Result<Vec<u32>, KvmError> {
    let mut values = vcpu.fd().msrs(candidates)?;
    loop {
        match vcpu.fd().set_msrs(&values) {
            Ok(()) => return Ok(values.into_iter().map(|(index, _)| index).collect()),
            Err(KvmError::Msr { index, .. }) => values.retain(|&(i, _)| i != index),
            Err(error) => return Err(error),
        }
    }
}

impl IrqchipState {
    fn capture(fd: &crate::kvm::Vcpu, vm: &Vm, pit: bool) -> Result<Self, KvmError> {
        Ok(Self {
            lapic: fd.lapic()?,
            chips: [vm.irqchip(0)?, vm.irqchip(1)?, vm.irqchip(2)?],
            pit: if pit { Some(vm.pit()?) } else { None },
        })
    }

    fn restore_chips(&self, vm: &Vm) -> Result<(), KvmError> {
        // The PIT first: until it is set, the timer that the guest left running may raise its
        // interrupt in the PIC. KVM cancels the timer and waits for its work here.
        if let Some(pit) = &self.pit {
            vm.set_pit(pit)?;
        }
        self.chips.iter().try_for_each(|chip| vm.set_irqchip(chip))
    }

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
            for (channel, (a, b)) in was.channels.iter().zip(&is.channels).enumerate() {
                let same = (a.mode, a.bcd, a.gate, a.count) == (b.mode, b.bcd, b.gate, b.count);
                if !same {
                    found.push(Difference::new(format!("pit channel {channel}"), a, b));
                }
            }
        }
    }
}

fn xsave_bytes(area: &k::kvm_xsave) -> Vec<u8> {
    area.region.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn xsave_from(bytes: &[u8]) -> k::kvm_xsave {
    let mut area = k::kvm_xsave::default();
    for (word, four) in area.region.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = four.try_into().map_or(0, u32::from_le_bytes);
    }
    area
}

/// The events without what has no effect: the number and the error code of an exception or an
/// interrupt that is neither pending nor injected are left over from the last one delivered.
fn effective(events: &k::kvm_vcpu_events) -> k::kvm_vcpu_events {
    let mut events = *events;
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

/// Compares two XSAVE areas component by component. A component that XSTATE_BV leaves out is in
/// its initial state, whatever bytes lie in its place (Intel SDM vol. 1, 13.6).
fn compare_xsave(then: &[u8], now: &[u8], found: &mut Vec<Difference>) {
    let header = |area: &[u8]| {
        area.get(XSTATE_BV_AT..XSTATE_BV_AT + 8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    let (bv_then, bv_now) = (header(then), header(now));
    // Offsets are those of CPUID leaf 0xD on every CPU that has the components: the standard
    // format fixes x87 and SSE; AVX, opmask and ZMM have had one place since they exist.
    let components: [(&str, u64, std::ops::Range<usize>); 6] = [
        ("x87", 1 << 0, 0..24),
        ("st/mm", 1 << 0, 32..160),
        ("xmm", 1 << 1, 160..416),
        ("ymm_hi128", 1 << 2, 576..832),
        ("opmask", 1 << 5, 1088..1152),
        ("zmm", 3 << 6, 1152..2688),
    ];
    for (name, bits, range) in components {
        let part = |area: &[u8], bv: u64| {
            let bytes = area.get(range.clone()).map(<[u8]>::to_vec).unwrap_or_default();
            if bv & bits != 0 { bytes } else { initial(name, bytes.len()) }
        };
        let (a, b) = (part(then, bv_then), part(now, bv_now));
        if a != b {
            found.push(Difference::new(format!("xsave.{name}"), a, b));
        }
    }
    // MXCSR is live whenever SSE or AVX is enabled, whether or not XSTATE_BV has their bits.
    let mxcsr = |area: &[u8]| area.get(24..28).map(<[u8]>::to_vec).unwrap_or_default();
    if mxcsr(then) != mxcsr(now) {
        found.push(Difference::new("xsave.mxcsr", mxcsr(then), mxcsr(now)));
    }
}

/// A component's initial state (Intel SDM vol. 1, 13.6): zeros, but for the x87 control word.
fn initial(name: &str, bytes: usize) -> Vec<u8> {
    let mut zeros = vec![0; bytes];
    if name == "x87" && bytes >= 2 {
        zeros[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    }
    zeros
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(bv: u64, fill: &[(usize, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; XSAVE_BYTES];
        bytes[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        bytes[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        bytes[XSTATE_BV_AT..XSTATE_BV_AT + 8].copy_from_slice(&bv.to_le_bytes());
        fill.iter().for_each(|&(at, value)| bytes[at] = value);
        bytes
    }

    #[test]
    fn a_component_in_its_initial_state_equals_its_explicit_zeros() {
        let mut found = Vec::new();
        compare_xsave(&area(0, &[(600, 7)]), &area(7, &[]), &mut found);
        assert_eq!(found, []);
    }

    #[test]
    fn the_upper_half_of_ymm_and_mxcsr_are_compared() {
        let mut found = Vec::new();
        compare_xsave(&area(7, &[]), &area(7, &[(600, 7), (25, 0)]), &mut found);
        let names: Vec<_> = found.iter().map(|d| d.field.as_str()).collect();
        assert_eq!(names, ["xsave.ymm_hi128", "xsave.mxcsr"]);
    }

    #[test]
    fn registers_that_differ_are_named() {
        let mut found = Vec::new();
        let then = k::kvm_regs { rax: 1, ..Default::default() };
        compare_regs(&then, &k::kvm_regs::default(), &mut found);
        assert_eq!(found[0].field, "regs.rax");
    }
}
