//! The KVM API's corners: the calls that no machine makes, which are the engine's API all the same,
//! and exits that are not over when `KVM_RUN` returns.

use crate::support::{build_c, kvm, limit, machine, spec};
use dejavm_engine::address::{Gpa, Gva};
use dejavm_engine::exit::Exit;
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::kvm::System;
use dejavm_engine::memory::GuestMemory;
use dejavm_engine::outcome::Outcome;
use dejavm_engine::paging;
use dejavm_engine::vcpu::Vcpu;
use std::sync::Arc;

const CODE: Gpa = Gpa(0x8000);

/// A vCPU at the first instruction of `code`, and its memory, which must outlive it.
fn made(system: &System, mode: Mode, code: &[u8]) -> (Vcpu, GuestMemory) {
    let spec = BareSpec::flat(mode, code.to_vec(), CODE, 1 << 20);
    let vm = Arc::new(system.create_vm().unwrap());
    let mut memory = GuestMemory::new(&vm, &[spec.slot()]).unwrap();
    let mut vcpu = Vcpu::new(vm.create_vcpu().unwrap()).unwrap();
    let entry = spec.load(&mut memory).unwrap();
    let sregs = spec.sregs(vcpu.sregs());
    *vcpu.sregs_mut() = sregs;
    *vcpu.regs_mut() = spec.regs(entry);
    (vcpu, memory)
}

#[test]
fn the_run_page_is_at_least_a_page() {
    let Some(system) = kvm() else { return };
    assert!(system.vcpu_mmap_size().unwrap() >= 4096);
}

#[test]
fn translate_agrees_with_the_engines_own_walk() {
    let Some(system) = kvm() else { return };
    let (mut vcpu, memory) = made(&system, Mode::Long, &[0xf4]);
    assert_eq!(vcpu.run().unwrap(), Exit::Halt);
    let root = Gpa(vcpu.sregs().cr3);
    for at in [0, CODE.0, 0xf_ffff, 0xffff_ffff, 1 << 32, 0xffff_8000_0000_0000] {
        let walked = paging::walk(&memory, root, Gva(at)).map(|found| found.gpa.0);
        assert_eq!(vcpu.fd().translate(at).unwrap(), walked, "{at:#x}");
    }
}

#[test]
fn an_interrupt_wakes_a_halted_guest() {
    let Some(system) = kvm() else { return };
    // sti; hlt; and, at 0x8010, the handler: out 0xd1, al
    let mut code = vec![0xfb, 0xf4];
    code.resize(16, 0xf4);
    code.extend([0xe6, 0xd1]);
    let (mut vcpu, mut memory) = made(&system, Mode::Real, &code);
    // Real mode's vector 0x20: offset, segment.
    memory.write(Gpa(0x20 * 4), &[0x10, 0x80, 0, 0]).unwrap();
    assert_eq!(vcpu.run().unwrap(), Exit::Halt);
    vcpu.fd().interrupt(0x20).unwrap();
    assert!(matches!(vcpu.run().unwrap(), Exit::PortOut { port: 0xd1, .. }));
}

#[test]
fn a_store_in_two_parts_leaves_nothing_for_the_next_run() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("poke", &["-static"]), &[]));
    for _ in 0..3 {
        let poke = machine.run(b"x", limit()).unwrap().outcome;
        assert!(matches!(poke, Outcome::Unsupported(_)), "{poke}");
        machine.rewind().unwrap();
        let good = machine.run(b"y", limit()).unwrap().outcome;
        assert_eq!(good, Outcome::Exited { status: 0 });
        machine.rewind().unwrap();
        assert_eq!(machine.verify().unwrap(), []);
    }
}
