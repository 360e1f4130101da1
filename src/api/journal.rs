//! `GET /api/v1/journal`: what was decided for calls, and what came of it.
//!
//! It names callers and employees, so it wants the owner's token.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Api, is_owner, refuse, refuse_stranger};
use crate::fault;
use crate::journal::{self, Wanted};
use crate::phone::{self, CallerNumber, Region};

/// The parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asked {
    limit: Option<usize>,
    before: Option<i64>,
    after: Option<i64>,
    call_id: Option<String>,
    phone: Option<String>,
    from: Option<String>,
    until: Option<String>,
    did: Option<String>,
    outcome: Option<String>,
    answered: Option<String>,
    /// Only looked at by whoever let the request in.
    #[serde(rename = "token")]
    _token: Option<String>,
}

/// Entries, the newest first; with `after` those that changed since, in order.
pub(super) async fn entries(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    if !is_owner(&api, &headers) {
        return refuse_stranger();
    }
    let Some(reader) = api.journal.clone() else {
        let text = "the journal is switched off (`journal.enabled = false`)";
        return refuse(StatusCode::NOT_FOUND, text);
    };
    let Query(asked) = match asked {
        Ok(asked) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let query = match asked.query(api.region) {
        Ok(query) => query,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, &text),
    };
    match tokio::task::spawn_blocking(move || reader.read(&query)).await {
        Ok(Ok(entries)) => Json(entries).into_response(),
        Ok(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &fault::told(&error)),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

impl Asked {
    /// What is asked for, or what is wrong with it. Forms send what is left open as an empty text.
    fn query(self, region: Region) -> Result<journal::Query, String> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let phone = filled(self.phone).map(|written| {
            let CallerNumber::Number(read) = phone::read_caller(&written, region) else {
                return Err(format!("`{written}` is no telephone number"));
            };
            Ok(read)
        });
        let moment = |key: &str, text: Option<String>| {
            let read = |text: String| {
                text.parse::<Timestamp>().map_err(|_| {
                    format!("`{key}`: `{text}` is no moment; write it as 2026-01-31T09:00:00Z")
                })
            };
            filled(text).map(read).transpose()
        };
        let outcome = filled(self.outcome).map(|word| {
            Wanted::read(&word).ok_or_else(|| {
                let words: Vec<&str> = Wanted::words().collect();
                format!("`outcome`: `{word}` is none of {}", words.join(", "))
            })
        });
        let (from, until) = (moment("from", self.from)?, moment("until", self.until)?);
        if from.zip(until).is_some_and(|(from, until)| from >= until) {
            return Err("`from` must be earlier than `until`".to_owned());
        }
        Ok(journal::Query {
            limit: self.limit.unwrap_or(journal::Query::USUAL),
            before: self.before,
            after: self.after,
            call_id: self.call_id,
            phone: phone.transpose()?,
            from,
            until,
            did: filled(self.did),
            outcome: outcome.transpose()?,
            answered: filled(self.answered),
        })
    }
}
