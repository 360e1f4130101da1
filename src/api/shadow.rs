//! `GET /api/v1/shadow`: where pryamo and the former module disagree.
//!
//! It names callers and employees, so it wants the owner's token.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::{Api, is_owner, refuse_stranger};
use crate::shadow::{Counts, Disagreement};

/// What was compared since the start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Compared {
    /// The former module; `null` where none is asked.
    pub address: Option<String>,
    /// How often each verdict was reached.
    pub counts: Counts,
    /// The last disagreements, the newest first.
    pub disagreements: Vec<Arc<Disagreement>>,
}

pub(super) async fn compared(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    if !is_owner(&api, &headers) {
        return refuse_stranger();
    }
    let compared = Compared {
        address: api.shadow.address(),
        counts: api.shadow.counts(),
        disagreements: api.shadow.disagreements(),
    };
    Json(compared).into_response()
}
