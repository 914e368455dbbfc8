//! The frame that a handler finds on its stack: `struct rt_sigframe` of x86-64, laid out as Linux
//! does (arch/x86/kernel/signal_64.c, arch/x86/kernel/fpu/signal.c). Never touches memory: it
//! computes bytes, and reads them back.

use crate::arch::control::MXCSR_MASK;
use crate::linux::abi::registers::Registers;
use crate::linux::cpu::{ExtendedLayout, initial_extended};
use crate::linux::signal::siginfo::{INFO_BYTES, SigInfo};
use crate::linux::signal::stack::{AlternateStack, Trap};
use crate::xsave::{HEADER_END, LEGACY, LEGACY_BYTES, XSTATE_BV_AT, keep_components};

/// The return address and `struct ucontext`, up to `siginfo`.
const CONTEXT_END: usize = 312;
/// Bytes of the frame but for the extended state.
pub(crate) const FRAME_BYTES: usize = CONTEXT_END + INFO_BYTES;
/// Below the stack pointer a function may keep data (System V ABI, 3.2.2).
const RED_ZONE: u64 = 128;

/// What `uc_flags` says: the frame has all of XSAVE's state, and SS.
const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
/// `FP_XSTATE_MAGIC1` and 2, before and after the extended state.
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// Where in the legacy area Linux says what follows it (`sw_reserved`).
const SOFTWARE_AT: usize = 464;

/// CS and SS as programs on Linux have them. The guest's own are other selectors of the same
/// segments; none is loaded from a frame.
const CS: u64 = 0x33;
const SS: u64 = 0x2b;

/// What a frame is made of.
pub(crate) struct Parts<'a> {
    pub(crate) info: &'a SigInfo,
    pub(crate) regs: &'a Registers,
    /// The mask that comes back with the handler's return.
    pub(crate) mask: u64,
    pub(crate) stack: AlternateStack,
    pub(crate) trap: Trap,
    /// Where the handler returns to.
    pub(crate) restorer: u64,
    pub(crate) extended: Vec<u8>,
    pub(crate) layout: ExtendedLayout,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FramePlace {
    /// The stack pointer at the handler's entry.
    pub(crate) frame: u64,
    /// The extended state, at a multiple of 64.
    extended: u64,
}

impl FramePlace {
    /// The place of a frame below `top`, which is where a stack ends, or the interrupted stack
    /// pointer when `interrupted`.
    pub(crate) fn below(top: u64, interrupted: bool, layout: ExtendedLayout) -> Self {
        let top = if interrupted { top.wrapping_sub(RED_ZONE) } else { top };
        let extended = top.wrapping_sub(extended_bytes(layout) as u64) & !63;
        // At a function's entry the stack pointer is 8 below a multiple of 16.
        let frame = (extended.wrapping_sub(FRAME_BYTES as u64) & !15).wrapping_sub(8);
        Self { frame, extended }
    }

    /// `siginfo_t`, the handler's second argument.
    pub(crate) fn info(self) -> u64 {
        self.frame.wrapping_add(CONTEXT_END as u64)
    }

    /// `ucontext_t`, its third.
    pub(crate) fn context(self) -> u64 {
        self.frame.wrapping_add(8)
    }
}

/// Bytes of extended state in a frame.
fn extended_bytes(layout: ExtendedLayout) -> usize {
    if layout.features == 0 { LEGACY_BYTES } else { layout.bytes + 4 }
}

/// The frame's bytes, from `place.frame` on.
pub(crate) fn encode(parts: &Parts<'_>, place: FramePlace) -> Vec<u8> {
    let regs = parts.regs;
    let has_xsave = parts.layout.features != 0;
    let flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS | if has_xsave { UC_FP_XSTATE } else { 0 };
    let mut words = vec![parts.restorer, flags, 0];
    words.extend([parts.stack.base, parts.stack.flags(), parts.stack.bytes]);
    words.extend([regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15]);
    words.extend([regs.rdi, regs.rsi, regs.rbp, regs.rbx, regs.rdx, regs.rax, regs.rcx, regs.rsp]);
    words.extend([regs.rip, regs.rflags, CS | SS << 48]);
    words.extend([parts.trap.error_code, parts.trap.vector, parts.mask, parts.trap.address]);
    words.push(place.extended);
    words.extend([0; 8]);
    words.push(parts.mask);
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(parts.info.to_bytes());
    bytes.resize(place.extended.wrapping_sub(place.frame) as usize, 0);
    bytes.extend(extended_in_frame(&parts.extended, parts.layout));
    bytes
}

fn extended_in_frame(extended: &[u8], layout: ExtendedLayout) -> Vec<u8> {
    let mut area = extended.to_vec();
    area.resize(layout.bytes.max(LEGACY_BYTES), 0);
    if layout.features == 0 {
        area.truncate(LEGACY_BYTES);
        return area;
    }
    // x87 and SSE are always there, so that a debugger need not ask.
    area[XSTATE_BV_AT] |= LEGACY as u8;
    let software = &mut area[SOFTWARE_AT..SOFTWARE_AT + 48];
    software.fill(0);
    software[..4].copy_from_slice(&MAGIC1.to_le_bytes());
    software[4..8].copy_from_slice(&(layout.bytes as u32 + 4).to_le_bytes());
    software[8..16].copy_from_slice(&layout.features.to_le_bytes());
    software[16..20].copy_from_slice(&(layout.bytes as u32).to_le_bytes());
    area.extend(MAGIC2.to_le_bytes());
    area
}

/// What a handler's return brings back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Saved {
    /// RFLAGS as the frame has it; RIP may be any address.
    pub(crate) regs: Registers,
    pub(crate) mask: u64,
    /// `stack_t`: base, flags, size.
    pub(crate) stack: [u64; 3],
    /// Where the extended state is; 0 for its initial state.
    pub(crate) extended_at: u64,
}

/// Bytes that [`decode`] wants: `struct ucontext`.
pub(crate) const CONTEXT_BYTES: usize = CONTEXT_END - 8;

/// Reads `struct ucontext` back.
pub(crate) fn decode(context: &[u8; CONTEXT_BYTES]) -> Saved {
    let word = |index: usize| {
        let bytes = context.get(index * 8..index * 8 + 8);
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let regs = Registers {
        r8: word(5),
        r9: word(6),
        r10: word(7),
        r11: word(8),
        r12: word(9),
        r13: word(10),
        r14: word(11),
        r15: word(12),
        rdi: word(13),
        rsi: word(14),
        rbp: word(15),
        rbx: word(16),
        rdx: word(17),
        rax: word(18),
        rcx: word(19),
        rsp: word(20),
        rip: word(21),
        rflags: word(22),
    };
    let stack = [word(2), word(3) & 0xffff_ffff, word(4)];
    Saved { regs, mask: word(37), stack, extended_at: word(28) }
}

/// Bytes of extended state at the frame's `extended_at`, from its first [`LEGACY_BYTES`]: the
/// legacy part alone where the rest is not said to be there.
pub(crate) fn extended_bytes_saved(legacy: &[u8; LEGACY_BYTES], layout: ExtendedLayout) -> usize {
    let half = |at: usize| {
        let bytes = legacy.get(SOFTWARE_AT + at..SOFTWARE_AT + at + 4);
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let bytes = half(16) as usize;
    let is_there = layout.features != 0
        && half(0) == MAGIC1
        && (HEADER_END..=layout.bytes).contains(&bytes)
        && half(4) as usize >= bytes;
    if is_there { bytes } else { LEGACY_BYTES }
}

/// Extended state from a frame as the CPU may load it; `None` where XRSTOR would fault (Intel SDM
/// vol. 1, 13.8.1) or FXRSTOR would.
pub(crate) fn loadable(saved: &[u8], layout: ExtendedLayout) -> Option<Vec<u8>> {
    let mut area = initial_extended(layout);
    area.get_mut(..saved.len())?.copy_from_slice(saved);
    let mxcsr = u32::from_le_bytes(saved.get(24..28)?.try_into().ok()?);
    if mxcsr & !MXCSR_MASK != 0 {
        return None;
    }
    if layout.features == 0 {
        return Some(area);
    }
    let header = area.get_mut(XSTATE_BV_AT..HEADER_END)?;
    if saved.len() < HEADER_END {
        // Only x87 and SSE: everything else in its initial state.
        header.fill(0);
        header[0] = LEGACY as u8;
        return Some(area);
    }
    if header[8..].iter().any(|byte| *byte != 0) {
        return None;
    }
    keep_components(&mut area, layout.features);
    Some(area)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: ExtendedLayout = ExtendedLayout { features: 7, bytes: 832 };

    fn parts<'a>(info: &'a SigInfo, regs: &'a Registers) -> Parts<'a> {
        Parts {
            info,
            regs,
            mask: 0x55,
            stack: AlternateStack::default(),
            trap: Trap { vector: 14, error_code: 6, address: 0x1234 },
            restorer: 0x7777,
            extended: initial_extended(LAYOUT),
            layout: LAYOUT,
        }
    }

    #[test]
    fn a_frame_lies_below_the_red_zone_as_at_a_functions_entry() {
        let place = FramePlace::below(0x1_0000, true, LAYOUT);
        assert_eq!(place.extended % 64, 0);
        assert_eq!(place.frame % 16, 8);
        assert!(place.extended + 836 <= 0x1_0000 - 128);
        assert!(place.frame + FRAME_BYTES as u64 <= place.extended);
    }

    #[test]
    fn what_a_frame_holds_comes_back() {
        let regs = Registers { rip: 0x40_1000, rsp: 0x7ff0, r15: 15, rax: 1, ..Default::default() };
        let info = SigInfo::fault(11, 1, 0x1234);
        let place = FramePlace::below(regs.rsp, true, LAYOUT);
        let bytes = encode(&parts(&info, &regs), place);
        assert_eq!(bytes.len() as u64, place.extended + 836 - place.frame);
        let saved = decode(bytes[8..312].try_into().unwrap());
        assert_eq!((saved.regs, saved.mask), (regs, 0x55));
        assert_eq!(saved.extended_at, place.extended);
        assert_eq!(bytes[312..316], 11_i32.to_le_bytes());
        let area = &bytes[(place.extended - place.frame) as usize..];
        let legacy: &[u8; LEGACY_BYTES] = area[..LEGACY_BYTES].try_into().unwrap();
        assert_eq!(extended_bytes_saved(legacy, LAYOUT), 832);
        assert_eq!(area[832..836], MAGIC2.to_le_bytes());
        assert!(loadable(&area[..832], LAYOUT).is_some());
    }

    #[test]
    fn state_that_the_cpu_would_refuse_is_refused() {
        let good = extended_in_frame(&initial_extended(LAYOUT), LAYOUT);
        let with = |at: usize, value: u8| {
            let mut bad = good[..832].to_vec();
            bad[at] = value;
            loadable(&bad, LAYOUT)
        };
        assert!(with(26, 1).is_none(), "a reserved bit of MXCSR");
        assert!(with(XSTATE_BV_AT + 8, 1).is_none(), "XCOMP_BV");
        let masked = with(XSTATE_BV_AT + 1, 0xff).unwrap();
        assert_eq!(masked[XSTATE_BV_AT + 1], 0, "components that the program does not have");
    }
}
