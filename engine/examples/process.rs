//! An ordinary program as a guest: runs it to the moment at which it first looks at its input, then
//! from there with each of a few inputs, and with many in one entry into the guest.
//!
//!     cargo run --release -p dejavm-engine --example process
//!     cargo run --release -p dejavm-engine --example process -- /usr/bin/xmllint --noout -

use dejavm_engine::{
    Batch, BatchOptions, BatchReport, Boot, Limit, Outcome, ProcessPoint, ProcessSpec, Started,
    System,
};
use std::error::Error;
use std::time::Duration;

/// RAM of the guest, in bytes. None of it is the host's until the program touches it.
const RAM_BYTES: u64 = 64 << 20;

const INPUTS: [&[u8]; 3] = [b"", b"one line\n", b"<two>\n<lines/></two>\n"];

/// Takes the program and its arguments from the command line.
pub fn main() -> Result<(), Box<dyn Error>> {
    let mut command = std::env::args_os().skip(1);
    // A file of this host: any program will do that reads its standard input.
    let program = command.next().unwrap_or_else(|| "/usr/bin/wc".into());
    run(&ProcessSpec { args: command.collect(), ..ProcessSpec::new(program) })
}

/// Boots, runs every input by itself, and then a batch of them.
pub fn run(spec: &ProcessSpec) -> Result<(), Box<dyn Error>> {
    let system = System::open()?;
    let limit = Limit::time(Duration::from_secs(5));
    let boot = Boot::process(&system, spec, RAM_BYTES, b"")?;
    let mut machine = match boot.start(ProcessPoint::Input, limit)? {
        Started::AtSnapshot(machine) => machine,
        Started::Ended(ended) => {
            return Err(format!("it {} and never read its input", ended.report.outcome).into());
        }
    };

    for input in INPUTS {
        let report = machine.run(input, limit)?;
        let (input, stdout) = (as_text(input), as_text(machine.stdout()));
        println!("{input:?}: it {}, and wrote {stdout:?}", report.outcome);
        machine.rewind()?;
    }

    let mut batch = Batch::default();
    while batch.push(INPUTS[batch.len() % INPUTS.len()]) {}
    let mut report = BatchReport::default();
    machine.run_batch(&batch, BatchOptions::default(), &mut report)?;
    let ended =
        report.runs.iter().filter(|run| matches!(run, Some(Outcome::Exited { .. }))).count();
    println!(
        "{ended} of {} runs exited, with {} returns to the host, in {:?}",
        batch.len(),
        report.exits.total,
        report.duration
    );

    let differences = machine.verify()?;
    assert!(differences.is_empty(), "left behind: {differences:?}");
    Ok(())
}

fn as_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
