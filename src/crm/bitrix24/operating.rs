//! How much of its working time each method has spent.
//!
//! Besides counting requests, Bitrix24 adds up the seconds that each method has worked for us in
//! the last ten minutes (`operating`) and refuses the method for a while once they pass a limit.
//! Every reply tells the sum and when its oldest minute will be forgotten. The portal's clock need
//! not agree with ours, so only differences between its own times are used.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::super::budget::Lane;
use super::wire;

/// How long a refused method rests when the portal does not say until when: one of its minutes.
const UNTOLD_REST: Duration = Duration::from_mins(1);
/// What part of a method's time a walk may use: the rest reads 9000 changed cards in ten minutes.
const WALK_PART: f64 = 0.95;
/// The longest rest that is believed: the portal remembers ten minutes.
const LONGEST_REST: Duration = Duration::from_mins(11);

/// The accounts of all methods.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Seconds that a method may have spent, our share already applied.
    allowance_seconds: f64,
    accounts: Mutex<HashMap<&'static str, Account>>,
}

#[derive(Debug, Default)]
struct Account {
    spent_seconds: f64,
    /// What one call cost on average in the last reply.
    call_seconds: f64,
    forgets_at: Option<Instant>,
    refused_until: Option<Instant>,
}

/// What one reply tells about a method's time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Reading {
    /// Seconds spent in the last ten minutes.
    pub(super) spent_seconds: Option<f64>,
    /// Seconds that this call took.
    pub(super) took_seconds: f64,
    /// How long after the reply the oldest minute is forgotten.
    pub(super) forgets_in: Option<Duration>,
}

impl Reading {
    /// Reads a `time` block; `outer` is that of the whole reply, which may know the time of day
    /// when the inner one of a batch does not.
    pub(super) fn new(time: &Value, outer: &Value) -> Self {
        let number = |block: &Value, key: &str| block.get(key).and_then(wire::number);
        let forgets_in = number(time, "operating_reset_at")
            .zip(number(time, "finish").or_else(|| number(outer, "finish")))
            .and_then(|(reset, now)| Duration::try_from_secs_f64((reset - now).max(0.0)).ok())
            .map(|wait| wait.min(LONGEST_REST));
        Self {
            spent_seconds: number(time, "operating"),
            took_seconds: number(time, "processing")
                .or_else(|| number(time, "duration"))
                .unwrap_or(0.0),
            forgets_in,
        }
    }
}

impl Ledger {
    /// Empty accounts with this allowance for each method.
    pub(super) fn new(allowance_seconds: f64) -> Self {
        Self {
            allowance_seconds,
            accounts: Mutex::default(),
        }
    }

    /// Takes over what a reply told about `method`, one reading for each of its calls.
    pub(super) fn note(&self, method: &'static str, readings: &[Reading]) {
        let Some(last) = readings.iter().rev().find(|r| r.spent_seconds.is_some()) else {
            return;
        };
        let took: f64 = readings.iter().map(|reading| reading.took_seconds).sum();
        let mut accounts = self.lock();
        let account = accounts.entry(method).or_default();
        account.spent_seconds = last.spent_seconds.unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "at most 50 calls")]
        let calls = readings.len() as f64;
        account.call_seconds = took / calls;
        account.forgets_at = last.forgets_in.map(|wait| Instant::now() + wait);
    }

    /// Takes the portal's word that `method` is refused, and tells for how long.
    pub(super) fn refuse(&self, method: &'static str, told: Option<Duration>) -> Duration {
        let mut accounts = self.lock();
        let account = accounts.entry(method).or_default();
        let now = Instant::now();
        let known = account
            .forgets_at
            .map(|at| at.saturating_duration_since(now));
        let rest = told
            .or(known)
            .filter(|rest| !rest.is_zero())
            .unwrap_or(UNTOLD_REST);
        account.refused_until = Some(now + rest);
        rest
    }

    /// How long a background request with `calls` calls of `method` has to wait.
    ///
    /// A walk leaves a part of the allowance to notices and changes.
    pub(super) fn wait(&self, lane: Lane, method: &str, calls: usize) -> Duration {
        let accounts = self.lock();
        let Some(account) = accounts.get(method) else {
            return Duration::ZERO;
        };
        #[expect(clippy::cast_precision_loss, reason = "at most 50 calls")]
        let foreseen = account.spent_seconds + account.call_seconds * calls as f64;
        let allowance_seconds = match lane {
            Lane::Walk => self.allowance_seconds * WALK_PART,
            Lane::Live | Lane::Notice | Lane::Change => self.allowance_seconds,
        };
        let spared = match account.forgets_at {
            Some(at) if foreseen > allowance_seconds => {
                at.saturating_duration_since(Instant::now())
            }
            _ => Duration::ZERO,
        };
        spared.max(account.rest())
    }

    /// How long the portal refuses `method`: what a live lookup minds.
    pub(super) fn refused(&self, method: &str) -> Duration {
        self.lock()
            .get(method)
            .map_or(Duration::ZERO, Account::rest)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn rest(&self) -> Duration {
        self.refused_until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIST: &str = "crm.contact.list";

    fn reading(spent_seconds: f64, took_seconds: f64) -> Reading {
        Reading {
            spent_seconds: Some(spent_seconds),
            took_seconds,
            forgets_in: Some(Duration::from_secs(200)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_method_rests_before_the_next_batch_would_pass_its_allowance() {
        let ledger = Ledger::new(384.0);
        ledger.note(LIST, &[reading(379.0, 0.1), reading(379.1, 0.1)]);
        assert_eq!(ledger.wait(Lane::Change, LIST, 40), Duration::ZERO);
        assert_eq!(
            ledger.wait(Lane::Change, LIST, 50),
            Duration::from_secs(200)
        );
        assert_eq!(ledger.wait(Lane::Walk, LIST, 1), Duration::from_secs(200));
        assert_eq!(
            ledger.wait(Lane::Change, "crm.lead.list", 50),
            Duration::ZERO
        );
        tokio::time::advance(Duration::from_secs(200)).await;
        assert_eq!(ledger.wait(Lane::Change, LIST, 50), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_method_rests_as_long_as_told() {
        let ledger = Ledger::new(384.0);
        assert_eq!(ledger.refuse(LIST, None), UNTOLD_REST);
        ledger.note(LIST, &[reading(480.0, 0.1)]);
        assert_eq!(ledger.refuse(LIST, None), Duration::from_secs(200));
        assert_eq!(ledger.refused(LIST), Duration::from_secs(200));
        let told = Some(Duration::from_secs(30));
        assert_eq!(ledger.refuse(LIST, told), Duration::from_secs(30));
        assert_eq!(ledger.refused("user.get"), Duration::ZERO);
    }

    #[test]
    fn only_the_portals_own_clock_counts() {
        let outer = json!({"finish": 1_795_348_800.0});
        let inner =
            json!({"operating": "12.5", "operating_reset_at": 1_795_348_860, "duration": 0.2});
        let expected = Reading {
            spent_seconds: Some(12.5),
            took_seconds: 0.2,
            forgets_in: Some(Duration::from_mins(1)),
        };
        assert_eq!(Reading::new(&inner, &outer), expected);
        assert_eq!(Reading::new(&json!([]), &json!([])), Reading::default());
    }
}
