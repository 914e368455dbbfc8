//! The shape of what a snapshot file holds: what is encoded in which order, as a text. The texts in
//! `shapes/` are those of the present [`VERSION`](super::VERSION); a stored type that changes makes
//! its text differ, and the test of its section fails until the version is raised.
//!
//! A shape is what a type asks of a deserializer, so that private types, types behind a check
//! (`try_from`) and bytes of a fixed length are seen as the file has them. It has the names of
//! fields and variants, by which two that changed places are noticed, and no names of types. Never
//! reads a file or a value.

mod reader;
#[cfg(test)]
mod tests;
mod text;

use reader::shape_of;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use text::{without_names, without_number};

/// How to write the texts anew.
const RECORD: &str =
    "DEJAVM_RECORD_SHAPES=1 cargo test -p dejavm-engine --lib the_format_has_the_recorded_shape";
/// Set, and the present shapes are recorded.
const RECORD_VARIABLE: &str = "DEJAVM_RECORD_SHAPES";

/// What a recorded text is to the present one.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    None,
    /// Fields or variants have other names, and nothing else differs.
    Names,
    /// What is encoded, or in which order: older files mean something else.
    Shape,
    /// The version was raised.
    Version,
}

fn change(recorded: &str, now: &str) -> Change {
    let version = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    if recorded == now {
        Change::None
    } else if version(recorded) != version(now) {
        Change::Version
    } else if without_names(recorded) != without_names(now) || is_reordered(recorded, now) {
        Change::Shape
    } else {
        Change::Names
    }
}

/// Whether the same names stand in another order.
fn is_reordered(recorded: &str, now: &str) -> bool {
    let sorted = |text: &str| {
        let mut names: Vec<_> = text.lines().map(|line| without_number(line).to_owned()).collect();
        names.sort_unstable();
        names
    };
    sorted(recorded) == sorted(now)
}

/// The lines that only one of the two texts has around the first that differs.
fn first_difference(recorded: &str, now: &str) -> String {
    let same = recorded.lines().zip(now.lines()).take_while(|(was, is)| was == is).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(the end)").trim().to_owned();
    format!("line {}: recorded `{}`, now `{}`", same + 1, line(recorded), line(now))
}

/// Holds the shape of `T`, the contents of the section `name`, against the recorded one.
///
/// # Panics
/// They differ: the message says what to do.
pub(crate) fn assert_recorded<T: DeserializeOwned>(name: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/snapshot/file/shapes")
        .join(format!("{name}.txt"));
    let version = super::version::VERSION;
    let now = shape_of::<T>().text(version, name);
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    let change = change(&recorded, &now);
    let may_record = matches!(change, Change::Names | Change::Version);
    if may_record && std::env::var_os(RECORD_VARIABLE).is_some() {
        std::fs::write(&path, now).unwrap();
        return;
    }
    let (place, file) = (first_difference(&recorded, &now), path.display());
    match change {
        Change::None => {}
        Change::Shape => panic!(
            "what a snapshot file holds in its part `{name}` has changed, and the format's VERSION \
             is still {version}: older files would be read wrongly. Raise VERSION in \
             snapshot/file/version.rs, say in docs/snapshot-format.md what the version before did \
             not have, and record the new shape: {RECORD}\n{place} ({file})"
        ),
        Change::Names => panic!(
            "names in a snapshot file's part `{name}` have changed. If each field and variant \
             still means what it did, record them: {RECORD}\nIf one now means something else, \
             raise VERSION in snapshot/file/version.rs first.\n{place} ({file})"
        ),
        Change::Version => panic!(
            "the format's VERSION is now {version}: record the shape of a snapshot file's part \
             `{name}`: {RECORD}\n{place} ({file})"
        ),
    }
}
