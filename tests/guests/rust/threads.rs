//! Threads of the standard library, and how it ends a program that has used up its stack.

use std::io::Read;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn deep(n: u64) -> u64 {
    let large = std::hint::black_box([n; 512]);
    if n == 0 { 0 } else { deep(n + 1) + large[7] }
}

fn main() {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).unwrap();
    match input.trim() {
        "deep" => println!("{}", deep(1)),
        "deep thread" => println!("{}", thread::spawn(|| deep(1)).join().unwrap()),
        "panic" => {
            let result = thread::spawn(|| panic!("in a thread")).join();
            println!("joined {}", result.is_err());
        }
        // Undefined behaviour on purpose: the handler that the standard library has for a used-up
        // stack must see a fault that is none, and let the process die of it. Safe code has no way
        // to fault elsewhere, which is why this one line is not safe.
        "null" => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
        _ => work(&input),
    }
}

fn work(input: &str) {
    let (to, from) = mpsc::sync_channel::<String>(2);
    let seen = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&seen);
    let worker = thread::Builder::new().name("worker".into()).spawn(move || {
        let mut lengths = Vec::new();
        while let Ok(word) = from.recv_timeout(Duration::from_secs(1)) {
            *counter.lock().unwrap() += 1;
            lengths.push(word.len());
        }
        lengths
    });
    for word in input.split_whitespace() {
        to.send(word.to_owned()).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    drop(to);
    println!("{:?} {}", worker.unwrap().join().unwrap(), seen.lock().unwrap());
}
