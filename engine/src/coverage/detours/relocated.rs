//! One instruction somewhere else, for a breakpoint that stays. Never decides where it stands.

use super::moves::{Decoded, jump};

/// What the instruction with which `bytes` begin, at `at`, is at `to`, with a jump back behind it;
/// `None` if it has to stay where it is. Both are addresses of the address space.
#[must_use]
pub fn relocated(bytes: &[u8], at: u64, to: u64) -> Option<Vec<u8>> {
    let decoded = Decoded::new(bytes, at)?;
    let mut code = Vec::new();
    decoded.emit(&mut code, to, 0)?;
    // Behind what never goes on it is never reached.
    let next = to.wrapping_add(code.len() as u64);
    jump(&mut code, next, decoded.instruction.next_ip())?;
    Some(code)
}
