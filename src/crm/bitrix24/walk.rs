//! Long lists, as chains of pages inside batches.
//!
//! Each page asks for IDs behind the last of the page before (`$result[p00][49][ID]`), sorted by
//! ID and without counting (`start=-1`), which the portal serves in constant time. A batch is one
//! request and becomes one [`Page`]. A reference to a row that is not there becomes an empty value,
//! and the next page begins from the start again; so IDs must rise strictly, and what stands
//! before the first fault in a batch is taken.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use serde_json::Value;

use super::super::budget::Lane;
use super::super::{CrmError, Cursor, Page};
use super::client::{AfterFault, BATCH_LIMIT, Batch, Client, Command, command_name, shape};
use super::query::{encode, select};
use super::wire;
use crate::record::{Card, EntityKind};

/// Rows of a page; a shorter page is the last.
pub(super) const PAGE_ROWS: usize = 50;
/// Pages of a walk's first batch; each further batch doubles them. Together with the highest ID,
/// which the first batch also asks for, this keeps pages behind the end few: each of them would
/// bring the list's beginning again and cost working time.
const FIRST_BATCH_PAGES: usize = 5;

/// The most pages in a batch: less after timeouts and gateways' error pages, slowly more again.
#[derive(Debug)]
pub(super) struct Ceiling {
    limit_pages: usize,
    pages: AtomicUsize,
}

impl Ceiling {
    /// A ceiling that starts at its limit.
    pub(super) fn new(limit_pages: usize) -> Self {
        let limit_pages = limit_pages.clamp(1, BATCH_LIMIT);
        Self {
            limit_pages,
            pages: AtomicUsize::new(limit_pages),
        }
    }

    fn get(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    /// A batch of so many pages was too much.
    fn lower(&self, failed_pages: usize) {
        let lowered = (failed_pages / 2).max(1);
        self.pages.fetch_min(lowered, Ordering::Relaxed);
    }

    fn raise(&self) {
        let pages = self.get();
        let raised = pages + (pages / 4).max(1);
        self.pages
            .store(raised.min(self.limit_pages), Ordering::Relaxed);
    }
}

/// What is listed: the cards of one kind, all or the changed ones.
pub(super) struct Listing<'a> {
    pub(super) client: &'a Client,
    ceiling: &'a Ceiling,
    fields: &'a [String],
    kind: EntityKind,
    lane: Lane,
    pub(super) method: &'static str,
    /// Cards changed at this moment or later; all when `None`.
    changed_since: Option<Timestamp>,
    /// The part of each query that all pages share, encoded.
    pub(super) common_query: String,
}

/// Where a listing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The ID of the last row taken; 0 before the first.
    pub(super) after: u64,
    /// Pages to ask for next, if there are so many.
    wanted_pages: usize,
    /// The highest ID of the kind as far as known: no more pages are asked for than can lie below.
    top: Option<u64>,
}

impl Position {
    /// Behind this ID, so many pages at first.
    pub(super) fn behind(after: u64, wanted_pages: usize) -> Self {
        Self {
            after,
            wanted_pages,
            top: None,
        }
    }

    /// Says whether no higher ID than the last one is known.
    fn is_at_top(self) -> bool {
        self.top.is_none_or(|top| top <= self.after)
    }

    /// The part of all identifiers that lies up to `last`.
    fn share(last: u64, top: Option<u64>) -> Option<f64> {
        let top = top.filter(|top| *top > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share = last as f64 / top as f64;
        Some(share.min(1.0))
    }

    /// How many pages to ask for at most.
    fn pages_left(self) -> usize {
        let rows = self.top.map(|top| top.saturating_sub(self.after));
        let pages = rows.map(|rows| rows.div_ceil(PAGE_ROWS as u64).max(1));
        let pages = pages.and_then(|pages| usize::try_from(pages).ok());
        pages.map_or(self.wanted_pages, |pages| pages.min(self.wanted_pages))
    }
}

/// What a batch brought.
struct Fetched {
    cards: Vec<Card>,
    last: u64,
    asked_pages: usize,
    full_pages: usize,
    ended: bool,
    top: Option<u64>,
    server_time: Option<Timestamp>,
}

impl<'a> Listing<'a> {
    /// A listing of all cards of a kind.
    pub(super) fn new(
        client: &'a Client,
        ceiling: &'a Ceiling,
        kind: EntityKind,
        fields: &'a [String],
    ) -> Self {
        let wording = wire::wording(kind);
        let common_query = format!("order[ID]=ASC&start=-1{}", select(wording.select, fields));
        Self {
            client,
            ceiling,
            fields,
            kind,
            lane: Lane::Walk,
            method: wording.list,
            changed_since: None,
            common_query,
        }
    }

    /// The same in another lane.
    pub(super) fn in_lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// The same, of cards that were changed at this moment or later.
    pub(super) fn changed_since(mut self, from: Timestamp) -> Self {
        // The portal knows whole seconds.
        let from = Timestamp::from_second(from.as_second()).unwrap_or(from);
        let written = from.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
        let _ = write!(
            self.common_query,
            "&filter[%3E%3DDATE_MODIFY]={}",
            encode(&written)
        );
        self.changed_since = Some(from);
        self.in_lane(Lane::Change)
    }

    /// All pages behind `from`.
    pub(super) fn walk(self, from: Option<Cursor>) -> BoxStream<'a, Result<Page, CrmError>> {
        // A cursor that is not ours starts anew, which changes nothing but the time it takes.
        let after = from.and_then(|cursor| cursor.0.parse().ok()).unwrap_or(0);
        let start = Position::behind(after, FIRST_BATCH_PAGES);
        stream::try_unfold((self, Some(start)), |(listing, position)| async move {
            let Some(position) = position else {
                return Ok(None);
            };
            let (page, next) = listing.next_page(position).await?;
            Ok(Some((page, (listing, next))))
        })
        .boxed()
    }

    /// The pages at this position in one request, and the position behind them.
    pub(super) async fn next_page(
        &self,
        position: Position,
    ) -> Result<(Page, Option<Position>), CrmError> {
        let fetched = self.client.patiently(|| self.fetch(position)).await?;
        let next = (!fetched.ended).then(|| Position {
            after: fetched.last,
            wanted_pages: if fetched.full_pages < fetched.asked_pages {
                fetched.full_pages.max(1)
            } else {
                (position.wanted_pages * 2).min(BATCH_LIMIT)
            },
            top: fetched.top.or(position.top),
        });
        let page = Page {
            cards: fetched.cards,
            cursor: next.map(|next| Cursor(next.after.to_string())),
            server_time: fetched.server_time,
            done: Position::share(fetched.last, fetched.top.or(position.top)),
        };
        Ok((page, next))
    }

    async fn fetch(&self, position: Position) -> Result<Fetched, CrmError> {
        let asks_top = self.changed_since.is_none() && position.is_at_top();
        let pages = position
            .pages_left()
            .min(self.ceiling.get())
            .min(BATCH_LIMIT - usize::from(asks_top));
        let mut commands: Vec<Command> = (0..pages)
            .map(|place| self.command(place, position.after))
            .collect();
        if asks_top {
            commands.push(Command {
                method: self.method,
                query: "order[ID]=DESC&start=-1&select[]=ID".to_owned(),
            });
        }
        let mut batch = self
            .client
            .batch(self.lane, commands, AfterFault::Stop)
            .await
            .inspect_err(|error| {
                if matches!(error, CrmError::Unreachable { .. }) {
                    self.ceiling.lower(pages);
                }
            })?;
        self.ceiling.raise();
        let mut fetched = self.read_pages(&mut batch, pages, position.after)?;
        if asks_top {
            fetched.top = batch.take(pages).ok().and_then(|rows| {
                let highest = *wire::items(&rows)?.first()?;
                highest.get("ID").and_then(wire::positive)
            });
        }
        Ok(fetched)
    }

    /// Reads a batch's pages up to the first fault; a fault in the first page is the error.
    fn read_pages(&self, batch: &mut Batch, pages: usize, after: u64) -> Result<Fetched, CrmError> {
        let mut fetched = Fetched {
            cards: Vec::new(),
            last: after,
            asked_pages: pages,
            full_pages: 0,
            ended: false,
            top: None,
            server_time: wire::server_time(&batch.time),
        };
        for place in 0..pages {
            let read = batch
                .take(place)
                .and_then(|rows| self.read_rows(&rows, fetched.last));
            match read {
                Ok((cards, last)) => {
                    fetched.ended = cards.len() < PAGE_ROWS;
                    fetched.cards.extend(cards);
                    fetched.last = last;
                }
                Err(error) if place == 0 => return Err(error),
                // The next batch begins with this page and tells what is wrong, if it still is.
                Err(_) => break,
            }
            if fetched.ended {
                break;
            }
            fetched.full_pages += 1;
        }
        Ok(fetched)
    }

    /// The command for a page: the first of a batch begins `after` an ID, the others chain.
    pub(super) fn command(&self, place: usize, after: u64) -> Command {
        let behind = match place.checked_sub(1) {
            None => after.to_string(),
            Some(before) => format!("$result[{}][{}][ID]", command_name(before), PAGE_ROWS - 1),
        };
        Command {
            method: self.method,
            query: format!("filter[%3EID]={behind}&{}", self.common_query),
        }
    }

    /// Reads a page behind `after`, and gives its last ID.
    pub(super) fn read_rows(&self, rows: &Value, after: u64) -> Result<(Vec<Card>, u64), CrmError> {
        let rows = wire::items(rows).ok_or_else(|| shape(self.method, "a page is no list"))?;
        let mut last = after;
        let mut cards = Vec::with_capacity(rows.len());
        for row in rows {
            let (id, card) = wire::card(self.kind, row, self.fields)
                .map_err(|fault| shape(self.method, fault))?;
            let in_window = self
                .changed_since
                .is_none_or(|since| card.modified.is_some_and(|modified| modified >= since));
            if id <= last || !in_window {
                return Err(CrmError::FilterIgnored {
                    method: self.method.to_owned(),
                });
            }
            last = id;
            cards.push(card);
        }
        Ok((cards, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_falls_fast_and_rises_slowly() {
        let ceiling = Ceiling::new(50);
        ceiling.lower(50);
        ceiling.lower(25);
        assert_eq!(ceiling.get(), 12);
        ceiling.raise();
        assert_eq!(ceiling.get(), 15);
        ceiling.lower(1);
        assert_eq!(ceiling.get(), 1);
        let mut sizes = Vec::new();
        while ceiling.get() < 50 {
            ceiling.raise();
            sizes.push(ceiling.get());
        }
        assert_eq!(
            sizes,
            [2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 41, 50]
        );
    }

    #[test]
    fn no_more_pages_are_asked_for_than_identifiers_are_left() {
        let pages_left = |after, top| {
            let position = Position {
                after,
                wanted_pages: 50,
                top,
            };
            position.pages_left()
        };
        assert_eq!(pages_left(0, None), 50);
        assert_eq!(pages_left(1000, Some(1000)), 1);
        assert_eq!(pages_left(1000, Some(1050)), 1);
        assert_eq!(pages_left(1000, Some(1051)), 2);
        assert_eq!(pages_left(1000, Some(u64::MAX)), 50);
    }
}
