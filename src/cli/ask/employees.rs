//! The employees for people: a line each, and what keeps them from being rung.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

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
        println!("{}", line.trim_end());
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
