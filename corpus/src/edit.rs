//! One change of an input. Never decides which.

use std::ops::Range;

/// Bytes of an input that are replaced by others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Edit {
    /// Which bytes; an end beyond the input's is the input's.
    pub(crate) range: Range<usize>,
    /// What comes there, of any length.
    pub(crate) bytes: Vec<u8>,
}

impl Edit {
    /// What is as long as what it replaces, or ends beyond the input's end.
    pub(crate) fn overwrite(at: usize, bytes: &[u8]) -> Self {
        Self { range: at..at.saturating_add(bytes.len()), bytes: bytes.to_vec() }
    }

    /// Puts the edited `input` into `out`.
    pub(crate) fn apply(&self, input: &[u8], out: &mut Vec<u8>) {
        let start = self.range.start.min(input.len());
        let end = self.range.end.clamp(start, input.len());
        out.clear();
        out.extend_from_slice(input.get(..start).unwrap_or_default());
        out.extend_from_slice(&self.bytes);
        out.extend_from_slice(input.get(end..).unwrap_or_default());
    }

    /// Whether it changes `input` at all.
    pub(crate) fn changes(&self, input: &[u8]) -> bool {
        let end = self.range.end.min(input.len());
        input.get(self.range.start.min(end)..end) != Some(&self.bytes[..])
    }

    /// Length of `input` when it is edited.
    pub(crate) fn len_of(&self, input: &[u8]) -> usize {
        let start = self.range.start.min(input.len());
        let end = self.range.end.clamp(start, input.len());
        (input.len() - (end - start)).saturating_add(self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(edit: &Edit, input: &[u8]) -> Vec<u8> {
        let mut out = b"left over".to_vec();
        edit.apply(input, &mut out);
        assert_eq!(out.len(), edit.len_of(input));
        assert_eq!(edit.changes(input), out != input);
        out
    }

    #[test]
    fn bytes_are_replaced_by_as_many_or_by_more_or_by_none() {
        assert_eq!(edited(&Edit::overwrite(1, b"XY"), b"abcd"), b"aXYd");
        assert_eq!(edited(&Edit::overwrite(1, b"bc"), b"abcd"), b"abcd");
        assert_eq!(edited(&Edit { range: 1..2, bytes: b"XYZ".to_vec() }, b"abcd"), b"aXYZcd");
        assert_eq!(edited(&Edit { range: 0..4, bytes: Vec::new() }, b"abcd"), b"");
    }

    #[test]
    fn what_ends_beyond_the_input_makes_it_longer() {
        assert_eq!(edited(&Edit::overwrite(3, b"XYZ"), b"abcd"), b"abcXYZ");
        assert_eq!(edited(&Edit::overwrite(9, b"X"), b"abcd"), b"abcdX");
        assert_eq!(edited(&Edit::overwrite(0, b"X"), b""), b"X");
    }
}
