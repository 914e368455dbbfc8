//! Whole campaigns, on a maze: what they start from.

use std::fs;
use std::time::Duration;

use super::{Bench, SEED};
use crate::campaign::{Campaign, CampaignError, Options};
use crate::chain::ErrorChain;
use crate::mock::Maze;

#[test]
fn resumes_without_losing_a_crash() {
    let mut bench = Bench::new(SEED);
    let before = bench.crash().stats;
    let (crashes, queue) = (bench.names("crashes"), bench.names("queue"));
    // The facts are written after the crash; a kill between the two leaves only the name.
    fs::remove_file(bench.path("out/.dejavm/crashes.json")).unwrap();
    let after = bench.run(bench.crashing(), &mut Maze::new()).unwrap().stats;
    assert_eq!(bench.names("crashes"), crashes);
    assert_eq!(bench.names("queue")[..queue.len()], queue);
    assert!(after.crashes_total > before.crashes_total, "{after:?}");
    assert!(after.execs > before.execs + 20_000);
    assert_eq!(after.blocks_reached, before.blocks_reached);
    assert_eq!(after.corpus_found, before.corpus_found);
    assert_eq!(after.depth, before.depth);
    assert!(after.last_crash.is_some() && after.last_find.is_some());
    assert!(bench.heard("resuming: ") && !bench.heard("not in the queue"), "{:?}", bench.events.0);
}

#[test]
fn makes_other_mutants_after_resuming() {
    let mut bench = Bench::new(SEED);
    let mut logs = Vec::new();
    for _ in 0..2 {
        let mut maze = Maze::logging();
        bench.run(Options { executions: Some(100), ..bench.options() }, &mut maze).unwrap();
        logs.push(maze.log.unwrap());
    }
    assert_ne!(logs[0][logs[0].len() - 50..], logs[1][logs[1].len() - 50..]);
}

#[test]
fn resumes_without_seeds_and_takes_new_ones() {
    let mut bench = Bench::new(SEED);
    bench.run(bench.options(), &mut Maze::new()).unwrap();
    let options = Options { input: None, ..bench.options() };
    bench.run(options, &mut Maze::new()).unwrap();
    fs::write(bench.path("in/late"), "DEJx").unwrap();
    bench.run(bench.options(), &mut Maze::new()).unwrap();
    let queue = bench.names("queue");
    assert!(queue.iter().any(|name| name.ends_with("orig:late")), "{queue:?}");
}

#[test]
fn ignores_and_names_what_is_foreign_or_damaged_in_its_folder() {
    let mut bench = Bench::new(SEED);
    bench.crash();
    for file in ["queue/notes.txt", "crashes/README.txt"] {
        fs::write(bench.path("out").join(file), "").unwrap();
    }
    let long = [b'x'; super::MAX_LEN + 1];
    fs::write(bench.path("out/queue/id:000900,src:000001"), long).unwrap();
    fs::write(bench.path("out/queue/id:000901,orig:x"), "DEJA").unwrap();
    fs::write(bench.path("out/fuzzer_stats"), "\0\u{1}").unwrap();
    fs::write(bench.path("out/.dejavm/crashes.json"), "[{").unwrap();
    let stats = bench.run(bench.crashing(), &mut Maze::new()).unwrap().stats;
    for (file, why) in [
        ("notes.txt", "its name is not that of a finding"),
        ("README.txt", "its name is not that of a finding"),
        ("id:000900,src:000001", "it is longer than 64 bytes"),
        ("id:000901,orig:x", "run again, it no longer finishes"),
        ("fuzzer_stats", "it is damaged"),
        ("crashes.json", "it is damaged"),
    ] {
        assert!(bench.heard(&format!("{file}: {why}")), "{file}: {:?}", bench.events.0);
    }
    assert_eq!(stats.crashes_unique, 1);
    assert!(bench.path("out/queue/notes.txt").exists());
}

#[test]
fn cleans_up_after_a_kill_in_the_middle_of_a_write() {
    let mut bench = Bench::new(SEED);
    bench.run(bench.options(), &mut Maze::new()).unwrap();
    fs::write(bench.path("out/queue/.dejavm-unfinished"), "DE").unwrap();
    bench.run(bench.options(), &mut Maze::new()).unwrap();
    assert!(bench.heard("removed an unfinished file from"));
    assert!(bench.names("queue").iter().all(|name| name.starts_with("id:")));
}

#[test]
fn tells_what_became_of_each_seed() {
    let mut bench = Bench::new(&[
        ("a-good", b"xxxx"),
        ("b-same", b"xxxx"),
        ("c-crash", b"DEJA"),
        ("d-hang", b"HANG"),
        ("e-slow", b"SLOW"),
        ("f-fork", b"FORK"),
        ("g-flaky", b"FLAKY"),
        ("h-long", &[0; 65]),
        ("i-empty", b""),
        ("j-memory", b"MEMORY"),
    ]);
    let stats =
        bench.run(Options { executions: Some(1), ..bench.options() }, &mut Maze::new()).unwrap();
    for (seed, why) in [
        ("b-same", "the queue has the same bytes"),
        ("c-crash", "it crashes"),
        ("d-hang", "it reaches the time limit"),
        ("e-slow", "it needs longer than the time limit of 10ms"),
        ("f-fork", "the target does not support what it does: fork"),
        ("g-flaky", "it does not do the same twice"),
        ("h-long", "it is longer than 64 bytes"),
        ("i-empty", "it is empty"),
        ("j-memory", "it crashes"),
    ] {
        let line = format!("{seed} is not in the queue: {why}");
        assert!(bench.heard(&line), "{line}: {:?}", bench.events.0);
    }
    assert_eq!(bench.names("queue").len(), 1);
    let crashes = bench.names("crashes");
    assert!(crashes[0].starts_with("id:000000,sig:SIGSEGV-write,orig:c-crash,time:"));
    assert!(crashes[1].starts_with("id:000001,sig:OOM,orig:j-memory,time:"), "{crashes:?}");
    assert_eq!(bench.names("hangs").len(), 1);
    assert_eq!((stats.stats.unreproducible, stats.stats.unsupported), (1, 1));
}

#[test]
fn saves_a_hang_once_for_each_way_to_hang_even_after_resuming() {
    let mut bench = Bench::new(&[
        ("a", b"xxxx"),
        ("b", b"HANGa"),
        ("c", b"HANGb"),
        ("d", b"HANG\xff"),
        ("e", b"SLOWx"),
    ]);
    let options = Options { executions: Some(1), ..bench.options() };
    let stats = bench.run(options.clone(), &mut Maze::new()).unwrap().stats;
    assert_eq!((stats.hangs_unique, stats.timeouts_total), (2, 4));
    assert_eq!(bench.names("hangs").len(), 2);
    let stats = bench.run(options, &mut Maze::new()).unwrap().stats;
    assert_eq!((stats.hangs_unique, stats.timeouts_total), (2, 8));
    assert_eq!(bench.names("hangs").len(), 2);
}

#[test]
fn takes_the_time_limit_from_the_seeds() {
    let mut bench = Bench::new(&[("a", b"xxxx"), ("b", b"SLOW")]);
    let options = Options { timeout: None, ..bench.options() };
    let mut maze = Maze::new();
    bench.run(options.clone(), &mut maze).unwrap();
    assert_eq!(maze.limit, Duration::from_millis(80), "five times 15 ms, in steps of 20 ms");
    assert!(bench.heard("time limit 80ms (slowest seed 15ms)"));
    let mut maze = Maze::new();
    bench.run(options, &mut maze).unwrap();
    assert_eq!(maze.limit, Duration::from_millis(80));
}

#[test]
fn many_inputs_that_are_a_little_slow_get_twice_the_time_unless_it_was_asked_for() {
    let mut bench = Bench::new(&[("a", b"CRAW")]);
    fs::write(bench.path("way"), "\"CRAWL\"").unwrap();
    let dictionaries = vec![bench.path("way")];
    let asked = Options { executions: Some(20_000), dictionaries, ..bench.options() };
    let mut maze = Maze::new();
    let stats = bench.run(asked.clone(), &mut maze).unwrap().stats;
    assert_eq!(maze.limit, asked.timeout.unwrap());
    assert!(stats.timeouts_total > 16, "{}", stats.timeouts_total);

    fs::remove_dir_all(bench.path("out")).unwrap();
    let mut maze = Maze::new();
    let stats = bench.run(Options { timeout: None, ..asked }, &mut maze).unwrap().stats;
    assert_eq!(maze.limit, Duration::from_millis(40), "they take 30 ms");
    assert_eq!(stats.timeouts_total, 16);
    assert!(bench.heard("time limit 40ms (many inputs"));
}

#[test]
fn says_that_there_is_nothing_to_start_from() {
    let mut bench = Bench::new(&[("a", b""), ("b", b"DEJA")]);
    let error = bench.run(bench.options(), &mut Maze::new()).unwrap_err();
    let folder = bench.path("in");
    assert_eq!(
        ErrorChain(&error).to_string(),
        format!("no usable seed in {}: a: it is empty", folder.display())
    );
    let mut bench = Bench::new(&[]);
    let error = bench.run(bench.options(), &mut Maze::new()).unwrap_err();
    assert!(matches!(error, CampaignError::NoSeed { .. }), "{error}");
    assert!(error.to_string().ends_with("in: it holds no file"), "{error}");
    let options = Options { input: None, ..bench.options() };
    let error = bench.run(options, &mut Maze::new()).unwrap_err().to_string();
    assert!(error.ends_with("holds no queue to resume, and no folder of seeds was given"));
}

#[test]
fn refuses_options_that_make_no_sense() {
    let bench = Bench::new(SEED);
    let refuse = |options| ErrorChain(&Campaign::new(options).unwrap_err()).to_string();
    let zero = Options { max_len: 0, ..bench.options() };
    assert_eq!(refuse(zero), "the longest input allowed is 0 bytes");
    let zero = Options { timeout: Some(Duration::ZERO), ..bench.options() };
    assert_eq!(refuse(zero), "the time limit of a run is zero");
    fs::write(bench.path("bad.dict"), "\"ok\"\nbad").unwrap();
    let dictionary = Options { dictionaries: vec![bench.path("bad.dict")], ..bench.options() };
    assert!(refuse(dictionary).contains("bad.dict, line 2: no opening quote"));
    let missing = Options { input: Some(bench.path("gone")), ..bench.options() };
    assert!(refuse(missing).starts_with("list the seeds in "));
    assert!(!bench.path("out").exists(), "nothing is written before all is read");
}

#[test]
fn refuses_a_foreign_out_folder() {
    let bench = Bench::new(SEED);
    let options = Options { output: bench.path("in"), ..bench.options() };
    let error = Campaign::new(options).unwrap_err().to_string();
    assert!(error.contains("is no output folder of dejavm and is not empty"), "{error}");
}
