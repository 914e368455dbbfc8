//! What a guest's state must be like when it comes from a file that nobody vouches for.
//!
//! A file may claim anything about the guest, which is hostile in any case, and nothing about the
//! host.

use super::guest_state::GuestState;
use super::process::state::ProcessState;
use crate::address::{Gpa, PAGE_SIZE, Pfn};
use crate::guest::process::trap;
use crate::memory::SlotSpec;
use crate::snapshot::{Stored, Unsound};

impl Stored for GuestState {
    fn check(&self, layout: &[SlotSpec]) -> Result<(), Unsound> {
        match self {
            Self::Process(state) => state.check(layout),
            // All else that it holds are addresses and lengths, which are checked when they are
            // used, because the guest chooses them.
            Self::Bare(state) => {
                let what = "a console's receive buffer has more bytes than a 16550's";
                state.console.check().map_err(|_| Unsound(what))
            }
        }
    }
}

impl ProcessState {
    fn check(&self, layout: &[SlotSpec]) -> Result<(), Unsound> {
        let [engine, user] = layout else {
            return Err(Unsound("a program's memory has two slots"));
        };
        let expected = SlotSpec { start: Gpa(0), bytes: trap::ENGINE_BYTES, log_dirty: false };
        if *engine != expected || user.start != trap::USER_BASE || !user.log_dirty {
            return Err(Unsound("a program's memory is somewhere else"));
        }
        let pages = |slot: &SlotSpec| {
            let first = Pfn::from(slot.start).0;
            first..first.saturating_add(slot.bytes / PAGE_SIZE as u64)
        };
        self.tables.check(pages(engine), pages(user)).map_err(Unsound)?;
        self.process.check_stored().map_err(Unsound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::file::shape::assert_recorded;

    #[test]
    fn the_format_has_the_recorded_shape_of_either_kind_of_guest() {
        assert_recorded::<GuestState>("guest");
    }
}
