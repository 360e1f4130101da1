//! Cards that are new or have changed, and cards asked for by their identifiers.
//!
//! A question for changes has two strands: cards whose `DATE_MODIFY` lies in the window, and cards
//! above the highest known ID, for an import may bring old dates along. While little has changed,
//! one request answers both.

use std::collections::HashSet;
use std::fmt::Write as _;

use futures::stream::{self, BoxStream, StreamExt};
use jiff::SignedDuration;

use super::super::budget::Lane;
use super::super::{CrmError, Page, READ_AT_ONCE, Since};
use super::client::{AfterFault, Command};
use super::walk::{Listing, PAGE_ROWS, Position};
use super::wire;
use crate::record::EntityId;

/// By how much a question for changes reaches back: clocks and long transactions differ.
const OVERLAP: SignedDuration = SignedDuration::from_mins(5);
/// Pages of a strand's second request; the first asked for one.
const SECOND_PAGES: usize = 2;

/// A list, and where its reading stands.
type Strand<'a> = (Listing<'a>, Position);

/// Cards of one kind changed or added since then; `listing` makes a list of all cards of the kind.
pub(super) fn changes<'a>(
    listing: impl Fn() -> Listing<'a>,
    since: Since,
) -> BoxStream<'a, Result<Page, CrmError>> {
    let from = since.time.checked_sub(OVERLAP).unwrap_or(since.time);
    let mut strands = vec![(listing().changed_since(from), Position::behind(0, 1))];
    if let Some(highest) = since.highest_id {
        let new = listing().in_lane(Lane::Change);
        strands.push((new, Position::behind(highest, 1)));
    }
    stream::try_unfold((strands, true), |(mut strands, is_first)| async move {
        if is_first {
            let (page, rest) = first_pages(strands).await?;
            return Ok(Some((page, (rest, false))));
        }
        let Some((listing, position)) = strands.pop() else {
            return Ok(None);
        };
        let (mut page, next) = listing.next_page(position).await?;
        // Whoever is interrupted begins anew at the moment, not in the middle of a strand.
        page.cursor = None;
        strands.extend(next.map(|next| (listing, next)));
        Ok(Some((page, (strands, false))))
    })
    .boxed()
}

/// The first page of each strand in one request, and the strands that have more.
async fn first_pages(strands: Vec<Strand<'_>>) -> Result<(Page, Vec<Strand<'_>>), CrmError> {
    let Some((first, _)) = strands.first() else {
        return Ok((Page::default(), strands));
    };
    let ask = || async {
        let commands = strands
            .iter()
            .map(|(listing, position)| listing.command(0, position.after))
            .collect();
        let mut batch = first
            .client
            .batch(Lane::Change, commands, AfterFault::Stop)
            .await?;
        let mut read = Vec::with_capacity(strands.len());
        for (place, (listing, position)) in strands.iter().enumerate() {
            read.push(listing.read_rows(&batch.take(place)?, position.after)?);
        }
        Ok((read, wire::server_time(&batch.time)))
    };
    let (read, server_time) = first.client.patiently(ask).await?;
    let mut page = Page {
        server_time,
        ..Page::default()
    };
    let mut seen = HashSet::new();
    let mut rest = Vec::new();
    for ((listing, _), (mut cards, last)) in strands.into_iter().zip(read) {
        if cards.len() >= PAGE_ROWS {
            rest.push((listing, Position::behind(last, SECOND_PAGES)));
        }
        // A card that is both new and changed comes in both strands.
        cards.retain(|card| seen.insert(card.id.clone()));
        page.cards.append(&mut cards);
    }
    Ok((page, rest))
}

impl Listing<'_> {
    /// The cards of these identifiers, those that are there and may be read.
    pub(super) async fn read(&self, ids: &[EntityId]) -> Result<Page, CrmError> {
        debug_assert!(ids.len() <= READ_AT_ONCE, "more than a page can hold");
        let mut wanted: Vec<u64> = ids
            .iter()
            .filter_map(|id| id.as_str().parse().ok())
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        // An empty list would be no filter at all.
        if wanted.is_empty() {
            return Ok(Page::default());
        }
        let mut query = self.common_query.clone();
        for id in &wanted {
            let _ = write!(query, "&filter[%40ID][]={id}");
        }
        let ask = || async {
            let command = Command {
                method: self.method,
                query: query.clone(),
            };
            let mut batch = self
                .client
                .batch(Lane::Notice, vec![command], AfterFault::Stop)
                .await?;
            let (cards, _) = self.read_rows(&batch.take(0)?, 0)?;
            Ok((cards, wire::server_time(&batch.time)))
        };
        let (cards, server_time) = self.client.patiently(ask).await?;
        let is_wanted = |id: &EntityId| {
            let id = id.as_str().parse();
            id.is_ok_and(|id: u64| wanted.binary_search(&id).is_ok())
        };
        if !cards.iter().all(|card| is_wanted(&card.id)) {
            return Err(CrmError::FilterIgnored {
                method: self.method.to_owned(),
            });
        }
        Ok(Page {
            cards,
            server_time,
            ..Page::default()
        })
    }
}
