// A Rust program that panics on a malformed number, and unwinds.
use std::io::Read;

fn parse(text: &str) -> u32 {
    text.strip_prefix("n=").map_or(0, |number| number.trim().parse().unwrap())
}

fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    println!("{}", parse(&text));
}
