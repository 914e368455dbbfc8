//! What `/proc/self` tells of the running process. All of it follows from the process's own state;
//! nothing is the host's.

use crate::address::PAGE_SIZE;
use crate::linux::abi::ids::{PARENT_ID, PROCESS_ID, USER_ID};
use crate::linux::fs::tree::Proc;
use crate::linux::mm::vma::Backing;
use crate::linux::process::Process;
use std::collections::BTreeMap;
use std::io::Write;

/// Resource limits by number: their name and unit in `/proc/self/limits` (`fs/proc/base.c`).
const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

impl Process {
    /// A file of `/proc/self`, as it is now.
    pub(crate) fn proc_text(&self, what: Proc) -> Vec<u8> {
        let mut text = Vec::new();
        match what {
            Proc::Comm => {
                text.extend_from_slice(self.thread_name());
                text.push(b'\n');
            }
            Proc::Limits => self.limits_text(&mut text),
            Proc::Maps => self.maps_text(&mut text),
            Proc::Stat => self.stat_text(&mut text),
            Proc::Statm => {
                let pages = self.space.mapped_bytes() / PAGE_SIZE as u64;
                // Writing to a Vec never fails, here and below.
                let _ = writeln!(text, "{pages} {pages} 0 0 0 {pages} 0");
            }
            Proc::Status => self.status_text(&mut text),
        }
        text
    }

    fn thread_name(&self) -> &[u8] {
        // The first thread's is the process's.
        let name = self.threads.name();
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.get(..end).unwrap_or_default()
    }

    fn stat_text(&self, text: &mut Vec<u8>) {
        let _ = write!(text, "{PROCESS_ID} (");
        text.extend_from_slice(self.thread_name());
        let ticks = self.scalars.clock_ns / 10_000_000;
        let bytes = self.space.mapped_bytes();
        let pages = bytes / PAGE_SIZE as u64;
        let _ = writeln!(
            text,
            ") R {PARENT_ID} {PROCESS_ID} {PROCESS_ID} 0 -1 4194304 0 0 0 0 {ticks} 0 0 0 20 0 1 0 \
             100000 {bytes} {pages} 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 \
             0 0 0 0 0 0"
        );
    }

    fn status_text(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(b"Name:\t");
        text.extend_from_slice(self.thread_name());
        let (kib, descriptors) =
            (self.space.mapped_bytes() >> 10, self.files.table.numbers().count());
        let _ = write!(
            text,
            "\nUmask:\t{umask:04o}\nState:\tR (running)\nTgid:\t{PROCESS_ID}\nNgid:\t0\n\
             Pid:\t{PROCESS_ID}\nPPid:\t{PARENT_ID}\nTracerPid:\t0\n\
             Uid:\t{USER_ID}\t{USER_ID}\t{USER_ID}\t{USER_ID}\n\
             Gid:\t{USER_ID}\t{USER_ID}\t{USER_ID}\t{USER_ID}\n\
             FDSize:\t{descriptors}\nGroups:\t\n\
             VmPeak:\t{kib:8} kB\nVmSize:\t{kib:8} kB\nVmLck:\t       0 kB\n\
             VmHWM:\t{kib:8} kB\nVmRSS:\t{kib:8} kB\nVmSwap:\t       0 kB\nThreads:\t{count}\n\
             SigBlk:\t{blocked:016x}\nNoNewPrivs:\t0\nSeccomp:\t0\n\
             CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
             CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
             Cpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\n\
             Mems_allowed_list:\t0\n",
            umask = self.files.table.umask,
            count = self.threads.iter().count(),
            blocked = self.threads.current().blocked,
        );
    }

    fn limits_text(&self, text: &mut Vec<u8>) {
        let value = |limit| match limit {
            u64::MAX => "unlimited".to_owned(),
            limit => limit.to_string(),
        };
        let title = ("Limit", "Soft Limit", "Hard Limit");
        let _ = writeln!(text, "{:<25} {:<20} {:<20} Units     ", title.0, title.1, title.2);
        for ((name, unit), (soft, hard)) in LIMITS.iter().zip(&self.settings.resources) {
            let (soft, hard) = (value(*soft), value(*hard));
            let _ = writeln!(text, "{name:<25} {soft:<20} {hard:<20} {unit:<10}");
        }
    }

    /// What `/proc/self/maps` shows.
    fn maps_text(&self, text: &mut Vec<u8>) {
        // One look-up for each file, however often the guest mapped it.
        let mut paths = BTreeMap::new();
        for vma in self.space.vmas() {
            let (offset, inode, name) = match vma.backing {
                Backing::Anonymous => (0, 0, Vec::new()),
                Backing::Heap => (0, 0, b"[heap]".to_vec()),
                Backing::Stack => (0, 0, b"[stack]".to_vec()),
                Backing::File { node, offset } => {
                    let path = paths.entry(node);
                    let path =
                        path.or_insert_with(|| self.files.tree.path_of(node).unwrap_or_default());
                    (offset, u64::from(node.0) + 1, path.clone())
                }
            };
            let device = if inode == 0 { "00:00" } else { "00:01" };
            // Writing to a Vec never fails.
            let _ = write!(
                text,
                "{:08x}-{:08x} {} {offset:08x} {device} {inode:<10} ",
                vma.start,
                vma.end,
                vma.permissions(),
            );
            text.extend_from_slice(&name);
            text.push(b'\n');
        }
    }
}
