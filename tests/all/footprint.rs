//! What a process has of the host, and processes that run one test and nothing beside it.

use crate::support::kvm;
use dejavm_engine::kvm::System;
use std::process::Command;

/// Set in the process that a test starts to be alone.
const IS_ALONE: &str = "DEJAVM_TEST_IS_ALONE";

/// `/dev/kvm` in a process that runs the test `name` alone; `None` where there is none, and where
/// such a process has been started and has passed.
pub fn kvm_alone(name: &str) -> Option<System> {
    let system = kvm()?;
    is_alone(name).then_some(system)
}

/// Whether this process runs the test `name` alone. If not, it starts one that does, and sees that
/// the test passes there: the process of all the tests has their machines too.
fn is_alone(name: &str) -> bool {
    if std::env::var_os(IS_ALONE).is_some() {
        return true;
    }
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", name, "--nocapture"]).env(IS_ALONE, "1");
    // With an arena of its own for the test's thread, the C library would read a file below /proc
    // in the middle of some run (`check_may_shrink_heap`, glibc's malloc/arena.c).
    let out = test.env("MALLOC_ARENA_MAX", "1").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{}: {text}{error}", out.status);
    print!("{text}");
    false
}

/// What the process has of the host.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    pub descriptors: usize,
    pub mappings: usize,
    /// Resident, in KiB, without files' pages.
    pub memory_kib: u64,
    /// The kernel's page tables for the process, in KiB.
    pub tables_kib: u64,
    /// KVM's, of all virtual machines on the host, in KiB; 0 where the kernel does not tell
    /// (before Linux 6.1).
    pub guest_tables_kib: u64,
}

/// That of this process, now.
pub fn footprint() -> Footprint {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    Footprint {
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        mappings: std::fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
        memory_kib: kib(&status, "RssAnon:").unwrap() + kib(&status, "RssShmem:").unwrap(),
        tables_kib: kib(&status, "VmPTE:").unwrap(),
        guest_tables_kib: kib(&host, "SecPageTables:").unwrap_or(0),
    }
}

/// The figure of the line that begins with `name`.
pub fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

impl Footprint {
    /// Panics where there is more of anything than there was `before`, but for what depends on
    /// chance: pages of a guest that no run had touched before stay with its machine, and there are
    /// other machines on the host.
    pub fn assert_not_above(&self, before: &Self) {
        println!("{before:?}\n{self:?}");
        assert_eq!((self.descriptors, self.mappings), (before.descriptors, before.mappings));
        assert!(self.memory_kib <= before.memory_kib + (16 << 10), "{before:?} {self:?}");
        assert!(self.tables_kib <= before.tables_kib + 64, "{before:?} {self:?}");
        // A page for each run would be more.
        let others_kib = 64 << 10;
        assert!(
            self.guest_tables_kib <= before.guest_tables_kib + others_kib,
            "{before:?} {self:?}"
        );
    }
}
