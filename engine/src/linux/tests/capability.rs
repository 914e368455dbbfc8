//! `capget` and `capset`: nothing is there to be had or given up.

use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};

const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

#[test]
fn has_no_capabilities_and_gains_none() {
    let mut guest = Guest::simple();
    let (header, sets) = (guest.scratch, guest.scratch + 64);
    let mut ask = |nr, version: u32, thread: u32, wanted: &[u32]| {
        let words = [&[version, thread], wanted].concat();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        guest.put(0, &bytes[..8]);
        guest.put(64, &[&bytes[8..], &[0xff; 24][bytes.len() - 8..]].concat());
        let answer = guest.call(nr, [header, sets]);
        (answer, guest.get(header, 4), guest.get(sets, 24))
    };
    const VERSION_1: u32 = 0x1998_0330;
    const VERSION_3: u32 = 0x2008_0522;
    let einval = -i64::from(libc::EINVAL);
    let (answer, version, _) = ask(libc::SYS_capget, 0, 0, &[]);
    assert_eq!((answer, version), (einval, VERSION_3.to_le_bytes().to_vec()));
    assert_eq!(ask(libc::SYS_capget, VERSION_3, 1000, &[]).2, [0; 24]);
    let (answer, _, of_32) = ask(libc::SYS_capget, VERSION_1, 0, &[]);
    assert_eq!((answer, &of_32[..12], &of_32[12..]), (0, &[0; 12][..], &[0xff; 12][..]));
    assert_eq!(ask(libc::SYS_capget, VERSION_3, 7, &[]).0, -i64::from(libc::ESRCH));
    assert_eq!(ask(libc::SYS_capget, VERSION_3, u32::MAX, &[]).0, einval);

    let eperm = -i64::from(libc::EPERM);
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 0, &[0; 6]).0, 0);
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 0, &[0, 1, 0, 0, 0, 0]).0, eperm);
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 0, &[0, 0, 0, 0, 1 << 8, 0]).0, eperm);
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 0, &[0, 0, 0, 0, 1 << 9, 0]).0, 0, "unknown");
    assert_eq!(ask(libc::SYS_capset, VERSION_3, 999, &[0; 6]).0, eperm);

    let bounding = libc::PR_CAPBSET_READ as u64;
    assert_eq!(guest.ok(libc::SYS_prctl, [bounding, 40]), 1);
    guest.err(libc::SYS_prctl, [bounding, 41], libc::EINVAL);
    guest.ok(libc::SYS_capget, [header, 0]);
}

#[test]
fn capabilities_are_asked_of_the_process_and_of_its_threads() {
    let mut guest = Guest::simple();
    guest.spawn(0);
    let sets = guest.at(4);
    for (version, thread) in [(VERSION_2, 0), (VERSION_3, 1000), (VERSION_3, 1001)] {
        guest.put(4 * PAGE, &[0xff; 24]);
        let header = guest.words(0, &[u64::from(version) | thread << 32]);
        guest.ok(libc::SYS_capget, [header, sets]);
        assert_eq!(guest.get(sets, 24), [0; 24]);
    }
}

#[test]
fn a_header_and_sets_that_are_nowhere_are_faults() {
    let mut guest = Guest::simple();
    let (header, sets) = (guest.words(0, &[VERSION_3.into()]), guest.at(4));
    guest.fails(&[
        (libc::SYS_capget, &[NOWHERE, sets], libc::EFAULT),
        (libc::SYS_capget, &[header, NOWHERE], libc::EFAULT),
        (libc::SYS_capset, &[NOWHERE, sets], libc::EFAULT),
        (libc::SYS_capset, &[header, NOWHERE], libc::EFAULT),
    ]);
}

#[test]
fn a_version_that_does_not_exist_is_answered_with_the_newest() {
    let mut guest = Guest::simple();
    let (header, sets) = (guest.words(0, &[0]), guest.at(4));
    for nr in [libc::SYS_capget, libc::SYS_capset] {
        guest.words(0, &[7]);
        guest.err(nr, [header, sets], libc::EINVAL);
        assert_eq!(guest.half(header), VERSION_3);
    }
    guest.words(0, &[7]);
    assert_eq!(guest.ok(libc::SYS_capget, [header, 0]), 0, "how a program asks for it");
}
