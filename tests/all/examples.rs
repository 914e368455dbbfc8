//! The crates' examples, which are teaching material and therefore must run as they stand.

use crate::support::kvm;
use dejavm_engine::ProcessSpec;

#[expect(dead_code, reason = "the test calls what its main prints")]
#[path = "../../corpus/examples/custom_mutator.rs"]
mod custom_mutator;
#[path = "../../engine/examples/lecture.rs"]
mod lecture;
#[expect(dead_code, reason = "its main takes the program from the command line")]
#[path = "../../engine/examples/process.rs"]
mod process;
#[path = "../../engine/examples/rewind_loop.rs"]
mod rewind_loop;

#[test]
fn the_lecture_runs() {
    if kvm().is_some() {
        lecture::main().unwrap();
    }
}

#[test]
fn the_rewind_loop_runs() {
    if kvm().is_some() {
        rewind_loop::main().unwrap();
    }
}

#[test]
fn the_process_runs() {
    if kvm().is_some() {
        process::run(&ProcessSpec::new("/usr/bin/wc")).unwrap();
    }
}

#[test]
fn a_custom_mutator_finds_what_havoc_does_not() {
    assert_eq!(custom_mutator::find(None, 50_000).unwrap(), 0);
    assert_eq!(custom_mutator::find(Some(custom_mutator::records()), 50_000).unwrap(), 1);
}
