//! What the tests share: KVM or a reason, guests built from source, machines at their snapshot.

pub use crate::compile::{build_c, build_elf, build_flat, build_rust, guests};
use dejavm_engine::kvm::System;
use dejavm_engine::linux::{INPUT_PATH, InputChannel, ProcessSpec};
use dejavm_engine::machine::{Boot, Ended, Limit, Machine, ProcessPoint, Started};
use dejavm_engine::outcome::Outcome;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// RAM of the process guests here, in bytes.
pub const RAM_BYTES: u64 = 256 << 20;

/// `/dev/kvm`, or `None` after a line that says that the test is skipped.
pub fn kvm() -> Option<System> {
    match System::open() {
        Ok(system) => Some(system),
        Err(error) if std::env::var_os("DEJAVM_REQUIRE_KVM").is_some_and(|v| v == "1") => {
            panic!("DEJAVM_REQUIRE_KVM is set, and {}", with_causes(&error))
        }
        Err(error) => {
            eprintln!("skipped: {}", with_causes(&error));
            None
        }
    }
}

/// An error and its causes in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| line + ": " + &cause.to_string())
}

/// Ample for every guest here; a test that reaches it has failed.
pub fn limit() -> Limit {
    Limit::time(patience(Duration::from_secs(20)))
}

/// `count` repetitions, or as many as `DEJAVM_TEST_SCALE=N` leaves of them on a slow host, the N-th
/// part; never fewer than 20.
pub fn rounds(count: u32) -> u32 {
    (count / scale()).max(count.min(20))
}

/// `count` times, or `few` on a slow host: for what takes a machine or a process each.
pub fn times(count: u32, few: u32) -> u32 {
    if scale() > 1 { few } else { count }
}

/// A time limit that a test depends on, `DEJAVM_TEST_SCALE` times as long on a slow host.
pub fn patience(limit: Duration) -> Duration {
    limit * scale()
}

/// Whether this host is a slow one (`DEJAVM_TEST_SCALE`).
pub fn is_slow_host() -> bool {
    scale() > 1
}

/// How much slower than the hosts that the tests were written on this one is: `DEJAVM_TEST_SCALE`,
/// else 1.
fn scale() -> u32 {
    // Read once: some tests count allocations.
    static SCALE: OnceLock<u32> = OnceLock::new();
    *SCALE.get_or_init(|| {
        let Ok(scale) = std::env::var("DEJAVM_TEST_SCALE") else { return 1 };
        let scale = scale.parse().ok().filter(|&n| n > 0);
        scale.expect("DEJAVM_TEST_SCALE is a whole number from 1 up")
    })
}

/// `program args`; the input is the file that an argument `@@` names, else standard input.
pub fn spec(program: &Path, args: &[&str]) -> ProcessSpec {
    let mut spec = ProcessSpec::new(program);
    if args.contains(&"@@") {
        spec.input = InputChannel::File { guest: INPUT_PATH.into() };
    }
    spec.args = args.iter().map(|&arg| if arg == "@@" { INPUT_PATH } else { arg }.into()).collect();
    spec.env = vec!["PATH=/usr/bin:/bin".into(), "LC_ALL=C".into()];
    spec
}

/// A machine at the first look of `program` at its input.
pub fn machine(system: &System, spec: &ProcessSpec) -> Machine {
    let boot = Boot::process(system, spec, RAM_BYTES, b"").unwrap();
    match boot.start(ProcessPoint::Input, limit()).unwrap() {
        Started::AtSnapshot(machine) => *machine,
        Started::Ended(ended) => panic!("ended before its snapshot point: {ended:?}"),
    }
}

/// How a program ended, in the guest or natively.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// As a shell shows it: 128 + signal for a death by signal.
    pub status: u8,
    pub stdout: String,
    pub stderr: String,
}

/// A program that is run in a guest, again and again from one snapshot.
///
/// As the command does it: `spec` gets the host's system files that the program looked for, and
/// the program is booted anew until it looks for no more.
pub struct Guest<'a> {
    system: &'a System,
    spec: &'a mut ProcessSpec,
    /// At its snapshot; none before the first boot, nor of a program that never looks at its input.
    machine: Option<Machine>,
}

impl<'a> Guest<'a> {
    pub fn new(system: &'a System, spec: &'a mut ProcessSpec) -> Self {
        Self { system, spec, machine: None }
    }

    /// One run to its end.
    pub fn run(&mut self, input: &[u8]) -> End {
        let (outcome, stdout, stderr) = self.run_to_end(input);
        let stderr = match outcome {
            Outcome::Exited { .. } | Outcome::Crashed(_) => text(&stderr),
            // What no native run says, so that a test which compares the two shows it.
            ref other => {
                return End { status: 255, stdout: text(&stdout), stderr: other.to_string() };
            }
        };
        End { status: status_of(&outcome), stdout: text(&stdout), stderr }
    }

    /// The machine at its snapshot, after one run; `None` of a program that never gets there.
    pub fn into_machine(mut self, input: &[u8]) -> Option<Machine> {
        self.run_to_end(input);
        self.machine
    }

    fn run_to_end(&mut self, input: &[u8]) -> (Outcome, Vec<u8>, Vec<u8>) {
        loop {
            let started = match self.machine.take() {
                Some(machine) => Started::AtSnapshot(Box::new(machine)),
                None => {
                    let boot = Boot::process(self.system, self.spec, RAM_BYTES, input).unwrap();
                    boot.start(ProcessPoint::Input, limit()).unwrap()
                }
            };
            let (end, wanted) = match started {
                Started::Ended(ended) => {
                    let wanted = ended.process().unwrap().wanted().clone();
                    let Ended { report, stdout, stderr, .. } = *ended;
                    ((report.outcome, stdout, stderr), wanted)
                }
                Started::AtSnapshot(mut machine) => {
                    let report = machine.run(input, limit()).unwrap();
                    let (out, err) = (machine.stdout().to_vec(), machine.stderr().to_vec());
                    let wanted = machine.process().unwrap().wanted().clone();
                    machine.rewind().unwrap();
                    assert_eq!(machine.verify().unwrap(), []);
                    self.machine = Some(*machine);
                    ((report.outcome, out, err), wanted)
                }
            };
            if !self.spec.system.take(&wanted) {
                return end;
            }
            self.machine = None;
        }
    }
}

/// One run in a guest, from boot to end; see [`Guest`].
pub fn in_guest(system: &System, spec: &mut ProcessSpec, input: &[u8]) -> End {
    Guest::new(system, spec).run(input)
}

/// As [`in_guest`], of a program that may end in any way.
pub fn outcome_in_guest(system: &System, spec: &mut ProcessSpec, input: &[u8]) -> Outcome {
    Guest::new(system, spec).run_to_end(input).0
}

/// The status a shell shows for an outcome.
pub fn status_of(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Exited { status } => *status,
        Outcome::Crashed(fault) => 128 + fault.signal.0,
        other => panic!("{other}"),
    }
}

/// The same run natively. `@@` becomes a real file.
pub fn natively(program: &Path, args: &[&str], input: &[u8]) -> End {
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    // At the guest's own path for it, so that messages which name the file are the same.
    let file = native_input(input);
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    for &arg in args {
        command.arg(if arg == "@@" { file.path().as_os_str() } else { arg.as_ref() });
    }
    let stdin = if args.contains(&"@@") {
        Stdio::null()
    } else {
        Stdio::from(std::fs::File::open(file.path()).unwrap())
    };
    let out = command.stdin(stdin).output().unwrap();
    std::io::stderr().flush().unwrap();
    let code = out.status.code().or_else(|| out.status.signal().map(|s| 128 + s)).unwrap();
    let rename = |bytes: &[u8]| text(bytes).replace(file.path().to_str().unwrap(), INPUT_PATH);
    End { status: code as u8, stdout: rename(&out.stdout), stderr: rename(&out.stderr) }
}

fn native_input(input: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), input).unwrap();
    file
}

fn text(bytes: &[u8]) -> String {
    // Programs here may write any bytes (an image); they are compared, so none may be lost.
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// Copies a program that is then executed, which another process does: where this one has a file
/// open to write to, so has a child that another test starts at that moment, and until the child has
/// become another program nobody can execute the file (`ETXTBSY`).
pub fn copy_program(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-p").args([from, to]).status();
    assert!(done.unwrap().success(), "{} to {}", from.display(), to.display());
}

/// A program of the system, or `None` after a line that names the package to install.
pub fn installed(path: &str, package: &str) -> Option<PathBuf> {
    let found = Path::new(path).exists();
    if !found {
        assert!(
            std::env::var_os("DEJAVM_REQUIRE_KVM").is_none_or(|v| v != "1"),
            "{path} is missing: install {package}"
        );
        eprintln!("skipped: {path} is missing (package {package})");
    }
    found.then(|| path.into())
}
