//! The stack a program finds at its first instruction: arguments, environment and auxiliary
//! vector, laid out as Linux does. Never maps memory: it only computes bytes.

use crate::linux::abi::ids::USER_ID;
use crate::linux::loader::elf::Elf;
use crate::linux::loader::spec::{CpuFacts, LoadError};
use crate::linux::mm::bounds::USER_END;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Bytes below the initial stack pointer that are mapped from the start (`setup_arg_pages` in
/// fs/exec.c).
pub(crate) const STACK_READY_BYTES: u64 = 128 << 10;

/// What the auxiliary vector says about the loaded images.
pub(crate) struct Loaded<'a> {
    pub(crate) elf: &'a Elf<'a>,
    /// Load bias of the program.
    pub(crate) bias: u64,
    /// Load bias of the interpreter, 0 without one.
    pub(crate) interpreter_bias: u64,
    pub(crate) cpu: CpuFacts,
    pub(crate) random: [u8; 16],
}

/// The stack's top: where it starts and its bytes, up to [`USER_END`].
pub(crate) struct InitialStack {
    pub(crate) rsp: u64,
    pub(crate) bytes: Vec<u8>,
    /// The auxiliary vector by itself.
    pub(crate) auxiliary: Vec<u8>,
}

/// Strings that grow downwards from the end of user space.
struct Strings {
    /// In reverse order of address.
    parts: Vec<Vec<u8>>,
    bottom: u64,
}

impl Strings {
    fn push(&mut self, bytes: &[u8], nul: bool) -> u64 {
        let mut part = bytes.to_vec();
        if nul {
            part.push(0);
        }
        self.bottom = self.bottom.saturating_sub(part.len() as u64);
        self.parts.push(part);
        self.bottom
    }

    /// Pushes strings so that the first one has the lowest address; their addresses in order.
    fn push_all(&mut self, strings: &[OsString]) -> Vec<u64> {
        let mut at: Vec<u64> =
            strings.iter().rev().map(|string| self.push(string.as_bytes(), true)).collect();
        at.reverse();
        at
    }
}

/// Lays the stack out.
pub(crate) fn build(
    argv: &[OsString],
    env: &[OsString],
    loaded: &Loaded<'_>,
    bytes_max: u64,
) -> Result<InitialStack, LoadError> {
    let strings = argv.iter().chain(env);
    if let Some(text) = strings.clone().find(|text| text.as_bytes().contains(&0)) {
        return Err(LoadError::NulInArgument { text: text.clone() });
    }
    let bytes: u64 = strings.map(|text| text.len() as u64 + 9).sum();
    if bytes > bytes_max {
        return Err(LoadError::ArgumentsTooLong { bytes, max: bytes_max });
    }

    let mut strings = Strings { parts: Vec::new(), bottom: USER_END };
    strings.push(&[0; 8], false);
    let program = argv.first().map_or(&b""[..], |name| name.as_bytes());
    let program_at = strings.push(program, true);
    let env_at = strings.push_all(env);
    let argv_at = strings.push_all(argv);
    let platform_at = strings.push(b"x86_64", true);
    let random_at = strings.push(&loaded.random, false);

    let mut words = vec![argv_at.len() as u64];
    words.extend(argv_at);
    words.push(0);
    words.extend(env_at);
    words.push(0);
    let pairs = auxiliary(loaded, program_at, platform_at, random_at);
    let auxiliary: Vec<u64> = pairs.into_iter().flat_map(|(tag, value)| [tag, value]).collect();
    words.extend(&auxiliary);

    let rsp = strings.bottom.saturating_sub(words.len() as u64 * 8) & !15;
    let mut stack: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let gap = strings.bottom.saturating_sub(rsp).saturating_sub(stack.len() as u64);
    stack.extend((0..gap).map(|_| 0));
    for part in strings.parts.iter().rev() {
        stack.extend_from_slice(part);
    }
    let auxiliary = auxiliary.iter().flat_map(|word| word.to_le_bytes()).collect();
    Ok(InitialStack { rsp, bytes: stack, auxiliary })
}

fn auxiliary(
    loaded: &Loaded<'_>,
    program_at: u64,
    platform_at: u64,
    random_at: u64,
) -> [(u64, u64); 20] {
    let user = u64::from(USER_ID);
    let elf = loaded.elf;
    let headers = match elf.headers_address {
        0 => 0,
        address => address.wrapping_add(loaded.bias),
    };
    [
        (libc::AT_HWCAP, u64::from(loaded.cpu.hwcap)),
        (libc::AT_PAGESZ, 4096),
        (libc::AT_CLKTCK, 100),
        (libc::AT_PHDR, headers),
        (libc::AT_PHENT, 56),
        (libc::AT_PHNUM, elf.headers_count),
        (libc::AT_BASE, loaded.interpreter_bias),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, elf.entry.wrapping_add(loaded.bias)),
        (libc::AT_UID, user),
        (libc::AT_EUID, user),
        (libc::AT_GID, user),
        (libc::AT_EGID, user),
        (libc::AT_SECURE, 0),
        (libc::AT_RANDOM, random_at),
        // No FSGSBASE: a program that believes otherwise would change FS behind the host's back.
        (libc::AT_HWCAP2, 0),
        (libc::AT_EXECFN, program_at),
        (libc::AT_PLATFORM, platform_at),
        (libc::AT_MINSIGSTKSZ, loaded.cpu.signal_stack_bytes_min),
        (libc::AT_NULL, 0),
    ]
}
