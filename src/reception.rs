//! Where every question of the PBX is taken: decided, counted, logged and kept for the journal.
//!
//! All front ends come through here, so that a call asked about over HTTP and over FastAGI is one
//! call. Nothing here may fail or wait: a panic on the way becomes the standard route.

use std::hash::BuildHasher as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures::FutureExt;
use jiff::Timestamp;

use crate::call::{IncomingCall, Outcome};
use crate::decision::{Decision, Reason};
use crate::metrics;
use crate::router::{Purpose, Router};

/// Calls under way whose first question is remembered: so many sets of [`PLACES`], 1 MiB.
const SETS: usize = 32 * 1024;
/// Calls that share a set.
const PLACES: usize = 4;
/// The part of a place that tells its call; the rest is milliseconds since 1970, enough until 2109.
const MARK_BITS: u32 = 22;
const MARK: u64 = (1 << MARK_BITS) - 1;

/// Hears of every decision and of what became of it. Must not wait: a caller does.
pub trait Watcher: Send + Sync {
    /// A question was answered. Not told of questions behind the end of a call.
    fn decided(&self, call: &IncomingCall, decision: &Decision, now: Timestamp);

    /// A number that was rung for a call took it or did not; may be told twice, by the dialplan and by
    /// the PBX's own events.
    fn ended(&self, outcome: &Outcome, now: Timestamp);
}

/// When each call under way asked first. Shared by all receptions of a process, one after another.
///
/// A table of fixed size that no thread locks: each call has one place among a few, and the oldest of
/// them gives way. A call that is forgotten counts as one that asks for the first time.
#[derive(Clone)]
pub struct Memory {
    sets: Arc<[[AtomicU64; PLACES]]>,
    hasher: RandomState,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            sets: (0..SETS).map(|_| Default::default()).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl Memory {
    /// Remembers that this call asks first at `now`.
    fn remember(&self, call_id: &str, now: Timestamp) {
        let (set, mark) = self.places(call_id);
        let rank = |place: &&AtomicU64| {
            let held = place.load(Ordering::Relaxed);
            // Its own place before the oldest one.
            (held & MARK != mark, held >> MARK_BITS)
        };
        if let Some(place) = set.iter().min_by_key(rank) {
            let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
            place.store(millis << MARK_BITS | mark, Ordering::Relaxed);
        }
    }

    /// When this call asked first, if it is remembered.
    fn first_asked(&self, call_id: &str) -> Option<Timestamp> {
        let (set, mark) = self.places(call_id);
        let mut held = set.iter().map(|place| place.load(Ordering::Relaxed));
        let own = held.find(|held| held & MARK == mark && held >> MARK_BITS != 0)?;
        Timestamp::from_millisecond(i64::try_from(own >> MARK_BITS).ok()?).ok()
    }

    /// Where a call may stand, and by which mark it is known there.
    fn places(&self, call_id: &str) -> (&[AtomicU64], u64) {
        let hash = self.hasher.hash_one(call_id);
        let index = usize::try_from(hash >> MARK_BITS).unwrap_or_default() % SETS;
        let set = self.sets.get(index).map_or(&[][..], |set| &set[..]);
        (set, hash & MARK)
    }
}

/// Answers the questions of the PBX.
pub struct Reception {
    router: Arc<Router>,
    /// The wall clock.
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    memory: Memory,
    watchers: Vec<Arc<dyn Watcher>>,
}

impl Reception {
    /// Takes questions for this router.
    pub fn new(
        router: Arc<Router>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        memory: Memory,
        watchers: Vec<Arc<dyn Watcher>>,
    ) -> Self {
        Self {
            router,
            clock,
            memory,
            watchers,
        }
    }

    /// The time by the clock that calls are decided by.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Takes what became of a number that was rung.
    pub fn ended(&self, outcome: &Outcome) {
        let now = (self.clock)();
        tracing::debug!(
            call_id = outcome.call_id,
            number = outcome.number,
            status = outcome.status.as_str(),
            rang_seconds = outcome.rang_seconds,
            talked_seconds = outcome.talked_seconds,
            "ended"
        );
        for watcher in &self.watchers {
            watcher.ended(outcome, now);
        }
    }

    /// Decides a call, writes its line into the log, counts it and tells it on. A panic becomes the
    /// standard route.
    pub async fn decide(&self, mut call: IncomingCall) -> Decision {
        let now = (self.clock)();
        call.waited = self.waited(&call, now);
        let decision = self.answer(&call, now).await;
        if decision.reason != Reason::AfterTheCall {
            for watcher in &self.watchers {
                watcher.decided(&call, &decision, now);
            }
        }
        decision
    }

    /// Decides like [`Reception::decide`] for a question about the caller's name: nobody is rung for
    /// it, so it is no call of the journal's.
    pub async fn name(&self, call: &IncomingCall) -> Decision {
        self.answer(call, (self.clock)()).await
    }

    async fn answer(&self, call: &IncomingCall, now: Timestamp) -> Decision {
        let began = Instant::now();
        let routed = self.router.route(call, now, Purpose::Call);
        let decision = AssertUnwindSafe(routed)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                metrics::count_panic();
                tracing::error!(
                    call_id = call.call_id,
                    "pryamo failed inside; the call goes the standard route"
                );
                Decision::standard_route(Reason::Fault, Vec::new())
            });
        if decision.reason != Reason::AfterTheCall {
            let took = began.elapsed();
            metrics::count_answer(&decision, took);
            log(call, &decision, took);
        }
        decision
    }

    /// How long ago this call asked first; zero for a question without a call id.
    ///
    /// Only a call that is asked about again has waited: an exchange that gives every call one id must
    /// not make callers wait for each other.
    fn waited(&self, call: &IncomingCall, now: Timestamp) -> Duration {
        let Some(id) = &call.call_id else {
            return Duration::ZERO;
        };
        if call.tried.is_empty() {
            self.memory.remember(id, now);
            return Duration::ZERO;
        }
        let first = self.memory.first_asked(id);
        let waited = first.map(|first| now.duration_since(first));
        waited
            .and_then(|waited| Duration::try_from(waited).ok())
            .unwrap_or_default()
    }
}

fn log(call: &IncomingCall, decision: &Decision, took: Duration) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    if let (Some(number), Some(status)) = (call.tried.last(), call.status) {
        tracing::debug!(
            call_id = call.call_id.as_deref().unwrap_or("-"),
            number,
            status = status.as_str(),
            "not taken"
        );
    }
    let caller = decision
        .caller
        .map_or_else(|| "-".to_owned(), crate::phone::E164::masked);
    let decided = decision
        .ring
        .as_ref()
        .map_or("standard route", |target| target.as_str());
    tracing::info!(
        call_id = call.call_id.as_deref().unwrap_or("-"),
        did = call.did.as_ref().map_or("-", |did| did.as_str()),
        caller,
        decision = decided,
        reason = decision.reason.as_str(),
        took_ms = took.as_secs_f64() * 1000.0,
        "call"
    );
    for step in &decision.steps {
        tracing::debug!(
            call_id = call.call_id.as_deref().unwrap_or("-"),
            step = step.code(),
            "step"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_000_000_000 + millis).unwrap()
    }

    #[test]
    fn a_call_is_remembered_by_its_last_first_question() {
        let memory = Memory::default();
        assert_eq!(memory.first_asked("1.1"), None);
        memory.remember("1.1", at(0));
        memory.remember("1.2", at(7));
        memory.remember("1.1", at(250));
        assert_eq!(memory.first_asked("1.1"), Some(at(250)));
        assert_eq!(memory.first_asked("1.2"), Some(at(7)));
    }

    #[test]
    fn of_more_calls_than_there_is_room_for_the_oldest_are_forgotten() {
        let memory = Memory::default();
        let calls = i64::try_from(SETS * PLACES).unwrap() * 4;
        for call in 0..calls {
            memory.remember(&format!("pbx-{call}.1"), at(call));
        }
        let is_known = |call: i64| memory.first_asked(&format!("pbx-{call}.1")) == Some(at(call));
        let newest = (calls - 1000..calls).filter(|call| is_known(*call)).count();
        assert!(newest >= 990, "{newest}");
        assert!((0..1000).filter(|call| is_known(*call)).count() <= 10);
    }
}
