//! The employees as `/api/v1/employees` lists them: what the roster holds of each, and what follows
//! from it at this moment, so that an administrator sees why somebody is not rung.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Api, is_owner, refuse, refuse_stranger};
use crate::directory::{self, Colleague, OwnRow, OwnRowError, Roster};
use crate::record::{CrmName, EmployeeId};

/// The largest row that is read.
const LARGEST_ROW_BYTES: usize = 256 << 10;

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
    fields.insert("origins".to_owned(), json!(colleague.origins));
    fields.insert("own_row".to_owned(), json!(colleague.own_row));
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

/// Sets what the CRM does not hold of an employee, in place of what was set before.
pub(super) async fn set(
    State(api): State<Arc<Api>>,
    Path((crm, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    if !is_owner(&api, request.headers()) {
        return refuse_stranger();
    }
    let (crm, id) = (CrmName::new(&crm), EmployeeId::new(&id));
    if !api.regions.contains_key(&crm) {
        let text = format!("no [[crm]] is named `{crm}`");
        return refuse(StatusCode::NOT_FOUND, &text);
    }
    let body = match axum::body::to_bytes(request.into_body(), LARGEST_ROW_BYTES).await {
        Ok(body) => body,
        Err(error) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
    };
    let row: OwnRow = match serde_json::from_slice(&body) {
        Ok(row) => row,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match directory::set_checked(&*api.directory, &crm, &id, row).await {
        Ok(()) => {
            let roster = api.directory.roster();
            let colleague = roster.get(&crm, &id);
            let shown = colleague.map(|one| employee(&roster, one, (api.clock)()));
            Json(shown).into_response()
        }
        Err(OwnRowError::Wrong(fault)) => {
            let body = json!({"error": fault.text, "field": fault.field});
            (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
        }
        Err(error @ OwnRowError::Nobody { .. }) => {
            refuse(StatusCode::NOT_FOUND, &error.to_string())
        }
        Err(OwnRowError::Directory(error)) => refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            &crate::fault::told(&error),
        ),
    }
}
