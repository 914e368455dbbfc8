//! Page faults in a batch: first writes, pages that are mapped lazily, and bad addresses.
//!
//! Never decides which addresses are valid: that is `guest::process`.

use super::parts::BatchParts;
use super::run::{BatchRun, NO_POINT, Next};
use crate::address::{Gpa, Gva};
use crate::guest::process::pages::ProcessPages;
use crate::linux::abi::syscall::FaultAction;
use crate::linux::mm::user_memory::UserMemory;
use crate::machine::error::MachineError;
use crate::machine::flow::{Flow, Stop};
use crate::machine::process::driver::CallContext;
use crate::machine::process::exception::Exception;
use crate::machine::process::fault::of_page;
use crate::outcome::{Access, Fault, Outcome};
use crate::paging::{GUARDED, PRESENT, WRITABLE, frame_of};
use kvm_bindings::kvm_regs;

/// Free frames below which pages that are brought in do not stay: a run must find about as many as
/// it would alone.
const FRAMES_RESERVED: u64 = 4096;

impl BatchRun<'_, '_> {
    pub(super) fn page_fault(&mut self, exception: &Exception) -> Result<Next, MachineError> {
        let (frame, back) = (&exception.frame, &exception.back);
        let at = self.parts.hw.vcpu.sregs().cr2;
        let access = exception.access()?;
        let in_shim = self.agent.in_shim(frame.rip);
        if self.agent.contains(frame.rip) && !in_shim {
            return self.lost();
        }
        if self.current()?.is_none() || !self.catch_up()? {
            return self.lost();
        }
        let counts_growth = self.driver.state.process.counts_growth(Gva(at));
        match self.resolve(Gva(at), access)? {
            // The shim is on its way to a state.
            FaultAction::Retry if counts_growth && in_shim => self.over(None),
            FaultAction::Retry => {
                if counts_growth {
                    self.agent.lose_state(&mut self.parts.hw.memory)?;
                }
                self.report.exits.page_faults += 1;
                self.driver.resume(self.parts.hw, *back)?;
                Ok(Next::Go)
            }
            FaultAction::OutOfMemory => self.ended(Outcome::OutOfMemory),
            FaultAction::Signal(_) if in_shim => self.take_over(back),
            FaultAction::Signal(signal) if self.driver.state.process.handles(signal) => {
                self.handle(back, of_page(signal, at, access, frame))
            }
            FaultAction::Signal(signal) => {
                self.ended(Outcome::Crashed(of_page(signal, at, access, frame)))
            }
        }
    }

    /// Has the program's handler take a fault.
    fn handle(&mut self, back: &kvm_regs, fault: Fault) -> Result<Next, MachineError> {
        // It would see where that is.
        if self.is_moved_code(fault.rip) {
            return self.over(None);
        }
        self.agent.set_touched(&mut self.parts.hw.memory, true)?;
        match self.driver.fault(self.parts.hw, back, fault)? {
            Flow::Stop(Stop::Ended(outcome)) => self.ended(outcome),
            Flow::Stop(Stop::OffDetours) => self.over(None),
            Flow::Stop(Stop::Snapshot) => Err(NO_POINT),
            Flow::Continue | Flow::Interrupted if self.goes_on_elsewhere() => {
                self.agent.lose_state(&mut self.parts.hw.memory)?;
                Ok(Next::Go)
            }
            Flow::Continue | Flow::Interrupted => self.over(None),
        }
    }

    /// Serves the system call whose address the shim, stopped at `back`, could not use: the answer
    /// is an error, which the host gives.
    pub(super) fn take_over(&mut self, back: &kvm_regs) -> Result<Next, MachineError> {
        let hw = &mut *self.parts.hw;
        *hw.vcpu.regs_mut() = self.agent.unserved(&hw.memory, back)?;
        self.system_call()
    }

    /// Opens a page at its first write, or brings in one that is mapped lazily.
    fn resolve(&mut self, at: Gva, access: Access) -> Result<FaultAction, MachineError> {
        let CallContext { tables, memory, .. } = self.driver.split(self.parts.hw);
        let leaf = tables.leaf(memory, at).filter(|(_, entry)| entry & PRESENT != 0);
        if let (Some((slot, entry)), Access::Write) = (leaf, access)
            && entry & GUARDED != 0
            && entry & WRITABLE == 0
        {
            return self.open(at, slot, entry);
        }
        let CallContext { process, tables, memory } = self.driver.split(self.parts.hw);
        let mut pages = ProcessPages { memory, tables };
        if pages.allows(at, access) {
            return Ok(FaultAction::Retry);
        }
        // What was mapped at the snapshot already may stay when it is brought in: the next run
        // need not fault there again.
        let stays = pages.tables.unchanged()
            && pages.tables.frames_free() > FRAMES_RESERVED
            && process.is_lazily_zero(&self.parts.then.process, at);
        let verdict = process.page_fault(at, access, &mut pages);
        let tables = &mut self.driver.state.tables;
        let BatchParts { hw, snapshot, .. } = &mut self.parts;
        // Free frames are zeros in a snapshot, unless its file says otherwise.
        let is_zero = |pfn| snapshot.pages.page(pfn).is_none();
        if stays && verdict == FaultAction::Retry && tables.all_mapped(&hw.memory, is_zero)? {
            tables.keep_mapped(&mut hw.memory)?;
            self.agent.baseline = tables.clone();
            self.agent.pages_were_added(&mut hw.memory)?;
        } else {
            if verdict == FaultAction::Retry {
                let CallContext { process, tables, memory } = self.driver.split(self.parts.hw);
                process.bring_in_new(
                    &self.parts.then.process,
                    at,
                    &mut ProcessPages { memory, tables },
                );
            }
            let memory = &mut self.parts.hw.memory;
            self.agent.set_touched(memory, true)?;
            self.agent.set_mapped(memory, true)?;
        }
        Ok(verdict)
    }

    /// A guarded page's first write: the page is hot from now on if it is where a rewind has it;
    /// else it is open until the run is over.
    fn open(&mut self, at: Gva, slot: Gpa, entry: u64) -> Result<FaultAction, MachineError> {
        let page = at.page_floor();
        let pfn = frame_of(entry);
        let memory = &mut self.parts.hw.memory;
        let is_in_place = !self.driver.state.tables.is_changed(slot);
        // A page with breakpoints in it is restored by who knows of them.
        let stays = is_in_place && !self.agent.is_full() && self.parts.patches.of(pfn).is_empty();
        self.driver.state.tables.open(memory, slot, entry, !stays)?;
        if stays {
            self.agent.add_hot(memory, (page, pfn, slot), &self.parts.snapshot.pages)?;
        } else {
            self.agent.set_touched(memory, true)?;
        }
        Ok(FaultAction::Retry)
    }
}
