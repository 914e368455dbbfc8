//! Unmodified programs behave in a guest as they do natively: a table, one line per case.
//!
//! The programs are Debian's, and a few of the test-suite's own. Each gets good, broken and empty
//! inputs; standard output, standard error and the exit status must be those of a native run with
//! the same arguments and environment.

use crate::support::{
    End, Guest, build_c, build_rust, guests, installed, is_slow_host, kvm, natively,
    outcome_in_guest, spec,
};
use dejavm_engine::outcome::{Outcome, Unsupported};
use std::path::PathBuf;

/// A program, how it is called, and its inputs.
struct Case {
    program: Program,
    args: &'static [&'static str],
    inputs: &'static [Input],
}

const fn case(program: Program, args: &'static [&'static str], inputs: &'static [Input]) -> Case {
    Case { program, args, inputs }
}

/// Where a program is from.
#[derive(Clone, Copy)]
enum Program {
    /// The test-suite builds it.
    Built(fn() -> PathBuf),
    /// A path, and the Debian package that has it.
    Debian(&'static str, &'static str),
    /// As `Debian`, with so many files that a slow host is spared them.
    Large(&'static str, &'static str),
}

/// Something to read.
#[derive(Clone, Copy, Debug)]
enum Input {
    Bytes(&'static [u8]),
    /// A file under `tests/guests/data`.
    File(&'static str),
    /// Its first half only.
    HalfOf(&'static str),
}

/// A good file, a broken one, and an empty one.
const fn parts(name: &'static str) -> [Input; 3] {
    [File(name), HalfOf(name), EMPTY]
}

use Input::{Bytes, File, HalfOf};
use Program::{Built, Debian, Large};

const EMPTY: Input = Bytes(b"");
const XML: Input = Bytes(b"<?xml version='1.0'?>\n<a x='1'><b>text &amp; more</b><c/></a>\n");
const BROKEN_XML: Input = Bytes(b"<a><b>text</a>\n");
const JSON: Input = Bytes(b"{\"a\": [1, 2.5, {\"b\": null}], \"c\": \"\\u00e4\"}\n");
const BROKEN_JSON: Input = Bytes(b"{\"a\": [1, 2\n");
const TEXT: Input = File("notes.txt");
const JPEG: &[Input] = &[File("photo.jpg"), HalfOf("photo.jpg"), XML];
const PNG: &[Input] = &parts("gradient.png");
const TIFF: &[Input] = &parts("gradient.tiff");
const ZIP: &[Input] = &parts("notes.zip");
const TAR: &[Input] = &parts("notes.tar.gz");
const DER: &[Input] = &parts("root.der");
const OBJECT: &[Input] = &parts("small.o");
const TEXTS: &[Input] = &[TEXT, Bytes(b"\xff\xfe\0no text\n\n"), EMPTY];

const PERL: Program = Large("/usr/bin/perl", "perl");
/// A script, which its first argument names.
const EXIFTOOL: Program = Large("/usr/bin/perl", "libimage-exiftool-perl");
const PYTHON: Program = Large("/usr/bin/python3", "python3");
const BINUTILS: &str = "binutils";

const CASES: &[Case] = &[
    case(XMLLINT, &["--noout", "@@"], &[XML, BROKEN_XML, EMPTY]),
    case(XMLLINT, &["--format", "@@"], &[XML, BROKEN_XML]),
    case(XMLLINT, &["--format", "-"], &[XML, BROKEN_XML]),
    case(DJPEG, &["@@"], JPEG),
    case(DJPEG, &["-bmp"], JPEG),
    case(CJPEG, &["-quality", "60"], &[File("gradient.ppm"), XML, EMPTY]),
    case(Debian("/usr/bin/tiffinfo", "libtiff-tools"), &["-D", "@@"], TIFF),
    case(Debian("/usr/bin/tiff2pdf", "libtiff-tools"), &["-d", "@@"], TIFF),
    case(Debian("/usr/bin/pngcheck", "pngcheck"), &["-v", "@@"], PNG),
    case(Debian("/usr/bin/webpinfo", "webp"), &["@@"], PNG),
    case(FILE, &["@@"], &[File("gradient.png"), File("small.o"), TEXT, EMPTY]),
    case(FILE, &["--mime", "-"], &[File("notes.zip"), XML, EMPTY]),
    case(Debian("/usr/bin/gzip", "gzip"), &["-dc"], &parts("notes.txt.gz")),
    case(Debian("/usr/bin/bzip2", "bzip2"), &["-dc"], &parts("notes.txt.bz2")),
    case(Debian("/usr/bin/xz", "xz-utils"), &["-dc", "-T1"], &parts("notes.txt.xz")),
    // Threads for every block.
    case(Debian("/usr/bin/xz", "xz-utils"), &["-zc", "-T4", "--block-size=500"], TEXTS),
    case(ZSTD, &["-dc"], &parts("notes.txt.zst")),
    case(ZSTD, &["-c", "-T4"], TEXTS),
    case(Debian("/usr/bin/unzip", "unzip"), &["-t", "@@"], ZIP),
    case(Debian("/usr/bin/unzip", "unzip"), &["-p", "@@"], ZIP),
    case(Debian("/usr/bin/bsdtar", "libarchive-tools"), &["-tf", "@@"], TAR),
    case(Debian("/usr/bin/bsdtar", "libarchive-tools"), &["-xOf", "-"], ZIP),
    case(Debian("/usr/lib/p7zip/7z", "p7zip-full"), &["t", "-bso0", "@@"], &parts("notes.7z")),
    case(OPENSSL, &["asn1parse", "-inform", "DER", "-in", "@@"], DER),
    case(OPENSSL, &["x509", "-inform", "DER", "-noout", "-text"], DER),
    case(Debian("/usr/bin/readelf", BINUTILS), &["-a", "@@"], OBJECT),
    case(Debian("/usr/bin/objdump", BINUTILS), &["-dr", "@@"], OBJECT),
    case(NM, &["@@"], &[File("small.o"), EMPTY]),
    case(Debian("/usr/bin/strings", BINUTILS), &["-t", "x", "@@"], OBJECT),
    case(
        Debian("/usr/bin/c++filt", BINUTILS),
        &[],
        &[Bytes(b"_ZN3foo3barEiPKc\n_Znonsense\n"), EMPTY],
    ),
    case(Debian("/usr/bin/jq", "jq"), &[".", "@@"], &[JSON, BROKEN_JSON, EMPTY]),
    case(Debian("/usr/bin/jq", "jq"), &["-r", ".a[1], .c"], &[JSON, BROKEN_JSON, EMPTY]),
    case(SQLITE, &["@@", "select count(*), max(name) from t"], &parts("table.sqlite")),
    case(
        SQLITE,
        &[":memory:"],
        &[
            Bytes(b"create table t(a);\ninsert into t values(1),(2);\nselect sum(a) from t;\n"),
            Bytes(b"select;\n"),
            EMPTY,
        ],
    ),
    case(
        PYTHON,
        &["-c", "import json,sys; print(sorted(json.load(sys.stdin)))"],
        &[JSON, BROKEN_JSON, EMPTY],
    ),
    case(
        PYTHON,
        &["-c", "import zipfile,sys; print(zipfile.ZipFile(sys.argv[1]).namelist())", "@@"],
        ZIP,
    ),
    case(PYTHON, &["-c", THREADS_AND_SIGNALS], TEXTS),
    case(
        PERL,
        &[
            "-MJSON::PP",
            "-e",
            "print JSON::PP->new->canonical->encode(decode_json(join '', <STDIN>)), qq(\\n)",
        ],
        &[JSON, BROKEN_JSON, EMPTY],
    ),
    case(PERL, &["-ne", "print scalar reverse", "@@"], TEXTS),
    case(
        Debian("/usr/bin/lua5.4", "lua5.4"),
        &["-e", "for l in io.lines() do print(#l, l:upper()) end"],
        TEXTS,
    ),
    case(Debian("/usr/bin/gawk", "gawk"), &["{ n += NF } END { print NR, n }", "@@"], TEXTS),
    case(Debian("/usr/bin/mawk", "mawk"), &["{ print $NF }"], TEXTS),
    case(EXIFTOOL, &["/usr/bin/exiftool", "-ImageSize", "-FileType", "-"], JPEG),
    case(Debian("/usr/bin/exiv2", "exiv2"), &["-pS", "@@"], JPEG),
    case(
        Large("/usr/bin/ffprobe", "ffmpeg"),
        &["-hide_banner", "-show_streams", "@@"],
        &[File("tone.wav"), HalfOf("photo.jpg"), EMPTY],
    ),
    case(Debian("/usr/bin/pdftotext", "poppler-utils"), &["@@", "-"], PDF),
    case(Debian("/usr/bin/pdfinfo", "poppler-utils"), &["-"], PDF),
    case(Debian("/usr/bin/tcpdump", "tcpdump"), &["-ntvr", "@@"], &parts("packets.pcap")),
    case(
        Debian("/usr/bin/bc", "bc"),
        &["-l"],
        &[Bytes(b"scale=30\n4*a(1)\n2^200\n"), Bytes(b"1/0\n)(\n"), EMPTY],
    ),
    case(
        Debian("/usr/bin/m4", "m4"),
        &["@@"],
        &[Bytes(b"define(`x', `<$1>')dnl\nx(1) x(`two')\n"), Bytes(b"define(`x', x(\n"), EMPTY],
    ),
    case(Debian("/usr/bin/sed", "sed"), &["-n", "s/[0-9]\\+/<&>/gp", "@@"], TEXTS),
    case(Debian("/usr/bin/sort", "coreutils"), &["-r", "@@"], TEXTS),
    case(Debian("/usr/bin/md5sum", "coreutils"), &[], TEXTS),
    case(Debian("/usr/bin/od", "coreutils"), &["-An", "-tx1z"], TEXTS),
    case(Debian("/usr/bin/grep", "grep"), &["-cE", "1+", "@@"], TEXTS),
    case(BUSYBOX, &["sha256sum", "@@"], &[File("photo.jpg"), XML]),
    case(BUSYBOX, &["gzip", "-c"], &[File("photo.jpg"), XML]),
    case(BUSYBOX, &["gunzip", "-c"], &[XML]),
    case(BUSYBOX, &["wc"], &[File("photo.jpg"), XML]),
    case(Built(c_dynamic), &[], &[XML, EMPTY]),
    case(Built(c_static), &[], &[XML, EMPTY]),
    case(Built(c_static_pie), &[], &[XML, EMPTY]),
    case(Built(rust), &["@@"], &[XML, File("root.der")]),
    case(Built(rust), &["@@"], &[HalfOf("root.der")]),
];

const ZSTD: Program = Debian("/usr/bin/zstd", "zstd");
/// A damaged object it hands to plugins in the order of their folder, which is the file system's.
const NM: Program = Debian("/usr/bin/nm", BINUTILS);
const XMLLINT: Program = Debian("/usr/bin/xmllint", "libxml2-utils");
const DJPEG: Program = Debian("/usr/bin/djpeg", "libjpeg-turbo-progs");
const CJPEG: Program = Debian("/usr/bin/cjpeg", "libjpeg-turbo-progs");
const FILE: Program = Debian("/usr/bin/file", "file");
const OPENSSL: Program = Debian("/usr/bin/openssl", "openssl");
const SQLITE: Program = Debian("/usr/bin/sqlite3", "sqlite3");
const BUSYBOX: Program = Debian("/bin/busybox", "busybox-static");
const PDF: &[Input] = &parts("page.pdf");

/// A Python script with a pool of threads, an alarm and an interrupt.
const THREADS_AND_SIGNALS: &str = "
import os, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    print(list(pool.map(len, sys.stdin)))
signal.signal(signal.SIGINT, signal.default_int_handler) # which may be ignored natively
signal.signal(signal.SIGALRM, lambda *_: print('alarm'))
signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.03)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
except KeyboardInterrupt:
    print('interrupted')
";

/// Programs that do not run yet, and what they need: the test sees to it that the reason is true.
const UNSUPPORTED: &[(Case, &str)] = &[
    // Each of its passes over the output is a process of its own.
    (
        case(
            Debian("/usr/bin/flex", "flex"),
            &["-t", "@@"],
            &[Bytes(b"%%\n[a-z]+ return 1;\n"), Bytes(b"%%\n[a-z return 1;\n"), EMPTY],
        ),
        "clone",
    ),
];

fn c_dynamic() -> PathBuf {
    build_c("words", &["-fPIE", "-pie"])
}

fn c_static() -> PathBuf {
    build_c("words", &["-static", "-no-pie"])
}

fn c_static_pie() -> PathBuf {
    build_c("words", &["-static-pie"])
}

/// A Rust std program: the test-suite's own.
fn rust() -> PathBuf {
    build_rust("digest")
}

impl Program {
    /// Its path, unless this host is to go without it.
    fn path(self) -> Option<PathBuf> {
        match self {
            Self::Built(build) => Some(build()),
            Self::Debian(path, package) => installed(path, package),
            Self::Large(path, _) if is_slow_host() => {
                eprintln!("skipped: {path} is too large for a slow host");
                None
            }
            Self::Large(path, package) => installed(path, package),
        }
    }
}

/// All of `inputs`; on a slow host the first one.
fn some(inputs: &'static [Input]) -> &'static [Input] {
    if is_slow_host() { &inputs[..1] } else { inputs }
}

impl Input {
    fn bytes(self) -> Vec<u8> {
        let file = |name| std::fs::read(guests().join("data").join(name)).unwrap();
        match self {
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::File(name) => file(name),
            Self::HalfOf(name) => {
                let mut bytes = file(name);
                bytes.truncate(bytes.len() / 2);
                bytes
            }
        }
    }
}

/// What differs between any two runs of a program: what follows or precedes one of these.
const VARYING: [(&str, bool); 3] = [
    // The time, in a PDF file.
    ("Date (D:", true),
    // An address, before a message of FFmpeg.
    (" @ 0x", true),
    // The number of a thread, before an error of OpenSSL.
    (":error:", false),
];

fn masked(end: &End) -> End {
    let mask = |text: &String| {
        let mut text = text.clone();
        for (mark, follows) in VARYING {
            text = mask_beside(&text, mark, follows);
        }
        text
    };
    End { status: end.status, stdout: mask(&end.stdout), stderr: mask(&end.stderr) }
}

/// `text` without the letters and digits right behind `mark`, or right before it.
fn mask_beside(text: &str, mark: &str, follows: bool) -> String {
    let is_varying = |c: char| c.is_ascii_alphanumeric();
    let mut parts: Vec<&str> = text.split(mark).collect();
    let last = parts.len() - 1;
    for (i, part) in parts.iter_mut().enumerate() {
        if follows && i > 0 {
            *part = part.trim_start_matches(is_varying);
        } else if !follows && i < last {
            *part = part.trim_end_matches(is_varying);
        }
    }
    parts.join(mark)
}

#[test]
fn ordinary_programs_behave_as_they_do_natively() {
    let Some(system) = kvm() else { return };
    if is_slow_host() {
        eprintln!("a slow host: only the first input of each case");
    }
    let mut differences = Vec::new();
    for case in CASES {
        let Some(program) = case.program.path() else { continue };
        let mut spec = spec(&program, case.args);
        let mut guest = Guest::new(&system, &mut spec);
        for &input in some(case.inputs) {
            let bytes = input.bytes();
            let guest = guest.run(&bytes);
            let native = natively(&program, case.args, &bytes);
            if masked(&guest) != masked(&native) {
                let what = format!("{} {:?} on {input:?}", program.display(), case.args);
                differences.push(format!("{what}:\n  guest  {guest:?}\n  native {native:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_does_not_run_yet_does_not_for_the_reason_given() {
    let Some(system) = kvm() else { return };
    for (case, reason) in UNSUPPORTED {
        let Some(program) = case.program.path() else { continue };
        let mut spec = spec(&program, case.args);
        for &input in some(case.inputs) {
            let outcome = outcome_in_guest(&system, &mut spec, &input.bytes());
            let Outcome::Unsupported(Unsupported::SystemCall { name }) = &outcome else {
                panic!("{} runs now, or fails otherwise: {outcome}", program.display())
            };
            assert_eq!(name, reason, "{}", program.display());
        }
    }
}
