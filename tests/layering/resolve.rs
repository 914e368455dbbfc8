//! What a written path means: the module that it leads to. Follows names that a `use` binds to
//! modules, and globs; never follows a re-export, because its file is what the path depends on.

use crate::modules::{Id, Modules};
use crate::paths::{Import, Written};

/// Says what paths mean in a tree of modules.
pub struct Resolver<'m> {
    pub modules: &'m Modules,
}

/// Where a path leads.
#[derive(Clone, Copy)]
struct Reached {
    /// The deepest module on the way.
    module: Id,
    /// Whether the whole path is that module.
    is_whole: bool,
}

impl Reached {
    fn whole(module: Id) -> Self {
        Self { module, is_whole: true }
    }
}

/// The names that are being looked up, so that one which stands for itself ends the search.
type Open = Vec<(Id, String)>;

impl Resolver<'_> {
    /// The deepest module on the way of a `path` in `module`, inside blocks with the imports
    /// `blocks`, the outermost first. None outside the workspace; none either where the first name
    /// is of an item that a `use` took from a file: that `use` has said so already.
    pub fn module_of(&self, module: Id, blocks: &[Vec<Import>], path: &Written) -> Option<Id> {
        let first = path.names.first()?;
        let nearest = blocks.iter().rev().find_map(|block| named(block, first));
        let start = match nearest {
            Some(import) if !path.is_global => self.reach(module, &import.path, &mut Open::new()),
            _ => self.start(module, path, &mut Open::new()),
        };
        let start = start.filter(|start| start.is_whole)?;
        // An item may have a module's name; the last name in code is the item's.
        let names = match path.names.len() {
            1 => &[],
            _ if path.may_be_module || path.is_glob => &path.names[1..],
            len => &path.names[1..len - 1],
        };
        Some(self.walk(start.module, names).module)
    }

    /// What the first name of `path` means in `module`.
    fn start(&self, module: Id, path: &Written, open: &mut Open) -> Option<Reached> {
        let first = path.names.first()?.as_str();
        let library = || self.modules.libraries.get(first).copied();
        match first {
            _ if path.is_global => library().map(Reached::whole),
            "crate" => Some(Reached::whole(self.modules.root_of(module))),
            "self" => Some(Reached::whole(module)),
            "super" => self.modules.all[module].parent.map(Reached::whole),
            name => self.look_up(module, name, open).or_else(|| library().map(Reached::whole)),
        }
    }

    /// What `name` means in `module`: a child, what a `use` binds to it, or what a glob brings in.
    fn look_up(&self, module: Id, name: &str, open: &mut Open) -> Option<Reached> {
        let here = (module, name.to_owned());
        if open.contains(&here) {
            return None;
        }
        open.push(here);
        let of = &self.modules.all[module];
        if let Some(&child) = of.children.get(name) {
            return Some(Reached::whole(child));
        }
        if let Some(import) = named(&of.imports, name) {
            return self.reach(module, &import.path, open);
        }
        of.imports.iter().filter(|import| import.path.is_glob).find_map(|glob| {
            let from = self.reach(module, &glob.path, open).filter(|from| from.is_whole)?;
            self.look_up(from.module, name, open)
        })
    }

    /// Where the `path` of a `use` in `module` leads.
    fn reach(&self, module: Id, path: &Written, open: &mut Open) -> Option<Reached> {
        let start = self.start(module, path, open)?;
        Some(if start.is_whole { self.walk(start.module, &path.names[1..]) } else { start })
    }

    /// Along `names` from `module`, as far as they are modules.
    fn walk(&self, mut module: Id, names: &[String]) -> Reached {
        for name in names {
            let of = &self.modules.all[module];
            let next = match name.as_str() {
                "self" => Some(module),
                "super" => of.parent,
                name => of.children.get(name).copied(),
            };
            match next {
                Some(next) => module = next,
                None => return Reached { module, is_whole: false },
            }
        }
        Reached::whole(module)
    }
}

fn named<'i>(imports: &'i [Import], name: &str) -> Option<&'i Import> {
    imports.iter().find(|import| import.name.as_deref() == Some(name))
}
