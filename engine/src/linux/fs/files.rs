//! Everything a process can open: the in-memory tree, its descriptors, the input, and what it
//! wrote to standard output and error. Never touches guest memory and never the host's files.

use crate::linux::abi::errno::Errno;
use crate::linux::abi::fd::Fd;
use crate::linux::base::bytes::Bytes;
use crate::linux::base::limits::{Limits, Refused};
use crate::linux::base::tracked::{Rewind, Tracked};
use crate::linux::fs::table::{Table, Target};
use crate::linux::fs::tree::{Kind, NodeId, Tree};
use crate::stored::{Blob, HasBlobs, SharedBytes};
use serde::{Deserialize, Serialize};

/// Bytes the process wrote to standard output or error; only grows during a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) bytes: Bytes,
    bytes_max: u64,
    /// What takes the place of `bytes_max`, if somebody asked for it; a rewind does not undo it.
    #[serde(skip)]
    limit: Option<u64>,
}

impl Output {
    fn new(bytes_max: u64) -> Self {
        Self { bytes: Bytes::default(), bytes_max, limit: None }
    }

    /// From now on `bytes_max` bytes may be written in all, whatever the limit was.
    pub(crate) fn limit(&mut self, bytes_max: u64) {
        self.limit = Some(bytes_max);
    }

    /// Bytes that may still be added.
    pub(crate) fn room(&self) -> u64 {
        let bytes_max = self.limit.unwrap_or(self.bytes_max);
        bytes_max.saturating_sub(self.bytes.0.len() as u64)
    }

    /// Adds `count` bytes of which nobody knows the value, as far as there is room.
    pub(crate) fn append_unknown(&mut self, count: u64) {
        let count = count.min(self.room()) as usize;
        self.bytes.0.resize(self.bytes.0.len() + count, 0);
    }

    /// Adds `data` unless that passes the limit: whether it did not.
    pub(crate) fn append(&mut self, data: &[u8]) -> bool {
        if data.len() as u64 > self.room() {
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
pub(crate) struct Files {
    pub(crate) tree: Tracked<Tree>,
    pub(crate) table: Tracked<Table>,
    pub(crate) stdout: Tracked<Output>,
    pub(crate) stderr: Tracked<Output>,
    /// The input's bytes: no part of what a rewind restores, as each run brings its own.
    pub(crate) input: Bytes,
}

impl Files {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            tree: Tracked::new(Tree::new(limits.files, limits.file_bytes)),
            table: Tracked::new(Table::new(limits.open_files)),
            stdout: Tracked::new(Output::new(limits.stdout_bytes)),
            stderr: Tracked::new(Output::new(limits.stderr_bytes)),
            input: Bytes::default(),
        }
    }

    /// Checks files that were read from a snapshot; see `process::stored`.
    pub(crate) fn check_stored(&self, limits: &Limits) -> Result<(), Refused> {
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
    pub(crate) fn content(&self, node: NodeId) -> &[u8] {
        match self.tree.node(node).map(|node| &node.kind) {
            Some(Kind::Image(blob)) => blob,
            Some(Kind::File(bytes)) => &bytes.0,
            Some(Kind::Input) => &self.input.0,
            _ => &[],
        }
    }

    /// The bytes of a host file.
    pub(crate) fn image(&self, node: NodeId) -> Option<SharedBytes> {
        match &self.tree.node(node)?.kind {
            Kind::Image(blob) => Some(blob.bytes().clone()),
            _ => None,
        }
    }

    /// Closes a descriptor and frees what nothing leads to any more.
    pub(crate) fn close(&mut self, fd: Fd) -> Result<(), Errno> {
        let closed = self.table.close(fd)?;
        self.forget(closed);
        Ok(())
    }

    /// Frees the node behind a closed target if nothing leads to it any more.
    pub(crate) fn forget(&mut self, closed: Option<Target>) {
        if let Some(Target::Node(node)) = closed {
            let unreachable = self.tree.node(node).is_some_and(|node| node.links == 0);
            if unreachable && !self.table.is_open(node) {
                self.tree.free(node);
            }
        }
    }

    pub(crate) fn rewind_to(&mut self, snapshot: &Self) {
        self.tree.rewind_to(&snapshot.tree);
        self.table.rewind_to(&snapshot.table);
        self.stdout.rewind_to(&snapshot.stdout);
        self.stderr.rewind_to(&snapshot.stderr);
    }

    /// Names what differs from `other`, the input's bytes apart.
    pub(crate) fn differences(&self, other: &Self, into: &mut Vec<String>) {
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
