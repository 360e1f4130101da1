//! Reads named cards again: by a filter where it works, one by one where it is ignored.

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use reqwest::StatusCode;

use super::lists::{self, Place};
use super::wire::Row;
use super::{Amocrm, Listed, Query, body, method_of, path_of, shape, too_heavy};
use crate::crm::budget::Lane;
use crate::crm::{CrmError, Page};
use crate::record::{EntityId, EntityKind};

/// Cards under way at once when they are read one by one: a card takes up to a second, and the
/// budget lets some five leave in it.
const CARDS_AHEAD: usize = 6;

/// The cards of these names, those that are there and may be read.
pub(super) async fn read(
    crm: &Amocrm,
    kind: EntityKind,
    ids: &[EntityId],
) -> Result<Page, CrmError> {
    // amoCRM numbers its cards: what is no number is none of its.
    let mut wanted: Vec<u64> = ids.iter().filter_map(number).collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(Page::default());
    }
    if !crm.no_filters.is_believed()
        && let Some(page) = by_filter(crm, kind, &wanted).await?
    {
        return Ok(page);
    }
    one_by_one(crm, kind, wanted).await
}

fn number(id: &EntityId) -> Option<u64> {
    u64::try_from(id.as_number()?).ok()
}

/// All at once. `None` where that does not work: the account ignores the filter, or finds the
/// request too heavy.
async fn by_filter(
    crm: &Amocrm,
    kind: EntityKind,
    wanted: &[u64],
) -> Result<Option<Page>, CrmError> {
    let filter: Query = wanted
        .iter()
        .map(|id| ("filter[id][]", id.to_string()))
        .collect();
    let (listed, server_time) = lists::fetch(crm, Lane::Notice, kind, Place::START, filter).await?;
    let rows = match listed {
        Listed::Rows(list) => list.into_rows(),
        Listed::Nothing => Vec::new(),
        Listed::TooHeavy => return Ok(None),
    };
    if rows.iter().any(|row| !wanted.contains(&row.id)) {
        filters_are_off(crm);
        return Ok(None);
    }
    page(crm, kind, rows, server_time).map(Some)
}

/// Notes that the account ignores filters.
pub(super) fn filters_are_off(crm: &Amocrm) {
    if crm.no_filters.note() {
        tracing::warn!(
            crm = %crm.name,
            "the account ignores filters: changed cards are read one by one, and changes newest \
             first; the vendor's support can switch the filters on"
        );
    }
}

async fn one_by_one(crm: &Amocrm, kind: EntityKind, wanted: Vec<u64>) -> Result<Page, CrmError> {
    let answers: Vec<(Option<Row>, Option<Timestamp>)> = stream::iter(wanted)
        .map(|id| one(crm, kind, id))
        .buffered(CARDS_AHEAD)
        .try_collect()
        .await?;
    let server_time = answers.first().and_then(|(_, time)| *time);
    let rows = answers.into_iter().filter_map(|(row, _)| row).collect();
    page(crm, kind, rows, server_time)
}

/// One card, `None` where there is none: amoCRM answers 204 or 404 then.
async fn one(
    crm: &Amocrm,
    kind: EntityKind,
    id: u64,
) -> Result<(Option<Row>, Option<Timestamp>), CrmError> {
    let path = format!("{}/{id}", path_of(kind));
    let mut query = Query::new();
    if kind == EntityKind::Deal {
        query.push(("with", "contacts".to_owned()));
    }
    let answer = crm.ask(Lane::Notice, &path, &query).await?;
    let row = match answer.status {
        StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => None,
        StatusCode::GATEWAY_TIMEOUT => return Err(too_heavy(&path)),
        _ => Some(body::<Row>(&method_of(&path), &answer)?),
    };
    if row.as_ref().is_some_and(|row| row.id != id) {
        return Err(shape(&method_of(&path), "a card that was not asked for"));
    }
    Ok((row, answer.server_time))
}

fn page(
    crm: &Amocrm,
    kind: EntityKind,
    rows: Vec<Row>,
    server_time: Option<Timestamp>,
) -> Result<Page, CrmError> {
    Ok(Page {
        cards: crm.cards(kind, rows)?,
        server_time,
        ..Page::default()
    })
}
