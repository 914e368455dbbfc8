//! What the integration tests share: the host's KVM or the reason to skip, a time limit, and the
//! compiler for the guests in `tests/guests`.
//!
//! Never asserts anything about the engine. A missing compiler ends the test at once: gcc and
//! binutils are documented requirements of the test suite.
#![allow(clippy::panic, reason = "test support: whatever is missing must end the test, by name")]

use dejavm_engine::kvm::System;
use dejavm_engine::machine::Limit;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// `/dev/kvm`, or `None` with a line that says that the test is skipped. `DEJAVM_REQUIRE_KVM=1`
/// makes the lack of it a failure.
#[must_use]
pub fn kvm() -> Option<System> {
    match System::open() {
        Ok(system) => Some(system),
        Err(error) if std::env::var_os("DEJAVM_REQUIRE_KVM").is_some_and(|v| v == "1") => {
            panic!("DEJAVM_REQUIRE_KVM=1, but {error}")
        }
        Err(error) => {
            println!("skipped: no /dev/kvm ({error})");
            None
        }
    }
}

/// A limit that no healthy run comes near, even on a loaded nested host.
#[must_use]
pub fn limit() -> Limit {
    Limit::time(Duration::from_secs(30))
}

/// The folder of the guests' sources, `tests/guests`.
#[must_use]
pub fn guests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guests")
}

/// Compiles `source`, a path relative to [`guests_dir`] (or absolute), with `cc` and `flags` to a
/// file called `name` in the target folder, and returns its path.
///
/// # Panics
/// There is no `cc`, or it refuses the source.
#[must_use]
pub fn build_c(name: &str, source: impl AsRef<Path>, flags: &[&str]) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder = build_dir();
    let source = guests_dir().join(source);
    let out = folder.join(name);
    // Tests run side by side, and two may want the same program.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!("{name}.{}-{count}", std::process::id()));
    let mut cc = Command::new("cc");
    cc.arg("-o").arg(&temporary).arg(&source).args(flags);
    match cc.output() {
        Ok(done) if done.status.success() => {}
        Ok(done) => panic!("{cc:?}: {}", String::from_utf8_lossy(&done.stderr)),
        Err(error) => panic!("{cc:?}: {error} (the tests need gcc and binutils)"),
    }
    if let Err(error) = std::fs::rename(&temporary, &out) {
        panic!("rename {} to {}: {error}", temporary.display(), out.display());
    }
    out
}

/// Assembles `tests/guests/bare/<name>.S` to a flat binary that is linked to run at `at`.
///
/// # Panics
/// As [`build_c`].
#[must_use]
pub fn build_flat(name: &str, at: u64) -> Vec<u8> {
    let link = format!("-Wl,-Ttext={at:#x},--oformat=binary");
    let built = build_c(&format!("{name}-{at:x}.bin"), bare(name), &[&BARE[..], &[&link]].concat());
    read(&built)
}

/// Assembles `tests/guests/bare/<name>.S` to a freestanding ELF file whose text is at `at`.
///
/// # Panics
/// As [`build_c`].
#[must_use]
pub fn build_elf(name: &str, at: u64) -> Vec<u8> {
    let link = format!("-Wl,-Ttext={at:#x}");
    let built = build_c(&format!("{name}-{at:x}.elf"), bare(name), &[&BARE[..], &[&link]].concat());
    read(&built)
}

const BARE: [&str; 5] = [
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none,-z,noseparate-code,-z,noexecstack",
    "-Wa,-mx86-used-note=no",
];

fn bare(name: &str) -> PathBuf {
    Path::new("bare").join(format!("{name}.S"))
}

fn read(path: &Path) -> Vec<u8> {
    match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => panic!("read {}: {error}", path.display()),
    }
}

/// Where compiled guests go: beside the test binary's own folder, so that `cargo clean` takes
/// them with it.
fn build_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let target = exe.ancestors().nth(2).map_or_else(std::env::temp_dir, Path::to_owned);
    let folder = target.join("test-guests");
    if let Err(error) = std::fs::create_dir_all(&folder) {
        panic!("create {}: {error}", folder.display());
    }
    folder
}
