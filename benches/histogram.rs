//! Latencies in buckets of at most 1.6 % width, so that a quantile costs no memory per request.

use std::time::Duration;

/// Buckets per doubling.
const STEPS: u64 = 64;

/// Counts of latencies, from nanoseconds to minutes.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; bucket_of(u64::MAX) + 1], total: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(nanoseconds)] += 1;
        self.total += 1;
    }

    /// The latency that this share of the requests did not exceed; zero without requests.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Duration::from_nanos(lowest_of(bucket as u64));
            }
        }
        Duration::ZERO
    }
}

fn bucket_of(nanoseconds: u64) -> usize {
    if nanoseconds < STEPS {
        return nanoseconds as usize;
    }
    let doubling = u64::from(nanoseconds.ilog2() - STEPS.ilog2());
    ((doubling + 1) * STEPS + ((nanoseconds >> doubling) - STEPS)) as usize
}

fn lowest_of(bucket: u64) -> u64 {
    if bucket < STEPS {
        return bucket;
    }
    let doubling = bucket / STEPS - 1;
    (STEPS + bucket % STEPS) << doubling
}
