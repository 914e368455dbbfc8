//! The parser outside of a machine: by its own fork server, by fork and exec, in a loop.
//!
//! Never judges an execution, but that its status is the right one.

use super::build::Programs;
use super::method::{INPUTS, Method};
use crate::bench::batches::ExpectedRun;
use crate::error::CliError;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

fn wrong(what: &str) -> CliError {
    CliError::BenchGuest { did: format!("gave a wrong answer ({what})") }
}

/// A process that answers on its standard output what is asked on its standard input.
struct Server {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Server {
    fn start(command: &mut Command) -> Result<Self, CliError> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(CliError::process("start the parser"))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(to), Some(from)) => Ok(Self { child, to, from }),
            // Both were asked for.
            _ => Err(wrong("no pipe")),
        }
    }

    fn ask<const N: usize>(&mut self, question: &[u8]) -> io::Result<[u8; N]> {
        self.to.write_all(question)?;
        let mut answer = [0; N];
        self.from.read_exact(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The parser's own fork server: a child of its own for each input.
pub struct ForkServer {
    server: Server,
    message: Vec<u8>,
}

impl ForkServer {
    /// Starts it.
    pub fn new(programs: &Programs) -> Result<Self, CliError> {
        let server = Server::start(Command::new(&programs.parser).env("FORKSERVER", "1"))?;
        Ok(Self { server, message: Vec::new() })
    }
}

impl Method for ForkServer {
    fn execute(&mut self, count: u32) -> Result<Duration, CliError> {
        let start = Instant::now();
        for ExpectedRun { input, status } in INPUTS.iter().cycle().take(count as usize) {
            self.message.clear();
            self.message.extend((input.len() as u32).to_ne_bytes());
            self.message.extend_from_slice(input);
            let answer = self.server.ask::<4>(&self.message);
            let answer = answer.map_err(CliError::process("ask the parser's fork server"))?;
            // A wait status has the exit status in its second byte.
            if i32::from_ne_bytes(answer) != i32::from(*status) << 8 {
                return Err(wrong("fork server"));
            }
        }
        Ok(start.elapsed())
    }
}

/// A new process for each input.
pub struct ForkExec {
    program: PathBuf,
    input: File,
}

impl ForkExec {
    /// Makes the file that standard input will be.
    pub fn new(programs: &Programs) -> Result<Self, CliError> {
        let input = tempfile::tempfile().map_err(CliError::Temporary)?;
        Ok(Self { program: programs.parser.clone(), input })
    }

    fn once(&mut self, input: &[u8]) -> io::Result<Option<i32>> {
        self.input.set_len(0)?;
        self.input.seek(SeekFrom::Start(0))?;
        self.input.write_all(input)?;
        self.input.seek(SeekFrom::Start(0))?;
        let stdin = self.input.try_clone()?;
        Ok(Command::new(&self.program).stdin(stdin).status()?.code())
    }
}

impl Method for ForkExec {
    fn execute(&mut self, count: u32) -> Result<Duration, CliError> {
        let start = Instant::now();
        for ExpectedRun { input, status } in INPUTS.iter().cycle().take(count as usize) {
            let ended = self.once(input).map_err(CliError::process("run the parser"))?;
            if ended != Some(i32::from(*status)) {
                return Err(wrong("fork and exec"));
            }
        }
        Ok(start.elapsed())
    }
}

/// One process that parses one copy of an input after the other.
pub struct Loop {
    server: Server,
}

impl Loop {
    /// Starts it.
    pub fn new(programs: &Programs) -> Result<Self, CliError> {
        let inputs: &Path = &programs.packed_inputs;
        Ok(Self { server: Server::start(Command::new(&programs.in_process).arg(inputs))? })
    }
}

impl Method for Loop {
    fn execute(&mut self, count: u32) -> Result<Duration, CliError> {
        let runs = INPUTS.iter().cycle().take(count as usize);
        let expected: u64 = runs.map(|run| u64::from(run.status)).sum();
        let question = u64::from(count).to_ne_bytes();
        let start = Instant::now();
        let answer = self.server.ask::<8>(&question);
        let answer = answer.map_err(CliError::process("ask the parser's loop"))?;
        let time = start.elapsed();
        if u64::from_ne_bytes(answer) != expected {
            return Err(wrong("loop"));
        }
        Ok(time)
    }
}
