//! What each method answers from the world. Pure: no clock, no limits.

use serde_json::{Map, Value, json};

use super::php;
use super::staff;
use crate::world::{Entry, Stage, User, World};

const PAGE: usize = 50;
/// Hits of one type at which `findbycomm` leaves out the types after it.
const HITS: usize = 20;

/// What a method gives back.
#[derive(Default)]
pub struct Answer {
    pub result: Value,
    pub total: Option<usize>,
    pub next: Option<usize>,
    /// Whether it is a page of a list, which costs the usual time of a page.
    pub is_page: bool,
}

/// A refusal.
#[derive(Debug, Clone)]
pub struct Fault {
    pub status: u16,
    pub code: &'static str,
    pub text: String,
}

impl Fault {
    pub fn new(status: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            code,
            text: text.into(),
        }
    }

    pub fn body(&self) -> Value {
        json!({"error": self.code, "error_description": self.text})
    }
}

/// Who calls and what the portal is like.
pub struct Portal<'a> {
    pub world: &'a World,
    pub user: u64,
    pub scopes: &'a [&'static str],
    pub is_admin: bool,
    pub is_simple_mode: bool,
    pub ignores_filters: bool,
}

/// A kind of card in the portal's words.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Lead,
    Contact,
    Company,
    Deal,
}

/// The scopes of which one is needed; none for the basic methods.
pub fn scopes_of(method: &str) -> &'static [&'static str] {
    match method {
        "user.current" | "user.admin" | "scope" | "method.get" | "methods" | "batch"
        | "feature.get" => &[],
        _ if method.starts_with("event.") => &[],
        "user.get" | "user.search" => &["user", "user_basic", "user_brief"],
        "department.get" => &["department"],
        "calendar.accessibility.get" => &["calendar"],
        "timeman.status" => &["timeman"],
        _ if method.starts_with("telephony.") => &["telephony"],
        _ => &["crm"],
    }
}

const METHODS: &[&str] = &[
    "batch",
    "calendar.accessibility.get",
    "crm.company.get",
    "crm.company.list",
    "crm.contact.get",
    "crm.contact.list",
    "crm.deal.get",
    "crm.deal.list",
    "crm.duplicate.findbycomm",
    "crm.lead.get",
    "crm.lead.list",
    "crm.settings.mode.get",
    "department.get",
    "event.bind",
    "event.get",
    "event.offline.clear",
    "event.offline.error",
    "event.offline.get",
    "event.offline.list",
    "event.unbind",
    "feature.get",
    "method.get",
    "scope",
    "telephony.externalcall.searchcrmentities",
    "timeman.status",
    "user.admin",
    "user.current",
    "user.get",
];

impl Portal<'_> {
    /// Answers a method; its name is in lower case.
    pub fn run(&self, method: &str, params: &Value) -> Result<Answer, Fault> {
        let plain = |result: Value| {
            Ok(Answer {
                result,
                ..Answer::default()
            })
        };
        if method.starts_with("event.") || method.starts_with("telephony.externalline.") {
            return Err(Fault::new(
                403,
                "WRONG_AUTH_TYPE",
                "Application context required",
            ));
        }
        match method {
            "user.current" => plain(self.current_user()),
            "user.admin" => plain(json!(self.is_admin)),
            "scope" => plain(json!(self.scopes)),
            "method.get" => {
                let name = php::get(params, "name").map(php::text).unwrap_or_default();
                let is_known = METHODS.contains(&name.to_lowercase().as_str());
                plain(json!({"isExisting": is_known, "isAvailable": is_known}))
            }
            "crm.settings.mode.get" => plain(json!(if self.is_simple_mode { 2 } else { 1 })),
            "department.get" => Ok(self.departments(params)),
            "calendar.accessibility.get" => plain(staff::accessibility(self.world, params)?),
            "timeman.status" => plain(staff::workday(self.world, params, self.user)?),
            "user.get" => Ok(self.users(params)),
            "crm.duplicate.findbycomm" => plain(self.find_by_comm(params)?),
            "telephony.externalcall.searchcrmentities" => plain(self.search_entities(params)?),
            _ => self.crm(method, params),
        }
    }

    fn crm(&self, method: &str, params: &Value) -> Result<Answer, Fault> {
        let unknown = || Fault::new(404, "ERROR_METHOD_NOT_FOUND", "Method not found!");
        let mut words = method.split('.');
        let (Some("crm"), Some(name), Some(verb), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(unknown());
        };
        let kind = match name {
            "lead" => Type::Lead,
            "contact" => Type::Contact,
            "company" => Type::Company,
            "deal" => Type::Deal,
            _ => return Err(unknown()),
        };
        match verb {
            "list" => Ok(self.list(kind, params)),
            "get" => {
                let id = php::get(params, "id").map(php::text).unwrap_or_default();
                let entry = self.entries(kind).iter().find(|e| e.id.to_string() == id);
                let entry = entry.ok_or_else(|| Fault::new(400, "", "Not found"))?;
                Ok(Answer {
                    result: Value::Object(row(kind, entry)),
                    ..Answer::default()
                })
            }
            _ => Err(unknown()),
        }
    }

    fn entries(&self, kind: Type) -> &[Entry] {
        match kind {
            Type::Lead if self.is_simple_mode => &[],
            Type::Lead => &self.world.leads,
            Type::Contact => &self.world.contacts,
            Type::Company => &self.world.companies,
            Type::Deal => &self.world.deals,
        }
    }

    fn list(&self, kind: Type, params: &Value) -> Answer {
        let entries = self.entries(kind);
        let no_filter = json!({});
        let filter = php::get(params, "filter").unwrap_or(&no_filter);
        let mut conditions: Vec<Condition> = match filter.as_object() {
            Some(map) if !self.ignores_filters => {
                map.iter().map(|(key, v)| Condition::read(key, v)).collect()
            }
            _ => Vec::new(),
        };
        // Entries are sorted by ID: what lies before a lower bound need not be looked at.
        let mut first = 0;
        conditions.retain(|condition| match condition {
            Condition::Id(Compare::Greater, ids) => {
                let bound = ids.first().copied().unwrap_or(0);
                first = first.max(entries.partition_point(|entry| entry.id <= bound));
                false
            }
            _ => true,
        });
        let matching = entries[first..]
            .iter()
            .filter(|entry| conditions.iter().all(|c| c.holds(kind, entry)));
        let order = php::get(params, "order").and_then(|order| php::get(order, "ID"));
        let is_descending = order.is_some_and(|way| php::text(way).eq_ignore_ascii_case("desc"));
        let start = php::get(params, "start").map(php::text);
        let start: i64 = start.and_then(|start| start.parse().ok()).unwrap_or(0);
        let skip = usize::try_from(start).unwrap_or(0);
        let (page, total): (Vec<&Entry>, usize) = if start == -1 {
            let page = if is_descending {
                matching.rev().take(PAGE).collect()
            } else {
                matching.take(PAGE).collect()
            };
            (page, 0)
        } else {
            let mut all: Vec<&Entry> = matching.collect();
            if is_descending {
                all.reverse();
            }
            let total = all.len();
            (all.into_iter().skip(skip).take(PAGE).collect(), total)
        };
        let select = php::get(params, "select").map(php::texts);
        let rows = page.into_iter().map(|entry| {
            let mut row = row(kind, entry);
            match &select {
                Some(names) if !names.iter().any(|name| name == "*") => {
                    row.retain(|key, _| names.contains(key));
                }
                Some(names) if names.iter().any(|name| name == "PHONE") => {}
                _ => {
                    row.remove("PHONE");
                }
            }
            Value::Object(row)
        });
        Answer {
            result: rows.collect(),
            total: Some(total),
            next: (skip + PAGE < total).then_some(skip + PAGE),
            is_page: true,
        }
    }

    fn users(&self, params: &Value) -> Answer {
        let filter = php::get(params, "filter");
        let wants = |key: &str| {
            let nested = filter.and_then(|filter| php::get(filter, key));
            nested.or_else(|| php::get(params, key)).map(php::text)
        };
        let (id, active, inner) = (wants("ID"), wants("ACTIVE"), wants("UF_PHONE_INNER"));
        let is_true = |text: &str| matches!(text, "1" | "true" | "Y");
        let mut users: Vec<&User> = self
            .world
            .users
            .iter()
            .filter(|user| id.as_ref().is_none_or(|id| *id == user.id.to_string()))
            .filter(|user| active.as_ref().is_none_or(|a| is_true(a) == user.active))
            .filter(|user| inner.is_none() || inner == user.extension)
            .collect();
        let descending = php::get(params, "order").map(php::text);
        if descending.is_some_and(|way| way.eq_ignore_ascii_case("desc")) {
            users.reverse();
        }
        let start = php::get(params, "start").map(php::text);
        let start: i64 = start.and_then(|start| start.parse().ok()).unwrap_or(0);
        let skip = usize::try_from(start).unwrap_or(0);
        let total = if start == -1 { 0 } else { users.len() };
        let select = php::get(params, "select").map(php::texts);
        let page = users.into_iter().skip(skip).take(PAGE).map(|user| {
            let mut row = self.user_row(user);
            if let Some(names) = &select {
                row.retain(|key, _| names.contains(key));
            }
            Value::Object(row)
        });
        Answer {
            result: page.collect(),
            total: Some(total),
            next: (skip + PAGE < total).then_some(skip + PAGE),
            is_page: true,
        }
    }

    fn departments(&self, params: &Value) -> Answer {
        let rows = staff::departments(self.world, params);
        let start = php::get(params, "start").map(php::text);
        let skip: usize = start.and_then(|start| start.parse().ok()).unwrap_or(0);
        let total = rows.len();
        Answer {
            result: rows.into_iter().skip(skip).take(PAGE).collect(),
            total: Some(total),
            next: (skip + PAGE < total).then_some(skip + PAGE),
            is_page: true,
        }
    }

    fn current_user(&self) -> Value {
        match self.world.users.iter().find(|user| user.id == self.user) {
            Some(user) => Value::Object(self.user_row(user)),
            None => json!({"ID": self.user.to_string(), "ACTIVE": true}),
        }
    }

    fn user_row(&self, user: &User) -> Map<String, Value> {
        let mut row = json!({
            "ID": user.id.to_string(), "ACTIVE": user.active, "NAME": user.first_name,
            "LAST_NAME": user.last_name, "WORK_POSITION": "", "UF_DEPARTMENT": if user.departments.is_empty() { &[1][..] } else { &user.departments },
            "UF_PHONE_INNER": user.extension, "IS_ONLINE": "N", "USER_TYPE": "employee",
            "TIMESTAMP_X": {},
        });
        if self.scopes.contains(&"user") || self.scopes.contains(&"user_basic") {
            row["EMAIL"] = json!(user.email);
            row["PERSONAL_MOBILE"] = json!(user.mobile);
            row["WORK_PHONE"] = json!("");
        }
        row.as_object().unwrap().clone()
    }

    /// Types in the order in which the portal searches them.
    fn hits(&self, kind: Type, values: &[String]) -> Vec<&Entry> {
        let holds = |phone: &String| values.contains(&normalise(phone));
        let entries = self.entries(kind).iter();
        entries.filter(|e| e.phones.iter().any(holds)).collect()
    }

    fn find_by_comm(&self, params: &Value) -> Result<Value, Fault> {
        let kind = php::get(params, "type").map(php::text).unwrap_or_default();
        if kind != "PHONE" && kind != "EMAIL" {
            let code = "Communication type is not defined";
            return Err(Fault::new(400, code, code));
        }
        let values = php::get(params, "values").filter(|values| !values.is_string());
        let Some(values) = values else {
            let code = "Communication values is not defined";
            return Err(Fault::new(400, code, code));
        };
        let values: Vec<String> = php::texts(values)
            .iter()
            .take(20)
            .map(|value| normalise(value))
            .filter(|value| !value.is_empty())
            .collect();
        let wanted = php::get(params, "entity_type").map(php::text);
        let mut found = Vec::new();
        for (kind, name) in [
            (Type::Lead, "LEAD"),
            (Type::Contact, "CONTACT"),
            (Type::Company, "COMPANY"),
        ] {
            if wanted.as_ref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            let hits = self.hits(kind, &values);
            let ids: Vec<u64> = hits.iter().take(HITS).map(|entry| entry.id).collect();
            let is_full = ids.len() == HITS;
            if !ids.is_empty() {
                found.push((name.to_owned(), json!(ids)));
            }
            if is_full {
                break;
            }
        }
        Ok(php::map(found))
    }

    fn search_entities(&self, params: &Value) -> Result<Value, Fault> {
        let phone = php::get(params, "PHONE_NUMBER").map(php::text);
        let phone = phone.map(|phone| normalise(&phone)).unwrap_or_default();
        if phone.is_empty() {
            return Err(Fault::new(400, "ERROR_CORE", "PHONE_NUMBER is empty"));
        }
        let values = [phone];
        let mut found = Vec::new();
        for (kind, name) in [
            (Type::Contact, "CONTACT"),
            (Type::Lead, "LEAD"),
            (Type::Company, "COMPANY"),
        ] {
            let Some(entry) = self.hits(kind, &values).first().copied() else {
                continue;
            };
            let user = self.world.users.iter().find(|u| u.id == entry.responsible);
            let colleague = user.map(|user| {
                json!({"ID": user.id.to_string(), "TIMEMAN_STATUS": "OPENED",
                    "USER_PHONE_INNER": user.extension, "WORK_PHONE": null,
                    "PERSONAL_PHONE": null, "PERSONAL_MOBILE": user.mobile})
            });
            found.push(json!({"CRM_ENTITY_TYPE": name, "CRM_ENTITY_ID": entry.id,
                "ASSIGNED_BY_ID": entry.responsible,
                "NAME": format!("{} {}", entry.name, entry.last_name).trim(),
                "ASSIGNED_BY": colleague}));
        }
        Ok(Value::Array(found))
    }
}

/// A card with all its fields; `PHONE` is absent without phones.
fn row(kind: Type, entry: &Entry) -> Map<String, Value> {
    // "0" and null both mean no company; which one, depends on how the card was made.
    let link = |id: Option<u64>| match id {
        Some(id) => json!(id.to_string()),
        None if entry.id.is_multiple_of(2) => json!("0"),
        None => Value::Null,
    };
    let modified = jiff::Timestamp::from_second(entry.modified).unwrap();
    let modified = modified.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(3)));
    let semantic = match entry.stage {
        Stage::Open => "P",
        Stage::Closed => "S",
        Stage::Junk => "F",
    };
    let mut row = json!({
        "ID": entry.id.to_string(),
        "ASSIGNED_BY_ID": entry.responsible.to_string(),
        "DATE_MODIFY": modified.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    });
    if kind == Type::Contact {
        row["NAME"] = json!(entry.name);
        row["LAST_NAME"] = json!(entry.last_name);
    } else {
        row["TITLE"] = json!(entry.name);
    }
    if kind != Type::Company {
        row["COMPANY_ID"] = link(entry.company);
    }
    if kind == Type::Lead || kind == Type::Deal {
        row["CONTACT_ID"] = link(entry.contacts.first().copied());
    }
    match kind {
        Type::Lead => {
            row["NAME"] = Value::Null;
            row["LAST_NAME"] = json!(entry.last_name);
            row["STATUS_SEMANTIC_ID"] = json!(semantic);
        }
        Type::Deal => {
            row["STAGE_SEMANTIC_ID"] = json!(semantic);
            row["CLOSED"] = json!(if entry.stage == Stage::Open { "N" } else { "Y" });
        }
        Type::Contact | Type::Company => {}
    }
    for (key, value) in &entry.more {
        row[key] = value.clone();
    }
    if kind != Type::Deal && !entry.phones.is_empty() {
        let phones = entry.phones.iter().enumerate().map(|(place, phone)| {
            json!({"ID": format!("{}{place}", entry.id), "VALUE_TYPE": "WORK", "VALUE": phone,
                "TYPE_ID": "PHONE"})
        });
        row["PHONE"] = phones.collect();
    }
    row.as_object().unwrap().clone()
}

#[derive(Clone, Copy)]
enum Compare {
    GreaterOrEqual,
    Greater,
    LessOrEqual,
    Less,
    In,
    NotIn,
}

enum Condition {
    Id(Compare, Vec<u64>),
    Modified(Compare, Vec<i64>),
    Field(Compare, String, Vec<String>),
}

impl Condition {
    fn read(key: &str, value: &Value) -> Self {
        let prefixes = [
            ("!@", Compare::NotIn),
            ("!=", Compare::NotIn),
            (">=", Compare::GreaterOrEqual),
            ("<=", Compare::LessOrEqual),
            (">", Compare::Greater),
            ("<", Compare::Less),
            ("@", Compare::In),
            ("=", Compare::In),
            ("!", Compare::NotIn),
        ];
        let (compare, name) = prefixes
            .iter()
            .find_map(|(prefix, compare)| Some((*compare, key.strip_prefix(prefix)?)))
            .unwrap_or((Compare::In, key));
        let values = php::texts(value);
        match name {
            // Anything that is no number is 0 to the database.
            "ID" => Self::Id(
                compare,
                values.iter().map(|v| v.parse().unwrap_or(0)).collect(),
            ),
            "DATE_MODIFY" => {
                let seconds = |text: &String| text.parse().map_or(0, jiff::Timestamp::as_second);
                Self::Modified(compare, values.iter().map(seconds).collect())
            }
            _ => Self::Field(compare, name.to_owned(), values),
        }
    }

    fn holds(&self, kind: Type, entry: &Entry) -> bool {
        match self {
            Self::Id(compare, ids) => compare.holds(&entry.id, ids),
            Self::Modified(compare, moments) => compare.holds(&entry.modified, moments),
            Self::Field(compare, name, values) => match row(kind, entry).get(name) {
                Some(Value::Array(phones)) => phones
                    .iter()
                    .any(|phone| compare.holds(&php::text(&phone["VALUE"]), values)),
                Some(value) => compare.holds(&php::text(value), values),
                None => true,
            },
        }
    }
}

impl Compare {
    fn holds<T: PartialOrd>(self, value: &T, bounds: &[T]) -> bool {
        match self {
            Self::GreaterOrEqual => bounds.iter().all(|bound| value >= bound),
            Self::Greater => bounds.iter().all(|bound| value > bound),
            Self::LessOrEqual => bounds.iter().all(|bound| value <= bound),
            Self::Less => bounds.iter().all(|bound| value < bound),
            Self::In => bounds.contains(value),
            Self::NotIn => !bounds.contains(value),
        }
    }
}

/// How the portal's kernel normalises both the stored and the sought number.
pub fn normalise(written: &str) -> String {
    let mut text = written.trim().to_owned();
    if text.chars().count() >= 10 && text.starts_with("+8") {
        text.replace_range(..1, "00");
    }
    let mut kept: String = text
        .chars()
        .filter(|c| c.is_ascii_digit() || "#*,;".contains(*c))
        .collect();
    if kept.len() >= 10 && !["80", "81", "82"].iter().any(|head| kept.starts_with(head)) {
        if let Some(rest) = kept.strip_prefix("00") {
            kept = rest.to_owned();
        } else if let Some(rest) = kept.strip_prefix("011") {
            kept = rest.to_owned();
        } else if let Some(rest) = kept.strip_prefix('8') {
            kept = format!("7{rest}");
        } else if let Some(rest) = kept.strip_prefix('0') {
            kept = rest.to_owned();
        }
    }
    let end = kept.find([';', '#', ',']).unwrap_or(kept.len());
    kept.truncate(end);
    kept
}

#[test]
fn numbers_are_compared_as_the_kernel_does() {
    let table = [
        ("+7 900 000-00-01", "79000000001"),
        ("8 (900) 000-00-01", "79000000001"),
        ("900 000-00-01", "9000000001"),
        ("+8 900 000 00 01", "89000000001"),
        ("8 (900) 000-00-01 доб. 123", "79000000001123"),
        ("+7 900 000-00-01;123", "79000000001"),
        ("+7 900 000-00-01#123", "79000000001"),
        ("+79000000001, +79000000002", "79000000001"),
        ("00 49 30 000001", "4930000001"),
        ("8 012 000-00-01", "80120000001"),
    ];
    for (written, expected) in table {
        assert_eq!(normalise(written), expected, "{written}");
    }
}
