//! The cards of a kind that changed since a moment, newest first.
//!
//! Pages are offsets. A row that changes while pages are read jumps to the front and pushes the
//! others back: rows repeat, but none slips through between two pages, as it would oldest first or in
//! a window that closes behind it. A row that is deleted meanwhile draws the others forward; so each
//! page begins a few rows before the end of the last one, and where none of them is met again, the
//! reading steps back.

use std::collections::HashSet;

use futures::stream::{self, Stream};
use jiff::Timestamp;

use super::lists::{self, Place};
use super::read::filters_are_off;
use super::track::is_newest_first;
use super::wire::{List, Row};
use super::{Amocrm, LARGEST_PAGE_RECORDS, Listed, Query, method_of, path_of};
use crate::crm::budget::Lane;
use crate::crm::{CrmError, Page};
use crate::record::EntityKind;

/// The changes begin this much before the moment asked for: whether the CRM's bounds are inclusive
/// is not documented, and its search index may lag behind.
const OVERLAP_SECONDS: i64 = 120;
/// A page begins this many rows before the end of the last one, or a little more.
const SHARED_ROWS: u32 = 5;
/// How often a reading steps back. An account that hides rows from its pages would have it do so for
/// ever; what slips through then is the full walk's to find.
const MOST_STEPS_BACK: u32 = 10;

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
        reader: Reader::default(),
        began_at: None,
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
    reader: Reader,
    began_at: Option<Timestamp>,
}

/// Whether there is more behind a page.
enum Outlook {
    More,
    End,
}

impl Delta<'_> {
    async fn page(&mut self) -> Result<(Page, Outlook), CrmError> {
        loop {
            let place = self.reader.place();
            let query = self.query();
            let (listed, time) =
                lists::fetch(self.crm, Lane::Change, self.kind, place, query).await?;
            self.began_at = self.began_at.or(time);
            let list = match listed {
                Listed::TooHeavy => {
                    self.reader.largest = lists::halve(place, self.kind)?.limit;
                    continue;
                }
                Listed::Nothing => List::default(),
                Listed::Rows(list) => list,
            };
            let has_more = list.has_more();
            let rows = list.into_rows();
            if self.reader.joins(place, &rows) {
                return self.take(rows, has_more);
            }
        }
    }

    /// Newest first; where the account is known to ignore filters, the order alone has to do.
    fn query(&self) -> Query {
        let mut query = Query::new();
        if !self.crm.no_filters.is_believed() {
            query.push(("filter[updated_at][from]", self.from.to_string()));
        }
        query.push(("order[updated_at]", "desc".to_owned()));
        query
    }

    /// Where filters are off, everything comes; then the order alone tells where to stop, and if
    /// that is ignored too, only a list that ends here is known to be complete.
    fn take(&mut self, mut rows: Vec<Row>, has_more: bool) -> Result<(Page, Outlook), CrmError> {
        let is_ordered = is_newest_first(rows.iter().map(|row| row.updated_at));
        let all = rows.len();
        rows.retain(|row| row.updated_at.is_none_or(|second| second >= self.from));
        let is_filtered = rows.len() == all;
        if !is_filtered {
            if has_more && !is_ordered {
                return Err(CrmError::FilterIgnored {
                    method: method_of(path_of(self.kind)),
                });
            }
            if !self.crm.no_filters.is_believed() {
                filters_are_off(self.crm);
            }
        }
        let outlook = if has_more && is_filtered {
            Outlook::More
        } else {
            Outlook::End
        };
        let page = Page {
            cards: self.crm.cards(self.kind, rows)?,
            server_time: self.began_at,
            ..Page::default()
        };
        Ok((page, outlook))
    }
}

/// Where the reading stands, and whether its pages join.
struct Reader {
    /// So many rows from the front have been read.
    read: u32,
    /// The most rows to ask for at once.
    largest: u32,
    seen: HashSet<(u64, Option<i64>)>,
    steps_back: u32,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            read: 0,
            largest: LARGEST_PAGE_RECORDS,
            seen: HashSet::new(),
            steps_back: 0,
        }
    }
}

impl Reader {
    /// The page that shares a few rows with what was read and goes furthest beyond. Pages begin at
    /// multiples of their size only, so the size is what gives way.
    fn place(&self) -> Place {
        let shared = |limit: u32| self.read % limit;
        let limit = (1..=self.largest)
            .filter(|limit| self.read > 0 && shared(*limit) >= SHARED_ROWS)
            .max_by_key(|limit| limit - shared(*limit))
            .unwrap_or(self.largest);
        Place {
            page: self.read / limit + 1,
            limit,
        }
    }

    /// Notes a page that was asked for at this place. False if rows may have slipped through before
    /// it: then the reading has stepped back.
    fn joins(&mut self, place: Place, rows: &[Row]) -> bool {
        let key = |row: &Row| (row.id, row.updated_at);
        let joins = place.page == 1 || rows.iter().any(|row| self.seen.contains(&key(row)));
        if !joins && self.steps_back < MOST_STEPS_BACK {
            self.steps_back += 1;
            self.read = self.read.saturating_sub(self.largest);
            return false;
        }
        self.read = place.page.saturating_mul(place.limit);
        self.seen.extend(rows.iter().map(key));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_begins_a_few_rows_before_the_end_of_the_last() {
        for largest in [250, 125, 62, 31, 25] {
            let mut reader = Reader {
                largest,
                ..Reader::default()
            };
            assert_eq!((reader.place().page, reader.place().limit), (1, largest));
            reader.read = largest;
            for _ in 0..2000 {
                let place = reader.place();
                let begin = (place.page - 1) * place.limit;
                let end = place.page * place.limit;
                assert!(begin + SHARED_ROWS <= reader.read && reader.read < end);
                assert!(place.limit <= largest);
                // Most of a usual page is new.
                assert!(end - reader.read >= 180 || largest < 250, "{place:?}");
                reader.read = end;
            }
        }
    }
}
