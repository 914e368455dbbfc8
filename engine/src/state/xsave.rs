//! The XSAVE area: where its components lie, which of them may be loaded, and how two are compared.
//!
//! Never assumes a component's place: Intel and AMD differ (AVX-512's are 256 bytes lower on AMD,
//! which never had MPX), so that CPUID leaf 0xD is asked (Intel SDM vol. 1, 13.2).

use super::cpu::CpuState;
use super::difference::Difference;
pub use crate::xsave::XSTATE_BV_AT;
use crate::xsave::{HEADER_END, set_xstate_bv, xstate_bv};
pub(crate) use crate::xsave::{LEGACY, LEGACY_BYTES, keep_components};
use kvm_bindings as k;
use std::ops::Range;

/// Bytes of a standard-format XSAVE area that the engine keeps (`KVM_GET_XSAVE`).
pub const XSAVE_BYTES: usize = 4096;
/// Protection keys for user pages: in CR4's gift, not in XCR0's.
const PKRU: u64 = 1 << 9;

/// The components past the legacy area that an area of [`XSAVE_BYTES`] can hold.
const EXTENDED: [(&str, u32); 5] =
    [("ymm_hi128", 2), ("opmask", 5), ("zmm_hi256", 6), ("hi16_zmm", 7), ("pkru", 9)];

/// Whether KVM gives a guest with this CPUID protection keys, and with them PKRU, which KVM lists
/// in every XSAVE area then, and leaves alone when it loads one without it
/// (`fpu_copy_uabi_to_guest_fpstate`, arch/x86/kernel/fpu/core.c).
#[must_use]
pub fn has_pkru(cpuid: &[k::kvm_cpuid_entry2]) -> bool {
    supported_xcr0(cpuid) & PKRU != 0
}

/// The XCR0 bits that a CPU with this CPUID allows (leaf 0xD, subleaf 0; Intel SDM vol. 1, 13.2).
pub(crate) fn supported_xcr0(cpuid: &[k::kvm_cpuid_entry2]) -> u64 {
    leaf(cpuid, 0).map_or(0, |e| u64::from(e.eax) | u64::from(e.edx) << 32)
}

/// XCR0 among a vCPU's extended control registers; `None` where KVM has none to list.
pub(crate) fn xcr0(xcrs: &k::kvm_xcrs) -> Option<u64> {
    xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize).find(|x| x.xcr == 0).map(|x| x.value)
}

/// Whether two CPUs put a component that `xcr0` enables in different places, so that an area of
/// the one cannot be loaded on the other.
#[must_use]
pub fn lies_elsewhere(
    here: &[k::kvm_cpuid_entry2],
    there: &[k::kvm_cpuid_entry2],
    xcr0: u64,
) -> bool {
    extended_in(xcr0).any(|number| place(here, number) != place(there, number))
}

/// The numbers of the [`EXTENDED`] components that `xcr0` enables.
fn extended_in(xcr0: u64) -> impl Iterator<Item = u32> + Clone {
    EXTENDED.iter().map(|&(_, number)| number).filter(move |number| xcr0 & (1 << number) != 0)
}

fn leaf(cpuid: &[k::kvm_cpuid_entry2], index: u32) -> Option<&k::kvm_cpuid_entry2> {
    cpuid.iter().find(|e| e.function == 0xd && e.index == index)
}

/// What a program under `xcr0` has of extended state: the components, none without XSAVE, and the
/// bytes of an area that holds them in the standard format (Intel SDM vol. 1, 13.4).
#[must_use]
pub fn xsave_layout(cpuid: &[k::kvm_cpuid_entry2], xcr0: u64) -> (u64, usize) {
    if xcr0 == 0 || leaf(cpuid, 0).is_none_or(|e| e.eax == 0) {
        return (0, LEGACY_BYTES);
    }
    let ends = extended_in(xcr0).filter_map(|number| Some((number, place(cpuid, number)?.end)));
    let known = ends.clone().fold(LEGACY, |known, (number, _)| known | 1 << number);
    (xcr0 & known, ends.map(|(_, end)| end).fold(HEADER_END, usize::max))
}

/// Where component `number` lies in the standard format; `None` where the CPU has none.
fn place(cpuid: &[k::kvm_cpuid_entry2], number: u32) -> Option<Range<usize>> {
    let (bytes, at) = leaf(cpuid, number).map(|e| (e.eax as usize, e.ebx as usize))?;
    let end = at.checked_add(bytes)?;
    (bytes > 0 && at >= HEADER_END && end <= XSAVE_BYTES).then_some(at..end)
}

impl CpuState {
    /// XCR0 as captured.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        // Without XSAVE there is x87, which cannot be turned off.
        xcr0(&self.xcrs).unwrap_or(1)
    }

    /// The XSAVE area as KVM takes it: without components that the guest's own XCR0 does not
    /// enable, and with PKRU where the VM has it (`pkru`), because KVM would leave the one that a
    /// run has written.
    pub(super) fn loadable_xsave(&self, pkru: bool) -> k::kvm_xsave {
        let mut bytes = self.xsave.clone();
        bytes.resize(XSAVE_BYTES, 0);
        let had = xstate_bv(&bytes);
        let mut enabled = had & (self.xcr0() | LEGACY);
        if pkru && has_pkru(&self.cpuid) {
            if had & PKRU == 0
                && let Some(place) = place(&self.cpuid, 9)
            {
                // Initial, and said explicitly.
                bytes[place].fill(0);
            }
            enabled |= PKRU;
        }
        set_xstate_bv(&mut bytes, enabled);
        xsave_from(&bytes)
    }
}

/// An area's bytes, [`XSAVE_BYTES`] of them, from the words that KVM tells it in.
pub(crate) fn xsave_bytes(area: &k::kvm_xsave) -> Vec<u8> {
    area.region.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The words that KVM takes an area in, zero past the end of `bytes`.
pub(crate) fn xsave_from(bytes: &[u8]) -> k::kvm_xsave {
    let mut area = k::kvm_xsave::default();
    for (word, four) in area.region.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = four.try_into().map_or(0, u32::from_le_bytes);
    }
    area
}

/// Compares two XSAVE areas component by component. A component that XSTATE_BV leaves out is in
/// its initial state, whatever bytes lie in its place (Intel SDM vol. 1, 13.6).
pub(super) fn compare_xsave(
    then: &[u8],
    now: &[u8],
    cpuid: &[k::kvm_cpuid_entry2],
    found: &mut Vec<Difference>,
) {
    let (bv_then, bv_now) = (xstate_bv(then), xstate_bv(now));
    let legacy = [("x87", 0, 0..24), ("st/mm", 0, 32..160), ("xmm", 1, 160..416)];
    let extended = EXTENDED
        .iter()
        .filter_map(|&(name, number)| place(cpuid, number).map(|range| (name, number, range)));
    for (name, number, range) in legacy.into_iter().chain(extended) {
        let part = |area: &[u8], bv: u64| {
            let bytes = area.get(range.clone()).map(<[u8]>::to_vec).unwrap_or_default();
            if bv & (1 << number) != 0 { bytes } else { initial(name, bytes.len()) }
        };
        let (a, b) = (part(then, bv_then), part(now, bv_now));
        if a != b {
            found.push(Difference::new(format!("xsave.{name}"), a, b));
        }
    }
    // MXCSR is live whenever SSE or AVX is enabled, whether or not XSTATE_BV has their bits.
    let mxcsr = |area: &[u8]| area.get(24..28).map(<[u8]>::to_vec).unwrap_or_default();
    if mxcsr(then) != mxcsr(now) {
        found.push(Difference::new("xsave.mxcsr", mxcsr(then), mxcsr(now)));
    }
}

/// A component's initial state (Intel SDM vol. 1, 13.6): zeros, but for the x87 control word.
fn initial(name: &str, bytes: usize) -> Vec<u8> {
    let mut zeros = vec![0; bytes];
    if name == "x87" && bytes >= 2 {
        zeros[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    }
    zeros
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Component, bytes and place of AVX-512's opmask on AMD and on Intel.
    const AMD: [(u32, u32, u32); 3] = [(2, 256, 576), (5, 64, 832), (9, 8, 2432)];
    const INTEL: [(u32, u32, u32); 3] = [(2, 256, 576), (5, 64, 1088), (9, 8, 2688)];

    fn cpuid(components: &[(u32, u32, u32)]) -> Vec<k::kvm_cpuid_entry2> {
        let entry = |index, eax, ebx| k::kvm_cpuid_entry2 {
            function: 0xd,
            index,
            eax,
            ebx,
            ..Default::default()
        };
        let all = components.iter().fold(LEGACY as u32, |bits, &(number, ..)| bits | 1 << number);
        let places = components.iter().map(|&(number, bytes, at)| entry(number, bytes, at));
        std::iter::once(entry(0, all, 4096)).chain(places).collect()
    }

    fn area(bv: u64, fill: &[(usize, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; XSAVE_BYTES];
        bytes[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        bytes[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        bytes[XSTATE_BV_AT..XSTATE_BV_AT + 8].copy_from_slice(&bv.to_le_bytes());
        fill.iter().for_each(|&(at, value)| bytes[at] = value);
        bytes
    }

    fn names(then: &[u8], now: &[u8], components: &[(u32, u32, u32)]) -> Vec<String> {
        let mut found = Vec::new();
        compare_xsave(then, now, &cpuid(components), &mut found);
        found.into_iter().map(|d| d.field).collect()
    }

    #[test]
    fn a_component_in_its_initial_state_equals_its_explicit_zeros() {
        assert!(names(&area(0, &[(600, 7)]), &area(7, &[]), &AMD).is_empty());
    }

    #[test]
    fn the_upper_half_of_ymm_and_mxcsr_are_compared() {
        let found = names(&area(7, &[]), &area(7, &[(600, 7), (25, 0)]), &INTEL);
        assert_eq!(found, ["xsave.ymm_hi128", "xsave.mxcsr"]);
    }

    #[test]
    fn a_component_is_compared_where_the_cpu_has_it() {
        let (clean, spoiled) = (area(0x27, &[]), area(0x27, &[(832, 1)]));
        assert_eq!(names(&clean, &spoiled, &AMD), ["xsave.opmask"]);
        assert!(names(&clean, &spoiled, &INTEL).is_empty(), "nothing lies there");
        assert!(lies_elsewhere(&cpuid(&AMD), &cpuid(&INTEL), 0x27));
        assert!(!lies_elsewhere(&cpuid(&AMD), &cpuid(&INTEL), 7));
    }

    #[test]
    fn an_area_ends_with_its_last_component() {
        assert_eq!(xsave_layout(&cpuid(&AMD), 0x27), (0x27, 896));
        assert_eq!(xsave_layout(&cpuid(&INTEL), 7), (7, 832));
        assert_eq!(xsave_layout(&cpuid(&[]), 7), (3, 576));
        assert_eq!(xsave_layout(&[], 0), (0, 512));
    }

    #[test]
    fn what_may_be_loaded_has_the_allowed_components_and_nothing_else_in_its_header() {
        let mut bytes = area(0x2e7, &[(XSTATE_BV_AT + 8, 1), (HEADER_END - 1, 1)]);
        keep_components(&mut bytes, 0x47);
        assert_eq!(xstate_bv(&bytes), 0x47);
        assert!(bytes[XSTATE_BV_AT + 8..HEADER_END].iter().all(|byte| *byte == 0));
        let mut headless = vec![1; LEGACY_BYTES];
        keep_components(&mut headless, 7);
        assert_eq!(headless, [1; LEGACY_BYTES]);
    }

    #[test]
    fn xcr0_is_sought_only_among_the_registers_that_there_are() {
        let mut xcrs = k::kvm_xcrs { nr_xcrs: 2, ..Default::default() };
        xcrs.xcrs[0] = k::kvm_xcr { xcr: 1, value: 9, ..Default::default() };
        xcrs.xcrs[1] = k::kvm_xcr { xcr: 0, value: 7, ..Default::default() };
        assert_eq!(xcr0(&xcrs), Some(7));
        assert_eq!(xcr0(&k::kvm_xcrs { nr_xcrs: u32::MAX, ..xcrs }), Some(7));
        assert_eq!(xcr0(&k::kvm_xcrs { nr_xcrs: 1, ..xcrs }), None);
    }

    #[test]
    fn pkru_is_loaded_even_where_the_snapshot_has_it_in_its_initial_state() {
        let state = |components| CpuState {
            xsave: area(0x3, &[(2432, 9)]),
            cpuid: cpuid(components),
            ..CpuState::empty()
        };
        let with = state(&AMD[..]).loadable_xsave(true);
        assert_eq!(with.region[XSTATE_BV_AT / 4], 0x203);
        assert_eq!(with.region[2432 / 4], 0);
        assert_eq!(state(&AMD[..]).loadable_xsave(false).region[XSTATE_BV_AT / 4], 3);
        assert_eq!(state(&AMD[..2]).loadable_xsave(true).region[XSTATE_BV_AT / 4], 3);
    }
}
