//! What an exit and a rewind cost on this host: rows of percentiles, each beside its floor.
//!
//! `exits`, `rewind`, `boot` and `campaign` measure; `table` words it for people. Never judges a
//! figure.

mod batches;
pub mod boot;
pub mod campaign;
mod code;
mod copies;
pub mod exits;
pub mod fingerprint;
mod guests;
mod interrupts;
pub mod rewind;
mod rig;
mod sample;
pub mod table;
mod ways;

pub use sample::Plan;

use crate::terminal::Status;
use dejavm_engine::host;
use dejavm_engine::kvm::System;
use fingerprint::Host;
use serde::{Deserialize, Serialize};

/// Version of the JSON form.
pub const FORMAT: u32 = 1;

/// A whole measurement, as `--json` writes it and `--compare` reads it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// `exits`, `rewind`, `boot` or `campaign`.
    pub bench: String,
    /// Where it was measured, and with what.
    pub host: Host,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// One event, measured in one way or several.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// A name for programs, the same in every version.
    pub name: String,
    /// The event for people.
    pub what: String,
    /// Events in a sample: a sample is their mean.
    pub events_per_sample: u32,
    /// How it was measured; the floor first. Empty where the host cannot do it.
    pub lines: Vec<Line>,
    /// Why there are no lines.
    pub absent: Option<String>,
}

/// One way of measuring an event. Times are of one event.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// What is between the guest and the clock.
    pub layer: Layer,
    /// The median, in nanoseconds.
    pub p50_ns: f64,
    /// One in ten is slower.
    pub p90_ns: f64,
    /// One in a hundred is slower.
    pub p99_ns: f64,
    /// The median in cycles of the TSC, where its frequency is known.
    pub p50_tsc_cycles: Option<f64>,
    /// Samples taken.
    pub samples: usize,
    /// What it costs on top of the row's floor.
    pub adds: Option<Adds>,
    /// The median of the memory that it takes for itself before its first run, in bytes, where
    /// that is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_bytes: Option<u64>,
    /// How often it is done in a second, where that is what is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executions: Option<Executions>,
}

/// How often a program is executed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Executions {
    /// In a second.
    pub per_second: f64,
    /// Times as often as in a machine with one input per entry, measured in turn with this.
    pub of_machine: f64,
    /// Likewise, as often as by a native fork server, where that was measured in turn with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_fork_server: Option<f64>,
    /// Likewise, as often as in a native loop that resets nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_loop: Option<f64>,
}

impl Executions {
    fn new(per_second: f64, of_machine: f64) -> Self {
        let per_second = sample::rounded(per_second);
        let of_machine = thousandths(of_machine);
        Self { per_second, of_machine, of_fork_server: None, of_loop: None }
    }
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// What is between the guest and the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// `ioctl(KVM_RUN)` and the fields of the run page, without the engine.
    Floor,
    /// The engine's vCPU and its parsed exit.
    Vcpu,
    /// A whole `Machine::run`.
    Machine,
    /// Nothing: handled in the kernel. A run with the event less the same run without it.
    Kernel,
    /// Nothing either: as the floor, to pages that were write-protected for the dirty log.
    Protected,
    /// As the floor, to pages that the host has to find first.
    Fresh,
    /// `Machine::run` of the row's guest.
    Run,
    /// `Machine::rewind`.
    Rewind,
    /// Both, one after the other.
    Cycle,
    /// A copy of as many pages.
    Memcpy,
    /// From an image to a machine at its snapshot.
    Boot,
    /// From a snapshot to the end of a machine's first run.
    FirstRun,
    /// One execution of a program.
    Execution,
}

/// What a line costs on top of its row's floor: medians of what was measured in turn.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Adds {
    /// Nanoseconds; below zero where noise is larger than the difference.
    pub ns: f64,
    /// Of the floor.
    pub percent: f64,
}

impl Layer {
    /// A word for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Vcpu => "vcpu",
            Self::Machine => "machine",
            Self::Kernel => "kernel",
            Self::Protected => "protected",
            Self::Fresh => "fresh",
            Self::Run => "run",
            Self::Rewind => "rewind",
            Self::Cycle => "both",
            Self::Memcpy => "memcpy",
            Self::Boot => "boot",
            Self::FirstRun => "first run",
            Self::Execution => "execution",
        }
    }
}

/// What the rows are measured with.
pub struct Context<'a> {
    /// KVM.
    pub system: &'a System,
    /// What the host can do.
    pub host: &'a host::HostReport,
    /// How long to measure.
    pub plan: Plan,
    /// The TSC's frequency.
    pub tsc_khz: Option<u32>,
    /// Measure the rows whose name has one of these in it; all, where there is none.
    pub only: &'a [String],
    /// Says what goes on.
    pub status: Status,
}

impl Context<'_> {
    /// Whether the row `name` is asked for.
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }

    /// The row of an event that this host cannot do.
    fn absent(name: &str, what: &str, why: String) -> Row {
        Row { name: name.into(), what: what.into(), absent: Some(why), ..Row::default() }
    }

    /// The row of what was sampled, by layer.
    fn row(&self, name: &str, what: &str, events: u32, sampled: &[(Layer, Vec<f64>)]) -> Row {
        let floor = sampled.iter().find(|(layer, _)| *layer == Layer::Floor);
        let line = |(layer, samples): &(Layer, Vec<f64>)| {
            let [p50_ns, p90_ns, p99_ns] = sample::percentiles(samples);
            let adds = match (layer, floor) {
                (Layer::Floor | Layer::Kernel | Layer::Memcpy, _) | (_, None) => None,
                // A rewind comes on top of a run by itself.
                (Layer::Rewind, Some((_, floor))) => Some(sample::part_of(samples, floor)),
                (_, Some((_, floor))) => Some(sample::on_top_of(samples, floor)),
            };
            Line {
                layer: *layer,
                p50_ns,
                p90_ns,
                p99_ns,
                p50_tsc_cycles: self
                    .tsc_khz
                    .map(|khz| sample::rounded(p50_ns * f64::from(khz) / 1e6)),
                samples: samples.len(),
                adds,
                private_bytes: None,
                executions: None,
            }
        };
        Row {
            name: name.into(),
            what: what.into(),
            events_per_sample: events,
            lines: sampled.iter().map(line).collect(),
            absent: None,
        }
    }
}

/// What was sampled of a row, by layer, in nanoseconds for each event.
type Sampled = Vec<(Layer, Vec<f64>)>;
