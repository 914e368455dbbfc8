//! Comparisons of parts, joined: what a compiler makes of one long comparison is several short
//! ones whose results are joined before the only branch, so that no part is worth anything by itself.
//!
//! Parts belong together if they are compared one soon after the other and their operands stand side
//! by side in the input. Never decides what is done with them.

use std::collections::HashMap;

use memchr::memmem;

use crate::comparison::{Comparison, ComparisonKind};

/// How many comparisons away the next part may be.
const APART_MAX: usize = 8;

/// Bytes of a joined operand.
const JOINED_MAX: usize = 64;

/// Places of a part that are looked at.
const PLACES_MAX: usize = 4;

/// Comparisons that are looked at.
const LOOKED_AT_MAX: usize = 2048;

/// A part whose operand stands in the input.
#[derive(Clone, Copy)]
struct Part<'c> {
    have: &'c [u8],
    want: &'c [u8],
}

/// What comparisons of parts compare together, as comparisons of bytes.
pub(crate) fn joined(input: &[u8], comparisons: &[Comparison]) -> Vec<Comparison> {
    let mut places = HashMap::new();
    let looked_at = comparisons.get(..LOOKED_AT_MAX).unwrap_or(comparisons);
    let mut found: Vec<Comparison> = Vec::new();
    for way in [ahead as fn(&Comparison) -> Part<'_>, back] {
        for (index, first) in looked_at.iter().enumerate() {
            let rest = looked_at.get(index + 1..).unwrap_or_default();
            let rest = rest.get(..APART_MAX).unwrap_or(rest);
            found.extend(join(input, first, rest, way, &mut places));
        }
    }
    found
}

fn ahead(comparison: &Comparison) -> Part<'_> {
    Part { have: &comparison.left, want: &comparison.right }
}

fn back(comparison: &Comparison) -> Part<'_> {
    Part { have: &comparison.right, want: &comparison.left }
}

/// `first` with what belongs to it of `rest`, if something does.
fn join<'c>(
    input: &[u8],
    first: &'c Comparison,
    rest: &'c [Comparison],
    way: fn(&Comparison) -> Part<'_>,
    places: &mut HashMap<&'c [u8], Vec<usize>>,
) -> Option<Comparison> {
    let is_part = |comparison: &&Comparison| {
        let is_equality = matches!(
            comparison.kind,
            ComparisonKind::Integer { is_ordering: false } | ComparisonKind::Bytes
        );
        is_equality && comparison.left.len() > 1 && comparison.left.len() == comparison.right.len()
    };
    Some(first).filter(is_part)?;
    let part = way(first);
    let starts = places_of(input, part.have, places);
    for start in starts {
        let (mut range, mut want) = (start..start + part.have.len(), part.want.to_vec());
        for next in rest.iter().filter(is_part).map(way) {
            let there = places_of(input, next.have, places);
            if range.len() + next.have.len() > JOINED_MAX {
                break;
            }
            if there.contains(&range.end) {
                range.end += next.have.len();
                want.extend_from_slice(next.want);
            } else if there.iter().any(|at| at + next.have.len() == range.start) {
                range.start -= next.have.len();
                want.splice(0..0, next.want.iter().copied());
            }
        }
        if want.len() > part.want.len() {
            let (kind, left) = (ComparisonKind::Bytes, input.get(range)?.to_vec());
            return Some(Comparison { site: first.site, kind, left, right: want });
        }
    }
    None
}

fn places_of<'c>(
    input: &[u8],
    have: &'c [u8],
    places: &mut HashMap<&'c [u8], Vec<usize>>,
) -> Vec<usize> {
    let look = || memmem::find_iter(input, have).take(PLACES_MAX).collect();
    places.entry(have).or_insert_with(look).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(left: &[u8], right: &[u8]) -> Comparison {
        let kind = ComparisonKind::Integer { is_ordering: false };
        Comparison { site: 7, kind, left: left.to_vec(), right: right.to_vec() }
    }

    fn pairs(input: &[u8], comparisons: &[Comparison]) -> Vec<(Vec<u8>, Vec<u8>)> {
        joined(input, comparisons).into_iter().map(|c| (c.left, c.right)).collect()
    }

    #[test]
    fn parts_side_by_side_are_one_comparison_in_either_order() {
        let parts = [part(b"abcdefgh", b"open ses"), part(b"ijkl", b"ame\0")];
        let whole = [(b"abcdefghijkl".to_vec(), b"open sesame\0".to_vec())];
        assert_eq!(pairs(b"..abcdefghijkl..", &parts), whole);
        let reversed: Vec<_> = parts.iter().rev().cloned().collect();
        assert_eq!(pairs(b"..abcdefghijkl..", &reversed), whole);
        let swapped = [part(b"open ses", b"abcdefgh"), part(b"ame\0", b"ijkl")];
        assert_eq!(pairs(b"..abcdefghijkl..", &swapped), whole);
    }

    #[test]
    fn parts_elsewhere_are_not_joined() {
        let parts = [part(b"abcd", b"1234"), part(b"wxyz", b"5678")];
        assert_eq!(pairs(b"abcd.wxyz", &parts), []);
        assert_eq!(pairs(b"abcd", &parts), []);
        assert_eq!(pairs(b"abcd", &[]), []);
    }
}
