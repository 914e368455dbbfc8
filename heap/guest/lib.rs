//! A heap for a program that is to be tested: every block ends at a page that faults, and freed
//! memory faults.
//!
//! A shared object for `LD_PRELOAD`. A block lies at the end of its pages, as far as its alignment
//! lets it; the bytes between its end and the page's are filled with a pattern that is looked at when
//! the block is freed, resized, or the program exits, and so are some bytes before its start. Blocks
//! are not used again before the address space that is set aside has been used once. It makes its
//! system calls itself, and of the C library it uses the place of `errno` only, if there is one.
//! Never hides an error: it says what is wrong and ends the program by SIGABRT.

#![no_std]

mod blocks;
mod report;
mod sys;

use blocks::{Heap, LEAST_ALIGN};
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering};
use report::Mistake;

const EINVAL: c_int = 22;
const ENOMEM: c_int = 12;

/// The heap, and who may use it.
struct Shared {
    is_taken: AtomicBool,
    heap: UnsafeCell<Heap>,
}

// SAFETY: the heap is reached only through `locked`, by one thread at a time.
unsafe impl Sync for Shared {}

static SHARED: Shared =
    Shared { is_taken: AtomicBool::new(false), heap: UnsafeCell::new(Heap::new()) };

/// Does something to the heap. A mistake of the program's ends it.
fn locked<T>(work: impl FnOnce(&mut Heap) -> Result<T, Mistake>) -> T {
    while SHARED.is_taken.swap(true, Ordering::Acquire) {
        sys::yield_cpu();
    }
    // SAFETY: `is_taken` was not set, so that no other thread has such a reference; `work` calls
    // nothing that comes back here.
    let heap = unsafe { &mut *SHARED.heap.get() };
    let done = work(heap);
    SHARED.is_taken.store(false, Ordering::Release);
    match done {
        Ok(value) => value,
        Err(mistake) => report::end_by(&mistake),
    }
}

/// A block, or null with `errno` set.
fn allocate(size: usize, align: usize) -> *mut u8 {
    let block = locked(|heap| Ok(heap.allocate(size, align)));
    if block.is_null() {
        sys::set_errno(ENOMEM);
    }
    block
}

/// `malloc(3)`
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut u8 {
    allocate(size, LEAST_ALIGN)
}

/// `calloc(3)`: blocks are of pages that nobody has written to yet.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut u8 {
    match count.checked_mul(size) {
        Some(size) => allocate(size, LEAST_ALIGN),
        None => no_memory(),
    }
}

/// `free(3)`
#[unsafe(no_mangle)]
pub extern "C" fn free(block: *mut u8) {
    if !block.is_null() {
        locked(|heap| heap.free(block));
    }
}

/// `realloc(3)`: as glibc has it, 0 bytes free the block.
#[unsafe(no_mangle)]
pub extern "C" fn realloc(block: *mut u8, size: usize) -> *mut u8 {
    if block.is_null() {
        return malloc(size);
    }
    if size == 0 {
        free(block);
        return null_mut();
    }
    let moved = locked(|heap| heap.resize(block, size));
    if moved.is_null() {
        sys::set_errno(ENOMEM);
    }
    moved
}

/// `reallocarray(3)`
#[unsafe(no_mangle)]
pub extern "C" fn reallocarray(block: *mut u8, count: usize, size: usize) -> *mut u8 {
    match count.checked_mul(size) {
        Some(size) => realloc(block, size),
        None => no_memory(),
    }
}

/// `memalign(3)`: as glibc has it, the alignment is rounded up to a power of two.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut u8 {
    match align.checked_next_power_of_two() {
        Some(align) => allocate(size, align),
        None => invalid(),
    }
}

/// `aligned_alloc(3)`
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut u8 {
    if align.is_power_of_two() { allocate(size, align) } else { invalid() }
}

/// `posix_memalign(3)`
///
/// # Safety
/// `out` is where a pointer can be stored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut u8, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<usize>() {
        return EINVAL;
    }
    let block = locked(|heap| Ok(heap.allocate(size, align)));
    if block.is_null() {
        return ENOMEM;
    }
    // SAFETY: the caller's, as this function says.
    unsafe { out.write(block) };
    0
}

/// `valloc(3)`
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut u8 {
    allocate(size, sys::PAGE)
}

/// `pvalloc(3)`
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut u8 {
    match size.checked_next_multiple_of(sys::PAGE) {
        Some(size) => allocate(size, sys::PAGE),
        None => no_memory(),
    }
}

/// `malloc_usable_size(3)`: what was asked for, and nothing more.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_usable_size(block: *mut u8) -> usize {
    if block.is_null() { 0 } else { locked(|heap| heap.size_of(block)) }
}

/// `free_sized` of C23.
#[unsafe(no_mangle)]
pub extern "C" fn free_sized(block: *mut u8, _size: usize) {
    free(block);
}

/// `free_aligned_sized` of C23.
#[unsafe(no_mangle)]
pub extern "C" fn free_aligned_sized(block: *mut u8, _align: usize, _size: usize) {
    free(block);
}

fn no_memory() -> *mut u8 {
    sys::set_errno(ENOMEM);
    null_mut()
}

fn invalid() -> *mut u8 {
    sys::set_errno(EINVAL);
    null_mut()
}

/// Makes the heap ready before the program begins: what that takes belongs to no run of a snapshot.
extern "C" fn at_start() {
    locked(|heap| {
        heap.begin();
        Ok(())
    });
}

/// The loader calls what stands here before a program's own.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

/// Looks at what is around the blocks that are still there, when the program exits.
extern "C" fn at_exit() {
    locked(|heap| heap.check_all());
}

/// The loader calls what stands here when a program exits.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    report::end_by(&Mistake::Own)
}
