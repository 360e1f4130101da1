//! A call of the journal as a row, on Now and in the journal.

use super::view::View;
use super::{Page, steps};
use crate::journal::{KnownOutcome, Shown};
use crate::record::EntityKind;

/// A row.
pub(super) struct CallRow {
    pub(super) id: i64,
    /// Counts what was told of it: what somebody has opened stays open until then.
    pub(super) change: i64,
    pub(super) at: String,
    pub(super) caller: String,
    pub(super) who: String,
    pub(super) did: String,
    /// Where the caller's card is in its CRM.
    pub(super) card: Option<String>,
    pub(super) card_text: String,
    pub(super) responsible: String,
    /// Every number that was rung, and what became of it.
    pub(super) tries: Vec<String>,
    pub(super) level: &'static str,
    pub(super) outcome: String,
    pub(super) reason: String,
    pub(super) steps: Vec<String>,
}

/// What a row shows.
pub(super) fn row(page: &Page, view: &View, call: &Shown) -> CallRow {
    let language = view.language;
    let tries = call.tries.iter().map(|one| {
        let name = one
            .employee
            .as_ref()
            .map_or("", |person| person.name.as_str());
        let became = one
            .status
            .map_or("", |status| steps::dial_status(status, language));
        let after = one
            .after_seconds
            .map(|seconds| format!(", {}", view.span(&seconds)))
            .unwrap_or_default();
        let role = one.role.as_deref().unwrap_or_default();
        let role = steps::role_word(role, language);
        let told: Vec<&str> = [name, role, became]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        format!("{}: {}{after}", one.number, told.join(", "))
    });
    let (level, outcome) = match call.outcome {
        Some(outcome) => (level(outcome), steps::outcome(outcome, language)),
        None => ("", steps::end(call.end, language)),
    };
    let steps = call.steps.iter().map(|step| match &step.text_ru {
        Some(russian) => language.say(russian, &step.text).to_owned(),
        None => step.text.clone(),
    });
    CallRow {
        id: call.id,
        change: call.change,
        at: view.moment(&call.at),
        caller: call
            .caller
            .clone()
            .unwrap_or_else(|| view.say("скрыт", "hidden").to_owned()),
        who: call.caller.clone().unwrap_or_default(),
        did: call.did.clone().unwrap_or_default(),
        card: card_address(page, call),
        card_text: call.entity.as_ref().map_or_else(String::new, |entity| {
            format!("{} {}", kind_word(view, &entity.kind), entity.id)
        }),
        responsible: call
            .responsible
            .as_ref()
            .map(|person| person.name.clone())
            .unwrap_or_default(),
        tries: tries.collect(),
        level,
        outcome: outcome.to_owned(),
        reason: steps::reason_word(&call.reason, language).to_owned(),
        steps: steps.collect(),
    }
}

fn level(outcome: KnownOutcome) -> &'static str {
    match outcome {
        KnownOutcome::OwnPerson => "good",
        KnownOutcome::Another => "",
        KnownOutcome::StandardRoute | KnownOutcome::HungUp => "bad",
        KnownOutcome::NotTold => "warn",
    }
}

fn card_address(page: &Page, call: &Shown) -> Option<String> {
    let entity = call.entity.as_ref()?;
    let kind = EntityKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == entity.kind)?;
    page.card_address(&entity.crm, kind, &entity.id)
}

fn kind_word(view: &View, kind: &str) -> &'static str {
    match kind {
        "contact" => view.language.say("контакт", "contact"),
        "company" => view.language.say("компания", "company"),
        "lead" => view.language.say("лид", "lead"),
        _ => view.language.say("сделка", "deal"),
    }
}
