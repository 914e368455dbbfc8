//! A fault in a guest is the signal that a kernel would raise, with its facts.

use crate::support::{build_c, kvm, limit, machine, natively, spec, status_of};
use dejavm_engine::outcome::{Access, Fault, Outcome, Signal};

#[test]
fn every_way_to_die_ends_as_it_does_natively() {
    let Some(system) = kvm() else { return };
    let program = build_c("faults", &[]);
    let mut machine = machine(&system, &spec(&program, &[]));
    for how in "rwxncdubhoaspmfezASPDV".chars() {
        let input = [how as u8];
        let report = machine.run(&input, limit()).unwrap();
        let native = natively(&program, &[], &input).status;
        assert_eq!(status_of(&report.outcome), native, "{how}: {}", report.outcome);
        machine.rewind().unwrap();
        assert_eq!(machine.verify().unwrap(), [], "after {how}");
    }
}

fn fault(how: &[u8]) -> Option<Fault> {
    let system = kvm()?;
    let mut machine = machine(&system, &spec(&build_c("faults", &[]), &[]));
    match machine.run(how, limit()).unwrap().outcome {
        Outcome::Crashed(fault) => Some(fault),
        other => panic!("{other}"),
    }
}

#[test]
fn a_memory_fault_tells_its_address_and_access() {
    for (how, kind, address) in
        [(b"r", Access::Read, 0x10), (b"w", Access::Write, 0x20), (b"x", Access::Execute, 0x30)]
    {
        let Some(fault) = fault(how) else { return };
        let access = fault.access.unwrap();
        assert_eq!((access.kind, access.address), (kind, Some(address)));
        assert_eq!(fault.signal, Signal::SEGV);
        if kind == Access::Execute {
            assert_eq!(fault.rip, 0x30);
        }
    }
}

#[test]
fn a_non_canonical_access_has_no_address_to_tell() {
    let Some(fault) = fault(b"n") else { return };
    assert_eq!(fault.access.unwrap().address, None);
    assert_eq!(fault.vector, Some(13));
}
