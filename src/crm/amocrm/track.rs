//! Reads a list that shows its newest rows first, until known ones come.
//!
//! Where it stands lives in a cursor, so that a long list is read over several calls. Rows are only
//! ever added at the front of such a list, which pushes the others back: while pages are read rows
//! may repeat, but none slips through.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::lists::Place;
use super::{Amocrm, Listed, Query, too_heavy};
use crate::crm::CrmError;
use crate::crm::budget::Lane;

/// The reading begins this much before the moment up to which all was read: a row may show up
/// later than the time that it carries.
pub(super) const OVERLAP_SECONDS: i64 = 60;

/// A row that carries a time.
pub(super) trait Dated {
    /// Unix seconds; `None` where the row does not say.
    fn second(&self) -> Option<i64>;
}

/// Which list, and how it is asked for.
pub(super) struct Source {
    pub(super) path: &'static str,
    pub(super) query: Query,
    /// The parameter that leaves out older rows; `None` where the order has to do.
    pub(super) filter: Option<&'static str>,
    /// Rows on a page.
    pub(super) limit: u32,
}

/// How far a list has been read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Track {
    /// All rows before this moment have been read, Unix seconds.
    from: i64,
    /// A reading that is not at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    under_way: Option<UnderWay>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct UnderWay {
    /// When it began: what is younger is for the next one.
    began: i64,
    place: Place,
}

/// What a reading brought.
pub(super) struct Followed<T> {
    /// The young rows, repeats included.
    pub(super) rows: Vec<T>,
    /// The account keeps neither to the filter nor to the order, so that many pages have to be read
    /// for the few young rows, and not all may have been.
    pub(super) is_shapeless: bool,
}

impl Track {
    /// A list that is read from this moment on.
    pub(super) fn from(second: i64) -> Self {
        Self {
            from: second,
            under_way: None,
        }
    }

    /// Says whether there is more to read at once.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Rows of this moment and later will be met again by the next reading.
    pub(super) fn met_again(&self) -> i64 {
        let next = self.under_way.map_or(self.from, |it| it.began);
        next.saturating_sub(OVERLAP_SECONDS)
    }

    /// Leaves out what lies before this moment, unread.
    pub(super) fn skip_to(&mut self, second: i64) {
        *self = Self::from(second.max(self.from));
    }

    /// Reads on, at most this many pages, and counts them down.
    pub(super) async fn follow<T: Dated + DeserializeOwned>(
        &mut self,
        crm: &Amocrm,
        source: &Source,
        pages_left: &mut u32,
    ) -> Result<Followed<T>, CrmError> {
        let since = self.from.saturating_sub(OVERLAP_SECONDS);
        let mut place = self.place(source.limit);
        let mut began = self.under_way.map(|it| it.began);
        let mut rows = Vec::new();
        let mut is_shapeless = false;
        while *pages_left > 0 {
            *pages_left -= 1;
            let query = source.at(place, since);
            let (listed, time) = crm.list::<T>(Lane::Change, source.path, &query).await?;
            began = began.or(time.map(Timestamp::as_second));
            let list = match listed {
                Listed::Rows(list) => list,
                Listed::Nothing => {
                    self.finish(began);
                    return Ok(Followed { rows, is_shapeless });
                }
                Listed::TooHeavy => {
                    place = place.lighter().ok_or_else(|| too_heavy(source.path))?;
                    continue;
                }
            };
            let has_more = list.has_more();
            let page = list.into_rows();
            let outlook = Outlook::behind(&page, since);
            rows.extend(
                page.into_iter()
                    .filter(|row| row.second().is_none_or(|second| second >= since)),
            );
            if !has_more || outlook == Outlook::Known {
                self.finish(began);
                return Ok(Followed { rows, is_shapeless });
            }
            is_shapeless |= outlook == Outlook::Unknown;
            place = place.next();
        }
        if is_shapeless {
            // It could go on for ever.
            self.finish(began);
        } else {
            let began = began.unwrap_or(self.from);
            self.under_way = Some(UnderWay { began, place });
        }
        Ok(Followed { rows, is_shapeless })
    }

    fn place(&self, limit: u32) -> Place {
        let under_way = self.under_way.map(|it| it.place);
        under_way
            .filter(|place| place.is_possible() && place.limit <= limit)
            .unwrap_or(Place { page: 1, limit })
    }

    fn finish(&mut self, began: Option<i64>) {
        self.from = began.map_or(self.from, |began| began.max(self.from));
        self.under_way = None;
    }
}

impl Source {
    fn at(&self, place: Place, since: i64) -> Query {
        let mut query = self.query.clone();
        if let Some(filter) = self.filter {
            query.push((filter, since.to_string()));
        }
        query.push(("page", place.page.to_string()));
        query.push(("limit", place.limit.to_string()));
        query
    }
}

/// What is to be expected behind a page.
#[derive(Debug, PartialEq, Eq)]
enum Outlook {
    /// Young rows.
    Young,
    /// Nothing but old ones.
    Known,
    /// This page has old ones, in no order.
    Unknown,
}

impl Outlook {
    fn behind<T: Dated>(page: &[T], since: i64) -> Self {
        let seconds = || page.iter().map(Dated::second);
        if page.is_empty() {
            return Self::Young;
        }
        // A page without any time says nothing of what is old: more of it would not either.
        if seconds().all(|second| second.is_none()) {
            return Self::Known;
        }
        if seconds().flatten().all(|second| second >= since) {
            Self::Young
        } else if is_newest_first(seconds()) {
            Self::Known
        } else {
            Self::Unknown
        }
    }
}

/// Says whether no row is younger than one before it.
pub(super) fn is_newest_first(seconds: impl Iterator<Item = Option<i64>>) -> bool {
    let known: Vec<i64> = seconds.flatten().collect();
    known.is_sorted_by(|before, after| before >= after)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Dated for Option<i64> {
        fn second(&self) -> Option<i64> {
            *self
        }
    }

    #[test]
    fn what_comes_behind_a_page_is_told_by_its_times() {
        let cases: [(&[Option<i64>], Outlook); 7] = [
            (&[Some(9), Some(7), Some(8)], Outlook::Young),
            (&[Some(9), None, Some(5)], Outlook::Young),
            (&[Some(9), Some(9), Some(4)], Outlook::Known),
            (&[Some(4), Some(3)], Outlook::Known),
            (&[Some(4), Some(9)], Outlook::Unknown),
            (&[None, None], Outlook::Known),
            (&[], Outlook::Young),
        ];
        for (page, expected) in cases {
            assert_eq!(Outlook::behind(page, 5), expected, "{page:?}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_is_begun_anew() {
        for (page, limit, expected) in [(3, 50, (3, 50)), (0, 50, (1, 100)), (3, 250, (1, 100))] {
            let track = Track {
                from: 7,
                under_way: Some(UnderWay {
                    began: 9,
                    place: Place { page, limit },
                }),
            };
            let place = track.place(100);
            assert_eq!((place.page, place.limit), expected);
        }
    }
}
