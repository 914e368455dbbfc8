//! Answers for the images of one guest.
//!
//! Never parses an image: each does so when it is first asked.

use super::image::{Images, Loaded};
use super::location::CodeLocation;
use super::names::{NAME_MATCHES, NameError};
use super::stack::Frame;

/// Answers what addresses of one guest mean.
pub struct Symbolizer {
    pub(super) images: Vec<Loaded>,
}

impl Symbolizer {
    /// A symbolizer for these images; the executable comes first. Reads their headers only.
    #[must_use]
    pub fn new(images: Images) -> Self {
        Self { images: images.into_iter().map(Loaded::new).collect() }
    }

    /// Whether there is any image to answer from.
    #[must_use]
    pub fn has_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// What `address` means, as the address of an instruction.
    #[must_use]
    pub fn resolve(&self, address: u64) -> CodeLocation {
        self.image_at(address)
            .map_or(CodeLocation::unknown(address), |image| image.resolve(address))
    }

    /// What a frame's address means. A return address belongs to the call before it, which may
    /// be the last instruction of its function.
    #[must_use]
    pub fn resolve_frame(&self, frame: &Frame) -> CodeLocation {
        let back = u64::from(frame.is_return_address);
        self.resolve(frame.ip.wrapping_sub(back)).moved_by(back)
    }

    /// The runtime address of a function, by its symbol's name as it is in the image, else by
    /// its demangled name, else by the end of a path (`parser::parse` for `my::parser::parse`).
    ///
    /// Earlier images win, and global symbols win over local ones.
    ///
    /// # Errors
    ///
    /// When nothing has the name, or when several functions of one image do.
    pub fn address_of(&self, name: &str) -> Result<u64, NameError> {
        for rule in NAME_MATCHES {
            for image in &self.images {
                if let Some(address) = image.address_of(name, rule)? {
                    return Ok(address);
                }
            }
        }
        Err(NameError::NotFound { name: name.to_owned() })
    }

    pub(super) fn image_at(&self, address: u64) -> Option<&Loaded> {
        self.images.iter().find(|image| image.contains(address))
    }

    pub(super) fn is_code(&self, address: u64) -> bool {
        self.images.iter().any(|image| image.is_code(address))
    }
}
