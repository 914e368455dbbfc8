//! The data-segment selectors of the thread that runs a vCPU, which are a guest's on some hosts.
//!
//! kvm_pvm runs code at CPL 3 on the thread's own DS, ES, FS and GS selectors: what a guest loads
//! into them is there after `KVM_RUN` returns, `KVM_GET_SREGS` does not show it, and the next guest
//! of the thread finds it. The bases of FS and GS are switched. Where KVM switches selectors too,
//! the thread's are null, as Linux starts a thread, and nothing is done here.

use super::error::KvmError;
use nix::errno::Errno;
use std::arch::asm;

const ARCH_SET_GS: libc::c_ulong = 0x1001;
const ARCH_SET_FS: libc::c_ulong = 0x1002;
const ARCH_GET_FS: libc::c_ulong = 0x1003;
const ARCH_GET_GS: libc::c_ulong = 0x1004;

/// Makes this thread's data-segment selectors null. Costs four register reads where they are.
///
/// # Errors
/// `arch_prctl` was refused.
pub fn clear_selectors() -> Result<(), KvmError> {
    let (ds, es, fs, gs): (u32, u32, u32, u32);
    // SAFETY: reads four selectors into registers, and nothing else.
    unsafe {
        asm!("mov {:e}, ds", "mov {:e}, es", "mov {:e}, fs", "mov {:e}, gs",
            out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs,
            options(nomem, nostack, preserves_flags));
    }
    if ds | es != 0 {
        // SAFETY: in 64-bit mode DS and ES have neither base nor limit (Intel SDM vol. 1, 3.4.2),
        // so that their selectors mean nothing to this process.
        unsafe {
            asm!("mov ds, {0:e}", "mov es, {0:e}", in(reg) 0_u32,
                options(nomem, nostack, preserves_flags));
        }
    }
    if fs != 0 {
        set_base_again(ARCH_GET_FS, ARCH_SET_FS)?;
    }
    if gs != 0 {
        set_base_again(ARCH_GET_GS, ARCH_SET_GS)?;
    }
    Ok(())
}

/// Sets a segment's base to what it is, with which Linux loads a null selector
/// (`do_arch_prctl_64`, arch/x86/kernel/process_64.c).
fn set_base_again(get: libc::c_ulong, set: libc::c_ulong) -> Result<(), KvmError> {
    let mut base: libc::c_ulong = 0;
    // SAFETY: GET writes one word to `base`, and SET gives the segment the base that it has.
    let refused = unsafe {
        libc::syscall(libc::SYS_arch_prctl, get, &raw mut base) != 0
            || libc::syscall(libc::SYS_arch_prctl, set, base) != 0
    };
    if refused {
        return Err(KvmError::Ioctl { call: "arch_prctl", source: Errno::last() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_that_was_left_behind_is_cleared_and_thread_locals_stay() {
        thread_local! { static WORD: std::cell::Cell<u64> = const { std::cell::Cell::new(7) } }
        WORD.set(8);
        // The user's data segment, which every thread may load (GDT_ENTRY_DEFAULT_USER_DS).
        const USER_DS: u32 = 0x2b;
        // SAFETY: DS and ES mean nothing in 64-bit mode, and nothing here uses GS.
        unsafe { asm!("mov ds, {0:e}", "mov es, {0:e}", "mov gs, {0:e}", in(reg) USER_DS) };
        clear_selectors().unwrap();
        let all: u32;
        // SAFETY: reads selectors.
        unsafe {
            asm!("mov {0:e}, ds", "mov {1:e}, es", "or {0:e}, {1:e}", "mov {1:e}, gs",
                "or {0:e}, {1:e}", out(reg) all, out(reg) _);
        }
        assert_eq!((all, WORD.get()), (0, 8));
    }
}
