//! By what a snapshot file is known, before anything else of it is read.

/// First bytes of every snapshot file. The line ending shows a transfer that translated it.
pub const MAGIC: [u8; 8] = *b"DEJAVM\r\n";
/// The format's version; any change of the layout or of a section's contents raises it. `shapes/`
/// has the contents of this version, and a test fails where the types differ from them.
pub const VERSION: u32 = 5;
