//! The figures of a measurement, and their JSON form. Never measures, and never judges a figure.

use super::fingerprint::HostFingerprint;
use serde::{Deserialize, Serialize};

/// Version of the JSON form.
pub const FORMAT: u32 = 1;

/// A whole measurement, as `--json` writes it and `--compare` reads it.
#[derive(Debug, Serialize, Deserialize)]
pub struct BenchReport {
    /// [`FORMAT`].
    pub format: u32,
    /// `exits`, `rewind`, `boot` or `campaign`.
    pub bench: String,
    /// Where it was measured, and with what.
    pub host: HostFingerprint,
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
    /// From numbers that are not rounded yet.
    pub fn new(per_second: f64, of_machine: f64) -> Self {
        let per_second = rounded(per_second);
        let of_machine = thousandths(of_machine);
        Self { per_second, of_machine, of_fork_server: None, of_loop: None }
    }
}

/// To a tenth: more digits of a time are noise.
pub fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// To a thousandth, as ratios have it.
pub fn thousandths(value: f64) -> f64 {
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

/// What was sampled through a layer.
pub struct LayerSamples {
    /// The layer.
    pub layer: Layer,
    /// Samples, each in nanoseconds for one event.
    pub samples_ns: Vec<f64>,
}

impl LayerSamples {
    /// Samples of `layer`.
    pub const fn new(layer: Layer, samples_ns: Vec<f64>) -> Self {
        Self { layer, samples_ns }
    }
}

/// What was sampled of a row, the floor first.
pub type Sampled = Vec<LayerSamples>;
