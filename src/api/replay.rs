//! `POST /api/v1/replay`: whom today's rules would ring for calls of the past.
//!
//! For `pryamo replay` while the daemon holds the directory. Wants the owner's token: the answers
//! name employees.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::{Api, is_owner, refuse, refuse_stranger};
use crate::replay::{self, MOST_QUESTIONS, Question};

/// The largest body: as many questions as are taken, each with all that a CDR may hold.
const LARGEST_BODY: usize = 2 << 20;

/// Judges a list of calls, in its order.
pub(super) async fn judge(State(api): State<Arc<Api>>, request: Request) -> Response {
    if !is_owner(&api, request.headers()) {
        return refuse_stranger();
    }
    let body = match axum::body::to_bytes(request.into_body(), LARGEST_BODY).await {
        Ok(body) => body,
        Err(error) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
    };
    let questions: Vec<Question> = match serde_json::from_slice(&body) {
        Ok(questions) => questions,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if questions.len() > MOST_QUESTIONS {
        let text = format!("at most {MOST_QUESTIONS} calls are taken at once");
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, &text);
    }
    let roster = api.directory.roster();
    let mut verdicts = Vec::with_capacity(questions.len());
    for question in questions {
        verdicts.push(replay::judge(&api.replay, &roster, question).await);
        // Callers are answered on this thread too.
        tokio::task::yield_now().await;
    }
    Json(verdicts).into_response()
}
