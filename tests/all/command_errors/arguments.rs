//! Arguments that make no sense.

use super::{Bench, USAGE, row};
use crate::support::kvm;

#[test]
fn arguments_that_make_no_sense() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    let rows = [
        row("no program", "run").says(&["name a program", "--snapshot"]),
        row("no memory", "run --ram 0 -- ./ends-reads").says(&["--ram", "64K"]),
        row("huge memory", "run --ram 9999999T -- ./x").says(&["--ram", "1T"]),
        row("memory in words", "run --ram lots -- ./x").says(&["--ram", "lots"]),
        row("a random seed that is no number", "fuzz -i seeds -o o -s nonsense -E 9 -- ./x")
            .says(&["nonsense", "--seed"]),
        row("no time for a run", "fuzz -i seeds -o o -t 0 -E 9 -- ./ends-reads")
            .says(&["time limit of a run is zero", "leave -t out"]),
        row("no length for an input", "fuzz -i seeds -o o --max-len 0 -E 9 -- ./ends-reads")
            .says(&["0 bytes", "--max-len"]),
        row("a symbol that is not there", "run --at no_such_symbol -- ./ends-reads")
            .says(&["no_such_symbol", "nm -C"]),
    ];
    bench.check(USAGE, &rows);
    assert!(!bench.path("o").exists(), "no folder for a command that makes no sense");
}
