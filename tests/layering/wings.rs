//! Wings: modules that are kept apart from the rest of their crate, and may use a few of its modules
//! alone. A ladder would let them use everything that stands above them.

use crate::edges::Edge;
use crate::modules::Modules;

/// Each wing's full path, and the modules of its crate that it may use beside its own.
const WINGS: &[(&[&str], &[&str])] = &[(
    // A Linux for one process knows no VM, no vCPU and no page table.
    &["dejavm_engine", "linux"],
    &["address", "arch", "outcome", "stored", "text", "xsave"],
)];

/// Every edge by which a wing uses what it must not.
pub fn faults(modules: &Modules, edges: &[Edge]) -> Vec<String> {
    let mut faults = Vec::new();
    for (wing, may_use) in WINGS {
        for edge in edges.iter().filter(|edge| !edge.is_test) {
            let (from, to) = (&modules.all[edge.from].path, &modules.all[edge.to].path);
            let is_within = |path: &[String]| {
                path.iter().zip(*wing).filter(|(a, b)| a == b).count() == wing.len()
            };
            let Some(used) = to.get(1).filter(|_| to[0] == wing[0]) else { continue };
            if is_within(from) && !is_within(to) && !may_use.contains(&used.as_str()) {
                let wing = wing.join("::");
                faults.push(format!("{}: {wing} must not use `{used}`", edge.describe(modules)));
            }
        }
    }
    faults
}
