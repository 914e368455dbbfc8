//! `fuzzer_stats` and `plot_data`, as AFL++ writes them, and the way back from `fuzzer_stats`.
//!
//! Keys that mean nothing here are left out rather than invented. Only text; never touches a file.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::stats::Stats;

/// First line of `plot_data`.
pub(crate) const PLOT_HEADER: &str = "# relative_time, cycles_done, cur_item, corpus_count, \
     pending_total, pending_favs, map_size, saved_crashes, saved_hangs, max_depth, \
     execs_per_sec, total_execs, edges_found\n";

/// What surrounds the numbers in `fuzzer_stats`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatsFrame<'a> {
    /// Now, in seconds since 1970.
    pub(crate) now: u64,
    /// Seed of the random numbers.
    pub(crate) rng_seed: u64,
    /// What the target is.
    pub(crate) target_mode: &'a str,
    /// Name of the target, for people.
    pub(crate) banner: &'a str,
    /// The command.
    pub(crate) command_line: &'a str,
}

/// The text of `fuzzer_stats`.
pub(crate) fn fuzzer_stats(stats: &Stats, frame: StatsFrame<'_>) -> String {
    let mut text = String::with_capacity(2048);
    let mut line = |key: &str, value: &dyn Display| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key:<18}: {value}");
    };
    let at = |age: Option<Duration>| age.map_or(0, |age| frame.now.saturating_sub(age.as_secs()));
    let run_time = stats.run_time.as_secs();
    line("start_time", &frame.now.saturating_sub(run_time));
    line("last_update", &frame.now);
    line("run_time", &run_time);
    line("fuzzer_pid", &std::process::id());
    line("cycles_done", &stats.cycles);
    line("time_wo_finds", &stats.last_find.map_or(run_time, |age| age.as_secs()));
    line("execs_done", &stats.execs);
    line("execs_per_sec", &format_args!("{:.2}", stats.execs_per_sec));
    // AFL++ means a minute; the recent speed here is over a few seconds.
    line("execs_ps_last_min", &format_args!("{:.2}", stats.execs_per_sec_recent));
    line("corpus_count", &stats.corpus);
    line("corpus_favored", &stats.favoured);
    line("corpus_found", &stats.corpus_found);
    line("corpus_imported", &0);
    line("max_depth", &stats.depth);
    line("cur_item", &stats.current);
    line("pending_favs", &stats.pending_favoured);
    line("pending_total", &stats.pending);
    line("bitmap_cvg", &format_args!("{:.2}%", coverage(stats)));
    line("saved_crashes", &stats.crashes_unique);
    line("saved_hangs", &stats.hangs_unique);
    line("total_crashes", &stats.crashes_total);
    line("total_tmout", &stats.timeouts_total);
    line("unreproducible", &stats.unreproducible);
    line("unsupported", &stats.unsupported);
    line("last_find", &at(stats.last_find));
    line("last_crash", &at(stats.last_crash));
    line("last_hang", &at(stats.last_hang));
    line("exec_timeout", &stats.timeout.as_millis());
    line("slowest_exec_ms", &stats.slowest.as_millis());
    if let Some(exits) = stats.exits_per_run {
        line("exits_per_run", &format_args!("{exits:.2}"));
    }
    line("edges_found", &(stats.blocks_reached + stats.edges_reached));
    line("total_edges", &(stats.blocks_total + stats.edges_total));
    line("rng_seed", &frame.rng_seed);
    line("afl_banner", &one_line(frame.banner));
    line("afl_version", &concat!("dejavm-", env!("CARGO_PKG_VERSION")));
    line("target_mode", &one_line(frame.target_mode));
    line("command_line", &one_line(frame.command_line));
    text
}

/// One line of `plot_data`.
pub(crate) fn plot_line(stats: &Stats) -> String {
    format!(
        "{}, {}, {}, {}, {}, {}, {:.2}%, {}, {}, {}, {:.2}, {}, {}\n",
        stats.run_time.as_secs(),
        stats.cycles,
        stats.current,
        stats.corpus,
        stats.pending,
        stats.pending_favoured,
        coverage(stats),
        stats.crashes_unique,
        stats.hangs_unique,
        stats.depth,
        stats.execs_per_sec_recent,
        stats.execs,
        stats.blocks_reached + stats.edges_reached,
    )
}

/// Blocks and edges reached, in percent.
fn coverage(stats: &Stats) -> f64 {
    let total = stats.blocks_total + stats.edges_total;
    if total == 0 {
        return 0.0;
    }
    (stats.blocks_reached + stats.edges_reached) as f64 * 100.0 / total as f64
}

/// A value must not add lines to the file.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What an earlier part of a campaign counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Earlier {
    pub(crate) run_time: Duration,
    pub(crate) execs: u64,
    pub(crate) cycles: u64,
    pub(crate) timeouts: u64,
    pub(crate) unreproducible: u64,
    pub(crate) unsupported: u64,
    /// Time limit of one run; zero if unknown.
    pub(crate) timeout: Duration,
    /// Seconds since 1970, or 0 for never.
    pub(crate) last_find: u64,
    /// Seconds since 1970, or 0 for never.
    pub(crate) last_crash: u64,
    /// Seconds since 1970, or 0 for never.
    pub(crate) last_hang: u64,
}

/// Numbers in `fuzzer_stats` stay below this. A larger one is damage; adding to it could overflow.
const NUMBER_END: u64 = 1 << 53;

/// Reads `fuzzer_stats` back; `None` if it lacks what is needed to go on counting.
pub(crate) fn parse(text: &str) -> Option<Earlier> {
    let values: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let number = |key| {
        values.get(key).and_then(|value| value.parse::<u64>().ok()).filter(|&n| n < NUMBER_END)
    };
    Some(Earlier {
        run_time: Duration::from_secs(number("run_time")?),
        execs: number("execs_done")?,
        cycles: number("cycles_done").unwrap_or(0),
        timeouts: number("total_tmout").unwrap_or(0),
        unreproducible: number("unreproducible").unwrap_or(0),
        unsupported: number("unsupported").unwrap_or(0),
        timeout: Duration::from_millis(number("exec_timeout").unwrap_or(0)),
        last_find: number("last_find").unwrap_or(0),
        last_crash: number("last_crash").unwrap_or(0),
        last_hang: number("last_hang").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: StatsFrame<'_> = StatsFrame {
        now: 1_000_000,
        rng_seed: 7,
        target_mode: "process",
        banner: "jq",
        command_line: "dejavm fuzz -i in\n-o out",
    };

    fn stats() -> Stats {
        Stats {
            run_time: Duration::from_millis(100_900),
            execs: 5000,
            blocks_reached: 1,
            blocks_total: 2,
            edges_total: 1,
            timeout: Duration::from_millis(40),
            exits_per_run: Some(2.0 / 3.0),
            last_find: Some(Duration::from_secs(9)),
            ..Stats::default()
        }
    }

    #[test]
    fn writes_aflpp_lines() {
        let text = fuzzer_stats(&stats(), FRAME);
        for line in [
            "start_time        : 999900",
            "last_update       : 1000000",
            "execs_done        : 5000",
            "bitmap_cvg        : 33.33%",
            "edges_found       : 1",
            "total_edges       : 3",
            "last_find         : 999991",
            "last_crash        : 0",
            "exec_timeout      : 40",
            "exits_per_run     : 0.67",
            "command_line      : dejavm fuzz -i in -o out",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn a_plot_line_has_the_columns_of_the_header() {
        assert_eq!(plot_line(&stats()).split(',').count(), PLOT_HEADER.split(',').count());
    }

    #[test]
    fn reads_its_own_numbers_back() {
        let earlier = parse(&fuzzer_stats(&stats(), FRAME)).unwrap();
        assert_eq!((earlier.run_time.as_secs(), earlier.execs), (100, 5000));
        assert_eq!(earlier.last_find, 999_991);
    }

    #[test]
    fn makes_nothing_of_a_damaged_file() {
        for text in [
            "",
            "run_time : x\nexecs_done : 5",
            "run_time : 5\nexecs_done : 18446744073709551615",
            "\0\0\0",
            "run_time: 5",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
