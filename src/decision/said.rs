//! What rules and the order of entities say, kept as data: text in a reader's language is made of it
//! only when somebody reads it.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;

use crate::call::{Extension, Target};
use crate::presence::Direction;
use crate::record::{CrmName, EntityId, EntityKind};

/// What a rule says of a whole call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The caller stands in `rules.lists.do_not_route`.
    NeverRouted,
    /// `rules.lists.always_to` has the caller.
    AlwaysTo(Extension),
    /// Somebody spoke with the caller not long ago, and is rung first.
    Talked {
        /// Their name.
        employee: String,
        /// Who had called whom.
        direction: Direction,
        /// When, by the office's clock.
        at: DateTime,
        /// How many whole hours ago.
        hours_ago: i64,
    },
    /// A field of the card names who is rung first.
    CardRings(CardMatch, Extension),
    /// A field of the card wants the standard route.
    CardStandardRoute(CardMatch),
    /// The script printed this.
    ScriptPrinted(String),
    /// The script changed who may be rung.
    ScriptArranged {
        /// Who was offered to it.
        before: Vec<Target>,
        /// Whom it gave back.
        after: Vec<Target>,
    },
    /// The script says which name is shown.
    ScriptNamed(String),
    /// The script wants the standard route.
    ScriptStandardRoute,
    /// The script left everything as it was.
    ScriptChangedNothing,
    /// The script failed: how.
    ScriptFailed(String),
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRouted => f.write_str("the caller stands in `rules.lists.do_not_route`"),
            Self::AlwaysTo(extension) => {
                write!(
                    f,
                    "`rules.lists.always_to` has this caller: {extension} first"
                )
            }
            Self::Talked {
                employee,
                direction,
                at,
                hours_ago,
            } => {
                let how = match direction {
                    Direction::Incoming => "took a call from this number",
                    Direction::Outgoing => "called this number",
                };
                let at = at.strftime("%d.%m.%Y %H:%M");
                write!(f, "{employee} {how} on {at}, {hours_ago} h ago: first")
            }
            Self::CardRings(field, extension) => write!(f, "{field}: {extension} first"),
            Self::CardStandardRoute(field) => write!(f, "{field}: the standard route"),
            Self::ScriptPrinted(text) => f.write_str(text),
            Self::ScriptArranged { before, after } => write!(
                f,
                "candidates were {}, are {}",
                listed(before, "nobody"),
                listed(after, "nobody")
            ),
            Self::ScriptNamed(name) => write!(f, "the name shown is \"{name}\""),
            Self::ScriptStandardRoute => f.write_str("the standard route"),
            Self::ScriptChangedNothing => f.write_str("changed nothing"),
            Self::ScriptFailed(error) => {
                write!(f, "failed, and the call goes on without it: {error}")
            }
        }
    }
}

/// Numbers with commas between them, or the word for none.
pub fn listed(targets: &[Target], none: &str) -> String {
    if targets.is_empty() {
        return none.to_owned();
    }
    let numbers: Vec<&str> = targets.iter().map(Target::as_str).collect();
    numbers.join(", ")
}

/// A field of a card that is as `rules.card` wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardMatch {
    /// The card's CRM.
    pub crm: CrmName,
    /// The card's kind.
    pub kind: EntityKind,
    /// The card's identifier.
    pub id: EntityId,
    /// The field.
    pub field: String,
    /// What it holds.
    pub held: Held,
}

/// What a field of a card holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Exactly this text.
    Is(String),
    /// This text and maybe more.
    Contains(String),
}

impl fmt::Display for CardMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind, id, field, ..
        } = self;
        let (how, what) = match &self.held {
            Held::Is(what) => ("is", what),
            Held::Contains(what) => ("contains", what),
        };
        write!(f, "`{field}` of {kind} {id} {how} \"{what}\"")
    }
}

/// Whose hours keep somebody from being rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoursOf {
    /// The employee's own.
    Employee,
    /// Those of an extension that is nobody's.
    Extension,
    /// Those of the employee's department.
    Department,
    /// Those for calls to the number that was dialled.
    Did,
    /// The office's.
    Office,
}

impl fmt::Display for HoursOf {
    /// As a sentence goes on with the hours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Employee => "works",
            Self::Extension => "these are its hours:",
            Self::Department => "the department works",
            Self::Did => "for this number the office works",
            Self::Office => "the office works",
        })
    }
}

/// What gave an entity its place before the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// There is no next one.
    Last(EntityKind),
    /// The first kind comes before the second in `match.order`.
    Kind(EntityKind, EntityKind),
    /// It changed later, at this time.
    ChangedLater(Timestamp),
    /// It changed at this time, and of the next one nobody knows when.
    OnlyDated(Timestamp),
    /// Both changed at the same time, and its identifier is lower.
    LowerId,
    /// Its CRM stands first in the configuration.
    CrmFirst(CrmName),
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(kind) => write!(f, "{kind} is the last"),
            Self::Kind(kind, next) => write!(f, "{kind} comes before {next}"),
            Self::ChangedLater(at) => write!(f, "changed later, {at}"),
            Self::OnlyDated(at) => write!(f, "changed {at}, the next has no date"),
            Self::LowerId => f.write_str("changed at the same time, lower id"),
            Self::CrmFirst(crm) => write!(f, "{crm} stands first in the configuration"),
        }
    }
}
