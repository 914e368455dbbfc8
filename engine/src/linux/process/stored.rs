//! What a process must be like when it comes from a file that nobody vouches for: the limits that
//! bound what it may use of the host's memory, and the tables that they bound.
//!
//! Never checks what a system call checks itself: every look-up by a stored number may fail there.

use crate::linux::base::limits::{Limits, Refused};
use crate::linux::process::{MISSING_MAX, Process};

impl Process {
    /// Checks everything that bounds what the process may use up.
    pub(crate) fn check_stored(&self) -> Result<(), Refused> {
        let limits = Limits::default();
        self.files.check_stored(&limits)?;
        self.space.check_stored(&limits)?;
        self.settings.check_stored()?;
        if self.images.0.len() > crate::linux::process::settings::IMAGES_MAX
            || self.missing.0.len() > MISSING_MAX
        {
            return Err("more images or missing system calls than are remembered");
        }
        Ok(())
    }
}
