//! One-shot breakpoints: an INT3 at the start of every block that no run has reached yet, paid for
//! on its first hit and never again.
//!
//! Never decides what a reached block is worth.

use crate::address::{Gpa, Pfn};
use crate::arch::INT3;
use crate::memory::{GuestMemory, OutOfRam};
use crate::rewind::Patches;
use std::collections::HashMap;

#[derive(Clone, Copy, Debug)]
struct Site {
    at: Gpa,
    original: u8,
    armed: bool,
    /// Reached before, so that no run needs to report it again.
    known: bool,
}

/// Breakpoints at the starts of basic blocks. A block's number is its index in the list that
/// [`Breakpoints::new`] was given.
#[derive(Debug, Default)]
pub struct Breakpoints {
    sites: Vec<Option<Site>>,
    by_address: HashMap<u64, u32>,
}

impl Breakpoints {
    /// Prepares breakpoints at the guest-virtual addresses `blocks`; `translate` gives an
    /// address's place in memory. Blocks that are not mapped keep their number and never fire.
    pub fn new(
        blocks: &[u64],
        memory: &GuestMemory,
        translate: impl Fn(u64) -> Option<Gpa>,
    ) -> Self {
        let site = |&address: &u64| {
            let at = translate(address)?;
            let mut original = [0];
            memory.read(at, &mut original).ok()?;
            Some(Site { at, original: original[0], armed: false, known: false })
        };
        Self {
            sites: blocks.iter().map(site).collect(),
            by_address: blocks.iter().copied().zip(0..).collect(),
        }
    }

    /// Whether a block starts at `address`.
    #[must_use]
    pub fn is_at(&self, address: u64) -> bool {
        self.by_address.contains_key(&address)
    }

    /// Number of blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Number of blocks that were not in memory, which never fire.
    #[must_use]
    pub fn unmapped(&self) -> usize {
        self.sites.iter().filter(|site| site.is_none()).count()
    }

    /// Whether there are no blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// Marks blocks as reached before. Takes effect with the next [`arm`](Self::arm).
    pub fn know(&mut self, blocks: &[u32]) {
        for &block in blocks {
            if let Some(Some(site)) = self.sites.get_mut(block as usize) {
                site.known = true;
            }
        }
    }

    /// Marks blocks as not reached, so that their next hit is reported again. Takes effect with
    /// the next [`arm`](Self::arm).
    pub fn forget(&mut self, blocks: &[u32]) {
        for &block in blocks {
            if let Some(Some(site)) = self.sites.get_mut(block as usize) {
                site.known = false;
            }
        }
    }

    /// Whether a block was reached before; a block that never fires counts as such.
    #[must_use]
    pub fn is_known(&self, block: u32) -> bool {
        match self.sites.get(block as usize) {
            Some(Some(site)) => site.known,
            Some(None) | None => true,
        }
    }

    /// Patches the blocks that `which` asks for, and takes every other breakpoint out.
    ///
    /// # Errors
    /// A block that was in memory is not there any more.
    pub fn arm(
        &mut self,
        which: Arm,
        memory: &mut GuestMemory,
        patches: &mut Patches,
    ) -> Result<(), OutOfRam> {
        for site in self.sites.iter_mut().flatten() {
            let wanted = match which {
                Arm::None => false,
                Arm::Unknown => !site.known,
                Arm::All => true,
            };
            if wanted != site.armed {
                site.switch(wanted, memory, patches)?;
            }
        }
        Ok(())
    }

    /// Writes the breakpoints that are armed once more, over code that was written anew.
    ///
    /// # Errors
    /// A block that was in memory is not there any more.
    pub fn write_armed(&self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        let mut armed = self.sites.iter().flatten().filter(|site| site.armed);
        armed.try_for_each(|site| memory.write_unmarked(site.at, &[INT3]))
    }

    /// Takes the breakpoint at `address` out, which the guest has just hit. `None` when there is
    /// none: the INT3 is the program's own.
    ///
    /// # Errors
    /// As [`arm`](Self::arm).
    pub fn hit(
        &mut self,
        address: u64,
        memory: &mut GuestMemory,
        patches: &mut Patches,
    ) -> Result<Option<u32>, OutOfRam> {
        let Some(&block) = self.by_address.get(&address) else { return Ok(None) };
        let site = self.sites.get_mut(block as usize).and_then(Option::as_mut);
        let Some(site) = site.filter(|site| site.armed) else { return Ok(None) };
        site.switch(false, memory, patches)?;
        site.known = true;
        Ok(Some(block))
    }
}

/// Which blocks fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// None of them.
    None,
    /// Those that no run has reached yet.
    Unknown,
    /// All of them.
    All,
}

impl Site {
    fn switch(
        &mut self,
        on: bool,
        memory: &mut GuestMemory,
        patches: &mut Patches,
    ) -> Result<(), OutOfRam> {
        memory.write_unmarked(self.at, &[if on { INT3 } else { self.original }])?;
        let (pfn, offset) = (Pfn::from(self.at), self.at.page_offset() as u16);
        if on {
            patches.set(pfn, offset, INT3);
        } else {
            patches.clear(pfn, offset);
        }
        self.armed = on;
        Ok(())
    }
}
