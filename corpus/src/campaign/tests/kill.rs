//! Whole campaigns, killed while they write.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Bench, SEED};
use crate::campaign::{Campaign, Options};
use crate::coverage::BlockSet;
use crate::names;
use crate::report;
use crate::target::{Execution, ExitKind, Target, TargetError};

/// Folder of the campaign that [`be_the_victim`] runs.
const FOLDER: &str = "DEJAVM_TEST_VICTIM_FOLDER";

/// Nearly every input reaches a block of its own, so files are written all the time.
struct Wide {
    known: BlockSet,
    blocks: [u32; 1],
}

impl Wide {
    const BLOCKS: usize = 1 << 16;

    fn new() -> Self {
        Self { known: BlockSet::new(Self::BLOCKS), blocks: [0] }
    }

    fn block(input: &[u8]) -> u32 {
        let mix = |hash: u32, &byte: &u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        input.iter().fold(7, mix) >> 16
    }
}

impl Target for Wide {
    fn blocks_total(&self) -> usize {
        Self::BLOCKS
    }

    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        self.blocks = [Self::block(input)];
        let new = usize::from(self.known.insert(self.blocks[0] as usize));
        let (blocks, duration) = (&self.blocks[..new], Duration::from_micros(1));
        Ok(Execution { exit_kind: ExitKind::Finished, blocks, duration })
    }

    fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        self.blocks = [Self::block(input)];
        let duration = Duration::from_micros(1);
        Ok(Execution { exit_kind: ExitKind::Finished, blocks: &self.blocks, duration })
    }

    fn known_blocks(&mut self, blocks: &[u32]) {
        for &block in blocks {
            self.known.insert(block as usize);
        }
    }

    fn set_timeout(&mut self, _: Duration) {}
}

/// What the killed process does: this test binary again, with [`FOLDER`] set.
fn be_the_victim(folder: &Path) {
    // As long as the resumed campaign takes them, which passes over longer ones.
    let max_len = super::MAX_LEN;
    let options = Options { max_len, ..Options::new(folder.join("in"), folder.join("out")) };
    Campaign::new(options).unwrap().run(&mut Wide::new(), &mut ()).unwrap();
}

#[test]
fn survives_a_kill_at_any_moment() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return be_the_victim(Path::new(&folder));
    }
    let bench = Bench::new(SEED);
    let mut entries = 0;
    // `None`: as long as it takes to write something, however busy the host is.
    for delay_ms in [Some(5), Some(40), Some(110), Some(230), None] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "campaign::tests::kill::survives_a_kill_at_any_moment"])
            .env(FOLDER, bench.path(""))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        match delay_ms {
            Some(delay_ms) => std::thread::sleep(Duration::from_millis(delay_ms)),
            None => wait_for_entries(&bench.path("out/queue"), entries + 20),
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let options = Options { executions: Some(1), ..bench.options() };
        let stats = Campaign::new(options).unwrap().run(&mut Wide::new(), &mut ()).unwrap().stats;
        let names = bench.names("queue");
        let ids: BTreeSet<u64> = names.iter().map(|name| names::parse(name).unwrap().id).collect();
        assert_eq!(ids.len(), names.len(), "each number once, and nothing unfinished");
        assert_eq!(ids.last().copied(), Some(names.len() as u64 - 1), "no number left out");
        assert_eq!(stats.corpus, names.len(), "each file is read back");
        assert_eq!(stats.blocks_reached, names.len(), "each file holds what reached its block");
        let text = std::fs::read_to_string(bench.path("out/fuzzer_stats")).unwrap();
        assert!(report::parse(&text).is_some());
        assert!(names.len() >= entries);
        entries = names.len();
    }
    assert!(entries > 10, "the victim wrote {entries}");
}

/// Waits until `queue` holds as many files, or for a minute.
fn wait_for_entries(queue: &Path, entries: usize) {
    let start = Instant::now();
    let count = || std::fs::read_dir(queue).map_or(0, Iterator::count);
    while count() < entries && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
