//! Guests that ask for nonsense, and snapshot files that hold it.

use crate::address::Gva;
use crate::linux::abi::syscall::SystemCall;
use crate::linux::process::Process;
use crate::linux::tests::mock::{Guest, PAGE};
use crate::outcome::Access;
use proptest::prelude::*;

/// Arguments near everything that matters: small numbers, the scratch memory, limits.
fn argument(scratch: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..8,
        4 => (0u64..16 * PAGE).prop_map(move |offset| scratch + offset),
        2 => (0u64..20).prop_map(move |page| scratch + page * PAGE),
        2 => (0u64..64).prop_map(|shift| 1u64 << shift),
        2 => (0u64..64).prop_map(|shift| (1u64 << shift).wrapping_neg()),
        1 => (0u64..32).prop_map(|page| page * PAGE),
        1 => Just(0x7f00_0000_0000),
        1 => Just(0x7fff_ffff_e000),
        1 => Just(0x22),
        1 => Just(0x32),
        1 => Just(libc::AT_FDCWD as u64),
        1 => any::<u64>(),
    ]
}

fn calls(scratch: u64) -> impl Strategy<Value = Vec<(u64, [u64; 6])>> {
    let number = prop_oneof![4 => 0u64..120, 2 => 120u64..470, 1 => any::<u64>()];
    let call = (number, prop::array::uniform6(argument(scratch)));
    prop::collection::vec(call, 1..40)
}

fn run(guest: &mut Guest, calls: &[(u64, [u64; 6])]) -> Vec<String> {
    let mut seen = Vec::new();
    for (nr, args) in calls {
        let call = SystemCall { nr: *nr, args: *args };
        let observes = guest.process.observes_input(&call, &guest.mem);
        let verdict = guest.process.syscall(&call, &mut guest.mem, &mut guest.cpu);
        let fault = guest.process.page_fault(Gva(args[0]), Access::Write, &mut guest.mem);
        seen.push(format!("{observes} {verdict:?} {fault:?}"));
    }
    seen
}

/// A small guest with paths and vectors in its scratch memory.
fn prepared() -> Guest {
    let mut guest = Guest::simple();
    for (page, text) in ["/tmp/a\0", "/tmp/b/c\0", "/proc/self/maps\0", "..\0", "/dev/zero\0"]
        .into_iter()
        .enumerate()
    {
        guest.put(page as u64 * PAGE, text.as_bytes());
    }
    let mut vector = Vec::new();
    for i in 0..64 {
        vector.extend((guest.scratch + i * 100).to_le_bytes());
        vector.extend((i * 50).to_le_bytes());
    }
    guest.put(6 * PAGE, &vector);
    guest.mem.frames_max = guest.mem.pages.len() as u64 + 512;
    guest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn survives_any_sequence_of_calls_and_rewinds_from_it(
        calls in calls(prepared().scratch),
    ) {
        let snapshot = prepared();
        let mut guest = snapshot.clone();
        let first = run(&mut guest, &calls);
        guest.process.rewind_to(&snapshot.process);
        prop_assert_eq!(guest.process.same_as(&snapshot.process), Vec::<String>::new());
        guest.mem = snapshot.mem.clone();
        guest.process.set_input(b"input");
        let second = run(&mut guest, &calls);
        prop_assert_eq!(first, second);
        guest.process.rewind_to(&snapshot.process);
        prop_assert_eq!(guest.process.same_as(&snapshot.process), Vec::<String>::new());
    }

    #[test]
    fn survives_stored_state_of_noise(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        calls in calls(prepared().scratch),
    ) {
        let config = bincode::config::standard().with_limit::<{ 64 << 20 }>();
        let mut guest = prepared();
        let blobs = crate::stored::number(&mut guest.process);
        let mut bytes = bincode::serde::encode_to_vec(&guest.process, config).unwrap();
        let len = bytes.len();
        for (index, byte) in changes {
            bytes[index.index(len)] = byte;
        }
        let decoded: Result<(Process, usize), _> =
            bincode::serde::decode_from_slice(&bytes, config);
        if let Ok((mut process, _)) = decoded {
            // A number that is not there leaves an empty file, for a file to be refused by.
            let _ = crate::stored::fill(&mut process, &blobs);
            guest.process = process;
            run(&mut guest, &calls);
            let _ = guest.process.images();
        }
    }
}

#[test]
fn refuses_truncated_state() {
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(&Guest::simple().process, config).unwrap();
    for len in [0, 1, 10, bytes.len() / 2, bytes.len() - 1] {
        let decoded: Result<(Process, usize), _> =
            bincode::serde::decode_from_slice(&bytes[..len], config);
        assert!(decoded.is_err());
    }
}
