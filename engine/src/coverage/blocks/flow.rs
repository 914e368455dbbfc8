//! Recursive descent along direct control flow.
//!
//! Never follows an indirect jump; it only remembers where they are.

use super::ranges::Ranges;
use super::text::Text;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};
use std::collections::{BTreeSet, HashMap};

/// Where control goes after an instruction.
enum After {
    Continue,
    /// Continues if the callee returns.
    Call,
    Stop,
}

/// The state of one discovery.
pub(super) struct Descent<'a> {
    pub text: Text<'a>,
    pub ranges: &'a Ranges,
    /// Indirect jumps whose tables were not looked at yet.
    pub pending: Vec<u64>,
    /// Indirect jumps met so far.
    pub indirect_jumps: usize,
    /// Data addresses that code takes (`lea`): a table ends where the next object begins.
    pub references: BTreeSet<u64>,
    /// Code addresses that code takes.
    pub taken: BTreeSet<u64>,
    /// For a jump target, one jump that goes there.
    pub jumps_to: HashMap<u64, u64>,
    /// Fixed-address code takes addresses as plain immediates, too.
    pub is_fixed: bool,
    /// Code addresses that code takes, and addresses after calls that may not return. Both count
    /// only once gaps are swept, and only where a sweep says that an instruction starts there.
    pub unproven: Vec<Unproven>,
    pub are_gaps_swept: bool,
    work: Vec<u64>,
}

/// An address that is code if it is an instruction boundary.
#[derive(Clone, Copy)]
pub(super) enum Unproven {
    AfterCall(u64),
    Taken(u64),
}

impl<'a> Descent<'a> {
    pub(super) fn new(text: Text<'a>, ranges: &'a Ranges, is_fixed: bool) -> Self {
        Self {
            text,
            ranges,
            pending: Vec::new(),
            indirect_jumps: 0,
            references: BTreeSet::new(),
            taken: BTreeSet::new(),
            jumps_to: HashMap::new(),
            is_fixed,
            unproven: Vec::new(),
            are_gaps_swept: false,
            work: Vec::new(),
        }
    }

    /// A block starts at `at`, certainly.
    pub(super) fn add_start(&mut self, at: u64) {
        if self.text.has(at) {
            self.text.mark_target(at);
            if !self.text.is_decoded(at) {
                self.work.push(at);
            }
        }
    }

    /// Decode everything reachable from the starts added so far.
    pub(super) fn run(&mut self) {
        loop {
            if let Some(at) = self.work.pop() {
                self.walk(at);
                continue;
            }
            match self.unproven.pop_if(|_| self.are_gaps_swept) {
                Some(Unproven::AfterCall(at)) if self.text.is_swept(at) => self.walk(at),
                Some(Unproven::Taken(at)) if self.text.is_swept(at) => self.add_start(at),
                Some(_) => {}
                None => return,
            }
        }
    }

    fn walk(&mut self, from: u64) {
        if self.text.is_decoded(from) {
            return;
        }
        let range = self.ranges.containing(from);
        let in_function = range.is_some();
        let end = range.map(|range| range.end).or_else(|| self.ranges.next_start(from));
        let end = end.unwrap_or(u64::MAX);
        let bytes = self.text.bytes_from(from);
        let mut decoder = Decoder::with_ip(64, bytes, from, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() && decoder.ip() < end && !self.text.is_decoded(decoder.ip()) {
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                return;
            }
            self.text.mark_instruction(instruction.ip(), instruction.len());
            match self.take(&instruction) {
                After::Continue => self.text.mark_fallen_into(instruction.next_ip()),
                After::Call if in_function => self.text.mark_fallen_into(instruction.next_ip()),
                After::Call => {
                    self.unproven.push(Unproven::AfterCall(instruction.next_ip()));
                    return;
                }
                After::Stop => return,
            }
        }
    }

    /// Note what `instruction` tells about other addresses.
    fn take(&mut self, instruction: &Instruction) -> After {
        match instruction.flow_control() {
            FlowControl::Next => self.take_plain(instruction),
            FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => {
                if instruction.code() != Code::Xabort_imm8 && instruction.code() != Code::Xend {
                    self.add_jump(instruction);
                    self.text.mark_leader(instruction.next_ip());
                }
                After::Continue
            }
            FlowControl::UnconditionalBranch => {
                self.add_jump(instruction);
                After::Stop
            }
            FlowControl::IndirectBranch => {
                self.indirect_jumps += 1;
                self.pending.push(instruction.ip());
                After::Stop
            }
            FlowControl::Call if instruction.is_call_near() => {
                self.add_start(instruction.near_branch_target());
                After::Call
            }
            // System calls return, or end the program.
            FlowControl::Call => After::Continue,
            FlowControl::IndirectCall => After::Call,
            FlowControl::Interrupt if instruction.code() == Code::Int_imm8 => After::Call,
            FlowControl::Interrupt | FlowControl::Return | FlowControl::Exception => After::Stop,
        }
    }

    fn take_plain(&mut self, instruction: &Instruction) -> After {
        if instruction.code() == Code::Hlt {
            return After::Stop;
        }
        if let Some(address) = taken_address(instruction) {
            self.references.insert(address);
            self.note_taken(address);
        } else if self.is_fixed {
            (0..instruction.op_count())
                .filter_map(|operand| instruction.try_immediate(operand).ok())
                .for_each(|value| self.note_taken(value));
        }
        After::Continue
    }

    fn note_taken(&mut self, address: u64) {
        if self.text.has(address) {
            self.taken.insert(address);
        }
        if self.text.has(address) && self.ranges.containing(address).is_none() {
            self.unproven.push(Unproven::Taken(address));
        }
    }

    fn add_jump(&mut self, instruction: &Instruction) {
        let is_near = instruction.is_jcc_short_or_near()
            || instruction.is_jmp_short_or_near()
            || instruction.is_jcx_short()
            || instruction.is_loop()
            || instruction.is_loopcc()
            || matches!(instruction.code(), Code::Xbegin_rel32 | Code::Xbegin_rel16);
        if is_near {
            let target = instruction.near_branch_target();
            self.jumps_to.entry(target).or_insert(instruction.ip());
            self.add_start(target);
        }
    }
}

/// The address that `lea register, [rip + x]` computes.
pub(super) fn taken_address(instruction: &Instruction) -> Option<u64> {
    let is_lea = instruction.code() == Code::Lea_r64_m && instruction.is_ip_rel_memory_operand();
    is_lea.then(|| instruction.ip_rel_memory_address())
}
