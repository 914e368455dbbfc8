//! The workspace as text: what cargo calls its targets, and the files below its root. Never parses
//! any of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A workspace's targets and files. Paths are relative to its root, with `/` between their parts.
pub struct Sources {
    pub targets: Vec<Target>,
    /// The text of each Rust file and each document.
    pub texts: BTreeMap<String, String>,
}

/// One crate as the compiler sees it: a library, a command, a test, a bench or an example.
pub struct Target {
    pub package: String,
    /// The name by which other crates use it, if it is a library.
    pub library: Option<String>,
    /// Its root file.
    pub file: String,
}

impl Sources {
    /// Reads the workspace in the folder `root`.
    pub fn read(root: &Path) -> Self {
        let root = root.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        let mut texts = BTreeMap::new();
        read_folder(&root, "", &mut texts);
        Self { targets: targets(&root), texts }
    }
}

fn read_folder(folder: &Path, prefix: &str, texts: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap();
        let within = format!("{prefix}{name}");
        if name.starts_with('.') || within == "target" {
            continue;
        }
        if path.is_dir() {
            read_folder(&path, &format!("{within}/"), texts);
        } else if name.ends_with(".rs") || name.ends_with(".md") {
            texts.insert(within, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Asked of cargo, which knows the targets that no manifest lists.
fn targets(root: &Path) -> Vec<Target> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().flat_map(|package| targets_of(package, root)).collect()
}

fn targets_of(package: &serde_json::Value, root: &Path) -> Vec<Target> {
    let targets = package["targets"].as_array().unwrap().iter().map(|target| {
        let file = Path::new(target["src_path"].as_str().unwrap()).canonicalize().unwrap();
        let is_library = target["kind"].as_array().unwrap().iter().any(|kind| kind == "lib");
        Target {
            package: package["name"].as_str().unwrap().to_owned(),
            library: is_library.then(|| target["name"].as_str().unwrap().replace('-', "_")),
            file: file.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
        }
    });
    targets.collect()
}
