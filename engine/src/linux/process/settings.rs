//! The process's state beyond memory, files and threads: what signals do, limits, clock, randomness,
//! and which images it has mapped. Never interprets a system call.

use crate::linux::base::limits::{Limits, Refused};
use crate::linux::base::tracked::Rewind;
use crate::linux::fs::tree::NodeId;
use crate::linux::signal::action::{SIGNAL_MAX, SigAction};
use serde::{Deserialize, Serialize};

/// What each call takes on the guest's clock.
pub(crate) const CALL_NS: u64 = 1_000;

/// Images remembered for symbolisation.
pub(crate) const IMAGES_MAX: usize = 256;
/// Resource limits that Linux knows.
pub(crate) const RESOURCES: usize = 16;

/// What a process may lock without a privilege (`MLOCK_LIMIT` in include/uapi/linux/resource.h).
const LOCKED_BYTES: u64 = 8 << 20;

/// State that few calls change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// By signal number minus one.
    pub(crate) actions: Vec<SigAction>,
    /// Soft and hard limit by resource number.
    pub(crate) resources: Vec<(u64, u64)>,
}

impl Settings {
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut resources = vec![(u64::MAX, u64::MAX); RESOURCES];
        let mut set = |resource: u32, soft, hard| {
            if let Some(slot) = resources.get_mut(resource as usize) {
                *slot = (soft, hard);
            }
        };
        set(libc::RLIMIT_STACK, crate::linux::mm::bounds::STACK_BYTES, u64::MAX);
        set(libc::RLIMIT_CORE, 0, u64::MAX);
        set(libc::RLIMIT_MEMLOCK, LOCKED_BYTES, LOCKED_BYTES);
        set(libc::RLIMIT_NOFILE, limits.open_files as u64, limits.open_files as u64);
        set(libc::RLIMIT_NPROC, 1, 1);
        Self { actions: vec![SigAction::default(); SIGNAL_MAX as usize], resources }
    }
}

impl Settings {
    /// Checks settings that were read from a snapshot.
    pub(crate) fn check_stored(&self) -> Result<(), Refused> {
        match self.actions.len() == SIGNAL_MAX as usize && self.resources.len() == RESOURCES {
            true => Ok(()),
            false => Err("signal actions or resource limits that are too few or too many"),
        }
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
pub(crate) struct Scalars {
    /// Nanoseconds of guest time since boot.
    pub(crate) clock_ns: u64,
    /// How much of it no thread could run.
    idle_ns: u64,
    random: u64,
}

impl Scalars {
    pub(crate) fn new(seed: u64) -> Self {
        Self { clock_ns: 0, idle_ns: 0, random: seed }
    }

    /// The next pseudo-random bytes (SplitMix64): the same for the same seed.
    pub(crate) fn fill_random(&mut self, out: &mut [u8]) {
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
    pub(crate) fn wait_until(&mut self, moment: u64) {
        let ns = moment.saturating_sub(self.clock_ns);
        self.idle_ns = self.idle_ns.saturating_add(ns);
        self.advance(ns);
    }

    /// Nanoseconds that the process was not waiting for: its CPU time.
    pub(crate) fn busy_ns(&self) -> u64 {
        self.clock_ns.saturating_sub(self.idle_ns)
    }

    pub(crate) fn advance(&mut self, ns: u64) {
        self.clock_ns = self.clock_ns.saturating_add(ns);
    }
}

/// An executable image in the address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    pub(crate) node: NodeId,
    /// What to add to the image's own addresses.
    pub(crate) base: u64,
    pub(crate) path: String,
}

/// Images in the order in which they were mapped, the program first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Images(pub(crate) Vec<Image>);

impl Rewind for Images {
    fn rewind_to(&mut self, snapshot: &Self, _related: bool) {
        self.0.clone_from(&snapshot.0);
    }
}
