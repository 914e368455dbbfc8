//! Why a stage of the sandbox cannot be entered.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A stage of the sandbox could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A filter of system calls is refused.
    #[error("filter system calls by seccomp")]
    Seccomp(#[source] SelfContained<seccompiler::Error>),
    /// A restriction of paths is refused.
    #[error("restrict paths by landlock")]
    Landlock(#[source] SelfContained<::landlock::RulesetError>),
    /// A path that has to stay open to the campaign cannot be named to the kernel.
    #[error("restrict paths by landlock to {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: SelfContained<::landlock::PathFdError>,
    },
    /// There is no thread in which `doctor` could try the sandbox.
    #[error("start a thread to try the sandbox in")]
    Thread(#[source] io::Error),
    /// The thread in which `doctor` tries the sandbox ended without a word.
    #[error("try the sandbox in a thread of its own")]
    Probe,
}

/// An error of another crate that says its causes in its own text. It ends a chain of causes, which
/// would have them twice otherwise.
#[derive(Debug)]
pub struct SelfContained<E>(pub E);

impl<E: fmt::Display> fmt::Display for SelfContained<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Error> Error for SelfContained<E> {}

impl From<seccompiler::Error> for SandboxError {
    fn from(error: seccompiler::Error) -> Self {
        Self::Seccomp(SelfContained(error))
    }
}

impl From<::landlock::RulesetError> for SandboxError {
    fn from(error: ::landlock::RulesetError) -> Self {
        Self::Landlock(SelfContained(error))
    }
}
