//! Reads of the host's files what a program wanted, and what lies beside it. Never while a guest
//! runs, and never what `policy` does not allow.

use crate::linux::fs::missing_paths::MissingPaths;
use crate::linux::loader::host_files::policy::{is_public, is_system_path};
use crate::linux::loader::host_files::{BYTES_MAX, Entry, HostFiles, HostStat, host_stat};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Of a directory with more files of one kind, or more bytes in them, only what is asked for comes
/// in.
const SIBLINGS_MAX: usize = 512;
const SIBLINGS_BYTES_MAX: u64 = 16 << 20;
/// A directory below which files were wanted this many times comes in whole, with its own
/// directories, unless there is more in it than this: a chain of modules has many links.
const TREE_AFTER: u32 = 3;
const TREE_BYTES_MAX: u64 = 64 << 20;
const TREE_ENTRIES_MAX: usize = 8192;
/// Names in the path of such a directory, at least: `/usr/lib/NAME`.
const TREE_NAMES_MIN: usize = 3;
/// Entries of a directory that are listed at most.
const LISTING_MAX: usize = 8192;
/// Symbolic links followed on the way to one file.
pub(crate) const LINKS_MAX: u32 = 40;

impl HostFiles {
    /// Reads of what a program `wanted` what is there and allowed: whether that is anything new,
    /// so that a program that starts anew would find more than it did.
    pub fn take(&mut self, wanted: &MissingPaths) -> bool {
        let mut found = false;
        let mut folders = BTreeSet::new();
        for path in wanted.paths() {
            if is_system_path(path) && self.tried.insert(path.into()) && self.walk(path) {
                found = true;
                folders.extend(path.ancestors().skip(1).map(Path::to_owned));
            }
        }
        // A directory comes before those in it.
        for folder in folders {
            let times = self.times.entry(folder.clone()).or_default();
            *times += 1;
            if *times == TREE_AFTER && folder.components().count() > TREE_NAMES_MIN {
                self.take_tree(&folder);
            }
        }
        found
    }

    /// A directory with all that it holds, unless that is too much.
    fn take_tree(&mut self, root: &Path) {
        let is_plain = |path: &Path| fs::canonicalize(path).is_ok_and(|real| real == *path);
        if root.starts_with("/etc") || !is_plain(root) {
            return;
        }
        let (mut directories, mut files) = (vec![root.to_owned()], Vec::new());
        let (mut next, mut bytes) = (0, 0u64);
        while let Some(directory) = directories.get(next).cloned() {
            next += 1;
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() && is_public(&metadata) => {
                        directories.push(entry.path());
                    }
                    Ok(metadata) if metadata.is_file() => {
                        bytes = bytes.saturating_add(metadata.len());
                        files.push((entry.path(), metadata));
                    }
                    _ => {}
                }
            }
            if bytes > TREE_BYTES_MAX || directories.len() + files.len() > TREE_ENTRIES_MAX {
                return;
            }
        }
        for directory in directories {
            if let Ok(metadata) = fs::symlink_metadata(&directory) {
                self.list(&directory, &metadata);
            }
        }
        for (path, metadata) in files {
            self.read(&path, &metadata);
        }
    }

    /// Follows one path over the host's own links: whether it led to something new.
    fn walk(&mut self, path: &Path) -> bool {
        let lists = path.as_os_str().as_bytes().ends_with(b"/");
        let mut names = names_reversed(path);
        let mut here = PathBuf::from("/");
        let (mut links, mut found) = (0, false);
        while let Some(name) = names.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            here.push(&name);
            if !is_system_path(&here) {
                return found;
            }
            let Ok(metadata) = fs::symlink_metadata(&here) else { return found };
            if metadata.is_symlink() {
                let Ok(target) = fs::read_link(&here) else { return found };
                links += 1;
                if links > LINKS_MAX {
                    return found;
                }
                names.extend(names_reversed(&target));
                found |=
                    self.insert(&here, host_stat(&metadata), Entry::Link(target.clone().into()));
                if target.is_absolute() {
                    here = PathBuf::from("/");
                } else {
                    here.pop();
                }
            } else if metadata.is_dir() {
                // Whoever may not enter a directory reads nothing below it.
                if metadata.mode() & 0o001 == 0 {
                    return found;
                }
                let entry = Entry::Directory { complete: false };
                found |= self.insert(&here, host_stat(&metadata), entry);
                if names.is_empty() && lists {
                    found |= self.list(&here, &metadata).is_some();
                }
            } else {
                return found | (names.is_empty() && self.take_file(&here, &metadata));
            }
        }
        found
    }

    /// A file, and those beside it whose names end alike: a program that loads one module loads
    /// more of them, and would have to be booted anew for each.
    fn take_file(&mut self, path: &Path, metadata: &Metadata) -> bool {
        if !self.read(path, metadata) {
            return false;
        }
        let (Some(kind), Some(parent)) = (path.extension(), path.parent()) else { return true };
        if parent.starts_with("/etc") {
            return true;
        }
        let Some(children) = fs::symlink_metadata(parent).ok().and_then(|m| self.list(parent, &m))
        else {
            return true;
        };
        let alike = |path: &Path| path.extension() == Some(kind);
        let siblings: Vec<_> =
            children.iter().filter(|(path, m)| m.is_file() && alike(path)).collect();
        let bytes: u64 = siblings.iter().map(|(_, metadata)| metadata.len()).sum();
        if siblings.len() <= SIBLINGS_MAX && bytes <= SIBLINGS_BYTES_MAX {
            for (path, metadata) in siblings {
                self.read(path, metadata);
            }
        }
        true
    }

    /// A file's bytes.
    fn read(&mut self, path: &Path, metadata: &Metadata) -> bool {
        let known = matches!(self.entries.get(path), Some((_, Entry::File(_))));
        let room = BYTES_MAX.saturating_sub(self.bytes);
        if known || !metadata.is_file() || !is_public(metadata) || metadata.len() > room {
            return false;
        }
        let mut bytes = Vec::new();
        let Ok(file) = fs::File::open(path) else { return false };
        if file.take(room).read_to_end(&mut bytes).is_err() {
            return false;
        }
        let size = bytes.len() as u64;
        let is_new =
            self.insert(path, HostStat { size, ..host_stat(metadata) }, Entry::File(bytes.into()));
        self.bytes += if is_new { size } else { 0 };
        is_new
    }

    /// A directory's entries by name; they are returned if they were not known before.
    fn list(&mut self, path: &Path, metadata: &Metadata) -> Option<Vec<(PathBuf, Metadata)>> {
        let is_complete = |entry: &Entry| matches!(entry, Entry::Directory { complete: true });
        if !is_public(metadata) || self.entries.get(path).is_some_and(|(_, e)| is_complete(e)) {
            return None;
        }
        let entries = fs::read_dir(path).ok()?;
        let mut children = Vec::new();
        for entry in entries.flatten().take(LISTING_MAX) {
            let child = entry.path();
            if let (true, Ok(metadata)) = (is_system_path(&child), fs::symlink_metadata(&child)) {
                children.push((child, metadata));
            }
        }
        // The host's order of entries must not show in the guest.
        children.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (child, metadata) in &children {
            self.add_child(child, metadata);
        }
        let is_new = self.insert(path, host_stat(metadata), Entry::Directory { complete: true });
        is_new.then_some(children)
    }

    fn add_child(&mut self, path: &Path, metadata: &Metadata) {
        if metadata.is_symlink() {
            if let Ok(target) = fs::read_link(path) {
                self.insert(path, host_stat(metadata), Entry::Link(target.into()));
            }
        } else if metadata.is_dir() {
            self.insert(path, host_stat(metadata), Entry::Directory { complete: false });
        } else if metadata.is_file() {
            self.insert(path, host_stat(metadata), Entry::Unread);
        }
    }
}

/// A path's names, last one first; neither root nor `.`.
pub(crate) fn names_reversed(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(paths: &[&str]) -> MissingPaths {
        let mut wanted = MissingPaths::default();
        paths.iter().for_each(|path| wanted.remember(path.as_bytes()));
        wanted
    }

    #[test]
    fn takes_what_a_program_asked_for_once() {
        let mut files = HostFiles::default();
        let wanted = wanted(&["/etc/debian_version", "/usr/bin/env", "/usr/none"]);
        assert!(files.take(&wanted));
        assert!(files.files().any(|path| path == Path::new("/usr/bin/env")));
        assert!(!files.take(&wanted), "there is no more to be found");
    }

    #[test]
    fn refuses_what_is_no_systems_or_secret() {
        let paths = [
            "/etc/shadow",
            "/etc/passwd",
            "/etc/../root/.profile",
            "/usr/../proc/self/environ",
            "/home/user/file",
            "/proc/cpuinfo",
            "/etc/ssl/private/key.pem",
            "/etc/machine-id",
        ];
        let mut files = HostFiles::default();
        files.take(&wanted(&paths));
        assert_eq!(files.files().collect::<Vec<_>>(), Vec::<&Path>::new());
    }

    #[test]
    fn a_link_that_leaves_the_system_leads_nowhere() {
        // A process's view of another root, which no prefix covers.
        assert!(!is_system_path(Path::new("/proc/self/root/usr/bin/env")));
        let mut files = HostFiles::default();
        assert!(!files.take(&wanted(&["/etc/mtab"])));
    }

    #[test]
    fn a_folder_that_is_wanted_again_and_again_comes_in_whole() {
        let folder = Path::new("/usr/share/perl5");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut modules = files.map(|entry| entry.path()).filter(|path| path.is_dir());
        // Any package with modules in folders of their own will do.
        let Some(other) = modules.nth(TREE_AFTER as usize) else { return };
        let mut files = HostFiles::default();
        for time in 0..TREE_AFTER {
            assert!(files.entries().all(|(path, ..)| !path.starts_with(&other)), "after {time}");
            let listing = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
            let path = listing.filter(|path| path.is_dir()).nth(time as usize).unwrap();
            files.take(&wanted(&[path.to_str().unwrap()]));
        }
        assert!(files.entries().any(|(path, ..)| path.starts_with(&other)));
        assert!(files.files().any(|path| path.starts_with(folder)));
    }
}
