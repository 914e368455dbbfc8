//! Puts detours into a machine that stands at its snapshot: rewritten copies of its code pages,
//! trampolines near them, and page tables that show both.
//!
//! Never changes a page or a table that the machine has without detours.

use super::code::Detours;
use super::config::DetourConfig;
use super::draft::{Draft, draft};
use super::error::DetourError;
use super::hook_sites::draft_hooks;
use super::region::Region;
use super::view::BatchView;
use super::watch::Watch;
use crate::address::{Gpa, Gva, PAGE_SIZE};
use crate::coverage::Breakpoints;
use crate::coverage::detours::{Detail, Image};
use crate::guest::process::layout::engine_va;
use crate::memory::{GuestMemory, SlotSpec};
use crate::paging::{Frames, Tables, TablesError, leaf_entry};
use std::collections::HashSet;
use std::ops::Range;

/// Where slots of detours may be: between the agent's slot and the 32-bit MMIO hole.
const SLOTS: Range<u64> = 0x2000_0000..0xe000_0000;
/// Frames for page tables, at the start of the slot: room for as many as there can be without.
const ARENA_BYTES: u64 = 0x180_0000;
/// Puts detours for `images` into a machine at its snapshot.
///
/// # Errors
/// There is no room for them, or the program can write its own code. The machine is as before.
pub(crate) fn install(
    memory: &mut GuestMemory,
    config: &DetourConfig<'_>,
    images: &[Image<'_>],
) -> Result<Detours, DetourError> {
    let slots = memory.layout().map(|slot| slot.start.0.saturating_add(slot.bytes));
    let start = Gpa(slots.filter(|end| SLOTS.contains(end)).max().unwrap_or(SLOTS.start));
    let arena = start..start.wrapping_add(ARENA_BYTES);
    let mut next = arena.end;
    let detail = config.purpose.detail();
    let mut draft = draft(memory, config, images, &mut next)?;
    let hooks = draft_hooks(memory, config, config.functions, &mut draft, &mut next)?;
    if next.0 > SLOTS.end {
        return Err(DetourError::NoRoom { at: start.0 });
    }
    memory.add_slot(SlotSpec { start, bytes: next.0 - start.0, log_dirty: false })?;
    let (tables, entries) = show(memory, config.tables, &draft, &arena)?;
    let mut detours = Detours {
        baseline: tables.clone(),
        tables,
        marked_at: marked_at(&draft.regions),
        counts: draft.counts,
        blocks: draft.blocks,
        are_counts: detail == Detail::Counts,
        pages: draft.pages.into_values().collect(),
        regions: draft.regions,
        code: draft.code,
        breakpoints: draft.breakpoints,
        hit: Vec::new(),
        dead: draft.dead,
        watch: Watch::new(entries),
        batches: BatchView::default(),
        hooks,
        is_lost: false,
    };
    detours.write(memory)?;
    if detail != Detail::Blocks {
        detours.batches = BatchView::new(batch_breakpoints(memory, &detours));
    }
    Ok(detours)
}

/// The region of each place that marks itself, and the byte of its map.
fn marked_at(regions: &[Region]) -> Vec<Option<(u32, u32)>> {
    let all = regions.iter().flat_map(|region| &region.numbers);
    let mut places = vec![None; all.max().map_or(0, |last| *last as usize + 1)];
    for (region, Region { numbers, .. }) in (0..).zip(regions) {
        for (number, index) in numbers.iter().zip(0..) {
            if let Some(place) = places.get_mut(*number as usize) {
                *place = Some((region, index));
            }
        }
    }
    places
}

/// Breakpoints for batches at the blocks that do not mark themselves, none of them armed.
fn batch_breakpoints(memory: &GuestMemory, detours: &Detours) -> Breakpoints {
    let mut blocks = vec![0; detours.blocks as usize];
    for (at, breakpoint) in &detours.breakpoints {
        if let Some(block) = blocks.get_mut(breakpoint.number as usize) {
            *block = *at;
        }
    }
    Breakpoints::new(&blocks, memory, |at| {
        detours.breakpoints.get(&at).and_then(|_| detours.place_in_batches(at))
    })
}

/// Page tables that show the draft; with them, which entries do.
fn show(
    memory: &mut GuestMemory,
    exact: &Tables,
    draft: &Draft,
    arena: &Range<Gpa>,
) -> Result<(Tables, HashSet<Gpa>), TablesError> {
    let mut tables = exact.copy_in(memory, Frames::new(arena.start.into(), arena.end.into()))?;
    let mut entries = HashSet::new();
    let mut set = |memory: &mut GuestMemory, at: u64, entry: u64| {
        tables.set_leaf(memory, Gva(at), entry)?;
        entries.extend(tables.leaf(memory, Gva(at)).map(|(slot, _)| slot));
        Ok::<_, TablesError>(())
    };
    for (at, page) in &draft.pages {
        set(memory, *at, leaf_entry(page.place, false, true, true))?;
    }
    for region in &draft.regions {
        for (at, entry) in region.leaves() {
            set(memory, at, entry)?;
        }
    }
    // Where the stub that rewrites page-table entries looks for them.
    for place in (arena.start.0..arena.end.0).step_by(PAGE_SIZE).map(Gpa) {
        tables.set_leaf(memory, engine_va(place), leaf_entry(place, true, false, false))?;
    }
    tables.mark();
    // Nothing was translated under these tables yet.
    tables.take_stale(&mut Vec::new());
    Ok((tables, entries))
}
