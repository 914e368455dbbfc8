//! What bounds a guest that may have broken out of everything else: seccomp, and landlock where the
//! kernel has it.
//!
//! There are two stages. [`SandboxStage::enter_boot`] comes before the first thread and the first
//! instruction of a guest: nothing is executed, traced or sent, and only the output folder is
//! written. What a boot needs, any file to read and KVM, is still there.
//! [`SandboxStage::enter_campaign`] comes before the first input: what is left is what a campaign
//! does, over and over. Neither can be left again by the process that entered it.
//!
//! Never opens a file for the campaign and never decides what it writes; a stage that is wanted and
//! cannot be entered is an error, but for landlock where the kernel has none.

mod error;
mod landlock;
mod seccomp;
#[cfg(test)]
mod tests;

pub use error::SandboxError;
pub use landlock::Landlock;

use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// The first stage, or none.
#[derive(Debug)]
pub struct SandboxStage {
    /// The only folder that may be written, and in the second stage read.
    out: Option<PathBuf>,
    wanted: bool,
}

/// What protects the host from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Nothing, because the user said so.
    Off,
    /// Seccomp, and landlock where it can be.
    On(Landlock),
}

impl SandboxStage {
    /// Enters the first stage, if it is `wanted`, with this process, which has no other thread yet.
    /// `out` is the only folder that it will write.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter_boot(wanted: bool, out: Option<&Path>) -> Result<Self, SandboxError> {
        if wanted {
            landlock::write_only_below(out)?;
            seccomp::forbid()?;
        }
        Ok(Self { out: out.map(Path::to_owned), wanted })
    }

    /// Enters the second stage: the system calls of all threads of this process are restricted; the
    /// paths of this thread, and of the others where the kernel can.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter_campaign(self) -> Result<Sandbox, SandboxError> {
        if !self.wanted {
            return Ok(Sandbox::Off);
        }
        let landlock = landlock::only_below(self.out.as_deref())?;
        // The last: it allows none of the calls that restrict.
        seccomp::allow_only_what_a_campaign_does()?;
        Ok(Sandbox::On(landlock))
    }
}

/// Whether the sandbox can be entered here, tried in a thread that ends in it.
///
/// # Errors
/// They cannot.
pub fn probe() -> Result<Sandbox, SandboxError> {
    let thread = std::thread::Builder::new().name("dejavm-sandbox".to_owned());
    let tried = thread.spawn(|| {
        let landlock = landlock::probe()?;
        seccomp::probe()?;
        Ok(Sandbox::On(landlock))
    });
    tried.map_err(SandboxError::Thread)?.join().map_err(|_| SandboxError::Probe)?
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off (--no-sandbox)",
            Self::On(Landlock::On) => "seccomp, landlock",
            Self::On(Landlock::Missing) => "seccomp (this kernel has no landlock)",
        })
    }
}

impl Serialize for Sandbox {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
