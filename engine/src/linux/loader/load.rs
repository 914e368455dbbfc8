//! From a program on the host to a process at its first instruction. Never runs it.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::Errno;
use crate::linux::abi::ids::PROCESS_ID;
use crate::linux::base::bytes::Bytes;
use crate::linux::base::tracked::Tracked;
use crate::linux::fs::files::Files;
use crate::linux::fs::missing_paths::MissingPaths;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::NodeId;
use crate::linux::loader::elf::{Elf, Segment};
use crate::linux::loader::import::{Imported, Importer};
use crate::linux::loader::libraries::import_needed;
use crate::linux::loader::spec::{InputChannel, LoadError, ProcessSpec, Start, WORKING_DIRECTORY};
use crate::linux::loader::stack::{InitialStack, Loaded, STACK_READY_BYTES};
use crate::linux::loader::{rootfs, stack};
use crate::linux::mm::address_space::AddressSpace;
use crate::linux::mm::bounds::{MMAP_BASE, STACK_BYTES, USER_END, USER_START, in_user};
use crate::linux::mm::mapping::bring_in;
use crate::linux::mm::uaccess::Growth;
use crate::linux::mm::user_memory::{OutOfFrames, Prot, UserMemory};
use crate::linux::mm::vma::{Backing, Vma, VmaFlags};
use crate::linux::process::settings::{Image, Images, Scalars, Settings};
use crate::linux::process::{Missing, Process};
use crate::linux::sched::threads::Threads;
use crate::linux::strace::Trace;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const PAGE: u64 = PAGE_SIZE as u64;
/// Where Linux puts position-independent programs without address-space randomisation.
const PIE_BASE: u64 = 0x5555_5555_4000;

impl Process {
    /// Loads the program of `spec` into `mem`, which holds nothing yet, and tells where it
    /// starts. No other function of a process reads host files.
    pub fn load(
        spec: &ProcessSpec,
        input: &[u8],
        mem: &mut dyn UserMemory,
    ) -> Result<(Self, Start), LoadError> {
        load(spec, input, mem)
    }
}

/// Boots `spec` with `input` into empty memory.
fn load(
    spec: &ProcessSpec,
    input: &[u8],
    mem: &mut dyn UserMemory,
) -> Result<(Process, Start), LoadError> {
    let mut files = Files::new(&spec.limits);
    files.input = Bytes(input.to_vec());
    let mut importer = Importer::new(&mut files.tree, spec.limits.host_bytes);
    let program = importer.import(&spec.program)?;
    let elf = Elf::parse(&spec.program, &program.bytes)?;
    let interpreter = match elf.interpreter {
        Some(path) => {
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            import_needed(&mut importer, &program, &spec.env)?;
            Some(importer.import(path)?)
        }
        None => None,
    };
    let interpreter_elf = match &interpreter {
        Some(imported) => Some((imported, Elf::parse(&imported.path, &imported.bytes)?)),
        None => None,
    };
    let ram_bytes = mem.frames_free().saturating_mul(PAGE);
    rootfs::populate(&mut importer, spec, &program, ram_bytes)?;
    open_standard(&mut files, spec);

    let mut argv = vec![spec.program.clone().into_os_string()];
    argv.extend(spec.args.iter().cloned());

    let mut loader = Loader { space: AddressSpace::new(&spec.limits), files: &files, mem };
    let bias = loader.program_bias(&elf);
    loader.map_image(&elf, bias, &program)?;
    let mut images = vec![Image { node: program.node, base: bias, path: lossy(&program.path) }];
    let mut start = elf.entry.wrapping_add(bias);
    let mut interpreter_bias = 0;
    if let Some((imported, interpreter_elf)) = &interpreter_elf {
        interpreter_bias = loader.interpreter_bias(interpreter_elf, imported)?;
        loader.map_image(interpreter_elf, interpreter_bias, imported)?;
        start = interpreter_elf.entry.wrapping_add(interpreter_bias);
        let path = lossy(&imported.path);
        images.push(Image { node: imported.node, base: interpreter_bias, path });
    }
    let heap = elf.span().1.wrapping_add(bias);
    loader.space.break_start = heap;
    loader.space.break_end = heap;

    let mut scalars = Scalars::new(spec.seed);
    let mut random = [0; 16];
    scalars.fill_random(&mut random);
    let loaded = Loaded { elf: &elf, bias, interpreter_bias, cpu: spec.cpu, random };
    let top = loader.make_stack(spec, &argv, &loaded)?;
    let space = loader.space;
    rootfs::tell_auxiliary(&mut files.tree, top.auxiliary);

    let process = Process {
        space: Tracked::new(space),
        settings: Tracked::new(Settings::new(&spec.limits)),
        threads: Tracked::new(Threads::new(PROCESS_ID, rootfs::name_of(&spec.program))),
        images: Tracked::new(Images(images)),
        scalars,
        ram_bytes,
        missing: Missing::default(),
        growth: Growth::default(),
        wanted: MissingPaths::default(),
        trace: spec.trace.then(|| Box::new(Trace::new(&argv, spec.env.len(), top.rsp))),
        files,
    };
    Ok((process, Start { rip: start, rsp: top.rsp }))
}

/// A path as text: what it loses only a symboliser would have shown.
fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Opens descriptors 0, 1 and 2 and sets the working directory.
fn open_standard(files: &mut Files, spec: &ProcessSpec) {
    let node_at = |path: &str| match files.tree.resolve(NodeId::ROOT, path.as_bytes(), true) {
        Ok(crate::linux::fs::tree::Found::Node(id)) => id,
        _ => NodeId::ROOT,
    };
    let stdin = match spec.input {
        InputChannel::Stdin => NodeId::INPUT,
        InputChannel::File { .. } => node_at("/dev/null"),
    };
    let cwd = node_at(WORKING_DIRECTORY);
    files.table.cwd = cwd;
    for (target, flags) in [
        (Target::Node(stdin), libc::O_RDONLY),
        (Target::Stdout, libc::O_WRONLY),
        (Target::Stderr, libc::O_WRONLY),
    ] {
        // With a limit of fewer than three descriptors the last ones stay closed.
        let _ = files.table.open(target, flags);
    }
}

struct Loader<'a> {
    space: AddressSpace,
    files: &'a Files,
    mem: &'a mut dyn UserMemory,
}

impl Loader<'_> {
    fn program_bias(&self, elf: &Elf<'_>) -> u64 {
        if elf.fixed {
            return 0;
        }
        (PIE_BASE & !(elf.align() - 1)).wrapping_sub(elf.span().0)
    }

    fn interpreter_bias(&self, elf: &Elf<'_>, image: &Imported) -> Result<u64, LoadError> {
        if elf.fixed {
            return Ok(0);
        }
        let (start, end) = elf.span();
        let slack = elf.align() - PAGE;
        let gap = (end - start)
            .checked_add(slack)
            .and_then(|bytes| self.space.find_gap(bytes, USER_START, MMAP_BASE))
            .ok_or_else(|| LoadError::Placement { path: image.path.clone(), start, end })?;
        Ok(gap.next_multiple_of(elf.align()).wrapping_sub(start))
    }

    fn map_image(&mut self, elf: &Elf<'_>, bias: u64, image: &Imported) -> Result<(), LoadError> {
        let (start, end) = elf.span();
        let (start, end) = (start.wrapping_add(bias), end.wrapping_add(bias));
        if start < USER_START || !in_user(start, end) {
            return Err(LoadError::Placement { path: image.path.clone(), start, end });
        }
        for segment in &elf.segments {
            self.map_segment(segment, bias, image.node).map_err(|failed| match failed {
                SegmentFailure::Errno(_) => {
                    let what = "more segments than the limit on mappings allows";
                    LoadError::BadElf { path: image.path.clone(), what }
                }
                SegmentFailure::Memory => LoadError::OutOfMemory { path: image.path.clone() },
            })?;
        }
        Ok(())
    }

    /// Maps one segment: its file part, zeros to the end of that part's last page, and zero
    /// pages for the rest.
    fn map_segment(
        &mut self,
        segment: &Segment,
        bias: u64,
        node: NodeId,
    ) -> Result<(), SegmentFailure> {
        // In user space, as the whole span is: none of these sums overflows.
        let start = segment.address.wrapping_add(bias);
        let file_end = start + segment.file_bytes;
        let end = (start + segment.memory_bytes).next_multiple_of(PAGE);
        let first = start & !(PAGE - 1);
        let mut vma = Vma {
            start: first,
            end: first,
            prot: segment.prot,
            backing: Backing::File { node, offset: segment.offset & !(PAGE - 1) },
            flags: VmaFlags::MAY_WRITE,
            object: None,
        };
        if segment.file_bytes > 0 {
            vma.end = file_end.next_multiple_of(PAGE);
            self.space.map(vma, self.files, self.mem)?;
            let tail = vma.end - file_end;
            if segment.memory_bytes > segment.file_bytes
                && segment.prot.contains(Prot::WRITE)
                && tail > 0
            {
                bring_in(&vma.part(vma.end - PAGE, vma.end), self.files, self.mem)?;
                let zeros = [0; PAGE_SIZE];
                let zeros = zeros.get(..tail as usize).unwrap_or_default();
                self.mem.populate(Gva(file_end), zeros).map_err(|_| SegmentFailure::Memory)?;
            }
        }
        if end > vma.end {
            let rest = Vma { start: vma.end, end, backing: Backing::Anonymous, ..vma };
            self.space.map(rest, self.files, self.mem)?;
        }
        Ok(())
    }

    fn make_stack(
        &mut self,
        spec: &ProcessSpec,
        argv: &[OsString],
        loaded: &Loaded<'_>,
    ) -> Result<InitialStack, LoadError> {
        let top = stack::build(argv, &spec.env, loaded, spec.limits.argument_bytes)?;
        let out_of_memory = || LoadError::OutOfMemory { path: spec.program.clone() };
        let mut prot = Prot::READ | Prot::WRITE;
        prot.set(Prot::EXEC, loaded.elf.executable_stack);
        let floor = top.rsp & !(PAGE - 1);
        let start = floor.saturating_sub(STACK_READY_BYTES).max(USER_END - STACK_BYTES);
        let (backing, flags) = (Backing::Stack, VmaFlags::MAY_WRITE | VmaFlags::GROWS_DOWN);
        let vma = Vma { backing, flags, ..Vma::anonymous(start, USER_END, prot) };
        self.space.map(vma, self.files, self.mem).map_err(|_| out_of_memory())?;
        bring_in(&vma, self.files, self.mem).map_err(|OutOfFrames| out_of_memory())?;
        self.mem.populate(Gva(top.rsp), &top.bytes).map_err(|_| out_of_memory())?;
        Ok(top)
    }
}

enum SegmentFailure {
    Errno(#[expect(dead_code, reason = "mapping fails in one way only")] Errno),
    Memory,
}

impl From<Errno> for SegmentFailure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<OutOfFrames> for SegmentFailure {
    fn from(_: OutOfFrames) -> Self {
        Self::Memory
    }
}
