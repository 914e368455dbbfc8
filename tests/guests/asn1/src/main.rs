//! Lists the top-level ASN.1 blocks of a DER file, such as an X.509 certificate.
//!
//! An ordinary program: it knows nothing of dejavm, and a panic unwinds and ends it with status
//! 101, as in any Rust program.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: dejavm-guest-asn1 FILE");
        return ExitCode::from(2);
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    match simple_asn1::from_der(&bytes) {
        Ok(blocks) => {
            println!("{} blocks in {} bytes", blocks.len(), bytes.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
