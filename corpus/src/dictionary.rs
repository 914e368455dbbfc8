//! Reads dictionaries in AFL's `-x` format.
//!
//! One token a line, `name="value"`, `name@level="value"` or just `"value"`, with `\\`, `\"` and
//! `\xNN` as escapes; `#` starts a comment line. LibAFL's own reader stops at a line that is not
//! UTF-8 and does not say where an error is, so lines are read here and only the tokens are handed
//! to it. Never skips a line that it does not understand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use libafl::mutators::Tokens;

/// A dictionary could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DictionaryError {
    /// The file could not be read.
    #[error("read dictionary {path}")]
    Read {
        /// The dictionary.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not in the format.
    #[error("dictionary {path}, line {line}")]
    Line {
        /// The dictionary.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        source: LineProblem,
    },
}

/// What is wrong with a line of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// There is no opening quote.
    #[error("no opening quote; a token is written name=\"value\"")]
    NoOpeningQuote,
    /// The line does not end with a closing quote.
    #[error("no closing quote at the end of the line")]
    NoClosingQuote,
    /// What stands before the opening quote is neither empty nor `name=`.
    #[error("no '=' between name and value")]
    NoEqualsSign,
    /// There is nothing between the quotes.
    #[error("empty token")]
    Empty,
    /// A quote inside a token needs a backslash.
    #[error("a quote inside the token; write \\\"")]
    BareQuote,
    /// A backslash does not start a known escape.
    #[error("unknown escape; only \\\\, \\\" and \\xNN are known")]
    UnknownEscape,
    /// A byte is not printable ASCII.
    #[error("a byte that is not printable ASCII; write \\xNN")]
    NotPrintable,
}

/// Reads all tokens of `paths`, without repetition, in order.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Tokens, DictionaryError> {
    let mut tokens = Tokens::new();
    for path in paths {
        let text = fs::read(path)
            .map_err(|source| DictionaryError::Read { path: path.clone(), source })?;
        add(&mut tokens, path, &text)?;
    }
    Ok(tokens)
}

fn add(tokens: &mut Tokens, path: &Path, text: &[u8]) -> Result<(), DictionaryError> {
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let token = token(line).map_err(|source| DictionaryError::Line {
            path: path.to_owned(),
            line: index + 1,
            source,
        })?;
        tokens.add_token(&token);
    }
    Ok(())
}

/// The token of a line without white space around it.
fn token(line: &[u8]) -> Result<Vec<u8>, LineProblem> {
    let open = line.iter().position(|&byte| byte == b'"').ok_or(LineProblem::NoOpeningQuote)?;
    let (name, quoted) = line.split_at(open);
    let name = name.trim_ascii_end();
    if !name.is_empty() && !name.ends_with(b"=") {
        return Err(LineProblem::NoEqualsSign);
    }
    let value = quoted.get(1..).and_then(|rest| rest.strip_suffix(b"\""));
    let value = value.ok_or(LineProblem::NoClosingQuote)?;
    if value.is_empty() {
        return Err(LineProblem::Empty);
    }
    unescape(value)
}

fn unescape(value: &[u8]) -> Result<Vec<u8>, LineProblem> {
    let mut token = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            // The quote that this backslash escapes is the one that should have closed the token.
            (b'\\', []) => return Err(LineProblem::NoClosingQuote),
            (b'\\', [next @ (b'\\' | b'"'), after @ ..]) => {
                token.push(*next);
                rest = after;
            }
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = hex(*high).zip(hex(*low)).ok_or(LineProblem::UnknownEscape)?;
                token.push(digits.0 << 4 | digits.1);
                rest = after;
            }
            (b'\\', _) => return Err(LineProblem::UnknownEscape),
            (b'"', _) => return Err(LineProblem::BareQuote),
            (b' '..=b'~', _) => token.push(byte),
            _ => return Err(LineProblem::NotPrintable),
        }
    }
    Ok(token)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::ErrorChain;

    fn tokens(text: &[u8]) -> Result<Vec<Vec<u8>>, DictionaryError> {
        let mut tokens = Tokens::new();
        add(&mut tokens, Path::new("my.dict"), text)?;
        Ok(tokens.tokens().to_vec())
    }

    #[test]
    fn reads_every_form_of_a_token() {
        let text = b"# json\n\n\"null\"\nkw_t = \"true\"\r\nlow@2=\"a\\x00\\\"\\\\z\"\n\"null\"\n";
        let expected: [&[u8]; 3] = [b"null", b"true", b"a\0\"\\z"];
        assert_eq!(tokens(text).unwrap(), expected);
    }

    #[test]
    fn names_the_file_and_the_line_of_an_error() {
        let error = tokens(b"\"ok\"\n# fine\nbad=\"\\xZZ\"\n").unwrap_err();
        let line = ErrorChain(&error).to_string();
        assert!(line.starts_with("dictionary my.dict, line 3: unknown escape"), "{line}");
    }

    #[test]
    fn tells_what_is_wrong_with_a_line() {
        use LineProblem::*;
        let cases: [(&[u8], LineProblem); 10] = [
            (b"null", NoOpeningQuote),
            (b"a=\"null", NoClosingQuote),
            (b"\"", NoClosingQuote),
            (b"\"a\\\"", NoClosingQuote),
            (b"name \"x\"", NoEqualsSign),
            (b"\"\"", Empty),
            (b"\"a\"b\"", BareQuote),
            (b"\"\\n\"", UnknownEscape),
            (b"\"\\x1\"", UnknownEscape),
            (b"\"\xff\"", NotPrintable),
        ];
        for (line, problem) in cases {
            assert_eq!(token(line), Err(problem), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn names_a_file_that_cannot_be_read() {
        let error = read(&[PathBuf::from("/nonexistent/x.dict")]).unwrap_err();
        assert_eq!(error.to_string(), "read dictionary /nonexistent/x.dict");
    }
}
