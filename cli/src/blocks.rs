//! Which basic blocks count as coverage: those of the program, and of images asked for.
//!
//! Never arms a breakpoint.

use crate::error::CliError;
use dejavm_engine::coverage::{blocks, detours};
use dejavm_engine::linux::{LoadedImage, Process};

/// The blocks of a process, by guest-virtual address, and whose they are.
#[derive(Debug, Default)]
pub struct Blocks {
    /// Where blocks start.
    pub starts: Vec<u64>,
    /// File names of the images they are in.
    pub covered: Vec<String>,
    /// File names of the other images.
    pub uncovered: Vec<String>,
    /// The images that they are in.
    images: Vec<CoveredImage>,
}

/// An image whose blocks count.
#[derive(Debug)]
struct CoveredImage {
    image: LoadedImage,
    blocks: blocks::Blocks,
    /// The number of its first block.
    first: u32,
}

impl CoveredImage {
    fn for_detours(&self) -> detours::Image<'_> {
        let Self { image, blocks, first } = self;
        detours::Image { elf: &image.bytes, blocks, base: image.base, first: *first }
    }
}

impl Blocks {
    /// The blocks of `process`'s program, and of every image whose file name contains one of
    /// `also`. A bare guest has none.
    pub fn find(process: Option<&Process>, also: &[String]) -> Result<Self, CliError> {
        let images = process.map(Process::images).unwrap_or_default();
        let mut found = Self::default();
        for (index, image) in images.iter().enumerate() {
            let name = file_name(image);
            let first = found.starts.len() as u32;
            if index == 0 || is_wanted(&name, also) {
                let blocks = blocks::find(&image.bytes)
                    .map_err(|source| CliError::Blocks { image: name.clone(), source })?;
                found.starts.extend(blocks.starts.iter().map(|at| at.wrapping_add(image.base)));
                found.covered.push(name);
                found.images.push(CoveredImage { image: image.clone(), blocks, first });
            } else {
                found.uncovered.push(name);
            }
        }
        match also.iter().find(|name| !found.has(name)) {
            Some(name) => {
                let loaded = images.iter().map(file_name).collect::<Vec<_>>().join(", ");
                Err(CliError::NoImage { name: name.clone(), loaded })
            }
            None => Ok(found),
        }
    }

    /// What the blocks need to mark themselves.
    pub fn detour_images(&self) -> Vec<detours::Image<'_>> {
        self.images.iter().map(CoveredImage::for_detours).collect()
    }

    fn has(&self, wanted: &str) -> bool {
        wanted == "all" || self.covered.iter().any(|name| name.contains(wanted))
    }
}

fn file_name(image: &LoadedImage) -> String {
    image.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_wanted(name: &str, also: &[String]) -> bool {
    also.iter().any(|part| part == "all" || name.contains(part.as_str()))
}
