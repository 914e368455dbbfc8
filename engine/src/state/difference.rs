//! One difference from a snapshot, for people. Never looks for one.

use serde::Serialize;

/// One field that differs from the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which field, such as `regs.rax` or `page 0x1000`.
    pub field: String,
    /// What the snapshot has.
    pub expected: String,
    /// What the machine has.
    pub found: String,
}

impl Difference {
    /// A difference between two values that print in hexadecimal.
    pub fn new(
        field: impl Into<String>,
        expected: impl std::fmt::Debug,
        found: impl std::fmt::Debug,
    ) -> Self {
        Self {
            field: field.into(),
            expected: format!("{expected:x?}"),
            found: format!("{found:x?}"),
        }
    }
}
