//! Names that a file or a guest chose, in messages; and errors with what caused them.
//!
//! Never for what is looked up by the name.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::path::Path;

/// A path in a message: control characters are escaped, so that the message stays one line and
/// commands no terminal.
pub struct OneLine<'a>(pub &'a Path);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string_lossy().chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

/// A name for messages: as [`OneLine`] has it.
pub fn one_line(name: &str) -> String {
    OneLine(name.as_ref()).to_string()
}

/// An error and its causes, each by its own text, for a place that has one line for them.
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| line + ": " + &cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::{OneLine, with_causes};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    #[test]
    fn a_path_is_told_as_it_is_but_for_what_commands_a_terminal() {
        let told = |bytes: &[u8]| OneLine(Path::new(OsStr::from_bytes(bytes))).to_string();
        assert_eq!(told("/tmp/ä b'c".as_bytes()), "/tmp/ä b'c");
        assert_eq!(told(b"/a\n\x1b[2Jb\x7f\xff"), "/a\\n\\u{1b}[2Jb\\u{7f}\u{fffd}");
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let source = nix::errno::Errno::ENOENT;
        let error = crate::kvm::KvmError::Ioctl { call: "KVM_RUN", source };
        assert_eq!(with_causes(&error), format!("KVM_RUN: {source}"));
    }
}
