//! Which pages are whose, and where in them a block lies.
//!
//! ```text
//! table of blocks | pool: [pages][faults] [pages][faults] ... | ring: [pages][faults][pages] ...
//! ```
//!
//! Everything lies in one range of addresses that is set aside at the first call. The slots of the
//! *pools* are opened then, so that a block of few pages takes no system call; each is used once.
//! Behind them the *ring* takes what is left: two calls for each block. What is freed faults, and is
//! used again, the oldest first, only when all of the range has been used. Where there are very many
//! blocks at once, which the kernel's limit on mappings does not allow to be kept apart, the pages
//! that fault between them are left out, and only the pattern around a block is there.
//!
//! Never says what is wrong in words, and never ends a program.

use crate::report::Mistake;
use crate::sys::{self, PAGE};
use core::ptr::null_mut;

/// What `malloc` promises (System V ABI).
pub const LEAST_ALIGN: usize = 16;

/// Pages for blocks: 16 GiB.
const PAGES: usize = 4 << 20;
/// The most that one block can have.
const BLOCK_BYTES_MAX: usize = PAGES / 2 * PAGE;
/// What the bytes around a block hold.
const PATTERN: u8 = 0xa7;
/// How many of them are looked at before a block.
const BEFORE: usize = 32;
/// Blocks of the ring that are followed by a page that faults: each takes two mappings, of which
/// Linux allows 65,530.
const APART_MAX: usize = 24_000;
/// Blocks that are looked at for one that can be used again.
const AGAIN_MAX: usize = 4096;

/// Slots of one size.
#[derive(Clone, Copy)]
struct Pool {
    /// Pages of a slot that do not fault.
    pages: usize,
    slots: usize,
    used: usize,
}

const fn pool(pages: usize, slots: usize) -> Pool {
    Pool { pages, slots, used: 0 }
}

/// 17.5 MiB in all.
const POOLS: [Pool; 4] = [pool(1, 3072), pool(2, 256), pool(4, 128), pool(16, 24)];

/// What becomes of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum State {
    /// There is none. The table starts as zeros.
    None = 0,
    Live = 1,
    Freed = 2,
}

/// A block, in the row of the page that its address lies in.
#[derive(Clone, Copy)]
struct Row {
    block: usize,
    size: usize,
    /// The first page of the block's own, and how many there are that do not fault.
    first: u32,
    pages: u32,
    /// All of its pages.
    pages_all: u32,
    /// The row of the next block to be used again; 0 is none, because page 0 is no block's.
    next: u32,
    state: State,
    in_pool: bool,
}

/// Where a block is to be.
struct Place {
    first: usize,
    pages: usize,
    pages_all: usize,
    in_pool: bool,
}

/// The heap.
pub struct Heap {
    /// Address of page 0; 0 before the first call, and 1 if there is none to be had.
    start: usize,
    /// Address of the table.
    table: usize,
    pools: [Pool; POOLS.len()],
    /// The first page of the ring, and the first that was never used.
    ring: usize,
    fresh: usize,
    /// Rows of the first and the last block to be used again.
    oldest: u32,
    newest: u32,
    /// Live blocks of the ring that a page follows which faults.
    apart: usize,
}

const NOT_STARTED: usize = 0;
const NO_ADDRESSES: usize = 1;

impl Heap {
    /// One that has not asked for anything yet.
    pub const fn new() -> Self {
        Self {
            start: NOT_STARTED,
            table: 0,
            pools: POOLS,
            ring: 0,
            fresh: 0,
            oldest: 0,
            newest: 0,
            apart: 0,
        }
    }

    /// Sets the addresses aside, and opens the pools' slots, if that was not done yet.
    pub fn begin(&mut self) {
        if self.start != NOT_STARTED {
            return;
        }
        let table_bytes = (PAGES * size_of::<Row>()).next_multiple_of(PAGE);
        // A page that faults stands between the table and the blocks.
        self.start = NO_ADDRESSES;
        let Some(table) = sys::reserve(table_bytes + PAGE + PAGES * PAGE) else { return };
        // SAFETY: nothing refers to what was just set aside.
        if !unsafe { sys::open(table, table_bytes) } {
            return;
        }
        (self.table, self.start) = (table, table + table_bytes + PAGE);
        let mut at = 1;
        for pool in 0..self.pools.len() {
            for slot in 0..self.pools[pool].slots {
                let pages = self.pools[pool].pages;
                // SAFETY: likewise.
                if !unsafe { sys::open(self.address(at), pages * PAGE) } {
                    self.pools[pool].slots = slot;
                    break;
                }
                at += pages + 1;
            }
        }
        (self.ring, self.fresh) = (at, at);
        // Its rows' pages are there from now on, and so are as many of the ring's.
        for row in (0..2 * at).step_by(PAGE / size_of::<Row>()) {
            // SAFETY: a row of the table.
            unsafe { self.row_at(row).write_volatile(NO_ROW) };
        }
    }

    fn address(&self, page: usize) -> usize {
        self.start + page * PAGE
    }

    /// The page that `address` lies in, if it is one for blocks.
    fn page_of(&self, address: usize) -> Option<usize> {
        let page = address.checked_sub(self.start)? / PAGE;
        (self.start > NO_ADDRESSES && page < PAGES).then_some(page)
    }

    fn row_at(&self, page: usize) -> *mut Row {
        (self.table + page * size_of::<Row>()) as *mut Row
    }

    fn row(&self, page: usize) -> Row {
        // SAFETY: `page` is below `PAGES`, so that it is a row of the table, which starts as zeros:
        // those are a row with no block.
        unsafe { self.row_at(page).read() }
    }

    fn set_row(&mut self, page: usize, row: Row) {
        // SAFETY: as in `row`.
        unsafe { self.row_at(page).write(row) }
    }

    /// A block of zeros; null if there is no more memory. `align` is a power of two.
    pub fn allocate(&mut self, size: usize, align: usize) -> *mut u8 {
        self.begin();
        if self.start == NO_ADDRESSES || size > BLOCK_BYTES_MAX || align > BLOCK_BYTES_MAX {
            return null_mut();
        }
        let align = if align < LEAST_ALIGN { LEAST_ALIGN } else { align };
        let Some(place) = self.place(size.div_ceil(PAGE), align) else { return null_mut() };
        let end = self.address(place.first + place.pages);
        // At its end as far as it can be. A larger alignment than a page's is the first page's.
        let block =
            if align > PAGE { self.address(place.first) } else { (end - size) & !(align - 1) };
        let row = Row {
            block,
            size,
            first: place.first as u32,
            pages: place.pages as u32,
            pages_all: place.pages_all as u32,
            next: 0,
            state: State::Live,
            in_pool: place.in_pool,
        };
        self.set_row((block - self.start) / PAGE, row);
        self.surround(&row);
        block as *mut u8
    }

    /// Pages for a block of `pages` pages.
    fn place(&mut self, pages: usize, align: usize) -> Option<Place> {
        if pages > 0 && align <= PAGE {
            if let Some(place) = self.in_pool(pages) {
                return Some(place);
            }
        }
        // A block of no bytes is a page that faults.
        let is_apart = pages == 0 || self.apart < APART_MAX;
        let pages_all = pages + usize::from(is_apart);
        let place = self
            .in_ring(pages, pages_all, align)
            .or_else(|| self.again(pages, pages_all, align))?;
        // SAFETY: nothing refers to these: they are new, or freed.
        if pages > 0 && !unsafe { sys::open(self.address(place.first), pages * PAGE) } {
            return None;
        }
        self.apart += usize::from(is_apart);
        Some(place)
    }

    /// A slot that holds `pages` pages, and not too many more.
    fn in_pool(&mut self, pages: usize) -> Option<Place> {
        let mut start = 1;
        for pool in &mut self.pools {
            let stride = pool.pages + 1;
            if pages <= pool.pages && pool.used < pool.slots && pool.pages < 4 * pages {
                let first = start + pool.used * stride;
                pool.used += 1;
                let (pages, pages_all) = (pool.pages, stride);
                return Some(Place { first, pages, pages_all, in_pool: true });
            }
            start += pool.slots * stride;
        }
        None
    }

    /// Pages of the ring that were never used.
    fn in_ring(&mut self, pages: usize, pages_all: usize, align: usize) -> Option<Place> {
        let at = self.address(self.fresh);
        let aligned = at.checked_next_multiple_of(if align < PAGE { PAGE } else { align })?;
        let first = self.fresh + (aligned - at) / PAGE;
        let end = first.checked_add(pages_all).filter(|end| *end <= PAGES)?;
        self.fresh = end;
        Some(Place { first, pages, pages_all, in_pool: false })
    }

    /// Pages of the oldest freed block that is large enough.
    fn again(&mut self, pages: usize, pages_all: usize, align: usize) -> Option<Place> {
        let (mut before, mut at) = (0, self.oldest);
        for _ in 0..AGAIN_MAX {
            if at == 0 {
                return None;
            }
            let row = self.row(at as usize);
            let is_aligned = self.address(row.first as usize) % align == 0 || align <= PAGE;
            if row.pages_all as usize >= pages_all && is_aligned {
                self.unlink(before, at, row.next);
                self.set_row(at as usize, NO_ROW);
                let (first, pages_all) = (row.first as usize, row.pages_all as usize);
                return Some(Place { first, pages, pages_all, in_pool: false });
            }
            (before, at) = (at, row.next);
        }
        None
    }

    /// Takes the row `at` out of the list, where it stands between `before` and `next`.
    fn unlink(&mut self, before: u32, at: u32, next: u32) {
        if before == 0 {
            self.oldest = next;
        } else {
            let row = self.row(before as usize);
            self.set_row(before as usize, Row { next, ..row });
        }
        if self.newest == at {
            self.newest = before;
        }
    }

    /// Frees a block.
    pub fn free(&mut self, block: *mut u8) -> Result<(), Mistake> {
        let (page, row) = self.live(block as usize)?;
        self.check(&row)?;
        self.set_row(page, Row { state: State::Freed, ..row });
        if row.in_pool {
            // Few enough to keep their memory, and a rewound machine has nothing to bring back.
            // SAFETY: the pages of a block that was just freed.
            unsafe { sys::hide(self.address(row.first as usize), row.pages as usize * PAGE) };
            return Ok(());
        }
        let (first, bytes) = (self.address(row.first as usize), row.pages as usize * PAGE);
        let is_apart = row.pages < row.pages_all;
        self.apart -= usize::from(is_apart).min(self.apart);
        // SAFETY: likewise. Where it fails, for too many mappings, the pages are not used again.
        let is_gone = match (row.pages, is_apart) {
            (0, _) => true,
            (_, true) => unsafe { sys::close(first, bytes) },
            // Among its neighbours, a page that faults would be two mappings more.
            (_, false) => unsafe { sys::discard(first, bytes) },
        };
        if is_gone {
            self.link(page as u32);
        }
        Ok(())
    }

    /// Adds a freed block to those that may be used again.
    fn link(&mut self, page: u32) {
        if self.newest == 0 {
            self.oldest = page;
        } else {
            let row = self.row(self.newest as usize);
            self.set_row(self.newest as usize, Row { next: page, ..row });
        }
        self.newest = page;
    }

    /// Makes a block larger or smaller: it is another one afterwards, unless it ends in the same 16
    /// bytes. Null, the block being as it was, if there is no memory.
    pub fn resize(&mut self, block: *mut u8, size: usize) -> Result<*mut u8, Mistake> {
        let (page, row) = self.live(block as usize)?;
        self.check(&row)?;
        let end = self.address((row.first + row.pages) as usize);
        if size <= end - row.block && (end - size) & !(LEAST_ALIGN - 1) == row.block {
            let row = Row { size, ..row };
            self.set_row(page, row);
            self.surround(&row);
            return Ok(block);
        }
        let moved = self.allocate(size, LEAST_ALIGN);
        if !moved.is_null() {
            // SAFETY: two blocks, of which both have so many bytes.
            unsafe { sys::copy(block, moved, if size < row.size { size } else { row.size }) };
            self.free(block)?;
        }
        Ok(moved)
    }

    /// How many bytes a block has.
    pub fn size_of(&self, block: *mut u8) -> Result<usize, Mistake> {
        self.live(block as usize).map(|(_, row)| row.size)
    }

    /// The row of a block, and its page.
    fn live(&self, block: usize) -> Result<(usize, Row), Mistake> {
        let invalid = Mistake::InvalidFree { block };
        let Some(page) = self.page_of(block) else { return Err(invalid) };
        let row = self.row(page);
        match row.state {
            State::Live if row.block == block => Ok((page, row)),
            State::Freed if row.block == block => {
                Err(Mistake::DoubleFree { block, size: row.size })
            }
            State::None | State::Live | State::Freed => Err(invalid),
        }
    }

    /// Where the bytes are that surround a block and that it does not have: before and after.
    fn around(&self, row: &Row) -> [(usize, usize); 2] {
        let start = self.address(row.first as usize);
        let end = self.address((row.first + row.pages) as usize);
        let before = if row.block - start < BEFORE { row.block - start } else { BEFORE };
        [(row.block - before, row.block), (row.block + row.size, end)]
    }

    /// Fills the bytes around a block with the pattern.
    fn surround(&self, row: &Row) {
        for (from, to) in self.around(row) {
            // SAFETY: the block's own pages, which do not fault.
            unsafe { sys::fill(from as *mut u8, PATTERN, to - from) };
        }
    }

    /// Whether the pattern is still there.
    fn check(&self, row: &Row) -> Result<(), Mistake> {
        let is_whole = |(from, to): (usize, usize)| {
            // SAFETY: likewise.
            (from..to).all(|at| unsafe { (at as *const u8).read_volatile() } == PATTERN)
        };
        let [before, after] = self.around(row);
        let (block, size) = (row.block, row.size);
        if !is_whole(after) {
            return Err(Mistake::Overflow { block, size });
        }
        if is_whole(before) { Ok(()) } else { Err(Mistake::Underflow { block, size }) }
    }

    /// Looks at the bytes around every block that is there.
    pub fn check_all(&self) -> Result<(), Mistake> {
        if self.start <= NO_ADDRESSES {
            return Ok(());
        }
        let mut start = 1;
        for pool in &self.pools {
            let stride = pool.pages + 1;
            self.check_pages(start, start + pool.used * stride)?;
            start += pool.slots * stride;
        }
        self.check_pages(self.ring, self.fresh)
    }

    fn check_pages(&self, from: usize, to: usize) -> Result<(), Mistake> {
        let mut page = from;
        while page < to {
            let row = self.row(page);
            match row.state {
                State::None => page += 1,
                State::Live => {
                    self.check(&row)?;
                    page = (row.first + row.pages_all) as usize;
                }
                State::Freed => page = (row.first + row.pages_all) as usize,
            }
        }
        Ok(())
    }
}

const NO_ROW: Row = Row {
    block: 0,
    size: 0,
    first: 0,
    pages: 0,
    pages_all: 0,
    next: 0,
    state: State::None,
    in_pool: false,
};
