//! A user memory that is a map of pages, in place of page tables. Asserts what its users promise.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::mm::bounds::{ENGINE_RESERVE, USER_END};
use crate::linux::mm::user_memory::{Inaccessible, OutOfFrames, PageRange, Prot, UserMemory};
use crate::linux::tests::mock::PAGE;
use crate::outcome::Access;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Pages by number, as a machine with `frames_max` frames would hold them. Clones share the frames
/// that neither has written to since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    /// The frame that a page shows, and what it allows.
    pub(crate) pages: BTreeMap<u64, (u64, Prot)>,
    frames: BTreeMap<u64, Arc<[u8; PAGE_SIZE]>>,
    next_frame: u64,
    pub(crate) frames_max: u64,
}

impl Default for Pages {
    fn default() -> Self {
        Self::of_frames(1 << 16)
    }
}

fn numbers(range: PageRange) -> Range<u64> {
    assert_eq!(range.start.page_offset(), 0, "ranges are page-aligned");
    let first = range.start.0 / PAGE;
    let end = range.start.0 + range.pages * PAGE;
    assert!(end <= USER_END, "only user pages: {range:x?}");
    let apart = end <= ENGINE_RESERVE.start || range.start.0 >= ENGINE_RESERVE.end;
    assert!(apart, "not the engine's: {range:x?}");
    first..first + range.pages
}

/// Splits `at..at + len` at the ends of pages: where each part is, and its place in the bytes.
fn parts(at: Gva, len: usize) -> impl Iterator<Item = (Gva, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let here = at.wrapping_add(done as u64);
        let part = done..len.min(done + PAGE_SIZE - here.page_offset());
        done = part.end;
        (!part.is_empty()).then_some((here, part))
    })
}

impl Pages {
    /// Nothing mapped, and this many frames to map.
    pub(crate) fn of_frames(frames_max: u64) -> Self {
        Self { pages: BTreeMap::new(), frames: BTreeMap::new(), next_frame: 0, frames_max }
    }

    /// The frame behind `at`, if an access of this kind to it is allowed.
    fn frame(
        &self,
        at: Gva,
        kind: Access,
        allowed: impl Fn(Prot) -> bool,
    ) -> Result<u64, Inaccessible> {
        let page = self.pages.get(&(at.0 / PAGE)).filter(|(_, prot)| allowed(*prot));
        page.map(|(frame, _)| *frame).ok_or(Inaccessible { at, kind })
    }

    fn copy(
        &mut self,
        at: Gva,
        bytes: &[u8],
        allowed: impl Fn(Prot) -> bool,
    ) -> Result<(), Inaccessible> {
        for (here, part) in parts(at, bytes.len()) {
            let frame = self.frame(here, Access::Write, &allowed)?;
            let frame = Arc::make_mut(self.frames.get_mut(&frame).expect("a frame in use"));
            frame[here.page_offset()..][..part.len()].copy_from_slice(&bytes[part]);
        }
        Ok(())
    }

    fn look(
        &self,
        at: Gva,
        out: &mut [u8],
        allowed: impl Fn(Prot) -> bool,
    ) -> Result<(), Inaccessible> {
        for (here, part) in parts(at, out.len()) {
            let frame = &self.frames[&self.frame(here, Access::Read, &allowed)?];
            let len = part.len();
            out[part].copy_from_slice(&frame[here.page_offset()..][..len]);
        }
        Ok(())
    }

    /// Whether each frame is shown by a page, and each page shows a frame.
    pub(crate) fn is_sound(&self) -> bool {
        let shown: BTreeSet<u64> = self.pages.values().map(|(frame, _)| *frame).collect();
        shown.iter().eq(self.frames.keys())
    }
}

impl UserMemory for Pages {
    fn read(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        self.look(at, out, |prot| !prot.is_empty())
    }

    fn write(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.copy(at, bytes, |prot| prot.contains(Prot::WRITE))
    }

    fn populate(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.copy(at, bytes, |_| true)
    }

    fn map(&mut self, range: PageRange, prot: Prot) -> Result<(), OutOfFrames> {
        assert!(!prot.is_empty(), "no page is mapped without permissions");
        for page in numbers(range) {
            if self.pages.contains_key(&page) {
                continue;
            }
            if self.frames.len() as u64 >= self.frames_max {
                return Err(OutOfFrames);
            }
            self.next_frame += 1;
            self.frames.insert(self.next_frame, Arc::new([0; PAGE_SIZE]));
            self.pages.insert(page, (self.next_frame, prot));
        }
        Ok(())
    }

    fn unmap(&mut self, range: PageRange) {
        let numbers = numbers(range);
        let gone: Vec<u64> = self.pages.range(numbers).map(|(page, _)| *page).collect();
        for page in gone {
            let (frame, _) = self.pages.remove(&page).unwrap();
            assert!(self.frames.remove(&frame).is_some(), "a frame is freed once");
        }
    }

    fn protect(&mut self, range: PageRange, prot: Prot) {
        for (_, page) in self.pages.range_mut(numbers(range)) {
            page.1 = prot;
        }
    }

    fn relocate(&mut self, range: PageRange, to: Gva) -> Result<(), OutOfFrames> {
        let first = range.start.0 / PAGE;
        let target = numbers(PageRange { start: to, pages: range.pages }).start;
        let moving: Vec<u64> = self.pages.range(numbers(range)).map(|(page, _)| *page).collect();
        for page in moving {
            let moved = target + (page - first);
            assert!(!self.pages.contains_key(&moved), "the target is absent");
            let frame = self.pages.remove(&page).unwrap();
            self.pages.insert(moved, frame);
        }
        Ok(())
    }

    fn next_mapped(&self, at: Gva, end: Gva) -> Option<Gva> {
        let numbers = at.0 / PAGE..end.0.div_ceil(PAGE).max(at.0 / PAGE);
        self.pages.range(numbers).next().map(|(page, _)| Gva(page * PAGE))
    }

    fn alias(&mut self, from: Gva, to: Gva, prot: Prot) -> Result<(), OutOfFrames> {
        let (frame, _) = self.pages[&(from.0 / PAGE)];
        let target = numbers(PageRange { start: to, pages: 1 }).start;
        assert!(self.pages.insert(target, (frame, prot)).is_none(), "the target is absent");
        Ok(())
    }

    fn forget(&mut self, at: Gva) {
        self.pages.remove(&(at.0 / PAGE));
    }

    fn peek(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        self.look(at, out, |_| true)
    }

    fn allows(&self, at: Gva, kind: Access) -> bool {
        self.pages.get(&(at.0 / PAGE)).is_some_and(|(_, prot)| match kind {
            Access::Read => !prot.is_empty(),
            Access::Write => prot.contains(Prot::WRITE),
            Access::Execute => prot.contains(Prot::EXEC),
        })
    }

    fn frames_free(&self) -> u64 {
        self.frames_max.saturating_sub(self.frames.len() as u64)
    }
}
