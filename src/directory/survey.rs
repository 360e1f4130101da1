//! What somebody should mend in the CRM, found by looking through all cards: [`Survey`].
//!
//! It takes seconds, so whoever shows it keeps the last one in a [`Surveyor`].

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Directory, DirectoryError};
use crate::phone::E164;
use crate::record::{CrmName, EmployeeId, EntityId, EntityKind};

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
