//! What a signal tells its handler, and a trace: `siginfo_t`. Never decides who gets it.

use crate::linux::abi::ids::USER_ID;
use serde::{Deserialize, Serialize};

/// Bytes of `siginfo_t`.
pub(crate) const INFO_BYTES: usize = 128;

/// Words of `_sifields` that a signal carries; a handler finds zeros after them (`struct
/// kernel_siginfo` and `copy_siginfo_to_user`, kernel/signal.c).
const WORDS: usize = 4;

/// `SI_USER`: sent by `kill`.
pub(crate) const SI_USER: i32 = 0;
/// `SI_KERNEL`.
pub(crate) const SI_KERNEL: i32 = 0x80;
/// `SI_TKILL`: sent by `tkill` or `tgkill`.
pub(crate) const SI_TKILL: i32 = -6;
/// `SI_TIMER`: a timer of `timer_create` has expired.
pub(crate) const SI_TIMER: i32 = -2;

/// A signal on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SigInfo {
    /// 1 to 64.
    pub(crate) signal: u8,
    pub(crate) code: i32,
    /// 0, unless `rt_sigqueueinfo` said otherwise.
    pub(crate) errno: i32,
    /// `_sifields`, the meaning of which depends on the signal and the code.
    pub(crate) fields: [u64; WORDS],
}

impl SigInfo {
    fn new(signal: u8, code: i32, fields: &[u64]) -> Self {
        let mut all = [0; WORDS];
        all[..fields.len()].copy_from_slice(fields);
        Self { signal, code, errno: 0, fields: all }
    }

    /// Sent by the process itself, the only one there is.
    pub(crate) fn sent(signal: u8, code: i32, process: u64) -> Self {
        Self::new(signal, code, &[process | u64::from(USER_ID) << 32])
    }

    /// The kernel's own doing, with no more to tell.
    pub(crate) fn kernel(signal: u8) -> Self {
        Self::new(signal, SI_KERNEL, &[])
    }

    /// A fault at an address.
    pub(crate) fn fault(signal: u8, code: i32, address: u64) -> Self {
        Self::new(signal, code, &[address])
    }

    /// Timer `id` expired, and `overrun` times more since.
    pub(crate) fn timer(signal: u8, id: u32, overrun: u32, value: u64) -> Self {
        Self::new(signal, SI_TIMER, &[u64::from(id) | u64::from(overrun) << 32, value])
    }

    /// As `rt_sigqueueinfo` has it, with the signal that the call names.
    pub(crate) fn from_bytes(signal: u8, bytes: &[u8; INFO_BYTES]) -> Self {
        let half = |at: usize| {
            i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let mut fields = [0; WORDS];
        for (field, word) in fields.iter_mut().zip(bytes[16..].chunks_exact(8)) {
            *field = word.try_into().map_or(0, u64::from_le_bytes);
        }
        Self { signal, code: half(8), errno: half(4), fields }
    }

    pub(crate) fn to_bytes(&self) -> [u8; INFO_BYTES] {
        let mut bytes = [0; INFO_BYTES];
        bytes[..4].copy_from_slice(&i32::from(self.signal).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.errno.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.code.to_le_bytes());
        for (to, word) in bytes[16..].chunks_exact_mut(8).zip(self.fields) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}
