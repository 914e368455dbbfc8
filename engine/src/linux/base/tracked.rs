//! State that knows whether it still equals the snapshot it was last put back to, so that a
//! rewind skips what a run did not touch. Never decides what to restore: [`Rewind`] does.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

/// State that can be put back to an earlier state of its own.
pub(crate) trait Rewind {
    /// Makes `self` equal to `snapshot`, reusing its buffers. `related` promises that `self` was
    /// equal to `snapshot` at its last rewind and was only touched since, so that logs of what
    /// was touched are complete.
    fn rewind_to(&mut self, snapshot: &Self, related: bool);
}

/// A value with a name for its contents.
///
/// The name is unique to a moment: a clone and a deserialised value get fresh ones, and any
/// mutable borrow sets `touched`. Two values with the same name, both untouched, are equal.
#[derive(Debug)]
pub(crate) struct Tracked<T> {
    value: T,
    name: u64,
    touched: bool,
}

fn fresh_name() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl<T> Tracked<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, name: fresh_name(), touched: false }
    }
}

impl<T> Tracked<T> {
    /// The value under a fresh name, to complete it before anything is put back to it.
    pub(crate) fn renamed(&mut self) -> &mut T {
        (self.name, self.touched) = (fresh_name(), false);
        &mut self.value
    }
}

impl<T: Rewind> Tracked<T> {
    /// Puts the value back to `snapshot`, at no cost when neither was touched since the last time.
    pub(crate) fn rewind_to(&mut self, snapshot: &Self) {
        let related = self.name == snapshot.name && !snapshot.touched;
        if related && !self.touched {
            return;
        }
        self.value.rewind_to(&snapshot.value, related);
        self.name = snapshot.name;
        self.touched = snapshot.touched;
    }
}

impl<T> Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.touched = true;
        &mut self.value
    }
}

impl<T: Clone> Clone for Tracked<T> {
    fn clone(&self) -> Self {
        Self::new(self.value.clone())
    }
}

impl<T: Serialize> Serialize for Tracked<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tracked<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Counted {
        number: u32,
        restored: u32,
    }

    impl Rewind for Counted {
        fn rewind_to(&mut self, snapshot: &Self, _related: bool) {
            self.number = snapshot.number;
            self.restored += 1;
        }
    }

    #[test]
    fn restores_only_what_was_touched() {
        let mut live = Tracked::new(Counted { number: 1, restored: 0 });
        let snapshot = live.clone();
        live.rewind_to(&snapshot);
        assert_eq!(live.restored, 1, "a first rewind knows nothing yet");
        live.rewind_to(&snapshot);
        assert_eq!(live.restored, 1);
        live.number = 7;
        live.rewind_to(&snapshot);
        assert_eq!((live.number, live.restored), (1, 2));
    }

    #[test]
    fn notices_another_snapshot() {
        let mut live = Tracked::new(Counted { number: 1, restored: 0 });
        let first = live.clone();
        live.rewind_to(&first);
        let mut second = live.clone();
        second.number = 2;
        live.rewind_to(&second);
        assert_eq!(live.number, 2);
        second.number = 3;
        live.rewind_to(&second);
        assert_eq!(live.number, 3, "a snapshot that changed is never taken for the old one");
        live.rewind_to(&first);
        assert_eq!(live.number, 1);
    }
}
