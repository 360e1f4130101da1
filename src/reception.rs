//! Where every question of the PBX is taken: decided, counted, logged and kept for the journal.
//!
//! All front ends come through here, so that a call asked about over HTTP and over FastAGI is one
//! call. Nothing here may fail or wait: a panic on the way becomes the standard route.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures::FutureExt;
use jiff::Timestamp;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::call::{IncomingCall, Outcome};
use crate::decision::{Decision, Reason};
use crate::metrics;
use crate::router::{Purpose, Router};

/// Calls under way whose first question is remembered.
const MOST_CALLS: u64 = 100_000;
/// A call that asks no more for so long is over.
const CALL_ENDS: Duration = Duration::from_mins(15);

/// Hears of every decision and of what became of it. Must not wait: a caller does.
pub trait Watcher: Send + Sync {
    /// A question was answered. Not told of questions behind the end of a call.
    fn decided(&self, call: &IncomingCall, decision: &Decision, now: Timestamp);

    /// A number that was rung for a call took it or did not; may be told twice, by the dialplan and by
    /// the PBX's own events.
    fn ended(&self, outcome: &Outcome, now: Timestamp);
}

/// When each call under way asked first. Shared by all receptions of a process, one after another.
#[derive(Clone)]
pub struct Memory(Cache<String, Timestamp, RandomState>);

impl Default for Memory {
    fn default() -> Self {
        let first_asked = Cache::builder()
            .max_capacity(MOST_CALLS)
            .time_to_idle(CALL_ENDS)
            // A full cache that prefers what is asked often would turn new calls away.
            .eviction_policy(EvictionPolicy::lru())
            .build_with_hasher(RandomState::default());
        Self(first_asked)
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
            self.memory.0.insert(id.clone(), now);
            return Duration::ZERO;
        }
        let first = self.memory.0.get(id);
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
