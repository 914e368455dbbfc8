//! Brings host files into the guest's tree, at boot: each under its own path with the symbolic
//! links on the way, or under a path of the caller's choice. Beside `system`, the only module here
//! that opens host files; nothing calls it once the guest runs.

use crate::linux::abi::errno::Errno;
use crate::linux::fs::tree::{Found, Kind, Node, NodeId, Tree};
use crate::linux::loader::host_files::take::{LINKS_MAX, names_reversed};
use crate::linux::loader::host_files::{Entry, HostFiles};
use crate::linux::loader::spec::LoadError;
use crate::stored::SharedBytes;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Directories within directories in a mapping.
const DEPTH_MAX: u32 = 64;

/// A host file that is now in the tree.
#[derive(Clone, Debug)]
pub(crate) struct Imported {
    pub(crate) node: NodeId,
    pub(crate) bytes: SharedBytes,
    /// Absolute, without symbolic links.
    pub(crate) path: PathBuf,
}

/// Fills a tree from the host.
pub(crate) struct Importer<'a> {
    pub(crate) tree: &'a mut Tree,
    bytes_left: u64,
    bytes_max: u64,
    read: BTreeMap<PathBuf, Imported>,
}

fn guest_path(path: &Path, errno: Errno) -> LoadError {
    let what = match errno {
        crate::linux::abi::errno::ENOSPC => {
            "there are too many files; map fewer, or raise the limit"
        }
        crate::linux::abi::errno::ENOTDIR => "a part of the path is no directory in the guest",
        crate::linux::abi::errno::EEXIST => "the guest has something else under this path",
        crate::linux::abi::errno::ELOOP => "its symbolic links form a loop",
        _ => "the guest cannot have this path",
    };
    LoadError::GuestPath { path: path.to_owned(), what }
}

impl<'a> Importer<'a> {
    pub(crate) fn new(tree: &'a mut Tree, bytes_max: u64) -> Self {
        Self { tree, bytes_left: bytes_max, bytes_max, read: BTreeMap::new() }
    }

    /// A host file's bytes as a node; each file is read once.
    fn read(&mut self, path: &Path) -> Result<Imported, LoadError> {
        let failed = |source| LoadError::Read { path: path.to_owned(), source };
        let real = fs::canonicalize(path).map_err(failed)?;
        if let Some(imported) = self.read.get(&real) {
            return Ok(imported.clone());
        }
        let facts = fs::metadata(&real).map_err(failed)?;
        if facts.is_dir() {
            return Err(LoadError::Directory { path: path.to_owned() });
        }
        if !facts.is_file() {
            // Opening a FIFO would wait for ever.
            let kind = std::io::ErrorKind::InvalidInput;
            return Err(failed(std::io::Error::new(kind, "it is no regular file")));
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&real).map_err(failed)?;
        file.take(self.bytes_left.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        self.bytes_left = self.bytes_left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            LoadError::TooManyBytes { path: path.to_owned(), max: self.bytes_max }
        })?;
        let bytes = SharedBytes::from(bytes);
        let mut node = Node::new(Kind::Image(bytes.clone().into()), 0o755, false);
        let facts = crate::linux::loader::host_files::host_stat(&facts);
        (node.mode, node.modified_ns) = (facts.mode & 0o755 | 0o444, facts.modified_ns);
        let node = self.tree.add(node).map_err(|errno| guest_path(path, errno))?;
        let imported = Imported { node, bytes, path: real.clone() };
        self.read.insert(real, imported.clone());
        Ok(imported)
    }

    /// Brings in a host file under its own path, and every symbolic link on the way to it.
    pub(crate) fn import(&mut self, path: &Path) -> Result<Imported, LoadError> {
        let failed = |source| LoadError::Read { path: path.to_owned(), source };
        let imported = self.read(path)?;
        let absolute = std::path::absolute(path).map_err(failed)?;
        let mut names: Vec<OsString> = names_reversed(&absolute);
        let mut host = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = names.pop() {
            if name == ".." {
                host.pop();
                continue;
            }
            host.push(&name);
            if let Ok(target) = fs::read_link(&host) {
                links += 1;
                if links > LINKS_MAX {
                    return Err(guest_path(path, crate::linux::abi::errno::ELOOP));
                }
                let node =
                    Node::new(Kind::Link(target.as_os_str().as_bytes().into()), 0o777, false);
                self.place_if_absent(&host, node)?;
                if target.is_absolute() {
                    host = PathBuf::from("/");
                } else {
                    host.pop();
                }
                names.extend(names_reversed(&target));
            } else if names.iter().any(|name| name == "..") {
                // A later `..` needs the directory to exist.
                self.directory(&host).map_err(|errno| guest_path(&host, errno))?;
            }
        }
        self.place_node(&imported.path, imported.node)?;
        Ok(imported)
    }

    /// Brings in a host file or directory under a path of the caller's choice.
    pub(crate) fn map(&mut self, host: &Path, guest: &Path) -> Result<(), LoadError> {
        self.map_within(host, guest, DEPTH_MAX)
    }

    /// Makes a file that the guest can read and execute.
    pub(crate) fn make(&mut self, guest: &Path, bytes: &[u8]) -> Result<(), LoadError> {
        let image = SharedBytes::from(bytes.to_vec());
        let node = self.tree.add(Node::new(Kind::Image(image.into()), 0o755, false));
        self.place_node(guest, node.map_err(|errno| guest_path(guest, errno))?)
    }

    fn map_within(&mut self, host: &Path, guest: &Path, depth: u32) -> Result<(), LoadError> {
        let failed = |source| LoadError::Read { path: host.to_owned(), source };
        if !fs::metadata(host).map_err(failed)?.is_dir() {
            let node = self.read(host)?.node;
            return self.place_node(guest, node);
        }
        if depth == 0 {
            let what = "directories are nested too deeply";
            return Err(LoadError::GuestPath { path: guest.to_owned(), what });
        }
        self.directory(guest).map_err(|errno| guest_path(guest, errno))?;
        let entries = fs::read_dir(host).map_err(failed)?;
        let names: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.file_name())).collect();
        let mut names = names.map_err(failed)?;
        // The host's order of entries must not show in the guest.
        names.sort();
        for name in names {
            let (from, to) = (host.join(&name), guest.join(&name));
            let kind = fs::symlink_metadata(&from).map_err(failed)?.file_type();
            if kind.is_symlink() {
                let target = fs::read_link(&from).map_err(failed)?;
                let node = Kind::Link(target.as_os_str().as_bytes().into());
                self.place_if_absent(&to, Node::new(node, 0o777, false))?;
            } else if kind.is_dir() || kind.is_file() {
                self.map_within(&from, &to, depth - 1)?;
            }
        }
        Ok(())
    }

    /// Brings in the host's system files under their own paths, where nothing else is; what the
    /// guest has of its own, or was given by name, counts.
    pub(crate) fn place_system(&mut self, files: &HostFiles) {
        for (path, facts, entry) in files.entries() {
            let kind = match entry {
                Entry::Directory { complete } => {
                    let directory = self.directory(path);
                    let node = directory.ok().and_then(|id| self.tree.node_mut(id));
                    if let Some(node) = node.filter(|node| !node.owned) {
                        node.partial &= !complete;
                        (node.mode, node.modified_ns) = (facts.mode, facts.modified_ns);
                    }
                    continue;
                }
                Entry::File(bytes) => Kind::Image(bytes.clone().into()),
                Entry::Unread => Kind::Unread(facts.size),
                Entry::Link(target) => Kind::Link(target.as_bytes().to_vec()),
            };
            let mut node = Node::new(kind, facts.mode, false);
            node.modified_ns = facts.modified_ns;
            let _ = self.place_if_absent(path, node);
        }
    }

    /// The directory at a guest path, made where it is missing.
    pub(crate) fn directory(&mut self, path: &Path) -> Result<NodeId, Errno> {
        let path = Path::new(crate::linux::loader::spec::WORKING_DIRECTORY).join(path);
        let mut here = NodeId::ROOT;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name.as_bytes(),
                Component::ParentDir => b"..",
                _ => continue,
            };
            here = match self.tree.resolve(here, name, true)? {
                Found::Node(id) => id,
                Found::Descriptor(_) => return Err(crate::linux::abi::errno::ENOTDIR),
                Found::Missing { parent, name, .. } => {
                    let name = name.to_vec();
                    let kind = Kind::Directory { entries: BTreeMap::new(), parent };
                    let mut node = Node::new(kind, 0o755, false);
                    node.partial = true;
                    let id = self.tree.add(node)?;
                    self.tree.link(parent, &name, id)?;
                    id
                }
            };
        }
        Ok(here)
    }

    /// Enters a node under a guest path, replacing what is there.
    pub(crate) fn place_node(&mut self, path: &Path, node: NodeId) -> Result<(), LoadError> {
        let failed = |errno| guest_path(path, errno);
        let (parent, name) = self.split(path)?;
        let present = match self.tree.resolve(parent, name.as_bytes(), false).map_err(failed)? {
            Found::Node(id) => Some(id),
            _ => None,
        };
        if present == Some(node) {
            return Ok(());
        }
        if let Some(present) = present {
            if self.tree.node(present).is_some_and(Node::is_directory) {
                return Err(failed(crate::linux::abi::errno::EEXIST));
            }
            self.tree.unlink(parent, name.as_bytes()).map_err(failed)?;
        }
        self.tree.link(parent, name.as_bytes(), node).map_err(failed)
    }

    /// Enters a new node under a guest path unless something is there.
    pub(crate) fn place_if_absent(&mut self, path: &Path, node: Node) -> Result<(), LoadError> {
        let failed = |errno| guest_path(path, errno);
        let (parent, name) = self.split(path)?;
        if let Found::Missing { .. } =
            self.tree.resolve(parent, name.as_bytes(), false).map_err(failed)?
        {
            let id = self.tree.add(node).map_err(failed)?;
            self.tree.link(parent, name.as_bytes(), id).map_err(failed)?;
        }
        Ok(())
    }

    /// The directory a guest path lies in, made where it is missing, and the path's last name.
    fn split<'p>(&mut self, path: &'p Path) -> Result<(NodeId, &'p OsStr), LoadError> {
        let what = "it has no file name";
        let name =
            path.file_name().ok_or_else(|| LoadError::GuestPath { path: path.to_owned(), what })?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let parent = self.directory(parent).map_err(|errno| guest_path(path, errno))?;
        Ok((parent, name))
    }
}
