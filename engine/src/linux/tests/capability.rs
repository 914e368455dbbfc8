//! Capabilities.

use crate::linux::tests::mock::Guest;

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
