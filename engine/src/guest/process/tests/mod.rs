//! Tests of the process kernel over a plain map of pages in place of page tables.

mod loading;
mod mock;
