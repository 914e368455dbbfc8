//! Unmodified programs behave in a guest as they do natively: a table, one line per case.
//!
//! The programs are Debian's, and a few of the test-suite's own. Each gets good, broken and empty
//! inputs; standard output, standard error and the exit status must be those of a native run with
//! the same arguments and environment.

use crate::support::{
    End, build_c, build_rust, guests, in_guest, installed, is_slow_host, kvm, natively,
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

use Input::{Bytes, File, HalfOf};
use Program::{Built, Debian, Large};

const EMPTY: Input = Bytes(b"");
const XML: Input = Bytes(b"<?xml version='1.0'?>\n<a x='1'><b>text &amp; more</b><c/></a>\n");
const BROKEN_XML: Input = Bytes(b"<a><b>text</a>\n");
const JSON: Input = Bytes(b"{\"a\": [1, 2.5, {\"b\": null}], \"c\": \"\\u00e4\"}\n");
const BROKEN_JSON: Input = Bytes(b"{\"a\": [1, 2\n");
const TEXT: Input = File("notes.txt");
const JPEG: &[Input] = &[File("photo.jpg"), HalfOf("photo.jpg"), XML];
const PNG: &[Input] = &[File("gradient.png"), HalfOf("gradient.png"), EMPTY];
const TIFF: &[Input] = &[File("gradient.tiff"), HalfOf("gradient.tiff"), EMPTY];
const ZIP: &[Input] = &[File("notes.zip"), HalfOf("notes.zip"), EMPTY];
const TAR: &[Input] = &[File("notes.tar.gz"), HalfOf("notes.tar.gz"), EMPTY];
const DER: &[Input] = &[File("root.der"), HalfOf("root.der"), EMPTY];
const OBJECT: &[Input] = &[File("small.o"), HalfOf("small.o"), EMPTY];
const TEXTS: &[Input] = &[TEXT, Bytes(b"\xff\xfe\0no text\n\n"), EMPTY];

const PERL: Program = Large("/usr/bin/perl", "perl");
/// A script, which its first argument names.
const EXIFTOOL: Program = Large("/usr/bin/perl", "libimage-exiftool-perl");
const PYTHON: Program = Large("/usr/bin/python3", "python3");
const BINUTILS: &str = "binutils";

const CASES: &[Case] = &[
    Case { program: XMLLINT, args: &["--noout", "@@"], inputs: &[XML, BROKEN_XML, EMPTY] },
    Case { program: XMLLINT, args: &["--format", "@@"], inputs: &[XML, BROKEN_XML] },
    Case { program: XMLLINT, args: &["--format", "-"], inputs: &[XML, BROKEN_XML] },
    Case { program: DJPEG, args: &["@@"], inputs: JPEG },
    Case { program: DJPEG, args: &["-bmp"], inputs: JPEG },
    Case { program: CJPEG, args: &["-quality", "60"], inputs: &[File("gradient.ppm"), XML, EMPTY] },
    Case {
        program: Debian("/usr/bin/tiffinfo", "libtiff-tools"),
        args: &["-D", "@@"],
        inputs: TIFF,
    },
    Case {
        program: Debian("/usr/bin/tiff2pdf", "libtiff-tools"),
        args: &["-d", "@@"],
        inputs: TIFF,
    },
    Case { program: Debian("/usr/bin/pngcheck", "pngcheck"), args: &["-v", "@@"], inputs: PNG },
    Case { program: Debian("/usr/bin/webpinfo", "webp"), args: &["@@"], inputs: PNG },
    Case {
        program: FILE,
        args: &["@@"],
        inputs: &[File("gradient.png"), File("small.o"), TEXT, EMPTY],
    },
    Case { program: FILE, args: &["--mime", "-"], inputs: &[File("notes.zip"), XML, EMPTY] },
    Case {
        program: Debian("/usr/bin/gzip", "gzip"),
        args: &["-dc"],
        inputs: &[File("notes.txt.gz"), HalfOf("notes.txt.gz"), EMPTY],
    },
    Case {
        program: Debian("/usr/bin/bzip2", "bzip2"),
        args: &["-dc"],
        inputs: &[File("notes.txt.bz2"), HalfOf("notes.txt.bz2"), EMPTY],
    },
    Case {
        program: Debian("/usr/bin/xz", "xz-utils"),
        args: &["-dc", "-T1"],
        inputs: &[File("notes.txt.xz"), HalfOf("notes.txt.xz"), EMPTY],
    },
    // Threads for every block.
    Case {
        program: Debian("/usr/bin/xz", "xz-utils"),
        args: &["-zc", "-T4", "--block-size=500"],
        inputs: TEXTS,
    },
    Case {
        program: ZSTD,
        args: &["-dc"],
        inputs: &[File("notes.txt.zst"), HalfOf("notes.txt.zst"), EMPTY],
    },
    Case { program: ZSTD, args: &["-c", "-T4"], inputs: TEXTS },
    Case { program: Debian("/usr/bin/unzip", "unzip"), args: &["-t", "@@"], inputs: ZIP },
    Case { program: Debian("/usr/bin/unzip", "unzip"), args: &["-p", "@@"], inputs: ZIP },
    Case {
        program: Debian("/usr/bin/bsdtar", "libarchive-tools"),
        args: &["-tf", "@@"],
        inputs: TAR,
    },
    Case {
        program: Debian("/usr/bin/bsdtar", "libarchive-tools"),
        args: &["-xOf", "-"],
        inputs: ZIP,
    },
    Case {
        program: Debian("/usr/lib/p7zip/7z", "p7zip-full"),
        args: &["t", "-bso0", "@@"],
        inputs: &[File("notes.7z"), HalfOf("notes.7z"), EMPTY],
    },
    Case { program: OPENSSL, args: &["asn1parse", "-inform", "DER", "-in", "@@"], inputs: DER },
    Case { program: OPENSSL, args: &["x509", "-inform", "DER", "-noout", "-text"], inputs: DER },
    Case { program: Debian("/usr/bin/readelf", BINUTILS), args: &["-a", "@@"], inputs: OBJECT },
    Case { program: Debian("/usr/bin/objdump", BINUTILS), args: &["-dr", "@@"], inputs: OBJECT },
    Case { program: NM, args: &["@@"], inputs: &[File("small.o"), EMPTY] },
    Case {
        program: Debian("/usr/bin/strings", BINUTILS),
        args: &["-t", "x", "@@"],
        inputs: OBJECT,
    },
    Case {
        program: Debian("/usr/bin/c++filt", BINUTILS),
        args: &[],
        inputs: &[Bytes(b"_ZN3foo3barEiPKc\n_Znonsense\n"), EMPTY],
    },
    Case {
        program: Debian("/usr/bin/jq", "jq"),
        args: &[".", "@@"],
        inputs: &[JSON, BROKEN_JSON, EMPTY],
    },
    Case {
        program: Debian("/usr/bin/jq", "jq"),
        args: &["-r", ".a[1], .c"],
        inputs: &[JSON, BROKEN_JSON, EMPTY],
    },
    Case {
        program: SQLITE,
        args: &["@@", "select count(*), max(name) from t"],
        inputs: &[File("table.sqlite"), HalfOf("table.sqlite"), EMPTY],
    },
    Case {
        program: SQLITE,
        args: &[":memory:"],
        inputs: &[
            Bytes(b"create table t(a);\ninsert into t values(1),(2);\nselect sum(a) from t;\n"),
            Bytes(b"select;\n"),
            EMPTY,
        ],
    },
    Case {
        program: PYTHON,
        args: &["-c", "import json,sys; print(sorted(json.load(sys.stdin)))"],
        inputs: &[JSON, BROKEN_JSON, EMPTY],
    },
    Case {
        program: PYTHON,
        args: &["-c", "import zipfile,sys; print(zipfile.ZipFile(sys.argv[1]).namelist())", "@@"],
        inputs: ZIP,
    },
    Case { program: PYTHON, args: &["-c", THREADS_AND_SIGNALS], inputs: TEXTS },
    Case {
        program: PERL,
        args: &[
            "-MJSON::PP",
            "-e",
            "print JSON::PP->new->canonical->encode(decode_json(join '', <STDIN>)), qq(\\n)",
        ],
        inputs: &[JSON, BROKEN_JSON, EMPTY],
    },
    Case { program: PERL, args: &["-ne", "print scalar reverse", "@@"], inputs: TEXTS },
    Case {
        program: Debian("/usr/bin/lua5.4", "lua5.4"),
        args: &["-e", "for l in io.lines() do print(#l, l:upper()) end"],
        inputs: TEXTS,
    },
    Case {
        program: Debian("/usr/bin/gawk", "gawk"),
        args: &["{ n += NF } END { print NR, n }", "@@"],
        inputs: TEXTS,
    },
    Case { program: Debian("/usr/bin/mawk", "mawk"), args: &["{ print $NF }"], inputs: TEXTS },
    Case {
        program: EXIFTOOL,
        args: &["/usr/bin/exiftool", "-ImageSize", "-FileType", "-"],
        inputs: JPEG,
    },
    Case { program: Debian("/usr/bin/exiv2", "exiv2"), args: &["-pS", "@@"], inputs: JPEG },
    Case {
        program: Large("/usr/bin/ffprobe", "ffmpeg"),
        args: &["-hide_banner", "-show_streams", "@@"],
        inputs: &[File("tone.wav"), HalfOf("photo.jpg"), EMPTY],
    },
    Case {
        program: Debian("/usr/bin/pdftotext", "poppler-utils"),
        args: &["@@", "-"],
        inputs: PDF,
    },
    Case { program: Debian("/usr/bin/pdfinfo", "poppler-utils"), args: &["-"], inputs: PDF },
    Case {
        program: Debian("/usr/bin/tcpdump", "tcpdump"),
        args: &["-ntvr", "@@"],
        inputs: &[File("packets.pcap"), HalfOf("packets.pcap"), EMPTY],
    },
    Case {
        program: Debian("/usr/bin/bc", "bc"),
        args: &["-l"],
        inputs: &[Bytes(b"scale=30\n4*a(1)\n2^200\n"), Bytes(b"1/0\n)(\n"), EMPTY],
    },
    Case {
        program: Debian("/usr/bin/m4", "m4"),
        args: &["@@"],
        inputs: &[
            Bytes(b"define(`x', `<$1>')dnl\nx(1) x(`two')\n"),
            Bytes(b"define(`x', x(\n"),
            EMPTY,
        ],
    },
    Case {
        program: Debian("/usr/bin/sed", "sed"),
        args: &["-n", "s/[0-9]\\+/<&>/gp", "@@"],
        inputs: TEXTS,
    },
    Case { program: Debian("/usr/bin/sort", "coreutils"), args: &["-r", "@@"], inputs: TEXTS },
    Case { program: Debian("/usr/bin/md5sum", "coreutils"), args: &[], inputs: TEXTS },
    Case { program: Debian("/usr/bin/od", "coreutils"), args: &["-An", "-tx1z"], inputs: TEXTS },
    Case { program: Debian("/usr/bin/grep", "grep"), args: &["-cE", "1+", "@@"], inputs: TEXTS },
    Case { program: BUSYBOX, args: &["sha256sum", "@@"], inputs: &[File("photo.jpg"), XML] },
    Case { program: BUSYBOX, args: &["gzip", "-c"], inputs: &[File("photo.jpg"), XML] },
    Case { program: BUSYBOX, args: &["gunzip", "-c"], inputs: &[XML] },
    Case { program: BUSYBOX, args: &["wc"], inputs: &[File("photo.jpg"), XML] },
    Case { program: Built(c_dynamic), args: &[], inputs: &[XML, EMPTY] },
    Case { program: Built(c_static), args: &[], inputs: &[XML, EMPTY] },
    Case { program: Built(c_static_pie), args: &[], inputs: &[XML, EMPTY] },
    Case { program: Built(rust), args: &["@@"], inputs: &[XML, File("root.der")] },
    Case { program: Built(rust), args: &["@@"], inputs: &[HalfOf("root.der")] },
];

/// A damaged object it hands to plugins in the order of their folder, which is the file system's.
const ZSTD: Program = Debian("/usr/bin/zstd", "zstd");
const NM: Program = Debian("/usr/bin/nm", BINUTILS);
const XMLLINT: Program = Debian("/usr/bin/xmllint", "libxml2-utils");
const DJPEG: Program = Debian("/usr/bin/djpeg", "libjpeg-turbo-progs");
const CJPEG: Program = Debian("/usr/bin/cjpeg", "libjpeg-turbo-progs");
const FILE: Program = Debian("/usr/bin/file", "file");
const OPENSSL: Program = Debian("/usr/bin/openssl", "openssl");
const SQLITE: Program = Debian("/usr/bin/sqlite3", "sqlite3");
const BUSYBOX: Program = Debian("/bin/busybox", "busybox-static");
const PDF: &[Input] = &[File("page.pdf"), HalfOf("page.pdf"), EMPTY];

/// A Python script with a pool of threads, an alarm and an interrupt.
const THREADS_AND_SIGNALS: &str = "
import os, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    print(list(pool.map(len, sys.stdin)))
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
        Case {
            program: Debian("/usr/bin/flex", "flex"),
            args: &["-t", "@@"],
            inputs: &[Bytes(b"%%\n[a-z]+ return 1;\n"), Bytes(b"%%\n[a-z return 1;\n"), EMPTY],
        },
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
        for &input in some(case.inputs) {
            let bytes = input.bytes();
            let guest = in_guest(&system, &mut spec, &bytes);
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
