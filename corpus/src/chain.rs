//! An error with its causes, for people. Never decides what is said about them.

use std::error::Error;
use std::fmt;

/// Displays an error and then its causes, outermost first: `what: why: why`.
///
/// No error here, nor in the engine, says its source in its own text, so that nothing comes twice.
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'e>(pub &'e dyn Error);

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
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("open the door")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("turn the key")]
    struct Inner(#[source] io::Error);

    #[test]
    fn says_every_cause_once_and_the_outermost_first() {
        let error = Outer(Inner(io::Error::other("it is bent")));
        assert_eq!(ErrorChain(&error).to_string(), "open the door: turn the key: it is bent");
        assert_eq!(ErrorChain(&io::Error::other("alone")).to_string(), "alone");
    }
}
