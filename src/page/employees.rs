//! Employees of every CRM: who can be rung, and what the CRM does not hold of them, set right here.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;

use super::view::View;
use super::{Fault, Page, back_to, employee_path, steps};
use crate::directory::{self, Colleague, Origin, OwnRow, OwnRowError, Roster};
use crate::fault;
use crate::presence::PhoneState;
use crate::record::{CrmName, EmployeeId};

/// Rows of one page; whoever looks for somebody among more searches.
const MOST_ROWS: usize = 500;

#[derive(Template)]
#[template(path = "employees.html")]
struct Shown<'a> {
    view: &'a View,
    search: String,
    conflicts: Vec<String>,
    edited: Option<Edited>,
    rows: Vec<Row>,
    more: u64,
    has_nobody: bool,
}

struct Row {
    address: String,
    name: String,
    crm: String,
    email: String,
    extension: String,
    /// Where the extension comes from, unless from the CRM.
    origin: &'static str,
    deputy: String,
    hours: String,
    notes: Vec<Note>,
}

struct Note {
    level: &'static str,
    text: String,
}

/// The form of one employee.
struct Edited {
    crm: String,
    id: String,
    name: String,
    in_crm: Option<String>,
    row: OwnRow,
    absent: String,
    /// What the configuration says, which the form cannot change.
    from_config: Vec<&'static str>,
    fault: Option<String>,
    saved: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    q: String,
    crm: String,
    id: String,
    saved: bool,
}

pub(super) async fn show(
    State(page): State<Arc<Page>>,
    view: View,
    Query(asked): Query<Asked>,
) -> Response {
    let roster = page.api.directory.roster();
    let named = (!asked.id.is_empty())
        .then(|| roster.get(&CrmName::new(&asked.crm), &EmployeeId::new(&asked.id)))
        .flatten();
    let edited = named.map(|one| Edited {
        saved: asked.saved,
        ..edited(&page, &view, one, one.own_row.clone().unwrap_or_default())
    });
    view.render(&shown(&page, &view, &roster, asked.q, edited))
}

fn shown<'a>(
    page: &Page,
    view: &'a View,
    roster: &Roster,
    search: String,
    edited: Option<Edited>,
) -> Shown<'a> {
    let wanted = search.trim().to_lowercase();
    let fits = |one: &Colleague| {
        let extension = one.extension.as_ref().map_or("", |it| it.as_str());
        let email = one.email.as_deref().unwrap_or_default().to_lowercase();
        wanted.is_empty()
            || one.name.to_lowercase().contains(&wanted)
            || email.contains(&wanted)
            || extension == wanted
    };
    let all = roster.all();
    // Those whom somebody must look after stand first; dismissed ones last.
    let mut found: Vec<&Arc<Colleague>> = all.iter().filter(|one| fits(one)).collect();
    found.sort_by_key(|one| (!one.active, one.extension.is_ok()));
    let more = found.len().saturating_sub(MOST_ROWS) as u64;
    let rows = found
        .into_iter()
        .take(MOST_ROWS)
        .map(|one| row(page, view, roster, one))
        .collect();
    let conflicts = roster.conflicts().into_iter().map(|conflict| {
        let names: Vec<&str> = conflict
            .employees
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        format!(
            "{} ({}): {}",
            conflict.extension,
            conflict.crm,
            names.join(", ")
        )
    });
    Shown {
        view,
        search,
        conflicts: conflicts.collect(),
        edited,
        rows,
        more,
        has_nobody: all.is_empty(),
    }
}

fn row(page: &Page, view: &View, roster: &Roster, one: &Colleague) -> Row {
    let mut notes = Vec::new();
    let mut note = |level, text: String| notes.push(Note { level, text });
    if !one.active {
        note("", view.say("уволен", "dismissed").to_owned());
    }
    match &one.extension {
        Ok(extension) => {
            let state = page.presence.phone(extension);
            let level = match state {
                PhoneState::Free | PhoneState::Ringing | PhoneState::InUse => "good",
                PhoneState::Unknown => "",
                PhoneState::Busy | PhoneState::DoNotDisturb => "warn",
                PhoneState::Unavailable => "bad",
            };
            if one.active && state != PhoneState::Unknown {
                note(level, steps::phone_state(state, view.language).to_owned());
            }
        }
        Err(_) if one.active => {
            let text = view.say(
                "нет добавочного: звонок не дойдёт",
                "no extension: cannot be rung",
            );
            note("bad", text.to_owned());
        }
        Err(_) => {}
    }
    let away = one.absences.iter().filter(|it| it.covers(view.now));
    if let Some(away) = away.max_by_key(|absence| absence.until) {
        let text = view.say("отсутствует до", "away until");
        note("warn", format!("{text} {}", view.moment(&away.until)));
    }
    let deputy = roster.deputy_of(one);
    if let (None, Some(named)) = (deputy, &one.deputy) {
        let text = view.say("заместитель не найден", "no such deputy");
        note("bad", format!("{text}: {named}"));
    }
    Row {
        address: view.href(&employee_path(&one.crm, &one.id)),
        name: one.name.clone(),
        crm: one.crm.to_string(),
        email: one.email.clone().unwrap_or_default(),
        extension: one
            .extension
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        origin: origin(view, one.origins.extension),
        deputy: deputy.map(|deputy| deputy.name.clone()).unwrap_or_default(),
        hours: one
            .hours
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        notes,
    }
}

fn origin(view: &View, origin: Option<Origin>) -> &'static str {
    match origin {
        Some(Origin::Config) => view
            .language
            .say("из файла настроек", "from the configuration"),
        Some(Origin::Page) => view.language.say("задан здесь", "set here"),
        Some(Origin::Crm) | None => "",
    }
}

fn edited(page: &Page, view: &View, one: &Colleague, row: OwnRow) -> Edited {
    let held = [
        (
            one.origins.extension,
            view.language.say("добавочный", "extension"),
        ),
        (one.origins.mobile, view.language.say("мобильный", "mobile")),
        (
            one.origins.deputy,
            view.language.say("заместитель", "deputy"),
        ),
        (one.origins.hours, view.language.say("часы", "hours")),
    ];
    let held = held.into_iter();
    Edited {
        crm: one.crm.to_string(),
        id: one.id.to_string(),
        name: one.name.clone(),
        in_crm: page
            .mirror(&one.crm)
            .and_then(|mirror| mirror.employee_address(&one.id)),
        absent: row.absent.join("\n"),
        row,
        from_config: held
            .filter(|(origin, _)| *origin == Some(Origin::Config))
            .map(|(_, word)| word)
            .collect(),
        fault: None,
        saved: false,
    }
}

#[derive(Deserialize)]
pub(super) struct Given {
    crm: String,
    id: String,
    #[serde(default)]
    extension: String,
    #[serde(default)]
    mobile: String,
    #[serde(default)]
    deputy: String,
    #[serde(default)]
    hours: String,
    #[serde(default)]
    absent: String,
}

/// Sets what the form says; what is wrong comes back with the form as it was.
pub(super) async fn set(
    State(page): State<Arc<Page>>,
    view: View,
    Form(given): Form<Given>,
) -> Response {
    let (crm, id) = (CrmName::new(&given.crm), EmployeeId::new(&given.id));
    let filled = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let row = OwnRow {
        extension: filled(&given.extension),
        mobile: filled(&given.mobile),
        deputy: filled(&given.deputy),
        hours: filled(&given.hours),
        absent: given.absent.lines().filter_map(filled).collect(),
    };
    let stored = directory::set_checked(&*page.api.directory, &crm, &id, row.clone()).await;
    let roster = page.api.directory.roster();
    match stored {
        Ok(()) => {
            tracing::info!(%crm, employee = %id, by = view.name(), "an employee was set on the page");
            back_to(&view, &format!("{}&saved=true", employee_path(&crm, &id)))
        }
        Err(OwnRowError::Nobody { .. }) => Fault::NotFound.into_response(),
        Err(OwnRowError::Wrong(wrong)) => {
            let Some(one) = roster.get(&crm, &id) else {
                return Fault::NotFound.into_response();
            };
            let edited = Edited {
                fault: Some(wrong.text),
                ..edited(&page, &view, one, row)
            };
            let again = shown(&page, &view, &roster, String::new(), Some(edited));
            (StatusCode::UNPROCESSABLE_ENTITY, view.render(&again)).into_response()
        }
        Err(OwnRowError::Directory(error)) => Fault::Failed(fault::told(&error)).into_response(),
    }
}
