//! Who and where the process is.

use crate::linux::loader::spec::ProcessSpec;
use crate::linux::tests::mock::Guest;

#[test]
fn gives_the_same_random_bytes_for_the_same_seed() {
    let mut random = Vec::new();
    for seed in [1, 1, 2] {
        let mut spec = ProcessSpec::new("/bin/true");
        spec.seed = seed;
        let mut guest = Guest::load(&spec, b"");
        let out = guest.scratch;
        assert_eq!(guest.ok(libc::SYS_getrandom, [out, 100, 0]), 100);
        random.push(guest.get(out, 100));
    }
    assert_eq!(random[0], random[1]);
    assert_ne!(random[0], random[2]);
}

#[test]
fn sets_the_fs_base() {
    let mut guest = Guest::simple();
    guest.ok(libc::SYS_arch_prctl, [0x1002, 0x1234]);
    assert_eq!(guest.cpu.bases, [0x1234, 0]);
    guest.err(libc::SYS_arch_prctl, [0x1002, 1 << 47], libc::EPERM);
    let out = guest.scratch;
    guest.ok(libc::SYS_arch_prctl, [0x1003, out]);
    assert_eq!(guest.word(out), 0x1234);
}
