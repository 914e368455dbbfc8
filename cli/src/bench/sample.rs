//! Samples: taken in turn, so that a host whose speed drifts slows all variants of a row alike, and
//! summed up as percentiles. Never knows what is measured.

use super::figures::{Adds, rounded};
use crate::error::CliError;
use std::time::{Duration, Instant};

/// Rounds before anything counts: past the first faults, and with the hot set settled.
const WARM_UP: usize = 6;
/// Samples that a row has even when its time is over.
const SAMPLES_MIN: usize = 8;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Samples of each variant.
    pub samples: usize,
    /// The longest that a row's measuring takes, unless it has fewer than a few samples by then.
    pub row_time_max: Duration,
    /// Samples of a variant before the next variant's turn.
    pub block: usize,
}

/// Takes samples of `N` variants in turn. `take` gives one sample of the variant it is asked for,
/// in nanoseconds for each event.
pub fn interleave<const N: usize>(
    plan: Plan,
    mut take: impl FnMut(usize) -> Result<f64, CliError>,
) -> Result<[Vec<f64>; N], CliError> {
    for variant in (0..N).cycle().take(N * WARM_UP) {
        take(variant)?;
    }
    let mut taken: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(plan.samples));
    let started = Instant::now();
    let mut left = plan.samples;
    while left > 0 {
        let block = left.min(plan.block.max(1));
        left -= block;
        for (variant, samples) in taken.iter_mut().enumerate() {
            for _ in 0..block {
                samples.push(take(variant)?);
            }
        }
        let enough = plan.samples - left >= SAMPLES_MIN;
        if enough && started.elapsed() > plan.row_time_max {
            break;
        }
    }
    Ok(taken)
}

/// `time` in nanoseconds for each of `events`.
pub fn per_event(time: Duration, events: u32) -> f64 {
    time.as_nanos() as f64 / f64::from(events.max(1))
}

/// p50, p90 and p99; zeros of nothing.
pub fn percentiles(samples: &[f64]) -> [f64; 3] {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The nearest rank: the smallest sample that this part of all are not above.
    let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    [50, 90, 99].map(|percent| sorted.get(rank(percent)).map_or(0.0, |&value| rounded(value)))
}

/// The median; not a number, of nothing.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What `samples` cost on top of `floor`, sample by sample of the same turn.
pub fn on_top_of(samples: &[f64], floor: &[f64]) -> Adds {
    let less: Vec<f64> = samples.iter().zip(floor).map(|(a, b)| a - b).collect();
    part_of(&less, floor)
}

/// What `samples` are of `floor`, likewise.
pub fn part_of(samples: &[f64], floor: &[f64]) -> Adds {
    let parts: Vec<f64> = samples.iter().zip(floor).map(|(a, b)| a / b * 100.0).collect();
    Adds { ns: percentiles(samples)[0], percent: percentiles(&parts)[0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentiles(&hundred), [50.0, 90.0, 99.0]);
        assert_eq!(percentiles(&[7.0]), [7.0; 3]);
        assert_eq!(percentiles(&[3.0, 1.0, 2.0]), [2.0, 3.0, 3.0]);
        assert_eq!(percentiles(&[]), [0.0; 3]);
    }

    #[test]
    fn what_is_added_survives_a_host_that_slows_down() {
        let floor = [100.0, 100.0, 300.0, 300.0, 300.0];
        let other = [110.0, 110.0, 330.0, 330.0, 330.0];
        let adds = on_top_of(&other, &floor);
        assert_eq!((adds.ns, adds.percent), (30.0, 10.0));
        assert_eq!(part_of(&[50.0, 50.0], &[100.0, 100.0]).percent, 50.0);
    }

    #[test]
    fn variants_take_turns_and_a_row_ends_with_its_time() {
        let mut order = Vec::new();
        let plan = Plan { samples: 4, row_time_max: Duration::MAX, block: 2 };
        let taken: Result<[_; 2], _> = interleave(plan, |variant| {
            order.push(variant);
            Ok(variant as f64)
        });
        assert_eq!(taken.unwrap(), [vec![0.0; 4], vec![1.0; 4]]);
        assert_eq!(order[2 * WARM_UP..], [0, 0, 1, 1, 0, 0, 1, 1]);
        let plan = Plan { samples: 1000, row_time_max: Duration::ZERO, block: 1 };
        let [few] = interleave(plan, |_| Ok(1.0)).unwrap();
        assert_eq!(few.len(), SAMPLES_MIN);
    }
}
