//! Hygiene: what somebody should mend in the CRM, each with its link; a count that should fall.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::trend::{self, Trend};
use super::view::View;
use super::{Fault, Page, back_to, employee_path};
use crate::directory::{CardRef, DirectoryError, Findings, Left, Roster, Survey};
use crate::record::EmployeeId;

/// Rows of each list; the count says how many there are.
const MOST_ROWS: usize = 100;

#[derive(Template)]
#[template(path = "hygiene.html")]
struct Shown<'a> {
    view: &'a View,
    is_running: bool,
    counted_at: Option<String>,
    fault: Option<String>,
    lists: Vec<(List, Option<Trend>)>,
}

/// Something to mend.
struct List {
    id: &'static str,
    title: &'static str,
    why: &'static str,
    total: u64,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    links: Vec<Link>,
}

struct Link {
    text: String,
    address: Option<String>,
}

pub(super) async fn show(State(page): State<Arc<Page>>, view: View) -> Response {
    let latest = page.surveyor.latest();
    if latest.is_none() {
        page.surveyor.refresh();
    }
    let roster = page.api.directory.roster();
    let mut lists = vec![without_extension(&view, &roster)];
    if let Some(latest) = &latest {
        lists.extend(surveyed(&page, &view, &roster, &latest.survey));
    }
    let lists = match with_trends(&page, &view, lists).await {
        Ok(lists) => lists,
        Err(error) => return Fault::Failed(crate::fault::told(&error)).into_response(),
    };
    view.render(&Shown {
        view: &view,
        is_running: page.surveyor.is_running(),
        counted_at: latest.map(|latest| view.moment(&latest.at)),
        fault: page
            .surveyor
            .error()
            .map(|error| crate::fault::told(&*error)),
        lists,
    })
}

pub(super) async fn refresh(State(page): State<Arc<Page>>, view: View) -> Response {
    page.surveyor.refresh();
    back_to(&view, "/hygiene")
}

/// With each list how its count went, as far as it is known.
async fn with_trends(
    page: &Page,
    view: &View,
    lists: Vec<List>,
) -> Result<Vec<(List, Option<Trend>)>, DirectoryError> {
    let today = Findings::day_of(view.now);
    let kept = page.api.directory.findings(today - trend::DAYS).await?;
    let with_trend = |list: List| {
        let count = |findings: &Findings| match list.id {
            "shared" => findings.shared,
            "left" => findings.left,
            "unread" => findings.unread,
            _ => findings.without_extension,
        };
        let past = kept.iter().map(|(day, findings)| (*day, count(findings)));
        let trend = trend::of(view, past, today, list.total);
        (list, trend)
    };
    Ok(lists.into_iter().map(with_trend).collect())
}

fn without_extension(view: &View, roster: &Roster) -> List {
    let without = roster.without_extension();
    let rows = without.iter().take(MOST_ROWS).map(|one| Row {
        what: one.crm.to_string(),
        links: vec![Link {
            text: one.name.clone(),
            address: Some(view.href(&employee_path(&one.crm, &one.id))),
        }],
    });
    List {
        id: "without-extension",
        title: view.language.say(
            "Сотрудники без добавочного",
            "Employees without an extension",
        ),
        why: view.language.say(
            "Звонки их клиентов уходят другим или на обычный маршрут.",
            "Calls of their clients go to others, or the standard route.",
        ),
        total: without.len() as u64,
        rows: rows.collect(),
    }
}

fn surveyed(page: &Page, view: &View, roster: &Roster, survey: &Survey) -> [List; 3] {
    let shared = survey.shared.samples.iter().take(MOST_ROWS);
    let left = survey.left.samples.iter().take(MOST_ROWS);
    let unread = survey.unread.samples.iter().take(MOST_ROWS);
    [
        List {
            id: "shared",
            title: view.language.say(
                "Номера с двумя ответственными",
                "Numbers with two responsibles",
            ),
            why: view.language.say(
                "Звонок получит ответственный первой по порядку карточки: оставьте одного.",
                "The responsible of the first card gets the call: leave one of them.",
            ),
            total: survey.shared.total,
            rows: shared
                .map(|number| Row {
                    what: number.phone.to_string(),
                    links: number
                        .cards
                        .iter()
                        .map(|one| link(page, roster, one))
                        .collect(),
                })
                .collect(),
        },
        List {
            id: "left",
            title: view
                .language
                .say("Карточки на уволенных", "Cards on dismissed employees"),
            why: view.language.say(
                "Назначьте в CRM нового ответственного.",
                "Give them to somebody else in the CRM.",
            ),
            total: survey.left.total,
            rows: left
                .map(|one| Row {
                    what: match one.why {
                        Left::Dismissed => {
                            view.say("ответственный уволен", "the responsible is dismissed")
                        }
                        Left::Unknown => {
                            view.say("ответственного нет в CRM", "the CRM has no such employee")
                        }
                    }
                    .to_owned(),
                    links: vec![link(page, roster, &one.card)],
                })
                .collect(),
        },
        List {
            id: "unread",
            title: view.language.say(
                "Номера, которые не прочитать",
                "Numbers that cannot be read",
            ),
            why: view.language.say(
                "Исправьте поле телефона: по нему никого не узнать.",
                "Mend the phone field: nobody is recognised by it.",
            ),
            total: survey.unread.total,
            rows: unread
                .map(|one| Row {
                    what: one.text.clone(),
                    links: vec![link(page, roster, &one.card)],
                })
                .collect(),
        },
    ]
}

fn link(page: &Page, roster: &Roster, card: &CardRef) -> Link {
    let name = match card.name.as_str() {
        "" => format!("{} {}", card.kind, card.id),
        name => name.to_owned(),
    };
    let known = |id: &EmployeeId| roster.get(&card.crm, id).map(|one| one.name.clone());
    let responsible = card.responsible.as_ref().and_then(known);
    Link {
        text: match responsible {
            Some(responsible) => format!("{name} ({responsible})"),
            None => name,
        },
        address: page.card_address(&card.crm, card.kind, &card.id),
    }
}
