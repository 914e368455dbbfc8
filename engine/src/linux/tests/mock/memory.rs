//! Mappings and page faults in a word.

use crate::address::Gva;
use crate::linux::abi::syscall::FaultAction;
use crate::linux::tests::mock::{Guest, PAGE};
use crate::outcome::Access;

pub(crate) const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
pub(crate) const SHARED: u64 = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;
pub(crate) const FIXED: u64 = ANONYMOUS | libc::MAP_FIXED as u64;
pub(crate) const READ_WRITE: u64 = 3;

impl Guest {
    pub(crate) fn map(&mut self, at: u64, pages: u64, prot: u64, flags: u64) -> u64 {
        self.ok(libc::SYS_mmap, [at, pages * PAGE, prot, flags, u64::MAX, 0])
    }

    pub(crate) fn fault(&mut self, at: u64, access: Access) -> FaultAction {
        self.process.page_fault(Gva(at), access, &mut self.mem)
    }
}
