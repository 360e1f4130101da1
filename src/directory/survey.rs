//! What somebody should mend in the CRM, found by looking through all cards: [`Survey`].
//!
//! It takes seconds, so whoever shows it keeps the last one in a [`Surveyor`]. How much each day's
//! survey found is kept as [`Findings`]: figures that should fall.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Directory, DirectoryError, Roster};
use crate::phone::E164;
use crate::record::{CrmName, EmployeeId, EntityId, EntityKind};

const SECONDS_PER_DAY: i64 = 86_400;

/// What is to be mended. Closed leads and deals are left out: they decide no call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Numbers whose cards have two or more different responsibles, all of them working.
    pub shared: Tally<SharedNumber>,
    /// Cards whose responsible is dismissed or nobody.
    pub left: Tally<LeftCard>,
    /// Cards with something in a phone field that is no number.
    pub unread: Tally<UnreadNumber>,
}

/// How often something was found, and the first of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tally<T> {
    /// How often.
    pub total: u64,
    /// At most [`Tally::MOST_SAMPLES`].
    pub samples: Vec<T>,
}

impl<T> Default for Tally<T> {
    fn default() -> Self {
        Self {
            total: 0,
            samples: Vec::new(),
        }
    }
}

impl<T> Tally<T> {
    /// The most samples that are kept.
    pub const MOST_SAMPLES: usize = 1000;

    /// Says whether another one would still be kept.
    pub fn has_room(&self) -> bool {
        self.samples.len() < Self::MOST_SAMPLES
    }

    /// Counts one, and keeps it while there is room.
    pub fn add(&mut self, one: T) {
        self.count();
        if self.has_room() {
            self.samples.push(one);
        }
    }

    /// Counts one without keeping it.
    pub fn count(&mut self) {
        self.total += 1;
    }
}

/// A card, as far as a list names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CardRef {
    /// The CRM that it comes from.
    pub crm: CrmName,
    /// Its kind.
    pub kind: EntityKind,
    /// Its identifier there.
    pub id: EntityId,
    /// Its name; may be empty.
    pub name: String,
    /// The employee responsible.
    pub responsible: Option<EmployeeId>,
}

/// A number with several responsibles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedNumber {
    /// The number.
    pub phone: E164,
    /// Its cards whose responsible works; at most [`SharedNumber::MOST_CARDS`].
    pub cards: Vec<CardRef>,
}

impl SharedNumber {
    /// A number in more cards is a placeholder; the first ones show it.
    pub const MOST_CARDS: usize = 20;
}

/// A card without anybody who could take its calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftCard {
    /// The card.
    pub card: CardRef,
    /// What is the matter with its responsible.
    pub why: Left,
}

/// Why a card's responsible takes no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Left {
    /// Dismissed or switched off.
    Dismissed,
    /// The CRM tells of no such employee.
    Unknown,
}

/// A card with a phone field that gives no number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadNumber {
    /// The card.
    pub card: CardRef,
    /// What stands there.
    pub text: String,
}

/// How much there was to be mended, as it is kept for a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings {
    /// Numbers with several responsibles, see [`Survey::shared`].
    pub shared: u64,
    /// Cards on people who are gone, see [`Survey::left`].
    pub left: u64,
    /// Numbers that cannot be read, see [`Survey::unread`].
    pub unread: u64,
    /// Employees who cannot be rung for want of an extension.
    pub without_extension: u64,
}

impl Findings {
    /// So many days are kept, the newest.
    pub const DAYS_KEPT: u32 = 400;

    /// What a survey and the roster of the same moment say.
    pub fn of(survey: &Survey, roster: &Roster) -> Self {
        Self {
            shared: survey.shared.total,
            left: survey.left.total,
            unread: survey.unread.total,
            without_extension: roster.without_extension().len() as u64,
        }
    }

    /// The day under which the findings of a moment are kept: days since 1970, by UTC.
    pub fn day_of(at: Timestamp) -> i64 {
        at.as_second().div_euclid(SECONDS_PER_DAY)
    }
}

/// The last survey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// What was found.
    pub survey: Survey,
    /// When it ended.
    pub at: Timestamp,
}

/// Keeps the last survey, and runs one at a time in the background.
pub struct Surveyor {
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    runtime: Handle,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    latest: Option<Arc<Surveyed>>,
    /// Why the last one failed, if it did.
    error: Option<Arc<DirectoryError>>,
    running: bool,
}

impl Surveyor {
    /// Nothing is surveyed yet. Surveys run on `runtime`, away from calls.
    pub fn new(
        directory: Arc<dyn Directory>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        runtime: Handle,
    ) -> Self {
        Self {
            directory,
            clock,
            runtime,
            state: watch::Sender::default(),
        }
    }

    /// The last survey that succeeded; `None` before the first.
    pub fn latest(&self) -> Option<Arc<Surveyed>> {
        self.state.borrow().latest.clone()
    }

    /// Why the last survey failed; `None` if it did not, and before the first.
    pub fn error(&self) -> Option<Arc<DirectoryError>> {
        self.state.borrow().error.clone()
    }

    /// Says whether one runs.
    pub fn is_running(&self) -> bool {
        self.state.borrow().running
    }

    /// Begins a survey unless one runs; says whether it began. Returns at once.
    pub fn refresh(self: &Arc<Self>) -> bool {
        let begins = self
            .state
            .send_if_modified(|state| !std::mem::replace(&mut state.running, true));
        if begins {
            let surveyor = Arc::clone(self);
            self.runtime.spawn(async move {
                // Also when the task is cut short with its runtime, or panics.
                let _end = End(&surveyor);
                let surveyed = surveyor.directory.survey().await;
                if let Err(error) = &surveyed {
                    let error: &dyn std::error::Error = error;
                    tracing::warn!(
                        error,
                        "cannot look through the cards for what is to be mended"
                    );
                }
                let at = (surveyor.clock)();
                surveyor.state.send_modify(|state| match surveyed {
                    Ok(survey) => {
                        state.latest = Some(Arc::new(Surveyed { survey, at }));
                        state.error = None;
                    }
                    Err(error) => state.error = Some(Arc::new(error)),
                });
            });
        }
        begins
    }

    /// Waits for a survey to succeed after `known`; `None` stands for before the first.
    pub async fn after(&self, known: Option<&Arc<Surveyed>>) -> Arc<Surveyed> {
        let mut state = self.state.subscribe();
        loop {
            let latest = state.borrow_and_update().latest.clone();
            let is_known = |latest: &Arc<Surveyed>| known.is_some_and(|it| Arc::ptr_eq(it, latest));
            if let Some(latest) = latest.filter(|latest| !is_known(latest)) {
                return latest;
            }
            // The sender lives as long as `self`: this cannot fail.
            let _ = state.changed().await;
        }
    }

    /// Waits until none runs.
    pub async fn ended(&self) {
        // The sender lives as long as `self`: this cannot fail.
        let _ = self
            .state
            .subscribe()
            .wait_for(|state| !state.running)
            .await;
    }
}

/// Notes the end of a survey when it is dropped.
struct End<'a>(&'a Surveyor);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.running = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_utc() {
        let day = |written: &str| Findings::day_of(written.parse().unwrap());
        assert_eq!(day("1970-01-01T23:59:59Z"), 0);
        assert_eq!(day("1969-12-31T23:59:59Z"), -1);
        assert_eq!(day("2026-11-22T00:00:00Z"), 20_779);
        assert_eq!(day("2026-11-22T02:59:59+03:00"), 20_778);
    }
}
