//! Bytes of the process's memory as `strace` writes them: strings and structures. Never changes the
//! memory, and reads no more of it than it shows.

use super::flags;
use crate::address::{Gva, PAGE_SIZE};
use crate::linux::mm::user_memory::UserMemory;
use std::fmt::Write as _;

/// Bytes shown of a buffer.
const STRING_BYTES_MAX: usize = 32;
/// Bytes shown of a path.
const PATH_BYTES_MAX: usize = 4096;
/// Parts of a transfer, and polled descriptors, that are shown.
const ITEMS_MAX: u64 = 32;

/// The process's memory.
pub(crate) struct Values<'a>(pub(crate) &'a dyn UserMemory);

/// `bytes` in quotes. An octal escape is as short as what follows it allows.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x0b => text.push_str("\\v"),
            0x0c => text.push_str("\\f"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => {
                let digit_follows = bytes.get(i + 1).is_some_and(|b| matches!(b, b'0'..=b'7'));
                // Writing to a string cannot fail, here and below.
                let _ = match digit_follows {
                    true => write!(text, "\\{byte:03o}"),
                    false => write!(text, "\\{byte:o}"),
                };
            }
        }
    }
    text.push('"');
    text
}

/// An address; 0 is `NULL`.
pub(crate) fn pointer(value: u64) -> String {
    if value == 0 { "NULL".to_owned() } else { format!("{value:#x}") }
}

/// A multiple of 1024, as resource limits are shown.
fn limit(value: u64) -> String {
    match value {
        u64::MAX => "RLIM64_INFINITY".to_owned(),
        value if value > 1024 && value.is_multiple_of(1024) => format!("{}*1024", value / 1024),
        value => value.to_string(),
    }
}

/// The type and the permission bits of a file.
fn mode(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFREG => "S_IFREG",
        libc::S_IFDIR => "S_IFDIR",
        libc::S_IFLNK => "S_IFLNK",
        libc::S_IFCHR => "S_IFCHR",
        libc::S_IFBLK => "S_IFBLK",
        libc::S_IFIFO => "S_IFIFO",
        libc::S_IFSOCK => "S_IFSOCK",
        _ => "0",
    };
    format!("{kind}|{:#05o}", mode & 0o7777).replace("0o", "0")
}

impl Values<'_> {
    fn bytes(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read(Gva(at), &mut bytes).ok()?;
        Some(bytes)
    }

    fn word(&self, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read(Gva(at), &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// What `show` makes of the memory at `at`, or the address where that cannot be read.
    fn at(&self, at: u64, show: impl FnOnce() -> Option<String>) -> String {
        if at == 0 {
            return pointer(at);
        }
        show().unwrap_or_else(|| pointer(at))
    }

    /// Text up to its NUL; at most so much of it as is there.
    pub(crate) fn path(&self, at: u64) -> String {
        self.at(at, || {
            let mut text = Vec::new();
            while text.len() < PATH_BYTES_MAX {
                let here = Gva(at.wrapping_add(text.len() as u64));
                let part = self.bytes(here.0, PAGE_SIZE - here.page_offset())?;
                match part.iter().position(|byte| *byte == 0) {
                    Some(end) => {
                        text.extend_from_slice(part.get(..end)?);
                        return Some(quoted(&text));
                    }
                    None => text.extend(part),
                }
            }
            text.truncate(PATH_BYTES_MAX);
            Some(quoted(&text) + "...")
        })
    }

    /// The first of `len` bytes.
    pub(crate) fn buffer(&self, at: u64, len: u64) -> String {
        self.at(at, || {
            let shown = len.min(STRING_BYTES_MAX as u64) as usize;
            let text = quoted(&self.bytes(at, shown)?);
            Some(if len > shown as u64 { text + "..." } else { text })
        })
    }

    /// The same, every byte in hexadecimal.
    pub(crate) fn random(&self, at: u64, len: u64) -> String {
        self.at(at, || {
            let shown = len.min(STRING_BYTES_MAX as u64) as usize;
            let hex: String =
                self.bytes(at, shown)?.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            Some(format!("\"{hex}\"{}", if len > shown as u64 { "..." } else { "" }))
        })
    }

    /// `struct stat`.
    pub(crate) fn stat(&self, at: u64) -> String {
        self.at(at, || {
            let file_mode = self.word(at.wrapping_add(24))? as u32;
            let what = match file_mode & libc::S_IFMT {
                libc::S_IFCHR | libc::S_IFBLK => {
                    let device = self.word(at.wrapping_add(40))?;
                    format!("st_rdev=makedev({:#x}, {:#x})", device >> 8 & 0xfff, device & 0xff)
                }
                _ => format!("st_size={}", self.word(at.wrapping_add(48))?),
            };
            Some(format!("{{st_mode={}, {what}, ...}}", mode(file_mode)))
        })
    }

    /// `struct statx`.
    pub(crate) fn statx(&self, at: u64) -> String {
        self.at(at, || {
            let mask = self.word(at)? & 0xffff_ffff;
            let file_mode = (self.word(at.wrapping_add(24))? >> 32) as u32 & 0xffff;
            let size = self.word(at.wrapping_add(40))?;
            let mask = flags::bits(mask, flags::STATX);
            let mask = if mask.matches('|').count() == 10 { "STATX_BASIC_STATS" } else { &mask };
            Some(format!(
                "{{stx_mask={mask}, stx_attributes=0, stx_mode={}, stx_size={size}, ...}}",
                mode(file_mode)
            ))
        })
    }

    /// Two words with these names.
    pub(crate) fn pair(&self, at: u64, first: &str, second: &str) -> String {
        self.at(at, || {
            let (one, other) = (self.word(at)? as i64, self.word(at.wrapping_add(8))? as i64);
            Some(format!("{{{first}={one}, {second}={other}}}"))
        })
    }

    /// `struct rlimit64`.
    pub(crate) fn limit(&self, at: u64) -> String {
        self.at(at, || {
            let (soft, hard) = (limit(self.word(at)?), limit(self.word(at.wrapping_add(8))?));
            Some(format!("{{rlim_cur={soft}, rlim_max={hard}}}"))
        })
    }

    /// A set of signals; one with most of them by what is not in it.
    pub(crate) fn signals(&self, at: u64) -> String {
        self.at(at, || Some(signals(self.word(at)?)))
    }

    /// The kernel's `struct sigaction`.
    pub(crate) fn action(&self, at: u64) -> String {
        self.at(at, || {
            let word = |i: u64| self.word(at.wrapping_add(i * 8));
            let (handler, flags, restorer, mask) = (word(0)?, word(1)?, word(2)?, word(3)?);
            let field =
                if flags & libc::SA_SIGINFO as u64 != 0 { "sa_sigaction" } else { "sa_handler" };
            let handler = match handler {
                0 => "SIG_DFL".to_owned(),
                1 => "SIG_IGN".to_owned(),
                handler => pointer(handler),
            };
            let restorer = match flags & 0x0400_0000 {
                0 => String::new(),
                _ => format!(", sa_restorer={}", pointer(restorer)),
            };
            let (mask, flags) = (signals(mask), flags::bits(flags, flags::ACTION));
            Some(format!("{{{field}={handler}, sa_mask={mask}, sa_flags={flags}{restorer}}}"))
        })
    }

    /// `count` parts of a transfer; of those that were read, `done` bytes.
    pub(crate) fn parts(&self, at: u64, count: u64, done: Option<u64>) -> String {
        self.at(at, || {
            let mut left = done;
            let mut shown = Vec::new();
            for i in 0..count.min(ITEMS_MAX) {
                let here = at.wrapping_add(i * 16);
                let (base, len) = (self.word(here)?, self.word(here.wrapping_add(8))?);
                let bytes = left.map_or(len, |left| left.min(len));
                left = left.map(|left| left - bytes);
                shown.push(format!("{{iov_base={}, iov_len={len}}}", self.buffer(base, bytes)));
            }
            let more = if count > ITEMS_MAX { ", ..." } else { "" };
            Some(format!("[{}{more}]", shown.join(", ")))
        })
    }

    /// The two descriptors of a pipe.
    pub(crate) fn descriptors(&self, at: u64) -> String {
        self.at(at, || {
            let both = self.word(at)?;
            Some(format!("[{}, {}]", both as u32 as i32, (both >> 32) as i32))
        })
    }

    /// `count` polled descriptors: what was asked of each, or what came of those that are ready.
    pub(crate) fn polled(&self, at: u64, count: u64, results: bool) -> String {
        self.at(at, || {
            let mut shown = Vec::new();
            for i in 0..count.min(ITEMS_MAX) {
                let entry = self.word(at.wrapping_add(i * 8))?;
                let (fd, asked, came) = (entry as u32 as i32, entry >> 32 & 0xffff, entry >> 48);
                let (name, bits) = if results { ("revents", came) } else { ("events", asked) };
                if !results || came != 0 {
                    let bits = flags::bits(bits, flags::POLL);
                    shown.push(format!("{{fd={fd}, {name}={bits}}}"));
                }
            }
            let more = if count > ITEMS_MAX { ", ..." } else { "" };
            Some(format!("[{}{more}]", shown.join(", ")))
        })
    }

    /// `struct utsname`: its first two fields.
    pub(crate) fn uname(&self, at: u64) -> String {
        self.at(at, || {
            let field = |i: u64| {
                let bytes = self.bytes(at.wrapping_add(i * 65), 65)?;
                let end = bytes.iter().position(|byte| *byte == 0)?;
                Some(quoted(bytes.get(..end)?))
            };
            Some(format!("{{sysname={}, nodename={}, ...}}", field(0)?, field(1)?))
        })
    }

    /// The address of a directory's entries, and how many `len` bytes hold.
    pub(crate) fn entries(&self, at: u64, len: u64) -> String {
        let (mut count, mut done) = (0, 0);
        while done < len {
            let bytes = self.word(at.wrapping_add(done + 16)).map_or(0, |word| word & 0xffff);
            if bytes == 0 {
                break;
            }
            done += bytes;
            count += 1;
        }
        format!("{} /* {count} entries */", pointer(at))
    }
}

fn signals(set: u64) -> String {
    let names = |set: u64| {
        let numbers = (1..=64u64).filter(|number| set >> (number - 1) & 1 == 1);
        numbers.map(flags::signal).collect::<Vec<_>>().join(" ")
    };
    if set.count_ones() > 40 { format!("~[{}]", names(!set)) } else { format!("[{}]", names(set)) }
}
