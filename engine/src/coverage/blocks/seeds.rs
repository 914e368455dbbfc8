//! The addresses that are code for certain, before any instruction was decoded.
//!
//! Never takes a pointer for code merely because it points into an executable segment: vtables
//! may hold pointers to data in `.text`.

use crate::symbols::elf::{FunctionSymbol, Layout};
use crate::symbols::frames::CallFrames;
use object::elf;
use std::collections::BTreeSet;

/// Initialiser arrays longer than this are cut.
const INITIALISERS_MAX: u64 = 65_536;

/// All seeds, sorted and distinct.
pub(super) fn collect(
    layout: &Layout,
    bytes: &[u8],
    frames: &CallFrames,
    symbols: &[FunctionSymbol],
) -> Vec<u64> {
    let mut seeds = BTreeSet::from([layout.entry]);
    seeds.extend(symbols.iter().map(|symbol| symbol.address));
    // The entry of a signal trampoline starts on the byte before it, which is padding.
    let frames = frames.ranges().iter().filter(|frame| !frame.signal_trampoline);
    seeds.extend(frames.map(|frame| frame.code.start));
    seeds.extend(layout.ifunc_resolvers(bytes));
    seeds.extend(initialisers(layout, bytes));
    seeds.into_iter().filter(|seed| layout.is_code(*seed)).collect()
}

fn initialisers(layout: &Layout, bytes: &[u8]) -> Vec<u64> {
    let sections = || layout.sections.iter();
    let mut found: Vec<u64> = sections()
        .filter(|section| matches!(section.name.as_str(), ".init" | ".fini"))
        .map(|section| section.address)
        .chain([elf::DT_INIT, elf::DT_FINI].into_iter().filter_map(|tag| layout.dynamic(tag)))
        .collect();
    let is_array =
        |kind| matches!(kind, elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY);
    let mut arrays: Vec<(u64, u64)> = sections()
        .filter(|section| is_array(section.kind))
        .map(|section| (section.address, section.file.len() as u64))
        .collect();
    let tags =
        [(elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ), (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ)];
    arrays.extend(
        tags.into_iter()
            .filter_map(|(at, size)| Some((layout.dynamic(at)?, layout.dynamic(size)?))),
    );
    let relocations = layout.relative_relocations(bytes);
    let mut left = INITIALISERS_MAX;
    for (address, size) in arrays {
        let count = (size / 8).min(left);
        left -= count;
        let places = (0..count).map(|index| address.wrapping_add(index * 8));
        found.extend(places.filter_map(|place| pointer(layout, bytes, &relocations, place)));
    }
    found
}

/// The pointer that the program finds at `place` once it is relocated.
pub(super) fn pointer(
    layout: &Layout,
    bytes: &[u8],
    relocations: &[(u64, u64)],
    place: u64,
) -> Option<u64> {
    match relocations.binary_search_by_key(&place, |(at, _)| *at) {
        Ok(index) => relocations.get(index).map(|(_, value)| *value),
        // Packed (RELR) relocations and fixed-address images keep the value in place.
        Err(_) => layout.read_u64(bytes, place),
    }
}
