//! Where a program is stopped: at its snapshot point, and at its crash points.
//!
//! Never answers the exit that follows.

use super::driver::{ArmedPoint, ProcessDriver};
use super::state::ProcessPoint;
use crate::address::Gpa;
use crate::arch::INT3;
use crate::machine::error::MachineError;
use crate::machine::hardware::Hardware;
use crate::rewind::Patches;

impl ProcessDriver {
    /// Stops the guest at `point`.
    pub(in crate::machine) fn stop_at(
        &mut self,
        hw: &mut Hardware,
        point: ProcessPoint,
    ) -> Result<(), MachineError> {
        let mut original = [0];
        if let ProcessPoint::Address(address) | ProcessPoint::Harness(address) = point {
            let not_mapped = MachineError::PointNotMapped { address };
            let Some(at) = self.translate(hw, address) else { return Err(not_mapped) };
            hw.memory.read(at, &mut original).map_err(|_| not_mapped)?;
            hw.memory.write_unmarked(at, &[INT3])?;
        }
        self.point = Some(ArmedPoint { point, original: original[0] });
        Ok(())
    }

    /// Patches the crash points into the code, from now on.
    pub(in crate::machine) fn install_crash_points(
        &self,
        hw: &mut Hardware,
        patches: &mut Patches,
    ) -> Result<(), MachineError> {
        for &address in &self.state.crash_points {
            let not_mapped = MachineError::PointNotMapped { address };
            let Some(at) = self.translate(hw, address) else { return Err(not_mapped) };
            hw.memory.write_unmarked(at, &[INT3]).map_err(|_| not_mapped)?;
            patches.set(at.into(), at.page_offset() as u16, INT3);
        }
        Ok(())
    }

    /// Where the block that starts at `address` can have a breakpoint of its own: not where the
    /// program crashes by being there.
    pub(in crate::machine) fn block_site(&self, hw: &Hardware, address: u64) -> Option<Gpa> {
        let is_free = !self.state.crash_points.contains(&address);
        is_free.then(|| self.translate(hw, address)).flatten()
    }
}
