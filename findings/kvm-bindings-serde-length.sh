#!/usr/bin/env bash
# kvm-bindings 0.14.2 with feature `serde`: a stored KVM structure of the wrong length is read without
# an error.
#
# One would guess: `Deserialize` of `kvm_regs` refuses what is no `kvm_regs`, as a derived one does
# where a field is missing; so that a file cut short, or written by a version of the structure with
# fewer fields, is noticed where it is read.
#
# What happens: the structures are written as one opaque byte string, and read from one of any length.
# Missing bytes become zeros, and further ones are dropped: a `kvm_regs` of 8 bytes is RAX and 17
# zeros, one of 152 bytes loses its last word. In JSON it is a list of 144 numbers, without a name of
# a register in it; a list cut short is read likewise.
#
# For whom it matters: whoever keeps vCPU state in files (snapshots, migration). Check the length, or a
# checksum over the whole, before decoding; do not take the result's being `Ok` for completeness.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "length"
version = "0.0.0"
edition = "2021"

[dependencies]
bincode = { version = "=2.0.1", features = ["serde"] }
kvm-bindings = { version = "=0.14.2", features = ["serde"] }
serde_json = "=1.0.145"
TOML
cat >"$folder/src/main.rs" <<'RUST'
use kvm_bindings::kvm_regs;

fn main() {
    let regs = kvm_regs { rax: 1, rbx: 2, rflags: 3, ..Default::default() };
    let config = bincode::config::standard();

    let json = serde_json::to_value(regs).unwrap();
    let numbers = json.as_array().map_or(0, Vec::len);
    println!("JSON: a list of {numbers} numbers");
    let few: Vec<_> = json.as_array().unwrap()[..8].to_vec();
    let read: kvm_regs = serde_json::from_value(few.into()).unwrap();
    println!("JSON, 8 numbers: rax {}, rbx {}, rflags {}", read.rax, read.rbx, read.rflags);

    let whole: Vec<u8> = json.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u8).collect();
    for bytes in [8, 144, 152] {
        let mut stored = whole.clone();
        stored.resize(bytes, 0xff);
        // A byte string as bincode writes it: its length, and the bytes.
        let stored = bincode::serde::encode_to_vec(&stored, config).unwrap();
        let (read, taken): (kvm_regs, usize) =
            bincode::serde::decode_from_slice(&stored, config).unwrap();
        println!(
            "bincode, {bytes} bytes: rax {}, rbx {}, rflags {}, {} bytes left over",
            read.rax, read.rbx, read.rflags, stored.len() - taken
        );
    }
}
RUST
seen=$(cd "$folder" && cargo run --quiet)
echo "$seen"
expected='JSON: a list of 144 numbers
JSON, 8 numbers: rax 1, rbx 0, rflags 0
bincode, 8 bytes: rax 1, rbx 0, rflags 0, 0 bytes left over
bincode, 144 bytes: rax 1, rbx 2, rflags 3, 0 bytes left over
bincode, 152 bytes: rax 1, rbx 2, rflags 3, 0 bytes left over'
if [ "$seen" != "$expected" ]; then
    printf 'this has changed; it was:\n%s\n' "$expected" >&2
    exit 1
fi
