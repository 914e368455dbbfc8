//! Snapshot files: what is saved comes back in a fresh machine, and nothing damaged is loaded.

use crate::support::{build_c, kvm, limit, machine, spec, with_causes};
use dejavm_engine::linux::FileMapping;
use dejavm_engine::machine::{GuestState, Machine, MachineError, MachineSnapshot};
use dejavm_engine::outcome::Outcome;
use dejavm_engine::snapshot::{CpuNeeds, FileError, file};
use std::sync::Arc;

fn saved(folder: &tempfile::TempDir) -> Option<(dejavm_engine::kvm::System, std::path::PathBuf)> {
    let system = kvm()?;
    let machine = machine(&system, &spec(&build_c("words", &[]), &[]));
    let path = folder.path().join("words.dejavm");
    machine.snapshot().save(&path).unwrap();
    Some((system, path))
}

#[test]
fn a_saved_snapshot_runs_in_a_fresh_machine() {
    let folder = tempfile::tempdir().unwrap();
    let Some((system, path)) = saved(&folder) else { return };
    let snapshot = Arc::new(MachineSnapshot::open(&path).unwrap());
    file::check_data(&path).unwrap();
    let mut machines: Vec<_> =
        (0..3).map(|_| Machine::load(&system, Arc::clone(&snapshot)).unwrap()).collect();
    let mut digests = Vec::new();
    for machine in &mut machines {
        assert_eq!(machine.verify().unwrap(), []);
        for _ in 0..20 {
            let report = machine.run(b"b a", limit()).unwrap();
            assert_eq!(report.outcome, Outcome::Exited { status: 0 });
            assert_eq!(machine.stdout(), b"a\nb\n2 words, 2.000000\n");
            digests.push(machine.memory_digest().unwrap());
            machine.rewind().unwrap();
        }
        assert_eq!(machine.verify().unwrap(), []);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "every run on every machine ends with the same memory");
}

#[test]
fn a_truncated_file_is_refused_at_every_kind_of_length() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_, path)) = saved(&folder) else { return };
    let whole = std::fs::read(&path).unwrap();
    let short = folder.path().join("short");
    let lengths = (0..64).chain([100, 1000, 4096, whole.len() / 2, whole.len() - 1]);
    for length in lengths {
        std::fs::write(&short, &whole[..length]).unwrap();
        let error = MachineSnapshot::open(&short).unwrap_err();
        assert!(matches!(error, FileError::Damaged { .. }), "{length}: {error}");
        assert!(error.to_string().contains("short"), "the file is named: {error}");
    }
}

#[test]
fn a_changed_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_, path)) = saved(&folder) else { return };
    let whole = std::fs::read(&path).unwrap();
    let bad = folder.path().join("bad");
    // The prefix byte by byte, the header at intervals: opening notices.
    let header = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    for at in (0..24).chain((24..24 + header).step_by(header / 50)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&bad, &bytes).unwrap();
        assert!(MachineSnapshot::open(&bad).is_err(), "byte {at}");
    }
    // A page, and the last byte string: opening is not meant to read them, the check is.
    let first_page = (24 + header).next_multiple_of(4096);
    for (at, part) in [(first_page, "pages"), (whole.len() - 1, "byte string")] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&bad, &bytes).unwrap();
        assert!(MachineSnapshot::open(&bad).is_ok(), "{part}");
        let error = with_causes(&file::check_data(&bad).unwrap_err());
        assert!(error.contains("checksum") && error.contains(part), "{error}");
    }
}

#[test]
fn a_file_of_another_version_is_refused_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_, path)) = saved(&folder) else { return };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = with_causes(&MachineSnapshot::open(&path).unwrap_err());
    let told = format!("version is 1, this program reads version {}", file::VERSION);
    assert!(error.contains(&told), "{error}");
}

#[test]
fn host_files_are_stored_once_and_beside_the_header() {
    let Some(system) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&large, &content).unwrap();
    let twin = folder.path().join("twin");
    std::fs::copy(&large, &twin).unwrap();
    let mut spec = spec(&build_c("words", &[]), &[]);
    let info = |spec: &_| {
        let path = folder.path().join("it.dejavm");
        machine(&system, spec).snapshot().save(&path).unwrap();
        file::check_data(&path).unwrap();
        (file::info(&path).unwrap(), MachineSnapshot::open(&path).unwrap())
    };
    let (without, _) = info(&spec);
    // Twice by path, once more by content.
    for (host, guest) in [(&large, "/a"), (&large, "/b"), (&twin, "/c")] {
        spec.files.push(FileMapping { host: host.clone(), guest: guest.into() });
    }
    let (with, snapshot) = info(&spec);
    assert_eq!(with.blob_bytes, without.blob_bytes + content.len() as u64);
    let encoded: u64 = with.sections.iter().map(|(_, bytes)| bytes).sum();
    assert!(encoded < 64 << 10, "{:?}", with.sections);
    // What is mapped is what was read.
    let GuestState::Process(state) = &snapshot.guest else { panic!("a program") };
    let images = state.process.images();
    assert!(images.len() > 1, "a dynamic program");
    for image in images {
        assert!(std::fs::read(&image.path).unwrap() == *image.bytes, "{}", image.path.display());
    }
}

#[test]
fn a_host_may_lack_an_msr_that_a_program_cannot_notice() {
    // In the range that the architecture reserves for hypervisors, and no KVM has.
    const NOWHERE: u32 = 0x4000_ffff;
    const LSTAR: u32 = 0xc000_0082;
    let folder = tempfile::tempdir().unwrap();
    let Some((system, path)) = saved(&folder) else { return };
    let open = || MachineSnapshot::open(&path).unwrap();

    let mut snapshot = open();
    snapshot.state.msrs.insert(0, (NOWHERE, 0));
    let mut machine = Machine::load(&system, Arc::new(snapshot)).unwrap();
    let report = machine.run(b"b a", limit()).unwrap();
    assert_eq!(report.outcome, Outcome::Exited { status: 0 });
    machine.rewind().unwrap();
    assert_eq!(machine.verify().unwrap(), []);

    // The gate of every system call is noticed; no host takes a non-canonical address.
    let mut snapshot = open();
    for msr in snapshot.state.msrs.iter_mut().filter(|msr| msr.0 == LSTAR) {
        msr.1 = 1 << 63;
    }
    let error = Machine::load(&system, Arc::new(snapshot)).unwrap_err().to_string();
    assert!(error.contains("0xc0000082"), "{error}");
}

#[test]
fn a_snapshot_is_refused_by_a_host_without_its_cpu_features() {
    let folder = tempfile::tempdir().unwrap();
    let Some((system, path)) = saved(&folder) else { return };
    let mut snapshot = MachineSnapshot::open(&path).unwrap();
    // As if it came from a host with every feature there is.
    let everything = |function| kvm_bindings::kvm_cpuid_entry2 {
        function,
        ebx: !0,
        ecx: !0,
        edx: !0,
        ..Default::default()
    };
    let cpuid = [everything(1), everything(7), everything(0x8000_0001)];
    snapshot.needs = CpuNeeds::of(&cpuid, 7, 0);
    let error = Machine::load(&system, Arc::new(snapshot)).unwrap_err();
    // No CPU has both AMD's SSE4a and everything of Intel's.
    assert!(matches!(error, MachineError::HostLacks { .. }), "{error}");
}
