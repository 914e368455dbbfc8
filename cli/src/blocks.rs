//! Which basic blocks count as coverage: those of the program and of its own libraries, and of images
//! asked for.
//!
//! Never arms a breakpoint.

use crate::args::CoverArgs;
use crate::error::CliError;
use dejavm_engine::coverage::{blocks, detours};
use dejavm_engine::linux::{LoadedImage, Process};

/// What every program has in common, by file names up to `.so`: the loader, the C and C++ libraries,
/// and what compilers bring along. An input's way through them says little of the program.
const RUNTIME: [&str; 34] = [
    "ld-linux-x86-64",
    "ld-musl-x86_64",
    "libBrokenLocale",
    "libanl",
    "libasan",
    "libatomic",
    "libc",
    "libc++",
    "libc++abi",
    "libc.musl-x86_64",
    "libdl",
    "libgcc_s",
    "libgfortran",
    "libgomp",
    "libhwasan",
    "liblsan",
    "libm",
    "libmvec",
    "libnsl",
    "libnss_compat",
    "libnss_dns",
    "libnss_files",
    "libpthread",
    "libquadmath",
    "libresolv",
    "librt",
    "libstdc++",
    "libthread_db",
    "libtsan",
    "libubsan",
    "libunwind",
    "libutil",
    "linux-vdso",
    "vdso",
];

/// The most bytes of code that are covered unless they were asked for, in the order in which images
/// are loaded: each block has its price when a campaign starts.
const CODE_BYTES_MAX: u64 = 16 << 20;

/// The blocks of a process, by guest-virtual address, and whose they are.
#[derive(Debug, Default)]
pub struct Blocks {
    /// Where blocks start.
    pub starts: Vec<u64>,
    /// File names of the images they are in.
    pub covered: Vec<String>,
    /// File names of the other images.
    pub uncovered: Vec<String>,
    /// The images that they are in.
    images: Vec<CoveredImage>,
}

/// An image whose blocks count.
#[derive(Debug)]
struct CoveredImage {
    image: LoadedImage,
    blocks: blocks::Blocks,
    /// The number of its first block.
    first: u32,
}

impl CoveredImage {
    fn for_detours(&self) -> detours::Image<'_> {
        let Self { image, blocks, first } = self;
        detours::Image { elf: &image.bytes, blocks, base: image.base, first: *first }
    }
}

/// Why an image is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// It was named, or is the program: without its blocks there is an error.
    Wanted,
    /// All were asked for.
    All,
    /// It is one of the program's own libraries.
    Own,
}

impl Blocks {
    /// The blocks of `process`'s program and its libraries, as `wish` changes that. A bare guest has
    /// none.
    pub fn find(process: Option<&Process>, wish: &CoverArgs) -> Result<Self, CliError> {
        let images = process.map(Process::images).unwrap_or_default();
        let names: Vec<String> = images.iter().map(file_name).collect();
        check(wish, &names)?;
        let mut found = Self::default();
        let mut code_bytes = 0;
        for (index, (image, name)) in images.iter().zip(names).enumerate() {
            let blocks = match reason(index == 0, &name, wish) {
                None => None,
                Some(Reason::Own) if code_bytes > CODE_BYTES_MAX => None,
                // A library of data alone has no code.
                Some(Reason::Own | Reason::All) => blocks::find(&image.bytes).ok(),
                Some(Reason::Wanted) => Some(
                    blocks::find(&image.bytes)
                        .map_err(|source| CliError::Blocks { image: name.clone(), source })?,
                ),
            };
            match blocks {
                Some(blocks) => {
                    code_bytes += blocks.text_bytes;
                    found.add(image, name, blocks);
                }
                None => found.uncovered.push(name),
            }
        }
        Ok(found)
    }

    fn add(&mut self, image: &LoadedImage, name: String, blocks: blocks::Blocks) {
        let first = self.starts.len() as u32;
        self.starts.extend(blocks.starts.iter().map(|at| at.wrapping_add(image.base)));
        self.covered.push(name);
        self.images.push(CoveredImage { image: image.clone(), blocks, first });
    }

    /// What the blocks need to mark themselves.
    pub fn detour_images(&self) -> Vec<detours::Image<'_>> {
        self.images.iter().map(CoveredImage::for_detours).collect()
    }
}

fn file_name(image: &LoadedImage) -> String {
    image.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Refuses names of no image.
fn check(wish: &CoverArgs, names: &[String]) -> Result<(), CliError> {
    let covers = wish.cover.iter().filter(|part| *part != "all");
    let no_covers = wish.no_cover.iter().filter(|part| *part != "libraries");
    let is_of_none = |part: &&String| !names.iter().any(|name| name.contains(part.as_str()));
    match covers.chain(no_covers).find(is_of_none) {
        Some(part) => Err(CliError::NoImage { name: part.clone(), loaded: names.join(", ") }),
        None => Ok(()),
    }
}

/// Why the image `name` is covered, if it is: what was named decides, `--no-cover` first.
fn reason(is_program: bool, name: &str, wish: &CoverArgs) -> Option<Reason> {
    let is_named = |parts: &[String]| parts.iter().any(|part| name.contains(part.as_str()));
    let has = |parts: &[String], all: &str| parts.iter().any(|part| part == all);
    if is_named(&wish.no_cover) {
        return None;
    }
    if is_program || is_named(&wish.cover) {
        return Some(Reason::Wanted);
    }
    if has(&wish.cover, "all") {
        return Some(Reason::All);
    }
    let is_own = !is_runtime(name) && !has(&wish.no_cover, "libraries");
    is_own.then_some(Reason::Own)
}

/// Whether an image is a part of every program of its kind.
fn is_runtime(name: &str) -> bool {
    let stem = name.split_once(".so").map_or(name, |(stem, _)| stem);
    // Debian had `libc-2.31.so`; clang's sanitizers have `libclang_rt.asan-x86_64.so`.
    let stem = match stem.split_once('-') {
        Some((before, rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => before,
        _ => stem,
    };
    RUNTIME.contains(&stem) || stem.starts_with("libclang_rt.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(cover: &[&str], no_cover: &[&str]) -> CoverArgs {
        let owned = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
        CoverArgs { cover: owned(cover), no_cover: owned(no_cover) }
    }

    #[test]
    fn what_every_program_has_is_not_its_own() {
        for name in
            ["libc.so.6", "libc-2.31.so", "libm.so.6", "libstdc++.so.6.0.30", "libgcc_s.so.1"]
        {
            assert!(is_runtime(name), "{name}");
        }
        for name in ["ld-linux-x86-64.so.2", "libpthread.so.0", "libclang_rt.asan-x86_64.so"] {
            assert!(is_runtime(name), "{name}");
        }
        for name in
            ["libxml2.so.2.9.14", "libcrypt.so.1", "libcap.so.2", "libmpg123.so.0", "xmllint"]
        {
            assert!(!is_runtime(name), "{name}");
        }
    }

    #[test]
    fn what_is_named_decides() {
        let none = wish(&[], &[]);
        assert_eq!(reason(true, "libc.so.6", &none), Some(Reason::Wanted), "it is the program");
        assert_eq!(reason(false, "libxml2.so.2", &none), Some(Reason::Own));
        assert_eq!(reason(false, "libc.so.6", &none), None);
        assert_eq!(reason(false, "libc.so.6", &wish(&["libc."], &[])), Some(Reason::Wanted));
        let all = wish(&["all"], &["libstd"]);
        assert_eq!(reason(false, "libc.so.6", &all), Some(Reason::All));
        assert_eq!(reason(false, "libstdc++.so.6", &all), None);
        let alone = wish(&["libxml2"], &["libraries"]);
        assert_eq!(reason(false, "libxml2.so.2", &alone), Some(Reason::Wanted));
        assert_eq!(reason(false, "libz.so.1", &alone), None);
        assert_eq!(reason(true, "xmllint", &alone), Some(Reason::Wanted));
    }

    #[test]
    fn a_name_of_no_image_is_refused() {
        let names = ["xmllint".to_owned(), "libxml2.so.2".to_owned()];
        assert!(check(&wish(&["all", "xml2"], &["libraries", "lint"]), &names).is_ok());
        assert!(check(&wish(&["libpng"], &[]), &names).is_err());
        assert!(check(&wish(&[], &["libpng"]), &names).is_err());
    }
}
