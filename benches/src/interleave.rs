//! Variants of one measurement, run in turn.
//!
//! On a shared machine the speed of the host drifts by more than what is measured, from one second
//! to the next. So each of criterion's samples of one variant runs *all* variants, in short blocks
//! that take turns, and reports the time of the one. The ratio is the median over blocks of one
//! variant's time against its neighbour's, which drift cannot touch.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, SamplingMode};
use std::time::Duration;

/// Runs a variant as often as asked, and says how long that took.
type RunVariant<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

struct Variant<'a> {
    name: &'static str,
    run: RunVariant<'a>,
    /// Nanoseconds per iteration, one for each block.
    blocks_ns: Vec<f64>,
}

/// Variants to compare. The first is the floor.
pub struct Interleaved<'a> {
    variants: Vec<Variant<'a>>,
    block_iterations: u64,
}

/// What was measured of a variant.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The variant.
    pub name: &'static str,
    /// Median time of an iteration, in microseconds.
    pub median_us: f64,
    /// Median of its time against the floor's in the same block.
    pub ratio: f64,
}

impl<'a> Interleaved<'a> {
    /// No variants yet; each runs `block_iterations` times before the next has its turn.
    #[must_use]
    pub fn new(block_iterations: u64) -> Self {
        Self { variants: Vec::new(), block_iterations }
    }

    /// Adds a variant; the first is the floor.
    #[must_use]
    pub fn with(mut self, name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        self.variants.push(Variant { name, run: Box::new(run), blocks_ns: Vec::new() });
        self
    }

    /// Runs every variant for at least `iterations` and returns the time of variant `wanted`.
    fn sample(&mut self, wanted: usize, iterations: u64) -> Duration {
        let mut total = Duration::ZERO;
        let mut left = iterations;
        while left > 0 {
            let block = left.min(self.block_iterations);
            left -= block;
            for (index, variant) in self.variants.iter_mut().enumerate() {
                let time = (variant.run)(block);
                variant.blocks_ns.push(time.as_nanos() as f64 / block as f64);
                if index == wanted {
                    total += time;
                }
            }
        }
        total
    }

    /// Measures all variants as rows of `group`, each named `row/variant`, and prints one line.
    pub fn bench(mut self, group: &mut BenchmarkGroup<'_, WallTime>, row: &str) -> Vec<Measured> {
        group.sampling_mode(SamplingMode::Flat);
        for index in 0..self.variants.len() {
            let id = format!("{row}/{}", self.variants[index].name);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|iterations| self.sample(index, iterations));
            });
        }
        let results = self.results();
        print_line(row, &results);
        results
    }

    fn results(&self) -> Vec<Measured> {
        let Some(floor) = self.variants.first() else { return Vec::new() };
        let ratio = |variant: &Variant<'_>| {
            median(variant.blocks_ns.iter().zip(&floor.blocks_ns).map(|(a, b)| a / b).collect())
        };
        let result = |variant: &Variant<'_>| Measured {
            name: variant.name,
            median_us: median(variant.blocks_ns.clone()) / 1e3,
            ratio: ratio(variant),
        };
        self.variants.iter().map(result).collect()
    }
}

/// One line for people. Nothing when a filter on the command line left nothing to measure.
fn print_line(row: &str, results: &[Measured]) {
    if results.iter().any(|result| !result.median_us.is_finite()) {
        return;
    }
    let parts: Vec<String> = results
        .iter()
        .map(|r| format!("{} {:.2} us (x{:.3})", r.name, r.median_us, r.ratio))
        .collect();
    println!("== {row}: {}\n", parts.join(", "));
}

/// The middle value; NaN of nothing.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_a_block() {
        // The host becomes three times slower half way; the ratio stays.
        let speed = std::cell::Cell::new(0);
        let time = |base: u64| {
            let calls = &speed;
            move |iterations: u64| {
                calls.set(calls.get() + 1);
                let slow = if calls.get() > 10 { 3 } else { 1 };
                Duration::from_nanos(base * slow * iterations)
            }
        };
        let mut set = Interleaved::new(5).with("floor", time(100)).with("other", time(110));
        assert_eq!(set.sample(0, 7), Duration::from_nanos(700));
        set.sample(1, 50);
        assert!((set.results()[1].ratio - 1.1).abs() < 1e-9);
    }
}
