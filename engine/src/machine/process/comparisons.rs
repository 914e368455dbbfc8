//! A process's driver in runs whose comparisons are logged.
//!
//! Such a run goes through detours of another purpose, which take the place of those that mark
//! blocks while it lasts. Never judges what was compared.

use super::cpu::ProgramCpu;
use super::driver::{CallContext, ProcessDriver};
use super::gp_as_ud::{Operands, value};
use super::logging::LoggedComparisons;
use crate::address::{Gva, PAGE_SIZE};
use crate::arch::INSTRUCTION_BYTES_MAX;
use crate::coverage::blocks::Blocks;
use crate::coverage::comparisons::{self, Compared, StringFunction, evaluate, find, functions};
use crate::coverage::detours::Image;
use crate::guest::process::detours::{DetourCounts, Hooked, Purpose};
use crate::guest::process::pages::ProcessPages;
use crate::linux::cpu::Cpu as _;
use crate::linux::mm::user_memory::UserMemory as _;
use crate::machine::error::MachineError;
use crate::machine::guest_state::MachineSnapshot;
use crate::machine::hardware::Hardware;
use kvm_bindings::kvm_regs;

impl ProcessDriver {
    /// Has the comparisons of `images` log themselves; how many do, and how many have breakpoints.
    pub(in crate::machine) fn install_comparisons(
        &mut self,
        hw: &mut Hardware,
        snapshot: &MachineSnapshot,
        images: &[Image<'_>],
    ) -> Result<DetourCounts, MachineError> {
        self.comparisons = None;
        let mut sites = Vec::new();
        let mut found = Vec::new();
        for image in images {
            let comparisons = find(image.elf, &image.blocks.code);
            let starts = comparisons.iter().map(|comparison| comparison.at).collect();
            let blocks = Blocks { starts, code: image.blocks.code.clone(), ..Blocks::default() };
            found.push((blocks, sites.len() as u32));
            sites.extend(comparisons);
        }
        let mut parts = Vec::with_capacity(images.len());
        for (image, (blocks, first)) in images.iter().zip(&found) {
            parts.push(Image { elf: image.elf, blocks, base: image.base, first: *first });
        }
        let functions = self.string_functions(hw);
        let detours = self.new_detours(hw, snapshot, &parts, Purpose::Comparisons, &functions)?;
        let counts = detours.counts.clone();
        self.comparisons = Some(Box::new(LoggedComparisons { detours: Some(detours), sites }));
        Ok(counts)
    }

    /// The functions that compare strings, of all images.
    fn string_functions(&mut self, hw: &mut Hardware) -> Vec<(u64, StringFunction)> {
        let images = self.state.process.images();
        let images: Vec<_> = images.iter().map(|image| (&image.bytes[..], image.base)).collect();
        let CallContext { tables, memory, .. } = self.split(hw);
        let pages = ProcessPages { memory, tables };
        functions(&images, &|at, length| readable(&pages, at, length))
    }

    /// Has the next run log its comparisons, until it is undone; false where it cannot.
    pub(in crate::machine) fn enter_comparisons(
        &mut self,
        hw: &mut Hardware,
    ) -> Result<bool, MachineError> {
        let Some(comparisons) = &mut self.comparisons else { return Ok(false) };
        std::mem::swap(&mut self.detours, &mut comparisons.detours);
        self.is_logging = true;
        let is_entered = self.enter_detours(hw)?;
        if !is_entered {
            self.leave_comparisons();
        }
        Ok(is_entered)
    }

    /// Gives the place of detours back to those that mark blocks.
    pub(super) fn leave_comparisons(&mut self) {
        if let Some(comparisons) = self.comparisons.as_mut().filter(|_| self.is_logging) {
            std::mem::swap(&mut self.detours, &mut comparisons.detours);
            self.is_logging = false;
        }
    }

    /// What the run compared: by instructions in the order of their first time, and then by
    /// functions, and where breakpoints were needed.
    pub(in crate::machine) fn read_comparisons(
        &mut self,
        hw: &Hardware,
    ) -> Result<Vec<Compared>, MachineError> {
        let (Some(detours), Some(comparisons)) = (&self.detours, &self.comparisons) else {
            return Ok(Vec::new());
        };
        let compared = |(number, logged): (u32, comparisons::Logged)| {
            let site = comparisons.sites.get(number as usize)?;
            let (left, right) = site.operands(&logged)?;
            Some(Compared { site: number, kind: site.kind, left, right })
        };
        let mut found: Vec<_> =
            detours.read_log(&hw.memory)?.into_iter().filter_map(compared).collect();
        found.append(&mut self.logged);
        Ok(found)
    }

    /// Logs the comparison at `here`, whose breakpoint was just hit.
    pub(super) fn log_comparison(
        &mut self,
        hw: &mut Hardware,
        number: u32,
        here: &kvm_regs,
    ) -> Result<(), MachineError> {
        let cpu = ProgramCpu::new(&mut hw.vcpu, &self.extended, None);
        let bases = cpu.bases();
        cpu.finish()?;
        let state = Operands { regs: here, bases, features: 0 };
        let register = |register| value(register, &state).unwrap_or_default();
        let CallContext { tables, memory, .. } = self.split(hw);
        let pages = ProcessPages { memory, tables };
        let read = |at: u64, out: &mut [u8]| pages.read(Gva(at), out).is_ok();
        let bytes = readable(&pages, here.rip, INSTRUCTION_BYTES_MAX);
        let operands = evaluate(&bytes, here.rip, &register, &read);
        let site = self.comparisons.as_ref().and_then(|c| c.sites.get(number as usize));
        if let (Some((left, right)), Some(site)) = (operands, site) {
            self.logged.push(Compared { site: number, kind: site.kind, left, right });
        }
        Ok(())
    }

    /// Logs what a function was called with.
    pub(super) fn log_function(&mut self, hw: &mut Hardware, hooked: &Hooked, here: &kvm_regs) {
        let CallContext { tables, memory, .. } = self.split(hw);
        let pages = ProcessPages { memory, tables };
        let read = |at: u64, length: usize| readable(&pages, at, length);
        let arguments = [here.rdi, here.rsi, here.rdx, here.rcx];
        let (left, right) = hooked.function.compared(arguments, &read);
        let sites = self.comparisons.as_ref().map_or(0, |c| c.sites.len()) as u32;
        let site = sites.saturating_add(hooked.index);
        self.logged.push(Compared { site, kind: hooked.function.kind(), left, right });
    }
}

/// What is readable of so many bytes at `at`.
fn readable(pages: &ProcessPages<'_>, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // It ends where a page does.
    let here = (PAGE_SIZE - Gva(at).page_offset()).min(length);
    for length in [length, here] {
        bytes.truncate(length);
        if pages.read(Gva(at), &mut bytes).is_ok() {
            return bytes;
        }
    }
    Vec::new()
}
