//! One loaded image and what was parsed of it so far.
//!
//! Works in runtime addresses outwards and in link-time addresses inwards; nothing else in
//! `symbols` converts between the two. Never parses anything twice.

use super::elf::Layout;
use super::frames::CallFrames;
use super::lines::Lines;
use super::location::{CodeLocation, InFunction, InImage};
use super::names::{NameError, NameMatch, Symbols};
use crate::memory::SharedBytes;
use crate::text::one_line;
use std::cell::OnceCell;

/// An ELF image as a guest has loaded it.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its path in the guest.
    pub name: String,
    /// What the loader added to the image's own addresses.
    pub bias: u64,
    /// The whole file.
    pub bytes: SharedBytes,
}

/// The images of a guest, the executable first.
pub type Images = Vec<Image>;

/// An image with its lazily parsed parts.
pub(super) struct Loaded {
    image: Image,
    /// Absent when the file is not x86-64 ELF; such an image contains no address.
    layout: Option<Layout>,
    symbols: OnceCell<Symbols>,
    frames: OnceCell<CallFrames>,
    lines: OnceCell<Lines>,
}

impl Loaded {
    pub(super) fn new(mut image: Image) -> Self {
        image.name = one_line(&image.name);
        let layout = Layout::parse(&image.bytes).ok();
        let (symbols, frames, lines) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { image, layout, symbols, frames, lines }
    }

    pub(super) fn contains(&self, address: u64) -> bool {
        self.layout.as_ref().is_some_and(|layout| layout.contains(self.link_time(address)))
    }

    pub(super) fn is_code(&self, address: u64) -> bool {
        self.layout.as_ref().is_some_and(|layout| layout.is_code(self.link_time(address)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.image.bytes
    }

    /// Bytes of the file from a runtime address to the end of its segment.
    pub(super) fn bytes_at(&self, address: u64) -> &[u8] {
        let at = self.link_time(address);
        self.layout.as_ref().map_or(&[], |layout| layout.bytes_at(&self.image.bytes, at))
    }

    pub(super) fn link_time(&self, address: u64) -> u64 {
        address.wrapping_sub(self.image.bias)
    }

    pub(super) fn runtime(&self, address: u64) -> u64 {
        address.wrapping_add(self.image.bias)
    }

    pub(super) fn frames(&self) -> Option<&CallFrames> {
        let layout = self.layout.as_ref()?;
        Some(self.frames.get_or_init(|| CallFrames::parse(layout, &self.image.bytes)))
    }

    fn symbols(&self) -> Option<&Symbols> {
        let layout = self.layout.as_ref()?;
        Some(self.symbols.get_or_init(|| Symbols::parse(layout, &self.image.bytes)))
    }

    pub(super) fn resolve(&self, address: u64) -> CodeLocation {
        let offset = self.link_time(address);
        let (name, bias) = (self.image.name.clone(), self.image.bias);
        let lines = self.layout.as_ref().map(|layout| {
            self.lines.get_or_init(|| Lines::new(layout, &self.image.bytes)).find(offset)
        });
        CodeLocation {
            address,
            image: Some(InImage { name, bias, offset }),
            function: self.function(address),
            source: lines.unwrap_or_default(),
        }
    }

    /// The function at a runtime address, from the symbol tables.
    pub(super) fn function(&self, address: u64) -> Option<InFunction> {
        let at = self.link_time(address);
        let symbol = self.symbols()?.covering(at)?;
        let raw = self.image.bytes.get(symbol.name.clone()).filter(|name| !name.is_empty())?;
        let name = String::from_utf8_lossy(raw).into_owned();
        let offset = at.wrapping_sub(symbol.address);
        Some(InFunction { name: one_line(&super::names::demangle(&name)), symbol: name, offset })
    }

    /// The runtime address at which the function that covers `address` starts, from symbols or
    /// frame entries.
    pub(super) fn function_start(&self, address: u64) -> Option<u64> {
        let at = self.link_time(address);
        let symbol = self.symbols().and_then(|symbols| symbols.covering(at)).map(|s| s.address);
        let frame = || Some(self.frames()?.covering(at)?.code.start);
        symbol.or_else(frame).map(|start| self.runtime(start))
    }

    pub(super) fn address_of(&self, name: &str, rule: NameMatch) -> Result<Option<u64>, NameError> {
        let Some(symbols) = self.symbols() else { return Ok(None) };
        let found = symbols.find(&self.image.bytes, name, rule)?;
        Ok(found.map(|address| self.runtime(address)))
    }
}
