//! Programs that are none, and those that never come to where a snapshot could be taken.

use super::{Bench, INPUT, row};
use crate::support::kvm;
use std::fs;

#[test]
fn programs_that_are_none() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.write("script", b"#!/no/interpreter\necho\n");
    bench.write("text", b"no program");
    bench.write("32-bit", &[b"\x7fELF\x01\x01\x01".as_slice(), &[0; 100]].concat());
    let whole = fs::read(bench.path("ends-reads")).unwrap();
    bench.write("cut", &whole[..1000]);
    // `e_type`: ET_REL. `e_machine`: EM_AARCH64.
    for (name, at, value) in [("object", 16, 1), ("for-arm", 18, 0xb7)] {
        let mut other = whole.clone();
        other[at] = value;
        bench.write(name, &other);
    }
    let rows = [
        row("a missing one", "run -- ./gone").says(&["./gone", "check that the path"]),
        row("one that is nowhere in PATH", "run -- no-such-program")
            .says(&["no-such-program", "PATH"]),
        row("a script of no interpreter", "run -- ./script")
            .says(&["/no/interpreter", "check that"]),
        row("no ELF file", "run -- ./text").says(&["./text", "no ELF executable"]),
        row("a 32-bit one", "run -- ./32-bit").says(&["./32-bit", "-m64"]),
        row("one for another machine", "run -- ./for-arm").says(&["./for-arm", "x86-64"]),
        row("an object file", "run -- ./object").says(&["./object", "link it"]),
        row("half a program", "run -- ./cut").says(&["./cut", "damaged"]),
        row("a folder", "run -- ./seeds").says(&["./seeds", "directory"]),
        row("one larger than its memory", "run --ram 64K -- ./ends-reads").says(&["raise --ram"]),
    ];
    bench.check(INPUT, &rows);
}

#[test]
fn programs_that_reach_no_snapshot_point() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    let rows =
        [
            row("one that never reads its input", "fuzz -i seeds -o o1 -V 1 -- ./ends-unread")
                .says(&["exited with status 0 before it looked at its input", "`@@`"]),
            row("one that crashes before", "fuzz -i seeds -o o2 -V 1 -- ./ends-early-crash")
                .says(&["SIGSEGV", "before it looked at its input", "dejavm run"]),
            row("one that loops before", "snapshot -t 300 -o s -- ./ends-early-loop")
                .says(&["time limit before it looked at its input", "--timeout"]),
            row("a point that is not reached", "snapshot -o s --at never -- ./ends-unread")
                .says(&["before it reached the point of --at"]),
        ];
    bench.check(INPUT, &rows);
    assert!(!bench.path("s").exists());
}
