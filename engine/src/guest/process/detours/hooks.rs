//! Breakpoints that stay, at functions that compare strings: each arrival is noticed, and goes on in
//! a copy of the function's first instruction.
//!
//! Never looks at what they are called with.

use super::around::code_frame;
use super::config::DetourConfig;
use super::error::DetourError;
use super::install::{Draft, PAGE, room, take};
use super::region::Region;
use crate::address::{Gpa, Gva};
use crate::arch::INT3;
use crate::coverage::comparisons::StringFunction;
use crate::coverage::detours::relocated;
use crate::memory::{GuestMemory, OutOfRam, ZERO_PAGE};
use std::collections::HashMap;

/// How often a function is noticed in a run: each time is an exit.
const HITS_MAX: u32 = 8;
/// Bytes of a page that one hook has for its copy.
const COPY_BYTES: u64 = 32;
/// How far a copy may be from its function.
const REACH: u64 = 0x7000_0000;

/// An arrival at a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hooked {
    /// Which function, in the order in which they were given.
    pub index: u32,
    pub function: StringFunction,
    /// Where the program goes on.
    pub to: u64,
}

/// A breakpoint that stays.
#[derive(Clone, Copy, Debug)]
struct Hook {
    hooked: Hooked,
    place: Gpa,
    original: u8,
    hits: u32,
}

/// All of them, by address.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    hooks: HashMap<u64, Hook>,
}

impl Hooks {
    /// The hook at `at`, which the program has just hit. After many hits it is gone until the run is
    /// over.
    pub(super) fn hit(
        &mut self,
        memory: &mut GuestMemory,
        at: u64,
    ) -> Result<Option<Hooked>, OutOfRam> {
        let Some(hook) = self.hooks.get_mut(&at).filter(|hook| hook.hits < HITS_MAX) else {
            return Ok(None);
        };
        hook.hits += 1;
        if hook.hits == HITS_MAX {
            memory.write_unmarked(hook.place, &[hook.original])?;
            return Ok(Some(Hooked { to: at, ..hook.hooked }));
        }
        Ok(Some(hook.hooked))
    }

    /// Puts them back for the next run.
    pub(super) fn end_run(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        for hook in self.hooks.values_mut().filter(|hook| hook.hits > 0) {
            if hook.hits == HITS_MAX {
                memory.write_unmarked(hook.place, &[INT3])?;
            }
            hook.hits = 0;
        }
        Ok(())
    }
}

/// Adds a hook at each of `functions` that can have one to `draft`; `next` is the first free byte of
/// its slot.
pub(super) fn draft_hooks(
    memory: &GuestMemory,
    config: &DetourConfig<'_>,
    functions: &[(u64, StringFunction)],
    draft: &mut Draft,
    next: &mut Gpa,
) -> Result<Hooks, DetourError> {
    let mut hooks = Hooks::default();
    // The page of copies in use: what is free of it, and which region it is.
    let mut page: Option<(std::ops::Range<u64>, usize)> = None;
    for (index, &(at, function)) in (0..).zip(functions) {
        let is_taken = config.crash_points.contains(&at) || draft.is_rewritten(at);
        let Some(pfn) = code_frame(memory, config.tables, at)?.filter(|_| !is_taken) else {
            continue;
        };
        let bytes = config.pages.page(pfn).unwrap_or(&ZERO_PAGE);
        let Some(code) = bytes.get(Gva(at).page_offset()..) else { continue };
        let is_near = |room: &std::ops::Range<u64>| {
            room.end - room.start >= COPY_BYTES && room.start.abs_diff(at) < REACH
        };
        if !page.as_ref().is_some_and(|(room, _)| is_near(room)) {
            let near = Gva(at).page_floor().0;
            let start = room(config.process, &(near..near + PAGE), PAGE, &draft.regions)?;
            draft.regions.push(Region::of_code(start..start + PAGE, take(next, PAGE)));
            draft.code.push(Vec::new());
            page = Some((start..start + PAGE, draft.regions.len() - 1));
        }
        let Some((free, region)) = &mut page else { continue };
        let Some(mut copy) = relocated(code, at, free.start) else { continue };
        copy.resize(COPY_BYTES as usize, INT3);
        let Some(code) = draft.code.get_mut(*region) else { continue };
        code.extend(copy);
        let hooked = Hooked { index, function, to: free.start };
        free.start += COPY_BYTES;
        draft.copy_page(config, at, pfn, next);
        if let Some((place, original)) = draft.write(at, INT3) {
            hooks.hooks.insert(at, Hook { hooked, place, original, hits: 0 });
        }
    }
    Ok(hooks)
}
