//! Each stage, tried in a process of its own: this test binary, started anew for one test.

use super::{Landlock, Sandbox, SandboxError, SandboxStage};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, net, process, thread};

/// Names the folder that the process of a test may write.
const OUT: &str = "DEJAVM_TEST_SANDBOX_OUT";

/// Runs `deeds` in a process of its own, which has `out` for a folder; `None` in that process,
/// once it has done them.
fn in_a_process(name: &str, deeds: fn(&Path)) -> Option<Output> {
    if let Some(out) = std::env::var_os(OUT) {
        deeds(&PathBuf::from(out));
        println!("all done");
        // The harness would go on to start threads and wait for them.
        process::exit(0);
    }
    let out = tempfile::tempdir().unwrap();
    let mut test = Command::new(std::env::current_exe().unwrap());
    let name = format!("sandbox::tests::{name}");
    let done = test.args(["--exact", &name, "--nocapture"]).env(OUT, out.path()).output().unwrap();
    Some(done)
}

fn text(out: &Output) -> String {
    format!(
        "{:?}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

fn passed(name: &str, deeds: fn(&Path)) {
    let Some(done) = in_a_process(name, deeds) else { return };
    assert!(done.status.success() && text(&done).contains("all done"), "{}", text(&done));
}

fn killed(name: &str, deeds: fn(&Path)) {
    let Some(done) = in_a_process(name, deeds) else { return };
    assert_eq!(done.status.signal(), Some(libc::SIGSYS), "{}", text(&done));
}

/// Both stages, with `out` for the output folder.
fn restricted(out: &Path) -> Landlock {
    match SandboxStage::enter_boot(true, Some(out)).unwrap().enter_campaign().unwrap() {
        Sandbox::On(landlock) => landlock,
        Sandbox::Off => panic!("off"),
    }
}

/// Of every thread: 2 is a filter (proc(5)).
fn filters() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap();
    let line = |status: String| {
        status.lines().find_map(|line| line.strip_prefix("Seccomp:\t").map(str::to_owned))
    };
    tasks.map(|task| line(status(task.unwrap())).unwrap()).collect()
}

#[test]
fn a_process_without_a_sandbox_can_do_all_of_this() {
    passed("a_process_without_a_sandbox_can_do_all_of_this", |out| {
        assert_eq!(
            SandboxStage::enter_boot(false, Some(out)).unwrap().enter_campaign().unwrap(),
            Sandbox::Off
        );
        assert!(filters().iter().all(|filter| filter == "0"));
        net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Command::new("true").status().unwrap().success());
        fs::read("/etc/passwd").unwrap();
        let beside = out.with_extension("beside");
        fs::write(&beside, "x").unwrap();
        fs::remove_file(beside).unwrap();
        thread::spawn(|| {}).join().unwrap();
    });
}

#[test]
fn a_socket_kills() {
    killed("a_socket_kills", |out| {
        restricted(out);
        let _ = net::TcpListener::bind("127.0.0.1:0");
    });
}

#[test]
fn a_socket_of_another_thread_kills() {
    killed("a_socket_of_another_thread_kills", |out| {
        let (go, may) = std::sync::mpsc::channel();
        let other = thread::spawn(move || {
            may.recv().unwrap();
            let _ = net::UdpSocket::bind("127.0.0.1:0");
        });
        restricted(out);
        go.send(()).unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_program_kills_before_the_guest_is_booted() {
    use std::os::unix::process::CommandExt as _;
    killed("a_program_kills_before_the_guest_is_booted", |out| {
        SandboxStage::enter_boot(true, Some(out)).unwrap();
        let error = Command::new("/bin/true").exec();
        panic!("{error}");
    });
}

#[test]
fn no_process_and_no_thread_can_be_started() {
    passed("no_process_and_no_thread_can_be_started", |out| {
        restricted(out);
        assert_eq!(Command::new("true").status().unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert!(thread::Builder::new().spawn(|| {}).is_err());
    });
}

#[test]
fn a_thread_that_has_not_begun_begins_restricted() {
    passed("a_thread_that_has_not_begun_begins_restricted", |out| {
        let stage = SandboxStage::enter_boot(true, Some(out)).unwrap();
        let begun = || thread::Builder::new().name("late".to_owned()).spawn(|| 7).unwrap();
        let threads: Vec<_> = (0..200).map(|_| begun()).collect();
        stage.enter_campaign().unwrap();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 7));
    });
}

#[test]
fn a_boot_may_read_everything_and_write_the_output_folder() {
    passed("a_boot_may_read_everything_and_write_the_output_folder", |out| {
        SandboxStage::enter_boot(true, Some(out)).unwrap();
        fs::read("/etc/passwd").unwrap();
        fs::create_dir(out.join("folder")).unwrap();
        fs::write(out.join("folder/f"), "x").unwrap();
        thread::spawn(|| {}).join().unwrap();
        if super::probe().unwrap() == Sandbox::On(Landlock::On) {
            let beside = fs::write(out.with_extension("beside"), "x").unwrap_err();
            assert_eq!(beside.kind(), ErrorKind::PermissionDenied);
        }
    });
}

#[test]
fn a_campaign_has_its_output_folder_and_nothing_else() {
    passed("a_campaign_has_its_output_folder_and_nothing_else", |out| {
        fs::write(out.join("old"), "old").unwrap();
        let mut threads = filters();
        assert!(threads.iter().all(|filter| filter == "0"));
        // Afterwards nothing below /proc can be opened.
        let status = fs::File::open("/proc/thread-self/status").unwrap();
        let landlock = restricted(out);
        threads.clear();
        assert!(std::io::read_to_string(status).unwrap().contains("Seccomp:\t2"));

        assert_eq!(fs::read(out.join("old")).unwrap(), b"old");
        let (new, named) = (out.join("new"), out.join("named"));
        let file = fs::File::create(&new).unwrap();
        file.set_len(5).unwrap();
        file.sync_all().unwrap();
        fs::rename(&new, &named).unwrap();
        assert_eq!(fs::read_dir(out).unwrap().count(), 2);
        fs::remove_file(&named).unwrap();

        let refused = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
        assert!(refused(fs::hard_link(out.join("old"), &new).unwrap_err()));
        assert!(refused(std::os::unix::fs::symlink("/etc/passwd", &new).unwrap_err()));
        if landlock == Landlock::On {
            for path in ["/etc/passwd", "/proc/self/mem", "/dev/kvm", "/"] {
                assert!(refused(fs::File::open(path).unwrap_err()), "{path}");
            }
            assert!(refused(fs::write(out.with_extension("beside"), "x").unwrap_err()));
        }
    });
}

#[test]
fn what_is_tried_for_doctor_leaves_the_process_as_it_was() {
    passed("what_is_tried_for_doctor_leaves_the_process_as_it_was", |_| {
        super::probe().unwrap();
        assert!(filters().iter().all(|filter| filter == "0"));
        fs::read("/etc/passwd").unwrap();
        assert!(Command::new("true").status().unwrap().success());
    });
}

#[test]
fn an_error_that_says_its_causes_itself_does_not_say_them_twice() {
    use dejavm_corpus::ErrorChain;
    let denied = std::io::Error::from_raw_os_error(libc::EPERM);
    let error = SandboxError::from(seccompiler::Error::Seccomp(denied));
    let line = ErrorChain(&error).to_string();
    assert!(line.starts_with("filter system calls by seccomp: Error calling `seccomp`"), "{line}");
    assert_eq!(line.matches("os error 1").count(), 1, "{line}");
}
