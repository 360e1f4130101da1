//! What an account turns out not to do, such as keeping to a filter.
//!
//! Nothing says so beforehand, and support may switch it on or off at any time: so it is believed
//! for an hour and then looked at again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long it is believed.
const BELIEVED: Duration = Duration::from_hours(1);

/// One thing that the account may lack.
#[derive(Debug, Default)]
pub(super) struct Lack {
    found_at: Mutex<Option<Instant>>,
    was_found: AtomicBool,
}

impl Lack {
    /// Says whether it was found lacking within the last hour.
    pub(super) fn is_believed(&self) -> bool {
        self.lock().is_some_and(|at| at.elapsed() < BELIEVED)
    }

    /// Notes that it lacks. True for the first time, when it is to be told.
    pub(super) fn note(&self) -> bool {
        *self.lock() = Some(Instant::now());
        !self.was_found.swap(true, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.found_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lack_is_told_once_and_looked_at_again_after_an_hour() {
        let lack = Lack::default();
        assert!(!lack.is_believed());
        assert!(lack.note());
        tokio::time::advance(Duration::from_mins(59)).await;
        assert!(lack.is_believed());
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(!lack.is_believed());
        assert!(!lack.note());
        assert!(lack.is_believed());
    }
}
