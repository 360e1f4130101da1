//! The account's webhooks, for administrators only.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::answers::{json_answer, no_content, problem};
use super::query::Query;
use super::{ACCOUNT_ID, FakeAmocrm, Shared};

const MOST_WEBHOOKS: usize = 100;

/// A subscription.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    id: usize,
    destination: String,
    settings: Value,
    sort: Value,
    created_at: i64,
    disabled: bool,
}

impl FakeAmocrm {
    /// Subscribes an address to what happens to contacts, as the account's settings would.
    pub(crate) fn subscribe(&self, destination: &str) {
        let settings = json!(["add_contact", "update_contact", "delete_contact"]);
        self.shared
            .put_webhook(destination, &json!({"settings": settings, "sort": 10}));
    }

    /// Switches all webhooks off, as too many bad answers do, or on again, as a person would.
    pub(crate) fn switch_webhooks(&self, on: bool) {
        for webhook in &mut self.shared.lock().webhooks {
            webhook.disabled = !on;
        }
    }
}

impl Shared {
    /// One destination is there once: a second time replaces the first.
    fn put_webhook(&self, destination: &str, asked: &Value) -> Value {
        let now = self.now();
        let mut account = self.lock();
        account
            .webhooks
            .retain(|webhook| webhook.destination != destination);
        let webhook = Webhook {
            id: 80 + account.webhooks.len(),
            destination: destination.to_owned(),
            settings: asked["settings"].clone(),
            sort: asked["sort"].clone(),
            created_at: now,
            disabled: false,
        };
        let row = row(&webhook);
        account.webhooks.push(webhook);
        row
    }

    fn refuses(&self) -> Option<Response> {
        let refusal = || problem(StatusCode::FORBIDDEN, "You are not an administrator");
        (!self.options.admin).then(refusal)
    }
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    if let Some(refusal) = shared.refuses() {
        return refusal;
    }
    let query = Query::read(query.as_deref());
    let wanted = query.get("filter[destination]");
    let account = shared.lock();
    let rows: Vec<Value> = account
        .webhooks
        .iter()
        .filter(|webhook| wanted.is_none_or(|wanted| webhook.destination == wanted))
        .map(row)
        .collect();
    if rows.is_empty() {
        return no_content();
    }
    let body = json!({"_total_items": rows.len(), "_embedded": {"webhooks": rows}});
    json_answer(StatusCode::OK, &body)
}

pub(super) async fn subscribe(State(shared): State<Arc<Shared>>, body: String) -> Response {
    if let Some(refusal) = shared.refuses() {
        return refusal;
    }
    let asked: Value = serde_json::from_str(&body).unwrap_or_default();
    let Some(destination) = asked["destination"].as_str() else {
        return problem(StatusCode::BAD_REQUEST, "destination is missing");
    };
    if shared.lock().webhooks.len() >= MOST_WEBHOOKS {
        return problem(StatusCode::BAD_REQUEST, "too many webhooks");
    }
    json_answer(
        StatusCode::CREATED,
        &shared.put_webhook(destination, &asked),
    )
}

pub(super) async fn unsubscribe(State(shared): State<Arc<Shared>>, body: String) -> Response {
    if let Some(refusal) = shared.refuses() {
        return refusal;
    }
    let asked: Value = serde_json::from_str(&body).unwrap_or_default();
    let mut account = shared.lock();
    let before = account.webhooks.len();
    account
        .webhooks
        .retain(|webhook| asked["destination"] != webhook.destination.as_str());
    if account.webhooks.len() == before {
        return problem(StatusCode::NOT_FOUND, "no such webhook");
    }
    no_content()
}

fn row(webhook: &Webhook) -> Value {
    json!({"id": webhook.id, "destination": webhook.destination, "created_at": webhook.created_at,
        "updated_at": webhook.created_at, "account_id": ACCOUNT_ID, "created_by": 501,
        "sort": webhook.sort, "disabled": webhook.disabled, "settings": webhook.settings})
}
