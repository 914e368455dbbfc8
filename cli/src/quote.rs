//! Words for a shell. Never runs one.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

/// `word` so that a POSIX shell reads it back as it is. Bytes that no terminal shows need `$''`,
/// which bash, zsh and ksh know.
pub fn word(word: &OsStr) -> String {
    let bytes = word.as_bytes();
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"@%+=:,./-_".contains(b);
    // A leading `=` is an expansion to zsh.
    if !bytes.is_empty() && bytes.iter().all(is_plain) && bytes.first() != Some(&b'=') {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match word.to_str().filter(|text| !text.chars().any(char::is_control)) {
        Some(text) => format!("'{}'", text.replace('\'', r"'\''")),
        None => escaped(bytes),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::from("$'");
    for &byte in bytes {
        match byte {
            b'\'' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            // Octal, because it ends after three digits. Writing to a string cannot fail.
            _ => drop(write!(text, "\\{byte:03o}")),
        }
    }
    text.push('\'');
    text
}

/// A whole command.
pub fn command<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> String {
    words.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const WORDS: [&[u8]; 9] = [
        b"plain/path-1.txt",
        b"",
        b"two words",
        b"it's",
        b"$HOME `id` \"x\" \\ * ?",
        b"id:000000,sig:SIGSEGV-write,op:havoc",
        "\u{e9}t\u{e9}".as_bytes(),
        b"line\nbreak\t1",
        b"\xff'\\0077",
    ];

    #[test]
    fn bash_reads_back_what_was_quoted() {
        for bytes in WORDS {
            let script = format!("printf %s {}", word(OsStr::from_bytes(bytes)));
            let output = Command::new("bash").arg("-c").arg(&script).output().unwrap();
            assert_eq!(output.stdout, bytes, "{script}");
        }
    }

    #[test]
    fn plain_words_stay_as_they_are() {
        let words = ["dejavm", "repro", "out/crashes/id:000000,sig:SIGABRT"].map(OsStr::new);
        assert_eq!(command(words), "dejavm repro out/crashes/id:000000,sig:SIGABRT");
    }
}
