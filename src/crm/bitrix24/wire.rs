//! Bitrix24's JSON, with the quirks of PHP: an empty map is `[]`, a map with the keys 0, 1, 2 is an
//! array, numbers are strings or numbers, truth is `true`, `"Y"` or `"1"`, an empty date is `""`,
//! `null`, `{}` or `false`.
//!
//! Faults are told as text; who asked knows the method.

use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::Value;

use crate::record::{Card, Department, Employee, EmployeeId, EntityId, EntityKind, Stage};

/// What a method is called and answers for one kind of card.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wording {
    /// The method that lists the cards.
    pub(super) list: &'static str,
    /// The kind's name in `crm.duplicate.findbycomm`; `None` for cards without phones.
    pub(super) duplicate_type: Option<&'static str>,
    /// The fields to ask for; multiple ones such as `PHONE` come only when named.
    pub(super) select: &'static [&'static str],
}

/// How Bitrix24 words this kind.
pub(super) fn wording(kind: EntityKind) -> Wording {
    match kind {
        EntityKind::Contact => Wording {
            list: "crm.contact.list",
            duplicate_type: Some("CONTACT"),
            select: &[
                "ID",
                "NAME",
                "LAST_NAME",
                "COMPANY_ID",
                "ASSIGNED_BY_ID",
                "DATE_MODIFY",
                "PHONE",
            ],
        },
        EntityKind::Company => Wording {
            list: "crm.company.list",
            duplicate_type: Some("COMPANY"),
            select: &["ID", "TITLE", "ASSIGNED_BY_ID", "DATE_MODIFY", "PHONE"],
        },
        EntityKind::Lead => Wording {
            list: "crm.lead.list",
            duplicate_type: Some("LEAD"),
            select: &[
                "ID",
                "TITLE",
                "NAME",
                "LAST_NAME",
                "STATUS_SEMANTIC_ID",
                "CONTACT_ID",
                "COMPANY_ID",
                "ASSIGNED_BY_ID",
                "DATE_MODIFY",
                "PHONE",
            ],
        },
        EntityKind::Deal => Wording {
            list: "crm.deal.list",
            duplicate_type: None,
            select: &[
                "ID",
                "TITLE",
                "STAGE_SEMANTIC_ID",
                "CLOSED",
                "CONTACT_ID",
                "COMPANY_ID",
                "ASSIGNED_BY_ID",
                "DATE_MODIFY",
            ],
        },
    }
}

/// A number, written as one or as text.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number| number.is_finite())
}

/// A whole number above zero, written as one or as text.
pub(super) fn positive(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number| *number > 0)
}

/// A text that is not blank, as written; a number as text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Truth in any of PHP's shapes; `None` when it is none of them.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => Some(number.as_f64() != Some(0.0)),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "y" | "1" | "true" => Some(true),
            "n" | "0" | "false" | "" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A moment with an offset; `None` for every other shape.
pub(super) fn moment(value: &Value) -> Option<Timestamp> {
    value.as_str()?.trim().parse().ok()
}

/// The values of a list, which with gaps in its keys comes as a map; `None` for other shapes.
pub(super) fn items(value: &Value) -> Option<Vec<&Value>> {
    match value {
        Value::Array(list) => Some(list.iter().collect()),
        Value::Object(map) => Some(map.values().collect()),
        _ => None,
    }
}

/// The value for a named command of a batch, which may come by its place in an array.
pub(super) fn slot<'a>(answers: &'a Value, name: &str, place: usize) -> Option<&'a Value> {
    match answers {
        Value::Object(map) => map.get(name),
        Value::Array(list) => list.get(place),
        _ => None,
    }
}

/// The same, to take it out.
pub(super) fn slot_mut<'a>(
    answers: &'a mut Value,
    name: &str,
    place: usize,
) -> Option<&'a mut Value> {
    match answers {
        Value::Object(map) => map.get_mut(name),
        Value::Array(list) => list.get_mut(place),
        _ => None,
    }
}

/// The portal's clock when it began to answer.
pub(super) fn server_time(time: &Value) -> Option<Timestamp> {
    time.get("date_start").and_then(moment).or_else(|| {
        let seconds = time.get("start").and_then(number)?;
        #[expect(clippy::cast_possible_truncation, reason = "checked by `from_second`")]
        Timestamp::from_second(seconds as i64).ok()
    })
}

/// The same with the portal's offset, by which it writes the times of calendars.
pub(super) fn local_time(time: &Value) -> Option<Zoned> {
    let written = time.get("date_start")?.as_str()?.trim();
    let offset = Pieces::parse(written).ok()?.to_numeric_offset()?;
    let moment: Timestamp = written.parse().ok()?;
    Some(moment.to_zoned(TimeZone::fixed(offset)))
}

/// The portal's clock when it had answered.
pub(super) fn finish_time(time: &Value) -> Option<Timestamp> {
    let seconds = time.get("finish").and_then(number)?;
    #[expect(clippy::cast_possible_truncation, reason = "checked by `from_second`")]
    Timestamp::from_second(seconds as i64).ok()
}

/// Reads a row of a classic list, with those of `fields` that it holds.
///
/// `ID` and `ASSIGNED_BY_ID` must be there: a page without them is damaged, and taking it would
/// rob cards of their responsible.
pub(super) fn card(
    kind: EntityKind,
    row: &Value,
    fields: &[String],
) -> Result<(u64, Card), String> {
    let id = row
        .get("ID")
        .and_then(positive)
        .ok_or("a row has no readable `ID`")?;
    if row.get("ASSIGNED_BY_ID").is_none() {
        return Err(format!("row {id} has no `ASSIGNED_BY_ID`"));
    }
    let mut card = Card::new(kind, EntityId::from(id));
    card.responsible = link(row, "ASSIGNED_BY_ID")?.map(|user| EmployeeId::new(&user.to_string()));
    card.name = card_name(kind, row);
    card.phones = phones(row).map_err(|fault| format!("row {id}: {fault}"))?;
    card.modified = row.get("DATE_MODIFY").and_then(moment);
    card.stage = stage(kind, row);
    for (linked, key) in [
        (EntityKind::Contact, "CONTACT_ID"),
        (EntityKind::Company, "COMPANY_ID"),
    ] {
        if let Some(other) = link(row, key)? {
            card.links.push((linked, EntityId::from(other)));
        }
    }
    for field in fields {
        if let Some(value) = row.get(field).and_then(plain) {
            card.fields.insert(field.clone(), value);
        }
    }
    Ok((id, card))
}

fn card_name(kind: EntityKind, row: &Value) -> String {
    let person = joined(row, &["NAME", "LAST_NAME"]);
    match kind {
        EntityKind::Contact => person,
        EntityKind::Lead if !person.is_empty() => person,
        _ => joined(row, &["TITLE"]),
    }
}

fn joined(row: &Value, keys: &[&str]) -> String {
    let parts: Vec<String> = keys
        .iter()
        .filter_map(|key| row.get(key).and_then(text))
        .map(|part| part.trim().to_owned())
        .collect();
    parts.join(" ")
}

fn stage(kind: EntityKind, row: &Value) -> Stage {
    let semantic = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
    match kind {
        EntityKind::Contact | EntityKind::Company => Stage::Open,
        EntityKind::Lead => match semantic("STATUS_SEMANTIC_ID") {
            "S" => Stage::Closed,
            "F" => Stage::Junk,
            _ => Stage::Open,
        },
        EntityKind::Deal => {
            let closed = row.get("CLOSED").and_then(truth) == Some(true)
                || matches!(semantic("STAGE_SEMANTIC_ID"), "S" | "F");
            if closed { Stage::Closed } else { Stage::Open }
        }
    }
}

/// A reference to another card or a user; nobody is `null`, `""`, `0`, `"0"`, `false` or `[]`.
fn link(row: &Value, key: &str) -> Result<Option<u64>, String> {
    let empty = match row.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::String(text)) => matches!(text.trim(), "" | "0"),
        Some(value) => value.as_f64() == Some(0.0),
    };
    if empty {
        return Ok(None);
    }
    match row.get(key).and_then(positive) {
        Some(id) => Ok(Some(id)),
        None => Err(format!("`{key}` is no identifier")),
    }
}

/// The key is absent when a card has no phone.
fn phones(row: &Value) -> Result<Vec<String>, String> {
    let Some(value) = row.get("PHONE") else {
        return Ok(Vec::new());
    };
    if matches!(value, Value::Null | Value::Bool(false)) {
        return Ok(Vec::new());
    }
    let mut written = Vec::new();
    for entry in items(value).ok_or("`PHONE` is no list")? {
        let phone = entry.get("VALUE").ok_or("a phone has no `VALUE`")?;
        written.extend(text(phone));
    }
    Ok(written)
}

/// A field of any type as text: a list joined by commas, of a multiple field its values.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Bool(truth) => Some(if *truth { "Y" } else { "N" }.to_owned()),
        Value::Array(list) => joined_values(list.iter()),
        Value::Object(map) if map.contains_key("VALUE") => map.get("VALUE").and_then(text),
        // A list with gaps in its keys.
        Value::Object(map) => joined_values(map.values()),
        other => text(other),
    }
}

fn joined_values<'a>(values: impl Iterator<Item = &'a Value>) -> Option<String> {
    let parts: Vec<String> = values.filter_map(plain).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Reads a row of `department.get`.
pub(super) fn department(row: &Value) -> Result<Department, String> {
    let id = row
        .get("ID")
        .and_then(positive)
        .ok_or("a department has no readable `ID`")?;
    let link = |key| link(row, key).map_err(|fault| format!("department {id}: {fault}"));
    Ok(Department {
        id: id.to_string(),
        name: joined(row, &["NAME"]),
        parent: link("PARENT")?.map(|parent| parent.to_string()),
        head: link("UF_HEAD")?.map(|head| EmployeeId::new(&head.to_string())),
    })
}

/// Reads a row of `user.get`.
pub(super) fn employee(row: &Value) -> Result<Employee, String> {
    let id = row
        .get("ID")
        .and_then(positive)
        .ok_or("a user has no readable `ID`")?;
    let active = row
        .get("ACTIVE")
        .and_then(truth)
        .ok_or_else(|| format!("user {id} has no readable `ACTIVE`"))?;
    let field = |key: &str| row.get(key).and_then(text);
    let departments = row.get("UF_DEPARTMENT").and_then(items).unwrap_or_default();
    Ok(Employee {
        active,
        extension: field("UF_PHONE_INNER"),
        email: field("EMAIL"),
        phones: ["PERSONAL_MOBILE", "WORK_PHONE"]
            .into_iter()
            .filter_map(field)
            .collect(),
        mobiles: field("PERSONAL_MOBILE").into_iter().collect(),
        departments: departments.into_iter().filter_map(text).collect(),
        ..Employee::new(
            EmployeeId::new(&id.to_string()),
            &joined(row, &["NAME", "LAST_NAME"]),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contact(row: &Value) -> Result<(u64, Card), String> {
        card(EntityKind::Contact, row, &["UF_CRM_VIP".to_owned()])
    }

    #[test]
    fn a_contact_arrives_as_written() {
        let row = json!({"ID": "156", "NAME": "Test", "LAST_NAME": "Person", "COMPANY_ID": 9,
            "ASSIGNED_BY_ID": "17", "DATE_MODIFY": "2026-11-20T10:00:00+03:00", "UF_CRM_VIP": "1",
            "PHONE": [{"ID": "501", "VALUE": "8 (900) 000-00-01"}, {"VALUE": ""}]});
        let (id, card) = contact(&row).unwrap();
        assert_eq!(id, 156);
        assert_eq!(card.name, "Test Person");
        assert_eq!(card.responsible, Some(EmployeeId::new("17")));
        assert_eq!(card.phones, ["8 (900) 000-00-01"]);
        assert_eq!(card.links, [(EntityKind::Company, EntityId::from(9))]);
        assert_eq!(card.modified, "2026-11-20T07:00:00Z".parse().ok());
        assert_eq!(card.fields.get("UF_CRM_VIP").unwrap(), "1");
    }

    #[test]
    fn phps_empty_values_mean_nothing() {
        let nothing = [
            json!(null),
            json!(""),
            json!("0"),
            json!(0),
            json!(false),
            json!([]),
        ];
        for value in nothing {
            let row = json!({"ID": 1, "ASSIGNED_BY_ID": value, "COMPANY_ID": value,
                "DATE_MODIFY": value, "NAME": null, "UF_CRM_VIP": null});
            let (_, card) = contact(&row).unwrap();
            assert_eq!(
                card,
                Card::new(EntityKind::Contact, EntityId::from(1)),
                "{value}"
            );
        }
    }

    #[test]
    fn a_damaged_row_is_a_fault() {
        let damaged = [
            json!("row"),
            json!({"ASSIGNED_BY_ID": "1"}),
            json!({"ID": "x", "ASSIGNED_BY_ID": "1"}),
            json!({"ID": "1"}),
            json!({"ID": "1", "ASSIGNED_BY_ID": {"ID": 1}}),
            json!({"ID": "1", "ASSIGNED_BY_ID": "1", "PHONE": "79000000001"}),
            json!({"ID": "1", "ASSIGNED_BY_ID": "1", "PHONE": [{"VALUE_TYPE": "WORK"}]}),
        ];
        for row in damaged {
            assert!(contact(&row).is_err(), "{row}");
        }
    }

    #[test]
    fn only_open_leads_and_deals_are_open() {
        let table = [
            (
                EntityKind::Lead,
                json!({"STATUS_SEMANTIC_ID": "P"}),
                Stage::Open,
            ),
            (
                EntityKind::Lead,
                json!({"STATUS_SEMANTIC_ID": "S"}),
                Stage::Closed,
            ),
            (
                EntityKind::Lead,
                json!({"STATUS_SEMANTIC_ID": "F"}),
                Stage::Junk,
            ),
            (
                EntityKind::Deal,
                json!({"CLOSED": "N", "STAGE_SEMANTIC_ID": "P"}),
                Stage::Open,
            ),
            (EntityKind::Deal, json!({"CLOSED": "Y"}), Stage::Closed),
            (
                EntityKind::Deal,
                json!({"CLOSED": "N", "STAGE_SEMANTIC_ID": "F"}),
                Stage::Closed,
            ),
            (EntityKind::Company, json!({"CLOSED": "Y"}), Stage::Open),
        ];
        for (kind, row, expected) in table {
            assert_eq!(stage(kind, &row), expected, "{kind} {row}");
        }
    }

    #[test]
    fn a_user_is_read_in_every_shape() {
        for (shape, expected) in [
            (json!(true), true),
            (json!("Y"), true),
            (json!("1"), true),
            (json!(1), true),
            (json!(false), false),
            (json!("N"), false),
            (json!(""), false),
        ] {
            let row = json!({"ID": 17, "ACTIVE": shape, "UF_PHONE_INNER": " 101 ",
                "UF_DEPARTMENT": [3, "4"], "WORK_PHONE": "", "PERSONAL_MOBILE": null});
            let employee = employee(&row).unwrap();
            assert_eq!(employee.active, expected, "{shape}");
            assert_eq!(employee.extension.as_deref(), Some(" 101 "));
            assert_eq!(employee.departments, ["3", "4"]);
            assert!(employee.phones.is_empty());
        }
        assert!(employee(&json!({"ID": 17})).is_err());
    }
}
