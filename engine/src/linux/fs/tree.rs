//! The in-memory file system: directories, files, symbolic links and a few devices, addressed by
//! node numbers.
//!
//! Never reads the host: whoever builds the tree hands the bytes in. Stored node numbers are
//! never trusted: every look-up may fail.

use crate::linux::abi::errno::{
    EEXIST, EFBIG, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, Errno,
};
use crate::linux::abi::fd::Fd;
use crate::linux::base::bytes::Bytes;
use crate::linux::base::limits::{FILES_MAX, Limits, Refused};
use crate::linux::base::tracked::Rewind;
use crate::stored::{Blob, HasBlobs, bounded_list};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest name of one directory entry.
const NAME_MAX: usize = 255;
/// Symbolic links followed in one look-up before it is called a loop, as in Linux.
const LINKS_MAX: u32 = 40;

/// A node's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct NodeId(pub(crate) u32);

impl NodeId {
    /// The root directory.
    pub(crate) const ROOT: Self = Self(0);
    /// The input, whether or not a path leads to it.
    pub(crate) const INPUT: Self = Self(1);

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// A device without hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Device {
    Null,
    Zero,
    Full,
    Random,
    /// `/dev/tty`: there is no terminal.
    Terminal,
}

/// What `/proc/self` tells that changes while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Proc {
    Comm,
    Limits,
    Maps,
    Stat,
    Statm,
    Status,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Directory {
        entries: BTreeMap<Vec<u8>, NodeId>,
        parent: NodeId,
    },
    /// A host file's bytes as they were at boot; never changes.
    Image(Blob),
    /// A file that the guest may change, if it owns it.
    File(Bytes),
    /// The input; its bytes live outside of the tree, as they change with every run.
    Input,
    Link(Vec<u8>),
    Device(Device),
    /// `/proc/self/fd`.
    Descriptors,
    /// A file of `/proc/self` that is written anew whenever it is opened.
    Proc(Proc),
    /// A host file whose bytes were not loaded, and its size: there to be listed, not opened.
    Unread(u64),
}

/// One file, directory, link or device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Whether the guest's user owns it, and so may write to it.
    pub(crate) owned: bool,
    /// Directory entries that lead to it.
    pub(crate) links: u32,
    /// Time of the last change, in nanoseconds since 1970.
    pub(crate) modified_ns: u64,
    /// Whether it was ever mapped; such a node lives on when nothing else leads to it.
    pub(crate) mapped: bool,
    /// Whether it is a directory of the host's of which only some entries are here.
    pub(crate) partial: bool,
}

/// The guest's clock at boot, in nanoseconds since 1970: the start of 2024, UTC.
pub(crate) const BOOT_NS: u64 = 1_704_067_200 * 1_000_000_000;

impl Node {
    pub(crate) fn new(kind: Kind, mode: u32, owned: bool) -> Self {
        Self { kind, mode, owned, links: 0, modified_ns: BOOT_NS, mapped: false, partial: false }
    }

    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. } | Kind::Descriptors)
    }

    fn copy_from(&mut self, other: &Self) {
        match (&mut self.kind, &other.kind) {
            (Kind::File(ours), Kind::File(theirs)) => {
                ours.copy_from(&theirs.0);
                self.mode = other.mode;
                self.owned = other.owned;
                self.links = other.links;
                self.modified_ns = other.modified_ns;
                self.mapped = other.mapped;
                self.partial = other.partial;
            }
            _ => self.clone_from(other),
        }
    }
}

/// Where a path leads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    /// To something that exists.
    Node(NodeId),
    /// To an open descriptor, through `/proc/self/fd`.
    Descriptor(Fd),
    /// To a free name in an existing directory.
    Missing {
        /// The directory.
        parent: NodeId,
        /// The name.
        name: &'a [u8],
        /// Whether the path ends with a slash.
        slash: bool,
    },
}

/// The file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tree {
    #[serde(deserialize_with = "bounded_list::<_, _, FILES_MAX>")]
    nodes: Vec<Option<Node>>,
    nodes_max: usize,
    /// Bytes in all files the guest wrote.
    written_bytes: u64,
    written_bytes_max: u64,
    /// Nodes changed since the last rewind.
    #[serde(skip)]
    changed: Changed,
    /// No node before this one is free.
    #[serde(skip)]
    free_from: usize,
}

/// Nodes that were changed, each once.
#[derive(Clone, Debug, Default)]
struct Changed {
    list: Vec<NodeId>,
    marks: Vec<bool>,
}

impl Changed {
    fn add(&mut self, id: NodeId) {
        if id.index() >= self.marks.len() {
            self.marks.resize(id.index() + 1, false);
        }
        if let Some(mark) = self.marks.get_mut(id.index())
            && !std::mem::replace(mark, true)
        {
            self.list.push(id);
        }
    }

    fn take(&mut self) -> Option<NodeId> {
        let id = self.list.pop()?;
        if let Some(mark) = self.marks.get_mut(id.index()) {
            *mark = false;
        }
        Some(id)
    }
}

impl Tree {
    /// A tree with an empty root and the input.
    pub(crate) fn new(nodes_max: usize, written_bytes_max: u64) -> Self {
        let root = Kind::Directory { entries: BTreeMap::new(), parent: NodeId::ROOT };
        let mut root = Node::new(root, 0o755, false);
        let mut input = Node::new(Kind::Input, 0o644, false);
        // Two references from outside of the tree, so that neither is ever freed.
        root.links = 1;
        input.links = 1;
        Self {
            nodes: vec![Some(root), Some(input)],
            nodes_max,
            written_bytes: 0,
            written_bytes_max,
            changed: Changed::default(),
            free_from: 0,
        }
    }

    /// Checks a tree that was read from a snapshot. Every directory is entered once at most, and
    /// leads back to where it is, so that no way up goes round.
    pub(crate) fn check_stored(&self, limits: &Limits) -> Result<(), Refused> {
        if self.nodes_max > limits.files || self.nodes.len() > self.nodes_max {
            return Err("more files than a program may have");
        }
        let written = self.nodes.iter().flatten().map(|node| match &node.kind {
            // Others were there from the start.
            Kind::File(bytes) if node.owned => bytes.0.len() as u64,
            _ => 0,
        });
        if self.written_bytes_max > limits.file_bytes || written.sum::<u64>() > self.written_bytes {
            return Err("more in files than a program may write");
        }
        let mut entered = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(Node { kind: Kind::Directory { entries, .. }, .. }) = node else { continue };
            for child in entries.values() {
                let Some(node) = self.node(*child) else {
                    return Err("a folder with a file in it that is not there");
                };
                if let Kind::Directory { parent, .. } = &node.kind
                    && (parent.index() != index
                        || std::mem::replace(&mut entered[child.index()], true))
                {
                    return Err("a folder that is in more than one place");
                }
            }
        }
        Ok(())
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index())?.as_ref()
    }

    /// A node to change; the change is undone by the next rewind.
    pub(crate) fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        // An identifier that was never given out is not worth a mark.
        let slot = self.nodes.get_mut(id.index())?;
        self.changed.add(id);
        slot.as_mut()
    }

    fn entries_mut(&mut self, id: NodeId) -> Result<&mut BTreeMap<Vec<u8>, NodeId>, Errno> {
        match self.node_mut(id).map(|node| &mut node.kind) {
            Some(Kind::Directory { entries, .. }) => Ok(entries),
            _ => Err(ENOTDIR),
        }
    }

    /// Adds a node that no path leads to yet.
    pub(crate) fn add(&mut self, node: Node) -> Result<NodeId, Errno> {
        let taken = self.nodes.iter().skip(self.free_from).take_while(|node| node.is_some());
        let free = self.free_from + taken.count();
        let id = NodeId(u32::try_from(free).map_err(|_| ENOSPC)?);
        if free >= self.nodes_max {
            return Err(ENOSPC);
        }
        if let (Kind::File(bytes), true) = (&node.kind, node.owned) {
            self.charge(0, bytes.0.len() as u64)?;
        }
        match self.nodes.get_mut(free) {
            Some(slot) => *slot = Some(node),
            None => self.nodes.push(Some(node)),
        }
        self.free_from = free + 1;
        self.node_mut(id);
        Ok(id)
    }

    /// Enters `id` under `name`.
    pub(crate) fn link(&mut self, parent: NodeId, name: &[u8], id: NodeId) -> Result<(), Errno> {
        let entries = self.entries_mut(parent)?;
        if entries.contains_key(name) {
            return Err(EEXIST);
        }
        entries.insert(name.to_vec(), id);
        let Some(node) = self.node_mut(id) else { return Err(ENOENT) };
        node.links = node.links.saturating_add(1);
        if let Kind::Directory { parent: up, .. } = &mut node.kind {
            *up = parent;
        }
        Ok(())
    }

    /// Takes `name` out of a directory; the node itself lives on until [`free`](Self::free).
    pub(crate) fn unlink(&mut self, parent: NodeId, name: &[u8]) -> Result<NodeId, Errno> {
        let id = self.entries_mut(parent)?.remove(name).ok_or(ENOENT)?;
        if let Some(node) = self.node_mut(id) {
            node.links = node.links.saturating_sub(1);
        }
        Ok(id)
    }

    /// Frees a node that nothing leads to any more.
    pub(crate) fn free(&mut self, id: NodeId) {
        let Some(node) = self.node(id) else { return };
        if node.links > 0 || node.mapped || id == NodeId::INPUT || id == NodeId::ROOT {
            return;
        }
        if let (Kind::File(bytes), true) = (&node.kind, node.owned) {
            self.written_bytes = self.written_bytes.saturating_sub(bytes.0.len() as u64);
        }
        self.node_mut(id);
        self.free_from = self.free_from.min(id.index());
        if let Some(slot) = self.nodes.get_mut(id.index()) {
            *slot = None;
        }
    }

    fn charge(&mut self, old_len: u64, new_len: u64) -> Result<(), Errno> {
        let total = self.written_bytes.saturating_sub(old_len).saturating_add(new_len);
        if new_len > old_len && total > self.written_bytes_max {
            return Err(ENOSPC);
        }
        self.written_bytes = total;
        Ok(())
    }

    /// Sets a writable file's length, cutting it or adding zeros.
    pub(crate) fn set_len(&mut self, id: NodeId, len: u64) -> Result<(), Errno> {
        let old_len = match self.node(id).map(|node| &node.kind) {
            Some(Kind::File(bytes)) => bytes.0.len() as u64,
            Some(Kind::Directory { .. }) => return Err(EISDIR),
            _ => return Err(EINVAL),
        };
        let new_len = usize::try_from(len).map_err(|_| EFBIG)?;
        self.charge(old_len, len)?;
        if let Some(Node { kind: Kind::File(bytes), .. }) = self.node_mut(id) {
            bytes.0.resize(new_len, 0);
        }
        Ok(())
    }

    /// Fills a part of a writable file with zeros, as far as the file goes.
    pub(crate) fn clear(&mut self, id: NodeId, from: u64, to: u64) -> Result<(), Errno> {
        let Some(Node { kind: Kind::File(bytes), .. }) = self.node_mut(id) else {
            return Err(EINVAL);
        };
        let len = bytes.0.len();
        let bound = |at: u64| usize::try_from(at).unwrap_or(len).min(len);
        if let Some(part) = bytes.0.get_mut(bound(from)..bound(to)) {
            part.fill(0);
        }
        Ok(())
    }

    /// Writes to a writable file, growing it as needed.
    pub(crate) fn write_at(&mut self, id: NodeId, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let end = offset.checked_add(data.len() as u64).ok_or(EFBIG)?;
        match self.node(id).map(|node| &node.kind) {
            Some(Kind::File(bytes)) if end > bytes.0.len() as u64 => self.set_len(id, end)?,
            Some(Kind::File(_)) => {}
            _ => return Err(EINVAL),
        }
        if let Some(Node { kind: Kind::File(bytes), .. }) = self.node_mut(id) {
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            if let Some(out) = range.and_then(|(from, to)| bytes.0.get_mut(from..to)) {
                out.copy_from_slice(data);
            }
        }
        Ok(())
    }

    /// Follows `path` from directory `base`; `follow` says whether a symbolic link at its end is
    /// followed too.
    pub(crate) fn resolve<'a>(
        &'a self,
        base: NodeId,
        path: &'a [u8],
        follow: bool,
    ) -> Result<Found<'a>, Errno> {
        self.walk(base, path, follow, &mut 0)
    }

    fn walk<'a>(
        &'a self,
        base: NodeId,
        path: &'a [u8],
        follow: bool,
        links: &mut u32,
    ) -> Result<Found<'a>, Errno> {
        if path.is_empty() {
            return Err(ENOENT);
        }
        let slash = path.last() == Some(&b'/');
        let mut here = if path.first() == Some(&b'/') { NodeId::ROOT } else { base };
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let last = names.peek().is_none();
            if name.len() > NAME_MAX {
                return Err(ENAMETOOLONG);
            }
            let next = match (&self.node(here).ok_or(ENOENT)?.kind, name) {
                (Kind::Directory { .. } | Kind::Descriptors, b".") => Some(here),
                (Kind::Descriptors, b"..") => self.parent_of(here),
                (Kind::Directory { parent, .. }, b"..") => Some(*parent),
                (Kind::Directory { entries, .. }, name) => entries.get(name).copied(),
                (Kind::Descriptors, name) => {
                    let number = std::str::from_utf8(name).ok().and_then(|n| n.parse().ok());
                    let number = number.map(Fd::from_register);
                    return match number {
                        Some(number) if last && !slash => Ok(Found::Descriptor(number)),
                        Some(_) => Err(ENOTDIR),
                        None => Err(ENOENT),
                    };
                }
                _ => return Err(ENOTDIR),
            };
            let Some(next) = next else {
                let missing = Found::Missing { parent: here, name, slash };
                return if last { Ok(missing) } else { Err(ENOENT) };
            };
            here = match &self.node(next).ok_or(ENOENT)?.kind {
                Kind::Link(target) if !last || follow || slash => {
                    *links += 1;
                    if *links > LINKS_MAX {
                        return Err(ELOOP);
                    }
                    match self.walk(here, target, true, links)? {
                        Found::Node(id) => id,
                        other if last && !slash => return Ok(other),
                        Found::Descriptor(_) => return Err(ENOTDIR),
                        Found::Missing { .. } => return Err(ENOENT),
                    }
                }
                _ => next,
            };
        }
        if slash && !self.node(here).is_some_and(Node::is_directory) {
            return Err(ENOTDIR);
        }
        Ok(Found::Node(here))
    }

    /// The directory that holds `id`.
    fn parent_of(&self, id: NodeId) -> Option<NodeId> {
        let holds = |node: &Node| match &node.kind {
            Kind::Directory { entries, .. } => entries.values().any(|child| *child == id),
            _ => false,
        };
        let up = self.nodes.iter().position(|node| node.as_ref().is_some_and(holds))?;
        u32::try_from(up).ok().map(NodeId)
    }

    /// The absolute path of a node; `None` for one that no path leads to.
    pub(crate) fn path_of(&self, id: NodeId) -> Option<Vec<u8>> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut here = id;
        while here != NodeId::ROOT {
            let (up, name) =
                self.nodes.iter().enumerate().find_map(|(i, node)| match &node.as_ref()?.kind {
                    Kind::Directory { entries, .. } => {
                        let entry = entries.iter().find(|(_, child)| **child == here);
                        entry.map(|(name, _)| (i, &**name))
                    }
                    _ => None,
                })?;
            // Stored trees may contain loops.
            if names.len() > self.nodes.len() {
                return None;
            }
            names.push(name);
            here = NodeId(u32::try_from(up).ok()?);
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }

    /// Names what differs from `other`.
    pub(crate) fn differences(&self, other: &Self, into: &mut Vec<String>) {
        let nodes = self.nodes.len().max(other.nodes.len());
        for index in 0..nodes {
            let ours = self.nodes.get(index).and_then(Option::as_ref);
            let theirs = other.nodes.get(index).and_then(Option::as_ref);
            if ours != theirs {
                let id = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
                let path = self.path_of(id).or_else(|| other.path_of(id)).unwrap_or_default();
                into.push(format!("file {index} ({})", String::from_utf8_lossy(&path)));
            }
        }
        if self.written_bytes != other.written_bytes {
            into.push(format!(
                "{} bytes in files were {}",
                self.written_bytes, other.written_bytes
            ));
        }
    }
}

impl HasBlobs for Tree {
    fn for_each_blob(&mut self, visit: &mut dyn FnMut(&mut Blob)) {
        for node in self.nodes.iter_mut().flatten() {
            if let Kind::Image(blob) = &mut node.kind {
                visit(blob);
            }
        }
    }
}

impl Rewind for Tree {
    fn rewind_to(&mut self, snapshot: &Self, related: bool) {
        self.nodes_max = snapshot.nodes_max;
        self.free_from = 0;
        self.written_bytes = snapshot.written_bytes;
        self.written_bytes_max = snapshot.written_bytes_max;
        if !related {
            self.nodes.clone_from(&snapshot.nodes);
            while self.changed.take().is_some() {}
            return;
        }
        self.nodes.truncate(snapshot.nodes.len());
        while let Some(id) = self.changed.take() {
            let theirs = snapshot.nodes.get(id.index());
            match (self.nodes.get_mut(id.index()), theirs) {
                (Some(Some(ours)), Some(Some(theirs))) => ours.copy_from(theirs),
                (Some(ours), Some(theirs)) => ours.clone_from(theirs),
                _ => {}
            }
        }
    }
}
