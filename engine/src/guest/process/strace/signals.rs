//! The lines of signals, and of the end. What they say is in the signals' `siginfo`: nothing is
//! found out here.

use super::super::calls::PROCESS_ID;
use super::super::signals::{
    BUS_ADRERR, FPE_INTDIV, ILL_ILLOPN, Info, SEGV_ACCERR, SEGV_MAPERR, SI_KERNEL, SI_TIMER,
    SI_TKILL, SI_USER,
};
use super::super::stack::USER_ID;
use super::values::pointer;
use crate::outcome::{Outcome, Signal};

/// A signal that a handler is about to see.
pub(super) fn delivered(info: &Info) -> String {
    line(info, &told(info))
}

/// What `strace` prints after the last call; `is_mapped` says whether there is a mapping where an
/// access failed.
pub(in super::super) fn end(outcome: &Outcome, is_mapped: impl Fn(u64) -> bool) -> String {
    match outcome {
        Outcome::Exited { status } => format!("+++ exited with {status} +++\n"),
        Outcome::Crashed(fault) => {
            let info = match fault.vector {
                Some(_) => Info::of_fault(fault, is_mapped),
                // Sent, by whom the outcome does not tell.
                None => Info::sent(fault.signal.0, SI_TKILL, PROCESS_ID),
            };
            let name = fault.signal.name();
            format!("{}\n+++ killed by {name} +++\n", line(&info, &told_at_end(&info)))
        }
        other => format!("+++ {other} +++\n"),
    }
}

fn line(info: &Info, told: &str) -> String {
    let name = Signal(info.signal).name();
    format!("--- {name} {{si_signo={name}, {told}}} ---")
}

/// What `siginfo` says besides the signal.
fn told(info: &Info) -> String {
    let sent = |code| format!("si_code={code}, si_pid={PROCESS_ID}, si_uid={USER_ID}");
    match info.code {
        SI_USER => sent("SI_USER"),
        SI_TKILL => sent("SI_TKILL"),
        SI_KERNEL => "si_code=SI_KERNEL".to_owned(),
        SI_TIMER => "si_code=SI_TIMER".to_owned(),
        code => format!("si_code={code}, si_addr={}", pointer(info.address())),
    }
}

/// The same for a signal that ended the program, where the codes of faults have names.
fn told_at_end(info: &Info) -> String {
    let code = match (Signal(info.signal), info.code) {
        (_, SI_TKILL) => return told(info),
        (Signal::SEGV, SEGV_MAPERR) => "SEGV_MAPERR",
        (Signal::SEGV, SEGV_ACCERR) => "SEGV_ACCERR",
        (Signal::BUS, BUS_ADRERR) => "BUS_ADRERR",
        (Signal::FPE, FPE_INTDIV) => "FPE_INTDIV",
        (Signal::ILL, ILL_ILLOPN) => "ILL_ILLOPN",
        // The kernel's own, as which codes without a name here are shown too.
        _ => return format!("si_code=SI_KERNEL, si_addr={}", pointer(0)),
    };
    format!("si_code={code}, si_addr={}", pointer(info.address()))
}
