//! A heap of the project's own for a program, in place of the C library's (`--heap`).
//!
//! What the heap does is in the package `dejavm-heap`. Never boots anything.

use crate::error::CliError;
use crate::sanitizers;
use dejavm_engine::linux::{MadeFile, ProcessSpec, has_interpreter};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Memory of a guest whose blocks have pages of their own, unless asked otherwise, in bytes.
pub const RAM_BYTES: u64 = 1 << 30;

/// Where the heap is in the guest.
const PATH: &str = "/usr/lib/dejavm-heap-guard.so";
const PRELOAD: &str = "LD_PRELOAD=";

/// Has the program of `spec`, whose file holds `bytes`, start with the heap, before what it is to be
/// started with besides.
///
/// # Errors
/// It is static, or has another such heap.
pub fn preload(spec: &mut ProcessSpec, bytes: &[u8]) -> Result<(), CliError> {
    let refuse = |why| Err(CliError::Heap { program: spec.program.clone(), why });
    // One that cannot be read is the boot's to complain of.
    if !bytes.is_empty() && !has_interpreter(bytes) {
        return refuse("it is no dynamically linked program, and its heap is a part of it");
    }
    if sanitizers::contains(bytes, b"__asan_init") {
        return refuse("it is built with AddressSanitizer, which has a heap of its own");
    }
    spec.made.push(MadeFile { guest: PATH.into(), bytes: dejavm_heap::GUARD });
    let own = spec.env.iter_mut().find(|entry| entry.as_bytes().starts_with(PRELOAD.as_bytes()));
    match own {
        Some(entry) => {
            let others = entry.as_bytes().get(PRELOAD.len()..).unwrap_or_default();
            *entry = joined(others);
        }
        None => spec.env.push(joined(b"")),
    }
    Ok(())
}

/// The variable that names the heap, and then `others`.
fn joined(others: &[u8]) -> OsString {
    let mut entry = [PRELOAD, PATH].concat().into_bytes();
    if !others.is_empty() {
        entry.push(b':');
        entry.extend_from_slice(others);
    }
    OsString::from_vec(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of a program with a loader: `e_ident`, `e_phoff`, `e_phentsize` and `e_phnum`, and
    /// one program header, a `PT_INTERP`.
    fn dynamic() -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        for (at, byte) in [(32, 64), (54, 56), (56, 1), (64, 3)] {
            bytes[at] = byte;
        }
        bytes
    }

    #[test]
    fn the_users_own_libraries_come_after_the_heap() {
        let bytes = dynamic();
        let preload_of = |env: &[&str]| {
            let mut spec = ProcessSpec::new("p");
            spec.env = env.iter().map(OsString::from).collect();
            preload(&mut spec, &bytes).unwrap();
            spec.env.join("|".as_ref())
        };
        assert_eq!(preload_of(&[]), *format!("LD_PRELOAD={PATH}"));
        let joined = preload_of(&["A=b", "LD_PRELOAD=/x.so"]);
        assert_eq!(joined, *format!("A=b|LD_PRELOAD={PATH}:/x.so"));
        assert!(PATH.ends_with(dejavm_heap::GUARD_NAME));
    }

    #[test]
    fn a_file_without_a_loader_is_refused_whatever_its_headers_say() {
        for bytes in [&b"ELF"[..], &[0xff; 64], &[0xff; 4096], &[0; 4096]] {
            assert!(preload(&mut ProcessSpec::new("p"), bytes).is_err());
        }
        let sanitized = [dynamic(), b"__asan_init".to_vec()].concat();
        assert!(preload(&mut ProcessSpec::new("p"), &sanitized).is_err());
    }
}
