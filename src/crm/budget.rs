//! How many requests a CRM may be sent, and who goes first.
//!
//! One leaky bucket per CRM, as Bitrix24 documents its own (and as fits amoCRM's requests per
//! second when the bucket is small). Every request adds one; the bucket leaks at a fixed rate. A
//! part of the bucket, the reserve, is for live lookups alone, so that a caller's question finds a
//! place at once while a full walk runs. Behind it requests stand in lanes: whoever waits in a later
//! one lets all that wait in earlier ones go first. Time is tokio's, so tests may pause it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::CrmError;

/// What a request is for, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// A caller waits.
    Live,
    /// A card is read again because the CRM has said that something happened to it.
    Notice,
    /// Changes and employees are asked for.
    Change,
    /// All cards are walked over.
    Walk,
}

/// How long a request of a background lane lets more urgent ones go first.
const LONG_ENOUGH: Duration = Duration::from_secs(10);
/// How many lanes there are.
const LANES: usize = Lane::Walk as usize + 1;

/// The bucket's measures, our share of the vendor's limit already applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests a second that the bucket leaks.
    pub per_second: f64,
    /// Requests that fit into the empty bucket at once, the reserve included; at least 1.
    pub burst: f64,
    /// Of these, the requests kept for live lookups.
    pub reserve: f64,
}

/// A CRM's bucket. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    level: f64,
    measured_at: Instant,
    paused_until: Option<Instant>,
    /// Requests that wait in each lane.
    waiting: [usize; LANES],
}

impl Budget {
    /// An empty bucket, or a full one: whoever was started again does not know what was asked a
    /// moment ago, and the vendor does.
    pub fn new(limits: Limits, asked_lately: bool) -> Self {
        let level = if asked_lately { limits.burst } else { 0.0 };
        let state = State {
            level,
            measured_at: Instant::now(),
            paused_until: None,
            waiting: [0; LANES],
        };
        Self {
            limits,
            state: Mutex::new(state),
        }
    }

    /// Waits until a request of a background lane may be sent, and counts it.
    ///
    /// Whoever has waited ten seconds lets only callers go first: no walk waits for ever
    /// because changes are asked for too often.
    pub async fn take(&self, lane: Lane) {
        let _waiting = self.wait_in_line(lane);
        let began = Instant::now();
        loop {
            let urgency = if began.elapsed() < LONG_ENOUGH {
                lane
            } else {
                Lane::Notice
            };
            match self.try_take(urgency) {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Waits at most `patience` until a live request may be sent, and counts it.
    ///
    /// All other requests stand back while this waits. Gives [`CrmError::OutOfBudget`] at once when
    /// the wait would be longer than `patience`.
    pub async fn take_live(&self, patience: Duration) -> Result<(), CrmError> {
        let _waiting = self.wait_in_line(Lane::Live);
        let deadline = Instant::now() + patience;
        while let Err(wait) = self.try_take(Lane::Live) {
            if Instant::now() + wait > deadline {
                return Err(CrmError::OutOfBudget(wait));
            }
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Sends nothing at all for this long: the CRM has asked for it.
    pub fn pause(&self, duration: Duration) {
        let until = Instant::now() + duration;
        let mut state = self.lock();
        state.paused_until = Some(
            state
                .paused_until
                .map_or(until, |earlier| earlier.max(until)),
        );
    }

    /// Takes the vendor's word that the bucket is full: others share it with us.
    pub fn fill(&self) {
        let mut state = self.lock();
        state.level = state.level.max(self.limits.burst);
        state.measured_at = Instant::now();
    }

    /// How long a request of this lane would have to wait now; zero if it would not.
    pub fn wait(&self, lane: Lane) -> Duration {
        let mut state = self.lock();
        self.wait_in(&mut state, lane)
    }

    fn try_take(&self, lane: Lane) -> Result<(), Duration> {
        let mut state = self.lock();
        let wait = self.wait_in(&mut state, lane);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        state.level += 1.0;
        Ok(())
    }

    fn wait_in(&self, state: &mut State, lane: Lane) -> Duration {
        let now = Instant::now();
        let leaked = now.duration_since(state.measured_at).as_secs_f64() * self.limits.per_second;
        state.level = (state.level - leaked).max(0.0);
        state.measured_at = now;
        let paused = state
            .paused_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let room = match lane {
            Lane::Live => self.limits.burst,
            Lane::Notice | Lane::Change | Lane::Walk => self.limits.burst - self.limits.reserve,
        };
        let queued_before: usize = state.waiting.iter().take(lane as usize).sum();
        #[expect(clippy::cast_precision_loss, reason = "a handful of waiting calls")]
        let excess = state.level + 1.0 + queued_before as f64 - room.max(1.0);
        // A hair's breadth of rounding must not become a second sleep.
        let wait = if excess > 1e-6 {
            Duration::from_secs_f64(excess / self.limits.per_second) + Duration::from_millis(1)
        } else {
            Duration::ZERO
        };
        wait.max(paused)
    }

    fn wait_in_line(&self, lane: Lane) -> Waiting<'_> {
        if let Some(count) = self.lock().waiting.get_mut(lane as usize) {
            *count += 1;
        }
        Waiting { budget: self, lane }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request out of the waiting ones, also when nobody wants it any more.
struct Waiting<'a> {
    budget: &'a Budget,
    lane: Lane,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.budget.lock().waiting.get_mut(self.lane as usize) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BITRIX: Limits = Limits {
        per_second: 1.6,
        burst: 40.0,
        reserve: 10.0,
    };

    #[tokio::test(start_paused = true)]
    async fn background_stays_below_its_rate_after_its_burst() {
        let budget = Budget::new(BITRIX, false);
        let start = Instant::now();
        for _ in 0..30 + 160 {
            budget.take(Lane::Walk).await;
        }
        let took = start.elapsed().as_secs_f64();
        assert!((99.9..101.0).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_lookup_finds_a_place_at_once_while_a_walk_runs() {
        let budget = Budget::new(BITRIX, false);
        for _ in 0..30 {
            budget.take(Lane::Walk).await;
        }
        assert!(budget.wait(Lane::Walk) > Duration::ZERO);
        for _ in 0..10 {
            budget.take_live(Duration::ZERO).await.unwrap();
        }
        assert!(matches!(
            budget.take_live(Duration::ZERO).await,
            Err(CrmError::OutOfBudget(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_was_started_again_does_not_begin_with_a_rush() {
        let budget = Budget::new(BITRIX, true);
        budget.take_live(Duration::from_secs(1)).await.unwrap();
        let start = Instant::now();
        for _ in 0..6 {
            budget.take(Lane::Change).await;
        }
        assert!(start.elapsed() >= Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_bucket_keeps_requests_apart() {
        let budget = Budget::new(
            Limits {
                per_second: 5.0,
                burst: 2.0,
                reserve: 1.0,
            },
            false,
        );
        let mut sent = Vec::new();
        for _ in 0..50 {
            budget.take(Lane::Walk).await;
            sent.push(Instant::now());
        }
        for window in sent.windows(7) {
            assert!(window[6] - window[0] > Duration::from_secs(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_urgent_lane_goes_first_whoever_came_first() {
        let budget = Budget::new(
            Limits {
                per_second: 5.0,
                burst: 1.5,
                reserve: 0.5,
            },
            false,
        );
        budget.take(Lane::Walk).await;
        let order = Mutex::new(Vec::new());
        let ask = async |lane| {
            budget.take(lane).await;
            order.lock().unwrap().push(lane);
        };
        tokio::join!(
            ask(Lane::Walk),
            ask(Lane::Walk),
            ask(Lane::Change),
            ask(Lane::Notice),
            async { budget.take_live(Duration::from_secs(1)).await.unwrap() },
        );
        assert_eq!(
            order.into_inner().unwrap(),
            [Lane::Notice, Lane::Change, Lane::Walk, Lane::Walk]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_walk_gets_its_turn_however_many_changes_are_asked_for() {
        let budget = Budget::new(
            Limits {
                per_second: 2.0,
                burst: 2.0,
                reserve: 1.0,
            },
            false,
        );
        let ask_on = async || {
            loop {
                budget.take(Lane::Change).await;
            }
        };
        let walk = async {
            let began = Instant::now();
            for _ in 0..10 {
                budget.take(Lane::Walk).await;
            }
            began.elapsed()
        };
        tokio::select! {
            () = ask_on() => {}
            () = ask_on() => {}
            () = ask_on() => {}
            took = walk => assert!(took < Duration::from_mins(3), "{took:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_vendors_word_stops_all_lanes() {
        let budget = Budget::new(BITRIX, false);
        budget.pause(Duration::from_secs(5));
        assert!(budget.take_live(Duration::from_secs(1)).await.is_err());
        let start = Instant::now();
        budget.take(Lane::Walk).await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        budget.fill();
        assert!(budget.take_live(Duration::ZERO).await.is_err());
    }
}
