//! The walls around a guest that may have broken out of everything else: seccomp, and landlock
//! where the kernel has it.
//!
//! They go up twice. [`Walls::raise`] comes before the first thread and the first instruction of a
//! guest: nothing is executed, traced or sent, and only the output folder is written. What a boot
//! needs, any file to read and KVM, is still there. [`Walls::close`] comes before the first input:
//! what is left is what a campaign does, over and over. Neither can be taken back by the process
//! that made it.
//!
//! Never opens a file for the campaign and never decides what it writes; a wall that is wanted and
//! cannot be raised is an error, but for landlock where the kernel has none.

mod landlock;
mod seccomp;
#[cfg(test)]
mod tests;

pub use self::landlock::Landlock;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// A wall could not be raised.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A filter of system calls is refused.
    #[error("filter system calls by seccomp")]
    Seccomp(#[from] seccompiler::Error),
    /// A restriction of paths is refused.
    #[error("restrict paths by landlock")]
    Landlock(#[from] ::landlock::RulesetError),
    /// A path that has to stay open to the campaign cannot be named to the kernel.
    #[error("restrict paths by landlock to {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: ::landlock::PathFdError,
    },
    /// The thread in which `doctor` tries the walls ended without a word.
    #[error("try the sandbox in a thread of its own")]
    Probe,
}

/// The outer walls, or none.
#[derive(Debug)]
pub struct Walls {
    /// The only folder that may be written, and after [`close`](Self::close) read.
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

impl Walls {
    /// Raises the outer walls around this process, which has no other thread yet. `out` is the
    /// only folder that it will write.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn raise(wanted: bool, out: Option<&Path>) -> Result<Self, SandboxError> {
        if wanted {
            landlock::write_only_below(out)?;
            seccomp::forbid()?;
        }
        Ok(Self { out: out.map(Path::to_owned), wanted })
    }

    /// Raises the inner walls: the system calls around all threads of this process; the paths
    /// around this thread, and around the others where the kernel can.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn close(self) -> Result<Sandbox, SandboxError> {
        if !self.wanted {
            return Ok(Sandbox::Off);
        }
        let landlock = landlock::only_below(self.out.as_deref())?;
        // The last: it allows none of the calls that raise walls.
        seccomp::allow_only_what_a_campaign_does()?;
        Ok(Sandbox::On(landlock))
    }
}

/// Whether the walls can be raised here, tried in a thread that ends with them.
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
    tried.map_err(|_| SandboxError::Probe)?.join().map_err(|_| SandboxError::Probe)?
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
