//! How the process is scheduled: as every ordinary one, on the only CPU and node.

use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};

const MEMORIES_ALLOWED: u64 = 4;

#[test]
fn there_is_one_cpu_and_every_thread_runs_on_it() {
    let mut guest = Guest::simple();
    guest.spawn(0);
    let out = guest.at(4);
    for thread in [0, 1000, 1001] {
        guest.put(4 * PAGE, &[0xff; 16]);
        assert_eq!(guest.ok(libc::SYS_sched_getaffinity, [thread, 128, out]), 8);
        assert_eq!((guest.word(out), guest.word(out + 8)), (1, u64::MAX), "no more is written");
    }
    guest.fails(&[
        (libc::SYS_sched_getaffinity, &[0, 0, out], libc::EINVAL),
        (libc::SYS_sched_getaffinity, &[0, 7, out], libc::EINVAL),
        (libc::SYS_sched_getaffinity, &[0, 9, out], libc::EINVAL),
        (libc::SYS_sched_getaffinity, &[99_999, 128, out], libc::ESRCH),
        (libc::SYS_sched_getaffinity, &[0, 128, NOWHERE], libc::EFAULT),
    ]);
    let first = guest.words(0, &[1]);
    guest.ok(libc::SYS_sched_setaffinity, [0, 8, first]);
    guest.put(4 * PAGE, &[0xff; 8]);
    guest.ok(libc::SYS_getcpu, [out, out + 4, 0]);
    assert_eq!(guest.word(out), 0, "the first CPU of the first node");
    guest.ok(libc::SYS_getcpu, [0, 0, 0]);
    guest.err(libc::SYS_getcpu, [NOWHERE, 0, 0], libc::EFAULT);
    guest.err(libc::SYS_getcpu, [0, NOWHERE, 0], libc::EFAULT);
}

#[test]
fn ordinary_scheduling_has_no_priority() {
    let mut guest = Guest::simple();
    let out = guest.put(4 * PAGE, &[0xff; 64]);
    assert_eq!(guest.ok(libc::SYS_sched_getscheduler, [0]), libc::SCHED_OTHER as u64);
    guest.ok(libc::SYS_sched_getparam, [0, out]);
    assert_eq!(guest.half(out), 0);
    guest.err(libc::SYS_sched_getparam, [0, NOWHERE], libc::EFAULT);
    assert_eq!(guest.ok(libc::SYS_getpriority, [0, 0]), 20, "as the kernel has it: 20 - nice");
    guest.ok(libc::SYS_sched_getattr, [0, out, 48, 0]);
    assert_eq!((guest.half(out), guest.half(out + 4)), (48, libc::SCHED_OTHER as u32));
    assert_eq!(guest.get(out + 8, 40), [0; 40]);
    guest.ok(libc::SYS_sched_getattr, [0, out, PAGE, 0]);
    guest.fails(&[
        (libc::SYS_sched_getattr, &[0, out, 47, 0], libc::EINVAL),
        (libc::SYS_sched_getattr, &[0, out, PAGE + 1, 0], libc::EINVAL),
        (libc::SYS_sched_getattr, &[0, NOWHERE, 48, 0], libc::EFAULT),
    ]);
}

#[test]
fn each_policy_has_its_priorities() {
    let mut guest = Guest::simple();
    for (policy, limits) in [
        (libc::SCHED_OTHER, [0, 0]),
        (libc::SCHED_FIFO, [1, 99]),
        (libc::SCHED_RR, [1, 99]),
        (libc::SCHED_BATCH, [0, 0]),
        (libc::SCHED_IDLE, [0, 0]),
    ] {
        let calls = [libc::SYS_sched_get_priority_min, libc::SYS_sched_get_priority_max];
        assert_eq!(calls.map(|nr| guest.ok(nr, [policy as u64])), limits, "{policy}");
    }
    for nr in [libc::SYS_sched_get_priority_min, libc::SYS_sched_get_priority_max] {
        guest.err(nr, [4], libc::EINVAL);
        guest.err(nr, [u64::MAX], libc::EINVAL);
    }
}

#[test]
fn threads_take_turns_when_they_yield() {
    let mut guest = Guest::simple();
    assert_eq!(guest.ok(libc::SYS_sched_yield, []), 0, "nobody else is there");
    guest.spawn(0);
    guest.spawn(0);
    let mut order = Vec::new();
    for _ in 0..6 {
        guest.let_others_run();
        order.push(guest.thread());
    }
    assert_eq!(order, [1001, 1002, 1000, 1001, 1002, 1000]);
}

#[test]
fn memory_is_on_one_node_and_taken_from_there() {
    let mut guest = Guest::simple();
    let (policy, nodes) = (guest.put(4 * PAGE, &[0xff; 4]), guest.put(5 * PAGE, &[0xff; 256]));
    guest.ok(libc::SYS_get_mempolicy, [policy, nodes, 1024, 0, 0]);
    assert_eq!((guest.half(policy), guest.get(nodes, 128)), (0, vec![0; 128]));
    assert_eq!(guest.word(nodes + 128), u64::MAX, "no more is written");
    guest.ok(libc::SYS_get_mempolicy, [0, nodes, 1024, 0, MEMORIES_ALLOWED]);
    assert_eq!(guest.word(nodes), 1);
    guest.ok(libc::SYS_get_mempolicy, [0, 0, 0, 0, 0]);
    guest.fails(&[
        (libc::SYS_get_mempolicy, &[policy, 0, 0, 0, 99], libc::EINVAL),
        (libc::SYS_get_mempolicy, &[0, nodes, 0, 0, 0], libc::EINVAL),
        (libc::SYS_get_mempolicy, &[0, nodes, 100_000, 0, 0], libc::EINVAL),
        (libc::SYS_get_mempolicy, &[NOWHERE, 0, 0, 0, 0], libc::EFAULT),
        (libc::SYS_get_mempolicy, &[0, NOWHERE, 1024, 0, 0], libc::EFAULT),
    ]);
}

#[test]
fn a_rewind_gives_the_turn_back() {
    let mut guest = Guest::simple();
    guest.spawn(0);
    guest.undoes("threads", |guest| guest.let_others_run());
    assert_eq!(guest.thread(), 1000);
}
