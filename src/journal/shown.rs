//! An entry as it is read: by the API, by `pryamo journal`, by whoever counts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::{EntityRef, Person};
use crate::call::DialStatus;

/// An entry as it is read: the JSON of `/api/v1/journal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// Counts the calls; `before` goes by it.
    pub id: i64,
    /// Counts what was told of all calls; `after` goes by it.
    pub change: i64,
    /// When the call asked first.
    pub at: Timestamp,
    /// Asterisk's linkedid.
    pub call_id: Option<String>,
    /// The caller's number; `None` where it is hidden or unreadable.
    pub caller: Option<String>,
    /// The number dialled.
    pub did: Option<String>,
    /// The caller's card; `None` for an unknown caller.
    pub entity: Option<EntityRef>,
    /// The caller's own person.
    pub responsible: Option<Person>,
    /// The last decision's reason.
    pub reason: String,
    /// Every number that was rung, in order.
    pub tries: Vec<ShownTry>,
    /// How the call ended, as far as anybody told.
    pub end: End,
    /// Who took it.
    pub answered: Option<Answered>,
    /// How it ended for a known caller; `None` for an unknown one.
    pub outcome: Option<KnownOutcome>,
    /// The last decision, step by step.
    pub steps: Vec<ShownStep>,
}

/// A number that was rung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownTry {
    /// The number.
    pub number: String,
    /// Why it was rung; `None` for one that pryamo did not name.
    pub role: Option<String>,
    /// Whose it is.
    pub employee: Option<Person>,
    /// When pryamo named it.
    pub at: Option<Timestamp>,
    /// How long it was to ring.
    pub ring_seconds: Option<u64>,
    /// What became of it; `None` while nobody has told.
    pub status: Option<DialStatus>,
    /// Seconds until then.
    pub after_seconds: Option<u64>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Somebody took it.
    Answered,
    /// The caller hung up while it rang.
    HungUp,
    /// It went on where the dialplan goes without us.
    StandardRoute,
    /// Somebody was rung, and nobody told what came of it.
    NotTold,
}

impl End {
    /// Every end.
    pub const ALL: [Self; 4] = [
        Self::Answered,
        Self::HungUp,
        Self::StandardRoute,
        Self::NotTold,
    ];

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::HungUp => "hung_up",
            Self::StandardRoute => "standard_route",
            Self::NotTold => "not_told",
        }
    }
}

/// Who took a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The number that was rung.
    pub number: String,
    /// Whose it is, where pryamo had named it.
    pub employee: Option<Person>,
    /// Seconds since the call asked first.
    pub after_seconds: Option<u64>,
}

impl Answered {
    /// Says whether this is that person, on whatever phone.
    pub(super) fn is(&self, person: Option<&Person>) -> bool {
        let Some(person) = person else {
            return false;
        };
        let same = |one: &Person| one.crm == person.crm && one.id == person.id;
        self.employee.as_ref().is_some_and(same)
            || person.extension.as_deref() == Some(self.number.as_str())
    }
}

/// How a call of a known caller ended. A closed set: a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownOutcome {
    /// Their own person took it.
    OwnPerson,
    /// Somebody else took it.
    Another,
    /// It went the standard route.
    StandardRoute,
    /// They hung up while somebody was rung.
    HungUp,
    /// Somebody was rung, and nobody told what came of it.
    NotTold,
}

impl KnownOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::OwnPerson,
        Self::Another,
        Self::StandardRoute,
        Self::HungUp,
        Self::NotTold,
    ];

    /// The word used in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnPerson => "own_person",
            Self::Another => "another",
            Self::StandardRoute => "standard_route",
            Self::HungUp => "hung_up",
            Self::NotTold => "not_told",
        }
    }

    /// Reads such a word.
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

/// A step of a decision, as `explain` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownStep {
    /// Its code.
    pub step: String,
    /// Its text.
    pub text: String,
    /// The same in Russian; entries of earlier versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_ru: Option<String>,
}
