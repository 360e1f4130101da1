//! How long a part of a mirror is left alone after a failure.

use std::time::Duration;

use tokio::time::Instant;

use super::SyncError;
use crate::crm::CrmError;

/// The first rest after a failure; doubled up to the last.
const FIRST: Duration = Duration::from_secs(5);
const LAST: Duration = Duration::from_mins(1);
/// A CRM that asks to wait a moment means a moment.
const SHORTEST: Duration = Duration::from_secs(1);
/// After a refusal that only a person can mend.
const REFUSED: Duration = Duration::from_mins(5);
/// After a block by the vendor: asking on would make it worse.
const BLOCKED: Duration = Duration::from_mins(10);

/// When a part is due next, and how often it has failed in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    failures: u32,
    due: Instant,
}

impl Turn {
    /// Due at once.
    pub(super) fn now() -> Self {
        Self {
            failures: 0,
            due: Instant::now(),
        }
    }

    /// When it is due.
    pub(super) fn due(self) -> Instant {
        self.due
    }

    /// Says whether it is due.
    pub(super) fn is_due(self) -> bool {
        self.due <= Instant::now()
    }

    /// It went well: due again after `usual`.
    pub(super) fn succeeded(&mut self, usual: Duration) {
        self.failures = 0;
        self.due = Instant::now() + usual;
    }

    /// It failed: rests as long as the failure asks for, or each time longer.
    pub(super) fn failed(&mut self, error: &SyncError) {
        let growing = FIRST * 2_u32.saturating_pow(self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.due = Instant::now() + asked_for(error).unwrap_or(growing.min(LAST));
    }
}

/// How long a failure asks to be left alone; `None` leaves it to the growing rest.
fn asked_for(error: &SyncError) -> Option<Duration> {
    match error {
        SyncError::Crm(CrmError::RateLimited(wait) | CrmError::OutOfBudget(wait)) => {
            Some((*wait).max(SHORTEST))
        }
        SyncError::Crm(CrmError::Blocked(_)) => Some(BLOCKED),
        SyncError::Crm(CrmError::Unauthorized(_) | CrmError::Forbidden { .. }) => Some(REFUSED),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rests_grow_until_the_next_success() {
        let down = SyncError::Crm(CrmError::Unreachable {
            method: "x".to_owned(),
            cause: "down".into(),
        });
        let mut turn = Turn::now();
        let mut rests = Vec::new();
        for _ in 0..9 {
            turn.failed(&down);
            rests.push((turn.due() - Instant::now()).as_secs());
        }
        assert_eq!(rests, [5, 10, 20, 40, 60, 60, 60, 60, 60]);
        turn.succeeded(Duration::from_mins(1));
        assert!(!turn.is_due());
        turn.failed(&down);
        assert_eq!((turn.due() - Instant::now()).as_secs(), 5);
        turn.failed(&SyncError::Crm(CrmError::Blocked("403".to_owned())));
        assert_eq!(turn.due() - Instant::now(), BLOCKED);
    }
}
