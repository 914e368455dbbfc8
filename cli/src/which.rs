//! From a program's name to its path, as a shell finds it. Never runs one.

use crate::error::CliError;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// Execution by anybody.
const EXECUTE: u32 = 0o111;

/// A name without a slash is looked up in `path`; anything else is a path.
pub fn find_program(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, CliError> {
    if name.as_bytes().contains(&b'/') {
        return Ok(name.into());
    }
    let is_program = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & EXECUTE != 0)
    };
    path.into_iter()
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join(name))
        .find(is_program)
        .ok_or_else(|| CliError::NoProgram { name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_program_is_found_as_a_shell_finds_it() {
        let found = find_program(OsStr::new("sh"), Some(OsStr::new("/nonexistent:/bin"))).unwrap();
        assert_eq!(found, Path::new("/bin/sh"));
        assert_eq!(find_program(OsStr::new("./sh"), None).unwrap(), Path::new("./sh"));
        let error = find_program(OsStr::new("no-such-tool"), Some(OsStr::new("/bin"))).unwrap_err();
        assert!(error.line().contains("./no-such-tool"), "{}", error.line());
    }
}
