//! What of the world a row shows.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::ACCOUNT_ID;
use super::query::Query;
use crate::world::{Department, Entry, Stage, User, World};

pub(super) fn full_name(entry: &Entry) -> String {
    format!("{} {}", entry.name, entry.last_name)
        .trim()
        .to_owned()
}

pub(super) fn rows(world: &World, list: &str, query: &Query, entries: &[&Entry]) -> Vec<Value> {
    match list {
        "leads" => {
            let with_contacts = query.asks_with("contacts");
            entries
                .iter()
                .map(|deal| deal_row(deal, with_contacts))
                .collect()
        }
        list => {
            let deals = query.asks_with("leads").then(|| deals_by_contact(world));
            entries
                .iter()
                .map(|entry| client_row(entry, list, deals.as_ref()))
                .collect()
        }
    }
}

fn deals_by_contact(world: &World) -> HashMap<u64, Vec<Value>> {
    let mut deals: HashMap<u64, Vec<Value>> = HashMap::new();
    for deal in &world.deals {
        for contact in &deal.contacts {
            deals
                .entry(*contact)
                .or_default()
                .push(json!({"id": deal.id}));
        }
    }
    deals
}

fn common_row(entry: &Entry) -> Value {
    json!({"id": entry.id, "name": full_name(entry), "responsible_user_id": entry.responsible,
        "group_id": 0, "created_by": 501, "updated_by": 0, "created_at": entry.modified - 1000,
        "updated_at": entry.modified, "closest_task_at": null, "is_deleted": false,
        "custom_fields_values": null, "account_id": ACCOUNT_ID})
}

fn tags(entry: &Entry) -> Vec<Value> {
    let tag = |(place, name)| json!({"id": 500 + place, "name": name, "color": null});
    entry.tags.iter().enumerate().map(tag).collect()
}

fn client_row(entry: &Entry, list: &str, deals: Option<&HashMap<u64, Vec<Value>>>) -> Value {
    let mut row = common_row(entry);
    let mut embedded = json!({"tags": tags(entry)});
    if list == "contacts" {
        row["first_name"] = json!(entry.name);
        row["last_name"] = json!(entry.last_name);
        row["is_unsorted"] = json!(false);
        let company = entry.company.map(|id| json!({"id": id}));
        embedded["companies"] = company.into_iter().collect();
    }
    if let Some(deals) = deals {
        embedded["leads"] = json!(deals.get(&entry.id).cloned().unwrap_or_default());
    }
    if !entry.phones.is_empty() {
        let values: Vec<Value> = entry
            .phones
            .iter()
            .map(|phone| json!({"value": phone, "enum_id": 7001, "enum_code": "WORK"}))
            .collect();
        row["custom_fields_values"] = json!([{"field_id": 9001, "field_name": "Телефон",
            "field_code": "PHONE", "field_type": "multitext", "values": values}]);
    }
    row["_embedded"] = embedded;
    row
}

/// A pipeline's own state, won or lost.
pub(super) fn status_of(deal: &Entry) -> u64 {
    match deal.stage {
        Stage::Open => 40_000_001,
        Stage::Closed => 142,
        Stage::Junk => 143,
    }
}

fn deal_row(deal: &Entry, with_contacts: bool) -> Value {
    let mut row = common_row(deal);
    row["status_id"] = json!(status_of(deal));
    row["pipeline_id"] = json!(30_000_001);
    row["price"] = json!(0);
    row["closed_at"] = match deal.stage {
        Stage::Open => Value::Null,
        Stage::Closed | Stage::Junk => json!(deal.modified),
    };
    let company = deal.company.map(|id| json!({"id": id}));
    let mut embedded =
        json!({"tags": tags(deal), "companies": company.into_iter().collect::<Vec<_>>()});
    if with_contacts {
        let contacts = deal.contacts.iter().enumerate();
        embedded["contacts"] = contacts
            .map(|(index, id)| json!({"id": id, "is_main": index == 0}))
            .collect();
    }
    row["_embedded"] = embedded;
    row
}

pub(super) fn deleted_row(id: u64, deleted_at: i64) -> Value {
    json!({"id": id, "name": null, "responsible_user_id": null, "group_id": null,
        "updated_at": deleted_at, "is_deleted": true, "custom_fields_values": null,
        "account_id": ACCOUNT_ID})
}

/// The groups of users; 0 is the first one of every account.
pub(super) fn groups(world: &World) -> Vec<Value> {
    let first = json!({"id": 0, "name": "Отдел продаж", "uuid": null});
    let more = world.departments.iter().filter(|group| group.id != 0);
    let group = |group: &Department| json!({"id": group.id, "name": group.name, "uuid": null});
    std::iter::once(first).chain(more.map(group)).collect()
}

pub(super) fn user_row(user: &User, with_phone: bool) -> Value {
    let mut row = json!({"id": user.id, "name": format!("{} {}", user.first_name, user.last_name),
        "email": user.email, "lang": "ru",
        "rights": {"contacts": {"view": "A"}, "is_admin": false, "is_free": false,
                   "is_active": user.active, "role_id": null,
                   "group_id": user.departments.first().copied().unwrap_or(3)}});
    if with_phone {
        row["phone_number"] = json!(user.mobile);
    }
    row
}
