//! Compiles the shared object in `guest` with the compiler that builds this package: cargo has no
//! way to build a library of another kind for a package that then includes its bytes.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    println!("cargo::rerun-if-changed=guest");
    let out = variable("OUT_DIR").join("dejavm-heap-guard.so");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args([
        "--edition",
        "2024",
        "--crate-type",
        "cdylib",
        "--crate-name",
        "dejavm_heap_guard",
    ]);
    rustc.args(["-C", "panic=abort", "-C", "opt-level=2", "-C", "codegen-units=1"]);
    // Stacks lead through it.
    rustc.args(["-C", "force-unwind-tables=yes", "-C", "overflow-checks=no"]);
    rustc.args(["-C", "link-arg=-nostdlib", "-C", "link-arg=-Wl,-soname,dejavm-heap-guard.so"]);
    // Only its first part is mapped from the file's start, by which the engine knows an image.
    rustc.args(["-C", "link-arg=-Wl,-z,separate-code"]);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(["linker=".as_ref(), &*linker].join("".as_ref()));
    }
    rustc.arg("--target").arg(variable("TARGET")).arg("-o").arg(&out);
    rustc.arg(variable("CARGO_MANIFEST_DIR").join("guest/lib.rs"));
    match rustc.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("{rustc:?}: {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{rustc:?}: {error}");
            ExitCode::FAILURE
        }
    }
}
