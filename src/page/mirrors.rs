//! Mirrors: how each CRM's copy stands, in plain words, and a button that syncs now.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;

use super::view::View;
use super::{Fault, Page, back_to};
use crate::directory::Count;
use crate::record::{CrmName, EntityKind};
use crate::sync::mirror::Order;
use crate::sync::status::{KindStatus, Status};
use crate::told::Language;

#[derive(Template)]
#[template(path = "mirrors.html")]
struct Shown<'a> {
    view: &'a View,
    mirrors: Vec<Mirror>,
}

struct Mirror {
    name: String,
    troubles: Vec<String>,
    parts: Vec<Part>,
    notices: String,
}

struct Part {
    what: &'static str,
    records: u64,
    age: String,
    state: State,
}

struct State {
    level: &'static str,
    text: String,
    /// Of a running walk.
    percent: Option<u64>,
}

pub(super) async fn show(extract::State(page): extract::State<Arc<Page>>, view: View) -> Response {
    let counts = page.api.directory.counts().await.unwrap_or_default();
    let roster = page.api.directory.roster();
    let mut mirrors = Vec::new();
    for mirror in &page.api.mirrors {
        let status = mirror.status();
        let employees = roster.len_of(mirror.name()) as u64;
        mirrors.push(shown(
            &page,
            &view,
            &status,
            mirror.name(),
            employees,
            &counts,
        ));
    }
    view.render(&Shown {
        view: &view,
        mirrors,
    })
}

fn shown(
    page: &Page,
    view: &View,
    status: &Status,
    name: &CrmName,
    employees: u64,
    counts: &[Count],
) -> Mirror {
    let mut parts = vec![Part {
        what: view.say("сотрудники", "employees"),
        records: employees,
        age: age(view, status.employees_at),
        state: judged(
            view,
            status.employees_error.is_some(),
            status.employees_at,
            page.api.oldest_employees_seconds,
        ),
    }];
    for (kind, of_kind) in &status.kinds {
        let counted = counts
            .iter()
            .find(|count| count.crm == *name && count.kind == *kind);
        let state = match of_kind {
            KindStatus { walking: true, .. } => walking(view, of_kind),
            _ => judged(
                view,
                of_kind.error.is_some(),
                of_kind.fresh_at,
                page.api.oldest_seconds,
            ),
        };
        parts.push(Part {
            what: plural(view, *kind),
            records: counted.map_or(0, |count| count.cards),
            age: age(view, of_kind.fresh_at),
            state,
        });
    }
    Mirror {
        name: name.to_string(),
        troubles: troubles(view, status),
        parts,
        notices: notices(view, status),
    }
}

/// What is wrong, each once. The text of a fault is the CRM's or the connector's own.
fn troubles(view: &View, status: &Status) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for trouble in status.troubles() {
        let text = format!("{}: {}", meaning(view, &trouble.label), trouble.text);
        if !told.contains(&text) {
            told.push(text);
        }
    }
    for (kind, shown) in &status.kinds {
        if let Some(shrunk) = &shown.shrunk {
            told.push(format!(
                "{} ({}): {} / {}. pryamo sync --crm {} --full --accept-deletions",
                view.say(
                    "В CRM вдруг не хватает подозрительно многих карточек, ничего не удалено. Если их и правда удалили, выполните команду",
                    "Suspiciously many cards are missing in the CRM, nothing was deleted. If they are really gone, run the command",
                ),
                plural(view, *kind),
                view.count(&shrunk.unseen),
                view.count(&shrunk.total),
                status.crm,
            ));
        }
    }
    told
}

/// A kind of fault for people who do not know the CRM's words.
fn meaning(view: &View, label: &str) -> String {
    let (russian, english) = match label {
        "unauthorized" | "forbidden" | "refused" => (
            "CRM не пускает: проверьте ключ или права",
            "The CRM refuses us: look at the key or its rights",
        ),
        "blocked" => (
            "CRM заблокировала запросы: напишите в её поддержку",
            "The CRM has blocked our requests: write to its support",
        ),
        "rate_limited" => (
            "CRM просит подождать, продолжим сами",
            "The CRM asks us to wait; it goes on by itself",
        ),
        "certificate" => (
            "Сертификату CRM верить нельзя; что делать, скажет pryamo check",
            "The CRM's certificate is not believed; pryamo check tells what to do",
        ),
        "unreachable" => (
            "CRM не отвечает, продолжим сами",
            "The CRM does not answer; it goes on by itself",
        ),
        "directory" => (
            "Не удаётся записать на диск",
            "It cannot be written to the disk",
        ),
        _ => ("Ошибка", "A fault"),
    };
    view.say(russian, english).to_owned()
}

fn age(view: &View, at: Option<Timestamp>) -> String {
    let Some(at) = at else {
        return view.say("ещё не читали", "never read").to_owned();
    };
    let seconds = view.now.duration_since(at).as_secs().max(0).unsigned_abs();
    match view.language {
        Language::Ru => format!("{} назад", view.span(&seconds)),
        Language::En => format!("{} ago", view.span(&seconds)),
    }
}

fn judged(view: &View, has_error: bool, at: Option<Timestamp>, oldest_seconds: u64) -> State {
    let seconds = at.map(|at| view.now.duration_since(at).as_secs());
    let (level, russian, english) = match seconds {
        _ if has_error => ("bad", "ошибка", "fault"),
        None => ("warn", "ждёт первого чтения", "waits for its first reading"),
        Some(seconds) if seconds > oldest_seconds.cast_signed() => ("bad", "устарело", "too old"),
        Some(_) => ("good", "в порядке", "all is well"),
    };
    State {
        level,
        text: view.say(russian, english).to_owned(),
        percent: None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share between 0 and 1, for people"
)]
fn walking(view: &View, kind: &KindStatus) -> State {
    let mut kind = kind.clone();
    kind.measure(view.now);
    let percent = kind.done.map(|done| (done.clamp(0.0, 1.0) * 100.0) as u64);
    let mut text = view.say("читаем всё", "reading everything").to_owned();
    if let Some(percent) = percent {
        text = format!("{text}: {percent}\u{a0}%");
    }
    if let Some(left) = kind.seconds_left {
        let words = view.say("осталось", "left");
        text = match view.language {
            Language::Ru => format!("{text}, {words} {}", view.span(&left)),
            Language::En => format!("{text}, {} {words}", view.span(&left)),
        };
    }
    State {
        level: "",
        text,
        percent,
    }
}

fn notices(view: &View, status: &Status) -> String {
    let waiting = view.count(&status.notices.waiting);
    match status.notices.last_at {
        None => view
            .say(
                "Уведомлений от CRM ещё не было: изменения узнаём, спрашивая сами.",
                "The CRM has not sent a notice yet: changes are found by asking.",
            )
            .to_owned(),
        Some(at) => match view.language {
            Language::Ru => format!(
                "Последнее уведомление от CRM: {}; ждут чтения карточек: {waiting}.",
                view.moment(&at)
            ),
            Language::En => format!(
                "Last notice from the CRM: {}; cards that wait to be read again: {waiting}.",
                view.moment(&at)
            ),
        },
    }
}

fn plural(view: &View, kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Contact => view.language.say("контакты", "contacts"),
        EntityKind::Company => view.language.say("компании", "companies"),
        EntityKind::Lead => view.language.say("лиды", "leads"),
        EntityKind::Deal => view.language.say("сделки", "deals"),
    }
}

#[derive(Deserialize)]
pub(super) struct Ordered {
    crm: String,
    #[serde(default)]
    full: bool,
}

pub(super) async fn sync(
    extract::State(page): extract::State<Arc<Page>>,
    view: View,
    Form(ordered): Form<Ordered>,
) -> Response {
    let Some(mirror) = page.mirror(&CrmName::new(&ordered.crm)) else {
        return Fault::NotFound.into_response();
    };
    mirror.order(Order {
        full: ordered.full,
        accept_deletions: false,
    });
    back_to(&view, "/mirrors")
}
