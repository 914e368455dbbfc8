//! What messages are made of: names that a file or a guest chose, and errors with their causes.
//!
//! Never for what is looked up by the name.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::path::Path;

/// A path in a message: control characters are escaped, so that the message stays one line and
/// commands no terminal.
pub(crate) struct OneLine<'a>(pub &'a Path);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string_lossy().chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

/// A name for messages: as [`OneLine`] has it.
pub(crate) fn one_line(name: &str) -> String {
    OneLine(name.as_ref()).to_string()
}

/// An error and then its causes, outermost first: `what: why: why`.
pub(crate) struct ErrorChain<'e>(pub &'e dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorChain, OneLine};
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
    fn an_error_comes_with_each_of_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("open the door")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("it is locked"));
        assert_eq!(ErrorChain(&error).to_string(), "open the door: it is locked");
    }
}
