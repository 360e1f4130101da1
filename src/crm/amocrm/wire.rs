//! What amoCRM's answers look like, and the cards and employees they become.
//!
//! Pure: no network, no clock. Shapes are those of the vendor's pages contacts-api, companies-api,
//! leads-api, users-api, account-info and api-errors (amocrm.ru/developers/content). Keys that are
//! always there are demanded, also where their value may be null: a page that lacks them is
//! damaged, and taking it would wipe the phones of good cards.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use jiff::Timestamp;

use crate::crm::one_line;
use crate::record::{Card, Department, Employee, EmployeeId, EntityId, EntityKind, Stage};

/// The one standard phone field; names and numbers of fields differ per account and language.
const PHONE_CODE: &str = "PHONE";
/// The word in `crm.fields` that asks for a card's tags.
const TAGS: &str = "tags";
/// The two closed states of every pipeline: won and lost.
const CLOSED_STATUSES: [u64; 2] = [142, 143];
/// How much of the CRM's own words goes into an error.
const LONGEST_WORDS_CHARS: usize = 200;

/// One page of any list.
#[derive(Deserialize)]
pub(super) struct List<T> {
    #[serde(rename = "_links", default)]
    links: Links,
    #[serde(rename = "_embedded")]
    embedded: Rows<T>,
    #[serde(rename = "_page", default)]
    page: Option<u32>,
    #[serde(rename = "_page_count", default)]
    page_count: Option<u32>,
}

/// An empty page, the last one.
impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            links: Links::default(),
            embedded: Rows { rows: Vec::new() },
            page: None,
            page_count: None,
        }
    }
}

impl<T> List<T> {
    /// The address of the next page, as the CRM gives it.
    pub(super) fn next(&self) -> Option<&str> {
        self.links.next.as_ref().map(|link| link.href.as_str())
    }

    /// Says whether there is more; the users' list counts its pages, the others link to the next.
    pub(super) fn has_more(&self) -> bool {
        self.links.next.is_some()
            || matches!((self.page, self.page_count), (Some(page), Some(count)) if page < count)
    }

    /// The rows, in the CRM's order.
    pub(super) fn into_rows(self) -> Vec<T> {
        self.embedded.rows
    }
}

#[derive(Deserialize, Default)]
struct Links {
    #[serde(default)]
    next: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    href: String,
}

#[derive(Deserialize)]
struct Rows<T> {
    #[serde(
        alias = "contacts",
        alias = "companies",
        alias = "leads",
        alias = "users",
        alias = "events",
        alias = "webhooks"
    )]
    rows: Vec<T>,
}

/// A contact, company or lead (a deal in our words).
#[derive(Deserialize)]
pub(super) struct Row {
    pub(super) id: u64,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    first_name: Option<String>,
    #[serde(default)]
    last_name: Option<String>,
    #[serde(deserialize_with = "nullable")]
    responsible_user_id: Option<u64>,
    /// Unix seconds; null on deleted rows only.
    #[serde(deserialize_with = "nullable")]
    pub(super) updated_at: Option<i64>,
    #[serde(default)]
    status_id: Option<u64>,
    #[serde(default)]
    is_deleted: Option<bool>,
    #[serde(deserialize_with = "nullable")]
    custom_fields_values: Option<Vec<Field>>,
    #[serde(rename = "_embedded", default)]
    embedded: Option<Related>,
}

#[derive(Deserialize, Default)]
struct Related {
    #[serde(default)]
    tags: Option<Vec<Tag>>,
    #[serde(default)]
    companies: Option<Vec<Relation>>,
    #[serde(default)]
    contacts: Option<Vec<Relation>>,
    #[serde(default)]
    leads: Option<Vec<Relation>>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
}

#[derive(Deserialize)]
struct Relation {
    id: u64,
    #[serde(default)]
    is_main: Option<bool>,
}

#[derive(Deserialize)]
struct Field {
    #[serde(rename = "field_id", default)]
    id: Option<u64>,
    #[serde(rename = "field_code", default)]
    code: Option<String>,
    values: Vec<FieldValue>,
}

#[derive(Deserialize)]
struct FieldValue {
    #[serde(default)]
    value: Value,
}

impl Field {
    fn texts(&self) -> impl Iterator<Item = String> {
        self.values.iter().filter_map(|entry| text_of(&entry.value))
    }

    fn is_called(&self, wanted: &str) -> bool {
        self.code.as_deref() == Some(wanted) || self.id.is_some_and(|id| id.to_string() == wanted)
    }
}

impl Row {
    /// Makes a card of it; `None` for a deleted one. `fields` are those of `crm.fields`.
    ///
    /// The error says what is missing.
    pub(super) fn into_card(
        self,
        kind: EntityKind,
        fields: &[String],
    ) -> Result<Option<Card>, String> {
        if self.is_deleted == Some(true) {
            return Ok(None);
        }
        let mut card = Card::new(kind, EntityId::from(self.id));
        card.stage = self.stage(kind)?;
        card.links = self.links(kind);
        card.phones = self.phones();
        card.fields = fields
            .iter()
            .filter_map(|wanted| Some((wanted.clone(), self.field(wanted)?)))
            .collect();
        card.responsible = self
            .responsible_user_id
            .filter(|id| *id != 0)
            .map(|id| EmployeeId::new(&id.to_string()));
        card.modified = self
            .updated_at
            .and_then(|second| Timestamp::from_second(second).ok());
        card.name = self.into_name();
        Ok(Some(card))
    }

    /// The phone values as typed; a deal has none.
    pub(super) fn phones(&self) -> Vec<String> {
        self.custom_fields()
            .filter(|field| field.code.as_deref() == Some(PHONE_CODE))
            .flat_map(Field::texts)
            .collect()
    }

    /// The deals that a contact names when it is asked `with=leads`.
    pub(super) fn deals(&self) -> impl Iterator<Item = u64> {
        related(self.embedded.as_ref().and_then(|all| all.leads.as_ref())).map(|deal| deal.id)
    }

    fn custom_fields(&self) -> impl Iterator<Item = &Field> {
        self.custom_fields_values.iter().flatten()
    }

    fn field(&self, wanted: &str) -> Option<String> {
        let texts: Vec<String> = if wanted == TAGS {
            let tags = self.embedded.as_ref().and_then(|all| all.tags.as_ref());
            tags.into_iter()
                .flatten()
                .map(|tag| tag.name.clone())
                .collect()
        } else {
            self.custom_fields()
                .filter(|field| field.is_called(wanted))
                .flat_map(Field::texts)
                .collect()
        };
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    fn stage(&self, kind: EntityKind) -> Result<Stage, String> {
        if kind != EntityKind::Deal {
            return Ok(Stage::Open);
        }
        let status = self.status_id.ok_or("missing field `status_id`")?;
        Ok(if CLOSED_STATUSES.contains(&status) {
            Stage::Closed
        } else {
            Stage::Open
        })
    }

    fn links(&self, kind: EntityKind) -> Vec<(EntityKind, EntityId)> {
        let Some(all) = &self.embedded else {
            return Vec::new();
        };
        let mut links = Vec::new();
        if kind == EntityKind::Deal {
            let mut contacts: Vec<&Relation> = related(all.contacts.as_ref()).collect();
            contacts.sort_by_key(|contact| contact.is_main != Some(true));
            links.extend(
                contacts
                    .into_iter()
                    .map(|contact| (EntityKind::Contact, EntityId::from(contact.id))),
            );
        }
        if kind != EntityKind::Company {
            let company = related(all.companies.as_ref()).next();
            links.extend(company.map(|it| (EntityKind::Company, EntityId::from(it.id))));
        }
        links
    }

    fn into_name(self) -> String {
        match self.name {
            Some(name) if !name.trim().is_empty() => name,
            _ => [self.first_name, self.last_name]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ")
                .trim()
                .to_owned(),
        }
    }
}

fn related(list: Option<&Vec<Relation>>) -> impl Iterator<Item = &Relation> {
    list.into_iter().flatten()
}

/// A user of the account.
#[derive(Deserialize)]
pub(super) struct User {
    id: u64,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    email: Option<String>,
    /// The profile's phone; there is no field for an extension.
    #[serde(default)]
    phone_number: Value,
    rights: Rights,
}

#[derive(Deserialize)]
struct Rights {
    is_active: bool,
    #[serde(default)]
    group_id: Option<u64>,
}

impl From<User> for Employee {
    fn from(user: User) -> Self {
        let phones: Vec<String> = text_of(&user.phone_number).into_iter().collect();
        Self {
            active: user.rights.is_active,
            email: user.email.filter(|email| !email.is_empty()),
            mobiles: phones.clone(),
            phones,
            departments: user
                .rights
                .group_id
                .map(|id| id.to_string())
                .into_iter()
                .collect(),
            ..Self::new(
                EmployeeId::new(&user.id.to_string()),
                &user.name.unwrap_or_default(),
            )
        }
    }
}

/// The account that the token belongs to.
#[derive(Deserialize)]
pub(super) struct Account {
    pub(super) id: u64,
    pub(super) subdomain: String,
    /// Only told when asked for by `with`.
    #[serde(default)]
    pub(super) is_api_filter_enabled: Option<bool>,
    #[serde(rename = "_embedded", default)]
    embedded: Option<Told>,
}

/// What an account tells only when asked for by `with`.
#[derive(Deserialize, Default)]
struct Told {
    #[serde(default)]
    users_groups: Option<Vec<Group>>,
}

/// A group of users: a department, without a head and without one above it.
#[derive(Deserialize)]
struct Group {
    id: u64,
    #[serde(default)]
    name: Option<String>,
}

impl Account {
    /// The account as it names itself, and nothing more.
    #[cfg(test)]
    pub(super) fn named(id: u64, subdomain: &str) -> Self {
        Self {
            id,
            subdomain: subdomain.to_owned(),
            is_api_filter_enabled: None,
            embedded: None,
        }
    }

    /// The groups of users, where they were asked for.
    pub(super) fn groups(&self) -> Vec<Department> {
        let told = self.embedded.as_ref();
        let groups = told.and_then(|told| told.users_groups.as_ref());
        let department = |group: &Group| Department {
            id: group.id.to_string(),
            name: group.name.clone().unwrap_or_default(),
            parent: None,
            head: None,
        };
        groups.into_iter().flatten().map(department).collect()
    }
}

/// A new pair of tokens.
#[derive(Deserialize)]
pub(super) struct Grant {
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    /// Life of the access token.
    pub(super) expires_in: i64,
    /// Unix seconds; not every answer has it.
    #[serde(default)]
    pub(super) server_time: Option<i64>,
}

/// An error body, `application/problem+json`.
#[derive(Deserialize, Default)]
pub(super) struct Problem {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    hint: Option<String>,
    /// Kommo's 429 says how long to wait.
    #[serde(default)]
    pub(super) retry_after: Option<u64>,
    #[serde(rename = "validation-errors", default)]
    validation: Vec<Validation>,
}

#[derive(Deserialize)]
struct Validation {
    #[serde(default)]
    errors: Vec<Violation>,
}

#[derive(Deserialize)]
struct Violation {
    #[serde(default)]
    path: String,
    #[serde(default)]
    detail: String,
}

impl Problem {
    /// Reads an error body; anything but a problem is an empty one.
    pub(super) fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// The CRM's own words in one line; empty when it said nothing.
    pub(super) fn words(&self) -> String {
        let own = self.hint.as_ref().or(self.detail.as_ref());
        let mut parts: Vec<String> = own.or(self.title.as_ref()).into_iter().cloned().collect();
        parts.extend(
            self.validation
                .iter()
                .flat_map(|entry| &entry.errors)
                .map(|error| format!("`{}`: {}", error.path, error.detail)),
        );
        one_line(&parts.join("; "), LONGEST_WORDS_CHARS)
    }
}

/// Reads a body of a known shape; the error says what was wrong without quoting the body.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| without_values(&error))
}

/// serde quotes the value that surprised it, which may be somebody's phone or name.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let Some((found, expected)) = text.rsplit_once(", expected ") else {
        return text;
    };
    let kind = found.split(['"', '`']).next().unwrap_or_default().trim();
    format!("{kind}, expected {expected}")
}

/// A value as text: what a person sees in the field. Structured values (files, links) have none.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Unlike a plain `Option`, demands that the key is there.
fn nullable<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn card(kind: EntityKind, row: &Value, fields: &[&str]) -> Option<Card> {
        let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
        let row: Row = read(row.to_string().as_bytes()).unwrap();
        row.into_card(kind, &fields).unwrap()
    }

    fn contact() -> Value {
        json!({
            "id": 3001, "name": "Тест Тестов", "responsible_user_id": 501,
            "updated_at": 1_795_348_800, "is_deleted": false,
            "custom_fields_values": [
                {"field_id": 9001, "field_name": "Телефон", "field_code": "PHONE",
                 "values": [{"value": "8 (900) 000-00-01", "enum_code": "WORK"},
                            {"value": 79_000_000_002_u64, "enum": "MOB"},
                            {"value": null}, {"value": " "}]},
                {"field_id": 9002, "field_code": null, "values": [{"value": "a"}, {"value": 7}]},
                {"field_id": 9003, "field_code": "VIP", "values": [{"value": true}]}],
            "_embedded": {"tags": [{"id": 1, "name": "опт"}, {"id": 2, "name": "Москва"}],
                          "companies": [{"id": 4001}]}
        })
    }

    #[test]
    fn a_contact_becomes_a_card_with_its_phones_as_typed() {
        let card = card(EntityKind::Contact, &contact(), &[]).unwrap();
        assert_eq!(card.name, "Тест Тестов");
        assert_eq!(card.phones, ["8 (900) 000-00-01", "79000000002"]);
        assert_eq!(card.responsible, Some(EmployeeId::new("501")));
        assert_eq!(card.links, [(EntityKind::Company, EntityId::from(4001))]);
        assert_eq!(card.modified.unwrap().as_second(), 1_795_348_800);
    }

    #[test]
    fn wanted_fields_are_found_by_code_by_id_and_as_tags() {
        let wanted = ["9002", "VIP", "tags", "NONE"];
        let fields = card(EntityKind::Contact, &contact(), &wanted)
            .unwrap()
            .fields;
        let written: Vec<(&str, &str)> = fields
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            written,
            [("9002", "a, 7"), ("VIP", "true"), ("tags", "опт, Москва")]
        );
    }

    #[test]
    fn a_deal_links_its_main_contact_first_and_is_closed_by_its_status() {
        let mut row = json!({
            "id": 6001, "name": "Сделка", "responsible_user_id": 0, "updated_at": 5,
            "status_id": 143, "custom_fields_values": null,
            "_embedded": {"companies": [{"id": 4001}],
                          "contacts": [{"id": 3002, "is_main": false}, {"id": 3001, "is_main": true}]}
        });
        let deal = card(EntityKind::Deal, &row, &[]).unwrap();
        let links: Vec<String> = deal
            .links
            .iter()
            .map(|(kind, id)| format!("{kind} {id}"))
            .collect();
        assert_eq!(links, ["contact 3001", "contact 3002", "company 4001"]);
        assert_eq!((deal.stage, deal.responsible), (Stage::Closed, None));
        row["status_id"] = json!(100);
        assert_eq!(
            card(EntityKind::Deal, &row, &[]).unwrap().stage,
            Stage::Open
        );
        row.as_object_mut().unwrap().remove("status_id");
        let row: Row = read(row.to_string().as_bytes()).unwrap();
        assert!(row.into_card(EntityKind::Deal, &[]).is_err());
    }

    #[test]
    fn deleted_rows_are_no_cards() {
        let row = json!({"id": 1, "name": null, "responsible_user_id": null, "updated_at": 5,
            "is_deleted": true, "custom_fields_values": null, "_embedded": []});
        assert_eq!(card(EntityKind::Contact, &row, &[]), None);
    }

    #[test]
    fn an_unnamed_contact_is_called_by_first_and_last_name() {
        let row = json!({"id": 1, "name": "", "first_name": "Anna", "last_name": "Example",
            "responsible_user_id": 1, "updated_at": 5, "custom_fields_values": null});
        assert_eq!(
            card(EntityKind::Contact, &row, &[]).unwrap().name,
            "Anna Example"
        );
    }

    #[test]
    fn a_row_without_its_phone_field_key_is_damaged() {
        let mut row = contact();
        row.as_object_mut().unwrap().remove("custom_fields_values");
        let error = read::<Row>(row.to_string().as_bytes()).err().unwrap();
        assert!(error.contains("custom_fields_values"), "{error}");
    }

    #[test]
    fn errors_do_not_quote_what_they_found() {
        for value in [json!("+79000000001"), json!(79_000_000_001_u64)] {
            let mut row = contact();
            row["custom_fields_values"] = value;
            let error = read::<Row>(row.to_string().as_bytes()).err().unwrap();
            assert!(!error.contains("7900"), "{error}");
            assert!(error.contains("expected a sequence"), "{error}");
        }
    }

    #[test]
    fn the_users_list_tells_its_end_by_counting_pages() {
        let users = json!({"_page": 1, "_page_count": 2, "_embedded": {"users": []}});
        let list: List<User> = read(users.to_string().as_bytes()).unwrap();
        assert!(list.has_more());
        let users = json!({"_page": 2, "_page_count": 2, "_embedded": {"users": []}});
        let list: List<User> = read(users.to_string().as_bytes()).unwrap();
        assert!(!list.has_more());
    }

    #[test]
    fn a_problem_is_told_in_one_line() {
        let problem = json!({"title": "Bad Request", "status": 400, "detail": "Request validation failed",
            "validation-errors": [{"request_id": "0", "errors": [{"code": "InvalidType",
            "path": "filter.updated_at.from", "detail": "This value should be of type int."}]}]});
        assert_eq!(
            Problem::read(problem.to_string().as_bytes()).words(),
            "Request validation failed; `filter.updated_at.from`: This value should be of type int."
        );
        assert_eq!(Problem::read(b"<html>").words(), "");
    }
}
