//! Tests of the process kernel over a plain map of pages in place of page tables.

mod address_space;
mod calls;
mod hostile;
mod loading;
pub(crate) mod mock;
mod observing;
mod rewinding;
mod threads;
