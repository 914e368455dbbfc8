//! What every guest finds: devices, `/proc`, `/sys`, a user of its own, places to write to, its
//! input, and the files that it was given. The same on every host; host files come by the importer.

use crate::linux::base::bytes::Bytes;
use crate::linux::fs::tree::{Device, Kind, Node, NodeId, Proc, Tree};
use crate::linux::loader::import::{Imported, Importer};
use crate::linux::loader::spec::{InputChannel, LoadError, ProcessSpec, WORKING_DIRECTORY};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The process's own folder; `/proc/self` is a link to it.
const PROC: &str = "/proc/1000";

const DEVICES: [(&str, Device); 6] = [
    ("/dev/null", Device::Null),
    ("/dev/zero", Device::Zero),
    ("/dev/full", Device::Full),
    ("/dev/random", Device::Random),
    ("/dev/urandom", Device::Random),
    ("/dev/tty", Device::Terminal),
];

const LINKS: [(&str, &str); 8] = [
    ("/proc/self", "1000"),
    ("/proc/thread-self", "1000"),
    ("/proc/mounts", "self/mounts"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/var/run", "/run"),
];

/// Where the guest may write.
const WRITABLE: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", WORKING_DIRECTORY];

/// Files that are the same for every guest, and of which a host's own would tell about the host.
const TEXTS: [(&str, &str); 42] = [
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/work:/bin/sh\n"),
    ("/etc/group", "root:x:0:\nguest:x:1000:\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"),
    ("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
    ("/etc/host.conf", "multi on\n"),
    ("/etc/hostname", "dejavm\n"),
    ("/etc/resolv.conf", ""),
    ("/etc/timezone", "Etc/UTC\n"),
    ("/proc/version", "Linux version 6.1.0 (dejavm) #1 SMP dejavm\n"),
    ("/proc/filesystems", "nodev\tproc\nnodev\ttmpfs\n"),
    ("/proc/loadavg", "0.00 0.00 0.00 1/1 1000\n"),
    ("/proc/uptime", "1000.00 1000.00\n"),
    ("/proc/stat", "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\nbtime 1704066200\n"),
    ("/proc/cmdline", "\n"),
    ("/proc/1000/cgroup", "0::/\n"),
    ("/proc/1000/mounts", "tmpfs / tmpfs rw,relatime 0 0\nproc /proc proc rw,relatime 0 0\n"),
    (
        "/proc/1000/mountinfo",
        "1 0 0:1 / / rw,relatime - tmpfs tmpfs rw\n2 1 0:2 / /proc rw,relatime - proc proc rw\n",
    ),
    ("/proc/1000/oom_score_adj", "0\n"),
    ("/proc/1000/uid_map", "         0          0 4294967295\n"),
    ("/proc/1000/gid_map", "         0          0 4294967295\n"),
    ("/proc/sys/kernel/ostype", "Linux\n"),
    ("/proc/sys/kernel/osrelease", "6.1.0\n"),
    ("/proc/sys/kernel/version", "#1 SMP dejavm\n"),
    ("/proc/sys/kernel/hostname", "dejavm\n"),
    ("/proc/sys/kernel/pid_max", "32768\n"),
    ("/proc/sys/kernel/ngroups_max", "65536\n"),
    ("/proc/sys/kernel/cap_last_cap", "40\n"),
    ("/proc/sys/kernel/randomize_va_space", "0\n"),
    ("/proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000000\n"),
    ("/proc/sys/vm/overcommit_memory", "0\n"),
    ("/proc/sys/vm/max_map_count", "65530\n"),
    ("/proc/sys/vm/mmap_min_addr", "65536\n"),
    ("/proc/sys/fs/file-max", "65536\n"),
    ("/proc/sys/fs/nr_open", "1048576\n"),
    ("/proc/sys/fs/pipe-max-size", "1048576\n"),
    ("/sys/devices/system/cpu/online", "0\n"),
    ("/sys/devices/system/cpu/possible", "0\n"),
    ("/sys/devices/system/cpu/present", "0\n"),
    ("/sys/devices/system/node/online", "0\n"),
    ("/sys/devices/system/node/possible", "0\n"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
    ("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n"),
];

/// One CPU, of which CPUID tells the truth; here only what every x86-64 CPU has.
const CPUINFO: &str = "processor\t: 0\nvendor_id\t: dejavm\ncpu family\t: 6\nmodel\t\t: 1\n\
    model name\t: x86-64\nstepping\t: 1\ncpu MHz\t\t: 1000.000\ncache size\t: 1024 KB\n\
    physical id\t: 0\nsiblings\t: 1\ncore id\t\t: 0\ncpu cores\t: 1\napicid\t\t: 0\n\
    fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 7\nwp\t\t: yes\n\
    flags\t\t: fpu tsc msr pae cx8 cmov pat clflush mmx fxsr sse sse2 syscall nx lm\n\
    bogomips\t: 2000.00\nclflush size\t: 64\ncache_alignment\t: 64\n\
    address sizes\t: 40 bits physical, 48 bits virtual\n\n";

/// A file that the guest can only read. No image, which a snapshot file would give a page of its own.
fn constant(bytes: Vec<u8>) -> Node {
    Node::new(Kind::File(Bytes(bytes)), 0o444, false)
}

/// Strings, each with a NUL after it.
fn strings<'a>(list: impl Iterator<Item = &'a OsString>) -> Vec<u8> {
    list.flat_map(|text| text.as_bytes().iter().copied().chain([0])).collect()
}

fn meminfo(ram_bytes: u64) -> String {
    let kib = ram_bytes >> 10;
    format!(
        "MemTotal:       {kib:8} kB\nMemFree:        {kib:8} kB\nMemAvailable:   {kib:8} kB\n\
         Buffers:               0 kB\nCached:                0 kB\nSwapCached:            0 kB\n\
         SwapTotal:             0 kB\nSwapFree:              0 kB\nHugePages_Total:       0\n\
         Hugepagesize:       2048 kB\n"
    )
}

/// Fills the tree around `program`.
pub(crate) fn populate(
    importer: &mut Importer<'_>,
    spec: &ProcessSpec,
    program: &Imported,
    ram_bytes: u64,
) -> Result<(), LoadError> {
    let mut place = |path: &str, node| importer.place_if_absent(Path::new(path), node);
    for (path, device) in DEVICES {
        place(path, Node::new(Kind::Device(device), 0o666, true))?;
    }
    for (path, text) in TEXTS.into_iter().chain([("/proc/cpuinfo", CPUINFO)]) {
        place(path, constant(text.into()))?;
    }
    for (path, to) in LINKS {
        place(path, Node::new(Kind::Link(to.into()), 0o777, false))?;
    }
    place("/proc/meminfo", constant(meminfo(ram_bytes).into()))?;
    furnish_own(importer, spec, program)?;
    for path in WRITABLE {
        let kind = Kind::Directory { entries: BTreeMap::new(), parent: NodeId::ROOT };
        importer.place_if_absent(Path::new(path), Node::new(kind, 0o755, true))?;
        let made = importer.directory(Path::new(path));
        if let Some(node) = made.ok().and_then(|id| importer.tree.node_mut(id)) {
            // The directory may stem from a host file's path; here the guest may write.
            (node.owned, node.partial) = (true, false);
        }
    }
    if spec.program.is_relative() {
        // The program under the path it was called by; one that leads elsewhere is of no use.
        let _ = importer.place_node(&spec.program, program.node);
    }
    for mapping in &spec.files {
        importer.map(&mapping.host, &mapping.guest)?;
    }
    for made in &spec.made {
        importer.make(&made.guest, made.bytes)?;
    }
    importer.place_system(&spec.system);
    match &spec.input {
        InputChannel::File { guest } => importer.place_node(guest, NodeId::INPUT),
        InputChannel::Stdin => Ok(()),
    }
}

/// What `/proc/self` tells of this process.
fn furnish_own(
    importer: &mut Importer<'_>,
    spec: &ProcessSpec,
    program: &Imported,
) -> Result<(), LoadError> {
    let own = |what| Node::new(Kind::Proc(what), 0o444, true);
    let link = |to: &[u8]| Node::new(Kind::Link(to.to_vec()), 0o777, false);
    let name = spec.program.clone().into_os_string();
    let argv = std::iter::once(&name).chain(&spec.args);
    for (file, node) in [
        ("fd", Node::new(Kind::Descriptors, 0o500, true)),
        ("maps", own(Proc::Maps)),
        ("status", own(Proc::Status)),
        ("stat", own(Proc::Stat)),
        ("statm", own(Proc::Statm)),
        ("comm", own(Proc::Comm)),
        ("limits", own(Proc::Limits)),
        ("exe", link(program.path.as_os_str().as_bytes())),
        ("cwd", link(WORKING_DIRECTORY.as_bytes())),
        ("root", link(b"/")),
        ("cmdline", constant(strings(argv))),
        ("environ", constant(strings(spec.env.iter()))),
        ("auxv", Node::new(Kind::File(Bytes::default()), 0o400, true)),
    ] {
        importer.place_if_absent(&Path::new(PROC).join(file), node)?;
    }
    Ok(())
}

/// The name that a program's only thread starts with: that of the file, as it was called.
pub(crate) fn name_of(program: &Path) -> [u8; 16] {
    let mut name = [0; 16];
    let file = program.file_name().unwrap_or_default().as_bytes();
    for (to, from) in name.iter_mut().take(15).zip(file) {
        *to = *from;
    }
    name
}

/// Fills `/proc/self/auxv`, which is known when the stack is.
pub(crate) fn tell_auxiliary(tree: &mut Tree, auxiliary: Vec<u8>) {
    let path = format!("{PROC}/auxv");
    if let Ok(crate::linux::fs::tree::Found::Node(id)) =
        tree.resolve(NodeId::ROOT, path.as_bytes(), true)
        && let Some(node) = tree.node_mut(id)
    {
        *node = Node { links: node.links, ..constant(auxiliary) };
    }
}
