//! The journal: searched, page by page, and as a table for a spreadsheet.

use std::io;
use std::sync::Arc;

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::calls::{self, CallRow};
use super::view::{View, encoded};
use super::{Fault, Page, steps};
use crate::journal::{self, Wanted};
use crate::phone::{self, CallerNumber};

/// Calls of one page.
const ROWS: usize = 50;
/// Pieces of an export that wait for a slow reader; then the export waits.
const PIECES: usize = 16;
const PIECE_BYTES: usize = 32 * 1024;

#[derive(Template)]
#[template(path = "journal.html")]
struct Shown<'a> {
    view: &'a View,
    asked: Asked,
    outcomes: Vec<Outcome>,
    fault: Option<String>,
    calls: Vec<CallRow>,
    /// The query of the next page, and of the export.
    next: Option<String>,
    export: String,
    has_journal: bool,
}

/// A choice of the filter.
struct Outcome {
    word: &'static str,
    text: String,
    is_chosen: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    phone: String,
    did: String,
    answered: String,
    outcome: String,
    from: String,
    until: String,
    before: Option<i64>,
}

impl Asked {
    /// What is asked of the journal, or what is wrong, in words for the person.
    fn query(&self, page: &Page, view: &View) -> Result<journal::Query, String> {
        let filled = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let phone = filled(&self.phone).map(|written| {
            match phone::read_caller(&written, page.api.region) {
                CallerNumber::Number(read) => Ok(read),
                _ => Err(format!(
                    "{}: {written}",
                    view.say("Это не номер телефона", "This is no telephone number")
                )),
            }
        });
        let day = |written: &str, days: i64| -> Result<Option<Timestamp>, String> {
            let Some(text) = filled(written) else {
                return Ok(None);
            };
            let wrong = || format!("{}: {text}", view.say("Это не дата", "This is no date"));
            let date: Date = text.parse().map_err(|_| wrong())?;
            let date = date
                .checked_add(jiff::Span::new().days(days))
                .map_err(|_| wrong())?;
            let zoned = date.to_zoned(view.zone.clone()).map_err(|_| wrong())?;
            Ok(Some(zoned.timestamp()))
        };
        Ok(journal::Query {
            limit: ROWS,
            before: self.before,
            after: None,
            call_id: None,
            phone: phone.transpose()?,
            from: day(&self.from, 0)?,
            until: day(&self.until, 1)?,
            did: filled(&self.did),
            outcome: Wanted::read(&self.outcome),
            answered: filled(&self.answered),
        })
    }

    /// The same question as an address carries it, less the place.
    fn written(&self) -> String {
        let pairs = [
            ("phone", &self.phone),
            ("did", &self.did),
            ("answered", &self.answered),
            ("outcome", &self.outcome),
            ("from", &self.from),
            ("until", &self.until),
        ];
        let written = pairs
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}={}", encoded(value)));
        written.collect::<Vec<_>>().join("&")
    }
}

pub(super) async fn show(
    State(page): State<Arc<Page>>,
    view: View,
    Query(asked): Query<Asked>,
) -> Response {
    let outcomes = Wanted::words().map(|word| Outcome {
        word,
        text: match Wanted::read(word) {
            Some(Wanted::UnknownCallers) => view.say("неизвестный звонящий", "unknown caller"),
            _ => steps::outcome_word(word, view.language),
        }
        .to_owned(),
        is_chosen: asked.outcome == word,
    });
    let mut shown = Shown {
        view: &view,
        outcomes: outcomes.collect(),
        fault: None,
        calls: Vec::new(),
        next: None,
        export: asked.written(),
        has_journal: page.api.journal.is_some(),
        asked,
    };
    let (Some(reader), query) = (page.api.journal.clone(), shown.asked.query(&page, &view)) else {
        return view.render(&shown);
    };
    let query = match query {
        Ok(query) => query,
        Err(text) => {
            shown.fault = Some(text);
            return view.render(&shown);
        }
    };
    match tokio::task::spawn_blocking(move || reader.read(&query)).await {
        Ok(Ok(entries)) => {
            shown.calls = entries
                .iter()
                .map(|call| calls::row(&page, &view, call))
                .collect();
            let last = entries.last().filter(|_| entries.len() == ROWS);
            shown.next = last.map(|last| format!("{}&before={}", shown.export, last.id));
            view.render(&shown)
        }
        Ok(Err(error)) => Fault::Failed(crate::fault::told(&error)).into_response(),
        Err(error) => Fault::Failed(error.to_string()).into_response(),
    }
}

/// All that fits the question, as CSV, as fast as it is taken.
pub(super) async fn export(
    State(page): State<Arc<Page>>,
    view: View,
    Query(asked): Query<Asked>,
) -> Response {
    let Some(reader) = page.api.journal.clone() else {
        return Fault::NotFound.into_response();
    };
    let query = match asked.query(&page, &view) {
        Ok(query) => query,
        Err(text) => return Fault::Wrong(text).into_response(),
    };
    let (sender, receiver) = mpsc::channel(PIECES);
    let zone = view.zone.clone();
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE_BYTES, Pieces(sender));
        if let Err(error) = reader.export(&query, &zone, &mut out) {
            tracing::warn!(
                error = crate::fault::told(&error),
                "an export of the journal ended early"
            );
        }
    });
    let pieces = futures::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok::<_, io::Error>(piece), receiver))
    });
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (
            CONTENT_DISPOSITION,
            "attachment; filename=\"pryamo-calls.csv\"",
        ),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Hands what is written to an answer; ends when nobody takes it any more.
struct Pieces(mpsc::Sender<Bytes>);

impl io::Write for Pieces {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Bytes::copy_from_slice(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
