//! Runs of a machine whose blocks mark themselves: which blocks an input reaches, by one run
//! instead of an exit for each. Never judges an input.

use super::driver::{Driver, other_kind};
use super::error::MachineError;
use super::readiness::Readiness;
use super::report::{Limit, RunReport};
use super::run::Machine;
use crate::coverage::counts::PlaceHit;
use crate::coverage::detours::{Detail, Image};
use crate::guest::process::detours::DetourCounts;
use crate::outcome::Outcome;

impl Machine {
    /// Has the blocks of `images` mark themselves, as far as they can, in [`trace`](Self::trace):
    /// all of those that [`set_blocks`](Self::set_blocks) was given, by the same numbers. The others
    /// have breakpoints there. `detail` says what else marks itself. Nothing changes for [`run`](Self::run) and batches.
    ///
    /// # Errors
    /// The guest is no process, the machine was not rewound, the program can write its own code, or
    /// there is no room. The machine is as before, and `trace` gives nothing.
    pub fn install_detours(
        &mut self,
        images: &[Image<'_>],
        detail: Detail,
    ) -> Result<DetourCounts, MachineError> {
        let (hw, driver, snapshot) = self.process_at_snapshot("coverage")?;
        driver.install_detours(hw, snapshot, images, detail)
    }

    /// Has batches run through detours, or not any more, if the machine has any that tell edges: the
    /// agent then compares what marked itself after each run with what is known
    /// ([`know_places`](Self::know_places)), and reports runs that show something new
    /// ([`BatchReport::news`](super::batch::BatchReport::news)). Whether they do.
    ///
    /// # Errors
    /// The guest is no process, the machine was not rewound, or there is no room for the agent.
    pub fn compare_in_batches(&mut self, wanted: bool) -> Result<bool, MachineError> {
        self.leave_agent()?;
        self.prepare_batches()?;
        let Driver::Process(driver) = &mut self.driver else {
            return Err(MachineError::NotAProcess { operation: "coverage" });
        };
        driver.hide_from_batches(&mut self.hw)?;
        if wanted { driver.show_in_batches(&mut self.hw) } else { Ok(false) }
    }

    /// Makes counts no news any more in batches: those of the classes whose bits are set
    /// ([`place_of`](crate::coverage::counts::place_of)), at a place. Where nothing is counted, there is
    /// one class, of bit 0.
    pub fn know_places(&mut self, places: impl IntoIterator<Item = (u32, u8)>) {
        self.set_news(places, false);
    }

    /// Makes counts news once more: see [`know_places`](Self::know_places).
    pub fn forget_places(&mut self, places: impl IntoIterator<Item = (u32, u8)>) {
        self.set_news(places, true);
    }

    fn set_news(&mut self, places: impl IntoIterator<Item = (u32, u8)>, are_news: bool) {
        let Self { hw, driver, readiness, .. } = self;
        let Driver::Process(driver) = driver else { return };
        let mut places = places.into_iter();
        if places.any(|place| driver.set_news(hw, place, are_news).is_err()) {
            // The next run says so.
            *readiness = Readiness::Broken("the maps of detours are in RAM");
        }
    }

    /// The places that the last run was at, if it was a [`trace`](Self::trace), in the order of their
    /// numbers: its blocks, and behind the numbers of all blocks its edges, in the order of images.
    /// Empty after a rewind.
    #[must_use]
    pub fn places_hit(&self) -> &[PlaceHit] {
        match &self.driver {
            Driver::Process(driver) => &driver.places,
            Driver::Bare(_) => &[],
        }
    }

    /// Runs once from the snapshot with `input`, through detours: all blocks that the run reached are
    /// then in [`blocks_hit`](Self::blocks_hit), in the order of their numbers, whatever earlier runs
    /// reached.
    ///
    /// `None`, with the machine rewound, if there are no detours or this run must do without:
    /// because it did not simply exit, or did something that could show them (a signal in the middle
    /// of moved code, other code mapped in its place, a time slice). What is to be believed of such
    /// an input only [`run`](Self::run) can tell.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn trace(&mut self, input: &[u8], limit: Limit) -> Result<Option<RunReport>, MachineError> {
        self.leave_agent()?;
        self.readiness.check()?;
        let Driver::Process(driver) = &mut self.driver else { return Ok(None) };
        if !driver.enter_detours(&mut self.hw)? {
            return Ok(None);
        }
        let ran = self.run_once(input, limit)?;
        let Driver::Process(driver) = &mut self.driver else { return Err(other_kind()) };
        match ran {
            Some(report)
                if matches!(report.outcome, Outcome::Exited { .. })
                    && driver.read_marks(&self.hw)? =>
            {
                Ok(Some(report))
            }
            Some(_) | None => {
                self.rewind()?;
                Ok(None)
            }
        }
    }
}
