//! The second unsafe fence: guest RAM, on vm-memory, in KVM's memory slots.
//!
//! This is the one path by which the host writes into a guest, and it marks every page that it
//! touched, because KVM's dirty log records the guest's writes only. It never knows what a page
//! means, and never hands out a reference into guest memory: everything is copied or compared
//! here, so that no Rust reference can meet a running guest.
#![allow(unsafe_code)]

mod backing;
mod pagemap;
mod ring;
mod shared;

pub use backing::{Extent, PageFile, PageFileBuilder};
pub use shared::{SharedBytes, map_shared};

use crate::address::{Gpa, PAGE_SIZE, Pfn};
use crate::kvm::{DirtyBitmap, KvmError, Vm};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// One page's bytes.
pub type Page = [u8; PAGE_SIZE];

/// Bytes of a page that is all zeros.
pub const ZERO_PAGE: Page = [0; PAGE_SIZE];

/// The most RAM that one slot may have, in bytes: 1 TiB.
pub const SLOT_BYTES_MAX: u64 = 1 << 40;

/// One memory slot: where the guest sees it and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    /// First guest-physical address; page-aligned.
    pub start: Gpa,
    /// Length in bytes; whole pages.
    pub bytes: u64,
    /// Whether the guest's writes are logged once a snapshot exists. A slot without a log must
    /// only be written by the host, or be restored by whoever owns it.
    pub log_dirty: bool,
}

impl SlotSpec {
    /// Length in pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        (self.bytes as usize) / PAGE_SIZE
    }
}

/// What can go wrong with guest memory on the host's side.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A layout that no VM can have.
    #[error("memory slot at {start} of {bytes} bytes: {problem}")]
    Layout {
        /// First address.
        start: Gpa,
        /// Length.
        bytes: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The host could not map the memory.
    #[error("map {bytes} bytes of guest memory: {source}")]
    Map {
        /// Length.
        bytes: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The memory could not be put together.
    #[error("arrange guest memory: {0}")]
    Arrange(#[from] vm_memory::mmap::FromRangesError),
    /// A page is not where the rewind expects it.
    #[error("page {index} of memory slot {slot} cannot be put back: {problem}")]
    HotPage {
        /// Slot number.
        slot: usize,
        /// Index of the page in the slot.
        index: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// A KVM call failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// An access outside of the guest's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes at guest-physical {at} are not all RAM")]
pub struct OutOfRam {
    /// First address of the access.
    pub at: Gpa,
    /// Its length.
    pub bytes: usize,
}

/// A page of one slot and where its pristine bytes lie in the snapshot's page file.
#[derive(Clone, Copy, Debug)]
pub struct HotPage {
    /// Index of the page in its slot.
    pub index: u32,
    /// Offset of its pristine bytes in the page file's data; `None` is a page of zeros.
    pub source: Option<u64>,
}

impl HotPage {
    /// Whether it lies `n` pages behind `first`, in its slot and in the page file.
    fn follows(&self, first: Self, n: u32) -> bool {
        let offset = u64::from(n) * PAGE_SIZE as u64;
        self.index.checked_sub(first.index) == Some(n)
            && self.source == first.source.map(|source| source.saturating_add(offset))
    }
}

/// Neighbouring pages that are restored by one copy: so few that it does not bypass the cache
/// on its way, as a C library's copy of megabytes does.
const RUN_PAGES_MAX: u32 = 128;

#[derive(Debug)]
struct Slot {
    spec: SlotSpec,
    /// First byte in this process. Belongs to `GuestMemory::ram`.
    host: *mut u8,
    /// Whether KVM logs its writes.
    logged: bool,
    /// Its dirty pages: as KVM's log has them or, with a dirty ring, as the ring told them.
    log: DirtyBitmap,
    /// With a dirty ring: the pages that `log` has, as a list.
    dirty: Vec<u32>,
    /// Pages that the host wrote since the last `clear_touched`: as bits and as a list.
    touched: Vec<u64>,
    touched_list: Vec<u32>,
}

impl Slot {
    fn new(spec: &SlotSpec, host: *mut u8, logged: bool) -> Self {
        Self {
            spec: *spec,
            host,
            logged,
            log: DirtyBitmap::for_pages(spec.pages()),
            dirty: Vec::new(),
            touched: vec![0; spec.pages().div_ceil(64)],
            touched_list: Vec::new(),
        }
    }

    /// Whether it has a page `index`.
    fn has(&self, index: u64) -> bool {
        index < self.spec.pages() as u64
    }
}

/// A guest's RAM.
#[derive(Debug)]
pub struct GuestMemory {
    slots: Vec<Slot>,
    ram: GuestMemoryMmap<()>,
    /// Where the guest's writes come from, if not from KVM's log.
    ring: Option<ring::RingLog>,
    vm: Arc<Vm>,
}

// SAFETY: `host` points into `ram`, which is Send and Sync itself; all access goes through
// `&self` (reads) or `&mut self` (writes).
unsafe impl Send for GuestMemory {}

impl GuestMemory {
    /// Maps zeroed RAM for `layout` and shows it to the guest; slot numbers are the indices.
    ///
    /// # Errors
    /// The layout is not one a VM can have, or the host refuses the mapping or a slot.
    pub fn new(vm: &Arc<Vm>, layout: &[SlotSpec]) -> Result<Self, MemoryError> {
        Self::map(vm, layout, false)
    }

    /// As [`new`](Self::new), and logs the guest's writes from the start in the slots that ask for
    /// it: turning the log on later makes KVM walk all of a slot's pages where it shadows page
    /// tables (`kvm_mmu_slot_remove_write_access`, arch/x86/kvm/mmu/mmu.c).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn logged(vm: &Arc<Vm>, layout: &[SlotSpec]) -> Result<Self, MemoryError> {
        Self::map(vm, layout, true)
    }

    fn map(vm: &Arc<Vm>, layout: &[SlotSpec], log: bool) -> Result<Self, MemoryError> {
        check_layout(layout)?;
        // Opened now, while this process still may: whoever asks later gets what is kept.
        let _ = pagemap::page_map();
        let ranges: Vec<_> =
            layout.iter().map(|s| (GuestAddress(s.start.0), s.bytes as usize)).collect();
        let ram = GuestMemoryMmap::from_ranges(&ranges)?;
        let mut memory = Self { slots: Vec::new(), ram, ring: None, vm: Arc::clone(vm) };
        for (number, spec) in layout.iter().enumerate() {
            let host = memory.ram.get_host_address(GuestAddress(spec.start.0)).map_err(|_| {
                MemoryError::Layout { start: spec.start, bytes: spec.bytes, problem: "not mapped" }
            })?;
            let logged = log && spec.log_dirty;
            // SAFETY: the mapping belongs to `ram`, to which no references exist; `drop` deletes
            // the slots before `ram` is unmapped.
            unsafe { vm.set_memory_region(number as u32, spec.start.0, host, spec.bytes, logged) }?;
            memory.slots.push(Slot::new(spec, host, logged));
        }
        Ok(memory)
    }

    /// Adds a slot of zeroed RAM that is no part of a snapshot, behind all others.
    ///
    /// # Errors
    /// The slot overlaps another one or the host refuses it; nothing has changed then.
    pub fn add_slot(&mut self, spec: SlotSpec) -> Result<usize, MemoryError> {
        check_layout(&[spec])?;
        let refuse =
            |problem| MemoryError::Layout { start: spec.start, bytes: spec.bytes, problem };
        let (start, bytes) = (GuestAddress(spec.start.0), spec.bytes as usize);
        let mapping = MmapRegion::new(bytes).map_err(|error| MemoryError::Map {
            bytes: spec.bytes,
            source: std::io::Error::other(error),
        })?;
        let region =
            GuestRegionMmap::new(mapping, start).ok_or_else(|| refuse("ends past 2^64"))?;
        let ram = self
            .ram
            .insert_region(Arc::new(region))
            .map_err(|_| refuse("overlaps the RAM of another slot"))?;
        let host = ram.get_host_address(start).map_err(|_| refuse("not mapped"))?;
        let number = self.slots.len();
        // SAFETY: as in `new`; the regions that were there before are shared by both collections.
        unsafe {
            self.vm.set_memory_region(number as u32, spec.start.0, host, spec.bytes, false)?;
        }
        self.ram = ram;
        self.slots.push(Slot::new(&spec, host, false));
        Ok(number)
    }

    /// The slots as they were asked for.
    pub fn layout(&self) -> impl Iterator<Item = SlotSpec> + '_ {
        self.slots.iter().map(|slot| slot.spec)
    }

    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The first page of slot `slot`.
    #[must_use]
    pub fn first_page(&self, slot: usize) -> Pfn {
        Pfn::from(self.slots[slot].spec.start)
    }

    /// Replaces the contents by those of `pages`, copy-on-write: nothing is read now. Only for
    /// memory that no guest has run in yet.
    ///
    /// # Errors
    /// The host refuses a mapping, or an extent lies outside of the RAM.
    pub fn map_pages(&mut self, pages: &PageFile) -> Result<(), MemoryError> {
        for extent in pages.extents() {
            let bytes = extent.pages as usize * PAGE_SIZE;
            let at = extent.first.gpa();
            let (slot, offset) = self.locate(at, bytes).map_err(|_| MemoryError::Layout {
                start: at,
                bytes: bytes as u64,
                problem: "the snapshot has pages outside of its own RAM",
            })?;
            // SAFETY: `locate` proved that the range lies inside the slot's mapping, so MAP_FIXED
            // replaces only memory that `ram` owns and that nobody refers to.
            unsafe { pages.map_over(extent, self.slots[slot].host.add(offset)) }
                .map_err(|source| MemoryError::Map { bytes: bytes as u64, source })?;
        }
        Ok(())
    }

    /// Forgets what was written to whole pages: they are again as [`new`](Self::new) or
    /// [`map_pages`](Self::map_pages) made them, and the next access to each faults anew, in the
    /// host's tables and in the guest's second level. A range that begins or ends within a page
    /// loses only its whole pages. For memory without marks on it: none is made or cleared.
    ///
    /// # Errors
    /// The range is not RAM of one slot, or the host refuses.
    pub fn forget(&mut self, at: Gpa, bytes: usize) -> Result<(), MemoryError> {
        let problem = "memory to forget is not RAM";
        let (slot, offset) = self.locate(at, bytes).map_err(|_| MemoryError::Layout {
            start: at,
            bytes: bytes as u64,
            problem,
        })?;
        let first = offset.next_multiple_of(PAGE_SIZE);
        let end = (offset + bytes) / PAGE_SIZE * PAGE_SIZE;
        if first >= end {
            return Ok(());
        }
        // SAFETY: `locate` proved the range to lie inside the slot's private mapping, which stays
        // mapped; nobody refers to its bytes, and the guest does not run.
        let done = unsafe {
            let start = self.slots[slot].host.add(first);
            libc::madvise(start.cast(), end - first, libc::MADV_DONTNEED)
        };
        if done != 0 {
            let source = std::io::Error::last_os_error();
            return Err(MemoryError::Map { bytes: bytes as u64, source });
        }
        Ok(())
    }

    /// The slot and the offset in it of `bytes` bytes at `at`.
    fn locate(&self, at: Gpa, bytes: usize) -> Result<(usize, usize), OutOfRam> {
        let outside = OutOfRam { at, bytes };
        for (number, slot) in self.slots.iter().enumerate() {
            let Some(offset) = at.0.checked_sub(slot.spec.start.0) else { continue };
            if offset < slot.spec.bytes {
                let fits = bytes as u64 <= slot.spec.bytes - offset;
                return if fits { Ok((number, offset as usize)) } else { Err(outside) };
            }
        }
        Err(outside)
    }

    /// Copies `out.len()` bytes at `at` to `out`.
    ///
    /// # Errors
    /// The range is not all RAM of one slot.
    pub fn read(&self, at: Gpa, out: &mut [u8]) -> Result<(), OutOfRam> {
        let (slot, offset) = self.locate(at, out.len())?;
        // SAFETY: `locate` proved the range to lie inside the mapping; the guest does not run, and
        // `out` is not guest memory, because no reference into guest memory is ever handed out.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.slots[slot].host.add(offset),
                out.as_mut_ptr(),
                out.len(),
            );
        }
        Ok(())
    }

    /// The little-endian 64-bit word at `at`.
    ///
    /// # Errors
    /// The word is not RAM.
    pub fn read_u64(&self, at: Gpa) -> Result<u64, OutOfRam> {
        let mut word = [0; 8];
        self.read(at, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Copies `bytes` to `at` and marks the pages as touched.
    ///
    /// # Errors
    /// The range is not all RAM of one slot; nothing was written.
    pub fn write(&mut self, at: Gpa, bytes: &[u8]) -> Result<(), OutOfRam> {
        self.touch(at, bytes.len())?;
        self.write_unmarked(at, bytes)
    }

    /// As [`write`](Self::write), without a mark: for pages whose owner restores them itself (page
    /// tables, the exception stack) and for patches that belong to the machine and not to a run.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_unmarked(&mut self, at: Gpa, bytes: &[u8]) -> Result<(), OutOfRam> {
        let (slot, offset) = self.locate(at, bytes.len())?;
        // SAFETY: `locate` proved the range to lie inside the mapping; the guest does not run
        // (that takes the vCPU, whose owner calls this), and `bytes` is not guest memory,
        // because no reference into guest memory is ever handed out.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.slots[slot].host.add(offset),
                bytes.len(),
            );
        }
        Ok(())
    }

    /// Writes `bytes` zeros at `at` and marks the pages as touched.
    ///
    /// # Errors
    /// The range is not all RAM of one slot; nothing was written.
    pub fn zero(&mut self, at: Gpa, bytes: usize) -> Result<(), OutOfRam> {
        self.touch(at, bytes)?;
        let (slot, offset) = self.locate(at, bytes)?;
        // SAFETY: as `write_unmarked`.
        unsafe { std::ptr::write_bytes(self.slots[slot].host.add(offset), 0, bytes) };
        Ok(())
    }

    /// Marks the pages of a range that something else than [`write`](Self::write) has written: the
    /// CPU, in a slot without dirty log.
    ///
    /// # Errors
    /// The range is not all RAM of one slot.
    pub fn mark(&mut self, at: Gpa, bytes: usize) -> Result<(), OutOfRam> {
        self.touch(at, bytes)
    }

    fn touch(&mut self, at: Gpa, bytes: usize) -> Result<(), OutOfRam> {
        let (slot, offset) = self.locate(at, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        let slot = &mut self.slots[slot];
        for index in offset / PAGE_SIZE..=(offset + bytes - 1) / PAGE_SIZE {
            let (word, bit) = (index / 64, 1 << (index % 64));
            if slot.touched[word] & bit == 0 {
                slot.touched[word] |= bit;
                slot.touched_list.push(index as u32);
            }
        }
        Ok(())
    }

    /// The pages of slot `slot` that the host wrote since the marks were cleared.
    #[must_use]
    pub fn touched(&self, slot: usize) -> &[u32] {
        &self.slots[slot].touched_list
    }

    /// Forgets which pages the host wrote.
    pub fn clear_touched(&mut self) {
        for slot in &mut self.slots {
            for index in slot.touched_list.drain(..) {
                slot.touched[index as usize / 64] = 0;
            }
        }
    }

    /// Starts logging the guest's writes in the slots that asked for it, every page protected.
    /// The VM must have manual protection enabled, or a dirty ring.
    ///
    /// # Errors
    /// KVM refused.
    pub fn start_dirty_log(&mut self) -> Result<(), KvmError> {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.spec.log_dirty && !slot.logged {
                let (at, bytes) = (slot.spec.start.0, slot.spec.bytes);
                // SAFETY: the same mapping as in `new`; only the flags change.
                unsafe { self.vm.set_memory_region(number as u32, at, slot.host, bytes, true) }?;
                slot.logged = true;
            }
        }
        Ok(())
    }

    /// `KVM_GET_DIRTY_LOG` of a slot. Under manual protection a bit stays set, and its page
    /// writable, until [`protect_again`](Self::protect_again).
    ///
    /// # Errors
    /// The slot is not logged, or the VM has a dirty ring instead (ENXIO).
    pub fn dirty_log(&mut self, slot: usize) -> Result<&DirtyBitmap, KvmError> {
        let Slot { spec, log, .. } = &mut self.slots[slot];
        self.vm.get_dirty_log(slot as u32, spec.pages(), log)?;
        Ok(log)
    }

    /// Clears the dirty bits in word `word` of `slot` that are set in `bits` and write-protects
    /// their pages (`KVM_CLEAR_DIRTY_LOG`).
    ///
    /// # Errors
    /// KVM refused.
    pub fn protect_again(&mut self, slot: usize, word: usize, bits: u64) -> Result<(), KvmError> {
        let first = word * 64;
        let pages = self.slots[slot].spec.pages().saturating_sub(first).min(64);
        self.vm.clear_dirty_log(slot as u32, first as u64, pages as u32, &mut [bits])
    }

    /// Copies the pristine bytes of `pages` back into `slot`, without marking them.
    ///
    /// # Errors
    /// A page is not in the slot, or its pristine bytes are not in `pristine`.
    pub fn restore_pages(
        &mut self,
        slot: usize,
        pages: &[HotPage],
        pristine: &PageFile,
    ) -> Result<(), MemoryError> {
        let number = slot;
        let slot = &mut self.slots[slot];
        let total = slot.spec.pages();
        let refuse = |page: HotPage, problem| {
            Err(MemoryError::HotPage { slot: number, index: page.index, problem })
        };
        let mut rest = pages;
        while let Some((&first, others)) = rest.split_first() {
            let more =
                others.iter().zip(1..RUN_PAGES_MAX).take_while(|(page, n)| page.follows(first, *n));
            let count = 1 + more.count();
            rest = &rest[count..];
            if first.index as usize + count > total {
                return refuse(first, "it is not in the slot");
            }
            let bytes = count * PAGE_SIZE;
            let source = match first.source.map(|offset| pristine.bytes_at(offset, bytes)) {
                None => None,
                Some(Some(bytes)) => Some(bytes),
                Some(None) => return refuse(first, "its bytes are not in the snapshot"),
            };
            // SAFETY: the range was checked against the slot; source and destination are different
            // mappings, each of `bytes` bytes; the guest does not run.
            unsafe {
                let to = slot.host.add(first.index as usize * PAGE_SIZE);
                match source {
                    Some(from) => std::ptr::copy_nonoverlapping(from.as_ptr(), to, bytes),
                    None => std::ptr::write_bytes(to, 0, bytes),
                }
            }
        }
        Ok(())
    }

    /// Whether page `index` of `slot` has exactly the bytes of `expected`.
    #[must_use]
    pub fn page_equals(&self, slot: usize, index: usize, expected: &Page) -> bool {
        let slot = &self.slots[slot];
        if index >= slot.spec.pages() {
            return false;
        }
        // SAFETY: the index was checked; the guest does not run, so the bytes do not change
        // while the reference, which does not leave this function, lives.
        let page = unsafe { &*slot.host.add(index * PAGE_SIZE).cast::<Page>() };
        page == expected
    }

    /// A copy of page `index` of `slot`.
    ///
    /// # Errors
    /// The slot has no such page.
    pub fn page_copy(&self, slot: usize, index: usize) -> Result<Box<Page>, OutOfRam> {
        let slot = &self.slots[slot];
        let at = slot.spec.start.wrapping_add(index as u64 * PAGE_SIZE as u64);
        if !slot.has(index as u64) {
            return Err(OutOfRam { at, bytes: PAGE_SIZE });
        }
        let mut copy = Box::new(ZERO_PAGE);
        self.read(at, copy.as_mut_slice())?;
        Ok(copy)
    }

    /// Calls `visit` with the index of each page of `slot` that may differ from what the slot was
    /// mapped with, that is, which this process has ever made present.
    pub fn for_each_present(&self, slot: usize, visit: impl FnMut(usize)) {
        let slot = &self.slots[slot];
        pagemap::for_each_present(slot.host as usize, slot.spec.pages(), visit);
    }

    /// Copies every present, non-zero page into a new page file.
    ///
    /// # Errors
    /// The host has no memory or no descriptor for it.
    pub fn save_pages(&self) -> Result<PageFile, std::io::Error> {
        let mut builder = PageFileBuilder::new()?;
        for number in 0..self.slots() {
            let first = self.first_page(number);
            let mut present = Vec::new();
            self.for_each_present(number, |index| present.push(index));
            for index in present {
                if !self.page_equals(number, index, &ZERO_PAGE) {
                    let page = self.page_copy(number, index).map_err(std::io::Error::other)?;
                    builder.push(Pfn(first.0 + index as u64), &page)?;
                }
            }
        }
        builder.finish()
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        for (number, slot) in self.slots.iter().enumerate() {
            // The VM may outlive this memory; a slot that the kernel keeps would show the guest
            // whatever is mapped there next.
            // SAFETY: deleting a slot gives the kernel no memory.
            let gone = unsafe {
                self.vm.set_memory_region(number as u32, slot.spec.start.0, slot.host, 0, false)
            };
            if let Err(error) = gone {
                tracing::warn!(%error, "a memory slot could not be deleted");
            }
        }
    }
}

/// Whether a VM can have such memory.
pub(crate) fn check_layout(layout: &[SlotSpec]) -> Result<(), MemoryError> {
    let page = PAGE_SIZE as u64;
    let mut end_before = 0;
    for spec in layout {
        let refuse =
            |problem| Err(MemoryError::Layout { start: spec.start, bytes: spec.bytes, problem });
        if spec.bytes == 0 || spec.bytes % page != 0 || spec.start.0 % page != 0 {
            return refuse("not whole pages");
        }
        if spec.bytes > SLOT_BYTES_MAX {
            return refuse("more than 1 TiB");
        }
        if spec.start.0 < end_before {
            return refuse("overlaps the slot before it, or is out of order");
        }
        let Some(end) = spec.start.checked_add(spec.bytes) else {
            return refuse("ends past 2^64");
        };
        end_before = end.0;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(start: u64, bytes: u64) -> SlotSpec {
        SlotSpec { start: Gpa(start), bytes, log_dirty: false }
    }

    #[test]
    fn refuses_layouts_that_no_vm_can_have() {
        for bad in [
            vec![slot(0, 0)],
            vec![slot(1, 4096)],
            vec![slot(0, 4097)],
            vec![slot(0, 8192), slot(4096, 4096)],
            vec![slot(u64::MAX - 4095, 8192)],
            vec![slot(0, SLOT_BYTES_MAX + 4096)],
        ] {
            assert!(check_layout(&bad).is_err(), "{bad:?}");
        }
        assert!(check_layout(&[slot(0, 4096), slot(4096, 4096)]).is_ok());
    }
}
