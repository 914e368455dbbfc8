//! The attributes that say which modules there are: `cfg(test)` and `path`.

use syn::punctuated::Punctuated;
use syn::{Attribute, Meta, Token};

/// The file that `#[path = FILE]` gives a module.
pub fn path(attrs: &[Attribute]) -> Option<String> {
    attrs.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
            _ => None,
        },
        _ => None,
    })
}

/// Whether `attrs` leave what they stand at out of everything but tests: `cfg(test)`, alone or
/// within `all`.
pub fn is_for_tests(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args().is_ok_and(|condition: Meta| asks_for_tests(&condition))
        }
        _ => false,
    })
}

fn asks_for_tests(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => {
            let parts = Punctuated::<Meta, Token![,]>::parse_terminated;
            list.parse_args_with(parts).is_ok_and(|parts| parts.iter().any(asks_for_tests))
        }
        _ => false,
    }
}
