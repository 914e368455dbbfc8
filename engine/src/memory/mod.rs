//! The second unsafe fence: guest RAM, on vm-memory, in KVM's memory slots.
//!
//! This is the one path by which the host writes into a guest, and it marks every page that it
//! touched, because KVM's dirty log records the guest's writes only. It never knows what a page
//! means, and never hands out a reference into guest memory: everything is copied or compared
//! here, so that no Rust reference can meet a running guest.
#![allow(unsafe_code)]

mod backing;
mod dirty;
mod error;
mod guest;
mod layout;
mod marks;
mod page;
mod pagemap;
mod pages;
mod ring;
mod shared;

pub use backing::{Extent, PageFile, PageFileBuilder};
pub use error::{MemoryError, OutOfRam};
pub use guest::GuestMemory;
pub(crate) use layout::check_layout;
pub use layout::{SLOT_BYTES_MAX, SlotSpec};
pub use page::{Page, ZERO_PAGE};
pub use pages::HotPage;
pub use shared::{SharedBytes, map_shared};
