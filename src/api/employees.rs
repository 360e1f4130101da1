//! The employees as `/api/v1/employees` lists them: what the roster holds of each, and what follows
//! from it at this moment, so that an administrator sees why somebody is not rung.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::directory::{Colleague, Roster};

/// All of them, sorted as the roster sorts.
pub(super) fn shown(roster: &Roster, now: Timestamp) -> Vec<Value> {
    let all = roster.all();
    all.iter().map(|one| employee(roster, one, now)).collect()
}

fn employee(roster: &Roster, colleague: &Colleague, now: Timestamp) -> Value {
    let mut shown = json!(colleague);
    let Value::Object(fields) = &mut shown else {
        return shown;
    };
    if let Err(why) = &colleague.extension {
        fields.insert("why_not".to_owned(), json!(why.to_string()));
    }
    let departments: Vec<Value> = roster
        .departments_of(colleague)
        .map(|own| {
            let head = own.head.as_ref();
            let head = head.and_then(|head| roster.get(&colleague.crm, head));
            json!({
                "id": own.id,
                "name": own.name,
                "head": head.map(|head| &head.name),
                "is_head": head.is_some_and(|head| head.id == colleague.id),
            })
        })
        .collect();
    fields.insert("in_departments".to_owned(), json!(departments));
    let deputy = roster.deputy_of(colleague);
    let deputy = deputy.map(|deputy| json!({"id": deputy.id, "name": deputy.name}));
    fields.insert("deputy_employee".to_owned(), json!(deputy));
    // Of several that overlap the one that ends last says when to expect them.
    let away = colleague.absences.iter().filter(|it| it.covers(now));
    let away = away.max_by_key(|absence| absence.until);
    fields.insert("away".to_owned(), json!(away));
    shown
}
