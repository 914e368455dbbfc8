//! The proof that a rewind was complete: all memory and all state against the snapshot.
//!
//! Never repairs what it finds.

use super::driver::{Driver, other_kind};
use super::error::MachineError;
use super::flow::Flow;
use super::guest_state::GuestState;
use super::hardware::Hardware;
use super::readiness::Readiness;
use super::run::Machine;
use super::watchdog::Watchdog;
use crate::address::Pfn;
use crate::exit::Exit;
use crate::guest::process::trap;
use crate::memory::{Page, ZERO_PAGE};
use crate::state::{Difference, Ending};

/// Pages that are named one by one; of the others the number is given.
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
        self.readiness.check()?;
        let mut found = self.memory_differences();
        self.carry_out_deferred()?;
        let now = self.hw.capture()?;
        found.extend(self.snapshot.state.differences(&now));
        match (&self.driver, &self.snapshot.guest) {
            (Driver::Process(driver), GuestState::Process(then)) => {
                let named = driver.state.process.same_as(&then.process);
                found.extend(named.into_iter().map(|field| Difference::new(field, "", "")));
                if !driver.state.tables.same_bookkeeping(&then.tables) {
                    found.push(Difference::new("page tables: frame bookkeeping", "", ""));
                }
            }
            (Driver::Bare(driver), GuestState::Bare(then)) => {
                found.extend(driver.differences(then));
            }
            (Driver::Process(_), GuestState::Bare(_))
            | (Driver::Bare(_), GuestState::Process(_)) => return Err(other_kind()),
        }
        Ok(found)
    }

    /// Lets the guest restore what it restores itself, and rewinds what that touched.
    fn carry_out_deferred(&mut self) -> Result<(), MachineError> {
        let Self { hw, driver, snapshot, .. } = self;
        if let Driver::Process(driver) = driver {
            let mut regs = snapshot.state.regs;
            regs.rip = trap::syscall_entry().0;
            if let Flow::Stop(_) = driver.enter(hw, &regs, snapshot.state.xcr0())? {
                return Err(MachineError::Invariant("entering the program ended it"));
            }
            self.readiness = Readiness::Ran(Ending::Asked);
            let Self { hw, watchdog, .. } = self;
            watchdog.while_stub_runs(|| run_to_gate(hw, watchdog))?;
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
        for patch in self.patches.of(pfn) {
            if let Some(place) = page.get_mut(usize::from(patch.offset)) {
                *place = patch.byte;
            }
        }
        page
    }

    /// Names a page with its first byte that differs.
    fn page_difference(&self, slot: usize, index: usize, pfn: Pfn, expected: &Page) -> Difference {
        let Ok(now) = self.hw.memory.page_copy(slot, index) else {
            return Difference::new(format!("page {:#x}", pfn.gpa()), "in its slot", "nowhere");
        };
        let bytes = expected.iter().zip(now.iter()).zip(pfn.gpa().0..);
        match bytes.into_iter().find(|((was, is), _)| was != is) {
            Some(((was, is), at)) => {
                Difference::new(format!("memory at guest-physical {at:#x}"), was, is)
            }
            None => Difference::new(format!("page {:#x}", pfn.gpa()), "unequal", "equal"),
        }
    }
}

fn run_to_gate(hw: &mut Hardware, watchdog: &Watchdog) -> Result<(), MachineError> {
    loop {
        match hw.vcpu.run()? {
            Exit::MmioWrite { at, .. } if at.page_floor() == trap::GATE => return Ok(()),
            Exit::Interrupted => {
                hw.vcpu.clear_kick();
                if let Some(limit) = watchdog.stub_spins() {
                    return Err(MachineError::StubSpins { limit });
                }
            }
            Exit::DirtyRingFull => hw.memory.drain_dirty_ring()?,
            other => return Err(MachineError::Stub { exit: other.unsupported(0) }),
        }
    }
}
