//! What a program looked for and did not find, for whoever boots it again. Never looks at a host
//! path, and changes nothing that a program could notice.

use crate::address::Gva;
use crate::linux::abi::fd::Fd;
use crate::linux::abi::syscall::SystemCall;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::NodeId;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;

/// Where nothing of the host's is ever put.
const OWN: [&[u8]; 3] = [b"/proc/", b"/sys/", b"/dev/"];

/// The directory's descriptor and the path that `call` looks up.
fn path_of(call: &SystemCall) -> Option<(Fd, Gva)> {
    let [a, b, ..] = call.args;
    match call.nr as i64 {
        libc::SYS_open
        | libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_access
        | libc::SYS_readlink
        | libc::SYS_chdir
        | libc::SYS_statfs => Some((Fd::CWD, Gva(a))),
        libc::SYS_openat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_faccessat
        | libc::SYS_faccessat2
        | libc::SYS_readlinkat => Some((Fd::from_register(a), Gva(b))),
        _ => None,
    }
}

impl Process {
    /// Remembers the path that `call` did not find.
    pub(crate) fn note_missing(&mut self, call: &SystemCall, mem: &mut dyn UserMemory) {
        let Some((fd, at)) = path_of(call) else { return };
        let Ok(path) = self.user(mem).read_path(at) else { return };
        let path = path.as_bytes();
        if path.first() == Some(&b'/') {
            self.remember(path);
        } else if let Some(base) = self.base_of(fd)
            && let Some(mut whole) = self.files.tree.path_of(base)
        {
            whole.push(b'/');
            whole.extend_from_slice(path);
            self.remember(&whole);
        }
    }

    /// Remembers that a directory was listed that is not complete.
    pub(crate) fn note_listing(&mut self, id: NodeId) {
        if let Some(mut path) = self.files.tree.path_of(id) {
            path.push(b'/');
            self.remember(&path);
        }
    }

    fn remember(&mut self, path: &[u8]) {
        if !OWN.iter().any(|own| path.starts_with(own)) {
            self.wanted.remember(path);
        }
    }

    fn base_of(&self, fd: Fd) -> Option<NodeId> {
        if fd == Fd::CWD {
            return Some(self.files.table.cwd);
        }
        match self.files.table.get(fd).ok()?.target {
            Target::Node(id) => Some(id),
            _ => None,
        }
    }
}
