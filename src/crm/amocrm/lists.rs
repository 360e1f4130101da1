//! amoCRM's numbered pages, and the walk over all of them, several pages ahead.
//!
//! Pages are offsets. A full walk goes by id, where rows stay put; what changes meanwhile is left to
//! the changes.

use futures::future::BoxFuture;
use futures::stream::{self, FuturesOrdered, Stream, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::wire::{List, Row};
use super::{Amocrm, LARGEST_PAGE_RECORDS, Listed, Query, path_of, shape, too_heavy};
use crate::crm::budget::Lane;
use crate::crm::{CrmError, Cursor, Page};
use crate::record::EntityKind;

/// Pages under way at once. A page takes up to a second, so fewer would not use up five requests
/// a second; and each one beyond the end is a request for nothing.
const PAGES_AHEAD: usize = 6;
/// Below this many rows a page that is still too heavy is an outage.
const SMALLEST_PAGE_RECORDS: u32 = 25;

/// A place in a list; the cursor of a walk is this as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The page to ask for next, from 1.
    pub(super) page: u32,
    /// Rows on a page.
    pub(super) limit: u32,
}

impl Place {
    /// The beginning of a list.
    pub(super) const START: Self = Self {
        page: 1,
        limit: LARGEST_PAGE_RECORDS,
    };

    /// A cursor of unknown form starts anew: repeats are harmless, gaps are not.
    pub(super) fn read(cursor: &Cursor) -> Self {
        let read: Option<Self> = serde_json::from_str(&cursor.0).ok();
        read.filter(|place| place.is_possible()).unwrap_or_else(|| {
            tracing::warn!("the amoCRM cursor cannot be read; the walk begins anew");
            Self::START
        })
    }

    /// Says whether a page can be asked for there.
    pub(super) fn is_possible(self) -> bool {
        self.page >= 1 && (SMALLEST_PAGE_RECORDS..=LARGEST_PAGE_RECORDS).contains(&self.limit)
    }

    fn cursor(self) -> Cursor {
        Cursor(format!(
            r#"{{"page":{},"limit":{}}}"#,
            self.page, self.limit
        ))
    }

    /// The page behind this one.
    pub(super) fn next(self) -> Self {
        Self {
            page: self.page.saturating_add(1),
            ..self
        }
    }

    /// The same place with half the rows on a page, or a little before it; `None` when it cannot
    /// be halved further.
    pub(super) fn lighter(self) -> Option<Self> {
        let limit = (self.limit / 2).max(SMALLEST_PAGE_RECORDS);
        if limit == self.limit {
            return None;
        }
        let rows_before = u64::from(self.page - 1) * u64::from(self.limit);
        let page = u32::try_from(rows_before / u64::from(limit)).ok()? + 1;
        Some(Self { page, limit })
    }
}

pub(super) type Fetched = Result<(Listed<Row>, Option<Timestamp>), CrmError>;

/// All cards of a kind, beginning at a place.
pub(super) fn walk(
    crm: &Amocrm,
    kind: EntityKind,
    place: Place,
) -> impl Stream<Item = Result<Page, CrmError>> + Send {
    let walk = Walk {
        crm,
        kind,
        place,
        asked: place,
        ahead: 1,
        flying: FuturesOrdered::new(),
    };
    stream::unfold(Some(walk), |walk| async {
        let mut walk = walk?;
        let page = walk.page().await;
        let goes_on = page.as_ref().is_ok_and(|page| page.cursor.is_some());
        Some((page, goes_on.then_some(walk)))
    })
}

struct Walk<'a> {
    crm: &'a Amocrm,
    kind: EntityKind,
    /// The page that is handed out next.
    place: Place,
    /// The page that is asked for next.
    asked: Place,
    /// How many may be under way: one until the first answer tells that there are more.
    ahead: usize,
    flying: FuturesOrdered<BoxFuture<'a, Fetched>>,
}

impl Walk<'_> {
    async fn page(&mut self) -> Result<Page, CrmError> {
        loop {
            while self.flying.len() < self.ahead {
                let (crm, kind, place) = (self.crm, self.kind, self.asked);
                let fetch = async move { fetch(crm, Lane::Walk, kind, place, id_order()).await };
                self.flying.push_back(Box::pin(fetch));
                self.asked = place.next();
            }
            let Some(fetched) = self.flying.next().await else {
                debug_assert!(false, "a page is always under way");
                return Ok(Page::default());
            };
            let (listed, server_time) = fetched?;
            match listed {
                Listed::TooHeavy => self.lighten()?,
                Listed::Nothing => {
                    return Ok(Page {
                        server_time,
                        ..Page::default()
                    });
                }
                Listed::Rows(list) => return self.hand_out(list, server_time),
            }
        }
    }

    fn hand_out(
        &mut self,
        list: List<Row>,
        server_time: Option<Timestamp>,
    ) -> Result<Page, CrmError> {
        self.ahead = PAGES_AHEAD;
        self.place = self.place.next();
        let has_more = list.has_more();
        Ok(Page {
            cards: self.crm.cards(self.kind, list.into_rows())?,
            cursor: has_more.then(|| self.place.cursor()),
            server_time,
            done: None,
        })
    }

    /// Asks for the same place again in smaller pages; what is under way is dropped.
    fn lighten(&mut self) -> Result<(), CrmError> {
        self.place = halve(self.place, self.kind)?;
        self.asked = self.place;
        self.ahead = 1;
        self.flying = FuturesOrdered::new();
        Ok(())
    }
}

fn id_order() -> Query {
    vec![("order[id]", "asc".to_owned())]
}

/// Asks for one page of a kind's list.
pub(super) async fn fetch(
    crm: &Amocrm,
    lane: Lane,
    kind: EntityKind,
    place: Place,
    mut query: Query,
) -> Fetched {
    if !crm.kinds.contains(&kind) {
        return Err(shape(
            "walk",
            format!("no cards of kind `{kind}` are wanted here"),
        ));
    }
    query.push(("page", place.page.to_string()));
    query.push(("limit", place.limit.to_string()));
    if kind == EntityKind::Deal {
        query.push(("with", "contacts".to_owned()));
    }
    crm.list(lane, path_of(kind), &query).await
}

/// The same place in smaller pages, or the fault that even those are too heavy.
pub(super) fn halve(place: Place, kind: EntityKind) -> Result<Place, CrmError> {
    let lighter = place.lighter().ok_or_else(|| too_heavy(path_of(kind)))?;
    tracing::debug!(limit = lighter.limit, "amoCRM finds the page too heavy");
    Ok(lighter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_says_where_it_stands_and_an_unknown_one_starts_anew() {
        let place = Place {
            page: 17,
            limit: 125,
        };
        assert_eq!(Place::read(&place.cursor()), place);
        for unknown in [
            "",
            "17",
            r#"{"page":0,"limit":250}"#,
            r#"{"page":2,"limit":0}"#,
            r#"{"page":2,"limit":5000}"#,
        ] {
            assert_eq!(Place::read(&Cursor(unknown.to_owned())), Place::START);
        }
    }

    #[test]
    fn halving_a_page_never_skips_a_row() {
        for page in [1, 2, 3, 40, 1_000_000] {
            let mut place = Place { page, limit: 250 };
            let begins_at = |place: Place| u64::from(place.page - 1) * u64::from(place.limit);
            let mut limits = Vec::new();
            while let Some(lighter) = place.lighter() {
                assert!(begins_at(lighter) <= begins_at(place));
                assert!(begins_at(place) - begins_at(lighter) < u64::from(lighter.limit));
                limits.push(lighter.limit);
                place = lighter;
            }
            assert_eq!(limits, [125, 62, 31, 25]);
        }
    }
}
