//! Calls at a steady rate, and how long they waited.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The time until the next call of people who know nothing of each other, `rate` a second; `random` is
/// any number.
pub(crate) fn until_next(random: u64, rate: f64) -> Duration {
    let share = ((random >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    Duration::from_secs_f64(-share.ln() / rate)
}

/// p50, p99 and p999 as cells of a table, from microseconds.
pub(crate) fn percentiles(latencies: &Histogram<u64>) -> String {
    let at = |percentile| latencies.value_at_percentile(percentile) as f64 / 1000.0;
    format!(
        "{:.2} ms | {:.2} ms | {:.2} ms",
        at(50.0),
        at(99.0),
        at(99.9)
    )
}
