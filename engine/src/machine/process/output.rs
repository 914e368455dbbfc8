//! What a program writes, shown to whoever reads along. Never decides what is looked for.

use crate::linux::process::Process;
use crate::machine::output::{OutputStream, OutputWatch};

/// Somebody who reads along, and how far.
#[derive(Debug)]
pub(super) struct WatchedOutput {
    watch: Box<dyn OutputWatch>,
    /// Bytes of each stream that were shown.
    seen: [usize; 2],
    /// The same at the snapshot.
    at_snapshot: [usize; 2],
}

impl WatchedOutput {
    /// From now on shows to `watch` what `process` writes, which stands at its snapshot.
    pub(super) fn new(watch: Box<dyn OutputWatch>, process: &Process) -> Self {
        let seen = written(process).map(|(_, text)| text.len());
        Self { watch, seen, at_snapshot: seen }
    }

    /// Shows what `process` has written since the last time; whether that is what is looked for.
    pub(super) fn show(&mut self, process: &Process) -> bool {
        let mut is_found = false;
        for ((stream, text), seen) in written(process).into_iter().zip(&mut self.seen) {
            let from = std::mem::replace(seen, text.len());
            if let Some(new) = text.get(from..).filter(|new| !new.is_empty()) {
                is_found |= self.watch.wrote(stream, new);
            }
        }
        is_found
    }

    /// The program is at its snapshot again.
    pub(super) fn rewound(&mut self) {
        if self.seen != self.at_snapshot {
            self.seen = self.at_snapshot;
            self.watch.rewound();
        }
    }
}

/// What `process` wrote to each stream.
fn written(process: &Process) -> [(OutputStream, &[u8]); 2] {
    [(OutputStream::Stdout, process.stdout()), (OutputStream::Stderr, process.stderr())]
}
