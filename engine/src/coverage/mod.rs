//! Which basic blocks a run reached.
