//! What the account keeps for us: its events, and its lists of deleted cards.
//!
//! The changes since a moment show no deletion, no merge, and not every change of a link; these do.
//! Facts: amocrm.ru/developers/content/crm_platform/events-and-notes; that `with=only_deleted` brings
//! deleted cards with little more than number and time, after amocrm/amocrm-api-php issues 254, 295.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::track::{Dated, Source, Track};
use super::{
    Amocrm, LARGEST_PAGE_RECORDS, account, method_of, path_of, shape, strongest, webhooks,
};
use crate::crm::{CrmError, Cursor, News};
use crate::fault;
use crate::record::{EntityId, EntityKind, Event, Notice};

const EVENTS: &str = "/api/v4/events";
/// The most events that amoCRM gives at once; Kommo would give more.
const LARGEST_EVENTS_PAGE: u32 = 100;
/// The most pages of all lists that one call reads.
const MOST_PAGES: u32 = 50;
/// How often the lists of deleted cards are read, by the account's clock.
const DELETED_EVERY_SECONDS: i64 = 600;
/// The most events that are remembered as seen; one that is forgotten is only read once more.
const MOST_SEEN: usize = 500;
/// Events that speak of cards of several kinds.
const OF_ANY_KIND: [&str; 4] = [
    "entity_merged",
    "entity_responsible_changed",
    "entity_linked",
    "entity_unlinked",
];

/// How far the news have been read: the cursor, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mark {
    events: Track,
    /// Events that the next reading meets again: when each was, and its name.
    seen: Vec<(i64, String)>,
    deleted: BTreeMap<EntityKind, Track>,
    /// When the lists of deleted cards were last read to their ends, Unix seconds.
    deleted_read_at: Option<i64>,
}

impl Mark {
    /// From now on: all that was before is in the cards that are walked.
    fn new(now: i64) -> Self {
        Self {
            events: Track::from(now),
            seen: Vec::new(),
            deleted: BTreeMap::new(),
            deleted_read_at: None,
        }
    }

    /// A cursor of unknown form starts anew; what is lost by that the full walk finds.
    fn read(cursor: Option<&Cursor>, now: i64) -> Self {
        let Some(cursor) = cursor else {
            return Self::new(now);
        };
        serde_json::from_str(&cursor.0).unwrap_or_else(|_| {
            tracing::warn!("the cursor of amoCRM's events cannot be read; they begin anew");
            Self::new(now)
        })
    }

    fn cursor(&self) -> Option<Cursor> {
        serde_json::to_string(self).ok().map(Cursor)
    }

    fn deleted_are_due(&self, now: i64) -> bool {
        self.deleted.values().any(Track::is_under_way)
            || self
                .deleted_read_at
                .is_none_or(|at| now.saturating_sub(at) >= DELETED_EVERY_SECONDS)
    }

    fn is_under_way(&self) -> bool {
        self.events.is_under_way() || self.deleted.values().any(Track::is_under_way)
    }
}

/// An event.
#[derive(Deserialize)]
struct Happening {
    id: String,
    #[serde(rename = "type")]
    what: String,
    /// Not every event is about an entity; those that are asked for are.
    #[serde(default)]
    entity_id: Option<u64>,
    #[serde(default)]
    entity_type: Option<String>,
    created_at: i64,
}

impl Dated for Happening {
    fn second(&self) -> Option<i64> {
        Some(self.created_at)
    }
}

/// A deleted card: all else that it had is null, whatever its form.
#[derive(Deserialize)]
struct GoneRow {
    id: u64,
    #[serde(default)]
    updated_at: Option<i64>,
    #[serde(default)]
    is_deleted: Option<bool>,
}

impl Dated for GoneRow {
    fn second(&self) -> Option<i64> {
        self.updated_at
    }
}

/// What happened since the cursor, as far as one call reads.
pub(super) async fn news(crm: &Amocrm, from: Option<Cursor>) -> Result<News, CrmError> {
    let known = account::look(crm).await;
    let Some(now) = crm.link.server_now() else {
        known?;
        let text = "the CRM does not tell its clock (no `Date` in its answers)";
        return Err(shape(&method_of(account::ACCOUNT), text));
    };
    if let Err(error) = known {
        account::pass_over(&error);
    }
    webhooks::look(crm).await;
    let now = now.as_second();
    let mut mark = Mark::read(from.as_ref(), now);
    let mut pages_left = MOST_PAGES;
    let mut notices = events(crm, &mut mark, now, &mut pages_left).await?;
    if mark.deleted_are_due(now) {
        match deleted(crm, &mut mark, now, &mut pages_left).await {
            Ok(more) => notices.extend(more),
            Err(error) if notices.is_empty() => return Err(error),
            // What is known already is handed out first; a lasting fault comes again.
            Err(error) => tracing::debug!(fault = fault::told(&error), "deleted cards: later"),
        }
    }
    Ok(News {
        notices: strongest(notices),
        cursor: mark.cursor(),
        more: mark.is_under_way(),
        receipt: None,
    })
}

/// The new events. Where they may not be read, the rest of the news has to do.
async fn events(
    crm: &Amocrm,
    mark: &mut Mark,
    now: i64,
    pages_left: &mut u32,
) -> Result<Vec<Notice>, CrmError> {
    if crm.no_events.is_believed() {
        mark.events.skip_to(now);
        return Ok(Vec::new());
    }
    let source = Source {
        path: EVENTS,
        query: vec![("filter[type]", types(&crm.kinds).join(","))],
        filter: Some("filter[created_at][from]"),
        limit: LARGEST_EVENTS_PAGE,
    };
    let rows: Vec<Happening> = match mark.events.follow(crm, &source, pages_left).await {
        Ok(followed) => {
            if followed.is_shapeless {
                events_are_off(crm, "they come neither filtered nor in order");
            }
            followed.rows
        }
        Err(error) if is_about_events(&error) => {
            events_are_off(crm, &fault::told(&error));
            mark.events.skip_to(now);
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let met: HashSet<&str> = mark.seen.iter().map(|(_, id)| id.as_str()).collect();
    let fresh = rows.iter().filter(|row| !met.contains(row.id.as_str()));
    let notices: Vec<Notice> = fresh
        .filter_map(|row| notice(row, &crm.kinds).transpose())
        .collect::<Result<_, _>>()
        .map_err(|text| shape(&method_of(EVENTS), text))?;
    remember(mark, rows);
    Ok(notices)
}

/// The types that are of use for these kinds.
fn types(kinds: &[EntityKind]) -> Vec<String> {
    let of_kind = kinds.iter().flat_map(|kind| {
        let word = word_of(*kind);
        [format!("{word}_deleted"), format!("{word}_restored")]
    });
    of_kind.chain(OF_ANY_KIND.map(str::to_owned)).collect()
}

/// amoCRM's word for a kind of card; its leads are our deals.
fn word_of(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Contact => "contact",
        EntityKind::Company => "company",
        EntityKind::Lead | EntityKind::Deal => "lead",
    }
}

/// What an event says, if it is of a card that is mirrored.
fn notice(row: &Happening, kinds: &[EntityKind]) -> Result<Option<Notice>, String> {
    // Where the filter is ignored, all that happened comes: messages, tasks, notes.
    if !types(kinds).contains(&row.what) {
        return Ok(None);
    }
    let word = row
        .entity_type
        .as_deref()
        .ok_or("missing field `entity_type`")?;
    let id = row.entity_id.ok_or("missing field `entity_id`")?;
    let Some(kind) = kinds.iter().find(|kind| word_of(**kind) == word) else {
        return Ok(None);
    };
    let event = match row.what.as_str() {
        "entity_merged" => Event::Merged,
        what if what.ends_with("_deleted") => Event::Gone,
        _ => Event::Changed,
    };
    Ok(Some(Notice {
        kind: *kind,
        id: EntityId::from(id),
        event,
    }))
}

/// Keeps the names of those that the next reading meets again, the youngest.
fn remember(mark: &mut Mark, rows: Vec<Happening>) {
    let met_again = mark.events.met_again();
    let rows = rows.into_iter().map(|row| (row.created_at, row.id));
    mark.seen.extend(rows);
    mark.seen.retain(|(second, _)| *second >= met_again);
    mark.seen
        .sort_unstable_by(|before, after| after.cmp(before));
    mark.seen.dedup();
    mark.seen.truncate(MOST_SEEN);
}

/// A right that is missing, or a request that this account does not understand.
fn is_about_events(error: &CrmError) -> bool {
    match error {
        CrmError::Forbidden { .. } => true,
        CrmError::Refused { code, .. } => code == "400",
        _ => false,
    }
}

fn events_are_off(crm: &Amocrm, why: &str) {
    if crm.no_events.note() {
        tracing::warn!(
            crm = %crm.name,
            why,
            "the account's events cannot be used: deletions and merges are noticed later, by the \
             lists of deleted cards and by full walks"
        );
    }
}

/// The cards that were deleted since the lists were last read.
async fn deleted(
    crm: &Amocrm,
    mark: &mut Mark,
    now: i64,
    pages_left: &mut u32,
) -> Result<Vec<Notice>, CrmError> {
    let mut notices = Vec::new();
    mark.deleted.retain(|kind, _| crm.kinds.contains(kind));
    for kind in &crm.kinds {
        if *pages_left == 0 {
            return Ok(notices);
        }
        let track = mark.deleted.entry(*kind).or_insert(Track::from(now));
        if crm.no_deleted.is_believed() {
            track.skip_to(now);
            continue;
        }
        let source = Source {
            path: path_of(*kind),
            query: vec![
                ("with", "only_deleted".to_owned()),
                ("order[updated_at]", "desc".to_owned()),
            ],
            filter: None,
            limit: LARGEST_PAGE_RECORDS,
        };
        let followed = track.follow::<GoneRow>(crm, &source, pages_left).await?;
        let (gone, there): (Vec<_>, Vec<_>) = followed
            .rows
            .into_iter()
            .partition(|row| row.is_deleted == Some(true));
        if (followed.is_shapeless || !there.is_empty()) && crm.no_deleted.note() {
            tracing::warn!(
                crm = %crm.name,
                "the account does not list its deleted cards: they are noticed by its events and \
                 by full walks"
            );
        }
        notices.extend(gone.into_iter().map(|row| Notice {
            kind: *kind,
            id: EntityId::from(row.id),
            event: Event::Gone,
        }));
    }
    if !mark.deleted.values().any(Track::is_under_way) {
        mark.deleted_read_at = Some(now);
    }
    Ok(notices)
}

/// Reads an answer as events and as deleted cards.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(body: &[u8]) {
    use super::wire::{List, read};

    if let Ok(list) = read::<List<Happening>>(body) {
        let rows = list.into_rows();
        let told = rows
            .iter()
            .filter_map(|row| notice(row, &super::KINDS).ok().flatten());
        crate::fuzz::notices(&told.collect::<Vec<_>>());
        let mut mark = Mark::read(None, 1_700_000_000);
        remember(&mut mark, rows);
        let _ = Mark::read(mark.cursor().as_ref(), 1_700_000_060);
    }
    if let Ok(list) = read::<List<GoneRow>>(body) {
        let _ = list.into_rows().iter().filter_map(Dated::second).max();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [EntityKind; 3] = [EntityKind::Contact, EntityKind::Company, EntityKind::Deal];

    fn event(what: &str, entity_type: &str, second: i64) -> Happening {
        Happening {
            id: format!("01{what}{second}"),
            what: what.to_owned(),
            entity_id: Some(3001),
            entity_type: Some(entity_type.to_owned()),
            created_at: second,
        }
    }

    #[test]
    fn an_event_says_what_to_look_at() {
        let cases = [
            ("contact_deleted", "contact", "contact 3001 Gone"),
            ("company_restored", "company", "company 3001 Changed"),
            ("lead_deleted", "lead", "deal 3001 Gone"),
            ("entity_merged", "contact", "contact 3001 Merged"),
            ("entity_responsible_changed", "lead", "deal 3001 Changed"),
            ("entity_linked", "company", "company 3001 Changed"),
            ("entity_linked", "customer", ""),
            ("contact_added", "contact", ""),
            ("outgoing_chat_message", "talk", ""),
        ];
        for (what, entity_type, expected) in cases {
            let notice = notice(&event(what, entity_type, 5), &ALL).unwrap();
            let text = notice.map(|it| format!("{} {} {:?}", it.kind, it.id, it.event));
            assert_eq!(text.unwrap_or_default(), expected, "{what}");
        }
        let only_contacts = [EntityKind::Contact];
        for (what, entity_type) in [("lead_deleted", "lead"), ("entity_merged", "company")] {
            let notice = notice(&event(what, entity_type, 5), &only_contacts);
            assert_eq!(notice.unwrap(), None, "{what}");
        }
        assert_eq!(
            types(&only_contacts)[..2],
            ["contact_deleted", "contact_restored"]
        );
        assert!(!types(&only_contacts).contains(&"lead_deleted".to_owned()));
    }

    #[test]
    fn an_event_of_ours_without_its_card_is_damaged() {
        let mut row = event("entity_merged", "contact", 5);
        row.entity_id = None;
        assert!(notice(&row, &ALL).unwrap_err().contains("entity_id"));
    }

    #[test]
    fn only_events_that_come_again_are_remembered_and_not_too_many() {
        let mut mark = Mark::new(1000);
        remember(
            &mut mark,
            (930..=950).map(|at| event("x", "contact", at)).collect(),
        );
        assert_eq!(mark.seen.first().unwrap().0, 950);
        assert_eq!(mark.seen.last().unwrap().0, 940);
        let many = (0..2000).map(|at| event("x", "contact", 1000 + at));
        remember(&mut mark, many.collect());
        assert_eq!(mark.seen.len(), MOST_SEEN);
        assert_eq!(mark.seen.first().unwrap().0, 2999);
    }

    #[test]
    fn an_unknown_cursor_begins_now() {
        let mark = Mark::new(1000);
        assert_eq!(Mark::read(mark.cursor().as_ref(), 2000), mark);
        for unknown in ["", "{}", "17", r#"{"events":{"from":"x"}}"#] {
            let cursor = Cursor(unknown.to_owned());
            assert_eq!(Mark::read(Some(&cursor), 2000), Mark::new(2000));
        }
    }
}
