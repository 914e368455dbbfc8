//! The process's state beyond memory, files and threads: what signals do, limits, clock, randomness,
//! and which images it has mapped. Never interprets a system call.

use super::files::NodeId;
use super::spec::Limits;
use super::tracked::Rewind;
use serde::{Deserialize, Serialize};

/// Highest signal number.
pub(super) const SIGNAL_MAX: u64 = 64;
/// Resource limits that Linux knows.
pub(super) const RESOURCES: usize = 16;

/// What `rt_sigaction` set for one signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Action {
    pub(super) handler: u64,
    pub(super) flags: u64,
    pub(super) restorer: u64,
    pub(super) mask: u64,
}

/// State that few calls change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// By signal number minus one.
    pub(super) actions: Vec<Action>,
    /// Soft and hard limit by resource number.
    pub(super) resources: Vec<(u64, u64)>,
}

impl Settings {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut resources = vec![(u64::MAX, u64::MAX); RESOURCES];
        let mut set = |resource: u32, soft, hard| {
            if let Some(slot) = resources.get_mut(resource as usize) {
                *slot = (soft, hard);
            }
        };
        set(libc::RLIMIT_STACK, super::stack::STACK_BYTES, u64::MAX);
        set(libc::RLIMIT_CORE, 0, u64::MAX);
        set(libc::RLIMIT_NOFILE, limits.open_files as u64, limits.open_files as u64);
        set(libc::RLIMIT_NPROC, 1, 1);
        Self { actions: vec![Action::default(); SIGNAL_MAX as usize], resources }
    }
}

impl Rewind for Settings {
    fn rewind_to(&mut self, snapshot: &Self, _related: bool) {
        self.actions.clone_from(&snapshot.actions);
        self.resources.clone_from(&snapshot.resources);
    }
}

/// Small state that most calls change; copied whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scalars {
    /// Nanoseconds of guest time since boot.
    pub(super) clock_ns: u64,
    /// How much of it no thread could run.
    idle_ns: u64,
    random: u64,
}

impl Scalars {
    pub(super) fn new(seed: u64) -> Self {
        Self { clock_ns: 0, idle_ns: 0, random: seed }
    }

    /// The next pseudo-random bytes (SplitMix64): the same for the same seed.
    pub(super) fn fill_random(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.random;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            for (to, from) in chunk.iter_mut().zip(word.to_le_bytes()) {
                *to = from;
            }
        }
    }

    /// Lets the process wait until `moment`, if that is yet to come.
    pub(super) fn wait_until(&mut self, moment: u64) {
        let ns = moment.saturating_sub(self.clock_ns);
        self.idle_ns = self.idle_ns.saturating_add(ns);
        self.advance(ns);
    }

    /// Nanoseconds that the process was not waiting for: its CPU time.
    pub(super) fn busy_ns(&self) -> u64 {
        self.clock_ns.saturating_sub(self.idle_ns)
    }

    pub(super) fn advance(&mut self, ns: u64) {
        self.clock_ns = self.clock_ns.saturating_add(ns);
    }
}

/// An executable image in the address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) node: NodeId,
    /// What to add to the image's own addresses.
    pub(super) base: u64,
    pub(super) path: String,
}

/// Images in the order in which they were mapped, the program first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Images(pub(super) Vec<Image>);

impl Rewind for Images {
    fn rewind_to(&mut self, snapshot: &Self, _related: bool) {
        self.0.clone_from(&snapshot.0);
    }
}
