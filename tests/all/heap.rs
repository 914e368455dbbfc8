//! The heap whose blocks end at pages that fault: what a program does wrong with memory is a crash
//! where it happens, and a program that does nothing wrong does not notice.

use crate::invoke::{fuzz, path, run, seeds, text};
use crate::support::{build_c, installed, kvm, natively};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What `dejavm run --heap guard` reports of one run of `program`.
fn report(folder: &Path, program: &[&str], input: &[u8]) -> (Value, String, String) {
    let (file, report) = (folder.join("input"), folder.join("report"));
    fs::write(&file, input).unwrap();
    let args = ["run", "--heap", "guard", "--json", "--report", path(&report), "-i", path(&file)];
    let done = run(&[&args[..], &["--"], program].concat());
    let read = fs::read(&report).unwrap_or_else(|_| panic!("{}", text(&done.stderr)));
    (serde_json::from_slice(&read).unwrap(), text(&done.stdout), text(&done.stderr))
}

#[test]
fn misuse_of_the_heap_is_a_crash_that_is_named_after_who_did_it() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = build_c("heap", &[]);
    for (input, kind, place, told) in [
        ("o", "SIGSEGV-write", "overflow_by_one", ""),
        ("O", "SIGSEGV-write", "overflow_by_one", ""),
        ("r", "SIGSEGV-read", "read_beyond", ""),
        ("u", "SIGSEGV-read", "use_after_free", ""),
        ("U", "SIGSEGV-read", "use_after_free", ""),
        ("w", "SIGSEGV-write", "write_after_free", ""),
        ("a", "SIGSEGV-read", "use_after_realloc", ""),
        ("s", "SIGABRT", "overflow_slack", "write past the end of 0x"),
        ("b", "SIGABRT", "underflow", "write before the start of 0x"),
        ("d", "SIGABRT", "free_twice", "double free of 0x"),
        ("i", "SIGABRT", "free_inside", "free of what is no block"),
        ("f", "SIGABRT", "free_nothing", "free of what is no block"),
    ] {
        let (report, _, stderr) = report(folder.path(), &[path(&program)], input.as_bytes());
        let crash = &report["crash"];
        assert_eq!(crash["kind"], kind, "{input}: {report:#}");
        let top = crash["key"][0].as_str().unwrap();
        assert!(top.starts_with(&format!("{place}@heap")), "{input}: {report:#}");
        assert!(stderr.contains(told), "{input}: {stderr}");
    }
    // There is no telling who wrote it by then, but it is told.
    let (report, _, stderr) = report(folder.path(), &[path(&program)], b"e");
    assert_eq!(report["crash"]["kind"], "SIGABRT", "{report:#}");
    assert!(stderr.contains("a block of 13 bytes"), "{stderr}");
}

#[test]
fn a_heap_that_is_used_well_does_what_malloc_does() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = build_c("heap", &[]);
    let (report, stdout, stderr) = report(folder.path(), &[path(&program)], b"nice");
    assert_eq!((report["exit_code"].as_u64(), &*stdout), (Some(0), "used well\n"), "{stderr}");
}

#[test]
fn programs_of_the_system_do_under_it_what_they_do_natively() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let photo = fs::read(crate::support::guests().join("data/photo.jpg")).unwrap();
    let xml = b"<a b='1'><!-- c --><d>e</d>\n<d/></a>";
    let json = br#"{"a": [1, 2.5, "x"], "b": {"c": null}}"#;
    let elf = fs::read(build_c("heap", &[])).unwrap();
    let programs: [(&str, &str, &[&str], &[u8]); 5] = [
        ("/usr/bin/xmllint", "libxml2-utils", &["--format", "@@"], xml),
        ("/usr/bin/djpeg", "libjpeg-turbo-progs", &["-bmp", "@@"], &photo),
        ("/usr/bin/jq", "jq", &[".a[1], .b"], json),
        ("/usr/bin/readelf", "binutils", &["-a", "@@"], &elf),
        // In C++.
        ("/usr/bin/exiv2", "exiv2", &["pr", "@@"], &photo),
    ];
    for (program, package, args, input) in programs {
        let Some(_) = installed(program, package) else { continue };
        let native = natively(Path::new(program), args, input);
        let (report, stdout, stderr) = report(folder.path(), &[&[program], args].concat(), input);
        assert_eq!(report["exit_code"], native.status, "{program}: {stderr}\n{report:#}");
        let bytes: String = stdout.chars().filter(char::is_ascii).collect();
        let native: String = native.stdout.chars().filter(char::is_ascii).collect();
        assert_eq!(bytes, native, "{program}");
    }
}

#[test]
fn a_campaign_finds_what_only_the_heap_shows_and_repro_brings_it_back() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let program = build_c("heap", &[]);
    let options = "-s 1 -E 2000 --heap guard --verify-every 500";
    let done =
        fuzz(&seeds(folder.path(), b"x"), &out, options, &[path(&program)]).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let crashes: Vec<_> =
        fs::read_dir(out.join("crashes")).unwrap().map(|file| file.unwrap().path()).collect();
    let mut places = 0;
    for crash in crashes.iter().filter(|file| path(file).contains("sig:")) {
        let first = fs::read(crash).unwrap()[0];
        assert!(b"oOrseubUwdifa".contains(&first), "{crash:?}");
        let back = run(&["repro", path(crash)]);
        assert_eq!(back.status.code(), Some(0), "{}", text(&back.stdout));
        places += 1;
    }
    assert!(places >= 6, "{crashes:?}");
}

#[test]
fn a_program_that_cannot_have_the_heap_is_refused_by_why() {
    let folder = tempfile::tempdir().unwrap();
    let is_refused = |program: &Path, why: &str| {
        let done = run(&["run", "--heap", "guard", "--", path(program)]);
        let told = text(&done.stderr);
        assert_eq!(done.status.code(), Some(4), "{told}");
        assert!(told.contains(why), "{told}");
    };
    is_refused(&build_c("heap", &["-static"]), "dynamically linked");
    let other = folder.path().join("asan");
    fs::copy(build_c("heap", &[]), &other).unwrap();
    let mut bytes = fs::read(&other).unwrap();
    bytes.extend_from_slice(b"__asan_init");
    fs::write(&other, bytes).unwrap();
    is_refused(&other, "AddressSanitizer");
}
