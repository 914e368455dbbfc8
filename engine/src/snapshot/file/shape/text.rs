//! A shape as a value and as a text, a line for each place in the order in which they are encoded.
//!
//! Never knows a type.

/// What is encoded in one place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Shape {
    /// Not read yet.
    #[default]
    Unknown,
    Leaf(String),
    Option(Box<Self>),
    List(Box<Self>),
    Map(Box<Self>, Box<Self>),
    /// Of a structure.
    Fields(Vec<Named>),
    /// Of a tuple or an array.
    Elements(Vec<Self>),
    Variants(Vec<Named>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
}

impl Shape {
    /// A place below this one, at `path`, that has not been read.
    pub(super) fn unseen(&self, path: &str) -> Option<String> {
        let named = |all: &[Named]| {
            all.iter().find_map(|one| one.shape.unseen(&format!("{path}.{}", one.name)))
        };
        match self {
            Self::Unknown => Some(path.to_owned()),
            Self::Leaf(_) => None,
            Self::Option(inner) | Self::List(inner) => inner.unseen(&format!("{path}[]")),
            Self::Map(key, value) => {
                key.unseen(&format!("{path}[key]")).or_else(|| value.unseen(&format!("{path}[]")))
            }
            Self::Elements(all) => all.iter().find_map(|one| one.unseen(&format!("{path}[]"))),
            Self::Fields(all) | Self::Variants(all) => named(all),
        }
    }

    /// The first line, and the lines below it.
    fn lines(&self) -> (String, Vec<String>) {
        match self {
            Self::Unknown => ("?".to_owned(), Vec::new()),
            Self::Leaf(name) => (name.clone(), Vec::new()),
            Self::Option(inner) => inner.lines_after("option of"),
            Self::List(inner) => inner.lines_after("list of"),
            Self::Elements(all) => match all.split_first() {
                None => ("nothing".to_owned(), Vec::new()),
                Some((first, rest)) if rest.iter().all(|other| other == first) => {
                    first.lines_after(&format!("{} x", all.len()))
                }
                Some(_) => {
                    let below = all.iter().flat_map(|one| one.lines_of("_"));
                    ("tuple".to_owned(), below.collect())
                }
            },
            Self::Map(key, value) => {
                ("map".to_owned(), [key.lines_of("key"), value.lines_of("value")].concat())
            }
            Self::Fields(all) => {
                let below = all.iter().flat_map(|one| one.shape.lines_of(one.name));
                ("structure".to_owned(), below.collect())
            }
            Self::Variants(all) => {
                let of = |(number, one): (usize, &Named)| {
                    one.shape.lines_of(&format!("{number} {}", one.name))
                };
                ("one of".to_owned(), all.iter().enumerate().flat_map(of).collect())
            }
        }
    }

    fn lines_after(&self, what: &str) -> (String, Vec<String>) {
        let (first, below) = self.lines();
        (format!("{what} {first}"), below)
    }

    fn lines_of(&self, name: &str) -> Vec<String> {
        let (first, below) = self.lines();
        let indented = below.iter().map(|line| format!("  {line}"));
        std::iter::once(format!("{name}: {first}")).chain(indented).collect()
    }

    /// The text that is recorded of the section `name`.
    pub(super) fn text(&self, version: u32, name: &str) -> String {
        format!("format version {version}\n{}\n", self.lines_of(name).join("\n"))
    }
}

/// A text without the names of fields and variants: what an older file can be read by.
pub(super) fn without_names(text: &str) -> String {
    let nameless = |line: &str| {
        let (name, shape) = line.split_once(": ").unwrap_or(("", line));
        let indent = name.len() - name.trim_start().len();
        let number = name.trim_start().split_once(' ').map_or("", |(number, _)| number);
        format!("{:indent$}{number}_: {shape}\n", "")
    };
    text.lines().map(nameless).collect()
}

/// A line without the number of a variant, and without its indentation.
pub(super) fn without_number(line: &str) -> &str {
    line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ')
}
