//! amoCRM's numbered pages as streams: the full walk and the changes since a moment.
//!
//! Pages are offsets. A full walk goes by id, where rows stay put; what changes meanwhile is left to
//! the changes. These go newest first: a row that changes during the walk jumps to the front and
//! pushes the others back, so rows may repeat, but none slips through between two pages, as it
//! would oldest first or in a window that closes behind it.

use futures::future::BoxFuture;
use futures::stream::{self, FuturesOrdered, Stream, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::wire::{List, Row};
use super::{Amocrm, LARGEST_PAGE_RECORDS, Listed, Query, method_of, path_of, shape, too_heavy};
use crate::crm::budget::Lane;
use crate::crm::{CrmError, Cursor, Page};
use crate::record::{EntityId, EntityKind};

/// Pages under way at once. A page takes up to a second, so fewer would not use up five requests
/// a second; and each one beyond the end is a request for nothing.
const PAGES_AHEAD: usize = 6;
/// Below this many rows a page that is still too heavy is an outage.
const SMALLEST_PAGE_RECORDS: u32 = 25;
/// The changes begin this much before the moment asked for: whether the CRM's bounds are inclusive
/// is not documented, and its search index may lag behind.
const OVERLAP_SECONDS: i64 = 120;

/// A place in a list; the cursor of a walk is this as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The page to ask for next, from 1.
    page: u32,
    /// Rows on a page.
    limit: u32,
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
        let in_range = |place: &Self| {
            place.page >= 1 && (SMALLEST_PAGE_RECORDS..=LARGEST_PAGE_RECORDS).contains(&place.limit)
        };
        read.filter(in_range).unwrap_or_else(|| {
            tracing::warn!("the amoCRM cursor cannot be read; the walk begins anew");
            Self::START
        })
    }

    fn cursor(self) -> Cursor {
        Cursor(format!(
            r#"{{"page":{},"limit":{}}}"#,
            self.page, self.limit
        ))
    }

    fn next(self) -> Self {
        Self {
            page: self.page.saturating_add(1),
            ..self
        }
    }

    /// The same place with half the rows on a page, or a little before it; `None` when it cannot
    /// be halved further.
    fn lighter(self) -> Option<Self> {
        let limit = (self.limit / 2).max(SMALLEST_PAGE_RECORDS);
        if limit == self.limit {
            return None;
        }
        let rows_before = u64::from(self.page - 1) * u64::from(self.limit);
        let page = u32::try_from(rows_before / u64::from(limit)).ok()? + 1;
        Some(Self { page, limit })
    }
}

type Fetched = Result<(Listed<Row>, Option<Timestamp>), CrmError>;

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

/// The cards of a kind that changed since a moment.
///
/// All pages carry the time of the first answer: what changes later is for the next turn.
pub(super) fn changes(
    crm: &Amocrm,
    kind: EntityKind,
    since: Timestamp,
) -> impl Stream<Item = Result<Page, CrmError>> + Send {
    let delta = Delta {
        crm,
        kind,
        from: since.as_second().saturating_sub(OVERLAP_SECONDS).max(0),
        place: Place::START,
        began_at: None,
        newest_first: NewestFirst::default(),
    };
    stream::unfold(Some(delta), |delta| async {
        let mut delta = delta?;
        let page = delta.page().await;
        let goes_on = matches!(page, Ok((_, Outlook::More)));
        Some((page.map(|(page, _)| page), goes_on.then_some(delta)))
    })
}

struct Delta<'a> {
    crm: &'a Amocrm,
    kind: EntityKind,
    /// Unix seconds.
    from: i64,
    place: Place,
    began_at: Option<Timestamp>,
    newest_first: NewestFirst,
}

/// Whether there is more behind a page.
enum Outlook {
    More,
    End,
}

impl Delta<'_> {
    async fn page(&mut self) -> Result<(Page, Outlook), CrmError> {
        loop {
            let order = newest_first_from(self.from);
            let (listed, time) =
                fetch(self.crm, Lane::Change, self.kind, self.place, order).await?;
            self.began_at = self.began_at.or(time);
            match listed {
                Listed::TooHeavy => {
                    self.place = halve(self.place, self.kind)?;
                    // Rows that were seen already come again.
                    self.newest_first.forget_last();
                }
                Listed::Nothing => return Ok((self.dated(Vec::new())?, Outlook::End)),
                Listed::Rows(list) => return self.take(list),
            }
        }
    }

    /// Where filters are off, everything comes; then the order alone tells where to stop, and if
    /// that is ignored too, only a list that ends here is known to be complete.
    fn take(&mut self, list: List<Row>) -> Result<(Page, Outlook), CrmError> {
        let has_more = list.has_more();
        let mut rows = list.into_rows();
        self.newest_first.look_at(&rows);
        let all = rows.len();
        rows.retain(|row| row.updated_at.is_none_or(|second| second >= self.from));
        let is_filtered = rows.len() == all;
        if !is_filtered && has_more && !self.newest_first.holds {
            return Err(CrmError::FilterIgnored {
                method: method_of(path_of(self.kind)),
            });
        }
        let outlook = if has_more && is_filtered {
            Outlook::More
        } else {
            Outlook::End
        };
        self.place = self.place.next();
        Ok((self.dated(rows)?, outlook))
    }

    fn dated(&self, rows: Vec<Row>) -> Result<Page, CrmError> {
        Ok(Page {
            cards: self.crm.cards(self.kind, rows)?,
            server_time: self.began_at,
            ..Page::default()
        })
    }
}

/// Watches whether the CRM keeps to the order asked for.
struct NewestFirst {
    holds: bool,
    last: Option<i64>,
}

impl Default for NewestFirst {
    fn default() -> Self {
        Self {
            holds: true,
            last: None,
        }
    }
}

impl NewestFirst {
    fn look_at(&mut self, rows: &[Row]) {
        for second in rows.iter().filter_map(|row| row.updated_at) {
            self.holds &= self.last.is_none_or(|last| second <= last);
            self.last = Some(second);
        }
    }

    fn forget_last(&mut self) {
        self.last = None;
    }
}

fn id_order() -> Query {
    vec![("order[id]", "asc".to_owned())]
}

fn newest_first_from(second: i64) -> Query {
    vec![
        ("filter[updated_at][from]", second.to_string()),
        ("order[updated_at]", "desc".to_owned()),
    ]
}

async fn fetch(
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

/// The cards of these names, those that are there and may be read.
pub(super) async fn read(
    crm: &Amocrm,
    kind: EntityKind,
    ids: &[EntityId],
) -> Result<Page, CrmError> {
    let wanted = ids.iter().map(|id| ("filter[id][]", id.to_string()));
    let (listed, server_time) =
        fetch(crm, Lane::Notice, kind, Place::START, wanted.collect()).await?;
    let rows = match listed {
        Listed::Rows(list) => list.into_rows(),
        Listed::Nothing => Vec::new(),
        Listed::TooHeavy => return Err(too_heavy(path_of(kind))),
    };
    let cards = crm.cards(kind, rows)?;
    if !cards.iter().all(|card| ids.contains(&card.id)) {
        return Err(CrmError::FilterIgnored {
            method: method_of(path_of(kind)),
        });
    }
    Ok(Page {
        cards,
        server_time,
        ..Page::default()
    })
}

fn halve(place: Place, kind: EntityKind) -> Result<Place, CrmError> {
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
