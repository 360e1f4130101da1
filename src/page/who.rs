//! Who gets this number? The decision of this moment or another one, step by step.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::Deserialize;

use super::Page;
use super::steps::{self, About};
use super::view::{View, encoded};
use crate::api;
use crate::call::IncomingCall;
use crate::decision::{Decision, EntityName, Step};
use crate::pbx::forward;
use crate::router::Purpose;
use crate::told::{self, Language};

#[derive(Template)]
#[template(path = "who.html")]
struct Shown<'a> {
    view: &'a View,
    phone: String,
    did: String,
    at: String,
    fault: Option<String>,
    answer: Option<Answer>,
}

/// A decision for people.
struct Answer {
    headline: String,
    caller: Option<String>,
    name: Option<String>,
    card: Option<Linked>,
    reason: &'static str,
    then: Vec<String>,
    steps: Vec<ShownStep>,
    advice: Vec<Linked>,
}

/// A text, and where it leads.
struct Linked {
    text: String,
    address: Option<String>,
}

struct ShownStep {
    text: String,
    is_ring: bool,
    address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    phone: String,
    did: String,
    at: String,
}

pub(super) async fn show(
    State(page): State<Arc<Page>>,
    view: View,
    Query(asked): Query<Asked>,
) -> Response {
    let mut shown = Shown {
        view: &view,
        phone: asked.phone,
        did: asked.did,
        at: asked.at,
        fault: None,
        answer: None,
    };
    if !shown.phone.trim().is_empty() {
        if let Some(at) = read_moment(&view, &shown.at) {
            shown.answer = Some(answer(&page, &view, &shown.phone, &shown.did, at).await);
        } else {
            let text = view.say("Это не время.", "This is no time.");
            shown.fault = Some(text.to_owned());
        }
    }
    view.render(&shown)
}

/// A moment by the office's clock; now where nothing is written.
fn read_moment(view: &View, written: &str) -> Option<Timestamp> {
    if written.trim().is_empty() {
        return Some(view.now);
    }
    let civil: DateTime = written.trim().parse().ok()?;
    Some(civil.to_zoned(view.zone.clone()).ok()?.timestamp())
}

async fn answer(page: &Page, view: &View, phone: &str, did: &str, at: Timestamp) -> Answer {
    let call: IncomingCall = forward::read_query(&format!(
        "phone={}&trunk={}",
        encoded(phone.trim()),
        encoded(did.trim())
    ));
    let decision = page.api.router.route(&call, at, Purpose::Explain).await;
    let then = api::behind(&page.api.router, call, &decision, at).await;
    let then = then.unwrap_or_default();
    let language = view.language;
    let mut listed: Vec<String> = then
        .iter()
        .map(|next| {
            let name = next.name.as_deref().unwrap_or_default();
            let role = steps::reason(next.reason, language);
            format!("{} {name} ({role})", next.number)
        })
        .collect();
    if decision.ring.is_some() {
        let end = view.say("затем обычный маршрут", "then the standard route");
        listed.push(end.to_owned());
    }
    Answer {
        headline: headline(view, &decision),
        caller: decision.caller.map(|caller| caller.to_string()),
        name: forward::shown_name(&decision, &page.api.names),
        card: decision
            .entity
            .as_ref()
            .map(|entity| card(page, &entity.into())),
        reason: steps::reason(decision.reason, language),
        then: listed,
        steps: decision
            .steps
            .iter()
            .map(|step| shown_step(page, view, step))
            .collect(),
        advice: steps::would_change(&decision, language)
            .into_iter()
            .map(|advice| Linked {
                text: advice.text,
                address: address(page, view, &advice.about),
            })
            .collect(),
    }
}

fn headline(view: &View, decision: &Decision) -> String {
    let Some(number) = &decision.ring else {
        let text = view.say(
            "Обычный маршрут: никому не звоним",
            "The standard route: nobody is rung",
        );
        return text.to_owned();
    };
    let seconds = decision.ring_seconds;
    let name = decision
        .employee
        .as_ref()
        .map_or("", |one| one.name.as_str());
    match view.language {
        Language::Ru => format!("Звоним на {number} {name}, {seconds} с"),
        Language::En => format!("Rings {number} {name}, for {seconds} s"),
    }
}

fn card(page: &Page, entity: &EntityName) -> Linked {
    Linked {
        text: match entity.name.as_str() {
            "" => format!("{} {}", entity.kind, entity.id),
            name => name.to_owned(),
        },
        address: page.card_address(&entity.crm, entity.kind, &entity.id),
    }
}

fn shown_step(page: &Page, view: &View, step: &Step) -> ShownStep {
    let entity = match step {
        Step::LeftOut(entity, _) | Step::PassedOver(entity, _) | Step::Ranked { entity, .. } => {
            Some(entity)
        }
        _ => None,
    };
    ShownStep {
        text: told::step(step, view.language),
        is_ring: matches!(step, Step::Ring(..)),
        address: entity.and_then(|one| page.card_address(&one.crm, one.kind, &one.id)),
    }
}

/// Where something can be done about it.
fn address(page: &Page, view: &View, about: &About) -> Option<String> {
    match about {
        About::Employee(crm, id) => Some(view.href(&super::employee_path(crm, id))),
        About::Card(crm, kind, id) => page.card_address(crm, *kind, id),
        About::Config(_) | About::Nothing => None,
    }
}
