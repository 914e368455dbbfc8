//! The parser's programs, compiled in a temporary folder. Never runs them.

use super::method::INPUTS;
use crate::bench::batches::ExpectedRun;
use crate::error::CliError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

const PARSER: &str = include_str!("../../../../tests/guests/c/json.c");
const HARNESS: &str = include_str!("harness.c");
const PAGES: &str = include_str!("pages.c");

/// Why a program cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// There is no such compiler.
    #[error("no compiler {compiler}")]
    NoCompiler {
        /// Its name.
        compiler: String,
        /// Why not.
        source: io::Error,
    },
    /// It fails.
    #[error("{compiler} fails: {said}")]
    Fails {
        /// Its name.
        compiler: String,
        /// The line of its words that says most.
        said: String,
    },
}

/// Why there are no programs.
pub enum Failure {
    /// There is no compiler, or it fails.
    Compiler(CompileError),
    /// There is no place for them.
    Host(CliError),
}

/// The programs that every host with a compiler has, and where the others go.
pub struct Programs {
    folder: tempfile::TempDir,
    /// The parser by itself: standard input to exit status, or a fork server.
    pub parser: PathBuf,
    /// The parser, with pages that it writes besides.
    pub with_pages: PathBuf,
    /// The parser in a loop.
    pub in_process: PathBuf,
    /// The inputs in the form that the loop reads.
    pub packed_inputs: PathBuf,
    /// The inputs as files in a folder.
    pub seeds: PathBuf,
}

impl Programs {
    /// Compiles the parser and the loop with `cc`.
    pub fn build() -> Result<Self, Failure> {
        let folder = tempfile::tempdir().map_err(|e| Failure::Host(CliError::Temporary(e)))?;
        let at = |name: &str| folder.path().join(name);
        let mut programs = Self {
            parser: at("json"),
            with_pages: at("pages"),
            in_process: at("loop"),
            packed_inputs: at("inputs"),
            seeds: at("seeds"),
            folder,
        };
        programs.write_files().map_err(|e| Failure::Host(CliError::Temporary(e)))?;
        // Static, so that fork and exec is not a measurement of a dynamic linker.
        let cc = |source, out: &str| programs.compile("cc", &["-static"], source, out);
        let parser = cc("json.c", "json").map_err(Failure::Compiler)?;
        let with_pages = cc("pages.c", "pages").map_err(Failure::Compiler)?;
        let in_process = cc("harness.c", "loop").map_err(Failure::Compiler)?;
        (programs.parser, programs.with_pages) = (parser, with_pages);
        programs.in_process = in_process;
        Ok(programs)
    }

    fn write_files(&self) -> io::Result<()> {
        fs::write(self.path("json.c"), PARSER)?;
        fs::write(self.path("harness.c"), HARNESS)?;
        fs::write(self.path("pages.c"), PAGES)?;
        fs::create_dir(&self.seeds)?;
        let mut packed = Vec::new();
        for (number, ExpectedRun { input, .. }) in INPUTS.iter().enumerate() {
            fs::write(self.seeds.join(number.to_string()), input)?;
            packed.extend((input.len() as u32).to_ne_bytes());
            packed.extend_from_slice(input);
        }
        fs::write(&self.packed_inputs, packed)
    }

    /// A path in the programs' folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Compiles `source` to `out`.
    pub fn compile(
        &self,
        compiler: &str,
        flags: &[&str],
        source: &str,
        out: &str,
    ) -> Result<PathBuf, CompileError> {
        let program = self.path(out);
        let mut command = Command::new(compiler);
        command.args(["-O2", "-w"]).args(flags).arg("-o").arg(&program);
        let made = command.arg(self.path(source)).arg("-lm").output();
        let compiler = compiler.to_owned();
        let made = match made {
            Ok(made) => made,
            Err(source) => return Err(CompileError::NoCompiler { compiler, source }),
        };
        if made.status.success() {
            return Ok(program);
        }
        let said = String::from_utf8_lossy(&made.stderr);
        let line = said.lines().find(|line| line.contains("error") || line.contains("cannot"));
        let line = line.or(said.lines().next()).unwrap_or("it does not say why");
        Err(CompileError::Fails { compiler, said: without(line, self.folder.path()) })
    }
}

/// `line` without the temporary folder's name.
fn without(line: &str, folder: &Path) -> String {
    line.replace(&format!("{}/", folder.display()), "")
}
