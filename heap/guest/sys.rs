//! System calls, and the few instructions that are no Rust. Never decides anything.

use core::arch::asm;
use core::ffi::c_int;

/// Bytes of a page.
pub const PAGE: usize = 4096;

const SYS_WRITE: usize = 1;
const SYS_MMAP: usize = 9;
const SYS_MPROTECT: usize = 10;
const SYS_SCHED_YIELD: usize = 24;
const SYS_MADVISE: usize = 28;
const SYS_GETPID: usize = 39;
const SYS_GETTID: usize = 186;
const SYS_TGKILL: usize = 234;

const PROT_NONE: usize = 0;
const PROT_READ_WRITE: usize = 3;
/// `MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE`
const MAP_FLAGS: usize = 0x2 | 0x20 | 0x4000;
const MAP_FIXED: usize = 0x10;
const MADV_DONTNEED: usize = 4;
const SIGABRT: usize = 6;
/// The largest error number, negated, as an address.
const ERRORS: usize = usize::MAX - 4095;

/// A system call.
///
/// # Safety
/// As the call's manual page has it.
unsafe fn syscall(number: usize, args: [usize; 6]) -> usize {
    let result;
    // SAFETY: SYSCALL changes RAX, RCX, R11 and what the call says, which is the caller's affair.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Addresses that nothing is at yet and every access to which faults; their first one. `None` if
/// there are not so many.
pub fn reserve(bytes: usize) -> Option<usize> {
    let none = usize::MAX;
    // SAFETY: the kernel chooses addresses where nothing is.
    let at = unsafe { syscall(SYS_MMAP, [0, bytes, PROT_NONE, MAP_FLAGS, none, 0]) };
    (at < ERRORS).then_some(at)
}

/// Pages of zeros at `at`, in place of what is there; whether there are some now.
///
/// # Safety
/// `at..at + bytes` are whole pages of what [`reserve`] gave, which nothing refers to.
pub unsafe fn open(at: usize, bytes: usize) -> bool {
    let flags = MAP_FLAGS | MAP_FIXED;
    // SAFETY: nothing refers to what was there.
    let to = unsafe { syscall(SYS_MMAP, [at, bytes, PROT_READ_WRITE, flags, usize::MAX, 0]) };
    to == at
}

/// Gives the memory at `at` back, and makes every access to it fault.
///
/// # Safety
/// As of [`open`].
pub unsafe fn close(at: usize, bytes: usize) -> bool {
    let flags = MAP_FLAGS | MAP_FIXED;
    // SAFETY: nothing refers to what was there, but by mistake, which is to fault.
    let to = unsafe { syscall(SYS_MMAP, [at, bytes, PROT_NONE, flags, usize::MAX, 0]) };
    to == at
}

/// Makes every access to `at` fault, where the memory is kept.
///
/// # Safety
/// As of [`open`].
pub unsafe fn hide(at: usize, bytes: usize) -> bool {
    // SAFETY: nothing refers to what is there, but by mistake, which is to fault.
    unsafe { syscall(SYS_MPROTECT, [at, bytes, PROT_NONE, 0, 0, 0]) == 0 }
}

/// Gives the memory at `at` back, where zeros are then.
///
/// # Safety
/// As of [`open`].
pub unsafe fn discard(at: usize, bytes: usize) -> bool {
    // SAFETY: nothing refers to what was there, but by mistake.
    unsafe { syscall(SYS_MADVISE, [at, bytes, MADV_DONTNEED, 0, 0, 0]) == 0 }
}

/// Lets another thread go on.
pub fn yield_cpu() {
    // SAFETY: the call touches no memory.
    unsafe { syscall(SYS_SCHED_YIELD, [0; 6]) };
}

/// Writes to standard error.
pub fn print(text: &[u8]) {
    // SAFETY: the call reads `text`, which is there.
    unsafe { syscall(SYS_WRITE, [2, text.as_ptr() as usize, text.len(), 0, 0, 0]) };
}

/// Ends the program by SIGABRT, sent to this thread, so that its stack says where.
pub fn abort() -> ! {
    // SAFETY: none of these calls touches memory, and UD2 ends a program that has a handler for the
    // signal.
    unsafe {
        let process = syscall(SYS_GETPID, [0; 6]);
        let thread = syscall(SYS_GETTID, [0; 6]);
        syscall(SYS_TGKILL, [process, thread, SIGABRT, 0, 0, 0]);
        asm!("ud2", options(noreturn, nostack));
    }
}

/// Copies bytes; by an instruction, because a call would be to the C library.
///
/// # Safety
/// `count` bytes can be read at `from` and written at `to`, which do not overlap.
pub unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller's; the direction flag is clear in every function (System V ABI, 3.2.1).
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") count => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Fills bytes.
///
/// # Safety
/// `count` bytes can be written at `to`.
pub unsafe fn fill(to: *mut u8, byte: u8, count: usize) {
    // SAFETY: as in `copy`.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            in("al") byte,
            options(nostack, preserves_flags),
        );
    }
}

/// Sets `errno`, if the program has a C library that has it.
pub fn set_errno(number: c_int) {
    let place: usize;
    // SAFETY: the loader puts 0 there for a weak symbol that nobody has.
    unsafe {
        asm!(
            ".weak __errno_location",
            "mov {place}, qword ptr [rip + __errno_location@GOTPCREL]",
            place = out(reg) place,
            options(nostack, preserves_flags, readonly),
        );
    }
    if place != 0 {
        // SAFETY: the C library's function of this name, which returns the address of this thread's
        // `errno` (Linux Standard Base, `__errno_location`).
        unsafe {
            let errno_location: extern "C" fn() -> *mut c_int = core::mem::transmute(place);
            errno_location().write(number);
        }
    }
}
