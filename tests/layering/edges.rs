//! The arrows between files: who names something in whom, on which line, as it is written there.

use crate::attributes::is_for_tests;
use crate::modules::{Id, Modules};
use crate::paths::{self, Import, Written};
use crate::resolve::Resolver;
use syn::visit::{self, Visit};

/// One path in one file that leads into another.
pub struct Edge {
    pub from: Id,
    pub to: Id,
    pub written: Written,
    /// Whether it stands in code for tests.
    pub is_test: bool,
}

impl Edge {
    /// The file in which the path stands.
    pub fn user<'m>(&self, modules: &'m Modules) -> &'m str {
        &modules.all[self.from].file
    }

    /// The file into which it leads.
    pub fn used<'m>(&self, modules: &'m Modules) -> &'m str {
        &modules.all[self.to].file
    }

    /// The edge in one line.
    pub fn describe(&self, modules: &Modules) -> String {
        let (user, used) = (self.user(modules), self.used(modules));
        format!("{user}:{} -> {used}: {}", self.written.line, self.written)
    }
}

/// Every edge between two files of the workspace.
pub fn edges(modules: &Modules) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (module, of) in modules.all.iter().enumerate() {
        let is_test = of.is_test;
        let mut reader = Reader { modules, module, is_test, blocks: Vec::new(), edges };
        of.items.iter().for_each(|item| reader.visit_item(item));
        edges = reader.edges;
    }
    edges.sort_by_key(|edge| {
        (edge.user(modules).to_owned(), edge.written.line, edge.written.to_string())
    });
    edges
}

/// Reads the items of one module.
struct Reader<'m> {
    modules: &'m Modules,
    module: Id,
    is_test: bool,
    /// What the blocks around bring in.
    blocks: Vec<Vec<Import>>,
    edges: Vec<Edge>,
}

impl Reader<'_> {
    fn note(&mut self, written: Written) {
        let resolver = Resolver { modules: self.modules };
        let Some(to) = resolver.module_of(self.module, &self.blocks, &written) else { return };
        let edge = Edge { from: self.module, to, written, is_test: self.is_test };
        if edge.user(self.modules) != edge.used(self.modules) {
            self.edges.push(edge);
        }
    }

    /// A path outside a `use`: of one name, it says no more than the `use` that brought it in.
    fn note_in_code(&mut self, written: Option<Written>) {
        if let Some(written) = written.filter(|w| w.is_global || w.names.len() > 1) {
            self.note(written);
        }
    }

    fn within(&mut self, attrs: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let outer = self.is_test;
        self.is_test |= is_for_tests(attrs);
        visit(self);
        self.is_test = outer;
    }
}

impl<'a> Visit<'a> for Reader<'_> {
    fn visit_item(&mut self, item: &'a syn::Item) {
        self.within(attributes(item), |reader| visit::visit_item(reader, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.within(&item.attrs, |reader| visit::visit_impl_item_fn(reader, item));
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        paths::imports(item).into_iter().for_each(|import| self.note(import.path));
    }

    fn visit_block(&mut self, block: &'a syn::Block) {
        let uses = block.stmts.iter().filter_map(|statement| match statement {
            syn::Stmt::Item(syn::Item::Use(item)) => Some(paths::imports(item)),
            _ => None,
        });
        self.blocks.push(uses.flatten().collect());
        visit::visit_block(self, block);
        self.blocks.pop();
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.note_in_code(paths::in_code(path));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        for written in paths::in_tokens(call.tokens.clone()) {
            self.note_in_code(Some(written));
        }
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'a syn::Attribute) {
        // A document may name whatever it likes.
        if attribute.path().is_ident("doc") {
            return;
        }
        if let syn::Meta::List(list) = &attribute.meta {
            let inside = paths::in_tokens(list.tokens.clone());
            let strings = paths::in_strings(list.tokens.clone());
            inside.into_iter().chain(strings).for_each(|written| self.note_in_code(Some(written)));
        }
        visit::visit_attribute(self, attribute);
    }

    /// Who may see an item is no use of anything.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item;
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
