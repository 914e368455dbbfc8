//! Clocks and sleeps.

use crate::linux::tests::mock::Guest;

#[test]
fn has_a_clock_of_its_own() {
    let mut guest = Guest::simple();
    let out = guest.scratch;
    guest.ok(libc::SYS_clock_gettime, [1, out]);
    let before = (guest.word(out), guest.word(out + 8));
    guest.put(64, &3600u64.to_le_bytes());
    guest.ok(libc::SYS_nanosleep, [out + 64, 0]);
    guest.ok(libc::SYS_clock_gettime, [1, out]);
    assert_eq!(guest.word(out), before.0 + 3600);
    assert!(guest.word(out + 8) > before.1);
    guest.err(libc::SYS_clock_gettime, [99, out], libc::EINVAL);
}

#[test]
fn time_passes_only_where_no_thread_can_go_on() {
    let mut guest = Guest::simple();
    let hour = guest.put(0, &[3600u64.to_le_bytes(), [0; 8]].concat());
    let second = guest.put(16, &[1u64.to_le_bytes(), [0; 8]].concat());
    guest.spawn(0);
    let before = guest.process.scalars.clock_ns;
    guest.switch(libc::SYS_nanosleep, [hour, 0]);
    assert!(guest.process.scalars.clock_ns - before < 1_000_000_000, "the other one runs");
    guest.ok(libc::SYS_nanosleep, [second, 0]);
    let passed = guest.process.scalars.clock_ns - before;
    assert!((1_000_000_000..2_000_000_000).contains(&passed), "{passed}");
    assert!(guest.process.scalars.busy_ns() < 1_000_000_000, "sleeping costs no CPU time");
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1001);
}
