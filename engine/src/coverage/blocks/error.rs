//! Why no blocks can be found.

use crate::symbols::ElfError;

/// Why no blocks can be found.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The image is not a readable x86-64 ELF file.
    #[error("find basic blocks in an ELF image")]
    Elf(#[from] ElfError),
    /// No executable segment has bytes in the file.
    #[error("find basic blocks: the image has no executable bytes")]
    NoCode,
    /// The image's segments claim the same bytes many times over.
    #[error("find basic blocks: executable segments claim {claimed} of the file's {file} bytes")]
    Overclaimed {
        /// Sum of the executable segments' file sizes.
        claimed: usize,
        /// Size of the file in bytes.
        file: usize,
    },
}
