//! What happened in the account, as its events tell it.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::answers::{Invalid, damaged, html, invalid, no_content, problem};
use super::lists::ignores_filters;
use super::query::Query;
use super::{ACCOUNT_ID, FakeAmocrm, MergesName, Mood, Shared, list_of};
use crate::world::{Happened, What};

const LARGEST_EVENTS_PAGE: usize = 100;

/// An event, as the account keeps it.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    number: usize,
    what: String,
    entity_type: &'static str,
    entity_id: u64,
    created_at: i64,
    before: Value,
    after: Value,
}

impl FakeAmocrm {
    /// Lets the account know of something that the world has already.
    pub(crate) fn happened(&self, happened: &Happened) {
        if let Some(list) = list_of(happened.list) {
            self.shared.record(list, happened);
        }
    }

    /// An event of any type, with a time of its own: for those that come late.
    pub(crate) fn record_event(&self, what: &str, list: &'static str, id: u64, at: i64) {
        self.shared.push(what, list, id, at, json!([]), json!([]));
    }
}

impl Shared {
    fn record(&self, list: &'static str, happened: &Happened) {
        let (id, now, kind) = (happened.id, self.now(), word_of(list));
        let none = || json!([]);
        match happened.what {
            What::Added => {
                self.lock().deleted.remove(&(list, id));
                self.push(&format!("{kind}_added"), list, id, now, none(), none());
            }
            What::Changed => {
                let what = if self.lock().events.len().is_multiple_of(2) {
                    "custom_field_value_changed"
                } else {
                    "name_field_changed"
                };
                self.push(what, list, id, now, none(), none());
            }
            What::Reassigned(former) => {
                let user = |id: u64| json!([{"responsible_user": {"id": id}}]);
                let what = "entity_responsible_changed";
                let world = self.world.read().unwrap();
                let entries = world.list(happened.list);
                let present = entries.iter().find(|entry| entry.id == id);
                let present = present.map_or(0, |entry| entry.responsible);
                self.push(what, list, id, now, user(former), user(present));
            }
            What::Deleted => self.record_deletion(list, id),
            What::MergedInto(survivor) => {
                self.lock().deleted.insert((list, id), now);
                let named = match self.options.merges_name {
                    MergesName::Survivor => survivor,
                    MergesName::Victim => id,
                };
                self.push("entity_merged", list, named, now, none(), none());
            }
        }
    }

    pub(super) fn record_deletion(&self, list: &'static str, id: u64) {
        let now = self.now();
        self.lock().deleted.insert((list, id), now);
        let what = format!("{}_deleted", word_of(list));
        self.push(&what, list, id, now, json!([]), json!([]));
    }

    fn push(&self, what: &str, list: &'static str, id: u64, at: i64, before: Value, after: Value) {
        let mut account = self.lock();
        let recorded = Recorded {
            number: account.events.len() + 1,
            what: what.to_owned(),
            entity_type: word_of(list),
            entity_id: id,
            created_at: at,
            before,
            after,
        };
        account.events.push(recorded);
    }

    fn events(&self, query: &Query) -> Response {
        let most = "This value should be 100 or less.";
        let (page, limit) = match query.page_and_limit_up_to(LARGEST_EVENTS_PAGE, most) {
            Ok(both) => both,
            Err(invalid) => return invalid.answer(),
        };
        let (mood, mut events) = {
            let account = self.lock();
            (account.mood, account.events.clone())
        };
        match mood {
            Mood::EventsForbidden => return problem(StatusCode::FORBIDDEN, "Access denied"),
            Mood::EventsUnknown => {
                return invalid("filter[type]", "This value is not valid.").answer();
            }
            Mood::HeavyAbove(most) if limit > most => return html(StatusCode::GATEWAY_TIMEOUT),
            _ => {}
        }
        if self.options.filters && !ignores_filters(mood) {
            match wanted(query) {
                Ok(wanted) => events.retain(wanted),
                Err(invalid) => return invalid.answer(),
            }
        }
        events.sort_by_key(|event| (event.created_at, event.number));
        if mood != Mood::FiltersAndOrderIgnored {
            events.reverse();
        }
        let has_more = events.len() > page * limit;
        let rows = events.iter().skip((page - 1) * limit).take(limit);
        let rows: Vec<Value> = rows.map(row).collect();
        if rows.is_empty() {
            return no_content();
        }
        let links = self.links("events", query, page, has_more);
        let body = json!({"_page": page, "_links": links, "_embedded": {"events": rows}});
        damaged(mood, "events", body)
    }
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let response = shared.events(&Query::read(query.as_deref()));
    tokio::time::sleep(shared.page_latency()).await;
    response
}

fn wanted(query: &Query) -> Result<impl Fn(&Recorded) -> bool, Invalid> {
    let from: Option<i64> = query.number("filter[created_at][from]")?;
    let to: Option<i64> = query.number("filter[created_at][to]")?;
    let types = query.all("filter[type]");
    let kinds = query.all("filter[entity]");
    Ok(move |event: &Recorded| {
        from.is_none_or(|from| event.created_at >= from)
            && to.is_none_or(|to| event.created_at <= to)
            && types
                .as_ref()
                .is_none_or(|types| types.contains(&event.what.as_str()))
            && kinds
                .as_ref()
                .is_none_or(|kinds| kinds.contains(&event.entity_type))
    })
}

fn word_of(list: &str) -> &'static str {
    match list {
        "contacts" => "contact",
        "companies" => "company",
        _ => "lead",
    }
}

fn row(event: &Recorded) -> Value {
    json!({"id": format!("01e{:09}", event.number), "type": event.what,
        "entity_id": event.entity_id, "entity_type": event.entity_type, "created_by": 501,
        "created_at": event.created_at, "value_after": event.after, "value_before": event.before,
        "account_id": ACCOUNT_ID})
}
