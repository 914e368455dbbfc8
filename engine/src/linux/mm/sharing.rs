//! Mappings that show the same bytes: frames that more than one page shows, and writable shared
//! mappings of files.
//!
//! A frame belongs to a page of shared bytes (a file's, or an anonymous shared mapping's) for as
//! long as any mapping shows it; it goes with the last one. What a process writes through a shared
//! mapping of a file is copied to the file before each system call that could tell
//! ([`AddressSpace::save_shared`]), and what the call changed in the file is copied to the mapping
//! afterwards. Never decides which mappings there are.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::fs::files::Files;
use crate::linux::fs::tree::{Kind, Node, NodeId};
use crate::linux::mm::address_space::AddressSpace;
use crate::linux::mm::mapping::{file_part, page_prot, pages};
use crate::linux::mm::user_memory::{OutOfFrames, Prot, UserMemory};
use crate::linux::mm::vma::{Backing, Vma, VmaFlags};
use std::ops::Range;

const PAGE: u64 = PAGE_SIZE as u64;

/// The part of `vma` that shows what `shown`, a VMA of the same bytes, shows; and how far its
/// addresses are from the other's.
fn same_bytes(vma: &Vma, shown: &Vma) -> Option<(Vma, u64)> {
    let ((bytes, from), (other, other_from)) = (vma.shares()?, shown.shares()?);
    if bytes != other {
        return None;
    }
    let first = from.max(other_from);
    let end = from.saturating_add(vma.bytes()).min(other_from.saturating_add(shown.bytes()));
    if first >= end {
        return None;
    }
    let start = vma.start + (first - from);
    let distance = (shown.start + (first - other_from)).wrapping_sub(start);
    Some((vma.part(start, start + (end - first)), distance))
}

impl AddressSpace {
    /// Has the absent pages of `vma` show the frames of other mappings of the same bytes.
    pub(crate) fn share_frames(
        &self,
        vma: &Vma,
        prot: Prot,
        mem: &mut dyn UserMemory,
    ) -> Result<(), OutOfFrames> {
        if vma.shares().is_none() || prot.is_empty() {
            return Ok(());
        }
        let others = self.vmas().iter().filter_map(|other| same_bytes(other, vma));
        others.filter(|(_, distance)| *distance != 0).try_for_each(|(other, distance)| {
            each_page(&other, mem, |at, mem| {
                let target = Gva(at.0.wrapping_add(distance));
                if is_absent(target, mem) { mem.alias(at, target, prot) } else { Ok(()) }
            })
        })
    }

    /// Before `part` is unmapped with all of `gone`: frames that other mappings show, or could
    /// show, are theirs.
    pub(crate) fn leave_to_others(&self, part: &Vma, gone: Range<u64>, mem: &mut dyn UserMemory) {
        if part.shares().is_none() {
            return;
        }
        for vma in self.vmas() {
            for rest in [vma.part(vma.start, gone.start), vma.part(gone.end, vma.end)] {
                let Some((ours, distance)) = same_bytes(part, &rest) else { continue };
                // No frame is needed for a page table only: the rest of the mapping has them.
                let _ = each_page(&ours, mem, |at, mem| {
                    let target = Gva(at.0.wrapping_add(distance));
                    if is_absent(target, mem) {
                        mem.alias(at, target, page_prot(rest.prot))?;
                    }
                    mem.forget(at);
                    Ok(())
                });
            }
        }
    }
}

fn is_absent(at: Gva, mem: &dyn UserMemory) -> bool {
    mem.next_mapped(at, at.wrapping_add(PAGE)).is_none()
}

/// Calls `visit` for each page of `vma` that has a frame.
fn each_page(
    vma: &Vma,
    mem: &mut dyn UserMemory,
    mut visit: impl FnMut(Gva, &mut dyn UserMemory) -> Result<(), OutOfFrames>,
) -> Result<(), OutOfFrames> {
    let mut at = Gva(vma.start);
    while let Some(page) = mem.next_mapped(at, Gva(vma.end)) {
        visit(page, mem)?;
        at = page.wrapping_add(PAGE);
    }
    Ok(())
}

/// A guest's own file that `vma` shows, and where from.
fn own_file(vma: &Vma, files: &Files) -> Option<(NodeId, u64)> {
    let Backing::File { node, offset } = vma.backing else { return None };
    let is_own = matches!(files.tree.node(node)?.kind, Kind::File(_));
    (vma.is(VmaFlags::SHARED) && is_own).then_some((node, offset))
}

impl AddressSpace {
    /// Copies what the process wrote through shared mappings to the files.
    pub(crate) fn save_shared(&mut self, files: &mut Files, mem: &mut dyn UserMemory) {
        let mut any = false;
        for vma in self.vmas() {
            let Some((node, offset)) = own_file(vma, files) else { continue };
            any = true;
            if !vma.is(VmaFlags::MAY_WRITE) {
                continue;
            }
            // Never fails: the visit does not.
            let _ = each_page(vma, mem, |at, mem| {
                save_page(files, node, offset.saturating_add(at.0 - vma.start), at, mem);
                Ok(())
            });
        }
        if !any {
            self.shows_files = false;
        }
    }

    /// Copies what a system call changed in files to shared mappings of them.
    pub(crate) fn show_shared(&self, files: &Files, mem: &mut dyn UserMemory) {
        for vma in self.vmas() {
            let Some((node, offset)) = own_file(vma, files) else { continue };
            let backed_end = vma.backed_end(files);
            let _ = each_page(vma, mem, |at, mem| {
                let from = offset.saturating_add(at.0 - vma.start);
                let theirs = file_part(files.content(node), from, PAGE);
                let mut ours = [0; PAGE_SIZE];
                if mem.peek(at, &mut ours).is_ok() && !ours.starts_with(theirs) {
                    // The page has a frame.
                    let _ = mem.populate(at, theirs);
                }
                Ok(())
            });
            // What was cut off the file is gone.
            let (start, end) = (backed_end.max(vma.start), vma.end);
            if start < end && mem.next_mapped(Gva(start), Gva(end)).is_some() {
                let cut = vma.part(start, end);
                self.drop_everywhere(&cut, mem);
            }
        }
    }
}

impl AddressSpace {
    /// Makes the pages of shared bytes that `part` shows absent in every mapping.
    fn drop_everywhere(&self, part: &Vma, mem: &mut dyn UserMemory) {
        for (other, distance) in self.vmas().iter().filter_map(|other| same_bytes(other, part)) {
            let _ = each_page(&other, mem, |at, mem| {
                if distance != 0 && !is_absent(Gva(at.0.wrapping_add(distance)), mem) {
                    mem.forget(at);
                }
                Ok(())
            });
        }
        mem.unmap(pages(part.start, part.end));
    }
}

/// Copies a page that was written to into its file, as far as the file goes.
fn save_page(files: &mut Files, node: NodeId, offset: u64, at: Gva, mem: &mut dyn UserMemory) {
    let mut page = [0; PAGE_SIZE];
    let theirs = file_part(files.content(node), offset, PAGE);
    let Some(ours) = page.get_mut(..theirs.len()) else { return };
    if mem.peek(at, ours).is_err() || ours == theirs {
        return;
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    if let Some(Node { kind: Kind::File(bytes), .. }) = files.tree.node_mut(node)
        && let Some(out) = start.checked_add(ours.len()).and_then(|end| bytes.0.get_mut(start..end))
    {
        out.copy_from_slice(ours);
    }
}
