//! A guest's RAM in KVM's memory slots: mapped, shown to the guest, read and written.
//!
//! Never hands out a reference into it, and marks every page that it writes, except through the
//! calls that say they do not.

use super::backing::PageFile;
use super::error::{MemoryError, OutOfRam};
use super::layout::{SlotSpec, check_layout};
use super::pagemap;
use super::ring::RingLog;
use crate::address::{Gpa, PAGE_SIZE, Pfn};
use crate::kvm::{DirtyBitmap, Vm};
use crate::text::ErrorChain;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// One slot, and what is known of the writes to it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) spec: SlotSpec,
    /// First byte in this process. Belongs to `GuestMemory::ram`.
    pub(super) host: *mut u8,
    /// Whether KVM logs its writes.
    pub(super) logged: bool,
    /// Its dirty pages: from KVM's log or, with a dirty ring, from the ring.
    pub(super) log: DirtyBitmap,
    /// With a dirty ring: the pages that `log` has, as a list.
    pub(super) dirty: Vec<u32>,
    /// Pages that the host wrote since the last `clear_touched`: as bits and as a list.
    pub(super) touched: Vec<u64>,
    pub(super) touched_list: Vec<u32>,
}

impl Slot {
    pub(super) fn new(spec: &SlotSpec, host: *mut u8, logged: bool) -> Self {
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
    pub(super) fn has(&self, index: u64) -> bool {
        index < self.spec.pages() as u64
    }
}

/// A guest's RAM.
#[derive(Debug)]
pub struct GuestMemory {
    pub(super) slots: Vec<Slot>,
    pub(super) ram: GuestMemoryMmap<()>,
    /// Where the guest's writes come from, if not from KVM's log.
    pub(super) ring: Option<RingLog>,
    pub(super) vm: Arc<Vm>,
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

    /// Adds a slot of zeroed RAM that is not part of a snapshot, after all others.
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
    pub(super) fn locate(&self, at: Gpa, bytes: usize) -> Result<(usize, usize), OutOfRam> {
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
                let error = ErrorChain(&error).to_string();
                tracing::warn!(error, "a memory slot could not be deleted");
            }
        }
    }
}
