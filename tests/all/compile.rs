//! Guests compiled from their sources under `tests/guests`: once, and again only where the source,
//! the flags, the compiler or the C library is another than last time. Never runs one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

/// The folder of the guests' sources.
pub fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests")
}

/// Compiles `tests/guests/c/NAME.c` with `cc` and gives the program's path.
pub fn build_c(name: &str, flags: &[&str]) -> PathBuf {
    let tag: String = flags.concat().chars().filter(char::is_ascii_alphanumeric).collect();
    let flags = [&["-O1", "-g", "-w"], flags, &["-lm"]].concat();
    Guest { out: format!("{name}-{tag}"), source: format!("c/{name}.c"), flags: &flags }.by_cc()
}

/// Assembles `tests/guests/bare/NAME.S` to a flat binary that is linked to run at `at`.
pub fn build_flat(name: &str, at: u64) -> Vec<u8> {
    let link = format!("-Wl,-Ttext={at:#x},--oformat=binary");
    assemble(name, format!("{name}-{at:x}.bin"), &link)
}

/// Assembles `tests/guests/bare/NAME.S` to a freestanding ELF file whose text is at `at`.
pub fn build_elf(name: &str, at: u64) -> Vec<u8> {
    assemble(name, format!("{name}-{at:x}.elf"), &format!("-Wl,-Ttext={at:#x}"))
}

fn assemble(name: &str, out: String, link: &str) -> Vec<u8> {
    let flags = [
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none,-z,noseparate-code,-z,noexecstack",
        "-Wa,-mx86-used-note=no",
        link,
    ];
    fs::read(Guest { out, source: format!("bare/{name}.S"), flags: &flags }.by_cc()).unwrap()
}

/// Compiles `tests/guests/rust/NAME.rs` with the `rustc` that built the tests.
pub fn build_rust(name: &str) -> PathBuf {
    let flags = ["--edition", "2024", "-O", "-g"];
    let guest =
        Guest { out: format!("{name}-rust"), source: format!("rust/{name}.rs"), flags: &flags };
    guest.by_rustc()
}

/// A guest that is to be there.
struct Guest<'a> {
    /// The program's name in the target folder.
    out: String,
    /// Its only source, under `tests/guests`.
    source: String,
    flags: &'a [&'a str],
}

impl Guest<'_> {
    fn by_cc(&self) -> PathBuf {
        // The source before the flags: libraries are searched for what came before them.
        self.compiled("cc", cc_version, |cc, source| {
            cc.arg(source).args(self.flags);
        })
    }

    fn by_rustc(&self) -> PathBuf {
        self.compiled("rustc", rustc_version, |rustc, source| {
            rustc.args(self.flags).arg(source);
        })
    }

    /// The program, which `compiler` has made, now or in an earlier run of the tests.
    fn compiled(
        &self,
        compiler: &str,
        version: fn() -> String,
        arguments: impl FnOnce(&mut Command, PathBuf),
    ) -> PathBuf {
        let program = folder("guests").join(&self.out);
        if is_prebuilt(&program) {
            return program;
        }
        // Once for all the tests of this process, of which several may want it at once.
        once(&self.out).get_or_init(|| {
            let source = guests().join(&self.source);
            let parts = format!("{}{:?}\n", version(), self.flags).into_bytes();
            let parts = [parts, fs::read(&source).unwrap()].concat();
            if !self.is_made_of(&parts, &program) {
                let mut command = Command::new(compiler);
                arguments(&mut command, source);
                self.make(command, &parts, &program);
            }
        });
        program
    }

    /// What the program was made of; not beside it, because what is there are guests.
    fn record(&self) -> PathBuf {
        folder("guests-made-of").join(&self.out)
    }

    /// Whether `program` is there and was made of these `parts`. If so, its time is now, as if it
    /// had been made again: `tests/hosts/amd-v` sees by it that guests are as new as the tests.
    fn is_made_of(&self, parts: &[u8], program: &Path) -> bool {
        fs::read(self.record()).is_ok_and(|made_of| made_of == parts)
            && File::open(program).is_ok_and(|file| file.set_modified(SystemTime::now()).is_ok())
    }

    /// Makes it anew. Whatever is at one of the two places is whole: both are renamed into place,
    /// because other processes may build the same guest; the record goes first and comes last.
    fn make(&self, mut command: Command, parts: &[u8], program: &Path) {
        let process = std::process::id();
        let unfinished = folder("guests").join(format!("{}.{process}", self.out));
        let done = command.arg("-o").arg(&unfinished).output();
        let done = done.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        let _ = fs::remove_file(self.record());
        fs::rename(&unfinished, program).unwrap();
        let unfinished = folder("guests-made-of").join(format!("{}.{process}", self.out));
        fs::write(&unfinished, parts).unwrap();
        fs::rename(&unfinished, self.record()).unwrap();
    }
}

/// Where what the tests of this process have built is remembered, by its name.
fn once(out: &str) -> Arc<OnceLock<()>> {
    static BUILT: Mutex<BTreeMap<String, Arc<OnceLock<()>>>> = Mutex::new(BTreeMap::new());
    Arc::clone(BUILT.lock().unwrap().entry(out.to_owned()).or_default())
}

/// Whether guests are not to be compiled (`DEJAVM_PREBUILT_GUESTS=1`), because this host has no
/// compiler: `program` is then as an earlier run of the tests built it.
fn is_prebuilt(program: &Path) -> bool {
    let prebuilt = std::env::var_os("DEJAVM_PREBUILT_GUESTS").is_some_and(|v| v == "1");
    assert!(
        !prebuilt || program.exists(),
        "{} is not built: run all the tests once where there is a compiler",
        program.display()
    );
    prebuilt
}

/// A folder of this name in the target folder.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Which C compiler it is, and which C library it links statically: a newer one of the same
/// compiler's has another time.
fn cc_version() -> String {
    static VERSION: OnceLock<String> = OnceLock::new();
    let version = || {
        let library = said("cc", &["-print-file-name=libc.a"]);
        let library = fs::metadata(library.trim_end()).and_then(|file| file.modified());
        format!("{}{}{library:?}\n", said("cc", &["--version"]), said("ld", &["--version"]))
    };
    VERSION.get_or_init(version).clone()
}

fn rustc_version() -> String {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| said("rustc", &["-vV"])).clone()
}

/// What a compiler says of itself.
fn said(compiler: &str, args: &[&str]) -> String {
    let out = Command::new(compiler).args(args).output();
    let out = out.unwrap_or_else(|error| panic!("a compiler named {compiler}: {error}"));
    String::from_utf8(out.stdout).unwrap()
}
