//! The answer to "what is at this address".
//!
//! Plain data: never looks anything up.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an address means, as far as the images tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeLocation {
    /// The runtime address.
    pub address: u64,
    /// The image that it lies in.
    pub image: Option<InImage>,
    /// The function that it lies in.
    pub function: Option<InFunction>,
    /// Source lines, the innermost inlined function first, the function itself last. Empty
    /// without DWARF.
    pub source: Vec<SourceFrame>,
}

/// A position in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InImage {
    /// The image's name.
    pub name: String,
    /// What the loader added to the image's own addresses.
    pub bias: u64,
    /// The address less the bias: the one that `objdump` and `nm` show.
    pub offset: u64,
}

/// A position in a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFunction {
    /// The demangled name, without the hash that rustc adds.
    pub name: String,
    /// The symbol as the image has it.
    pub symbol: String,
    /// Bytes from the function's start.
    pub offset: u64,
}

/// One function at one source line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFrame {
    /// The demangled name.
    pub function: Option<String>,
    /// The path as the compiler saw it.
    pub file: Option<String>,
    /// Counted from 1.
    pub line: Option<u32>,
    /// Counted from 1; 0 is the left edge.
    pub column: Option<u32>,
}

impl CodeLocation {
    /// An address about which nothing is known.
    #[must_use]
    pub fn unknown(address: u64) -> Self {
        Self { address, image: None, function: None, source: Vec::new() }
    }

    /// The same place, said of an address `bytes` further on.
    pub(super) fn moved_by(mut self, bytes: u64) -> Self {
        self.address = self.address.wrapping_add(bytes);
        if let Some(image) = &mut self.image {
            image.offset = image.offset.wrapping_add(bytes);
        }
        if let Some(function) = &mut self.function {
            function.offset = function.offset.wrapping_add(bytes);
        }
        self
    }
}

impl fmt::Display for CodeLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)?;
        if let Some(function) = &self.function {
            write!(f, " {}+{:#x}", function.name, function.offset)?;
        }
        if let Some(image) = &self.image {
            write!(f, " ({}+{:#x})", image.name, image.offset)?;
        }
        self.source.iter().try_for_each(|frame| write!(f, " {frame}"))
    }
}

impl fmt::Display for SourceFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(function) = &self.function {
            write!(f, "in {function} ")?;
        }
        write!(f, "at {}", self.file.as_deref().unwrap_or("?"))?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}
