//! A part of what a CRM tells of its people that may be missing: departments, groups, absences.
//!
//! Employees must not wait for it for good, and a moment's fault must not wipe what the mirror has.
//! So a refusal leaves the part out and is told once; after any other fault what was read last stands
//! in. Before anything was read in this life of the daemon, the whole reading fails a few times
//! instead: then the mirror keeps the people of its former life, with all their parts.

use std::sync::{Mutex, MutexGuard};

use super::CrmError;
use crate::fault::{self, lock};
use crate::record::CrmName;

/// So many readings fail as a whole before one goes on without a part that was never read.
const PATIENT_READINGS: u32 = 3;

/// One such part.
#[derive(Debug)]
pub(super) struct Part<T> {
    /// What it is, for the log: "departments".
    what: &'static str,
    weight: Weight,
    state: Mutex<State<T>>,
}

/// How much somebody wants a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Somebody counts on it: that it is missing is a warning.
    Wanted,
    /// It is taken where the CRM gives it.
    Welcome,
}

#[derive(Debug)]
struct State<T> {
    last: Option<T>,
    /// Readings in a row that failed for want of this part.
    failures: u32,
    /// What was told of it last, not to be told again.
    told: Option<String>,
}

impl<T: Clone + Default> Part<T> {
    /// A part of which nothing was read yet.
    pub(super) fn new(what: &'static str, weight: Weight) -> Self {
        let state = State {
            last: None,
            failures: 0,
            told: None,
        };
        Self {
            what,
            weight,
            state: Mutex::new(state),
        }
    }

    /// Gives what was read or what stands in for it; an error if the whole reading had better fail.
    pub(super) fn settle(&self, crm: &CrmName, read: Result<T, CrmError>) -> Result<T, CrmError> {
        let error = match read {
            Ok(part) => {
                *self.state() = State {
                    last: Some(part.clone()),
                    failures: 0,
                    told: None,
                };
                return Ok(part);
            }
            Err(error) => error,
        };
        if is_refusal(&error) {
            self.state().last = None;
            self.tell(crm, &error);
            return Ok(T::default());
        }
        {
            let mut state = self.state();
            state.failures = state.failures.saturating_add(1);
            if state.last.is_none() && state.failures <= PATIENT_READINGS {
                return Err(error);
            }
        }
        self.tell(crm, &error);
        Ok(self.state().last.clone().unwrap_or_default())
    }

    /// It was read, and nothing is kept of it: the next fault is told again.
    pub(super) fn went_well(&self) {
        self.state().told = None;
    }

    /// Logs why the part is missing or old, unless that was the last thing said of it.
    pub(super) fn tell(&self, crm: &CrmName, error: &CrmError) {
        let (crm, what, fault) = (crm.as_str(), self.what, fault::told(error));
        let mut state = self.state();
        // Errors may hold times and numbers; their kind is what an administrator wants to know once.
        if state.told.as_deref() == Some(error.label()) {
            return;
        }
        state.told = Some(error.label().to_owned());
        let instead = if state.last.is_some() {
            "with what was read before"
        } else {
            "without"
        };
        match self.weight {
            Weight::Wanted => {
                tracing::warn!(
                    crm,
                    fault,
                    "{what} cannot be read; employees go on {instead}"
                );
            }
            Weight::Welcome => {
                tracing::info!(crm, fault, "{what} are not read; employees go on {instead}");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

/// Says whether asking again changes nothing until a person does something.
pub(super) fn is_refusal(error: &CrmError) -> bool {
    matches!(error, CrmError::Forbidden { .. } | CrmError::Refused { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(part: &Part<u32>, read: Result<u32, CrmError>) -> Option<u32> {
        part.settle(&CrmName::new("sales"), read).ok()
    }

    fn part() -> Part<u32> {
        Part::new("departments", Weight::Wanted)
    }

    fn passing() -> Result<u32, CrmError> {
        Err(CrmError::Unreachable {
            method: "department.get".to_owned(),
            cause: "HTTP 502".into(),
        })
    }

    fn refused() -> Result<u32, CrmError> {
        Err(CrmError::Forbidden {
            method: "department.get".to_owned(),
            text: "tick the right".to_owned(),
        })
    }

    #[test]
    fn what_was_read_last_stands_in_for_a_passing_fault() {
        let part = part();
        assert_eq!(settle(&part, Ok(7)), Some(7));
        for _ in 0..10 {
            assert_eq!(settle(&part, passing()), Some(7));
        }
        assert_eq!(settle(&part, Ok(8)), Some(8));
    }

    #[test]
    fn a_part_that_was_never_read_holds_the_others_up_a_few_times_only() {
        let part = part();
        let tries: Vec<Option<u32>> = (0..5).map(|_| settle(&part, passing())).collect();
        assert_eq!(tries, [None, None, None, Some(0), Some(0)]);
        assert_eq!(settle(&part, Ok(7)), Some(7));
    }

    #[test]
    fn a_refusal_leaves_it_out_at_once() {
        let part = part();
        assert_eq!(settle(&part, refused()), Some(0));
        assert_eq!(settle(&part, Ok(7)), Some(7));
        assert_eq!(settle(&part, refused()), Some(0));
    }
}
