//! What the portal tells of its people besides `user.get`: departments, calendars, the working-day
//! clock. Pure.

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use serde_json::{Value, json};

use super::methods::Fault;
use super::php;
use crate::world::{Appointment, Department, World};

/// All departments that pass the filters, which stand at the top level, by identifier.
pub fn departments(world: &World, params: &Value) -> Vec<Value> {
    let own = [Department {
        id: 1,
        name: "Head office".to_owned(),
        ..Department::default()
    }];
    let all = if world.departments.is_empty() {
        &own[..]
    } else {
        &world.departments
    };
    let holds = |row: &Value| {
        ["ID", "NAME", "PARENT", "UF_HEAD"].iter().all(|key| {
            let wanted = php::get(params, key).map(php::text);
            wanted.is_none_or(|wanted| php::text(&row[key]) == wanted)
        })
    };
    all.iter().map(row).filter(holds).collect()
}

/// Nobody as head is "0", null or no key at all, as the department came to be; the root has no parent.
fn row(department: &Department) -> Value {
    let Department { id, name, .. } = department;
    let mut row = json!({"ID": id.to_string(), "NAME": name, "SORT": 500});
    if let Some(parent) = department.parent {
        row["PARENT"] = json!(parent.to_string());
    }
    match (department.head, id % 3) {
        (Some(head), _) => row["UF_HEAD"] = json!(head.to_string()),
        (None, 0) => row["UF_HEAD"] = json!("0"),
        (None, 1) => row["UF_HEAD"] = Value::Null,
        (None, _) => {}
    }
    row
}

/// The calendars of the users that are asked for; who has nothing there has an empty list.
pub fn accessibility(world: &World, params: &Value) -> Result<Value, Fault> {
    let missing = |name: &str| {
        let text = format!("The required parameter \"{name}\" is not set for the method");
        Fault::new(400, "", text)
    };
    let users = php::get(params, "users").ok_or_else(|| missing("users"))?;
    let day = |name: &str| -> Result<Date, Fault> {
        let written = php::get(params, name).map(php::text);
        let date = written.and_then(|written| Date::strptime("%Y-%m-%d", written).ok());
        date.ok_or_else(|| missing(name))
    };
    let (first, last) = (day("from")?, day("to")?);
    let entries = |id: &String| -> Vec<Value> {
        let user = world.users.iter().find(|user| user.id.to_string() == *id);
        let calendar = user.into_iter().flat_map(|user| &user.calendar);
        calendar
            .filter(|entry| entry.from.date() <= last && entry.to.date() >= first)
            .enumerate()
            .map(|(place, entry)| appointment(place, entry))
            .collect()
    };
    let told = php::texts(users)
        .iter()
        .map(|id| (id.clone(), json!(entries(id))))
        .collect();
    Ok(php::map(told))
}

/// The timestamps take the office's clock for that of Greenwich: they do not agree with the dates.
fn appointment(place: usize, entry: &Appointment) -> Value {
    let text = |local: DateTime| {
        let form = if entry.whole_days {
            "%d.%m.%Y"
        } else {
            "%d.%m.%Y %H:%M:%S"
        };
        local.strftime(form).to_string()
    };
    let stamp = |local: DateTime| {
        let moment = TimeZone::fixed(Offset::UTC).to_timestamp(local).unwrap();
        moment.as_second().to_string()
    };
    json!({"ID": (1213 + place).to_string(), "NAME": entry.name,
        "DATE_FROM": text(entry.from), "DATE_TO": text(entry.to),
        "DATE_FROM_TS_UTC": stamp(entry.from), "DATE_TO_TS_UTC": stamp(entry.to),
        "DT_SKIP_TIME": if entry.whole_days { "Y" } else { "N" }, "ACCESSIBILITY": entry.means})
}

/// The working-day clock of one user, of the caller unless another is named.
pub fn workday(world: &World, params: &Value, caller: u64) -> Result<Value, Fault> {
    let id = php::get(params, "USER_ID").map_or_else(|| caller.to_string(), php::text);
    let user = world.users.iter().find(|user| user.id.to_string() == id);
    let user = user.ok_or_else(|| Fault::new(400, "", "User not found"))?;
    let status = user.workday.unwrap_or("CLOSED");
    Ok(
        json!({"STATUS": status, "TIME_START": "2026-11-22T09:00:00+03:00",
        "TIME_FINISH": null, "DURATION": "00:00:00", "TIME_LEAKS": "00:10:00",
        "ACTIVE": status == "OPENED", "TZ_OFFSET": 10_800}),
    )
}
