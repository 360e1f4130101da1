//! The employees for people: a line each, and what keeps them from being rung.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::plain;
use crate::directory::OwnRow;

/// Prints what `/api/v1/employees` lists.
pub(super) fn print(employees: &[Value]) {
    let mut by_extension: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for employee in employees {
        let extension = text(employee, "/extension");
        let (crm, name) = (text(employee, "/crm"), text(employee, "/name"));
        let shown = if extension.is_empty() { "-" } else { extension };
        let line = format!(
            "{crm:<12} {shown:<8} {name:<32} {:<8} {}",
            text(employee, "/id"),
            notes(employee).join("; ")
        );
        println!("{}", plain(line.trim_end()));
        if is(employee, "/active") && !extension.is_empty() {
            by_extension.entry((crm, extension)).or_default().push(name);
        }
    }
    for ((crm, extension), names) in by_extension.iter().filter(|(_, names)| names.len() > 1) {
        println!(
            "{crm}: extension {extension} belongs to {}",
            names.join(" and ")
        );
    }
    if employees.is_empty() {
        println!("no employees yet; `pryamo check` tells why");
    }
}

/// What was set on the page, as lines of `[crm.employees]` for the configuration.
pub(super) fn export(employees: &[Value]) -> String {
    let mut by_crm: BTreeMap<&str, String> = BTreeMap::new();
    for employee in employees {
        let row = employee.get("own_row").cloned().unwrap_or_default();
        let row: Option<OwnRow> = serde_json::from_value(row).unwrap_or_default();
        if let Some(row) = row.filter(|row| !row.is_empty()) {
            let lines = by_crm.entry(text(employee, "/crm")).or_default();
            let id = toml::Value::from(text(employee, "/id"));
            let name = super::super::plain(text(employee, "/name"));
            // Writing into a string does not fail.
            let _ = writeln!(lines, "{id} = {{ {} }}  # {name}", written(row));
        }
    }
    let mut told = String::new();
    for (crm, lines) in by_crm {
        let _ = write!(
            told,
            "# Below the [[crm]] table named \"{crm}\"; where that has [crm.employees] already, only the lines\n\
            # behind this one.\n[crm.employees]\n{lines}\n"
        );
    }
    if told.is_empty() {
        return "# nothing was set on the page\n".to_owned();
    }
    told
}

/// The values of a row, as an inline table holds them.
fn written(row: OwnRow) -> String {
    let values = [
        ("extension", row.extension),
        ("mobile", row.mobile),
        ("deputy", row.deputy),
        ("hours", row.hours),
    ];
    let values = values.into_iter();
    let mut values: Vec<String> = values
        .filter_map(|(key, value)| Some(format!("{key} = {}", toml::Value::from(value?))))
        .collect();
    if !row.absent.is_empty() {
        values.push(format!("absent = {}", toml::Value::from(row.absent)));
    }
    values.join(", ")
}

/// What there is to say of somebody: first what is in the way of a call, then who goes in between.
fn notes(employee: &Value) -> Vec<String> {
    if !is(employee, "/active") {
        return vec!["dismissed".to_owned()];
    }
    let mut notes = Vec::new();
    let said = |pointer: &str| Some(text(employee, pointer)).filter(|text| !text.is_empty());
    notes.extend(said("/why_not").map(str::to_owned));
    if let Some(until) = said("/away/until") {
        let what = said("/away/what").map(|what| format!(" ({what})"));
        let what = what.unwrap_or_default();
        notes.push(format!("away until {}{what}", local(until)));
    }
    match text(employee, "/workday") {
        "" => {}
        "open" => notes.push("working day begun".to_owned()),
        "paused" => notes.push("on a break".to_owned()),
        other => notes.push(format!("working day {other}")),
    }
    notes.extend(said("/hours").map(|hours| format!("works {hours}")));
    if let Some(deputy) = said("/deputy") {
        notes.push(match said("/deputy_employee/name") {
            Some(name) => format!("deputy {name}"),
            None => format!("deputy {deputy} IS NOBODY IN THIS CRM"),
        });
    }
    let departments = employee.get("in_departments").and_then(Value::as_array);
    for department in departments.into_iter().flatten() {
        let name = match text(department, "/name") {
            "" => text(department, "/id"),
            name => name,
        };
        notes.push(
            match (is(department, "/is_head"), text(department, "/head")) {
                (true, _) => format!("head of {name}"),
                (false, "") => format!("in {name}"),
                (false, head) => format!("in {name} under {head}"),
            },
        );
    }
    notes
}

/// A moment by this machine's clock; as it came if it is none.
fn local(written: &str) -> String {
    let moment: Result<Timestamp, _> = written.parse();
    moment.map_or_else(
        |_| written.to_owned(),
        |moment| {
            let local = moment.to_zoned(TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M").to_string()
        },
    )
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default()
}

fn is(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_exported_is_read_by_the_configuration() {
        let row = json!({
            "extension": "101", "mobile": null, "deputy": "Борис \"Б\" O'Neil",
            "hours": "Mon-Fri 09:00-18:00", "absent": ["2026-12-01..2026-12-14", "2026-12-31"],
        });
        let employees = [
            json!({"crm": "sales", "id": "502", "name": "Анна\n[x]", "own_row": row}),
            json!({"crm": "sales", "id": "503", "name": "Борис", "own_row": null}),
            json!({"crm": "retail", "id": "a.b@c", "name": "", "own_row": {"extension": "7"}}),
        ];
        let exported = export(&employees);
        let (retail, sales) = exported
            .split_once("# Below the [[crm]] table named \"sales\"")
            .unwrap();
        let read = |part: &str| {
            let table: toml::Table = format!("[[crm]]\n#{part}").parse().unwrap();
            table["crm"][0]["employees"].clone()
        };
        let sales: BTreeMap<String, OwnRow> = read(sales).try_into().unwrap();
        assert_eq!(sales.len(), 1);
        assert_eq!(serde_json::to_value(&sales["502"]).unwrap(), row);
        assert_eq!(read(retail)["a.b@c"]["extension"].as_str(), Some("7"));
        assert!(export(&employees[1..2]).starts_with("# nothing"));
    }

    #[test]
    fn a_line_tells_what_is_in_the_way_and_who_goes_in_between() {
        let plain = json!({"active": true, "extension": "101"});
        assert!(notes(&plain).is_empty());
        let dismissed = json!({"active": false, "why_not": "no extension"});
        assert_eq!(notes(&dismissed), ["dismissed"]);
        let employee = json!({
            "active": true, "workday": "closed", "hours": "Mon-Fri 09:00-18:00",
            "away": {"from": "x", "until": "soon", "what": "Отпуск"},
            "deputy": "boris", "deputy_employee": {"id": "2", "name": "Борис"},
            "in_departments": [{"id": "3", "name": "Продажи", "head": "Вера", "is_head": false},
                {"id": "4", "name": "", "head": "Анна", "is_head": true},
                {"id": "5", "name": "Склад", "head": null, "is_head": false}],
        });
        assert_eq!(
            notes(&employee),
            [
                "away until soon (Отпуск)",
                "working day closed",
                "works Mon-Fri 09:00-18:00",
                "deputy Борис",
                "in Продажи under Вера",
                "head of 4",
                "in Склад",
            ]
        );
        let misnamed = json!({"active": true, "deputy": "boris", "deputy_employee": null});
        assert_eq!(notes(&misnamed), ["deputy boris IS NOBODY IN THIS CRM"]);
    }
}
