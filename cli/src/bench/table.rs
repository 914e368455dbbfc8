//! A measurement as a table for people, alone or beside an earlier one. Never prints.

use super::figures::{BenchReport, Executions, Line, Row};
use std::fmt::Write as _;

/// Characters of the longest bar.
const BAR_WIDTH: f64 = 18.0;

/// The host and the figures.
pub fn text(report: &BenchReport) -> String {
    let mut out = String::new();
    // Writing to a string does not fail, here and below.
    for (name, value) in report.host.fields() {
        let _ = writeln!(out, "{name:<12} {value}");
    }
    out.push('\n');
    let scale = Scale::of(report);
    let _ = writeln!(
        out,
        "{:<30}{:<10}{:>13}{:>13}{:>13}{:>14}  {:<24}p50, log scale",
        report.bench, "layer", "p50 ns", "p90 ns", "p99 ns", "p50 cycles", "adds to the floor",
    );
    for row in &report.rows {
        write_row(&mut out, row, &scale);
    }
    out.push_str(notes(&report.bench));
    let _ = writeln!(out, "Bars are logarithmic: {}. Cycles are the TSC's.", scale.legend());
    out
}

fn write_row(out: &mut String, row: &Row, scale: &Scale) {
    if let Some(why) = &row.absent {
        let _ = writeln!(out, "{:<30}not on this host ({why})", row.what);
    }
    for (index, line) in row.lines.iter().enumerate() {
        let what = if index == 0 { row.what.as_str() } else { "" };
        let cycles = line.p50_tsc_cycles.map_or("-".to_owned(), grouped);
        let adds = line.adds.map_or(String::new(), |adds| {
            format!("{} ns ({:.1} %)", grouped(adds.ns), adds.percent)
        });
        let _ = writeln!(
            out,
            "{what:<30}{:<10}{:>13}{:>13}{:>13}{cycles:>14}  {adds:<24}{}",
            line.layer.word(),
            grouped(line.p50_ns),
            grouped(line.p90_ns),
            grouped(line.p99_ns),
            scale.bar(line.p50_ns)
        );
        if let Some(executions) = line.executions {
            write_rate(out, executions);
        }
        if let Some(bytes) = line.private_bytes {
            let kib = grouped(bytes as f64 / 1024.0);
            let _ = writeln!(out, "{:<30}{:<10}{kib:>13} KiB of private memory", "", "");
        }
    }
}

fn write_rate(out: &mut String, executions: Executions) {
    let Executions { per_second, of_machine, of_fork_server, of_loop } = executions;
    let rate = grouped(per_second);
    let _ = write!(out, "{:<30}{rate:>23} per second, x{of_machine:.3} of the machine", "");
    for (ratio, what) in [(of_fork_server, "the fork server"), (of_loop, "the loop")] {
        if let Some(ratio) = ratio {
            let _ = write!(out, ", x{ratio:.3} of {what}");
        }
    }
    out.push('\n');
}

/// What the words of the table mean.
fn notes(bench: &str) -> &'static str {
    match bench {
        "exits" => {
            "\n\
A sample is the mean of a round of exits, so that p99 is of rounds. floor: ioctl(KVM_RUN) and the\n\
run page, without the engine. vcpu: the engine's vCPU and parsed exit. machine: Machine::run, its\n\
rewind not counted. kernel: no exit to this process; a run with the event less the same run without\n\
it, per event. protected, fresh: the floor's writes, to pages that are write-protected for the dirty\n\
log, or that the host has to find first. KVM_INTERRUPT, KVM_IRQ_LINE, irqfd: with the call that raises\n\
the interrupt, to the guest's first exit after its handler (from CPL 3: in its stub).\n\
CPL 3 page fault: the machine gives the program 64 pages, where the floor steps over the store.\n"
        }
        "campaign" => {
            "\n\
Executions of one JSON parser. All but AFL++ and libFuzzer run the same four inputs in turn, batches\n\
and the native loop with a copy of each; those run for a fixed time on what they make of these four.\n\
Ratios are of what is done in a second, measured in turn, or before and after a fuzzer. 64 hot pages:\n\
the parser writes as many more pages in batches of 256; floor: batches of 256 without them, plus a\n\
memcpy of as many pages.\n"
        }
        "boot" => {
            "\n\
The program has 48 MiB in use at its snapshot; its run writes 64 pages. Files are in the page\n\
cache. floor: an empty VM of the same layout, or for a file a new process that does nothing. boot:\n\
to a machine at its snapshot. first run: to the end of the first run, for a file in a new process,\n\
whose start counts. Private memory, before that run: Anonymous in /proc/self/smaps_rollup.\n"
        }
        _ => {
            "\n\
floor: the same run by a plain ioctl(KVM_RUN), without dirty log and without rewind. run and rewind:\n\
Machine::run, with what it adds to the floor, and Machine::rewind, with its share of the floor.\n\
both: one after the other, with what they add. memcpy: as many pages. full: with every class of the\n\
CPU's state put back. agent: the guest puts itself back; execution: one of a batch of 256.\n"
        }
    }
}

/// This measurement beside `earlier`: what differs between the hosts, and the ratio of each p50.
pub fn comparison(earlier: &BenchReport, now: &BenchReport) -> String {
    let mut out = now.host.warning(&earlier.host).unwrap_or_default();
    for ((name, before), (_, after)) in earlier.host.fields().iter().zip(now.host.fields()) {
        if *before != after {
            let _ = writeln!(out, "{name:<12} {before}\n{:<12}   now {after}", "");
        }
    }
    let _ = writeln!(
        out,
        "\n{:<30}{:<10}{:>14}{:>14}{:>9}",
        now.bench, "layer", "old p50 ns", "new p50 ns", "ratio"
    );
    for row in &now.rows {
        let before = earlier.rows.iter().find(|earlier| earlier.name == row.name);
        for (index, line) in row.lines.iter().enumerate() {
            let what = if index == 0 { row.what.as_str() } else { "" };
            let layer = |earlier: &&Line| earlier.layer == line.layer;
            let old = before.and_then(|row| row.lines.iter().find(layer)).map(|old| old.p50_ns);
            let (old_text, ratio) = match old {
                Some(old) if old > 0.0 => (grouped(old), format!("x{:.3}", line.p50_ns / old)),
                Some(old) => (grouped(old), "-".to_owned()),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let _ = writeln!(
                out,
                "{what:<30}{:<10}{old_text:>14}{:>14}{ratio:>9}",
                line.layer.word(),
                grouped(line.p50_ns)
            );
        }
        if let Some(why) = &row.absent {
            let _ = writeln!(out, "{:<28}now not on this host ({why})", row.what);
        }
    }
    for row in earlier.rows.iter().filter(|old| now.rows.iter().all(|row| row.name != old.name)) {
        let _ = writeln!(out, "{:<28}only in the earlier measurement", row.what);
    }
    out
}

/// A whole number with its thousands apart; with a tenth where it is small.
fn grouped(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

/// The decades that the bars span.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn of(report: &BenchReport) -> Self {
        let lines = report.rows.iter().flat_map(|row| &row.lines);
        let times = lines.map(|line| line.p50_ns).filter(|&ns| ns > 0.0);
        let (low, high) =
            times.fold((f64::INFINITY, 1.0_f64), |(low, high), ns| (low.min(ns), high.max(ns)));
        let low = if low.is_finite() { low.log10().floor() as i32 } else { 0 };
        Self { low, high: (high.log10().ceil() as i32).max(low + 1) }
    }

    fn legend(&self) -> String {
        format!("{} ns to {} ns", grouped(10_f64.powi(self.low)), grouped(10_f64.powi(self.high)))
    }

    fn bar(&self, ns: f64) -> String {
        if ns <= 0.0 {
            return String::new();
        }
        let share = (ns.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        "#".repeat((share.clamp(0.0, 1.0) * BAR_WIDTH).round().max(1.0) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{Adds, FORMAT, Layer};
    use crate::bench::fingerprint::HostFingerprint;

    fn report(p50_ns: f64) -> BenchReport {
        let adds = Some(Adds { ns: 12.0, percent: 1.5 });
        let line = |layer, p50_ns, adds| Line {
            layer,
            p50_ns,
            p90_ns: p50_ns,
            p99_ns: p50_ns,
            p50_tsc_cycles: None,
            samples: 1,
            adds,
            private_bytes: None,
            executions: None,
        };
        let lines =
            vec![line(Layer::Floor, p50_ns, None), line(Layer::Machine, 2.0 * p50_ns, adds)];
        let measured = Row { name: "a".into(), what: "CPL 0 OUT".into(), lines, ..Row::default() };
        let absent = Row {
            name: "b".into(),
            what: "CPL 3 single step".into(),
            absent: Some("probe single_step_cpl3: no".into()),
            ..Row::default()
        };
        let host =
            HostFingerprint { kernel: format!("kernel {p50_ns}"), ..HostFingerprint::default() };
        BenchReport { format: FORMAT, bench: "exits".into(), host, rows: vec![measured, absent] }
    }

    #[test]
    fn a_table_has_figures_and_what_the_host_lacks() {
        let text = text(&report(8123.4));
        assert!(text.contains("8,123") && text.contains("12.0 ns (1.5 %)"), "{text}");
        assert!(text.contains("not on this host (probe single_step_cpl3: no)"), "{text}");
        assert!(text.contains("logarithmic: 1,000 ns to 100,000 ns"), "{text}");
    }

    #[test]
    fn a_comparison_has_the_ratio_of_each_line() {
        let text = comparison(&report(1000.0), &report(1500.0));
        assert!(text.contains("ratio") && text.matches("x1.500").count() == 2, "{text}");
        assert!(text.contains("kernel 1000") && text.contains("now kernel 1500"), "{text}");
    }

    #[test]
    fn bars_are_logarithmic() {
        let scale = Scale { low: 1, high: 4 };
        let lengths = [10.0, 100.0, 1000.0, 10_000.0].map(|ns| scale.bar(ns).len());
        assert_eq!(lengths, [1, 6, 12, 18]);
        assert_eq!(scale.bar(-1.0), "");
    }

    #[test]
    fn thousands_stand_apart() {
        let texts = [0.0, 99.94, 999.0, 1000.0, 1_234_567.0, -1234.0].map(grouped);
        assert_eq!(texts, ["0.0", "99.9", "999", "1,000", "1,234,567", "-1,234"]);
    }
}
