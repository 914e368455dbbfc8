//! Paths as they are written: in `use` trees, in code, inside macros and attributes. Never says what
//! one means.

use proc_macro2::{Ident, Spacing, TokenStream, TokenTree};
use std::fmt;
use syn::UseTree;

/// A path and where it stands.
#[derive(Clone)]
pub struct Written {
    /// Whether it begins with `::`.
    pub is_global: bool,
    /// Its names; a glob's `*` is none.
    pub names: Vec<String>,
    /// Whether all of its names are modules or enums: more follows, a `*` or, in a macro, a group.
    pub is_glob: bool,
    /// Whether its last name may be a module, as in a `use` line. In code it never is.
    pub may_be_module: bool,
    pub line: usize,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = if self.is_global { "::" } else { "" };
        let end = if self.is_glob { "::*" } else { "" };
        write!(f, "{start}{}{end}", self.names.join("::"))
    }
}

/// One leaf of a `use` tree.
pub struct Import {
    pub path: Written,
    /// The name that it brings in, unless it is a glob or `_`.
    pub name: Option<String>,
}

/// The leaves of a `use` tree.
pub fn imports(item: &syn::ItemUse) -> Vec<Import> {
    let mut found = Vec::new();
    let start = Written {
        is_global: item.leading_colon.is_some(),
        names: Vec::new(),
        is_glob: false,
        may_be_module: true,
        line: 0,
    };
    leaves(&item.tree, &start, &mut found);
    found
}

fn leaves(tree: &UseTree, prefix: &Written, found: &mut Vec<Import>) {
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &longer(prefix, &path.ident), found),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, prefix, found)),
        UseTree::Name(leaf) => {
            let path = longer(prefix, &leaf.ident);
            let name = path.names.last().cloned();
            found.push(Import { path, name });
        }
        UseTree::Rename(leaf) => {
            let name = Some(leaf.rename.to_string()).filter(|name| name != "_");
            found.push(Import { path: longer(prefix, &leaf.ident), name });
        }
        UseTree::Glob(glob) => {
            let line = glob.star_token.spans[0].start().line;
            let path = Written { is_glob: true, line, ..prefix.clone() };
            found.push(Import { path, name: None });
        }
    }
}

/// `prefix` with one name more; `self` at the end names the prefix.
fn longer(prefix: &Written, name: &Ident) -> Written {
    let mut path = Written { line: name.span().start().line, ..prefix.clone() };
    if path.names.is_empty() || name != "self" {
        path.names.push(plain(name));
    }
    path
}

/// A path in code.
pub fn in_code(path: &syn::Path) -> Option<Written> {
    let names = path.segments.iter().map(|segment| plain(&segment.ident)).collect();
    let line = path.segments.first()?.ident.span().start().line;
    let is_global = path.leading_colon.is_some();
    Some(Written { is_global, names, is_glob: false, may_be_module: false, line })
}

/// Every `a::b::c` among the tokens of a macro or an attribute, however deep.
pub fn in_tokens(tokens: TokenStream) -> Vec<Written> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            // What stands in `pub(in a::b)` says who may see, not who is used.
            TokenTree::Ident(word) if word == "pub" => {
                at += usize::from(matches!(tokens.get(at + 1), Some(TokenTree::Group(_))));
            }
            TokenTree::Ident(first) => {
                let written = from_tokens(&tokens, at, first);
                at += 3 * (written.names.len() - 1);
                found.push(written);
            }
            TokenTree::Group(group) => found.extend(in_tokens(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
    found
}

/// The path whose first name is the token at `at`.
fn from_tokens(tokens: &[TokenTree], at: usize, first: &Ident) -> Written {
    let is_global = at >= 2 && is_double_colon(tokens, at - 2);
    let line = first.span().start().line;
    let mut names = vec![plain(first)];
    let mut is_glob = false;
    for colons in (at + 1..).step_by(3).take_while(|&at| is_double_colon(tokens, at)) {
        match tokens.get(colons + 2) {
            Some(TokenTree::Ident(name)) => names.push(plain(name)),
            // Generic arguments end the path, which is an item's by then.
            Some(TokenTree::Punct(mark)) if mark.as_char() == '<' => break,
            _ => {
                is_glob = true;
                break;
            }
        }
    }
    Written { is_global, names, is_glob, may_be_module: false, line }
}

/// Whether the two tokens from `at` on are `::`.
fn is_double_colon(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |token: &TokenTree, spacing: Option<Spacing>| {
        matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':'
            && spacing.is_none_or(|spacing| mark.spacing() == spacing))
    };
    matches!(tokens.get(at..at + 2), Some([first, second])
        if is_colon(first, Some(Spacing::Joint)) && is_colon(second, None))
}

/// Every string among an attribute's tokens that is a path as a whole (`with = "a::b"`).
pub fn in_strings(tokens: TokenStream) -> Vec<Written> {
    let literals = tokens.into_iter().filter_map(|token| match token {
        TokenTree::Literal(literal) => Some(literal),
        _ => None,
    });
    let paths = literals.filter_map(|literal| {
        let syn::Lit::Str(text) = syn::Lit::new(literal) else { return None };
        // The span of what is parsed is the string's.
        let path = in_code(&text.parse().ok()?)?;
        Some(Written { may_be_module: true, ..path })
    });
    paths.collect()
}

/// A name without its `r#`.
fn plain(name: &Ident) -> String {
    name.to_string().trim_start_matches("r#").to_owned()
}
