//! Where a snapshot stands, in words. Never runs it.

use dejavm_engine::guest::process::SystemCall;
use dejavm_engine::machine::{GuestState, MachineSnapshot};
use dejavm_engine::symbols::Symbolizer;

/// How an argument of a system call is shown.
#[derive(Clone, Copy)]
enum Kind {
    /// A small signed number, such as a descriptor.
    Number,
    /// An address that means nothing to people.
    Pointer,
    /// Bits.
    Bits,
}

/// The arguments of the calls that can see the input; those of any other are not shown.
fn arguments(name: &str) -> &'static [Kind] {
    use Kind::{Bits, Number, Pointer};
    match name {
        "read" | "readv" | "pread64" | "preadv" => &[Number, Pointer, Number],
        "fstat" => &[Number, Pointer],
        "stat" | "lstat" => &[Pointer, Pointer],
        "newfstatat" => &[Number, Pointer, Pointer, Bits],
        "statx" => &[Number, Pointer, Bits, Bits, Pointer],
        "sendfile" => &[Number, Number, Pointer, Number],
        "mmap" => &[Bits, Number, Bits, Bits, Number, Bits],
        "lseek" => &[Number, Number, Number],
        "ioctl" => &[Number, Bits, Pointer],
        _ => &[],
    }
}

/// A system call as `strace` would begin it.
fn call_in_words(call: &SystemCall) -> String {
    let name = call.name();
    let words = arguments(&name).iter().zip(call.args).map(|(kind, value)| match kind {
        // A descriptor is an int to the kernel, whatever is in the upper half.
        Kind::Number if value as i32 == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
        Kind::Number => value.cast_signed().to_string(),
        Kind::Pointer => "...".to_owned(),
        Kind::Bits => format!("{value:#x}"),
    });
    let words = words.collect::<Vec<_>>().join(", ");
    format!("{name}({words})")
}

/// The point at which `snapshot` was taken.
pub fn in_words(snapshot: &MachineSnapshot, symbolizer: &Symbolizer) -> String {
    match &snapshot.guest {
        GuestState::Process(state) => match &state.call {
            Some(call) => format!("before {}", call_in_words(call)),
            None => format!("at {}", symbolizer.resolve(snapshot.state.regs.rip)),
        },
        GuestState::Bare(state) => {
            let asked = format!("after the guest asked for it at {:#x}", snapshot.state.regs.rip);
            match state.buffer {
                Some(buffer) => {
                    format!(
                        "{asked}, its input buffer {} bytes at {:#x}",
                        buffer.bytes, buffer.at.0
                    )
                }
                None => asked,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(nr: i64, args: [u64; 6]) -> String {
        call_in_words(&SystemCall { nr: nr as u64, args })
    }

    #[test]
    fn calls_read_as_in_strace() {
        assert_eq!(words(0, [3, 0x7fff_0000, 4096, 0, 0, 0]), "read(3, ..., 4096)");
        let here = [0xffff_ff9c, 0x1000, 0x2000, 0x100, 0, 0];
        assert_eq!(words(262, here), "newfstatat(AT_FDCWD, ..., ..., 0x100)");
        assert_eq!(words(8, [3, -1_i64 as u64, 2, 0, 0, 0]), "lseek(3, -1, 2)");
        assert_eq!(words(999, [1; 6]), "syscall_999()");
    }
}
