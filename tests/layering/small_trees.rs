//! Small workspaces in which a claim fails, and what it says then: each of the claims can fail.

use crate::findings::Findings;
use crate::ladder::Ladder;
use crate::sources::{Sources, Target};

const LADDERS: &[Ladder] = &[
    Ladder { document: "ORDER.md", after: "## Order", root: &["dejavm_engine"] },
    Ladder { document: "engine/src/fs/mod.rs", after: "", root: &["dejavm_engine", "fs"] },
];

/// The root files that a small workspace may have: package, library, file.
const TARGETS: &[(&str, Option<&str>, &str)] = &[
    ("dejavm-engine", Some("dejavm_engine"), "engine/src/lib.rs"),
    ("dejavm-corpus", Some("dejavm_corpus"), "corpus/src/lib.rs"),
    ("dejavm", None, "cli/src/main.rs"),
    ("dejavm", None, "tests/all/main.rs"),
];

fn find(files: &[(&str, &str)]) -> Findings {
    let has = |name: &str| files.iter().any(|(file, _)| *file == name);
    let targets =
        TARGETS.iter().filter(|(_, _, file)| has(file)).map(|&(package, library, file)| Target {
            package: package.into(),
            library: library.map(Into::into),
            file: file.into(),
        });
    let texts = files.iter().map(|&(file, text)| (file.to_owned(), text.to_owned()));
    Findings::of(&Sources { targets: targets.collect(), texts: texts.collect() }, LADDERS)
}

/// The circles among files of an engine, whose names here are without their folder.
fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> =
        files.iter().map(|(file, text)| (format!("engine/src/{file}"), *text)).collect();
    let files: Vec<_> = files.iter().map(|(file, text)| (file.as_str(), *text)).collect();
    let found = find(&files);
    assert_eq!(found.unreadable, [""; 0]);
    found.circles.iter().map(|told| told.replace("engine/src/", "")).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn two_files_that_use_each_other_are_a_circle() {
    let files = [
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "use std::fs;\nuse crate::b::{self, B};"),
        ("b.rs", "pub struct B(super::a::A);"),
    ];
    let told = "circle of 2 files:\n  \
        1. a.rs:2 -> b.rs: crate::b (and 1 more)\n     \
        b.rs:1 -> a.rs: super::a::A";
    assert_eq!(circles(&files), [told]);
}

#[test]
fn files_that_use_each_other_through_others_are_a_circle() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; use crate::d::D;"),
        ("b/mod.rs", "\nuse super::c::C;"),
        ("c.rs", "\n\nuse dejavm_engine::a::A;"),
        ("d.rs", ""),
    ];
    let told = "circle of 3 files:\n  \
        1. a.rs:1 -> b/mod.rs: crate::b::B\n     \
        b/mod.rs:2 -> c.rs: super::c::C\n     \
        c.rs:3 -> a.rs: dejavm_engine::a::A";
    assert_eq!(circles(&files), [told]);
}

#[test]
fn a_large_circle_is_described_by_short_cycles() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::{X, Y};"),
        ("b.rs", "use crate::a::A; use crate::c::{X, Y};"),
        ("c.rs", "use crate::b::B;"),
    ];
    let told = "circle of 3 files:\n  \
        1. a.rs:1 -> b.rs: crate::b::X (and 1 more)\n     \
        b.rs:1 -> a.rs: crate::a::A\n  \
        2. b.rs:1 -> c.rs: crate::c::X (and 1 more)\n     \
        c.rs:1 -> b.rs: crate::b::B";
    assert_eq!(circles(&files), [told]);
}

#[test]
fn a_glob_uses_the_file_that_it_opens() {
    let files = [("lib.rs", "mod a;\nfn f() { a::f() }"), ("a.rs", "use super::*;")];
    let told = "circle of 2 files:\n  \
        1. a.rs:1 -> lib.rs: super::*\n     \
        lib.rs:2 -> a.rs: a::f";
    assert_eq!(circles(&files), [told]);
}

#[test]
fn a_re_export_that_a_child_takes_through_its_parent_closes_a_circle() {
    let parent = ("a/mod.rs", "mod x;\nmod y;\npub use x::X;");
    let through_parent =
        [("lib.rs", "mod a;"), parent, ("a/x.rs", "use super::y::Y;"), ("a/y.rs", "use super::X;")];
    let told = "circle of 3 files:\n  \
        1. a/mod.rs:3 -> a/x.rs: x::X\n     \
        a/x.rs:1 -> a/y.rs: super::y::Y\n     \
        a/y.rs:1 -> a/mod.rs: super::X";
    assert_eq!(circles(&through_parent), [told]);
    let from_sibling =
        [("lib.rs", "mod a;"), parent, ("a/x.rs", "use super::y::Y;"), ("a/y.rs", "")];
    assert_eq!(circles(&from_sibling), NONE);
}

/// What `a.rs` says of `b.rs` closes a circle.
fn closes(a: &str) -> bool {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", a),
        ("b/mod.rs", "pub mod c; use crate::a::A;"),
        ("b/c.rs", "use crate::a::A;"),
    ];
    !circles(&files).is_empty()
}

#[test]
fn every_way_to_name_another_file_counts() {
    let ways = [
        "fn f() { crate::b::f(); }",
        "fn f(_: super::b::B) {}",
        "fn f() { if let crate::b::B::C = g() {} }",
        "fn f() { use crate::b::B; }",
        "fn f() { use crate::b as it; it::f(); }",
        "use crate::b as it; fn f() { it::c::f(); }",
        "use crate::*; fn f() { b::f(); }",
        "mod inner { use crate::b::B; }",
        "mod inner { fn f() { super::super::b::f() } }",
        "fn f() { println!(\"{}\", [crate::b::c::X]); }",
        "macro_rules! m { () => { $crate::b::f() } }",
        "bitflags! { use crate::b::{B, C}; }",
        "#[serde(with = \"crate::b\")] struct S;",
        "#[serde(with = \"crate::b::c\")] struct S;",
        "#[derive(crate::b::Derived)] struct S;",
        "pub(crate) use crate::b::B as _;",
        "impl ::dejavm_engine::b::B for A {}",
    ];
    for way in ways {
        assert!(closes(way), "{way}");
    }
}

#[test]
fn what_uses_nothing_of_another_file_is_no_edge() {
    let others = [
        "/// [`crate::b::B`]\nfn f() {}",
        "pub(in super::b) fn f() {}",
        "bitflags! { pub(in super::b) struct S; }",
        "use std::b::c; fn f() { b::f(); std::b::f(); x.b.c(); }",
        "use b::c; fn f() { ::b::f() }",
        "fn f() { use std::b; b::f(); }",
        "fn f() { crate::b() }",
        "mod b {} fn f() { b::f(); self::b::f(); }",
    ];
    for other in others {
        assert!(!closes(other), "{other}");
    }
}

#[test]
fn code_for_tests_may_use_anything() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B;"),
        (
            "b.rs",
            "#[cfg(test)] mod tests { use super::*; use crate::a::A; }
            #[cfg(test)] mod mock;
            #[cfg(all(test, unix))] use crate::a::A;
            #[cfg(test)] fn f() { crate::a::f() }
            struct B;
            impl B { #[cfg(test)] fn f() { crate::a::f() } }",
        ),
        ("b/mock.rs", "use super::B; use crate::a::A;"),
    ];
    assert_eq!(circles(&files), NONE);
}

#[test]
fn an_integration_test_is_held_as_all_else() {
    let found = find(&[
        ("tests/all/main.rs", "#![cfg(test)] mod a; mod b;"),
        ("tests/all/a.rs", "use crate::b::B;"),
        ("tests/all/b.rs", "use crate::a::A;"),
    ]);
    assert_eq!(found.circles.len(), 1);
}

#[test]
fn modules_are_found_where_the_compiler_finds_them() {
    let files = [
        (
            "lib.rs",
            "mod a; #[path = \"far/away.rs\"] mod b; mod c { mod d; #[path = \"e.rs\"] mod x; }",
        ),
        ("a.rs", "mod z;"),
        ("a/z/mod.rs", "mod y;"),
        ("a/z/y.rs", "use crate::b::near::N;"),
        ("far/away.rs", "mod near;"),
        ("far/near.rs", "use crate::c::d::D;"),
        ("c/d.rs", "use crate::c::x::X;"),
        ("c/e.rs", "use crate::a::z::y::Y;"),
    ];
    let told = "circle of 4 files:\n  \
        1. a/z/y.rs:1 -> far/near.rs: crate::b::near::N\n     \
        far/near.rs:1 -> c/d.rs: crate::c::d::D\n     \
        c/d.rs:1 -> c/e.rs: crate::c::x::X\n     \
        c/e.rs:1 -> a/z/y.rs: crate::a::z::y::Y";
    assert_eq!(circles(&files), [told]);
}

#[test]
fn a_file_that_no_mod_names_is_an_orphan() {
    let found = find(&[
        ("engine/src/lib.rs", "mod a;\n\nmod b;"),
        ("engine/src/a.rs", "fn f( {}"),
        ("engine/src/left.rs", ""),
        ("tests/guests/rust/program.rs", ""),
    ]);
    assert_eq!(found.orphans, ["engine/src/left.rs: no `mod` names it"]);
    let [syntax, missing] = &found.unreadable[..] else { panic!("{:?}", found.unreadable) };
    assert!(syntax.starts_with("engine/src/a.rs:1: "), "{syntax}");
    assert_eq!(missing, "engine/src/lib.rs:3: no file for `mod b`");
}

/// What is wrong with the ladder `table` over four modules, of which `d` uses `a` and `b`, `b` uses
/// `c`, and `c` what the root re-exports.
fn ladder_faults(table: &str) -> Vec<String> {
    let found = find(&[
        (
            "ORDER.md",
            &format!("| `no` | table |\n## Order\n\nText.\n\n{table}\n\n| other |\n|--|\n| `x` |"),
        ),
        (
            "engine/src/lib.rs",
            "mod a; mod b; pub mod c; mod d; pub use a::A; #[cfg(test)] mod tests;",
        ),
        ("engine/src/a.rs", ""),
        ("engine/src/b/mod.rs", "mod deep;"),
        ("engine/src/b/deep.rs", "use crate::c;\nuse super::other;"),
        ("engine/src/c.rs", "use super::A;"),
        ("engine/src/d.rs", "use crate::{a::A, b::deep::D};"),
        ("engine/src/tests.rs", "use super::*;"),
    ]);
    found.ladders.into_iter().filter(|fault| !fault.contains("dejavm_engine::fs")).collect()
}

#[test]
fn a_module_that_uses_one_below_it_runs_against_the_ladder() {
    let root = "engine/src/c.rs:1 -> engine/src/lib.rs: super::A: \
        `c` stands above its parent's own file in ORDER.md";
    let below = "engine/src/b/deep.rs:1 -> engine/src/c.rs: crate::c: \
        `b` stands above `c` in ORDER.md";
    let order = "| module | does |\n|---|---|\n| `a` | `x` |\n| `b` | |\n| `c` | |\n| `d` | |";
    assert_eq!(ladder_faults(order), [below, root]);
    let order = "| module |\n|---|\n| `a`, `b/`, `c.rs` |\n| `d` |";
    assert_eq!(ladder_faults(order), [root]);
}

#[test]
fn a_table_that_does_not_name_what_is_there_is_wrong() {
    let faults = ladder_faults("| module |\n|---|\n| `c` `c` |\n| b |\n| `a` |\n| `e` |");
    let told = [
        "ORDER.md: `c` stands in it twice",
        "ORDER.md: a row names no module: | b |",
        "ORDER.md: `e` is no module of dejavm_engine",
        "ORDER.md: `b` of dejavm_engine (engine/src/b/mod.rs) stands in no row",
        "ORDER.md: `d` of dejavm_engine (engine/src/d.rs) stands in no row",
    ];
    assert_eq!(faults[..5], told);
    assert_eq!(ladder_faults("")[0], "ORDER.md: `x` is no module of dejavm_engine");
}

#[test]
fn a_ladder_may_stand_in_the_documentation_of_a_module() {
    let file = "engine/src/fs/mod.rs";
    let ladder_of = |text: &str| {
        let found = find(&[
            ("engine/src/lib.rs", "mod fs;"),
            (file, text),
            ("engine/src/fs/x.rs", "use super::y::Y;"),
            ("engine/src/fs/y.rs", ""),
        ]);
        found.ladders.into_iter().filter(|fault| !fault.starts_with("ORDER.md")).collect::<Vec<_>>()
    };
    let modules = "\nmod x;\nmod y;";
    let order =
        "//! Files.\n//!\n//! | row | what |\n//! |---|---|\n//! | `x` | |\n//! | `y` | |\n";
    let told = "engine/src/fs/x.rs:1 -> engine/src/fs/y.rs: super::y::Y: \
        `x` stands above `y` in engine/src/fs/mod.rs";
    assert_eq!(ladder_of(&[order, modules].concat()), [told]);
    assert_eq!(ladder_of(modules), ["engine/src/fs/mod.rs: it has no table"]);
    let nothing = find(&[("engine/src/lib.rs", "")]).ladders;
    let told = [
        "ORDER.md: it has no table after \"## Order\"",
        "engine/src/fs/mod.rs: there is no module dejavm_engine::fs",
    ];
    assert_eq!(nothing, told);
}

#[test]
fn engine_and_corpus_may_not_use_each_other() {
    let found = find(&[
        ("engine/src/lib.rs", "#[cfg(test)] mod tests { fn f() { dejavm_corpus::f() } }"),
        ("corpus/src/lib.rs", "use dejavm_engine::machine;"),
        (
            "cli/src/main.rs",
            "use dejavm_engine as engine; use {dejavm_corpus::Campaign, engine::A};",
        ),
    ]);
    let told = [
        "corpus/src/lib.rs:1 -> engine/src/lib.rs: dejavm_engine::machine: \
            dejavm-corpus must not use dejavm_engine",
        "engine/src/lib.rs:1 -> corpus/src/lib.rs: dejavm_corpus::f: \
            dejavm-engine must not use dejavm_corpus",
    ];
    assert_eq!(found.crates, told);
}

#[test]
fn a_wing_may_use_little_of_its_crate() {
    let found = find(&[
        ("engine/src/lib.rs", "mod address; mod kvm; mod linux;"),
        ("engine/src/address.rs", ""),
        ("engine/src/kvm.rs", "use crate::linux::fs::F;"),
        ("engine/src/linux/mod.rs", "mod fs; #[cfg(test)] mod tests { use crate::kvm::K; }"),
        ("engine/src/linux/fs.rs", "use crate::address::Gva; fn f() { crate::kvm::g() }"),
    ]);
    let told = "engine/src/linux/fs.rs:1 -> engine/src/kvm.rs: crate::kvm::g: \
        dejavm_engine::linux must not use `kvm`";
    assert_eq!(found.wings, [told]);
}

#[test]
fn unsafe_code_outside_the_fences_is_found_in_macros_too() {
    let found = find(&[
        ("engine/src/kvm/raw.rs", "unsafe fn f() {}"),
        ("engine/src/lib.rs", "#![deny(unsafe_code)]\n// unsafe\nm! { [unsafe { \"unsafe\" }] }"),
        ("cli/src/main.rs", "\nunsafe impl Send for A {}"),
    ]);
    assert_eq!(
        found.fences,
        ["cli/src/main.rs:2: unsafe code", "engine/src/lib.rs:3: unsafe code"]
    );
}
