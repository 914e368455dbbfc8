//! Where functions that compare strings get their breakpoints, and the copies of their first
//! instructions. Never writes into the guest.

use super::around::code_frame;
use super::config::DetourConfig;
use super::draft::{Draft, PAGE, room, take};
use super::error::DetourError;
use super::hooks::{Hooked, Hooks};
use super::region::Region;
use crate::address::{Gpa, Gva};
use crate::arch::INT3;
use crate::coverage::comparisons::StringFunction;
use crate::coverage::detours::relocated;
use crate::memory::{GuestMemory, ZERO_PAGE};
use std::ops::Range;

/// Bytes of a page that one hook has for its copy.
const COPY_BYTES: u64 = 32;
/// How far a copy may be from its function.
const REACH: u64 = 0x7000_0000;

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
    let mut page: Option<(Range<u64>, usize)> = None;
    for (index, &(at, function)) in (0..).zip(functions) {
        let is_taken = config.crash_points.contains(&at) || draft.is_rewritten(at);
        let Some(pfn) = code_frame(memory, config.tables, at)?.filter(|_| !is_taken) else {
            continue;
        };
        let bytes = config.pages.page(pfn).unwrap_or(&ZERO_PAGE);
        let Some(code) = bytes.get(Gva(at).page_offset()..) else { continue };
        let is_near = |room: &Range<u64>| {
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
            hooks.add(at, hooked, place, original);
        }
    }
    Ok(hooks)
}
