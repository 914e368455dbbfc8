//! Boots a guest once, stops it where it is about to read its input, and lives that moment again
//! and again, each time with another input.
//!
//!     cargo run --release -p dejavm-engine --example rewind_loop

use dejavm_engine::address::Gpa;
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{Boot, Limit, ProcessPoint, Started};
use dejavm_engine::outcome::Outcome;
use std::error::Error;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 5_000;

/// A 64-bit guest at 0x8000: names its input buffer, adds one to a counter beside it, and says
/// the input's first byte plus the counter.
const GUEST: &[u8] = &[
    0xbf, 0x00, 0x90, 0x00, 0x00, //                   mov edi, 0x9000
    0xb9, 0x10, 0x00, 0x00, 0x00, //                   mov ecx, 16
    0xe6, 0xd0, //                                     out 0xd0, al   the snapshot is here
    0xfe, 0x04, 0x25, 0x10, 0x90, 0x00, 0x00, //       inc byte [0x9010]
    0x8a, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00, //       mov al, [0x9000]
    0x02, 0x04, 0x25, 0x10, 0x90, 0x00, 0x00, //       add al, [0x9010]
    0xe6, 0xd1, //                                     out 0xd1, al   done
    0xf4, //                                           hlt
];

/// Boots, then runs and rewinds [`ROUNDS`] times.
pub fn main() -> Result<(), Box<dyn Error>> {
    let system = System::open()?;
    let guest = BareSpec::flat(Mode::Long, GUEST.to_vec(), Gpa(0x8000), 1 << 20);
    let limit = Limit::time(Duration::from_secs(1));
    let Started::AtSnapshot(mut machine) =
        Boot::bare(&system, &guest)?.start(ProcessPoint::Input, limit)?
    else {
        return Err("the guest ended before its snapshot".into());
    };

    let start = Instant::now();
    for round in 0..ROUNDS {
        let input = round as u8;
        let report = machine.run(&[input], limit)?;
        // Were the counter not rewound, it would be more than 1 from the second round on.
        assert_eq!(report.outcome, Outcome::Exited { status: input.wrapping_add(1) });
        machine.rewind()?;
    }
    println!("{:?} for each run and rewind", start.elapsed() / ROUNDS);

    let differences = machine.verify()?;
    assert!(differences.is_empty(), "left behind: {differences:?}");
    println!("after {ROUNDS} rewinds nothing is left behind: {:?}", machine.last_rewind());
    Ok(())
}
