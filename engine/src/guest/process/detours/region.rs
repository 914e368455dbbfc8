//! The trampolines of one image, and the data that they write: the map that its blocks mark, or the
//! log of its comparisons. Never writes the code.

use super::purpose::Purpose;
use crate::address::{Gpa, PAGE_SIZE};
use crate::coverage::comparisons::{DATA_HEADER_BYTES, Logged, counts_range, parse, records_range};
use crate::memory::{GuestMemory, OutOfRam};
use std::ops::Range;

/// A byte of a map whose block was reached.
const MARKED: u8 = 1;

/// The trampolines of one image, with their data before them.
#[derive(Debug)]
pub(super) struct Region {
    /// Guest-virtual addresses of both.
    pub all: Range<u64>,
    /// Guest-virtual addresses of the trampolines.
    pub code: Range<u64>,
    /// The data's place in memory.
    pub map: Gpa,
    /// The number of the block, or of the comparison, for each probe.
    pub numbers: Vec<u32>,
    pub purpose: Purpose,
    /// Blocks, or comparisons, of the image.
    pub total: usize,
}

impl Region {
    /// A region of code alone.
    pub(super) fn of_code(all: Range<u64>, map: Gpa) -> Self {
        let (code, numbers) = (all.clone(), Vec::new());
        Self { all, code, map, numbers, purpose: Purpose::Marks, total: 0 }
    }

    /// The comparisons that the run logged, by number, and what they compared.
    pub(super) fn read_log(
        &self,
        memory: &GuestMemory,
        found: &mut Vec<(u32, Logged)>,
    ) -> Result<(), OutOfRam> {
        if self.purpose != Purpose::Comparisons {
            return Ok(());
        }
        let mut header = [0; DATA_HEADER_BYTES as usize];
        memory.read(self.map, &mut header)?;
        let records = self.map.wrapping_add(records_range(self.total).start);
        let logged = parse(&header, |at, out| memory.read(records.wrapping_add(at), out).is_ok());
        let number = |logged: Logged| Some((*self.numbers.get(logged.index as usize)?, logged));
        found.extend(logged.into_iter().filter_map(number));
        Ok(())
    }

    /// Puts the data back for the next run.
    pub(super) fn clear(&self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        match self.purpose {
            Purpose::Marks => self.clear_marks(memory),
            Purpose::Comparisons => {
                let counts = counts_range(self.total);
                let zeroes = vec![0; counts.end as usize];
                memory.write_unmarked(self.map, &zeroes)
            }
        }
    }

    /// Adds the blocks that are marked; false if there is anything that no block writes.
    pub(super) fn read_marks(
        &self,
        memory: &GuestMemory,
        blocks: &mut Vec<u32>,
    ) -> Result<bool, OutOfRam> {
        let mut is_whole = true;
        self.pages(|at, numbers| {
            let mut page = [0; PAGE_SIZE];
            memory.read(at, &mut page)?;
            for (mark, index) in page.iter().zip(0..).filter(|(mark, _)| **mark != 0) {
                match numbers.get::<usize>(index) {
                    Some(number) if *mark == MARKED => blocks.push(*number),
                    _ => is_whole = false,
                }
            }
            Ok(())
        })?;
        Ok(is_whole)
    }

    fn clear_marks(&self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        self.pages(|at, _| memory.write_unmarked(at, &[0; PAGE_SIZE]))
    }

    /// Calls `visit` with the place of each page of the map, and the numbers it is for.
    fn pages(
        &self,
        mut visit: impl FnMut(Gpa, &[u32]) -> Result<(), OutOfRam>,
    ) -> Result<(), OutOfRam> {
        let places = (self.map.0..).step_by(PAGE_SIZE).map(Gpa);
        places.zip(self.numbers.chunks(PAGE_SIZE)).try_for_each(|(at, numbers)| visit(at, numbers))
    }
}
