//! The CRM side and the directory side meet here, and nowhere else.
//!
//! [`mirror`] fills the directory and keeps it fresh, and [`notices`] reads again what the CRM tells
//! of; [`status`] says how that stands; [`live`] asks for a number that it lacks; [`import`] takes an
//! exported file.

pub mod import;
pub mod live;
pub mod mirror;
pub mod notices;
mod rest;
pub mod status;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::background;
use crate::crm::{Crm, CrmError, Page};
use crate::directory::{Change, Directory, DirectoryError, SyncState, Unseen};
use crate::phone::{self, E164, Region};
use crate::record::{Card, CrmName, EntityId, EntityKind};

/// The wall clock, handed in so that tests may set it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// `[sync]`: how the mirror is kept fresh. Seconds throughout.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Between two checks for changed cards. Default: 60.
    pub changes_every_seconds: u64,
    /// Between two readings of the employees. Default: 600.
    pub employees_every_seconds: u64,
    /// Between two full walks, which find deletions. Default: 86400; 0 = only when asked.
    pub walk_every_seconds: u64,
    /// A walk that would delete more than this share of a kind's cards deletes nothing and raises an
    /// alarm. Default: 20 (percent).
    pub most_deleted_percent: u64,
    /// Between two looks into what the CRM keeps for us: Bitrix24's offline events, amoCRM's list of
    /// events. Default: 10.
    pub news_every_seconds: u64,
    /// How long after its deletion a card is looked for once more. Default: 300.
    pub second_look_seconds: u64,
    /// Cards whose CRM has not answered for longer make `/readyz` say 503. Default: 3600.
    pub oldest_seconds: u64,
    /// The same for employees. Default: 7200.
    pub oldest_employees_seconds: u64,
}

impl Settings {
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [sync]
# changes_every_seconds = 60     # between two checks for changed cards
# employees_every_seconds = 600  # between two readings of the employees
# walk_every_seconds = 86400     # between two full walks, which find deletions; 0 = only when asked
# most_deleted_percent = 20      # a walk that would delete more deletes nothing and raises an alarm
# news_every_seconds = 10        # between two looks into Bitrix24's offline events, amoCRM's events
# second_look_seconds = 300      # a deleted card is looked for once more after this
# oldest_seconds = 3600          # /readyz says 503 once a CRM has not told of its cards for longer
# oldest_employees_seconds = 7200  # the same for employees
";
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            changes_every_seconds: 60,
            employees_every_seconds: 600,
            walk_every_seconds: 86_400,
            most_deleted_percent: 20,
            news_every_seconds: 10,
            second_look_seconds: 300,
            oldest_seconds: 3600,
            oldest_employees_seconds: 7200,
        }
    }
}

/// A CRM to be mirrored and asked.
#[derive(Clone)]
pub struct Source {
    /// The `name` of its table.
    pub name: CrmName,
    /// The connector.
    pub crm: Arc<dyn Crm>,
    /// How its phones are read.
    pub region: Region,
    /// What was mirrored and how phones were read; a change means a new walk.
    pub reading: String,
    /// Which CRM it is: kind and host. A change means that the old mirror is forgotten.
    pub identity: String,
}

/// Cards whose phones are read at a stretch: below a millisecond.
const CARDS_AT_A_STRETCH: usize = 16;
/// How phones are read by this version; raised when the reading changes so that cards must be read
/// again.
const READING: u32 = 1;

impl Source {
    /// Puts a source together; `fields` are the extra fields of its cards that are mirrored.
    pub fn new(
        name: CrmName,
        crm: Arc<dyn Crm>,
        region: Region,
        fields: &[String],
        identity: String,
    ) -> Self {
        let reading = format!("{READING}/{region}/{}", fields.join(","));
        Self {
            name,
            crm,
            region,
            reading,
            identity,
        }
    }

    /// Removes the mirror of another CRM that had this name before.
    pub async fn forget_other(&self, directory: &dyn Directory) -> Result<(), DirectoryError> {
        for kind in EntityKind::ALL {
            let mirrored = directory.sync_state(&self.name, kind).await?.identity;
            if !mirrored.is_empty() && mirrored != self.identity {
                tracing::warn!(crm = %self.name, was = mirrored, is = self.identity,
                    "another CRM has this name now; the mirror of the former one is removed");
                return directory.forget(&self.name).await;
            }
        }
        Ok(())
    }
}

/// A card with the numbers in its phone fields, each once.
type ReadCard = (Card, Vec<E164>);

/// Reads the numbers of cards; gives besides what stands in a phone field and is none.
fn read_phones(
    cards: impl IntoIterator<Item = Card>,
    region: Region,
) -> (Vec<ReadCard>, Vec<(EntityId, String)>) {
    let mut unread = Vec::new();
    let read = cards.into_iter().enumerate().map(|(place, card)| {
        if place.is_multiple_of(CARDS_AT_A_STRETCH) {
            background::step_aside();
        }
        let mut phones: Vec<E164> = Vec::new();
        let mut rest = String::new();
        for field in &card.phones {
            let read = phone::read_field(field, region);
            if read.is_empty() {
                add_unread(&mut rest, field);
            }
            for phone in read {
                if !phones.contains(&phone) && phones.len() < MOST_PHONES {
                    phones.push(phone);
                }
            }
        }
        if !rest.is_empty() {
            unread.push((card.id.clone(), rest));
        }
        (card, phones)
    });
    let read = read.collect();
    (read, unread)
}

/// Notes a phone field that gives no number; one of blanks and strokes says nothing.
fn add_unread(rest: &mut String, field: &str) {
    if !field.contains(char::is_alphanumeric) {
        return;
    }
    if !rest.is_empty() {
        rest.push_str("; ");
    }
    let room = LONGEST_UNREAD_CHARS.saturating_sub(rest.chars().count());
    rest.extend(field.trim().chars().take(room));
}

/// What is kept of a card's phone fields without a number.
const LONGEST_UNREAD_CHARS: usize = 200;

/// Numbers of one card that are mirrored; a card with more is a dump, not a client.
const MOST_PHONES: usize = 200;

/// Why a pass over one kind ended early.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The CRM did not answer as asked.
    #[error(transparent)]
    Crm(#[from] CrmError),
    /// The directory did not take it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// No request for cards is under way for longer, waits and repeats included: what changed before
/// one began, less this, no page can be late for.
const LONGEST_READING: SignedDuration = SignedDuration::from_mins(10);

/// A page as the directory takes it, phones read.
fn change(
    source: &Source,
    kind: EntityKind,
    page: Page,
    walk: u64,
    state: Option<SyncState>,
) -> Change {
    let keep_newer = page
        .server_time
        .and_then(|time| time.checked_sub(LONGEST_READING).ok());
    let (cards, unread) = read_phones(page.cards, source.region);
    Change {
        crm: source.name.clone(),
        kind,
        cards,
        unread,
        walk,
        keep_newer,
        state,
    }
}

/// Fewer missing cards than this are never suspicious, unless nothing is left.
const FEW_CARDS: u64 = 20;

/// Says whether so many cards are missing that somebody must confirm it first.
fn is_suspicious(count: Unseen, most_percent: u64) -> bool {
    let nothing_left = count.unseen > 0 && count.unseen == count.total;
    let many = count.unseen > FEW_CARDS;
    nothing_left || (many && count.unseen * 100 > count.total * most_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_told_with_its_card() {
        let card = |id: u64, phones: &[&str]| {
            let mut card = Card::new(EntityKind::Contact, EntityId::from(id));
            card.phones = phones.iter().map(|&phone| phone.to_owned()).collect();
            card
        };
        let long = "нет ".repeat(100);
        let cards = [
            card(1, &["8 916 123-45-67"]),
            card(2, &[" ask Анна ", "8 916 123-45-67", "12"]),
            card(3, &["", " - ", "+"]),
            card(4, &[long.as_str(), "nor this"]),
        ];
        let (read, unread) = read_phones(cards, Region::default());
        let counts: Vec<usize> = read.iter().map(|(_, phones)| phones.len()).collect();
        assert_eq!(counts, [1, 1, 0, 0]);
        let [(second, text), (fourth, cut)] = unread.as_slice() else {
            panic!("{unread:?}");
        };
        assert_eq!((second.as_str(), text.as_str()), ("2", "ask Анна; 12"));
        assert_eq!(fourth.as_str(), "4");
        assert!(cut.chars().count() <= LONGEST_UNREAD_CHARS + 2, "{cut}");
    }

    #[test]
    fn an_empty_or_shrunken_source_is_suspicious() {
        for (unseen, total, expected, why) in [
            (0, 0, false, "nothing there, nothing gone"),
            (0, 100, false, "nothing gone"),
            (3, 3, true, "nothing left"),
            (5, 12, false, "a few of a few"),
            (21, 100, true, "more than a fifth"),
            (20, 50, false, "few cards, whatever the share"),
            (2_000, 10_000, false, "a fifth"),
            (2_001, 10_000, true, "more than a fifth"),
        ] {
            assert_eq!(
                is_suspicious(Unseen { unseen, total }, 20),
                expected,
                "{why}"
            );
        }
    }
}
