//! The vCPU as a process sees it: for signals and threads, which save and load its state.
//!
//! Never decides what to save. The registers are in the run page and cost nothing; extended state
//! costs an ioctl each way, which only a signal with a handler and a switch of threads need.

use crate::kvm::KvmError;
use crate::linux::abi::registers::Registers;
use crate::linux::cpu::{Cpu, ExtendedLayout};
use crate::machine::error::MachineError;
use crate::state::{
    LEGACY, LEGACY_BYTES, XSAVE_BYTES, XSTATE_BV_AT, keep_components, xcr0, xsave_bytes,
    xsave_from, xsave_layout,
};
use crate::vcpu::Vcpu;
use std::cell::OnceCell;

/// Extended state as FXSAVE has it.
const NO_XSAVE: ExtendedLayout = ExtendedLayout { features: 0, bytes: LEGACY_BYTES };

/// What was done to a program's CPU state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// Its extended state was replaced.
    pub(super) is_loaded: bool,
    /// It is to make its system call again.
    pub(super) is_again: bool,
}

/// The vCPU under a program.
pub(super) struct ProgramCpu<'a> {
    vcpu: &'a mut Vcpu,
    layout: &'a OnceCell<ExtendedLayout>,
    /// The program's extended state, while the vCPU does not have it yet.
    before: Option<&'a [u8]>,
    /// The program's extended state was replaced.
    is_loaded: bool,
    /// The program is to make its system call again.
    is_again: bool,
    failed: Option<KvmError>,
}

impl<'a> ProgramCpu<'a> {
    /// The vCPU at an exit of the program or, where the vCPU is yet to be given it, with the
    /// extended state `before`.
    pub(super) fn new(
        vcpu: &'a mut Vcpu,
        layout: &'a OnceCell<ExtendedLayout>,
        before: Option<&'a [u8]>,
    ) -> Self {
        Self { vcpu, layout, before, is_loaded: false, is_again: false, failed: None }
    }

    /// What was done to the program's state; an error if the host failed at it.
    pub(super) fn finish(self) -> Result<Done, MachineError> {
        match self.failed {
            Some(error) => Err(error.into()),
            None => Ok(Done { is_loaded: self.is_loaded, is_again: self.is_again }),
        }
    }

    fn read_layout(&mut self) -> Result<ExtendedLayout, KvmError> {
        let (cpuid, xcrs) = (self.vcpu.fd().cpuid()?, self.vcpu.fd().xcrs()?);
        // KVM lists no XCR0 for a CPU without XSAVE.
        let (features, bytes) = xsave_layout(&cpuid, xcr0(&xcrs).unwrap_or(0));
        Ok(ExtendedLayout { features, bytes })
    }

    /// Keeps the first error for [`finish`](Self::finish). Whatever stands in for the result until
    /// then goes nowhere: the run is over.
    fn note<T>(&mut self, result: Result<T, KvmError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }
}

impl Cpu for ProgramCpu<'_> {
    fn registers(&self) -> Registers {
        (*self.vcpu.regs()).into()
    }

    fn set_registers(&mut self, regs: &Registers) {
        *self.vcpu.regs_mut() = (*regs).into();
    }

    fn bases(&self) -> [u64; 2] {
        [self.vcpu.sregs().fs.base, self.vcpu.sregs().gs.base]
    }

    fn set_bases(&mut self, [fs, gs]: [u64; 2]) {
        if self.bases() != [fs, gs] {
            let sregs = self.vcpu.sregs_mut();
            (sregs.fs.base, sregs.gs.base) = (fs, gs);
        }
    }

    fn extended_layout(&mut self) -> ExtendedLayout {
        if let Some(layout) = self.layout.get() {
            return *layout;
        }
        let read = self.read_layout();
        let layout = self.note(read).unwrap_or(NO_XSAVE);
        if self.failed.is_none() {
            // Nobody else fills it meanwhile.
            let _ = self.layout.set(layout);
        }
        layout
    }

    fn extended(&mut self) -> Vec<u8> {
        let layout = self.extended_layout();
        let mut area = match self.before {
            Some(before) => before.to_vec(),
            None => {
                let read = self.vcpu.fd().xsave();
                xsave_bytes(&self.note(read).unwrap_or_default())
            }
        };
        area.resize(XSAVE_BYTES, 0);
        keep_components(&mut area, layout.features | LEGACY);
        area.truncate(layout.bytes);
        area
    }

    fn note_again(&mut self) {
        self.is_again = true;
    }

    fn set_extended(&mut self, area: &[u8]) {
        let mut image = xsave_from(area);
        if self.extended_layout().features == 0 {
            // The legacy region has no XSTATE_BV to say what it holds.
            image.region[XSTATE_BV_AT / 4] = LEGACY as u32;
        }
        let set = self.vcpu.fd().set_xsave(&image);
        self.note(set);
        self.before = None;
        self.is_loaded = true;
    }
}
