//! How a CRM's mirror stands, for monitors and for people.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::SyncError;
use crate::directory::Unseen;
use crate::record::{CrmName, EntityKind};

/// How a CRM's mirror stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// The CRM.
    pub crm: String,
    /// Orders up to this ticket are done.
    pub done_ticket: u64,
    /// Employees read last.
    pub employees: usize,
    /// When the employees were read last.
    pub employees_at: Option<Timestamp>,
    /// What went wrong with the employees last; `None` when all is well.
    pub employees_error: Option<Trouble>,
    /// Each kind.
    pub kinds: BTreeMap<EntityKind, KindStatus>,
    /// The notices that wait, and what went wrong with them.
    pub notices: NoticesStatus,
}

impl Status {
    /// Says whether the vendor has blocked us: somebody must write to the vendor.
    pub fn is_blocked(&self) -> bool {
        self.troubles().any(|trouble| trouble.label == "blocked")
    }

    /// Takes down how a part fares: `error` is what went wrong with it, if anything did.
    ///
    /// Logs a new trouble and its end. A revoked token ails all parts, and is told once.
    pub(super) fn note(&mut self, crm: &CrmName, part: Part, error: Option<&SyncError>) {
        let trouble = error.map(Trouble::of);
        let (words, over) = part.words();
        let kind = part.kind().map(tracing::field::display);
        if let Some(trouble) = &trouble {
            crate::metrics::count_crm_error(crm, &trouble.label);
            if !self.troubles().any(|known| known == trouble) {
                tracing::error!(%crm, kind, error = trouble.text, "{words}");
            }
        }
        let shown = match part {
            Part::Employees => &mut self.employees_error,
            Part::Cards(kind) => &mut self.kinds.entry(kind).or_default().error,
            Part::Notices => &mut self.notices.error,
            Part::News => &mut self.notices.news_error,
        };
        if trouble.is_none() && shown.is_some() {
            tracing::info!(%crm, kind, "{over}");
        }
        *shown = trouble;
    }

    /// What is wrong with any part now.
    pub fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        let kinds = self.kinds.values().map(|kind| &kind.error);
        let others = [
            &self.employees_error,
            &self.notices.error,
            &self.notices.news_error,
        ];
        kinds.chain(others).flatten()
    }
}

/// What is kept by itself, and may go wrong by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Reading the employees.
    Employees,
    /// Walks and changes of one kind.
    Cards(EntityKind),
    /// Reading cards again.
    Notices,
    /// What the CRM keeps for us.
    News,
}

impl Part {
    /// Which cards it is about, if about cards of one kind.
    pub(super) fn kind(self) -> Option<EntityKind> {
        match self {
            Self::Cards(kind) => Some(kind),
            Self::Employees | Self::Notices | Self::News => None,
        }
    }

    /// What is said of its trouble, and of the end of it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Employees => (
                "cannot read the employees; those known stay",
                "the employees are read again",
            ),
            Self::Cards(_) => (
                "the mirror cannot be brought up to date; it answers with what it has",
                "the CRM answers again",
            ),
            Self::Notices => (
                "cards cannot be read again",
                "over again: cards cannot be read again",
            ),
            Self::News => (
                "the CRM's own queue of changes cannot be read",
                "over again: the CRM's own queue of changes cannot be read",
            ),
        }
    }
}

/// How one kind of a CRM's mirror stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KindStatus {
    /// True while a walk runs.
    pub walking: bool,
    /// Cards that the running walk has stored since the daemon took it up.
    pub walked_cards: u64,
    /// The part of the running walk that is done, 0 to 1, where it is known.
    pub done: Option<f64>,
    /// Cards that the running walk had seen before that.
    pub seen_before: u64,
    /// Cards that the walk will meet, if they are as many as at its beginning.
    pub expected: Option<u64>,
    /// When the daemon took the running walk up, and what part was done then or with the first page
    /// after it.
    pub taken_up: Option<(Timestamp, Option<f64>)>,
    /// Cards a second of the running walk, filled in for those who ask.
    pub cards_per_second: Option<f64>,
    /// Until the running walk ends, filled in for those who ask.
    pub seconds_left: Option<u64>,
    /// When a walk last ended whole.
    pub whole_at: Option<Timestamp>,
    /// When the CRM last answered.
    pub fresh_at: Option<Timestamp>,
    /// What went wrong last; `None` when all is well.
    pub error: Option<Trouble>,
    /// Set when a walk found suspiciously few cards.
    pub shrunk: Option<Unseen>,
    /// True while the CRM ignores the question for changes: notices and walks remain.
    pub only_walks: bool,
    /// True after suspiciously many deletions were told: until the next walk none is believed.
    pub doubts_deletions: bool,
}

impl KindStatus {
    /// The part of the running walk that is done, by the number of cards.
    pub(super) fn estimate(&self) -> Option<f64> {
        let expected = self.expected.filter(|expected| *expected > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share = (self.seen_before + self.walked_cards) as f64 / expected as f64;
        Some(share.min(0.99))
    }

    /// Fills in how fast the running walk is and how long it still takes.
    pub fn measure(&mut self, now: Timestamp) {
        let Some((since, done_before)) = self.taken_up.filter(|_| self.walking) else {
            return;
        };
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.walked_cards as f64 / seconds;
        self.cards_per_second = Some(rate);
        self.seconds_left = self.done.and_then(|done| {
            let here = done - done_before?;
            let left = seconds * (1.0 - done) / here;
            let left = SignedDuration::try_from_secs_f64(left).ok()?;
            (here > 0.0).then(|| left.as_secs().unsigned_abs())
        });
    }
}

/// How the notices of a CRM stand.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NoticesStatus {
    /// Cards that wait to be read again.
    pub waiting: u64,
    /// When a notice last came, whichever way.
    pub last_at: Option<Timestamp>,
    /// What went wrong with reading cards again; `None` when all is well.
    pub error: Option<Trouble>,
    /// What went wrong with the CRM's own queue; `None` when all is well or it has none.
    pub news_error: Option<Trouble>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The kind of fault, of a closed set.
    pub label: String,
    /// The fault and its causes in one line.
    pub text: String,
}

impl Trouble {
    /// What is told of an error.
    pub(super) fn of(error: &SyncError) -> Self {
        let label = match error {
            SyncError::Crm(error) => error.label(),
            SyncError::Directory(_) => "directory",
        };
        Self {
            label: label.to_owned(),
            text: crate::fault::told(error),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_tells_its_rate_and_the_time_left() {
        let second = |second: i64| Timestamp::from_second(1_795_348_800 + second).unwrap();
        let mut shown = KindStatus {
            walking: true,
            walked_cards: 3000,
            done: Some(0.5),
            taken_up: Some((second(0), Some(0.2))),
            ..KindStatus::default()
        };
        shown.measure(second(30));
        assert_eq!(shown.cards_per_second, Some(100.0));
        assert_eq!(shown.seconds_left, Some(50));
        let mut unknown = KindStatus {
            done: None,
            seconds_left: None,
            ..shown.clone()
        };
        unknown.measure(second(30));
        assert_eq!(unknown.seconds_left, None);
        let mut standing = KindStatus {
            done: Some(0.2),
            seconds_left: None,
            ..shown
        };
        standing.measure(second(30));
        assert_eq!(standing.seconds_left, None);
    }
}
