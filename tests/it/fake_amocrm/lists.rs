//! Lists by pages, and single cards.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::answers::{Invalid, damaged, damaged_card, html, json_answer, no_content, problem};
use super::query::Query;
use super::rows::{deleted_row, full_name, groups, rows, user_row};
use super::{ACCOUNT_ID, Mood, Search, Shared};
use crate::world::{Entry, World};

pub(super) async fn account(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Response {
    let mut body = json!({"id": ACCOUNT_ID, "name": "Демо", "subdomain": "demo", "created_at": 1_700_000_000,
        "current_user_id": 501, "country": "RU", "currency": "RUB", "is_unsorted_on": true,
        "_links": {"self": {"href": format!("http://{}/api/v4/account", shared.host)}}});
    let query = Query::read(query.as_deref());
    if query.asks_with("is_api_filter_enabled") {
        body["is_api_filter_enabled"] = json!(shared.options.filters);
    }
    if query.asks_with("users_groups") {
        let world = shared.world.read().unwrap();
        body["_embedded"] = json!({"users_groups": groups(&world)});
    }
    json_answer(StatusCode::OK, &body)
}

pub(super) async fn users(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Response {
    if !shared.options.admin {
        return problem(StatusCode::FORBIDDEN, "You are not an administrator");
    }
    let query = Query::read(query.as_deref());
    let (page, limit) = match query.page_and_limit() {
        Ok(both) => both,
        Err(invalid) => return invalid.answer(),
    };
    let world = shared.world.read().unwrap();
    let total = world.users.len();
    let with_phone = query.asks_with("phone_number");
    let rows: Vec<Value> = world
        .users
        .iter()
        .skip((page - 1) * limit)
        .take(limit)
        .map(|user| user_row(user, with_phone))
        .collect();
    if rows.is_empty() {
        return no_content();
    }
    let body = json!({"_total_items": total, "_page": page, "_page_count": total.div_ceil(limit),
        "_links": shared.links("users", &query, page, page * limit < total),
        "_embedded": {"users": rows}});
    json_answer(StatusCode::OK, &body)
}

/// The list of this name in an address.
fn named(list: &str) -> Option<&'static str> {
    ["contacts", "companies", "leads"]
        .into_iter()
        .find(|known| *known == list)
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(list): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(list) = named(&list) else {
        return problem(StatusCode::NOT_FOUND, "Not found");
    };
    let response = shared.page(list, &Query::read(query.as_deref()));
    tokio::time::sleep(shared.page_latency()).await;
    response
}

pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    Path((list, id)): Path<(String, u64)>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(list) = named(&list) else {
        return problem(StatusCode::NOT_FOUND, "Not found");
    };
    let response = shared.card(list, id, &Query::read(query.as_deref()));
    tokio::time::sleep(shared.page_latency()).await;
    response
}

fn entries_of<'w>(world: &'w World, list: &str) -> &'w [Entry] {
    match list {
        "contacts" => &world.contacts,
        "companies" => &world.companies,
        _ => &world.deals,
    }
}

impl Shared {
    /// A deleted card is not to be had by its number either.
    fn card(&self, list: &'static str, id: u64, query: &Query) -> Response {
        let (mood, is_deleted) = {
            let account = self.lock();
            (account.mood, account.deleted.contains_key(&(list, id)))
        };
        let world = self.world.read().unwrap();
        let entries = entries_of(&world, list);
        let found = entries.iter().find(|entry| entry.id == id && !is_deleted);
        match found {
            Some(entry) => damaged_card(mood, rows(&world, list, query, &[entry]).remove(0)),
            None if self.options.missing == StatusCode::NO_CONTENT => no_content(),
            None => problem(self.options.missing, "Entity not found"),
        }
    }

    fn page(&self, list: &'static str, query: &Query) -> Response {
        let (page, limit) = match query.page_and_limit() {
            Ok(both) => both,
            Err(invalid) => return invalid.answer(),
        };
        let (mood, deleted) = {
            let account = self.lock();
            (account.mood, account.deleted.clone())
        };
        if matches!(mood, Mood::HeavyAbove(most) if limit > most) {
            return html(StatusCode::GATEWAY_TIMEOUT);
        }
        let world = self.world.read().unwrap();
        let select = Select {
            list,
            query,
            deleted: &deleted,
            search: self.options.search,
            filters: self.options.filters && !ignores_filters(mood),
            ordered: mood != Mood::FiltersAndOrderIgnored,
        };
        let (skip, take) = ((page - 1) * limit, limit + 1);
        let wants_deleted = query.asks_with("only_deleted") && self.options.lists_deleted;
        let picked = if wants_deleted {
            let picked = select.deleted(skip, take);
            picked.map(|all| {
                all.into_iter()
                    .map(|(id, at)| deleted_row(id, at))
                    .collect()
            })
        } else {
            let picked = select.entries(entries_of(&world, list), skip, take);
            picked.map(|all| rows(&world, list, query, &all))
        };
        let mut picked: Vec<Value> = match picked {
            Ok(picked) => picked,
            Err(invalid) => return invalid.answer(),
        };
        if picked.is_empty() {
            return no_content();
        }
        let has_more = picked.len() > limit;
        picked.truncate(limit);
        let mut links = self.links(list, query, page, has_more);
        if mood == Mood::NextElsewhere && has_more {
            links["next"]["href"] = json!(format!(
                "http://elsewhere.example/api/v4/{list}?page={}",
                page + 1
            ));
        }
        let mut body = json!({"_page": page, "_links": links, "_embedded": {}});
        body["_embedded"][list] = Value::Array(picked);
        damaged(mood, list, body)
    }

    pub(super) fn links(&self, list: &str, query: &Query, page: usize, has_more: bool) -> Value {
        let to = |page: usize| {
            let rest = query.0.iter().filter(|(key, _)| key != "page");
            let mut pairs: Vec<(&str, String)> = rest
                .map(|(key, value)| (key.as_str(), value.clone()))
                .collect();
            pairs.push(("page", page.to_string()));
            let query = serde_urlencoded::to_string(pairs).unwrap();
            json!({"href": format!("http://{}/api/v4/{list}?{query}", self.host)})
        };
        let mut links = json!({"self": to(page)});
        if has_more {
            links["next"] = to(page + 1);
        }
        links
    }
}

pub(super) fn ignores_filters(mood: Mood) -> bool {
    matches!(mood, Mood::FiltersIgnored | Mood::FiltersAndOrderIgnored)
}

/// What of a list is asked for.
struct Select<'a> {
    list: &'static str,
    query: &'a Query,
    deleted: &'a BTreeMap<(&'static str, u64), i64>,
    search: Search,
    filters: bool,
    ordered: bool,
}

impl Select<'_> {
    /// Numbers and times of deleted cards.
    fn deleted(&self, skip: usize, take: usize) -> Result<Vec<(u64, i64)>, Invalid> {
        let passes = self.time_filter()?;
        let mut all: Vec<(u64, i64)> = self
            .deleted
            .iter()
            .filter(|((list, _), at)| *list == self.list && passes(**at))
            .map(|((_, id), at)| (*id, *at))
            .collect();
        match self.order("order[updated_at]") {
            Some("desc") => all.sort_by_key(|(_, at)| -at),
            Some(_) => all.sort_by_key(|(_, at)| *at),
            None => {}
        }
        Ok(all.into_iter().skip(skip).take(take).collect())
    }

    fn time_filter(&self) -> Result<impl Fn(i64) -> bool, Invalid> {
        let from: Option<i64> = self.query.number("filter[updated_at][from]")?;
        let to: Option<i64> = self.query.number("filter[updated_at][to]")?;
        let filters = self.filters;
        Ok(move |at| {
            !filters || (from.is_none_or(|from| at >= from) && to.is_none_or(|to| at <= to))
        })
    }

    fn order(&self, key: &str) -> Option<&str> {
        self.query.get(key).filter(|_| self.ordered)
    }

    fn entries<'w>(
        &self,
        entries: &'w [Entry],
        skip: usize,
        take: usize,
    ) -> Result<Vec<&'w Entry>, Invalid> {
        let passes = self.time_filter()?;
        let is_timed = ["from", "to"].iter().any(|end| {
            self.query
                .get(&format!("filter[updated_at][{end}]"))
                .is_some()
        });
        let ids = self.query.ids();
        let text = self.query.get("query");
        let by_time = self.order("order[updated_at]");
        let by_id = self.order("order[id]");
        let is_filtered = self.filters && (is_timed || ids.is_some());
        if !is_filtered
            && text.is_none()
            && by_time.is_none()
            && self.deleted.is_empty()
            && by_id != Some("desc")
        {
            // A deep page of a large base must not cost more than the first.
            return Ok(entries.iter().skip(skip).take(take).collect());
        }
        let fits = |entry: &&Entry| {
            !self.deleted.contains_key(&(self.list, entry.id))
                && passes(entry.modified)
                && (!self.filters || ids.as_ref().is_none_or(|ids| ids.contains(&entry.id)))
                && text.is_none_or(|text| self.matches(entry, text))
        };
        let mut all: Vec<&Entry> = entries.iter().filter(fits).collect();
        match (by_time, by_id) {
            (Some("desc"), _) => all.sort_by_key(|entry| -entry.modified),
            (Some(_), _) => all.sort_by_key(|entry| entry.modified),
            (None, Some("desc")) => all.reverse(),
            (None, _) => {}
        }
        Ok(all.into_iter().skip(skip).take(take).collect())
    }

    /// All filled fields take part, so a name or a note's digits match as well as a phone.
    fn matches(&self, entry: &Entry, text: &str) -> bool {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && self.search == Search::Literal {
            // A search over hundreds of thousands must not take longer than the vendor's.
            let fields = [&entry.name, &entry.last_name];
            return fields
                .into_iter()
                .chain(&entry.phones)
                .any(|field| field.contains(text));
        }
        let text = text.to_lowercase();
        let holds = |field: &str| {
            field.to_lowercase().contains(&text)
                || (self.search == Search::Digits && digits(field).contains(&text))
        };
        holds(&full_name(entry)) || entry.phones.iter().any(|phone| holds(phone))
    }
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}
