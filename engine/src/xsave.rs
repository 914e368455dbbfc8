//! The fixed parts of a standard-format XSAVE area (Intel SDM vol. 1, 13.4): the legacy region and the
//! header. Never knows where a component of the extended region lies: CPUs differ in that, and `state`
//! asks CPUID.

/// Bytes of the legacy region, which is all that FXSAVE knows (Intel SDM vol. 1, 13.4.1).
pub(crate) const LEGACY_BYTES: usize = 512;
/// Offsets in the legacy region of the x87 control and status words, and of MXCSR (same table).
pub(crate) const FCW_AT: usize = 0;
pub(crate) const FSW_AT: usize = 2;
pub(crate) const MXCSR_AT: usize = 24;
/// Offset of XSTATE_BV in an XSAVE area, the first word of the header (Intel SDM vol. 1, 13.4.2).
pub const XSTATE_BV_AT: usize = LEGACY_BYTES;
/// Where the header ends and the extended region begins.
pub(crate) const HEADER_END: usize = XSTATE_BV_AT + 64;

/// x87 and SSE, which cannot be turned off and have one place.
pub(crate) const LEGACY: u64 = 3;
pub(crate) fn xstate_bv(area: &[u8]) -> u64 {
    area.get(XSTATE_BV_AT..XSTATE_BV_AT + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

pub(crate) fn set_xstate_bv(area: &mut [u8], components: u64) {
    if let Some(word) = area.get_mut(XSTATE_BV_AT..XSTATE_BV_AT + 8) {
        word.copy_from_slice(&components.to_le_bytes());
    }
}

/// Takes every component that is not `allowed` out of an area, so that XRSTOR loads it: a bit of
/// XSTATE_BV that XCR0 has not faults, and so does what is not zero behind it in the header of a
/// standard-format area, up to what is reserved there (Intel SDM vol. 1, 13.8.1).
pub(crate) fn keep_components(area: &mut [u8], allowed: u64) {
    let kept = xstate_bv(area) & allowed;
    if let Some(header) = area.get_mut(XSTATE_BV_AT..HEADER_END) {
        header.fill(0);
    }
    set_xstate_bv(area, kept);
}
