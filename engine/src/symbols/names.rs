//! Function names: demangling, and the symbol table in both directions.
//!
//! Never trusts the length of a name: demangled output is cut at a limit, because a short
//! mangled name can stand for an exponentially long one.

use super::elf::{FunctionSymbol, Layout};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Demangled names are cut here.
const NAME_BYTES_MAX: usize = 4096;
/// Candidates listed when a name is ambiguous.
const CANDIDATES_MAX: usize = 20;
/// A symbol without a size reaches at most this far.
const UNSIZED_BYTES_MAX: u64 = 64 << 10;
/// Symbols looked at below an address for one that covers it (nested and zero-sized ones).
const NEIGHBOURS_MAX: usize = 32;

/// Why a name does not name one function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No image has it.
    #[error("look up symbol {name}: no image has a function of this name")]
    NotFound {
        /// The name as asked for.
        name: String,
    },
    /// Several functions have it.
    #[error("look up symbol {name}: it could be any of {}", .candidates.join(", "))]
    Ambiguous {
        /// The name as asked for.
        name: String,
        /// Symbols and link-time addresses of those that have it.
        candidates: Vec<String>,
    },
}

/// How a name may match a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameMatch {
    Symbol,
    Demangled,
    PathSuffix,
}

/// All of them, the strictest first.
pub(super) const NAME_MATCHES: [NameMatch; 3] =
    [NameMatch::Symbol, NameMatch::Demangled, NameMatch::PathSuffix];

/// The function symbols of one image, by link-time address.
pub(super) struct Symbols {
    functions: Vec<FunctionSymbol>,
}

impl Symbols {
    pub(super) fn parse(layout: &Layout, bytes: &[u8]) -> Self {
        Self { functions: layout.functions(bytes) }
    }

    /// The symbol that `at` lies in; a sized one is preferred.
    pub(super) fn covering(&self, at: u64) -> Option<&FunctionSymbol> {
        let after = self.functions.partition_point(|function| function.address <= at);
        let below = self.functions.get(after.saturating_sub(NEIGHBOURS_MAX)..after)?;
        let is_inside = |f: &&FunctionSymbol| at.wrapping_sub(f.address) < f.size;
        let inside = below.iter().rev().find(is_inside);
        let found = inside.or_else(|| {
            let is_near = |f: &&FunctionSymbol| at - f.address < UNSIZED_BYTES_MAX;
            below.last().filter(|f| f.size == 0).filter(is_near)
        })?;
        // Of several names of one function, the first is a global one.
        let first = self.functions.partition_point(|function| function.address < found.address);
        let names = self.functions.get(first..after).unwrap_or_default();
        names.iter().find(|f| f.address == found.address && f.size == found.size).or(Some(found))
    }

    /// The link-time address of the function that `name` names by `rule`.
    pub(super) fn find(
        &self,
        bytes: &[u8],
        name: &str,
        rule: NameMatch,
    ) -> Result<Option<u64>, NameError> {
        let raw = |f: &FunctionSymbol| {
            String::from_utf8_lossy(bytes.get(f.name.clone()).unwrap_or_default()).into_owned()
        };
        let matches = |f: &&FunctionSymbol| match rule {
            NameMatch::Symbol => bytes.get(f.name.clone()) == Some(name.as_bytes()),
            NameMatch::Demangled => demangle(&raw(f)) == name,
            NameMatch::PathSuffix => {
                demangle(&raw(f)).strip_suffix(name).is_some_and(|path| path.ends_with("::"))
            }
        };
        let mut found: Vec<_> = self.functions.iter().filter(matches).collect();
        if found.iter().any(|f| f.global) {
            found.retain(|f| f.global);
        }
        let by_address: BTreeMap<u64, &FunctionSymbol> =
            found.into_iter().map(|f| (f.address, f)).collect();
        if by_address.len() > 1 {
            let listed = by_address.values().take(CANDIDATES_MAX);
            let candidates = listed.map(|f| format!("{} at {:#x}", raw(f), f.address)).collect();
            return Err(NameError::Ambiguous { name: name.to_owned(), candidates });
        }
        Ok(by_address.into_keys().next())
    }
}

/// The human form of a symbol: a Rust path without its hash, a C++ name without its parameters,
/// any other name as it is.
#[must_use]
pub fn demangle(symbol: &str) -> String {
    let mut out = Limited(String::new());
    if let Ok(name) = rustc_demangle::try_demangle(symbol) {
        // A cut name is an error to the formatter and still a name.
        let _cut = write!(out, "{name:#}");
        return out.0;
    }
    if symbol.starts_with("_Z")
        && let Ok(name) = cpp_demangle::BorrowedSymbol::new(symbol.as_bytes())
    {
        let options = cpp_demangle::DemangleOptions::new().no_params().no_return_type();
        let _cut = name.structured_demangle(&mut out, &options);
    }
    if out.0.is_empty() { symbol.to_owned() } else { out.0 }
}

/// A string that refuses to grow beyond its limit.
struct Limited(String);

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > NAME_BYTES_MAX {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn demangles_rust_and_cpp_and_leaves_c_alone() {
        let legacy = "_ZN4core9panicking5panic17h0123456789abcdefE";
        assert_eq!(demangle(legacy), "core::panicking::panic");
        assert_eq!(demangle("_RNvNtCs1234_7mycrate3foo3bar"), "mycrate::foo::bar");
        assert_eq!(demangle("_ZN3xml6Parser4readEPKcm"), "xml::Parser::read");
        assert_eq!(demangle("xmlParseDoc"), "xmlParseDoc");
        assert_eq!(demangle("_Zebra"), "_Zebra");
    }

    #[test]
    fn finds_the_function_that_covers_an_address() {
        let symbol = |address, size, global| FunctionSymbol {
            address,
            size,
            name: 0..0,
            global,
            is_ifunc: false,
        };
        let functions = vec![
            symbol(0x100, 0x40, true),
            symbol(0x100, 0x40, false),
            symbol(0x110, 0, false),
            symbol(0x200, 0, true),
        ];
        let symbols = Symbols { functions };
        let at = |address| symbols.covering(address).map(|f| (f.address, f.global));
        assert_eq!(at(0xff), None);
        assert_eq!(at(0x120), Some((0x100, true)), "a sized symbol wins over a label in it");
        assert_eq!(at(0x150), Some((0x110, false)));
        assert_eq!(at(0x210), Some((0x200, true)));
        assert_eq!(at(0x200 + UNSIZED_BYTES_MAX), None);
    }

    proptest! {
        #[test]
        fn demangles_anything(name in "(_ZN?|_R|)[A-Za-z0-9_$.]{0,200}") {
            prop_assert!(demangle(&name).len() <= NAME_BYTES_MAX);
        }
    }
}
