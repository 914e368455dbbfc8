//! Rust files that no `mod` names, which nothing compiles and nobody notices.

use crate::modules::{Modules, parent};
use crate::sources::Sources;
use std::collections::BTreeSet;

/// What a build script compiles.
const BUILT_APART: &str = "heap/guest/";

/// Every file below the folder of a target's root that no module lies in.
pub fn orphans(sources: &Sources, modules: &Modules) -> Vec<String> {
    let named: BTreeSet<&str> = modules.all.iter().map(|module| module.file.as_str()).collect();
    let folders: BTreeSet<String> =
        sources.targets.iter().map(|target| format!("{}/", parent(&target.file))).collect();
    let below = |file: &str| {
        folders.iter().any(|folder| file.starts_with(folder)) && !file.starts_with(BUILT_APART)
    };
    let rust = sources.texts.keys().filter(|file| file.ends_with(".rs") && below(file));
    let orphans = rust.filter(|file| !named.contains(file.as_str()));
    orphans.map(|file| format!("{file}: no `mod` names it")).collect()
}
