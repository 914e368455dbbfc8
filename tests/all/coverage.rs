//! What of a run counts as new, as a user chooses it.

use crate::invoke::{fuzz, fuzz_planted, only_file, path, seeds, text};
use crate::support::{build_c, kvm};
use serde_json::Value;

#[test]
fn edges_and_counts_are_told_apart_where_they_are_asked_for() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let summary = |coverage: &str| {
        let out = folder.path().join(coverage);
        let options =
            format!("-s 7 -E 1500 -t 1000 --verify-every 50 --coverage {coverage} --json");
        let done = fuzz_planted(folder.path(), &out, &options).output().unwrap();
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{coverage}: {said}");
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    let [block, edge, count] = ["block", "edge", "count"].map(summary);
    let number = |summary: &Value, name: &str| summary[name].as_u64().unwrap();
    assert_eq!(number(&block, "edges_total"), 0);
    for told in [&edge, &count] {
        assert_eq!(number(told, "blocks_total"), number(&block, "blocks_total"));
        let (reached, total) = (number(told, "edges_reached"), number(told, "edges_total"));
        assert!(0 < reached && reached < total, "{reached} of {total}");
    }
}

#[test]
fn counts_lead_through_a_loop() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (seeds, out) = (seeds(folder.path(), b"12345678"), folder.path().join("out"));
    let program = build_c("counts", &[]);
    let mut campaign = fuzz(&seeds, &out, "-s 7 -E 3000000 --until-crash", &[path(&program)]);
    let done = campaign.output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let crash = std::fs::read(only_file(&out.join("crashes"))).unwrap();
    assert!(crash.starts_with(&[0x91, 0x3e, 0xd7, 0x5a]), "{crash:x?}");
    let stats = std::fs::read_to_string(out.join("fuzzer_stats")).unwrap();
    let value = |key: &str| {
        let line = stats.lines().find(|line| line.starts_with(key)).unwrap();
        line.split(':').nth(1).unwrap().trim().parse::<u64>().unwrap()
    };
    assert!(value("edges_found") < value("total_edges"), "places, not numbers, are counted");
}
