//! The trampolines of one image, and the map that its blocks mark. Never writes the code.

use crate::address::{Gpa, PAGE_SIZE};
use crate::memory::{GuestMemory, OutOfRam};
use std::ops::Range;

/// A byte of a map whose block was reached.
const MARKED: u8 = 1;

/// The trampolines of one image, with their map before them.
#[derive(Debug)]
pub(super) struct Region {
    /// Guest-virtual addresses of both.
    pub all: Range<u64>,
    /// Guest-virtual addresses of the trampolines.
    pub code: Range<u64>,
    /// The map's place in memory.
    pub map: Gpa,
    /// The block's number for each byte of the map.
    pub numbers: Vec<u32>,
}

impl Region {
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

    pub(super) fn clear_marks(&self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
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
