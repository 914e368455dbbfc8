//! Unmodified programs behave in a guest as they do natively: a table, one line per case.

use crate::support::{build_c, guests, in_guest, installed, kvm, natively, spec};
use std::path::PathBuf;

/// A program, how it is called, and its inputs.
struct Case {
    program: fn() -> Option<PathBuf>,
    args: &'static [&'static str],
    inputs: &'static [Input],
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

const XML: Input =
    Input::Bytes(b"<?xml version='1.0'?>\n<a x='1'><b>text &amp; more</b><c/></a>\n");
const BROKEN_XML: Input = Input::Bytes(b"<a><b>text</a>\n");
const LARGE: Input = Input::File("photo.jpg");
const JPEG: &[Input] = &[Input::File("photo.jpg"), Input::HalfOf("photo.jpg"), XML];

const CASES: &[Case] = &[
    Case { program: xmllint, args: &["--noout", "@@"], inputs: &[XML, BROKEN_XML] },
    Case { program: xmllint, args: &["--format", "@@"], inputs: &[XML, BROKEN_XML] },
    Case { program: xmllint, args: &["--format", "-"], inputs: &[XML, BROKEN_XML] },
    Case { program: djpeg, args: &["@@"], inputs: JPEG },
    Case { program: djpeg, args: &["-bmp"], inputs: JPEG },
    Case { program: busybox, args: &["sha256sum", "@@"], inputs: &[LARGE, XML] },
    Case { program: busybox, args: &["gzip", "-c"], inputs: &[LARGE, XML] },
    Case { program: busybox, args: &["gunzip", "-c"], inputs: &[XML] },
    Case { program: busybox, args: &["wc"], inputs: &[LARGE, XML] },
    Case { program: c_dynamic, args: &[], inputs: &[XML, Input::Bytes(b"")] },
    Case { program: c_static, args: &[], inputs: &[XML, Input::Bytes(b"")] },
    Case { program: c_static_pie, args: &[], inputs: &[XML, Input::Bytes(b"")] },
    Case { program: rust, args: &["@@"], inputs: &[XML, Input::File("root.der")] },
    Case { program: rust, args: &["@@"], inputs: &[Input::HalfOf("root.der")] },
];

fn xmllint() -> Option<PathBuf> {
    installed("/usr/bin/xmllint", "libxml2-utils")
}

fn djpeg() -> Option<PathBuf> {
    installed("/usr/bin/djpeg", "libjpeg-turbo-progs")
}

fn busybox() -> Option<PathBuf> {
    installed("/bin/busybox", "busybox-static")
}

fn c_dynamic() -> Option<PathBuf> {
    Some(build_c("words", &["-fPIE", "-pie"]))
}

fn c_static() -> Option<PathBuf> {
    Some(build_c("words", &["-static", "-no-pie"]))
}

fn c_static_pie() -> Option<PathBuf> {
    Some(build_c("words", &["-static-pie"]))
}

/// A Rust std program: the test-suite's own.
fn rust() -> Option<PathBuf> {
    Some(crate::support::build_rust("digest"))
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

#[test]
fn ordinary_programs_behave_as_they_do_natively() {
    let Some(system) = kvm() else { return };
    for case in CASES {
        let Some(program) = (case.program)() else { continue };
        for &input in case.inputs {
            let bytes = input.bytes();
            let guest = in_guest(&system, &spec(&program, case.args), &bytes);
            let native = natively(&program, case.args, &bytes);
            assert_eq!(guest, native, "{} {:?} on {input:?}", program.display(), case.args);
        }
    }
}
