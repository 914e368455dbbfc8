//! From the registers of a stopped guest to its call stack.
//!
//! Each step uses the image's call-frame information; where there is none, the frame-pointer
//! chain; and for a jump to nowhere, the return address that a call would have pushed. Memory is
//! hostile: every word of it is checked before it is followed, the stack pointer must rise from
//! frame to frame (except across a signal handler), and the number of frames is limited.
//!
//! Never scans the stack for things that look like return addresses.

mod expression;
mod registers;

use super::image::Loaded;
use super::stack::{FoundBy, Frame, UnwindRegisters};
use super::symbolizer::Symbolizer;
use expression::Evaluator;
use gimli::{CfaRule, RegisterRule, UnwindContext, X86_64};
use registers::{Read, Values, read_u64};

/// What a step up the stack gave.
struct Caller {
    values: Values,
    found_by: FoundBy,
    is_return_address: bool,
}

impl Symbolizer {
    /// The call stack of a guest stopped with `registers`, the innermost frame first.
    ///
    /// `read` fills a buffer from guest memory, or says that it cannot. At most `max_frames`
    /// frames are given; the first is always the registers themselves.
    #[must_use]
    pub fn unwind(
        &self,
        registers: &UnwindRegisters,
        read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
        max_frames: usize,
    ) -> Vec<Frame> {
        let mut values = Values::new(registers);
        let mut frames = vec![Frame {
            ip: registers.rip,
            sp: registers.rsp,
            is_return_address: false,
            found_by: FoundBy::Registers,
        }];
        let mut context = UnwindContext::new();
        while frames.len() < max_frames {
            let Some(last) = frames.last() else { break };
            let Some(caller) = self.caller(&values, last, read, &mut context) else { break };
            let (Some(ip), Some(sp)) =
                (caller.values.get(X86_64::RA), caller.values.get(X86_64::RSP))
            else {
                break;
            };
            // A handler may run on another stack; nothing else makes the stack pointer fall.
            let is_rising = sp > last.sp || !caller.is_return_address;
            if ip == 0 || !is_rising || caller.values == values {
                break;
            }
            let (is_return_address, found_by) = (caller.is_return_address, caller.found_by);
            frames.push(Frame { ip, sp, is_return_address, found_by });
            values = caller.values;
        }
        frames.truncate(max_frames);
        frames
    }

    fn caller(
        &self,
        values: &Values,
        frame: &Frame,
        read: &mut Read<'_>,
        context: &mut UnwindContext<usize>,
    ) -> Option<Caller> {
        let at = frame.ip.wrapping_sub(u64::from(frame.is_return_address));
        let image = self.images.iter().find(|image| image.is_code(at));
        match image.map(|image| by_frame_information(image, at, values, read, context)) {
            Some(Known::Caller(caller)) => return Some(*caller),
            Some(Known::Outermost) => return None,
            Some(Known::Nothing) | None => {}
        }
        let top = if image.is_none() && frame.found_by == FoundBy::Registers {
            self.by_top_of_stack(values, read)
        } else {
            None
        };
        top.or_else(|| self.by_frame_pointer(values, read))
    }

    /// A call pushed the return address and jumped to where nothing is.
    fn by_top_of_stack(&self, values: &Values, read: &mut Read<'_>) -> Option<Caller> {
        let rsp = values.get(X86_64::RSP)?;
        let ip = read_u64(read, rsp).filter(|ip| self.is_code(*ip))?;
        let mut values = *values;
        values.set(X86_64::RA, Some(ip));
        values.set(X86_64::RSP, Some(rsp.checked_add(8)?));
        Some(Caller { values, found_by: FoundBy::TopOfStack, is_return_address: true })
    }

    fn by_frame_pointer(&self, values: &Values, read: &mut Read<'_>) -> Option<Caller> {
        let rbp = values.get(X86_64::RBP)?;
        let is_plausible = rbp % 8 == 0 && rbp >= values.get(X86_64::RSP)?;
        let caller_rbp = is_plausible.then(|| read_u64(read, rbp)).flatten()?;
        let ip = read_u64(read, rbp.checked_add(8)?).filter(|ip| self.is_code(*ip))?;
        let mut values = *values;
        values.set(X86_64::RA, Some(ip));
        values.set(X86_64::RSP, Some(rbp.checked_add(16)?));
        values.set(X86_64::RBP, Some(caller_rbp));
        Some(Caller { values, found_by: FoundBy::FramePointer, is_return_address: true })
    }
}

/// What call-frame information says of a frame.
enum Known {
    Caller(Box<Caller>),
    /// The frame has no caller.
    Outermost,
    /// There is none for the address, or it cannot be evaluated.
    Nothing,
}

fn by_frame_information(
    image: &Loaded,
    at: u64,
    values: &Values,
    read: &mut Read<'_>,
    context: &mut UnwindContext<usize>,
) -> Known {
    let link_time = image.link_time(at);
    let Some(frames) = image.frames() else { return Known::Nothing };
    let Some((row, section)) = frames.row(image.bytes(), link_time, context) else {
        return Known::Nothing;
    };
    let mut evaluator = Evaluator { values, section, bias: image.runtime(0), read };
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            values.get(*register).map(|base| base.wrapping_add_signed(*offset))
        }
        CfaRule::Expression(expression) => evaluator.evaluate(expression, None),
    };
    let Some(cfa) = cfa else { return Known::Nothing };
    if matches!(row.register(X86_64::RA), Some(RegisterRule::Undefined)) {
        return Known::Outermost;
    }
    let mut callers = *values;
    callers.set(X86_64::RSP, Some(cfa));
    callers.set(X86_64::RA, None);
    for (register, rule) in row.registers() {
        callers.set(*register, evaluator.apply(*register, rule, cfa));
    }
    let is_signal = frames.covering(link_time).is_some_and(|frame| frame.signal_trampoline);
    let found_by = FoundBy::CallFrameInformation;
    Known::Caller(Box::new(Caller { values: callers, found_by, is_return_address: !is_signal }))
}
