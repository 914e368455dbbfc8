//! What holds for this workspace.

use crate::findings::Findings;
use crate::ladder::Ladder;
use crate::sources::Sources;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Every table that puts modules in an order.
const LADDERS: &[Ladder] = &[
    Ladder {
        document: "docs/ARCHITECTURE.md",
        after: "## The engine, from the bottom up",
        root: &["dejavm_engine"],
    },
    Ladder { document: "engine/src/linux/mod.rs", after: "", root: &["dejavm_engine", "linux"] },
];

/// Read once, because it takes a second.
static FOUND: LazyLock<Findings> = LazyLock::new(|| {
    let root = std::env::var_os("DEJAVM_LAYERING_ROOT")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), PathBuf::from);
    Findings::of(&Sources::read(&root), LADDERS)
});

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_file_is_in_a_module_tree() {
    assert_none(&[&FOUND.unreadable[..], &FOUND.orphans].concat());
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    assert_none(&FOUND.circles);
}

#[test]
fn modules_use_only_what_stands_above_them_and_tables_name_them_all() {
    assert_none(&FOUND.ladders);
}

#[test]
fn engine_and_corpus_meet_only_in_the_command() {
    assert_none(&FOUND.crates);
}

#[test]
fn a_linux_for_one_process_knows_no_vm() {
    assert_none(&FOUND.wings);
}

#[test]
fn unsafe_code_stands_behind_its_fences() {
    assert_none(&FOUND.fences);
}
