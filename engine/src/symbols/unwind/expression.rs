//! Evaluation of unwind rules and of the DWARF expressions in them.
//!
//! Never runs long: an expression gets a fixed number of operations, whatever it loops over.

use super::super::frames::Reader;
use super::values::{Read, Values, read_u64};
use gimli::{
    EhFrame, Encoding, Evaluation, EvaluationResult, Format, Location, Register, RegisterRule,
    UnwindExpression, Value,
};

/// Operations of one expression.
const OPERATIONS_MAX: u32 = 1000;

/// The registers, memory and expressions of one frame.
pub(super) struct Evaluator<'v, 'a, 'r, 'f> {
    pub values: &'v Values,
    pub section: EhFrame<Reader<'a>>,
    pub bias: u64,
    pub read: &'f mut Read<'r>,
}

impl Evaluator<'_, '_, '_, '_> {
    /// The caller's value of `register`.
    pub(super) fn apply(
        &mut self,
        register: Register,
        rule: &RegisterRule<usize>,
        cfa: u64,
    ) -> Option<u64> {
        match rule {
            RegisterRule::SameValue => self.values.get(register),
            RegisterRule::Offset(offset) => read_u64(self.read, cfa.wrapping_add_signed(*offset)),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
            RegisterRule::Register(other) => self.values.get(*other),
            RegisterRule::Expression(expression) => {
                let at = self.evaluate(expression, Some(cfa))?;
                read_u64(self.read, at)
            }
            RegisterRule::ValExpression(expression) => self.evaluate(expression, Some(cfa)),
            RegisterRule::Constant(value) => Some(*value),
            // Undefined, and what only another architecture has.
            _ => None,
        }
    }

    /// The value of an expression; register rules start with the CFA on the stack.
    pub(super) fn evaluate(
        &mut self,
        expression: &UnwindExpression<usize>,
        initial: Option<u64>,
    ) -> Option<u64> {
        let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
        let mut evaluation = expression.get(&self.section).ok()?.evaluation(encoding);
        evaluation.set_max_iterations(OPERATIONS_MAX);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate().ok()?;
        loop {
            result = match result {
                EvaluationResult::Complete => return outcome(evaluation),
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    let value = self.read_sized(address, size)?;
                    evaluation.resume_with_memory(Value::Generic(value)).ok()?
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.values.get(register)?;
                    evaluation.resume_with_register(Value::Generic(value)).ok()?
                }
                EvaluationResult::RequiresRelocatedAddress(address) => {
                    let address = address.wrapping_add(self.bias);
                    evaluation.resume_with_relocated_address(address).ok()?
                }
                // The rest asks for debugging information, which frames do not have.
                _ => return None,
            };
        }
    }

    fn read_sized(&mut self, at: u64, size: u8) -> Option<u64> {
        let mut word = [0; 8];
        let buffer = word.get_mut(..usize::from(size))?;
        let exists = at.checked_add(u64::from(size)).is_some() && (self.read)(at, buffer);
        exists.then(|| u64::from_le_bytes(word))
    }
}

fn outcome(evaluation: Evaluation<Reader<'_>>) -> Option<u64> {
    match evaluation.as_result() {
        [piece] => match piece.location {
            Location::Address { address } => Some(address),
            Location::Value { value } => value.to_u64(u64::MAX).ok(),
            _ => None,
        },
        _ => None,
    }
}
