//! What a comparison of a run has compared. Only data.

/// What one comparison of a run compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Compared {
    /// Which comparison, of those that were asked for; functions come after all instructions.
    pub site: u32,
    /// What was compared.
    pub kind: ComparedKind,
    /// The first operand, as it would stand in memory: integers are little-endian.
    pub left: Vec<u8>,
    /// The second operand.
    pub right: Vec<u8>,
}

/// What a comparison compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComparedKind {
    /// Integers, both of the same width.
    Integer {
        /// It asks which one is less, not only whether they are equal.
        is_ordering: bool,
    },
    /// Floating-point numbers, both of the same width.
    Float,
    /// Bytes, as many of both.
    Bytes,
    /// Strings without their NUL, perhaps of different lengths.
    Text,
}
