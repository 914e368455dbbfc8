//! A mutation that havoc lacks: a short piece of an input, many times over. What nests, and what
//! counts, is only reached so; havoc doubles pieces, and a depth of thousands takes a chain of lucky
//! ones, none of which is new by itself.
//!
//! At an entry's first turn each byte that may open something is tried so, once.
//!
//! Never decides when.

use crate::edit::Edit;
use crate::mutator::Choices;

/// Longest piece, in bytes.
const PIECE_MAX: usize = 16;

/// The most repetitions, as a power of two.
const POWER_MAX: usize = 12;

/// Bytes of one input that are tried as what nests.
const NESTINGS_MAX: usize = 8;

/// Appends `parent` to `out`, which is empty, with a piece of it repeated; false if it has none or
/// the result would be longer than `max_len` bytes.
pub(crate) fn repeat(
    parent: &[u8],
    choices: &mut Choices<'_>,
    max_len: usize,
    out: &mut Vec<u8>,
) -> bool {
    let start = choices.below(parent.len());
    let length = 1 + choices.below(PIECE_MAX.min(parent.len().saturating_sub(start)));
    let times = 1_usize << (1 + choices.below(POWER_MAX));
    let Some(piece) = parent.get(start..start.saturating_add(length)) else { return false };
    let room = max_len.saturating_sub(parent.len()) / length;
    let times = times.min(room);
    if times == 0 {
        return false;
    }
    let (before, after) = parent.split_at(start);
    out.extend_from_slice(before);
    (0..times).for_each(|_| out.extend_from_slice(piece));
    out.extend_from_slice(after);
    true
}

/// The edits that have a byte of `input` many times over, of those that may open something that
/// nests: the first place of each.
pub(crate) fn nestings(input: &[u8], max_len: usize) -> Vec<Edit> {
    let times = (1 << POWER_MAX).min(max_len.saturating_sub(input.len()));
    let mut seen = [false; 128];
    let mut is_first = |byte: u8| {
        let seen = seen.get_mut(usize::from(byte)).filter(|_| byte.is_ascii_punctuation());
        seen.is_some_and(|seen| !std::mem::replace(seen, true))
    };
    let places = input.iter().enumerate().filter(|(_, byte)| is_first(**byte));
    let edit = |(at, byte): (usize, &u8)| Edit { range: at..at, bytes: vec![*byte; times] };
    places.map(edit).take(NESTINGS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_that_may_nest_is_tried_once() {
        let found = nestings(b"a(b)((", 1 << 20);
        let bytes: Vec<u8> = found.iter().map(|edit| edit.bytes[0]).collect();
        assert_eq!(bytes, b"()");
        assert!(found.iter().all(|edit| edit.bytes.len() == 4096));
        assert!(nestings(b"(", 64).iter().all(|edit| edit.len_of(b"(") == 64));
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(nestings(&all, 1 << 20).len(), NESTINGS_MAX);
    }
    use libafl_bolts::rands::StdRand;

    #[test]
    fn a_piece_is_repeated_up_to_the_longest_input() {
        let mut rand = StdRand::with_seed(1);
        let mut longest = 0;
        for _ in 0..2000 {
            let mut out = Vec::new();
            if repeat(b"a(b", &mut Choices::new(&mut rand), 4096, &mut out) {
                assert!(out.len() > 3 && out.len() <= 4096);
                longest = longest.max(out.iter().filter(|byte| **byte == b'(').count());
            }
        }
        assert!(longest > 2000, "{longest}");
    }

    #[test]
    fn what_has_no_piece_or_no_room_is_left_alone() {
        let mut rand = StdRand::with_seed(1);
        let mut out = Vec::new();
        assert!(!repeat(b"", &mut Choices::new(&mut rand), 64, &mut out));
        assert!(!repeat(b"abc", &mut Choices::new(&mut rand), 3, &mut out));
        assert_eq!(out, b"");
    }
}
