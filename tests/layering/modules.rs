//! The tree of modules, from each target's root file along `mod` to the files and the inline
//! modules. Never looks into functions.

use crate::attributes;
use crate::paths::{self, Import};
use crate::sources::Sources;
use std::collections::BTreeMap;
use syn::{Item, ItemMod};

/// A module's place in [`Modules::all`].
pub type Id = usize;

/// A module: a file, or a part of one.
pub struct Module {
    pub package: String,
    /// Its full path, its crate's name first.
    pub path: Vec<String>,
    pub parent: Option<Id>,
    pub children: BTreeMap<String, Id>,
    /// The file that holds its body.
    pub file: String,
    /// Whether it exists in tests only.
    pub is_test: bool,
    pub imports: Vec<Import>,
    /// What it holds, but for other modules.
    pub items: Vec<Item>,
}

/// All modules of a workspace.
#[derive(Default)]
pub struct Modules {
    pub all: Vec<Module>,
    /// The root modules of libraries, by the names that other crates use.
    pub libraries: BTreeMap<String, Id>,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
}

impl Modules {
    /// Follows every `mod` of every target.
    pub fn of(sources: &Sources) -> Self {
        let mut modules = Self::default();
        for target in &sources.targets {
            let name = target.library.clone().unwrap_or_else(|| stem(&target.file).to_owned());
            let root = Module {
                package: target.package.clone(),
                path: vec![name],
                parent: None,
                children: BTreeMap::new(),
                file: target.file.clone(),
                is_test: false,
                imports: Vec::new(),
                items: Vec::new(),
            };
            let root = modules.read_file(sources, root, parent(&target.file));
            if let Some(library) = &target.library {
                modules.libraries.insert(library.clone(), root);
            }
        }
        modules
    }

    /// The module with the full path `path` in a library.
    pub fn find(&self, path: &[&str]) -> Option<Id> {
        let (library, rest) = path.split_first()?;
        let root = *self.libraries.get(*library)?;
        rest.iter().try_fold(root, |module, name| self.all[module].children.get(*name).copied())
    }

    /// The root of the crate of `module`.
    pub fn root_of(&self, module: Id) -> Id {
        self.all[module].parent.map_or(module, |parent| self.root_of(parent))
    }

    /// Adds `module`, whose body is the whole of its file; `folder` is where its children lie.
    fn read_file(&mut self, sources: &Sources, mut module: Module, folder: &str) -> Id {
        let text = &sources.texts[&module.file];
        let file = syn::parse_file(text).unwrap_or_else(|error| {
            let line = error.span().start().line;
            self.unreadable.push(format!("{}:{line}: {error}", module.file));
            syn::File { shebang: None, frontmatter: None, attrs: Vec::new(), items: Vec::new() }
        });
        // An integration test is compiled for nothing else, so that its root's attribute says nothing.
        module.is_test |= module.parent.is_some() && attributes::is_for_tests(&file.attrs);
        self.add(sources, module, file.items, folder)
    }

    fn add(&mut self, sources: &Sources, module: Module, items: Vec<Item>, folder: &str) -> Id {
        let id = self.all.len();
        self.all.push(module);
        for item in items {
            match item {
                Item::Mod(declared) => self.add_child(sources, id, declared, folder),
                other => {
                    if let Item::Use(item) = &other {
                        self.all[id].imports.extend(paths::imports(item));
                    }
                    self.all[id].items.push(other);
                }
            }
        }
        id
    }

    fn add_child(&mut self, sources: &Sources, of: Id, declared: ItemMod, folder: &str) {
        let name = declared.ident.to_string().trim_start_matches("r#").to_owned();
        let above = &self.all[of];
        let mut child = Module {
            package: above.package.clone(),
            path: [above.path.clone(), vec![name.clone()]].concat(),
            parent: Some(of),
            children: BTreeMap::new(),
            file: above.file.clone(),
            is_test: above.is_test || attributes::is_for_tests(&declared.attrs),
            imports: Vec::new(),
            items: Vec::new(),
        };
        let own_folder = join(folder, &name);
        let id = if let Some((_, items)) = declared.content {
            self.add(sources, child, items, &own_folder)
        } else {
            let is_inline = above.parent.is_some_and(|id| self.all[id].file == above.file);
            let from = if is_inline { folder } else { parent(&above.file) };
            let given = attributes::path(&declared.attrs).map(|path| join(from, &path));
            let Some((file, folder)) = file_of(sources, given, own_folder) else {
                let line = declared.ident.span().start().line;
                self.unreadable.push(format!("{}:{line}: no file for `mod {name}`", child.file));
                return;
            };
            child.file = file;
            self.read_file(sources, child, &folder)
        };
        self.all[of].children.insert(name, id);
    }
}

/// The file of a module, the one that is `given` or one beside or in `own_folder`, and the folder in
/// which its children lie.
fn file_of(
    sources: &Sources,
    given: Option<String>,
    own_folder: String,
) -> Option<(String, String)> {
    let candidates = match given {
        Some(file) => {
            let folder = parent(&file).to_owned();
            vec![(file, folder)]
        }
        None => vec![
            (format!("{own_folder}.rs"), own_folder.clone()),
            (format!("{own_folder}/mod.rs"), own_folder),
        ],
    };
    candidates.into_iter().find(|(file, _)| sources.texts.contains_key(file))
}

/// The folder of a file; that of the root is empty.
pub fn parent(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn stem(file: &str) -> &str {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    name.trim_end_matches(".rs")
}

/// `path` from `folder`, without `.` and `..`.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
