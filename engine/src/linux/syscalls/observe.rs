//! Which system calls see the input: its bytes or its size. Opening it is not enough.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::fd::Fd;
use crate::linux::abi::syscall::SystemCall;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::NodeId;
use crate::linux::mm::uaccess::PATH_MAX;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::syscalls::open::locate;

impl Process {
    /// Whether `call` would see the input's contents or size. The first such call is the default
    /// snapshot point: up to it every input gives the same process.
    #[must_use]
    pub fn observes_input(&self, call: &SystemCall, mem: &dyn UserMemory) -> bool {
        observes_input(self, call, mem)
    }
}

/// Whether `call` would see the input.
fn observes_input(process: &Process, call: &SystemCall, mem: &dyn UserMemory) -> bool {
    let [a, b, c, d, e, _] = call.args;
    let is_input = |fd: u64| {
        let open = process.files.table.get(Fd::from_register(fd));
        open.is_ok_and(|open| open.target == Target::Node(NodeId::INPUT))
    };
    let path_is_input = |fd: Fd, path: u64, flags: u64| {
        let mut buffer = [0; PATH_MAX];
        read_path(Gva(path), &mut buffer, mem).is_some_and(|path| {
            locate(&process.files, fd, path, flags) == Ok(Target::Node(NodeId::INPUT))
        })
    };
    let no_follow = libc::AT_SYMLINK_NOFOLLOW as u64;
    match call.nr as i64 {
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_pread64
        | libc::SYS_preadv
        | libc::SYS_preadv2
        | libc::SYS_copy_file_range
        | libc::SYS_fstat => is_input(a),
        libc::SYS_sendfile => is_input(b),
        libc::SYS_mmap => d & libc::MAP_ANONYMOUS as u64 == 0 && is_input(e),
        libc::SYS_lseek => {
            let sees_size = matches!(c as i32, libc::SEEK_END | libc::SEEK_DATA | libc::SEEK_HOLE);
            sees_size && is_input(a)
        }
        libc::SYS_ioctl => u64::from(b as u32) == libc::FIONREAD && is_input(a),
        libc::SYS_stat => path_is_input(Fd::CWD, a, 0),
        libc::SYS_lstat => path_is_input(Fd::CWD, a, no_follow),
        libc::SYS_newfstatat => path_is_input(Fd::from_register(a), b, d),
        libc::SYS_statx => path_is_input(Fd::from_register(a), b, c),
        _ => false,
    }
}

/// A path in present memory; one in memory yet to be brought in holds no file's name.
pub(crate) fn read_path<'a>(
    at: Gva,
    buffer: &'a mut [u8; PATH_MAX],
    mem: &dyn UserMemory,
) -> Option<&'a [u8]> {
    let mut done = 0;
    while done < PATH_MAX {
        let here = at.wrapping_add(done as u64);
        let part = (PAGE_SIZE - here.page_offset()).min(PATH_MAX - done);
        let page = buffer.get_mut(done..done + part)?;
        mem.read(here, page).ok()?;
        if let Some(nul) = page.iter().position(|byte| *byte == 0) {
            return buffer.get(..done + nul);
        }
        done += part;
    }
    None
}
