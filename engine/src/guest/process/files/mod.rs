//! Everything a process can open: the in-memory tree, its descriptors, the input, and what it
//! wrote to standard output and error. Never touches guest memory and never the host's files.

mod table;
mod tree;

pub(super) use table::{Event, Interest, Open, PIPE_ATOMIC_BYTES, PIPE_BYTES_MAX, Table, Target};
pub(super) use tree::{BOOT_NS, Device, Found, Kind, Node, NodeId, Proc, Tree};

use super::bytes::Bytes;
use super::errno::Errno;
use super::spec::Limits;
use super::stored::Refused;
use super::tracked::{Rewind, Tracked};
use crate::memory::SharedBytes;
use crate::snapshot::{Blob, HasBlobs};
use serde::{Deserialize, Serialize};

/// Bytes the process wrote to standard output or error; only grows during a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Output {
    pub(super) bytes: Bytes,
    bytes_max: u64,
}

impl Output {
    fn new(bytes_max: u64) -> Self {
        Self { bytes: Bytes::default(), bytes_max }
    }

    /// Bytes that may still be added.
    pub(super) fn room(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes.0.len() as u64)
    }

    /// Adds `count` bytes of which nobody knows the value, as far as there is room.
    pub(super) fn append_unknown(&mut self, count: u64) {
        let count = count.min(self.room()) as usize;
        self.bytes.0.resize(self.bytes.0.len() + count, 0);
    }

    /// Adds `data` unless that passes the limit: whether it did not.
    pub(super) fn append(&mut self, data: &[u8]) -> bool {
        if (self.bytes.0.len() as u64).saturating_add(data.len() as u64) > self.bytes_max {
            return false;
        }
        self.bytes.0.extend_from_slice(data);
        true
    }
}

impl HasBlobs for Files {
    fn for_each_blob(&mut self, visit: &mut dyn FnMut(&mut Blob)) {
        self.tree.renamed().for_each_blob(visit);
    }
}

impl Rewind for Output {
    fn rewind_to(&mut self, snapshot: &Self, related: bool) {
        self.bytes_max = snapshot.bytes_max;
        if related {
            self.bytes.0.truncate(snapshot.bytes.0.len());
        } else {
            self.bytes.copy_from(&snapshot.bytes.0);
        }
    }
}

/// The process's files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Files {
    pub(super) tree: Tracked<Tree>,
    pub(super) table: Tracked<Table>,
    pub(super) stdout: Tracked<Output>,
    pub(super) stderr: Tracked<Output>,
    /// The input's bytes: no part of what a rewind restores, as each run brings its own.
    pub(super) input: Bytes,
}

impl Files {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            tree: Tracked::new(Tree::new(limits.files, limits.file_bytes)),
            table: Tracked::new(Table::new(limits.open_files)),
            stdout: Tracked::new(Output::new(limits.stdout_bytes)),
            stderr: Tracked::new(Output::new(limits.stderr_bytes)),
            input: Bytes::default(),
        }
    }

    /// Checks files that were read from a snapshot; see `process::stored`.
    pub(super) fn check_stored(&self, limits: &Limits) -> Result<(), Refused> {
        self.tree.check_stored(limits)?;
        self.table.check_stored(limits)?;
        for (output, most) in
            [(&self.stdout, limits.stdout_bytes), (&self.stderr, limits.stderr_bytes)]
        {
            if output.bytes_max > most || output.bytes.0.len() as u64 > output.bytes_max {
                return Err("more output than a program may write");
            }
        }
        Ok(())
    }

    /// A regular file's bytes; none for anything else.
    pub(super) fn content(&self, node: NodeId) -> &[u8] {
        match self.tree.node(node).map(|node| &node.kind) {
            Some(Kind::Image(blob)) => blob,
            Some(Kind::File(bytes)) => &bytes.0,
            Some(Kind::Input) => &self.input.0,
            _ => &[],
        }
    }

    /// The bytes of a host file.
    pub(super) fn image(&self, node: NodeId) -> Option<SharedBytes> {
        match &self.tree.node(node)?.kind {
            Kind::Image(blob) => Some(blob.bytes().clone()),
            _ => None,
        }
    }

    /// Closes a descriptor and frees what nothing leads to any more.
    pub(super) fn close(&mut self, fd: u64) -> Result<(), Errno> {
        let closed = self.table.close(fd)?;
        self.forget(closed);
        Ok(())
    }

    /// Frees the node behind a closed target if nothing leads to it any more.
    pub(super) fn forget(&mut self, closed: Option<Target>) {
        if let Some(Target::Node(node)) = closed {
            let unreachable = self.tree.node(node).is_some_and(|node| node.links == 0);
            if unreachable && !self.table.is_open(node) {
                self.tree.free(node);
            }
        }
    }

    pub(super) fn rewind_to(&mut self, snapshot: &Self) {
        self.tree.rewind_to(&snapshot.tree);
        self.table.rewind_to(&snapshot.table);
        self.stdout.rewind_to(&snapshot.stdout);
        self.stderr.rewind_to(&snapshot.stderr);
    }

    /// Names what differs from `other`, the input's bytes apart.
    pub(super) fn differences(&self, other: &Self, into: &mut Vec<String>) {
        self.tree.differences(&other.tree, into);
        self.table.differences(&other.table, into);
        let outputs = [
            ("standard output", &self.stdout, &other.stdout),
            ("standard error", &self.stderr, &other.stderr),
        ];
        for (name, ours, theirs) in outputs {
            if ours.bytes != theirs.bytes {
                into.push(format!("{name}: {:?} were {:?}", ours.bytes, theirs.bytes));
            }
        }
    }
}
