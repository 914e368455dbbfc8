//! What the rows are measured with, and from samples to a row.

use super::figures::{Layer, LayerSamples, Line, Row, rounded};
use super::sample::{self, Plan};
use crate::terminal::Status;
use dejavm_engine::host::HostReport;
use dejavm_engine::kvm::System;

/// What the rows are measured with.
pub struct Context<'a> {
    /// KVM.
    pub system: &'a System,
    /// What the host can do.
    pub host: &'a HostReport,
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
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }

    /// The row of an event that this host cannot do.
    pub fn absent(name: &str, what: &str, why: String) -> Row {
        Row { name: name.into(), what: what.into(), absent: Some(why), ..Row::default() }
    }

    /// The row of what was sampled, by layer.
    pub fn row(&self, name: &str, what: &str, events: u32, sampled: &[LayerSamples]) -> Row {
        let floor = sampled.iter().find(|of| of.layer == Layer::Floor);
        let floor = floor.map(|floor| &floor.samples_ns);
        let line = |LayerSamples { layer, samples_ns: samples }: &LayerSamples| {
            let [p50_ns, p90_ns, p99_ns] = sample::percentiles(samples);
            let adds = match (layer, floor) {
                (Layer::Floor | Layer::Kernel | Layer::Memcpy, _) | (_, None) => None,
                // A rewind comes on top of a run by itself.
                (Layer::Rewind, Some(floor)) => Some(sample::part_of(samples, floor)),
                (_, Some(floor)) => Some(sample::on_top_of(samples, floor)),
            };
            Line {
                layer: *layer,
                p50_ns,
                p90_ns,
                p99_ns,
                p50_tsc_cycles: self.tsc_khz.map(|khz| rounded(p50_ns * f64::from(khz) / 1e6)),
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
