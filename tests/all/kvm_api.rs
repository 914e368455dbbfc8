//! The KVM API's corners: the calls that no machine makes, which are the engine's API all the same,
//! and exits that are not over when `KVM_RUN` returns.

use crate::support::{build_c, kvm, limit, machine, spec};
use dejavm_engine::address::{Gpa, Gva};
use dejavm_engine::exit::Exit;
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::kvm::{
    COALESCED_MAX, COALESCED_MIN, DataMatch, FilteredMsr, IoAddress, MsrAccess, System, Vm,
    event_fd,
};
use dejavm_engine::memory::GuestMemory;
use dejavm_engine::outcome::Outcome;
use dejavm_engine::paging;
use dejavm_engine::vcpu::Vcpu;
use std::sync::Arc;

const CODE: Gpa = Gpa(0x8000);

/// A vCPU at the first instruction of `code`, and its memory, which must outlive it.
fn made(system: &System, mode: Mode, code: &[u8]) -> (Vcpu, GuestMemory) {
    let vm = Arc::new(system.create_vm().unwrap());
    made_in(&vm, mode, code)
}

fn made_in(vm: &Arc<Vm>, mode: Mode, code: &[u8]) -> (Vcpu, GuestMemory) {
    let spec = BareSpec::flat(mode, code.to_vec(), CODE, 1 << 20);
    let mut memory = GuestMemory::new(vm, &[spec.slot()]).unwrap();
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

/// `sti; again: out 0xd8, al; jmp again`, with the PIC ready for line 5 before it, and at 0x8040
/// the handler: `mov al, 0x20; out 0x20, al; out 0xd1, al; iret`.
fn waits_for_line_5() -> Vec<u8> {
    let pic = [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xdf)];
    let mut code: Vec<u8> = pic.into_iter().flat_map(|(at, word)| [0xb0, word, 0xe6, at]).collect();
    code.extend([0xfb, 0xe6, 0xd8, 0xeb, 0xfc]);
    code.resize(0x40, 0xf4);
    code.extend([0xb0, 0x20, 0xe6, 0x20, 0xe6, 0xd1, 0xcf]);
    code
}

fn port_of(exit: &Exit<'_>) -> Option<u16> {
    match exit {
        Exit::PortOut { port, .. } => Some(*port),
        _ => None,
    }
}

#[test]
fn a_line_and_an_eventfd_interrupt_a_guest_with_an_irqchip() {
    let Some(system) = kvm() else { return };
    let vm = Arc::new(system.create_vm().unwrap());
    vm.create_irqchip().unwrap();
    let (mut vcpu, mut memory) = made_in(&vm, Mode::Real, &waits_for_line_5());
    memory.write(Gpa(0x25 * 4), &[0x40, 0x80, 0, 0]).unwrap();
    assert_eq!(port_of(&vcpu.run().unwrap()), Some(0xd8));
    vm.set_irq_line(5, true).unwrap();
    vm.set_irq_line(5, false).unwrap();
    assert_eq!(port_of(&vcpu.run().unwrap()), Some(0xd1));
    assert_eq!(port_of(&vcpu.run().unwrap()), Some(0xd8));

    let event = event_fd().unwrap();
    vm.add_irqfd(&event, 5).unwrap();
    event.write(1).unwrap();
    // Another thread of the kernel raises it: soon, but not before the write is over.
    let came = (0..1_000_000).any(|_| port_of(&vcpu.run().unwrap()) == Some(0xd1));
    assert!(came, "no interrupt in a million exits");
    vm.remove_irqfd(&event, 5).unwrap();
    event.write(1).unwrap();
    let came = (0..100).any(|_| port_of(&vcpu.run().unwrap()) == Some(0xd1));
    assert!(!came, "an eventfd that was removed still interrupts");
}

#[test]
fn a_store_to_an_ioeventfd_rings_it_and_does_not_exit() {
    let Some(system) = kvm() else { return };
    let vm = Arc::new(system.create_vm().unwrap());
    // mov al, 7; out 0x10, al; mov [0xf0000000], al; mov al, 8; out 0x10, al; hlt
    let code = [0xb0, 7, 0xe6, 0x10, 0xa2, 0, 0, 0, 0xf0, 0xb0, 8, 0xe6, 0x10, 0xf4];
    let (mut vcpu, _memory) = made_in(&vm, Mode::Protected, &code);
    let (port, hole) = (IoAddress::Port(0x10), IoAddress::Memory(0xf000_0000));
    let (sevens, stores) = (event_fd().unwrap(), event_fd().unwrap());
    vm.add_ioeventfd(&sevens, port, DataMatch::U8(7)).unwrap();
    vm.add_ioeventfd(&stores, hole, DataMatch::Any).unwrap();
    assert!(vm.add_ioeventfd(&stores, hole, DataMatch::Any).is_err(), "the address is taken");
    // The OUT of 8 matches nothing.
    assert_eq!(vcpu.run().unwrap(), Exit::PortOut { port: 0x10, size: 1, data: &[8] });
    assert_eq!((sevens.read().unwrap(), stores.read().unwrap()), (1, 1));
    assert!(sevens.read().is_err(), "it rang once");

    vm.remove_ioeventfd(&sevens, port, DataMatch::U8(7)).unwrap();
    vcpu.settle_step().unwrap();
    vcpu.regs_mut().rip = CODE.0;
    assert_eq!(vcpu.run().unwrap(), Exit::PortOut { port: 0x10, size: 1, data: &[7] });
}

#[test]
fn coalesced_stores_come_in_order_and_a_full_ring_loses_none() {
    let Some(system) = kvm() else { return };
    let vm = Arc::new(system.create_vm().unwrap());
    // mov eax, 0x12345678; mov [0xf0000000], eax; mov al, 1; out 0x10, al; in al, 0x10; and then
    // 200 times inc al; out 0x10, al
    let mut code = vec![0xb8, 0x78, 0x56, 0x34, 0x12, 0xa3, 0, 0, 0, 0xf0, 0xb0, 1, 0xe6, 0x10];
    code.extend([0xe4, 0x10]);
    code.extend([0xfe, 0xc0, 0xe6, 0x10].repeat(200));
    code.push(0xf4);
    let (mut vcpu, _memory) = made_in(&vm, Mode::Protected, &code);
    let (port, hole) = (IoAddress::Port(0x10), IoAddress::Memory(0xf000_0000));
    vm.coalesce(port, 1).unwrap();
    vm.coalesce(hole, 8).unwrap();
    match vcpu.run().unwrap() {
        Exit::PortIn { data, .. } => data.fill(0),
        other => panic!("{other:?}"),
    }
    let kept = |vcpu: &mut Vcpu| {
        let write = vcpu.fd().coalesced_write().unwrap()?;
        Some((write.at, write.data().to_vec()))
    };
    assert_eq!(kept(&mut vcpu), Some((hole, vec![0x78, 0x56, 0x34, 0x12])));
    assert_eq!(kept(&mut vcpu), Some((port, vec![1])));
    assert_eq!(kept(&mut vcpu), None);

    let mut seen = Vec::new();
    loop {
        let now = match vcpu.run().unwrap() {
            Exit::PortOut { data, .. } => Some(data[0]),
            Exit::Halt => None,
            other => panic!("{other:?}"),
        };
        let before = seen.len();
        seen.extend(std::iter::from_fn(|| kept(&mut vcpu)).map(|(_, data)| data[0]));
        let Some(byte) = now else { break };
        let held = COALESCED_MIN..=COALESCED_MAX;
        assert!(held.contains(&(seen.len() - before)), "an OUT exits when the ring is full");
        seen.push(byte);
    }
    assert_eq!(seen, (1..=200).collect::<Vec<u8>>());
    vm.stop_coalescing(port, 1).unwrap();
    vcpu.regs_mut().rip = CODE.0 + 12;
    assert!(matches!(vcpu.run().unwrap(), Exit::PortOut { port: 0x10, .. }));
}

#[test]
fn filtered_msrs_are_this_processes_to_answer() {
    use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
    let Some(system) = kvm() else { return };
    let vm = Arc::new(system.create_vm().unwrap());
    // mov ecx, 0x17a (IA32_MCG_STATUS); mov eax, 5; xor edx, edx; wrmsr; rdmsr; out 0x10, al; hlt
    let code = [0xb9, 0x7a, 1, 0, 0, 0xb8, 5, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x30, 0x0f, 0x32];
    let (mut vcpu, _memory) =
        made_in(&vm, Mode::Protected, &[&code[..], &[0xe6, 0x10, 0xf4]].concat());
    let filtered = |access| [FilteredMsr { index: 0x17a, access }];
    vm.filter_msrs(&filtered(MsrAccess::Both)).unwrap();
    match vcpu.run().unwrap() {
        Exit::MsrWrite { index: 0x17a, reason: KVM_MSR_EXIT_REASON_FILTER, data: 5, .. } => {}
        other => panic!("{other:?}"),
    }
    match vcpu.run().unwrap() {
        Exit::MsrRead { index: 0x17a, reason: KVM_MSR_EXIT_REASON_FILTER, data, .. } => {
            *data = 0x2b
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(vcpu.run().unwrap(), Exit::PortOut { port: 0x10, size: 1, data: &[0x2b] });

    // Only what is read: the kernel takes the write, and an error is a #GP, without an IDT the end.
    vm.filter_msrs(&filtered(MsrAccess::Read)).unwrap();
    vcpu.settle_step().unwrap();
    vcpu.regs_mut().rip = CODE.0;
    vcpu.regs_mut().rax = 0;
    match vcpu.run().unwrap() {
        Exit::MsrRead { error, .. } => *error = 1,
        other => panic!("{other:?}"),
    }
    assert_eq!(vcpu.run().unwrap(), Exit::Shutdown);
    let many = [FilteredMsr { index: 0x17a, access: MsrAccess::Read }; 17];
    assert!(vm.filter_msrs(&many).is_err(), "KVM takes 16 ranges");
}

#[test]
fn a_kick_by_the_own_thread_stops_the_next_run_and_is_forgotten() {
    let Some(system) = kvm() else { return };
    let (mut vcpu, _memory) = made(&system, Mode::Protected, &[0xf4]);
    vcpu.fd().set_kick();
    assert_eq!(vcpu.run().unwrap(), Exit::Interrupted);
    assert_eq!(vcpu.fd().run_raw().unwrap(), None);
    vcpu.clear_kick();
    assert_eq!(vcpu.fd().run_raw().unwrap(), Some(kvm_bindings::KVM_EXIT_HLT));
}

#[test]
fn forgotten_pages_are_as_the_memory_was_made() {
    let Some(system) = kvm() else { return };
    let (mut vcpu, mut memory) = made(&system, Mode::Protected, &[0xc6, 5, 0, 0, 5, 0, 9, 0xf4]); // mov byte [0x50000], 9
    memory.write(Gpa(0x4_fffe), &[1, 2, 3, 4]).unwrap();
    assert_eq!(vcpu.run().unwrap(), Exit::Halt);
    let mut bytes = [0; 4];
    memory.read(Gpa(0x4_fffe), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 9, 4]);
    // Whole pages only: the one before is forgotten in part, which is not at all.
    memory.forget(Gpa(0x4_fffe), 2 + 4096).unwrap();
    memory.read(Gpa(0x4_fffe), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 0, 0]);
    vcpu.regs_mut().rip = CODE.0;
    assert_eq!(vcpu.run().unwrap(), Exit::Halt);
    memory.read(Gpa(0x4_fffe), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 9, 0], "the guest writes to the page that is there now");
    assert!(memory.forget(Gpa(0xf_f000), 8192).is_err(), "past the RAM");
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
