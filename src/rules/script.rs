//! `[rules.script]`: the administrator's own code has the last word on who is rung, and in which order.
//!
//! The script's `route(incoming, candidates)` gets the call and everybody whom the other rules have
//! arranged, and gives the candidates as it wants them. What it gives is checked: only digits that are
//! an extension, or a number that was offered to it, are ever rung, and every rule still judges them.
//! A fault in it is told, and the call goes on without it.

use std::path::PathBuf;
use std::time::Duration;

use rhai::{Array, Dynamic, Map};
use serde::Deserialize;

use super::{Arrangement, Facts, Kind, Opening, Rule};
use crate::call::{Extension, ExtensionPattern, Target};
use crate::chain::{Candidate, Chain};
use crate::decision::{Role, Said, Step};
use crate::script::{Limits, Ran, Script};

/// The row of `rules::KINDS`.
pub(super) const KIND: Kind = Kind {
    name: "script",
    example: "\
[rules.script]                 # your own code, see docs/scripts
file = \"route.rhai\"            # looked for beside this file; read again when it changes
most_steps = 100000            # a run is stopped after so many steps of the interpreter
most_ms = 20                   # or so many milliseconds; the call then goes on without it
",
    open,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    file: Option<PathBuf>,
    most_steps: u64,
    most_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file: None,
            most_steps: 100_000,
            most_ms: 20,
        }
    }
}

/// The function that the script must have.
const FUNCTION: &str = "route";
/// More candidates than any chain has.
const MOST_CANDIDATES: usize = 64;

struct OwnCode {
    script: Script,
    pattern: ExtensionPattern,
}

fn open(table: Option<toml::Value>, opening: &Opening) -> Result<Option<Box<dyn Rule>>, String> {
    let settings: Settings = super::settings(table)?;
    let Some(file) = settings.file else {
        return Ok(None);
    };
    if !(1..=1000).contains(&settings.most_ms) || !(100..=10_000_000).contains(&settings.most_steps)
    {
        return Err("`most_ms` may be 1 to 1000, `most_steps` 100 to 10000000".to_owned());
    }
    let limits = Limits {
        steps: settings.most_steps,
        time: Duration::from_millis(settings.most_ms),
    };
    let script = Script::open(&opening.config_dir.join(file), limits)
        .map_err(|error| format!("`file`: {error}"))?;
    let pattern = opening.pattern.clone();
    Ok(Some(Box::new(OwnCode { script, pattern })))
}

impl Rule for OwnCode {
    fn arrange(&self, arrangement: &mut Arrangement, facts: &Facts<'_>) {
        let offered = &arrangement.chain.candidates;
        let listed: Array = offered
            .iter()
            .map(|one| candidate_map(one, facts).into())
            .collect();
        let call = call_map(arrangement, facts);
        let ran = self.script.call(FUNCTION, vec![call.into(), listed.into()]);
        let told = |said: Said| Step::Told("script", said);
        let taken = ran.and_then(|ran| self.take(ran, arrangement, facts));
        match taken {
            Ok(taken) => {
                arrangement.steps.extend(taken.steps.into_iter().map(told));
                arrangement.chain.candidates = taken.candidates;
                arrangement.standard_route |= taken.standard_route;
                arrangement.name = taken.name.or(arrangement.name.take());
            }
            Err(error) => {
                tracing::warn!(error, "the script failed; the call goes on without it");
                arrangement.steps.push(told(Said::ScriptFailed(error)));
            }
        }
    }
}

/// What a run of the script means.
struct Taken {
    candidates: Vec<Candidate>,
    name: Option<String>,
    standard_route: bool,
    steps: Vec<Said>,
}

impl OwnCode {
    /// Reads what the script gave: nothing at all leaves everything as it is.
    fn take(
        &self,
        ran: Ran,
        arrangement: &Arrangement,
        facts: &Facts<'_>,
    ) -> Result<Taken, String> {
        let offered = &arrangement.chain.candidates;
        let mut taken = Taken {
            candidates: offered.clone(),
            name: None,
            standard_route: false,
            steps: ran.printed.into_iter().map(Said::ScriptPrinted).collect(),
        };
        if let Some(mut map) = ran.value.clone().try_cast::<Map>() {
            if let Some(list) = map.remove("candidates") {
                taken.candidates = self.candidates(list, offered, facts)?;
            }
            taken.name = map.remove("name").and_then(|name| name.into_string().ok());
            let flag = map.remove("standard_route");
            taken.standard_route = flag.is_some_and(|flag| flag.as_bool() == Ok(true));
        } else if !ran.value.is_unit() {
            taken.candidates = self.candidates(ran.value, offered, facts)?;
        }
        tell_changes(&mut taken, offered);
        Ok(taken)
    }

    fn candidates(
        &self,
        given: Dynamic,
        offered: &[Candidate],
        facts: &Facts<'_>,
    ) -> Result<Vec<Candidate>, String> {
        let wrong = |what: &str| {
            format!(
                "`route` gave {what}; it gives a list of candidates, a map with `candidates`, `name` or `standard_route`, or nothing"
            )
        };
        let list = given.try_cast::<Array>().ok_or_else(|| wrong("no list"))?;
        let mut chain = Chain::default();
        for item in list.into_iter().take(MOST_CANDIDATES) {
            let number = match item.clone().try_cast::<Map>() {
                Some(map) => map
                    .get("number")
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                None => item.to_string(),
            };
            let known = offered.iter().find(|one| one.target.as_str() == number);
            if let Some(candidate) = known {
                chain.push(candidate.clone());
                continue;
            }
            let extension = Extension::read(&number, &self.pattern)
                .map_err(|error| wrong(&format!("the number \"{number}\" ({error})")))?;
            chain.push(Candidate::named(&extension, Role::Script, facts.roster));
        }
        Ok(chain.candidates)
    }
}

/// What the script has made of the candidates.
fn tell_changes(taken: &mut Taken, offered: &[Candidate]) {
    let targets = |candidates: &[Candidate]| -> Vec<Target> {
        candidates.iter().map(|one| one.target.clone()).collect()
    };
    let (before, after) = (targets(offered), targets(&taken.candidates));
    if before != after {
        taken.steps.push(Said::ScriptArranged { before, after });
    }
    if let Some(name) = &taken.name {
        taken.steps.push(Said::ScriptNamed(name.clone()));
    }
    if taken.standard_route {
        taken.steps.push(Said::ScriptStandardRoute);
    }
    if taken.steps.is_empty() {
        taken.steps.push(Said::ScriptChangedNothing);
    }
}

fn text(value: Option<&str>) -> Dynamic {
    value.map_or(Dynamic::UNIT, |value| value.to_owned().into())
}

/// The call as the script sees it.
fn call_map(arrangement: &Arrangement, facts: &Facts<'_>) -> Map {
    let local = facts.zone.to_datetime(facts.now);
    let number = |value: i8| Dynamic::from(i64::from(value));
    let dead = arrangement.chain.dead.len();
    Map::from([
        ("phone".into(), facts.caller.digits().to_string().into()),
        (
            "did".into(),
            text(facts.call.did.as_ref().map(super::super::call::Did::as_str)),
        ),
        ("call_id".into(), text(facts.call.call_id.as_deref())),
        (
            "time".into(),
            local.strftime("%Y-%m-%dT%H:%M").to_string().into(),
        ),
        ("hour".into(), number(local.hour())),
        ("minute".into(), number(local.minute())),
        (
            "weekday".into(),
            number(local.weekday().to_monday_one_offset()),
        ),
        ("known".into(), Dynamic::from(!facts.entities.is_empty())),
        (
            "passed_over".into(),
            Dynamic::from(i64::try_from(dead).unwrap_or(i64::MAX)),
        ),
        (
            "tried".into(),
            facts
                .call
                .tried
                .iter()
                .map(|one| Dynamic::from(one.clone()))
                .collect::<Array>()
                .into(),
        ),
        ("cards".into(), cards(facts).into()),
    ])
}

/// The caller's cards, the best one first.
fn cards(facts: &Facts<'_>) -> Array {
    let card = |entity: &crate::record::Entity| {
        let fields = entity.fields.iter();
        let fields: Map = fields
            .map(|(key, value)| (key.as_str().into(), value.clone().into()))
            .collect();
        Dynamic::from(Map::from([
            ("crm".into(), entity.crm.to_string().into()),
            ("kind".into(), entity.kind.as_str().to_owned().into()),
            ("id".into(), entity.id.to_string().into()),
            ("name".into(), entity.name.clone().into()),
            ("company".into(), text(entity.company.as_deref())),
            ("fields".into(), fields.into()),
        ]))
    };
    facts.entities.iter().map(card).collect()
}

/// A candidate as the script sees it.
fn candidate_map(candidate: &Candidate, facts: &Facts<'_>) -> Map {
    let employee = candidate.employee.as_ref();
    let departments = employee.into_iter().flat_map(|employee| {
        let known = facts.roster.departments_of(employee);
        known.map(|department| Dynamic::from(department.name.clone()))
    });
    let state = employee
        .and_then(|employee| employee.extension.as_ref().ok())
        .map_or("unknown", |extension| {
            facts.presence.phone(extension).as_str()
        });
    Map::from([
        ("number".into(), candidate.target.to_string().into()),
        ("role".into(), candidate.role.as_str().to_owned().into()),
        (
            "name".into(),
            text(employee.map(|employee| employee.name.as_str())),
        ),
        (
            "email".into(),
            text(employee.and_then(|employee| employee.email.as_deref())),
        ),
        (
            "crm".into(),
            text(employee.map(|employee| employee.crm.as_str())),
        ),
        ("departments".into(), departments.collect::<Array>().into()),
        ("phone_state".into(), state.to_owned().into()),
    ])
}
