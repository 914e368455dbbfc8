//! Seeds, dictionaries and inputs that cannot be used.

use super::{Bench, INPUT, row};
use crate::support::kvm;
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn seeds_that_are_of_no_use() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.write("large-seeds/large", b"");
    let large = fs::File::options().write(true).open(bench.path("large-seeds/large")).unwrap();
    large.set_len(100_000_000).unwrap();
    // Even root gets an error from it: nothing is mapped at 0 in whoever reads.
    fs::create_dir(bench.path("broken-seeds")).unwrap();
    symlink("/proc/self/mem", bench.path("broken-seeds/a")).unwrap();
    let rows = [
        row("a seed that fails to be read", "fuzz -i broken-seeds -o o8 -E 9 -- ./ends-reads")
            .says(&[
                "no usable seed in broken-seeds",
                "a: it cannot be read: Input/output error",
                "a seed is a file you may read",
            ]),
        row("an empty folder", "fuzz -i empty -o o1 -E 9 -- ./ends-reads").says(&[
            "no usable seed in empty",
            "holds no file",
            "a seed is",
        ]),
        row("a seed of 100 MB", "fuzz -i large-seeds -o o2 -E 9 -- ./ends-reads").says(&[
            "no usable seed in large-seeds",
            "large: it is longer than 1048576",
            "--max-len",
        ]),
        row("no folder", "fuzz -i gone -o o3 -E 9 -- ./ends-reads").says(&[
            "gone",
            "No such file",
            "folder of seeds",
        ]),
        row("a file for a folder", "fuzz -i file -o o3 -E 9 -- ./ends-reads")
            .says(&["list the seeds in file", "folder of seeds"]),
        row("all crash the program", "fuzz -i seeds -o o4 -V 5 -- ./ends-crash")
            .says(&["no usable seed in seeds", "a: it crashes; recorded as a crash"]),
        row("the program hangs on all", "fuzz -i seeds -o o5 -t 50 -V 5 -- ./ends-hang")
            .says(&["no usable seed in seeds", "a: it reaches the time limit"]),
        row("nothing to resume", "fuzz -o o7 -E 9 -- ./ends-reads")
            .says(&["o7", "give seeds with -i"]),
    ];
    bench.check(INPUT, &rows);
    let kept = |folder: &str| fs::read_dir(bench.path(folder)).unwrap().count();
    assert_eq!((kept("o4/crashes"), kept("o5/hangs")), (1, 1), "what was found is kept");
}

#[test]
fn dictionaries_and_inputs_that_cannot_be_read() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.write("bad.dict", b"\"ok\"\nbad\n");
    let rows = [
        row("a bad dictionary", "fuzz -i seeds -o o6 -x bad.dict -E 9 -- ./ends-reads")
            .says(&["bad.dict, line 2", "no opening quote"]),
        row("a missing dictionary", "fuzz -i seeds -o o6 -x gone -E 9 -- ./ends-reads")
            .says(&["read dictionary gone"]),
        row("an input without an end", "run -i /dev/zero -- ./ends-reads")
            .says(&["read /dev/zero", "longer than 256 MiB"]),
        row("a missing input", "run -i gone -- ./ends-reads").says(&["read gone"]),
    ];
    bench.check(INPUT, &rows);
}
