//! A program finds what it looks for of the host's system, and nothing else of the host.

use crate::invoke::{self, path, text};
use crate::support::{guests, installed, kvm};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

/// What comes of `dejavm run OPTIONS -- PROGRAM`.
fn run(options: &[&str], program: &[&str]) -> Output {
    invoke::run(&[&["run"], options, &["--"], program].concat())
}

#[test]
fn a_program_has_the_system_files_it_looks_for_unless_they_are_left_out() {
    let Some(_) = kvm() else { return };
    let Some(_) = installed("/usr/bin/file", "file") else { return };
    let input = guests().join("data/gradient.png");
    let input = ["-i", input.to_str().unwrap()];
    let out = run(&input, &["/usr/bin/file", "@@"]);
    assert!(text(&out.stdout).contains("PNG image data, 24 x 16"), "{}", text(&out.stdout));
    assert!(text(&out.stderr).contains("files of the host's system: "), "{}", text(&out.stderr));
    let out = run(&[&input[..], &["--no-host-files"]].concat(), &["/usr/bin/file", "@@"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("could not find any valid magic files"));
}

#[test]
fn a_snapshot_has_them_too() {
    let Some(_) = kvm() else { return };
    let Some(_) = installed("/usr/bin/file", "file") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.dejavm");
    let out = invoke::run(&["snapshot", "-o", path(&file), "--", "/usr/bin/file", "@@"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let input = guests().join("data/gradient.png");
    let out = invoke::run(&["run", "--snapshot", path(&file), "-i", path(&input)]);
    assert!(text(&out.stdout).contains("PNG image data"), "{}", text(&out.stdout));
}

#[test]
fn a_program_has_nothing_else_of_the_host() {
    let Some(_) = kvm() else { return };
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"a secret").unwrap();
    let secret = secret.path().to_str().unwrap();
    for path in ["/etc/shadow", "/etc/machine-id", "/usr/../root/.profile", "/root", secret] {
        let out = run(&[], &["/bin/busybox", "cat", path]);
        let told = text(&out.stderr);
        assert_eq!((out.status.code(), text(&out.stdout)), (Some(1), String::new()), "{path}");
        assert!(told.contains("No such file or directory"), "{path}: {told}");
    }
    let out = run(&[], &["/bin/busybox", "cat", "/etc/passwd"]);
    assert!(text(&out.stdout).contains("guest:x:1000"), "its own users");
    // An argument that is a file may have been meant to be there.
    let out = run(&[], &["/bin/busybox", "cat", secret]);
    let hint = format!("not in the guest: {secret}; --file {secret} adds it");
    assert!(text(&out.stderr).contains(&hint), "{}", text(&out.stderr));
}

#[test]
fn a_folder_comes_in_with_its_links() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    std::fs::write(folder.path().join("a/text"), "here").unwrap();
    std::os::unix::fs::symlink("a/text", folder.path().join("link")).unwrap();
    let mapping = format!("{}:/data", folder.path().display());
    let out = run(&["--dir", &mapping], &["/bin/busybox", "cat", "/data/link"]);
    assert_eq!(text(&out.stdout), "here", "{}", text(&out.stderr));
    let out = run(&["--dir", &mapping], &["/bin/busybox", "readlink", "/data/link"]);
    assert_eq!(text(&out.stdout), "a/text\n");
    let out = run(&["--dir", &mapping], &["/bin/busybox", "rm", "/data/a/text"]);
    assert_eq!(out.status.code(), Some(1), "the host's files are read-only");
}

#[test]
fn a_script_is_run_by_its_interpreter() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/busybox sh\necho \"$1 from $0\"\nexit 3\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    let out = run(&[], &[script, "hello"]);
    assert_eq!(text(&out.stdout), format!("hello from {script}\n"), "{}", text(&out.stderr));
    assert_eq!(out.status.code(), Some(3));
}

#[test]
fn the_trace_goes_where_it_is_asked_to_go() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    let busybox = ["/bin/busybox", "cat", "/etc/hostname"];
    let option = format!("--strace={}", file.display());
    let out = run(&["-q", &option], &busybox);
    assert_eq!((text(&out.stdout), text(&out.stderr)), ("dejavm\n".into(), String::new()));
    let trace = std::fs::read_to_string(file).unwrap();
    assert!(trace.starts_with("execve(\"/bin/busybox\", [\"/bin/busybox\", \"cat\""), "{trace}");
    assert!(trace.ends_with("+++ exited with 0 +++\n"), "{trace}");
    assert_eq!(text(&run(&["-q", "--strace"], &busybox).stderr), trace);
}
