//! Page-table entries that have to stay as they are while a program runs. Never changes one.

use crate::address::Gpa;
use crate::paging::Tables;
use std::collections::HashSet;

/// The entries that show rewritten code, trampolines and maps.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub entries: HashSet<Gpa>,
    /// Changes of entries that were looked at in this run.
    checked: usize,
    /// One of them was a change of these.
    is_changed: bool,
}

impl Watch {
    pub(super) fn new(entries: HashSet<Gpa>) -> Self {
        Self { entries, ..Self::default() }
    }

    /// Whether none of them has changed in this run, `tables` being in use.
    pub(super) fn are_same(&mut self, tables: &Tables) -> bool {
        let mut changed = tables.changed();
        let count = changed.len();
        self.is_changed |= changed.by_ref().skip(self.checked).any(|s| self.entries.contains(&s));
        drop(changed);
        self.checked = count;
        !self.is_changed
    }

    /// The changes are undone.
    pub(super) fn end_run(&mut self) {
        (self.checked, self.is_changed) = (0, false);
    }
}
