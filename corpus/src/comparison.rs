//! What a program compares while it runs an input.
//!
//! Only data: who logs it, and what is made of it, is not decided here.

/// What one comparison of a run compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Comparison {
    /// Which comparison of the program it is; any number.
    pub site: u32,
    /// What is compared.
    pub kind: ComparisonKind,
    /// The first operand, as it stands in memory: integers are little-endian.
    pub left: Vec<u8>,
    /// The second operand.
    pub right: Vec<u8>,
}

/// What a comparison compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComparisonKind {
    /// Integers of one width: 1, 2, 4 or 8 bytes.
    Integer {
        /// It asks which one is less, not only whether they are equal.
        is_ordering: bool,
    },
    /// Floating-point numbers of one width.
    Float,
    /// Bytes, as many of both.
    Bytes,
    /// Strings, perhaps of different lengths, without what ends them.
    Text,
}
