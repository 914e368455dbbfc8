//! Where unsafe code stands.

use crate::sources::Sources;
use proc_macro2::{TokenStream, TokenTree};

/// The engine's two fences; the heap that runs inside a guest, with the guest's rights, whose work is
/// addresses and system calls; and what is no part of the product: the floor that benches compare
/// with, and a guest that crashes on purpose.
const FENCES: &[&str] = &[
    "engine/src/kvm/",
    "engine/src/memory/",
    "heap/guest/",
    "benches/src/floor.rs",
    "tests/guests/rust/threads.rs",
];

/// Every `unsafe` outside the fences: of a block, a function, a trait, an implementation or an
/// attribute, within macros too.
pub fn faults(sources: &Sources) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, text) in &sources.texts {
        let is_fenced = FENCES.iter().any(|fence| file.starts_with(fence));
        if is_fenced || !file.ends_with(".rs") {
            continue;
        }
        match text.parse() {
            Ok(tokens) => {
                let lines = unsafe_lines(tokens);
                faults.extend(lines.iter().map(|line| format!("{file}:{line}: unsafe code")));
            }
            Err(error) => faults.push(format!("{file}: {error}")),
        }
    }
    faults
}

fn unsafe_lines(tokens: TokenStream) -> Vec<usize> {
    let lines = tokens.into_iter().flat_map(|token| match token {
        TokenTree::Ident(word) if word == "unsafe" => vec![word.span().start().line],
        TokenTree::Group(group) => unsafe_lines(group.stream()),
        _ => Vec::new(),
    });
    lines.collect()
}
