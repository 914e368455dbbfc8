//! Ladders: tables in the documents that say in which order modules stand, so that the documents
//! cannot rot. A module uses only what stands above it, and what shares its row.

use crate::edges::Edge;
use crate::modules::{Id, Module, Modules};
use crate::sources::Sources;
use std::collections::BTreeMap;

/// Where the order of a module's children is written.
pub struct Ladder {
    /// The document, or the Rust file whose module documentation it is.
    pub document: &'static str,
    /// The line after which the table comes; empty where it is the first of the document.
    pub after: &'static str,
    /// The full path of the module whose children the rows name. Its own file, which re-exports from
    /// them, stands below every row.
    pub root: &'static [&'static str],
}

/// What is wrong with the table, and the edges that run against it.
pub fn faults(
    ladder: &Ladder,
    sources: &Sources,
    modules: &Modules,
    edges: &[Edge],
) -> Vec<String> {
    let document = ladder.document;
    let Some(root) = modules.find(ladder.root) else {
        return vec![format!("{document}: there is no module {}", ladder.root.join("::"))];
    };
    let Some(table) = sources.texts.get(document).and_then(|text| table(ladder, text)) else {
        return vec![format!("{document}: it has no table{}", place(ladder))];
    };
    let mut faults = Vec::new();
    let rows = rows(&table, &mut faults);
    faults.extend(misnamed(&rows, modules, root));
    let faults = faults.into_iter().map(|fault| format!("{document}: {fault}"));
    faults.chain(violations(ladder, &rows, modules, root, edges)).collect()
}

fn place(ladder: &Ladder) -> String {
    if ladder.after.is_empty() { String::new() } else { format!(" after \"{}\"", ladder.after) }
}

/// The lines of the ladder's table below its head.
fn table<'t>(ladder: &Ladder, text: &'t str) -> Option<Vec<&'t str>> {
    let is_code = ladder.document.ends_with(".rs");
    let lines = text.lines().filter_map(|line| {
        if is_code { line.strip_prefix("//!").map(str::trim) } else { Some(line.trim()) }
    });
    let after = lines.skip_while(|line| !ladder.after.is_empty() && *line != ladder.after);
    let table = after.skip_while(|line| !line.starts_with('|'));
    let table: Vec<&str> = table.take_while(|line| line.starts_with('|')).skip(2).collect();
    if table.is_empty() { None } else { Some(table) }
}

/// The row of each name. A row is a place in the order, from the top.
fn rows(table: &[&str], faults: &mut Vec<String>) -> BTreeMap<String, usize> {
    let mut rows = BTreeMap::new();
    for (row, line) in table.iter().enumerate() {
        let first = line.trim_start_matches('|').split('|').next().unwrap_or_default();
        // What stands between backticks is every second part.
        let names: Vec<&str> = first.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            faults.push(format!("a row names no module: {line}"));
        }
        for name in names {
            let name = name.trim_end_matches('/').trim_end_matches(".rs");
            if rows.insert(name.to_owned(), row).is_some() {
                faults.push(format!("`{name}` stands in it twice"));
            }
        }
    }
    rows
}

/// Names without a module, and modules without a row.
fn misnamed(rows: &BTreeMap<String, usize>, modules: &Modules, root: Id) -> Vec<String> {
    let root = &modules.all[root];
    let has_file = |child: &Id| {
        let child = &modules.all[*child];
        !child.is_test && child.file != root.file
    };
    let children = || root.children.iter().filter(|(_, child)| has_file(child));
    let within = root.path.join("::");
    let nothing = rows.keys().filter(|name| !children().any(|(child, _)| child == *name));
    let nothing = nothing.map(|name| format!("`{name}` is no module of {within}"));
    let missing = children().filter(|(name, _)| !rows.contains_key(*name));
    let missing = missing.map(|(name, &child)| {
        format!("`{name}` of {within} ({}) stands in no row", modules.all[child].file)
    });
    nothing.chain(missing).collect()
}

fn violations(
    ladder: &Ladder,
    rows: &BTreeMap<String, usize>,
    modules: &Modules,
    root: Id,
    edges: &[Edge],
) -> Vec<String> {
    let root = &modules.all[root];
    let is_within = |module: Id| modules.all[module].path.starts_with(&root.path);
    let edges = edges.iter().filter(|e| !e.is_test && is_within(e.from) && is_within(e.to));
    let violations = edges.filter_map(|edge| {
        let user = rung(&modules.all[edge.from], root)?;
        let stands = match rung(&modules.all[edge.to], root) {
            None => format!("`{user}` stands above its parent's own file"),
            Some(used) if rows.get(used)? > rows.get(user)? => {
                format!("`{user}` stands above `{used}`")
            }
            Some(_) => return None,
        };
        Some(format!("{}: {stands} in {}", edge.describe(modules), ladder.document))
    });
    violations.collect()
}

/// The child of `root` in which `module` lies, unless that is `root`'s own file.
fn rung<'m>(module: &'m Module, root: &Module) -> Option<&'m str> {
    if module.file == root.file {
        None
    } else {
        module.path.get(root.path.len()).map(String::as_str)
    }
}
