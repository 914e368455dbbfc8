//! Signals as data: what one tells (`siginfo`, `fault`), what it does (`action`), the frame that a
//! handler finds (`frame`), and a thread's stack for handlers (`stack`).
//!
//! Never decides who gets a signal: `delivery` does.

pub(crate) mod action;
pub(crate) mod fault;
pub(crate) mod frame;
pub(crate) mod siginfo;
pub(crate) mod stack;
