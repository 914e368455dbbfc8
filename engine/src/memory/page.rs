//! One page of a guest's memory. Never knows whose it is.

use crate::address::PAGE_SIZE;

/// One page's bytes.
pub type Page = [u8; PAGE_SIZE];

/// Bytes of a page that is all zeros.
pub const ZERO_PAGE: Page = [0; PAGE_SIZE];
