//! Breakpoints that stay, at functions that compare strings: each arrival is noticed, and goes on in
//! a copy of the function's first instruction.
//!
//! Never looks at what they are called with.

use crate::address::Gpa;
use crate::arch::INT3;
use crate::coverage::comparisons::StringFunction;
use crate::memory::{GuestMemory, OutOfRam};
use std::collections::HashMap;

/// How often a function is noticed in a run: each time is an exit.
const HITS_MAX: u32 = 8;

/// An arrival at a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hooked {
    /// Which function, in the order in which they were given.
    pub index: u32,
    pub function: StringFunction,
    /// Where the program goes on.
    pub to: u64,
}

/// A breakpoint that stays.
#[derive(Clone, Copy, Debug)]
struct Hook {
    hooked: Hooked,
    place: Gpa,
    original: u8,
    hits: u32,
}

/// All of them, by address.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    hooks: HashMap<u64, Hook>,
}

impl Hooks {
    /// The hook at `at`, which the program has just hit. After many hits it is gone until the run is
    /// over.
    pub(super) fn hit(
        &mut self,
        memory: &mut GuestMemory,
        at: u64,
    ) -> Result<Option<Hooked>, OutOfRam> {
        let Some(hook) = self.hooks.get_mut(&at).filter(|hook| hook.hits < HITS_MAX) else {
            return Ok(None);
        };
        hook.hits += 1;
        if hook.hits == HITS_MAX {
            memory.write_unmarked(hook.place, &[hook.original])?;
            return Ok(Some(Hooked { to: at, ..hook.hooked }));
        }
        Ok(Some(hook.hooked))
    }

    /// Adds a hook at `at`, whose breakpoint is in memory at `place`, in place of `original`.
    pub(super) fn add(&mut self, at: u64, hooked: Hooked, place: Gpa, original: u8) {
        self.hooks.insert(at, Hook { hooked, place, original, hits: 0 });
    }

    /// Puts them back for the next run.
    pub(super) fn end_run(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        for hook in self.hooks.values_mut().filter(|hook| hook.hits > 0) {
            if hook.hits == HITS_MAX {
                memory.write_unmarked(hook.place, &[INT3])?;
            }
            hook.hits = 0;
        }
        Ok(())
    }
}
