//! Finds the shared libraries a program will open at start, as its dynamic loader would, so that
//! exactly they are in the guest's tree. Never resolves symbols; a library that is not found is
//! left to the guest's loader to complain about.

use crate::linux::loader::elf::Elf;
use crate::linux::loader::import::{Imported, Importer};
use crate::linux::loader::spec::LoadError;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where glibc's and musl's loaders look last.
const DEFAULT_DIRECTORIES: [&str; 10] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/local/lib",
    "/usr/lib",
    "/usr/local/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-musl",
    "/usr/lib/x86_64-linux-musl",
];

/// glibc's index of libraries.
const CACHE: &str = "/etc/ld.so.cache";

/// musl's list of directories.
const MUSL_PATH: &str = "/etc/ld-musl-x86_64.path";

/// Libraries that one program may pull in.
const LIBRARIES_MAX: usize = 1024;

/// An object whose needs are still to be met.
struct Object {
    imported: Imported,
    /// Directory `$ORIGIN` stands for.
    origin: PathBuf,
    /// `DT_RPATH` of the objects that led here, expanded.
    inherited: Vec<PathBuf>,
}

/// Brings in the libraries that `program` needs, directly or not.
pub(crate) fn import_needed(
    importer: &mut Importer<'_>,
    program: &Imported,
    env: &[OsString],
) -> Result<(), LoadError> {
    let variable = |name: &str| {
        let prefix = format!("{name}=");
        env.iter().find_map(|text| text.as_bytes().strip_prefix(prefix.as_bytes()))
    };
    let origin = program.path.parent().unwrap_or(Path::new("/")).to_owned();
    let from_env =
        variable("LD_LIBRARY_PATH").map(|list| expand(list, &origin)).unwrap_or_default();
    if let Ok(true) = std::fs::exists(MUSL_PATH) {
        importer.import(Path::new(MUSL_PATH))?;
    }
    let cache = match std::fs::exists(CACHE) {
        Ok(true) => Some(importer.import(Path::new(CACHE))?),
        _ => None,
    };
    let cache = cache.as_ref().map_or(&[][..], |cache| &cache.bytes);
    let preload = variable("LD_PRELOAD").unwrap_or_default();
    let preload: Vec<&[u8]> =
        preload.split(|b| matches!(b, b' ' | b':')).filter(|name| !name.is_empty()).collect();

    let mut seen = BTreeSet::new();
    let mut queue = vec![Object { imported: program.clone(), origin, inherited: Vec::new() }];
    let mut first = true;
    while let Some(object) = queue.pop() {
        let Ok(elf) = Elf::parse(&object.imported.path, &object.imported.bytes) else { continue };
        let runpath = elf.dynamic.runpath.map(|list| expand(list, &object.origin));
        let mut rpath = object.inherited.clone();
        if let (None, Some(list)) = (&runpath, elf.dynamic.rpath) {
            rpath.extend(expand(list, &object.origin));
        }
        let needed = elf.dynamic.needed.iter().copied();
        for name in needed.chain(preload.iter().copied().filter(|_| first)) {
            let directories =
                rpath.iter().chain(&from_env).chain(runpath.iter().flatten()).cloned();
            let Some(path) = find(name, directories, cache) else { continue };
            if seen.len() >= LIBRARIES_MAX || !seen.insert(path.clone()) {
                continue;
            }
            let imported = importer.import(&path)?;
            if path.is_relative() {
                // Named by a path of its own: the loader opens it from the working directory.
                importer.place_node(&path, imported.node)?;
            }
            let origin = path.parent().unwrap_or(Path::new("/")).to_owned();
            queue.push(Object { imported, origin, inherited: rpath.clone() });
        }
        first = false;
    }
    Ok(())
}

/// The file a loader would open for `name`.
fn find(name: &[u8], directories: impl Iterator<Item = PathBuf>, cache: &[u8]) -> Option<PathBuf> {
    let name_path = Path::new(OsStr::from_bytes(name));
    if name.contains(&b'/') {
        return is_library(name_path).then(|| name_path.to_owned());
    }
    let cached = cached_paths(cache, name);
    let defaults = DEFAULT_DIRECTORIES.iter().map(PathBuf::from);
    directories
        .map(|directory| directory.join(name_path))
        .chain(cached)
        .chain(defaults.map(|directory| directory.join(name_path)))
        .find(|path| is_library(path))
}

/// Whether a loader for x86-64 would take the file: others in the search path are skipped.
fn is_library(path: &Path) -> bool {
    use std::io::Read;
    let mut header = [0; 20];
    std::fs::metadata(path).is_ok_and(|facts| facts.is_file())
        && std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header)).is_ok()
        && header.starts_with(b"\x7fELF\x02\x01")
        && header[18..] == [62, 0]
}

/// Splits a search path and replaces the loader's `$` tokens. Relative directories are left out:
/// they would depend on where the host happens to stand.
fn expand(list: &[u8], origin: &Path) -> Vec<PathBuf> {
    let origin = origin.to_string_lossy();
    String::from_utf8_lossy(list)
        .split([':', ';'])
        .map(|directory| {
            let mut text = directory.to_owned();
            for (token, value) in
                [("ORIGIN", &*origin), ("LIB", "lib/x86_64-linux-gnu"), ("PLATFORM", "x86_64")]
            {
                text = text.replace(&format!("${{{token}}}"), value);
                text = text.replace(&format!("${token}"), value);
            }
            PathBuf::from(text)
        })
        .filter(|directory| directory.is_absolute())
        .collect()
}

/// Paths that glibc's cache (format 1.1) gives for `name`; none if the cache is of another kind.
fn cached_paths(cache: &[u8], name: &[u8]) -> Vec<PathBuf> {
    const HEADER_BYTES: usize = 48;
    const ENTRY_BYTES: usize = 24;
    let word = |bytes: &[u8], at: usize| {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
    };
    let string = |at: usize| {
        let text = cache.get(at..)?;
        text.get(..text.iter().position(|byte| *byte == 0)?)
    };
    if !cache.starts_with(b"glibc-ld.so.cache1.1") {
        return Vec::new();
    }
    let count = word(cache, 20).unwrap_or(0);
    let entries = cache.get(HEADER_BYTES..).unwrap_or_default().chunks_exact(ENTRY_BYTES);
    entries
        .take(count)
        .filter_map(|entry| {
            let (key, value) = (word(entry, 4)?, word(entry, 8)?);
            let path = string(value).filter(|_| string(key) == Some(name))?;
            Some(PathBuf::from(OsStr::from_bytes(path)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_loader_tokens() {
        let expanded = expand(b"$ORIGIN/../lib:${ORIGIN}:relative:/x/$LIB:", Path::new("/opt/a"));
        let expected = ["/opt/a/../lib", "/opt/a", "/x/lib/x86_64-linux-gnu"].map(PathBuf::from);
        assert_eq!(expanded, expected);
    }

    #[test]
    fn survives_a_cache_of_noise() {
        let mut cache = b"glibc-ld.so.cache1.1".to_vec();
        cache.extend([0xff; 100]);
        assert!(cached_paths(&cache, b"libc.so.6").is_empty());
        assert!(cached_paths(b"glibc-ld.so.cache1.1", b"libc.so.6").is_empty());
    }
}
