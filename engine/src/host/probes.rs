//! The questions, each with what an unwelcome answer means.
//!
//! Never looks at the host's name to answer one.

use super::rig::{KERNEL_CODE, ProbeError, Rig, Seen, USER_HOLE};
use crate::guest::process::trap;
use crate::kvm::System;
use crate::text::with_causes;
use kvm_bindings as k;
use serde::Serialize;
use std::time::Duration;

/// What the host did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Yes.
    Yes,
    /// No.
    No,
    /// The question could not be asked, and why.
    Unknown(String),
}

/// What an unwelcome answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// No process guest runs.
    Process,
    /// No bare guest runs.
    Bare,
    /// Something costs more or is not there.
    Costs,
    /// A difference between hosts that the engine is written for; neither answer is unwelcome.
    Differs,
}

/// A question that was asked of the host by running a few instructions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// A name for programs.
    pub name: &'static str,
    /// The question for people.
    pub question: &'static str,
    /// What the host did.
    pub answer: Answer,
    /// What it means that the answer is not yes.
    pub weight: Weight,
    /// What it costs that the answer is not yes, or what the engine does about it.
    pub otherwise: &'static str,
}

impl Probe {
    /// Whether the answer is yes, or does not matter.
    #[must_use]
    pub fn is_welcome(&self) -> bool {
        self.answer == Answer::Yes || self.weight == Weight::Differs
    }
}

/// A question before it is asked.
struct Question {
    name: &'static str,
    question: &'static str,
    weight: Weight,
    otherwise: &'static str,
    ask: fn(&System) -> Result<bool, ProbeError>,
}

/// `out imm8, al`, whose port no stub uses.
const OUT: u8 = 0xe6;
const PORT: u8 = 0xf7;
const PORT_AFTER: u8 = 0xf8;
const PORT_ELSEWHERE: u8 = 0xf9;
const HLT: u8 = 0xf4;
/// `mov [USER_HOLE], al`.
const STORE: [u8; 7] = [0x88, 0x04, 0x25, 0x00, 0x00, (USER_HOLE >> 16) as u8, 0x00];
const _: () = assert!(USER_HOLE & 0xffff_ffff_ff00_ffff == 0, "STORE encodes it");
const SINGLE_STEP: u32 = k::KVM_GUESTDBG_ENABLE | k::KVM_GUESTDBG_SINGLESTEP;

const QUESTIONS: [Question; 21] = [
    Question {
        name: "out_cpl0_exits",
        question: "does OUT at CPL 0 exit?",
        weight: Weight::Bare,
        otherwise: "no stub of a guest can reach the engine",
        ask: |system| Ok(kernel(system, &[OUT, PORT, HLT])? == Seen::Out(PORT.into())),
    },
    Question {
        name: "out_survives_new_rip",
        question: "does a new RIP after an OUT hold?",
        weight: Weight::Bare,
        otherwise: "a rewind would start at the wrong instruction",
        ask: out_survives_new_rip,
    },
    Question {
        name: "drained_out_repeats",
        question: "does an OUT that is drained run again at the same RIP?",
        weight: Weight::Bare,
        otherwise: "a snapshot right before an OUT would skip it",
        ask: |system| out_again(system, true),
    },
    Question {
        name: "undrained_out_repeats",
        question: "does an OUT that is not drained run again at the same RIP?",
        weight: Weight::Differs,
        otherwise: "the engine drains every OUT before it replaces RIP",
        ask: |system| out_again(system, false),
    },
    Question {
        name: "rip_after_out",
        question: "is RIP past an OUT when it exits?",
        weight: Weight::Differs,
        otherwise: "the engine recognises its stubs by range",
        ask: |system| {
            let mut rig = Rig::kernel(system, &[OUT, PORT, HLT])?;
            match rig.run()? {
                Seen::Out(_) => Ok(rig.vcpu.regs().rip != KERNEL_CODE),
                other => other.unexpected(),
            }
        },
    },
    Question {
        name: "store_cpl3_exits",
        question: "does a store to no memory at CPL 3 exit?",
        weight: Weight::Process,
        otherwise: "a program's system calls cannot reach the engine",
        ask: |system| Ok(matches!(user(system, &STORE)?, Seen::Store(_))),
    },
    Question {
        name: "syscall_reaches_gate",
        question: "does SYSCALL reach the engine's gate?",
        weight: Weight::Process,
        otherwise: "a program's system calls cannot reach the engine",
        ask: |system| Ok(user(system, &SYSCALL)? == Seen::Store(trap::GATE)),
    },
    Question {
        name: "syscall_enters_cpl0",
        question: "does SYSCALL change to CPL 0?",
        weight: Weight::Differs,
        otherwise: "the engine's gate runs at either privilege, and no SYSRET is ever executed",
        ask: |system| {
            let mut rig = Rig::user(system, &SYSCALL)?;
            match rig.run()? {
                Seen::Store(_) => Ok(rig.vcpu.sregs().cs.dpl == 0),
                other => other.unexpected(),
            }
        },
    },
    Question {
        name: "exception_reaches_stub",
        question: "does an exception at CPL 3 reach the guest's IDT?",
        weight: Weight::Process,
        otherwise: "neither crashes nor breakpoints of a program would be seen",
        ask: |system| Ok(user(system, &[0x0f, 0x0b])? == Seen::Trap(6)),
    },
    Question {
        name: "kick_stops_loop",
        question: "does a kick end an endless loop at CPL 3?",
        weight: Weight::Process,
        otherwise: "a time limit would not be kept",
        ask: |system| {
            let mut rig = Rig::user(system, &[0xeb, 0xfe])?;
            Ok(rig.run_for(Duration::from_millis(20))? == Seen::Stuck)
        },
    },
    Question {
        name: "int3_cpl0",
        question: "does INT3 run at CPL 0?",
        weight: Weight::Costs,
        otherwise: "a bare guest that executes INT3 ends as unsupported, its bytes named",
        // Without an IDT a breakpoint is a triple fault.
        ask: |system| works_unless_emulated(kernel(system, &[0xcc])?, &Seen::Shutdown),
    },
    Question {
        name: "sse_cpl0",
        question: "does SSE run at CPL 0?",
        weight: Weight::Costs,
        otherwise: "bare guests must be built without SSE, and run at an emulator's speed",
        // pxor xmm0, xmm0
        ask: |system| {
            let seen = kernel(system, &[0x66, 0x0f, 0xef, 0xc0, OUT, PORT, HLT])?;
            works_unless_emulated(seen, &Seen::Out(PORT.into()))
        },
    },
    Question {
        name: "single_step_cpl0",
        question: "does KVM's single-step work at CPL 0?",
        weight: Weight::Costs,
        otherwise: "no tracing of bare guests",
        ask: |system| single_step(Rig::kernel(system, &[0x90, 0x90, OUT, PORT, HLT])?),
    },
    Question {
        name: "single_step_cpl3",
        question: "does KVM's single-step work at CPL 3?",
        weight: Weight::Differs,
        otherwise: "the engine steps programs by RFLAGS.TF and their own #DB",
        ask: |system| {
            let code = [&[0x90, 0x90], &STORE[..]].concat();
            single_step(Rig::user(system, &code)?)
        },
    },
    Question {
        name: "out_cpl3_exits",
        question: "does OUT exit at CPL 3 with RFLAGS.IOPL 3?",
        weight: Weight::Differs,
        otherwise: "no program is given ports; its system calls exit by a store",
        ask: out_cpl3_exits,
    },
    Question {
        name: "interrupt_cpl3",
        question: "does KVM_INTERRUPT at CPL 3 reach the guest's IDT?",
        weight: Weight::Differs,
        otherwise: "no program is interrupted from outside: a kick stops it",
        ask: interrupt_cpl3,
    },
    Question {
        name: "interrupt_window_cpl0",
        question: "does KVM tell when CPL 0 can take an interrupt?",
        weight: Weight::Differs,
        otherwise: "the engine never asks; it raises no interrupt",
        ask: interrupt_window_cpl0,
    },
    Question {
        name: "vmcall_cpl0",
        question: "does VMCALL at CPL 0 come back?",
        weight: Weight::Costs,
        otherwise: "a bare guest that makes a hypercall runs until its time limit",
        ask: vmcall_cpl0,
    },
    Question {
        name: "tsd_honoured",
        question: "does CR4.TSD make RDTSC fault at CPL 3?",
        weight: Weight::Costs,
        otherwise: "a program that reads the TSC is not deterministic on this host",
        ask: tsd_honoured,
    },
    Question {
        name: "cpuid_masked",
        question: "does a program see the CPUID that it was given?",
        weight: Weight::Costs,
        otherwise: "no CPU feature can be hidden from a guest, RDRAND among them, and a snapshot \
                    taken here may need more of another host than the program used",
        ask: cpuid_masked,
    },
    Question {
        name: "xcr0_virtualised",
        question: "does a program see the XCR0 that it was given?",
        weight: Weight::Costs,
        otherwise: "vector extensions cannot be hidden from a guest",
        ask: xcr0_virtualised,
    },
];

const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Asks every question.
pub(super) fn ask_all(system: &System) -> Vec<Probe> {
    QUESTIONS.iter().map(|question| question.ask(system)).collect()
}

impl Question {
    fn ask(&self, system: &System) -> Probe {
        let Self { name, question, weight, otherwise, ask } = *self;
        let answer = match ask(system) {
            Ok(true) => Answer::Yes,
            Ok(false) => Answer::No,
            Err(error) => Answer::Unknown(format!("probe failed: {}", with_causes(&error))),
        };
        Probe { name, question, answer, weight, otherwise }
    }
}

fn kernel(system: &System, code: &[u8]) -> Result<Seen, ProbeError> {
    Rig::kernel(system, code)?.run()
}

fn user(system: &System, code: &[u8]) -> Result<Seen, ProbeError> {
    Rig::user(system, code)?.run()
}

fn works_unless_emulated(seen: Seen, working: &Seen) -> Result<bool, ProbeError> {
    match seen {
        seen if seen == *working => Ok(true),
        Seen::EmulationFailure => Ok(false),
        other => other.unexpected(),
    }
}

fn out_survives_new_rip(system: &System) -> Result<bool, ProbeError> {
    let code = [OUT, PORT, OUT, PORT_AFTER, HLT, OUT, PORT_ELSEWHERE, HLT];
    let mut rig = Rig::kernel(system, &code)?;
    match rig.run()? {
        Seen::Out(_) => rig.vcpu.regs_mut().rip = KERNEL_CODE + 5,
        other => return other.unexpected(),
    }
    Ok(rig.run()? == Seen::Out(PORT_ELSEWHERE.into()))
}

fn out_again(system: &System, drain: bool) -> Result<bool, ProbeError> {
    let mut rig = Rig::kernel(system, &[OUT, PORT, OUT, PORT_AFTER, HLT])?;
    match rig.run()? {
        Seen::Out(_) if drain => rig.vcpu.settle_step()?,
        Seen::Out(_) => {}
        other => return other.unexpected(),
    }
    rig.vcpu.regs_mut().rip = KERNEL_CODE;
    Ok(rig.run()? == Seen::Out(PORT.into()))
}

/// Whether one step from the start of `rig`, whose first two instructions are NOPs, ends after
/// the first.
fn single_step(mut rig: Rig) -> Result<bool, ProbeError> {
    let start = rig.vcpu.regs().rip;
    rig.vcpu.fd().set_guest_debug(SINGLE_STEP, &[0; 8])?;
    Ok(rig.run()? == Seen::Step && rig.vcpu.regs().rip == start + 1)
}

/// The processor lets OUT through where IOPL allows it (Intel SDM vol. 1, 19.5.1).
fn out_cpl3_exits(system: &System) -> Result<bool, ProbeError> {
    const IOPL3: u64 = 3 << 12;
    const GENERAL_PROTECTION: u8 = 13;
    let mut rig = Rig::user(system, &[&[OUT, PORT], &STORE[..]].concat())?;
    rig.vcpu.regs_mut().rflags |= IOPL3;
    match rig.run()? {
        Seen::Out(port) if port == u16::from(PORT) => Ok(true),
        Seen::Trap(GENERAL_PROTECTION) => Ok(false),
        other => other.unexpected(),
    }
}

/// A vector that has a stub, and that no exception has. Without the interrupt the program would
/// execute UD2.
fn interrupt_cpl3(system: &System) -> Result<bool, ProbeError> {
    const VECTOR: u8 = 31;
    const INVALID_OPCODE: u8 = 6;
    let mut rig = Rig::user(system, &[0x0f, 0x0b])?;
    rig.vcpu.fd().interrupt(VECTOR)?;
    match rig.run()? {
        Seen::Trap(VECTOR) => Ok(true),
        Seen::Trap(INVALID_OPCODE) => Ok(false),
        other => other.unexpected(),
    }
}

/// A guest that can take one as soon as it has executed STI, and spins before it exits by itself.
fn interrupt_window_cpl0(system: &System) -> Result<bool, ProbeError> {
    // sti; mov ecx, 10000; less: dec ecx; jnz less; out PORT, al
    let spin = [0xfb, 0xb9, 0x10, 0x27, 0, 0, 0xff, 0xc9, 0x75, 0xfc];
    let mut rig = Rig::kernel(system, &[&spin[..], &[OUT, PORT, HLT]].concat())?;
    rig.vcpu.fd().request_interrupt_window(true);
    match rig.run()? {
        Seen::Window => Ok(true),
        Seen::Out(_) => Ok(false),
        other => other.unexpected(),
    }
}

/// Intel's instruction, which KVM rewrites on AMD; RAX is no hypercall's number.
fn vmcall_cpl0(system: &System) -> Result<bool, ProbeError> {
    // mov eax, -1; vmcall; and an OUT.
    let code = [0xb8, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x01, 0xc1, OUT, PORT, HLT];
    match Rig::kernel(system, &code)?.run_for(Duration::from_millis(100))? {
        Seen::Out(_) => Ok(true),
        Seen::Stuck | Seen::EmulationFailure | Seen::Shutdown => Ok(false),
        other => other.unexpected(),
    }
}

fn tsd_honoured(system: &System) -> Result<bool, ProbeError> {
    const TSD: u64 = 1 << 2;
    let code = [&[0x0f, 0x31], &STORE[..]].concat();
    let mut rig = Rig::user(system, &code)?;
    rig.vcpu.sregs_mut().cr4 |= TSD;
    match rig.run()? {
        Seen::Trap(13) => Ok(true),
        Seen::Store(_) => Ok(false),
        other => other.unexpected(),
    }
}

/// Hides POPCNT, which every CPU with a KVM that this engine runs on has.
fn cpuid_masked(system: &System) -> Result<bool, ProbeError> {
    const POPCNT: u32 = 1 << 23;
    // mov eax, 1; xor ecx, ecx; cpuid
    let code = [&[0xb8, 1, 0, 0, 0, 0x31, 0xc9, 0x0f, 0xa2], &STORE[..]].concat();
    let mut rig = Rig::user(system, &code)?;
    let mut cpuid = super::offered_cpuid(system)?;
    for leaf in cpuid.as_mut_slice().iter_mut().filter(|leaf| leaf.function == 1) {
        leaf.ecx &= !POPCNT;
    }
    rig.vcpu.fd().set_cpuid(&cpuid)?;
    match rig.run()? {
        Seen::Store(_) => Ok(rig.vcpu.regs().rcx as u32 & POPCNT == 0),
        other => other.unexpected(),
    }
}

/// What the CPUID instruction tells a program about `leaves`, each with subleaf 0.
pub(super) fn cpuid_of_program(
    system: &System,
    leaves: &[u32],
) -> Result<Vec<k::kvm_cpuid_entry2>, ProbeError> {
    // mov eax, LEAF; xor ecx, ecx; cpuid; and a store, which exits.
    let ask =
        |leaf: &u32| [&[0xb8], &leaf.to_le_bytes()[..], &[0x31, 0xc9, 0x0f, 0xa2], &STORE].concat();
    let mut rig = Rig::user(system, &leaves.iter().flat_map(ask).collect::<Vec<_>>())?;
    let mut answers = Vec::with_capacity(leaves.len());
    for &function in leaves {
        match rig.run()? {
            Seen::Store(_) => {}
            other => return other.unexpected(),
        }
        let regs = rig.vcpu.regs();
        let [eax, ebx, ecx, edx] = [regs.rax, regs.rbx, regs.rcx, regs.rdx].map(|reg| reg as u32);
        answers.push(k::kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() });
    }
    Ok(answers)
}

/// XCR0 of x87 and SSE.
pub(super) const X87_SSE: u64 = 3;

fn xcr0_virtualised(system: &System) -> Result<bool, ProbeError> {
    Ok(xcr0_of_program(system)? == X87_SSE)
}

/// The XCR0 that XGETBV tells a program which was given [`X87_SSE`].
pub(super) fn xcr0_of_program(system: &System) -> Result<u64, ProbeError> {
    const OSXSAVE: u64 = 1 << 18;
    // xor ecx, ecx; xgetbv
    let code = [&[0x31, 0xc9, 0x0f, 0x01, 0xd0], &STORE[..]].concat();
    let mut rig = Rig::user(system, &code)?;
    let mut sregs = *rig.vcpu.sregs();
    sregs.cr4 |= OSXSAVE;
    rig.vcpu.fd().set_sregs(&sregs)?;
    let mut xcrs = k::kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0] = k::kvm_xcr { xcr: 0, value: X87_SSE, ..Default::default() };
    rig.vcpu.fd().set_xcrs(&xcrs)?;
    rig.vcpu.reload()?;
    match rig.run()? {
        Seen::Store(_) => {
            let regs = rig.vcpu.regs();
            Ok(regs.rdx << 32 | regs.rax & 0xffff_ffff)
        }
        other => other.unexpected(),
    }
}

/// What an exit costs, in nanoseconds: the median of `count` runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExitCost {
    /// OUT at CPL 0.
    pub out_cpl0_ns: Option<u64>,
    /// A store to no memory at CPL 3.
    pub store_cpl3_ns: Option<u64>,
}

/// Measures both, quickly.
pub(super) fn exit_cost(system: &System) -> ExitCost {
    const COUNT: usize = 200;
    let median = |rig: Result<Rig, ProbeError>| {
        let times = rig.and_then(|mut rig| rig.time_exits(COUNT)).ok()?;
        times.get(times.len() / 2).copied()
    };
    let jump_back = |bytes: u8| [0xeb, 0xfe_u8.wrapping_sub(bytes)];
    let out = [&[OUT, PORT][..], &jump_back(2)].concat();
    let store = [&STORE[..], &jump_back(7)].concat();
    ExitCost {
        out_cpl0_ns: median(Rig::kernel(system, &out)),
        store_cpl3_ns: median(Rig::user(system, &store)),
    }
}
