//! `dejavm inspect`: what a snapshot file holds. Needs no KVM.

use crate::args::Inspect;
use crate::boot;
use crate::crash::{self, FrameFacts, Hex};
use crate::error::{CliError, with_causes};
use crate::exit_code::ExitCode;
use crate::point;
use crate::report;
use crate::terminal;
use dejavm_engine::guest::process::Process;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{GuestState, MachineSnapshot, host_lacks};
use dejavm_engine::snapshot::{FileError, file};
use serde::Serialize;
use std::fmt::Write as _;

/// What a snapshot file holds.
#[derive(Serialize)]
struct Facts {
    version: u32,
    kind: &'static str,
    ram_bytes: u64,
    pages_stored: u64,
    file_bytes: u64,
    point: String,
    rip: FrameFacts,
    rsp: Hex,
    cr3: Hex,
    #[serde(serialize_with = "crash::as_map")]
    registers: Vec<(&'static str, Hex)>,
    slots: Vec<Slot>,
    images: Vec<Image>,
    sections: Vec<(String, u64)>,
    /// Features of the CPU that the guest may be using.
    cpu_needs: Vec<String>,
    /// Those of them that this host lacks; none where it has no KVM to ask.
    cpu_lacks: Option<Vec<String>>,
    /// What is damaged; none unless asked.
    damage: Option<String>,
    checked: bool,
}

#[derive(Serialize)]
struct Slot {
    start: Hex,
    bytes: u64,
}

#[derive(Serialize)]
struct Image {
    path: String,
    base: Hex,
    bytes: usize,
}

/// Opens and tells.
pub fn run(args: &Inspect) -> Result<ExitCode, CliError> {
    let info = file::info(&args.file)?;
    let snapshot = MachineSnapshot::open(&args.file)?;
    let damage = match args.check.then(|| file::check_data(&args.file)) {
        None | Some(Ok(())) => None,
        Some(Err(error @ FileError::Damaged { .. })) => Some(with_causes(&error)),
        Some(Err(error)) => return Err(error.into()),
    };
    let facts = Facts::new(&info, &snapshot, damage, args.check);
    if args.json {
        terminal::out_json(&facts)?
    } else {
        terminal::out_text(&facts.text())?
    }
    Ok(if facts.damage.is_some() { ExitCode::Negative } else { ExitCode::Success })
}

impl Facts {
    fn new(
        info: &file::Info,
        snapshot: &MachineSnapshot,
        damage: Option<String>,
        checked: bool,
    ) -> Self {
        let process = match &snapshot.guest {
            GuestState::Process(state) => Some(&state.process),
            GuestState::Bare(_) => None,
        };
        let symbolizer = boot::symbolizer(process);
        let state = &snapshot.state;
        let needs = &snapshot.needs;
        let lacks = System::open().and_then(|system| host_lacks(&system, snapshot)).ok();
        let images = process.map(Process::images).unwrap_or_default();
        Self {
            version: info.version,
            kind: snapshot.guest.kind(),
            ram_bytes: snapshot.ram_bytes(),
            pages_stored: info.pages_stored,
            file_bytes: info.file_bytes,
            point: point::in_words(snapshot, &symbolizer),
            rip: crash::frame(&symbolizer.resolve(state.regs.rip)),
            rsp: Hex(state.regs.rsp),
            cr3: Hex(state.sregs.cr3),
            registers: crash::registers(&state.regs),
            slots: info
                .layout
                .iter()
                .map(|slot| Slot { start: Hex(slot.start.0), bytes: slot.bytes })
                .collect(),
            images: images
                .iter()
                .map(|image| Image {
                    path: image.path.to_string_lossy().into_owned(),
                    base: Hex(image.base),
                    bytes: image.bytes.len(),
                })
                .collect(),
            sections: info.sections.clone(),
            // A host without any feature lacks all that is needed.
            cpu_needs: needs.missing_on(&[]),
            cpu_lacks: lacks,
            damage,
            checked,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "snapshot of a {} guest, format version {}\nstands {}\n",
            self.kind, self.version, self.point
        );
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "rip     {:#x} {}", self.rip.address.0, self.rip.place);
        let _ = writeln!(
            text,
            "memory  {}, {} pages stored; file {}",
            report::size(self.ram_bytes),
            self.pages_stored,
            report::size(self.file_bytes)
        );
        for Slot { start, bytes } in &self.slots {
            let _ = writeln!(text, "  slot  {:#x}, {}", start.0, report::size(*bytes));
        }
        for Image { path, base, bytes } in &self.images {
            let size = report::size(*bytes as u64);
            let _ = writeln!(text, "  image {path} at {:#x}, {size}", base.0);
        }
        for (name, bytes) in &self.sections {
            let _ = writeln!(text, "  section {name}, {}", report::size(*bytes));
        }
        text.push_str(&crash::register_table(&self.registers));
        let _ = writeln!(text, "CPU     {}", self.cpu_needs.join(" "));
        let _ = match &self.cpu_lacks {
            None => writeln!(text, "host    has no KVM to compare with (`dejavm doctor`)"),
            Some(lacks) if lacks.is_empty() => writeln!(text, "host    has all of it"),
            Some(lacks) => writeln!(text, "host    lacks {}", lacks.join(" ")),
        };
        let _ = match (&self.damage, self.checked) {
            (Some(damage), _) => writeln!(text, "data    DAMAGED: {damage}"),
            (None, true) => writeln!(text, "data    matches its checksums"),
            (None, false) => writeln!(text, "data    not checked (--check)"),
        };
        text
    }
}
