//! The lines of signals, and of the end. What they say is in the signals' `siginfo`: nothing is
//! found out here.

use super::values::pointer;
use super::{errors, flags};
use crate::linux::abi::names::system_call_name;
use crate::linux::signal::siginfo::{SI_KERNEL, SI_TIMER, SI_TKILL, SI_USER, SigInfo};
use crate::outcome::Outcome;

const SI_SIGIO: i32 = -5;
/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;

/// Codes from 1 up, by signal (include/uapi/asm-generic/siginfo.h); no name is a gap.
const ILL: &[&str] = &[
    "ILL_ILLOPC",
    "ILL_ILLOPN",
    "ILL_ILLADR",
    "ILL_ILLTRP",
    "ILL_PRVOPC",
    "ILL_PRVREG",
    "ILL_COPROC",
    "ILL_BADSTK",
    "ILL_BADIADDR",
];
const FPE: &[&str] = &[
    "FPE_INTDIV",
    "FPE_INTOVF",
    "FPE_FLTDIV",
    "FPE_FLTOVF",
    "FPE_FLTUND",
    "FPE_FLTRES",
    "FPE_FLTINV",
    "FPE_FLTSUB",
    "",
    "",
    "",
    "",
    "",
    "FPE_FLTUNK",
    "FPE_CONDTRAP",
];
const SEGV: &[&str] = &[
    "SEGV_MAPERR",
    "SEGV_ACCERR",
    "SEGV_BNDERR",
    "SEGV_PKUERR",
    "SEGV_ACCADI",
    "SEGV_ADIDERR",
    "SEGV_ADIPERR",
    "SEGV_MTEAERR",
    "SEGV_MTESERR",
];
const BUS: &[&str] = &["BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR", "BUS_MCEERR_AO"];
const TRAP: &[&str] =
    &["TRAP_BRKPT", "TRAP_TRACE", "TRAP_BRANCH", "TRAP_HWBKPT", "TRAP_UNK", "TRAP_PERF"];
const CHLD: &[&str] =
    &["CLD_EXITED", "CLD_KILLED", "CLD_DUMPED", "CLD_TRAPPED", "CLD_STOPPED", "CLD_CONTINUED"];
const POLL: &[&str] = &["POLL_IN", "POLL_OUT", "POLL_MSG", "POLL_ERR", "POLL_PRI", "POLL_HUP"];
const SYS: &[&str] = &["SYS_SECCOMP", "SYS_USER_DISPATCH"];

/// A signal that is taken.
pub(crate) fn line(info: &SigInfo) -> String {
    let name = name(info.signal);
    let mut told = vec![format!("si_signo={name}"), format!("si_code={}", code(info))];
    if info.errno != 0 {
        let number = info.errno.cast_unsigned();
        let error = errors::name(number).map_or_else(|| number.to_string(), str::to_owned);
        told.push(format!("si_errno={error}"));
    }
    if info.code <= SI_USER {
        sent(info, &mut told);
    } else {
        raised(info, &mut told);
    }
    format!("--- {name} {{{}}} ---", told.join(", "))
}

/// What `strace` prints after the last call and the signal that was the end.
pub(crate) fn end(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited { status } => format!("+++ exited with {status} +++\n"),
        Outcome::Crashed(fault) => format!("+++ killed by {} +++\n", name(fault.signal.0)),
        other => format!("+++ {other} +++\n"),
    }
}

fn name(signal: u8) -> String {
    format!("SIG{}", flags::signal(signal.into()))
}

/// The code's name; in hexadecimal where it has none.
fn code(info: &SigInfo) -> String {
    let name = match info.code {
        SI_USER => "SI_USER",
        SI_KERNEL => "SI_KERNEL",
        -1 => "SI_QUEUE",
        SI_TIMER => "SI_TIMER",
        -3 => "SI_MESGQ",
        -4 => "SI_ASYNCIO",
        SI_SIGIO => "SI_SIGIO",
        SI_TKILL => "SI_TKILL",
        -7 => "SI_DETHREAD",
        -60 => "SI_ASYNCNL",
        code => {
            let index = usize::try_from(code).ok().and_then(|code| code.checked_sub(1));
            index.and_then(|index| codes(info.signal).get(index)).copied().unwrap_or_default()
        }
    };
    if name.is_empty() { format!("{:#x}", info.code) } else { name.to_owned() }
}

fn codes(signal: u8) -> &'static [&'static str] {
    match i32::from(signal) {
        libc::SIGILL => ILL,
        libc::SIGFPE => FPE,
        libc::SIGSEGV => SEGV,
        libc::SIGBUS => BUS,
        libc::SIGTRAP => TRAP,
        libc::SIGCHLD => CHLD,
        libc::SIGIO => POLL,
        libc::SIGSYS => SYS,
        _ => &[],
    }
}

/// What a program's own signal says, and a timer's.
fn sent(info: &SigInfo, told: &mut Vec<String>) {
    match info.code {
        SI_USER | SI_TKILL => sender(info, told),
        SI_TIMER => {
            let [first, ..] = info.fields;
            told.push(format!("si_timerid={}", hexadecimal(first & 0xffff_ffff)));
            told.push(format!("si_overrun={}", (first >> 32) as i32));
            value(info, told);
        }
        SI_SIGIO => band(info, told),
        _ => {
            sender(info, told);
            if info.fields[1] != 0 {
                value(info, told);
            }
        }
    }
}

/// What a signal of the kernel's says.
fn raised(info: &SigInfo, told: &mut Vec<String>) {
    let [first, second, third, fourth] = info.fields;
    let mut address = |extra: Option<String>| {
        told.push(format!("si_addr={}", pointer(first)));
        told.extend(extra);
    };
    match (i32::from(info.signal), info.code) {
        (libc::SIGSEGV, 3) => {
            let bounds = [pointer(third), pointer(fourth)];
            address(Some(format!("si_lower={}, si_upper={}", bounds[0], bounds[1])));
        }
        (libc::SIGSEGV, 4) => address(Some(format!("si_pkey={}", third as u32))),
        (libc::SIGBUS, 4 | 5) => {
            address(Some(format!("si_addr_lsb={}", hexadecimal(second & 0xffff))));
        }
        (libc::SIGILL | libc::SIGFPE | libc::SIGSEGV | libc::SIGBUS | libc::SIGTRAP, _) => {
            address(None);
        }
        (libc::SIGCHLD, _) => child(info, told),
        (libc::SIGIO, 1..=6) => band(info, told),
        (libc::SIGIO, _) => {}
        (libc::SIGSYS, _) => filtered(info, told),
        _ => {
            if first != 0 {
                sender(info, told);
            }
            if second != 0 {
                value(info, told);
            }
        }
    }
}

/// Of whom it is.
fn sender(info: &SigInfo, told: &mut Vec<String>) {
    let [first, ..] = info.fields;
    told.push(format!("si_pid={}", first as i32));
    // No user is shown as the number that means so.
    let user = (first >> 32) as u32;
    told.push(match user {
        u32::MAX => "si_uid=-1".to_owned(),
        user => format!("si_uid={user}"),
    });
}

/// The word that came with it.
fn value(info: &SigInfo, told: &mut Vec<String>) {
    let [_, value, ..] = info.fields;
    told.push(format!("si_int={}", value as i32));
    told.push(format!("si_ptr={}", pointer(value)));
}

/// What has happened to a descriptor.
fn band(info: &SigInfo, told: &mut Vec<String>) {
    let [band, descriptor, ..] = info.fields;
    told.push(format!("si_band={}", band.cast_signed()));
    told.push(format!("si_fd={}", descriptor as i32));
}

/// What has become of a child.
fn child(info: &SigInfo, told: &mut Vec<String>) {
    const CLD_EXITED: i32 = 1;
    sender(info, told);
    let [_, status, user, system] = info.fields;
    told.push(match status as u32 {
        status @ 1..=64 if info.code != CLD_EXITED => format!("si_status={}", name(status as u8)),
        status => format!("si_status={}", status.cast_signed()),
    });
    for (field, ticks) in [("si_utime", user), ("si_stime", system)] {
        let seconds = format!("{}.{:02}", ticks / 100, ticks % 100);
        let comment = if ticks == 0 { String::new() } else { format!(" /* {seconds} s */") };
        told.push(format!("{field}={ticks}{comment}"));
    }
}

/// The system call that was refused.
fn filtered(info: &SigInfo, told: &mut Vec<String>) {
    let [address, second, ..] = info.fields;
    let (number, architecture) = (second as u32, (second >> 32) as u32);
    told.push(format!("si_call_addr={}", pointer(address)));
    let call = system_call_name(number.into());
    let is_known = architecture == ARCHITECTURE && !call.starts_with("syscall_");
    let call = if is_known { format!("__NR_{call}") } else { number.to_string() };
    told.push(format!("si_syscall={call}"));
    told.push(match architecture {
        ARCHITECTURE => "si_arch=AUDIT_ARCH_X86_64".to_owned(),
        other => format!("si_arch={} /* AUDIT_ARCH_??? */", hexadecimal(other.into())),
    });
}

/// As C's `%#x` has it.
fn hexadecimal(value: u64) -> String {
    if value == 0 { "0".to_owned() } else { format!("{value:#x}") }
}
