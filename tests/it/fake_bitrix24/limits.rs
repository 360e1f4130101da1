//! The two limits of a portal: a leaky bucket of requests, and each method's working time in ten
//! one-minute buckets. Both count whatever is let in; what they refuse, they count as a violation.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::Options;

/// How many minutes a portal remembers.
const REMEMBERED_MINUTES: u64 = 10;

pub struct Meter {
    per_second: f64,
    burst: f64,
    operating_seconds: f64,
    minute_seconds: f64,
    started: Instant,
    level: f64,
    measured_at: Instant,
    minutes: HashMap<String, VecDeque<(u64, f64)>>,
}

impl Meter {
    pub fn new(options: &Options) -> Self {
        let now = Instant::now();
        Self {
            per_second: options.per_second * options.speed,
            burst: options.burst,
            operating_seconds: options.operating_seconds / options.speed,
            minute_seconds: 60.0 / options.speed,
            started: now,
            level: 0.0,
            measured_at: now,
            minutes: HashMap::new(),
        }
    }

    /// Takes a request into the bucket, if it has room.
    pub fn take_request(&mut self) -> bool {
        let now = Instant::now();
        let leaked = now.duration_since(self.measured_at).as_secs_f64() * self.per_second;
        self.level = (self.level - leaked).max(0.0);
        self.measured_at = now;
        let has_room = self.level + 1.0 <= self.burst;
        if has_room {
            self.level += 1.0;
        }
        has_room
    }

    /// Says whether the method may be called.
    pub fn has_time(&mut self, method: &str) -> bool {
        self.spent(method) < self.operating_seconds
    }

    pub fn add(&mut self, method: &str, seconds: f64) {
        let minute = self.minute();
        let minutes = self.minutes.entry(method.to_owned()).or_default();
        match minutes.back_mut() {
            Some((last, spent)) if *last == minute => *spent += seconds,
            _ => minutes.push_back((minute, seconds)),
        }
    }

    pub fn spent(&mut self, method: &str) -> f64 {
        let minute = self.minute();
        let minutes = self.minutes.entry(method.to_owned()).or_default();
        while minutes
            .front()
            .is_some_and(|(first, _)| first + REMEMBERED_MINUTES <= minute)
        {
            minutes.pop_front();
        }
        minutes.iter().map(|(_, spent)| spent).sum()
    }

    /// Seconds until the method's oldest minute is forgotten.
    pub fn reset_in(&self, method: &str) -> f64 {
        let oldest = self
            .minutes
            .get(method)
            .and_then(|minutes| minutes.front())
            .map_or_else(|| self.minute(), |(first, _)| *first);
        #[expect(clippy::cast_precision_loss, reason = "a test runs for minutes")]
        let forgotten = (oldest + REMEMBERED_MINUTES) as f64 * self.minute_seconds;
        (forgotten - self.started.elapsed().as_secs_f64()).max(0.0)
    }

    fn minute(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a test runs for minutes"
        )]
        let minute = (self.started.elapsed().as_secs_f64() / self.minute_seconds) as u64;
        minute
    }
}
