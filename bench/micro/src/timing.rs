//! How a value comes about.
//!
//! A batch of steps is made so large that it takes [`ENOUGH`]; then it runs [`TRIES`] times, and the
//! median of the tries, divided by the number of steps, is the value. Reading the clock costs
//! nothing that way, and a disturbed try does not count.

use std::time::{Duration, Instant};

const ENOUGH: Duration = Duration::from_millis(10);
const TRIES: usize = 5;

/// Nanoseconds that one step takes.
pub(crate) fn each(mut step: impl FnMut()) -> f64 {
    batches(|count| {
        let start = Instant::now();
        for _ in 0..count {
            step();
        }
        start.elapsed()
    })
}

/// The same, for what has to prepare outside of the time it measures: `batch` does a number of steps
/// and returns the time of what counts in them.
pub(crate) fn batches(mut batch: impl FnMut(u64) -> Duration) -> f64 {
    // The first steps warm caches up.
    let mut count = 1;
    loop {
        let took = batch(count);
        if took >= ENOUGH * 8 / 10 {
            break;
        }
        let factor = ENOUGH.as_nanos() / took.as_nanos().max(1) + 1;
        count *= factor.clamp(2, 10) as u64;
    }
    let mut tries = [0.0; TRIES];
    for value in &mut tries {
        *value = batch(count).as_nanos() as f64 / count as f64;
    }
    tries.sort_by(f64::total_cmp);
    tries[TRIES / 2]
}

/// Megabytes a second, from the nanoseconds that a number of bytes takes.
pub(crate) fn bandwidth(bytes: usize, nanoseconds: f64) -> f64 {
    bytes as f64 * 1000.0 / nanoseconds
}
