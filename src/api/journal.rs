//! `GET /api/v1/journal`: what was decided for calls, and what came of it.
//!
//! It names callers and employees, so it wants the owner's token.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::{Api, is_owner, refuse, refuse_stranger};
use crate::fault;
use crate::journal;
use crate::phone::{self, CallerNumber};

/// The parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asked {
    limit: Option<usize>,
    before: Option<i64>,
    after: Option<i64>,
    call_id: Option<String>,
    phone: Option<String>,
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
    let mut phone = None;
    if let Some(written) = asked.phone.as_deref().filter(|phone| !phone.is_empty()) {
        let CallerNumber::Number(read) = phone::read_caller(written, api.region) else {
            let text = format!("`{written}` is no telephone number");
            return refuse(StatusCode::BAD_REQUEST, &text);
        };
        phone = Some(read);
    }
    let query = journal::Query {
        limit: asked.limit.unwrap_or(journal::Query::USUAL),
        before: asked.before,
        after: asked.after,
        call_id: asked.call_id,
        phone,
    };
    match tokio::task::spawn_blocking(move || reader.read(&query)).await {
        Ok(Ok(entries)) => Json(entries).into_response(),
        Ok(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &fault::told(&error)),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
