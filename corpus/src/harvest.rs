//! Tokens for the dictionary out of what a program compares. Never decides how they are used.

use crate::comparison::{Comparison, ComparisonKind};

/// Lengths of a token, in bytes.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 3..=32;

/// Operands that are not in `input` and look like words of its language: strings that are compared,
/// and integers that are text.
pub(crate) fn tokens<'c>(
    input: &'c [u8],
    comparisons: &'c [Comparison],
) -> impl Iterator<Item = &'c [u8]> + 'c {
    let operands = comparisons.iter().filter(|c| c.left != c.right).flat_map(|c| {
        let is_number = !matches!(c.kind, ComparisonKind::Text | ComparisonKind::Bytes);
        [&c.left, &c.right].map(|operand| (operand.as_slice(), is_number))
    });
    let token = |(operand, is_number): (&'c [u8], bool)| {
        let end = operand.iter().rposition(|byte| *byte != 0)? + 1;
        let token = operand.get(..end)?;
        let is_text = token.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        (TOKEN_BYTES.contains(&token.len()) && (is_text || !is_number)).then_some(token)
    };
    operands.filter_map(token).filter(|token| !has(input, token))
}

fn has(input: &[u8], token: &[u8]) -> bool {
    input.windows(token.len().max(1)).any(|window| window == token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: ComparisonKind, left: &[u8], right: &[u8]) -> Vec<Vec<u8>> {
        let comparison = Comparison { site: 0, kind, left: left.to_vec(), right: right.to_vec() };
        tokens(b"the input", &[comparison]).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn words_that_the_input_has_not_are_tokens() {
        assert_eq!(found(ComparisonKind::Text, b"the", b"keyword"), [b"keyword"]);
        assert_eq!(found(ComparisonKind::Bytes, b"put", b"\x89PNG"), [b"\x89PNG"]);
    }

    #[test]
    fn a_number_is_a_token_if_it_is_text() {
        let kind = ComparisonKind::Integer { is_ordering: false };
        assert_eq!(found(kind, b"IHDR\0\0\0\0", b"inpu"), [b"IHDR"]);
        assert_eq!(found(kind, &[1, 2, 3, 4], &[0; 4]), [b""; 0]);
        assert_eq!(found(kind, b"ab\0\0", b"cd\0\0"), [b""; 0]);
    }
}
