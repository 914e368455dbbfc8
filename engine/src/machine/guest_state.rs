//! What a guest of either kind keeps on the host's side, and a snapshot with it. Never runs one.

use super::bare::BareState;
use super::process::state::ProcessState;
use crate::snapshot::{Blob, HasBlobs, Snapshot};
use serde::{Deserialize, Serialize};

/// What a guest kind keeps on the host's side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum GuestState {
    /// An ordinary program.
    Process(Box<ProcessState>),
    /// Code at CPL 0.
    Bare(BareState),
}

impl HasBlobs for GuestState {
    fn for_each_blob(&mut self, visit: &mut dyn FnMut(&mut Blob)) {
        if let Self::Process(state) = self {
            state.process.for_each_blob(visit);
        }
    }
}

/// A moment of a machine.
pub type MachineSnapshot = Snapshot<GuestState>;

impl GuestState {
    /// A word for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Process(_) => "process",
            Self::Bare(_) => "bare",
        }
    }
}
