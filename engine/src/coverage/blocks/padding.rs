//! What compilers and linkers put where nothing is executed. Never says that nothing jumps there.

use iced_x86::{Code, Decoder, DecoderOptions};

/// The length of the padding instruction that `bytes` begin with: a NOP, or INT3.
#[must_use]
pub(in crate::coverage) fn padding(bytes: &[u8]) -> Option<usize> {
    let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    let is_padding = matches!(
        instruction.code(),
        Code::Nopw
            | Code::Nopd
            | Code::Nopq
            | Code::Nop_rm16
            | Code::Nop_rm32
            | Code::Nop_rm64
            | Code::Int3
    );
    // `xchg ax, ax` is what the assemblers write for two bytes.
    let is_exchange = bytes.starts_with(&[0x66, 0x90]);
    (is_padding || is_exchange).then(|| instruction.len())
}
