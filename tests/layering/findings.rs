//! All that is wrong with a workspace, by claim. Plain text: what syn reads stays on its thread.

use crate::edges::edges;
use crate::ladder::Ladder;
use crate::modules::Modules;
use crate::sources::Sources;
use crate::{circles, crates, fences, ladder, orphans, wings};

/// What each claim finds; nothing, where it holds.
pub struct Findings {
    pub unreadable: Vec<String>,
    pub orphans: Vec<String>,
    pub circles: Vec<String>,
    pub ladders: Vec<String>,
    pub crates: Vec<String>,
    pub fences: Vec<String>,
    pub wings: Vec<String>,
}

impl Findings {
    /// Reads all of `sources`.
    pub fn of(sources: &Sources, ladders: &[Ladder]) -> Self {
        let modules = Modules::of(sources);
        let edges = edges(&modules);
        let of_ladder = |ladder| ladder::faults(ladder, sources, &modules, &edges);
        Self {
            orphans: orphans::orphans(sources, &modules),
            circles: circles::circles(&modules, &edges),
            ladders: ladders.iter().flat_map(of_ladder).collect(),
            crates: crates::faults(&modules, &edges),
            fences: fences::faults(sources),
            wings: wings::faults(&modules, &edges),
            unreadable: modules.unreadable,
        }
    }
}
