//! What a rewind is measured beside: copies of as many pages, from one buffer to another.

use dejavm_engine::address::PAGE_SIZE;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Pages, and where they are copied to.
pub struct Copies {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Copies {
    /// Copies of `pages` pages.
    pub fn new(pages: usize) -> Self {
        let from = vec![1; pages * PAGE_SIZE];
        Self { to: from.clone(), from }
    }

    /// Copies all of them `count` times, and gives the time.
    pub fn make(&mut self, count: u32) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            self.to.copy_from_slice(black_box(&self.from));
            black_box(&mut self.to);
        }
        start.elapsed()
    }
}
