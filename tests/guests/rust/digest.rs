// A Rust std program: reads a file whole, counts its bytes in a hash map, prints them sorted.
use std::collections::HashMap;
use std::process::ExitCode;

fn main() -> ExitCode {
    let path = std::env::args_os().nth(1).expect("a file to read");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut counts: HashMap<u8, u64> = HashMap::new();
    bytes.iter().for_each(|&byte| *counts.entry(byte).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable();
    for (byte, count) in &counts {
        println!("{byte:02x} {count} {:.3}", *count as f64 / bytes.len() as f64);
    }
    if bytes.first() == Some(&0x30) { ExitCode::from(7) } else { ExitCode::SUCCESS }
}
