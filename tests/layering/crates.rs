//! Which package uses which library of the workspace, in its tests too.

use crate::edges::Edge;
use crate::modules::Modules;

/// What each package may use. The engine and the corpus know nothing of each other: they meet in
/// the command, and in what measures and tests it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("dejavm-engine", &["dejavm_engine"]),
    ("dejavm-corpus", &["dejavm_corpus"]),
    ("dejavm-heap", &["dejavm_heap"]),
    ("dejavm", &["dejavm_engine", "dejavm_corpus", "dejavm_heap"]),
    ("dejavm-benches", &["dejavm_engine", "dejavm_corpus", "dejavm_benches"]),
    ("dejavm-guest-asn1", &[]),
];

/// Every edge between two crates that is not allowed.
pub fn faults(modules: &Modules, edges: &[Edge]) -> Vec<String> {
    let faults = edges.iter().filter_map(|edge| {
        let library = &modules.all[modules.root_of(edge.to)].path[0];
        if modules.root_of(edge.from) == modules.root_of(edge.to) {
            return None;
        }
        let package = modules.all[edge.from].package.as_str();
        let allowed = MAY_USE.iter().find(|(of, _)| *of == package).map_or(&[][..], |(_, may)| may);
        let is_allowed = allowed.contains(&library.as_str());
        (!is_allowed)
            .then(|| format!("{}: {package} must not use {library}", edge.describe(modules)))
    });
    faults.collect()
}
