//! `POST /api/v1/reload`: the configuration is read again.
//!
//! Who may say so hands a request to the one task that reloads, so that two at once come one after the
//! other, and none is cut off with the connection that asked.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{Api, is_owner, refuse, refuse_stranger};

/// Requests that may wait; more are refused.
const MOST_WAITING: usize = 16;

/// What came of reading the configuration again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What it changed.
    pub taken: Vec<String>,
    /// Keys that wait for a restart.
    pub waiting: Vec<String>,
}

/// A request, and where its answer goes.
pub type Request = oneshot::Sender<Result<Reloaded, String>>;

/// Asks for the configuration to be read again.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::Sender<Request>);

impl Reloads {
    /// With the end at which requests arrive.
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        (Self(sender), receiver)
    }

    /// Asks, and waits until it is done. The error says why nothing has changed.
    pub async fn ask(&self) -> Result<Reloaded, String> {
        let (request, answer) = oneshot::channel();
        let busy = |()| "pryamo is busy reloading; try again".to_owned();
        self.0.try_send(request).map_err(drop).map_err(busy)?;
        answer
            .await
            .unwrap_or_else(|_| Err("pryamo stops, or failed inside while reloading".to_owned()))
    }
}

/// Reads the configuration again.
pub(super) async fn reload(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    if !is_owner(&api, &headers) {
        return refuse_stranger();
    }
    match api.reloads.ask().await {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(text) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &text),
    }
}
