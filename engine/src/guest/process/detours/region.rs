//! The trampolines of one image, and the data that they write: the map that its places mark, or the
//! log of its comparisons. Never writes the code.

use super::purpose::Purpose;
use crate::address::{Gpa, PAGE_SIZE};
use crate::coverage::comparisons::{DATA_HEADER_BYTES, Logged, counts_range, parse, records_range};
use crate::coverage::counts::PlaceHit;
use crate::coverage::detours::Detail;
use crate::memory::{GuestMemory, OutOfRam};
use crate::paging::leaf_entry;
use std::ops::Range;

const PAGE: u64 = PAGE_SIZE as u64;
/// The agent compares so many bytes of a map at once.
const COMPARED_AT_ONCE: usize = 64;

/// The trampolines of one image, with their map before them and, between the two and as long as the
/// map, which classes of counts are news at each place.
#[derive(Debug)]
pub(super) struct Region {
    /// Guest-virtual addresses of all.
    pub all: Range<u64>,
    /// Guest-virtual addresses of the trampolines.
    pub code: Range<u64>,
    /// The map's place in memory; all of the region lies there.
    pub map: Gpa,
    /// Bytes of the map, whole pages.
    pub map_bytes: u64,
    /// The place's number for each byte of the map.
    pub numbers: Vec<u32>,
    /// What is news, as the guest has it; empty where batches do not ask.
    pub news: Vec<u8>,
    pub purpose: Purpose,
    /// Blocks, or comparisons, of the image.
    pub total: usize,
}

/// Whole pages of so much data, and then of all that comes before trampolines.
pub(super) fn bytes_before_code(data: u64, has_news: bool) -> (u64, u64) {
    let map = data.next_multiple_of(PAGE).max(PAGE);
    (map, if has_news { 2 * map } else { map })
}

impl Region {
    /// A region of code alone.
    pub(super) fn of_code(all: Range<u64>, map: Gpa) -> Self {
        let (code, numbers) = (all.clone(), Vec::new());
        let (news, purpose) = (Vec::new(), Purpose::Marks(Detail::Blocks));
        Self { all, code, map, map_bytes: 0, numbers, news, purpose, total: 0 }
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
            Purpose::Marks(_) => self.clear_marks(memory),
            Purpose::Comparisons => {
                let counts = counts_range(self.total);
                let zeroes = vec![0; counts.end as usize];
                memory.write_unmarked(self.map, &zeroes)
            }
        }
    }

    /// Where the byte of memory for guest-virtual `at` is.
    pub(super) fn place(&self, at: u64) -> Gpa {
        self.map.wrapping_add(at.wrapping_sub(self.all.start))
    }

    /// Its pages, with the entries that show them.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.all.clone().step_by(PAGE_SIZE).map(|at| {
            let is_map = at < self.all.start + self.map_bytes;
            (at, leaf_entry(self.place(at), is_map, self.code.contains(&at), true))
        })
    }

    /// The addresses of the map and of its news, and how many bytes of them are compared.
    pub(super) fn compared(&self) -> [u64; 3] {
        let bytes = self.numbers.len().next_multiple_of(COMPARED_AT_ONCE);
        [self.all.start, bytes as u64, self.all.start + self.map_bytes]
    }

    /// Takes classes at the place of byte `index` out of what is news, or puts them back.
    pub(super) fn set_news(
        &mut self,
        memory: &mut GuestMemory,
        index: usize,
        classes: u8,
        are_news: bool,
    ) -> Result<(), OutOfRam> {
        let at = self.map.wrapping_add(self.map_bytes + index as u64);
        let Some(news) = self.news.get_mut(index) else { return Ok(()) };
        *news = if are_news { *news | classes } else { *news & !classes };
        memory.write_unmarked(at, &[*news])
    }

    /// Writes what is news once more.
    pub(super) fn write_news(&self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        memory.write_unmarked(self.map.wrapping_add(self.map_bytes), &self.news)
    }

    /// Adds the places that are marked; false if there is anything that no mark writes.
    pub(super) fn read_marks(
        &self,
        memory: &GuestMemory,
        marks: &mut Vec<PlaceHit>,
    ) -> Result<bool, OutOfRam> {
        let mut is_whole = true;
        let are_counts = self.purpose == Purpose::Marks(Detail::Counts);
        self.pages(|at, numbers| {
            let mut page = [0; PAGE_SIZE];
            memory.read(at, &mut page)?;
            let (words, _) = page.as_chunks::<8>();
            // Most of a map is zeros.
            for (word, first) in words.iter().zip((0..).step_by(8)).filter(|(w, _)| **w != [0; 8]) {
                for (&count, index) in word.iter().zip(first..).filter(|(count, _)| **count != 0) {
                    match numbers.get::<usize>(index) {
                        Some(&place) if are_counts || count == 1 => {
                            marks.push(PlaceHit { place, count });
                        }
                        _ => is_whole = false,
                    }
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
