//! The executable images in a process's address space, for whoever names addresses. Never maps one.

use crate::linux::loader::elf;
use crate::linux::process::Process;
use crate::stored::SharedBytes;
use std::path::PathBuf;

/// An executable image in the process's address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// Absolute path.
    pub path: PathBuf,
    /// What to add to the addresses in the image's own symbols: its load bias.
    pub base: u64,
    /// Address of the image's entry point, its bias included.
    pub entry: u64,
    /// The ELF file.
    pub bytes: SharedBytes,
}

impl Process {
    /// The images in the address space: the program first, then its interpreter, then libraries
    /// in the order in which they were mapped.
    #[must_use]
    pub fn images(&self) -> Vec<LoadedImage> {
        let images = self.images.0.iter().filter_map(|image| {
            let bytes = self.files.image(image.node)?;
            let entry = elf::entry_of(&bytes)?.wrapping_add(image.base);
            Some(LoadedImage { path: PathBuf::from(&image.path), base: image.base, entry, bytes })
        });
        images.collect()
    }
}
