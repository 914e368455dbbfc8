//! A call stack as a value. Never unwinds one.

use serde::{Deserialize, Serialize};

/// The registers that a call stack can be unwound from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct UnwindRegisters {
    pub rip: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// One frame of a call stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Where the frame executes.
    pub ip: u64,
    /// Its stack pointer.
    pub sp: u64,
    /// `ip` is where a call returns to, so the call is the instruction before it. Not so for the
    /// innermost frame and for one that a signal interrupted.
    pub is_return_address: bool,
    /// What led to this frame; the further down this list, the less certain it is.
    pub found_by: FoundBy,
}

/// How a frame was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundBy {
    /// The registers handed in.
    Registers,
    /// The image's call-frame information.
    CallFrameInformation,
    /// The return address on top of the stack after a jump to no code.
    TopOfStack,
    /// The chain of frame pointers.
    FramePointer,
}
