//! Names for crashes that stay the same from run to run and from build to build.
//!
//! Never compares stacks: a crash is named after one frame, the innermost one that is not part
//! of the machinery by which programs report that they have failed.

use super::location::CodeLocation;

/// Frames without a symbol that may stand between frames of the machinery (a stripped C library).
const UNNAMED_MAX: usize = 4;

/// Rust paths of the machinery: what lies between a failed check and the abort.
const RUST: [&str; 22] = [
    "core::panicking::",
    "core::option::unwrap_failed",
    "core::option::expect_failed",
    "core::result::unwrap_failed",
    "core::cell::panic_",
    "core::str::slice_error_fail",
    "core::slice::copy_from_slice_impl::len_mismatch_fail",
    "core::slice::index::slice_",
    "std::panicking::",
    "std::sys::",
    "std::process::abort",
    "std::rt::abort",
    "std::alloc::",
    "alloc::alloc::handle_alloc_error",
    "alloc::raw_vec::handle_error",
    "alloc::raw_vec::capacity_overflow",
    "panic_abort::",
    "panic_unwind::",
    "__rustc::",
    "rust_begin_unwind",
    "rust_panic",
    "__rust_start_panic",
];

/// Names of C and C++ functions of the machinery.
const EXACT: [&str; 35] = [
    "abort",
    "raise",
    "gsignal",
    "kill",
    "tgkill",
    "pthread_kill",
    "free",
    "cfree",
    "malloc",
    "calloc",
    "realloc",
    "malloc_printerr",
    "malloc_consolidate",
    "unlink_chunk",
    "sysmalloc",
    "_int_free",
    "_int_malloc",
    "_int_realloc",
    "tcache_get",
    "__assert",
    "__assert_fail",
    "__assert_fail_base",
    "__assert_perror_fail",
    "__libc_fatal",
    "__libc_message",
    "__fortify_fail",
    "__chk_fail",
    "__stack_chk_fail",
    "__restore_rt",
    "__cxa_throw",
    "__cxa_rethrow",
    "__cxa_pure_virtual",
    "std::terminate",
    "_Unwind_RaiseException",
    "_Unwind_Resume",
];

/// First parts of such names: private names of the C library, sanitizer runtimes, and the
/// memory and string functions that trust their caller's pointers.
const PREFIXES: [&str; 23] = [
    "__GI_abort",
    "__GI_raise",
    "__GI___assert",
    "__libc_free",
    "__libc_malloc",
    "__libc_realloc",
    "__pthread_kill",
    "__cxxabiv1::__terminate",
    "__cxxabiv1::__unexpected",
    "__gnu_cxx::__verbose_terminate_handler",
    "__asan_",
    "__asan::",
    "__sanitizer_",
    "__sanitizer::",
    "__ubsan_",
    "__ubsan::",
    "__msan_",
    "__interceptor_",
    "__interception::",
    "__mem",
    "__str",
    "__wmem",
    "__wcs",
];

/// Plain names of memory and string functions.
const MEMORY: [&str; 14] = [
    "memcpy", "memmove", "memset", "memcmp", "memchr", "memrchr", "strlen", "strnlen", "strcpy",
    "strncpy", "strcmp", "strncmp", "strchr", "strcat",
];

/// Whether a function (by its demangled name) only reports a failure of another: panics, aborts,
/// assertions, allocator checks, sanitizers, and memory functions given a bad pointer.
#[must_use]
pub fn is_crash_machinery(function: &str) -> bool {
    let function = base_name(function);
    let path = function.strip_prefix('<').unwrap_or(function);
    // Below `main` the same modules call the program instead of ending it.
    let is_runtime_entry = path.contains("catch_unwind")
        || path.starts_with("std::panicking::try")
        || path.contains("__rust_begin_short_backtrace");
    let is_rust = !is_runtime_entry && RUST.iter().any(|prefix| path.starts_with(prefix));
    is_rust
        || EXACT.contains(&function)
        || MEMORY.contains(&function)
        || PREFIXES.iter().any(|prefix| function.starts_with(prefix))
}

/// A stable name for a place: `function@image`, or `image+offset` without a symbol, or
/// `unmapped`. Neither hashes, load addresses nor offsets in a function are part of it.
#[must_use]
pub fn frame_key(place: &CodeLocation) -> String {
    let Some(image) = &place.image else { return "unmapped".to_owned() };
    let file = image.name.rsplit('/').next().unwrap_or_default();
    match function_name(place) {
        Some(name) => format!("{}@{file}", base_name(name)),
        None => format!("{file}+{:#x}", image.offset),
    }
}

/// Where a Rust panic leaves the code that panicked. What lies further in, a program's own panic
/// hook among it, runs because of the panic.
const RUST_PANIC: &str = "rust_begin_unwind";
/// How the functions begin that code calls which is built with an undefined-behaviour sanitizer.
/// What they call themselves has names that say nothing of it.
const UBSAN: &str = "__ubsan_handle_";

/// The file of a heap that reports what a program does wrong with it, whatever its functions are
/// called.
const HEAP_GUARD: &str = "dejavm-heap-guard.so";

fn is_in_heap_guard(place: &CodeLocation) -> bool {
    place.image.as_ref().is_some_and(|image| image.name.ends_with(HEAP_GUARD))
}

/// Which frame of a stack (the innermost first) a crash is to be named after: the first one that
/// is not machinery, counted from where a Rust panic, or a sanitizer's report, began if there was
/// one; the innermost one if there is no other.
#[must_use]
pub fn crash_frame(stack: &[CodeLocation]) -> usize {
    let is_machinery =
        |at: usize| stack.get(at).and_then(function_name).is_some_and(is_crash_machinery);
    let is_unnamed = |at: usize| stack.get(at).is_some_and(|place| function_name(place).is_none());
    let is_panic = |place: &CodeLocation| {
        function_name(place)
            .map(base_name)
            .is_some_and(|name| name.ends_with(RUST_PANIC) || name.starts_with(UBSAN))
    };
    // What lies further in than the heap's own frames is theirs.
    let heap = stack.iter().rposition(is_in_heap_guard).map(|at| at + 1);
    let mut at = stack.iter().position(is_panic).or(heap).unwrap_or(0);
    loop {
        let unnamed = (at..at + UNNAMED_MAX).take_while(|frame| is_unnamed(*frame)).count();
        if !is_machinery(at + unnamed) {
            break;
        }
        at += unnamed + 1;
    }
    if at < stack.len() { at } else { 0 }
}

/// The name of a crash: the [`frame_key`] of its [`crash_frame`].
#[must_use]
pub fn crash_key(stack: &[CodeLocation]) -> String {
    stack.get(crash_frame(stack)).map_or_else(|| "unmapped".to_owned(), frame_key)
}

/// First parts of the names of the C library's files, the loader's among them.
const C_LIBRARY: [&str; 6] = ["libc.so", "libc-", "ld-linux", "ld-musl", "libc.musl", "libpthread"];
/// Functions by which a program ends or writes, for one that has the C library in itself.
const ENDING: [&str; 22] = [
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "__run_exit_handlers",
    "write",
    "__write",
    "fflush",
    "puts",
    "putchar",
    "fputs",
    "fputc",
    "putc",
    "fwrite",
    "printf",
    "fprintf",
    "vprintf",
    "vfprintf",
    "dprintf",
    "perror",
    "std::process::exit",
    "new_do_write",
];
/// First parts of such names.
const ENDING_PREFIXES: [&str; 11] = [
    "_IO_",
    "__libc_write",
    "__GI_",
    "__vfprintf",
    "__printf",
    "__fprintf",
    "std::sys::",
    "std::io::",
    "core::fmt::",
    "core::ptr::drop_in_place<std::io",
    "alloc::io::",
];

/// Which frame of a stack (the innermost first) a program is to be named after that has ended, or
/// has written, without a fault: the first one outside of the C library and of what Rust has for
/// it; the innermost one if there is no other.
#[must_use]
pub fn caller_frame(stack: &[CodeLocation]) -> usize {
    let is_own = |place: &CodeLocation| {
        let file = place.image.as_ref().and_then(|image| image.name.rsplit('/').next());
        let in_library =
            file.is_some_and(|file| C_LIBRARY.iter().any(|prefix| file.starts_with(prefix)));
        !in_library && !function_name(place).is_some_and(is_ending)
    };
    stack.iter().position(is_own).unwrap_or(0)
}

fn is_ending(function: &str) -> bool {
    let function = base_name(function);
    let path = function.strip_prefix('<').unwrap_or(function).trim_start_matches('&');
    ENDING.contains(&function) || ENDING_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

/// The symbol's name, else the one that DWARF gives to the function (not to what it inlined).
fn function_name(place: &CodeLocation) -> Option<&str> {
    let in_source = || place.source.last().and_then(|frame| frame.function.as_deref());
    place.function.as_ref().map(|function| function.name.as_str()).or_else(in_source)
}

/// The name without what compilers append: Rust's hash, and gcc's and LLVM's marks for a part or
/// a variant (`.cold`, `.isra.0`, `.llvm.123`).
fn base_name(name: &str) -> &str {
    // A Rust or C++ path may hold dots of its own; the demanglers drop the marks there.
    let dot = name.get(1..).and_then(|rest| rest.find('.')).filter(|_| !name.contains("::"));
    let name = dot.and_then(|dot| name.get(..=dot)).unwrap_or(name);
    let hash = name
        .rsplit_once("::h")
        .filter(|(_, hash)| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hash.map_or(name, |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::{InFunction, InImage};

    fn place(function: Option<&str>) -> CodeLocation {
        let image = InImage { name: "/usr/bin/tool".to_owned(), bias: 0x1000, offset: 0x234 };
        let function = function.map(|name| InFunction {
            name: name.to_owned(),
            symbol: name.to_owned(),
            offset: 7,
        });
        CodeLocation { address: 0x1234, image: Some(image), function, source: Vec::new() }
    }

    fn key(stack: &[Option<&str>]) -> String {
        crash_key(&stack.iter().map(|name| place(*name)).collect::<Vec<_>>())
    }

    #[test]
    fn a_panic_is_named_after_the_code_that_panicked_and_not_after_its_hook() {
        let stack = [
            Some("abort"),
            Some("parser::install_hook::{{closure}}"),
            Some("std::panicking::panic_with_hook"),
            Some("__rustc::rust_begin_unwind"),
            Some("core::panicking::panic_fmt"),
            Some("core::str::slice_error_fail"),
            Some("parser::date"),
            Some("parser::main"),
        ];
        assert_eq!(key(&stack), "parser::date@tool");
    }

    #[test]
    fn names_a_rust_panic_after_the_code_that_panicked() {
        let stack = [
            Some("pthread_kill"),
            Some("raise"),
            Some("abort"),
            Some("std::process::abort"),
            Some("panic_abort::__rust_start_panic::abort"),
            Some("rust_panic"),
            Some("std::panicking::rust_panic_with_hook"),
            Some("__rustc::rust_begin_unwind"),
            Some("core::panicking::panic_fmt"),
            Some("core::option::unwrap_failed"),
            Some("parser::header::read"),
            Some("std::panicking::catch_unwind"),
        ];
        assert_eq!(key(&stack), "parser::header::read@tool");
    }

    #[test]
    fn names_a_sanitizers_report_after_the_code_it_is_about() {
        let inner = "handleIntegerOverflowImpl<__ubsan::Value>";
        let handler = "__ubsan_handle_add_overflow_abort";
        let stack = ["abort", "__sanitizer::Abort", "__sanitizer::Die", inner, handler, "parse"];
        assert_eq!(key(&stack.map(Some)), "parse@tool");
    }

    #[test]
    fn looks_through_a_stripped_c_library() {
        assert_eq!(key(&[None, None, Some("abort"), Some("parse")]), "parse@tool");
        // Nothing of the machinery is known to be below these.
        assert_eq!(key(&[None, Some("parse")]), "tool+0x234");
    }

    #[test]
    fn what_the_guarding_heap_reports_is_named_after_its_caller() {
        let image = InImage { name: format!("/usr/lib/{HEAP_GUARD}"), bias: 0, offset: 1 };
        let heap = |function| CodeLocation { image: Some(image.clone()), ..place(function) };
        let stack = [heap(None), heap(Some("free")), place(Some("parse")), place(Some("main"))];
        assert_eq!(crash_key(&stack), "parse@tool");
        let beyond = [place(Some("parse")), place(Some("main"))];
        assert_eq!(crash_key(&beyond), "parse@tool");
    }

    #[test]
    fn an_exit_is_named_after_the_code_outside_of_the_c_library() {
        let library = |function| {
            let image = InImage { name: "/lib/libc.so.6".to_owned(), bias: 0, offset: 1 };
            CodeLocation { image: Some(image), ..place(function) }
        };
        let stack = [library(None), library(Some("exit")), place(Some("usage"))];
        assert_eq!(caller_frame(&stack), 2);
        let names = ["_exit", "__run_exit_handlers", "exit", "<std::io::Stdout as Write>::f", "f"];
        assert_eq!(caller_frame(&names.map(|name| place(Some(name)))), 4, "a static program");
        assert_eq!(caller_frame(&stack[..2]), 0, "nothing but the library");
        assert_eq!(caller_frame(&[]), 0);
    }

    #[test]
    fn keeps_the_runtime_below_main_as_a_frame() {
        assert!(!is_crash_machinery("std::panicking::catch_unwind::do_call"));
        assert!(!is_crash_machinery("std::sys::backtrace::__rust_begin_short_backtrace"));
        assert!(!is_crash_machinery("xmlFree"));
        assert!(!is_crash_machinery("strategy"));
        assert!(is_crash_machinery("__memmove_avx_unaligned_erms"));
    }

    #[test]
    fn leaves_out_what_changes_from_build_to_build() {
        let of = |name| frame_key(&place(Some(name)));
        assert_eq!(of("a::b::h0123456789abcdef"), "a::b@tool");
        assert_eq!(of("parse.isra.0.cold"), "parse@tool");
        assert_eq!(of(".hidden"), ".hidden@tool");
        assert_eq!(frame_key(&CodeLocation::unknown(5)), "unmapped");
    }

    #[test]
    fn names_even_a_stack_of_nothing_but_machinery() {
        assert_eq!(key(&[Some("raise"), Some("abort")]), "raise@tool");
        assert_eq!(key(&[]), "unmapped");
    }
}
