//! The guest as resolved: which program or image, with which files, arguments and memory.
//!
//! Looks for the program in `PATH` and reads a bare guest's image; never boots anything.

use crate::args::{Bare, GuestArgs};
use crate::error::CliError;
use crate::harness;
use crate::heap;
use crate::sanitizers::{self, Aim};
use crate::script;
use crate::values::{Point, replace_input};
use crate::which::find_program;
use dejavm_engine::address::{Gpa, PAGE_SIZE};
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::linux::{INPUT_PATH, InputChannel, ProcessSpec};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Memory unless asked otherwise, in bytes. Pages that are never touched cost nothing.
const RAM_BYTES: u64 = 256 << 20;
/// Likewise, of a guest of the lecture's.
const LECTURE_RAM_BYTES: u64 = 10 << 20;
/// Where a flat image goes unless asked otherwise: as a BIOS loads a boot sector in real mode, else
/// above what a PC has at low addresses.
const REAL_LOAD_AT: u64 = 0x7c00;
const FLAT_LOAD_AT: u64 = 0x10_0000;

/// What to boot.
#[derive(Debug)]
pub enum Resolved {
    /// A program.
    Process(Box<Program>),
    /// A bare guest.
    Bare(Box<BareSpec>),
}

/// A program to boot.
#[derive(Debug)]
pub struct Program {
    /// The program, its arguments, environment and files.
    pub spec: ProcessSpec,
    /// Its memory.
    pub ram_bytes: u64,
    /// Where to take the snapshot, if not where the input is about to be seen.
    pub at: Option<Point>,
    /// Whether a run ends where the function at that point returns.
    pub until_return: bool,
    /// The function whose one call is all of a run.
    pub harness: Option<Point>,
    /// Where it is a crash to be.
    pub crash_at: Vec<Point>,
    /// Whether it may have the host's system files that it looks for.
    pub system_files: bool,
    /// What was added to its environment because of how it is built.
    pub sanitizer_options: Vec<OsString>,
}

impl GuestArgs {
    /// What the arguments mean together.
    pub fn resolve(&self, aim: Aim) -> Result<Resolved, CliError> {
        let Some((program, args)) = self.program.split_first() else {
            return Err(CliError::Usage(
                "name a program, such as `dejavm run -- ./program @@`; see --help",
            ));
        };
        match self.bare {
            Some(mode) if args.is_empty() => self.bare(mode, Path::new(program)),
            Some(_) => Err(CliError::Usage("a bare guest takes an image and no arguments")),
            None => {
                let path = find_program(program, std::env::var_os("PATH").as_deref())?;
                let script = script::of(&path)?;
                let mut spec = ProcessSpec::new(path);
                self.fill(&mut spec, args);
                if let Some(script) = script {
                    script.start(&mut spec);
                }
                // A program that cannot be read is the boot's to complain of.
                let bytes = fs::read(&spec.program).unwrap_or_default();
                let sanitizer_options = sanitizers::options(&bytes, &spec.env, aim);
                spec.env.extend_from_slice(&sanitizer_options);
                if self.heap.is_some() {
                    heap::preload(&mut spec, &bytes)?;
                }
                if self.harness.is_some() {
                    spec.args.splice(..0, harness::arguments(&bytes));
                }
                let usual = if self.heap.is_some() { heap::RAM_BYTES } else { RAM_BYTES };
                let ram_bytes = self.ram.unwrap_or(usual);
                let program = Program {
                    spec,
                    ram_bytes,
                    at: self.at.clone(),
                    until_return: self.until_return,
                    harness: self.harness.clone(),
                    crash_at: self.crash_at.clone(),
                    system_files: !self.no_host_files,
                    sanitizer_options,
                };
                Ok(Resolved::Process(Box::new(program)))
            }
        }
    }

    fn fill(&self, spec: &mut ProcessSpec, args: &[OsString]) {
        let path = self.input_path.clone().unwrap_or_else(|| INPUT_PATH.into());
        let mut is_file = self.input_path.is_some();
        let is_harness = self.harness.is_some();
        let shown = if is_harness { harness::NO_INPUT.as_ref() } else { path.as_os_str() };
        let mut replace = |arg: &OsString| match replace_input(arg, shown) {
            Some(replaced) => {
                is_file |= !is_harness;
                replaced
            }
            None => arg.clone(),
        };
        spec.args = args.iter().map(&mut replace).collect();
        if is_file {
            spec.input = InputChannel::File { guest: path };
        }
        spec.env.clone_from(&self.env);
        spec.files = self.file.iter().chain(&self.dir).cloned().collect();
    }

    fn bare(&self, mode: Bare, path: &Path) -> Result<Resolved, CliError> {
        let image =
            fs::read(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
        let ram = self.ram.unwrap_or(RAM_BYTES);
        let flat = |mode, at| BareSpec::flat(mode, image.clone(), Gpa(at), ram);
        let mut spec = match mode {
            Bare::Real => flat(Mode::Real, self.load_at.unwrap_or(REAL_LOAD_AT)),
            Bare::Protected => flat(Mode::Protected, self.load_at.unwrap_or(FLAT_LOAD_AT)),
            Bare::Long => flat(Mode::Long, self.load_at.unwrap_or(FLAT_LOAD_AT)),
            Bare::Elf if self.load_at.is_some() => {
                return Err(CliError::Usage("an ELF file says itself where it goes: no --load-at"));
            }
            Bare::Elf => BareSpec::elf(image, ram),
            Bare::Lecture => {
                let lecture = BareSpec::lecture(image);
                let at = self.load_at.map_or(lecture.load_at, |at| Some(Gpa(at)));
                let entry = self.load_at.or(lecture.entry);
                BareSpec {
                    load_at: at,
                    entry,
                    ram_bytes: self.ram.unwrap_or(LECTURE_RAM_BYTES),
                    ..lecture
                }
            }
        };
        spec.entry = self.entry.or(spec.entry);
        spec.ram_bytes = spec.ram_bytes.next_multiple_of(PAGE_SIZE as u64);
        Ok(Resolved::Bare(Box::new(spec)))
    }
}

impl Resolved {
    /// The guest's name for people.
    pub fn name(&self) -> String {
        match self {
            Self::Process(program) => {
                let name = program.spec.program.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            }
            Self::Bare(_) => "the bare guest".to_owned(),
        }
    }

    /// Whether the host's system files that it looks for are to be brought in.
    pub fn takes_system_files(&self) -> bool {
        matches!(self, Self::Process(program) if program.system_files)
    }

    /// The host's system files that it looked for so far.
    pub fn system_files(&self) -> Vec<PathBuf> {
        let Self::Process(program) = self else { return Vec::new() };
        program.spec.system.files().map(Path::to_owned).collect()
    }

    /// Its kind, for `fuzzer_stats`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Process(_) => "process",
            Self::Bare(_) => "bare",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, Typed};
    use clap::Parser as _;

    fn program(line: &str) -> Program {
        let typed = Typed::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Run(run) = typed.command else { panic!("{line}") };
        match run.guest.resolve(Aim::Run).unwrap() {
            Resolved::Process(program) => *program,
            Resolved::Bare(spec) => panic!("{spec:?}"),
        }
    }

    #[test]
    fn at_signs_make_the_input_a_file() {
        let spec = program("dejavm run -- ./p -a @@ --out=@@.x").spec;
        assert_eq!(spec.args, ["-a", "/work/input", "--out=/work/input.x"]);
        assert_eq!(spec.input, InputChannel::File { guest: "/work/input".into() });
        let spec = program("dejavm run -- ./p -a").spec;
        assert_eq!(spec.input, InputChannel::Stdin);
    }

    #[test]
    fn the_inputs_path_can_be_chosen_even_without_at_signs() {
        let spec = program("dejavm run --input-path /etc/p.conf -- ./p").spec;
        assert_eq!(spec.input, InputChannel::File { guest: "/etc/p.conf".into() });
        let spec = program("dejavm run --input-path in.xml -- ./p @@").spec;
        assert_eq!(spec.args, ["in.xml"]);
    }

    #[test]
    fn a_lecture_guest_has_its_own_memory() {
        let folder = std::env::temp_dir();
        let image = folder.join(format!("dejavm-image-{}", std::process::id()));
        fs::write(&image, [0xf4]).unwrap();
        let resolve = |options: &str| {
            let line = format!("dejavm run {options} {}", image.display());
            let typed = Typed::try_parse_from(line.split_whitespace()).unwrap();
            let Command::Run(run) = typed.command else { panic!("{line}") };
            match run.guest.resolve(Aim::Run) {
                Ok(Resolved::Bare(spec)) => *spec,
                other => panic!("{other:?}"),
            }
        };
        let lecture = resolve("--bare lecture");
        assert_eq!((lecture.ram_bytes, lecture.entry), (10 << 20, Some(0x10_0f00)));
        let long = resolve("--bare long --ram 1048577 --entry 0x100010");
        assert_eq!((long.ram_bytes, long.entry), ((1 << 20) + 4096, Some(0x10_0010)));
        fs::remove_file(&image).unwrap();
    }
}
