//! Everything of a VM that is not memory: capture, restore, compare, in one ordered list whose
//! constraints have their reasons beside them.
//!
//! Never decides what a rewind may leave out: each class has its rule beside it in `classes`.

mod classes;
mod compare;
mod cpu;
mod difference;
mod load;
mod msr;
mod reach;
mod rewind;
mod xsave;

pub use classes::{Class, ClassRules, Ending, ORDER, Rule, RunFacts};
pub use cpu::{CpuState, IrqchipState, Parts};
pub use difference::Difference;
pub use load::savable_msrs;
pub use msr::runs_by_itself;
pub use reach::Reach;
pub use rewind::{Prepared, RewindMode};
pub(crate) use xsave::{
    LEGACY, LEGACY_BYTES, keep_components, supported_xcr0, xcr0, xsave_bytes, xsave_from,
};
pub use xsave::{XSAVE_BYTES, XSTATE_BV_AT, has_pkru, lies_elsewhere, xsave_layout};
