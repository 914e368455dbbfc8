//! The proof that a rewind was complete: all memory and all state against the snapshot.
//!
//! Never repairs what it finds.

use super::hardware::Hardware;
use super::{Driver, Flow, GuestState, Machine, MachineError, Readiness};
use crate::address::Pfn;
use crate::exit::Exit;
use crate::guest::process::trap;
use crate::memory::{Page, ZERO_PAGE};
use crate::state::{Difference, Ending};

/// Pages that are named one by one; a machine that differs in more is told by their number.
const PAGES_NAMED_MAX: usize = 64;

impl Machine {
    /// Compares everything with the snapshot and names every difference. The machine must have
    /// been rewound; it is left rewound.
    ///
    /// What a rewind leaves to the next run's first instructions (extended state, by the
    /// trampoline) is carried out before it is compared.
    ///
    /// # Errors
    /// The machine was not rewound, or the host failed.
    pub fn verify(&mut self) -> Result<Vec<Difference>, MachineError> {
        self.leave_agent()?;
        match self.readiness {
            Readiness::Ready => {}
            Readiness::Poisoned => return Err(MachineError::Poisoned),
            Readiness::Ran(_) => return Err(MachineError::NotRewound),
        }
        let mut found = self.memory_differences();
        self.carry_out_deferred()?;
        let now = self.hw.capture()?;
        found.extend(self.snapshot.state.differences(&now));
        if let (Driver::Process(driver), GuestState::Process(then)) =
            (&self.driver, &self.snapshot.guest)
        {
            let named = driver.state.process.same_as(&then.process);
            found.extend(named.into_iter().map(|field| Difference::new(field, "", "")));
            if !driver.state.tables.same_bookkeeping(&then.tables) {
                found.push(Difference::new("page tables: frame bookkeeping", "", ""));
            }
        }
        if let (Driver::Bare(driver), GuestState::Bare(then)) = (&self.driver, &self.snapshot.guest)
        {
            found.extend(driver.differences(then));
        }
        Ok(found)
    }

    /// Lets the guest restore what it restores itself, and rewinds what that touched.
    fn carry_out_deferred(&mut self) -> Result<(), MachineError> {
        let Self { hw, driver, snapshot, .. } = self;
        if let Driver::Process(driver) = driver {
            let mut regs = snapshot.state.regs;
            regs.rip = trap::syscall_entry().0;
            let _: Flow = driver.enter(hw, &regs, snapshot.state.xcr0())?;
            self.readiness = Readiness::Ran(Ending::Asked);
            run_to_gate(&mut self.hw)?;
            self.rewind()?;
        }
        Ok(())
    }

    fn memory_differences(&self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut unnamed = 0_u64;
        // A slot beyond the snapshot's is the machine's own.
        for (slot, spec) in self.snapshot.layout.iter().enumerate() {
            let first = Pfn::from(spec.start);
            self.hw.memory.for_each_present(slot, |index| {
                let pfn = Pfn(first.0 + index as u64);
                let expected = self.expected_page(pfn);
                if self.hw.memory.page_equals(slot, index, &expected) {
                    return;
                }
                if found.len() >= PAGES_NAMED_MAX {
                    unnamed += 1;
                    return;
                }
                found.push(self.page_difference(slot, index, pfn, &expected));
            });
        }
        if unnamed > 0 {
            found.push(Difference::new("more pages", 0, unnamed));
        }
        found
    }

    /// The snapshot's page with the machine's own breakpoints in it.
    fn expected_page(&self, pfn: Pfn) -> Page {
        let mut page = *self.snapshot.pages.page(pfn).unwrap_or(&ZERO_PAGE);
        for &(offset, byte) in self.patches.of(pfn) {
            if let Some(place) = page.get_mut(usize::from(offset)) {
                *place = byte;
            }
        }
        page
    }

    /// Names a page with its first byte that differs.
    fn page_difference(&self, slot: usize, index: usize, pfn: Pfn, expected: &Page) -> Difference {
        let now = self.hw.memory.page_copy(slot, index);
        let at = expected.iter().zip(now.iter()).position(|(a, b)| a != b).unwrap_or(0);
        Difference::new(
            format!("memory at guest-physical {:#x}", pfn.gpa().0 + at as u64),
            expected[at],
            now[at],
        )
    }
}

fn run_to_gate(hw: &mut Hardware) -> Result<(), MachineError> {
    loop {
        match hw.vcpu.run()? {
            Exit::MmioWrite { at, .. } if at.page_floor() == trap::GATE => return Ok(()),
            Exit::Interrupted => hw.vcpu.clear_kick(),
            Exit::DirtyRingFull => hw.memory.drain_dirty_ring()?,
            other => return Err(MachineError::Stub { exit: other.unsupported(0) }),
        }
    }
}
