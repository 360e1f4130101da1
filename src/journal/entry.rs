//! What the journal holds of one call, put together from what is told of it.
//!
//! Questions and outcomes may come in any order, twice or late: whatever is told is joined by rules
//! that do not depend on the order, and what became of the call is worked out only when it is read.
//! Pure: no file, no clock.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::shown::{Answered, End, KnownOutcome, Shown, ShownStep, ShownTry};
use crate::call::{DialStatus, IncomingCall, Outcome};
use crate::decision::{Decision, Role};
use crate::directory::{Colleague, Roster};
use crate::phone::E164;
use crate::record::{CrmName, EmployeeId, EntityId, EntityKind};
use crate::told::{self, Language};

/// Numbers kept for one call; no chain is as long, but a queue may ring many telephones.
const MOST_TRIES: usize = 64;
/// Steps kept of a decision.
const MOST_STEPS: usize = 100;
/// Bytes kept of a step's text, a name or a DID.
const LONGEST_TEXT: usize = 500;
/// No number that a PBX rings is longer.
const LONGEST_NUMBER: usize = 40;

/// Whether callers' numbers are written down in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// As they are.
    Full,
    /// With their middle hidden.
    Masked,
}

/// Everything that was told of one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Asterisk's linkedid; `None` where the question named none.
    pub call_id: Option<String>,
    first: Question,
    last: Question,
    tries: BTreeMap<String, Try>,
}

/// What a question and its answer say of the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Question {
    /// How many had been rung before it. With the time it tells the first question from the last.
    tried: usize,
    at: Timestamp,
    caller: Option<String>,
    did: Option<String>,
    entity: Option<EntityRef>,
    responsible: Option<Person>,
    reason: String,
    rings: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<ShownStep>,
}

impl Question {
    /// Orders the questions of one call; what follows the time only makes the order total.
    fn place(&self) -> (usize, Timestamp, &str, Option<&str>) {
        (self.tried, self.at, &self.reason, self.rings.as_deref())
    }
}

/// A card, by what leads to it in its CRM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityRef {
    /// Its CRM.
    pub crm: CrmName,
    /// `contact`, `company`, `lead` or `deal`.
    pub kind: String,
    /// Its identifier.
    pub id: EntityId,
}

impl EntityRef {
    fn new(crm: &CrmName, kind: EntityKind, id: &EntityId) -> Self {
        Self {
            crm: crm.clone(),
            kind: kind.as_str().to_owned(),
            id: id.clone(),
        }
    }
}

/// An employee as the journal names them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Person {
    /// Their CRM.
    pub crm: CrmName,
    /// Their identifier there.
    pub id: EmployeeId,
    /// Their name.
    pub name: String,
    /// Their extension at that moment.
    pub extension: Option<String>,
}

impl From<&Colleague> for Person {
    fn from(colleague: &Colleague) -> Self {
        let extension = colleague.extension.as_ref().ok();
        Self {
            crm: colleague.crm.clone(),
            id: colleague.id.clone(),
            name: cut(&colleague.name),
            extension: extension.map(|extension| extension.as_str().to_owned()),
        }
    }
}

/// A number that was rung, or that somebody says was rung.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Try {
    /// How many were rung before it; `None` for a number that no answer of ours named.
    place: Option<usize>,
    asked: Option<Asked>,
    status: Option<DialStatus>,
    rang_seconds: Option<u64>,
    /// When the status could be known at the latest: the earliest report less the conversation.
    known_at: Option<Timestamp>,
}

/// What our answer said of a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Asked {
    at: Timestamp,
    role: String,
    employee: Option<Person>,
    ring_seconds: u64,
}

impl Entry {
    /// Begins the entry of a call with one of its questions.
    pub fn new(
        call: &IncomingCall,
        decision: &Decision,
        now: Timestamp,
        roster: &Roster,
        numbers: Numbers,
    ) -> Self {
        let last = question(call, decision, now, roster, numbers);
        let first = Question {
            // Nobody reads those of another question than the last.
            steps: Vec::new(),
            ..last.clone()
        };
        let mut entry = Self {
            call_id: call.call_id.clone(),
            first,
            last,
            tries: BTreeMap::new(),
        };
        entry.add_tries(call, decision, now);
        entry
    }

    /// Joins what another question of the same call told.
    pub fn join(&mut self, other: Self) {
        if other.first.place() < self.first.place() {
            self.first = other.first;
        }
        if other.last.place() > self.last.place() {
            self.last = other.last;
        }
        for (number, told) in other.tries {
            self.join_try(&number, told);
        }
    }

    /// Joins what became of a number.
    pub fn end(&mut self, outcome: &Outcome, now: Timestamp) {
        let talked = outcome.talked_seconds.unwrap_or_default();
        let talked = SignedDuration::from_secs(i64::try_from(talked).unwrap_or(i64::MAX));
        let told = Try {
            status: Some(outcome.status),
            rang_seconds: outcome.rang_seconds,
            known_at: Some(now.checked_sub(talked).unwrap_or(now)),
            ..Try::default()
        };
        self.join_try(&outcome.number, told);
    }

    /// When the call asked first.
    pub fn at(&self) -> Timestamp {
        self.first.at
    }

    /// When it asked last.
    pub fn asked_last(&self) -> Timestamp {
        self.first.at.max(self.last.at)
    }

    /// The caller's number as it is written down.
    pub fn caller(&self) -> Option<&str> {
        self.first.caller.as_deref()
    }

    fn add_tries(&mut self, call: &IncomingCall, decision: &Decision, now: Timestamp) {
        for (place, number) in call.tried.iter().enumerate() {
            let is_last = place + 1 == call.tried.len();
            let status = call.status.filter(|_| is_last);
            let told = Try {
                place: Some(place),
                status,
                known_at: status.map(|_| now),
                ..Try::default()
            };
            self.join_try(number, told);
        }
        let Some(target) = &decision.ring else {
            return;
        };
        let asked = Asked {
            at: now,
            role: role_of(decision).as_str().to_owned(),
            employee: decision.employee.as_deref().map(Into::into),
            ring_seconds: decision.ring_seconds,
        };
        let told = Try {
            place: Some(call.tried.len()),
            asked: Some(asked),
            ..Try::default()
        };
        self.join_try(target.as_str(), told);
    }

    fn join_try(&mut self, number: &str, told: Try) {
        if number.is_empty() || number.len() > LONGEST_NUMBER {
            return;
        }
        if self.tries.len() >= MOST_TRIES && !self.tries.contains_key(number) {
            return;
        }
        let known = self.tries.entry(number.to_owned()).or_default();
        known.place = least(known.place, told.place);
        known.asked = least(known.asked.take(), told.asked);
        known.rang_seconds = least(known.rang_seconds, told.rang_seconds);
        known.known_at = least(known.known_at, told.known_at);
        known.status = known
            .status
            .into_iter()
            .chain(told.status)
            .max_by_key(|status| rank(*status));
    }

    /// What the entry says, for people and for the API.
    pub fn shown(&self) -> Shown {
        let mut numbers: Vec<(&String, &Try)> = self.tries.iter().collect();
        numbers.sort_by_key(|(number, one)| {
            let at = one.asked.as_ref().map(|asked| asked.at);
            (one.place.is_none(), one.place, at, one.known_at, *number)
        });
        let tries: Vec<ShownTry> = numbers
            .into_iter()
            .map(|(number, one)| one.shown(number))
            .collect();
        let entity = self.first.entity.as_ref().or(self.last.entity.as_ref());
        let own = self.first.responsible.as_ref();
        let own = own.or(self.last.responsible.as_ref());
        let (end, answered) = self.end_of(&tries);
        let outcome = entity.map(|_| match (end, &answered) {
            (End::Answered, Some(who)) if who.is(own) => KnownOutcome::OwnPerson,
            (End::Answered, _) => KnownOutcome::Another,
            (End::HungUp, _) => KnownOutcome::HungUp,
            (End::StandardRoute, _) => KnownOutcome::StandardRoute,
            (End::NotTold, _) => KnownOutcome::NotTold,
        });
        Shown {
            id: 0,
            change: 0,
            at: self.first.at,
            call_id: self.call_id.clone(),
            caller: self.first.caller.clone(),
            did: self.first.did.clone(),
            entity: entity.cloned(),
            responsible: own.cloned(),
            reason: self.last.reason.clone(),
            tries,
            end,
            answered,
            outcome,
            steps: self.last.steps.clone(),
        }
    }

    fn end_of(&self, tries: &[ShownTry]) -> (End, Option<Answered>) {
        let answer = |one: &&ShownTry| one.status == Some(DialStatus::Answer);
        if let Some(one) = tries.iter().rfind(answer) {
            let until_rung = one.at.map(|at| at.duration_since(self.first.at).as_secs());
            let until_rung = until_rung.and_then(|seconds| u64::try_from(seconds).ok());
            let after_seconds = until_rung
                .zip(one.after_seconds)
                .map(|(one, two)| one.saturating_add(two));
            let answered = Answered {
                number: one.number.clone(),
                employee: one.employee.clone(),
                after_seconds,
            };
            return (End::Answered, Some(answered));
        }
        let Some(rung) = &self.last.rings else {
            return (End::StandardRoute, None);
        };
        // After any other outcome a dialplan that reports would have asked again.
        let status = self.tries.get(rung).and_then(|one| one.status);
        match status {
            Some(DialStatus::Cancel) => (End::HungUp, None),
            _ => (End::NotTold, None),
        }
    }
}

impl Try {
    fn shown(&self, number: &str) -> ShownTry {
        let asked = self.asked.as_ref();
        let waited = asked
            .zip(self.known_at)
            .map(|(asked, known)| known.duration_since(asked.at).as_secs().max(0));
        let waited = waited.and_then(|seconds| u64::try_from(seconds).ok());
        ShownTry {
            number: number.to_owned(),
            role: asked.map(|asked| asked.role.clone()),
            employee: asked.and_then(|asked| asked.employee.clone()),
            at: asked.map(|asked| asked.at),
            ring_seconds: asked.map(|asked| asked.ring_seconds),
            status: self.status,
            after_seconds: self.status.and(self.rang_seconds.or(waited)),
        }
    }
}

/// The lesser of two, where nothing gives way to something.
fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    one.into_iter().chain(other).min()
}

/// Of two words about one number the stronger is believed: telephones of a group that did not get the
/// call are told as cancelled, and a report may be missing but is not made up.
fn rank(status: DialStatus) -> u8 {
    match status {
        DialStatus::Answer => 6,
        DialStatus::Cancel => 5,
        DialStatus::Busy => 4,
        DialStatus::NoAnswer => 3,
        DialStatus::Congestion => 2,
        DialStatus::ChanUnavail => 1,
        DialStatus::Other => 0,
    }
}

fn question(
    call: &IncomingCall,
    decision: &Decision,
    now: Timestamp,
    roster: &Roster,
    numbers: Numbers,
) -> Question {
    let caller = decision.caller.map(|phone| match numbers {
        Numbers::Full => phone.to_string(),
        Numbers::Masked => phone.masked(),
    });
    let steps = decision.steps.iter().take(MOST_STEPS).map(|step| {
        let text = |language| {
            let text = told::step(step, language);
            cut(&match numbers {
                Numbers::Full => text,
                Numbers::Masked => hide(&text, &call.phone, decision.caller),
            })
        };
        ShownStep {
            step: step.code().to_owned(),
            text: text(Language::En),
            text_ru: Some(text(Language::Ru)),
        }
    });
    let entity = decision.entity.as_ref();
    Question {
        tried: call.tried.len(),
        at: now,
        caller,
        did: call.did.as_ref().map(|did| cut(did.as_str())),
        entity: entity.map(|entity| EntityRef::new(&entity.crm, entity.kind, &entity.id)),
        responsible: decision
            .own_person(roster)
            .map(|person| person.as_ref().into()),
        reason: decision.reason.as_str().to_owned(),
        rings: decision
            .ring
            .as_ref()
            .map(|target| target.as_str().to_owned()),
        steps: steps.collect(),
    }
}

/// Why the number of a decision is rung.
fn role_of(decision: &Decision) -> Role {
    use crate::decision::Step;
    let rung = decision.steps.iter().rev().find_map(|step| match step {
        Step::Ring(candidate, _) => Some(candidate.role),
        _ => None,
    });
    rung.unwrap_or(Role::Responsible)
}

/// A text in which the caller's number cannot be read any more, in whatever form a step gives it.
fn hide(text: &str, written: &str, caller: Option<E164>) -> String {
    let masked = caller.map_or_else(|| "***".to_owned(), E164::masked);
    let mut hidden = text.to_owned();
    let international = caller.map(|phone| phone.to_string());
    let digits = caller.map(|phone| phone.digits().to_string());
    let national = caller.map(E164::national);
    let forms = [
        Some(written.trim().to_owned()),
        international,
        digits,
        national,
    ];
    for form in forms.into_iter().flatten() {
        if form.len() > 3 {
            hidden = hidden.replace(&form, &masked);
        }
    }
    hidden
}

/// A text of bounded length.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST_TEXT);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::call::{Extension, ExtensionPattern};
    use crate::decision::Reason;

    const START: i64 = 1_795_000_000;

    /// Something that is told of a call.
    #[derive(Debug, Clone)]
    enum Told {
        Question(
            Vec<&'static str>,
            Option<DialStatus>,
            Option<&'static str>,
            i64,
        ),
        Ended(&'static str, DialStatus, Option<u64>, Option<u64>, i64),
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(START + seconds).unwrap()
    }

    fn begun(told: &Told) -> Option<Entry> {
        let Told::Question(tried, status, rings, when) = told else {
            return None;
        };
        let call = IncomingCall {
            phone: "79161234501".to_owned(),
            call_id: Some("1.1".to_owned()),
            tried: tried.iter().map(|&number| number.to_owned()).collect(),
            status: *status,
            ..IncomingCall::default()
        };
        let reason = if rings.is_some() {
            Reason::Responsible
        } else {
            Reason::NobodyCanBeRung
        };
        let mut decision = Decision::standard_route(reason, Vec::new());
        decision.caller = E164::from_digits(79_161_234_501);
        decision.ring = rings.map(|number| {
            Extension::read(number, &ExtensionPattern::any())
                .unwrap()
                .into()
        });
        decision.ring_seconds = 20;
        let roster = Roster::default();
        Some(Entry::new(
            &call,
            &decision,
            at(*when),
            &roster,
            Numbers::Full,
        ))
    }

    /// As the writer joins: outcomes before the first question wait for it.
    fn joined(facts: &[Told]) -> Entry {
        let mut entry: Option<Entry> = None;
        for told in facts {
            if let Some(other) = begun(told) {
                match &mut entry {
                    Some(entry) => entry.join(other),
                    None => entry = Some(other),
                }
            }
        }
        let mut entry = entry.unwrap();
        let mut add = |told: &Told| {
            if let Told::Ended(number, status, rang, talked, when) = told {
                let outcome = Outcome {
                    call_id: "1.1".to_owned(),
                    number: (*number).to_owned(),
                    status: *status,
                    rang_seconds: *rang,
                    talked_seconds: *talked,
                };
                entry.end(&outcome, at(*when));
            }
        };
        facts.iter().for_each(&mut add);
        entry
    }

    fn facts() -> Vec<Told> {
        use DialStatus::{Answer, Busy, Cancel, NoAnswer};
        vec![
            Told::Question(vec![], None, Some("101"), 0),
            Told::Ended("101", NoAnswer, None, None, 21),
            Told::Ended("101", Busy, Some(3), None, 4),
            Told::Question(vec!["101"], Some(NoAnswer), Some("102"), 22),
            Told::Ended("102", Cancel, None, None, 30),
            Told::Ended("102", Answer, Some(9), Some(60), 91),
            Told::Question(vec!["101", "102"], Some(Busy), None, 40),
            Told::Ended("205", Cancel, None, None, 50),
        ]
    }

    proptest! {
        /// Any order of the same facts, some of them told twice, gives the same entry.
        #[test]
        fn the_order_and_repetitions_do_not_count(
            (kept, order) in prop::collection::vec(any::<bool>(), 8).prop_flat_map(|kept| {
                let facts: Vec<Told> = facts();
                let mut list: Vec<Told> = Vec::new();
                for (index, told) in facts.into_iter().enumerate() {
                    // The first question always: without any there is no entry.
                    if index == 0 || kept[index] {
                        list.push(told.clone());
                    }
                    if kept[index] {
                        list.push(told);
                    }
                }
                (Just(list.clone()), Just(list).prop_shuffle())
            }),
        ) {
            prop_assert_eq!(joined(&kept), joined(&order));
            prop_assert_eq!(joined(&kept).shown(), joined(&order).shown());
        }
    }

    #[test]
    fn a_call_is_told_from_its_facts() {
        let shown = joined(&facts()).shown();
        let numbers: Vec<_> = shown.tries.iter().map(|one| one.number.as_str()).collect();
        assert_eq!(numbers, ["101", "102", "205"], "strangers last");
        assert_eq!(shown.tries[0].status, Some(DialStatus::Busy));
        assert_eq!(shown.tries[0].after_seconds, Some(3));
        assert_eq!(shown.end, End::Answered);
        let answered = shown.answered.unwrap();
        assert_eq!(answered.number, "102");
        assert_eq!(answered.after_seconds, Some(22 + 9));
        assert_eq!(shown.outcome, None, "nobody knows this caller");
    }

    #[test]
    fn how_a_call_ends() {
        use DialStatus::{Cancel, NoAnswer};
        let first = Told::Question(vec![], None, Some("101"), 0);
        for (more, expected, why) in [
            (
                vec![],
                End::NotTold,
                "the vendor's dialplan reports nothing",
            ),
            (
                vec![Told::Ended("101", NoAnswer, None, None, 20)],
                End::NotTold,
                "and what then?",
            ),
            (
                vec![Told::Ended("101", Cancel, None, None, 5)],
                End::HungUp,
                "cancelled",
            ),
            (
                vec![Told::Question(vec!["101"], Some(NoAnswer), None, 20)],
                End::StandardRoute,
                "nobody is left",
            ),
        ] {
            let facts: Vec<Told> = [first.clone()].into_iter().chain(more).collect();
            assert_eq!(joined(&facts).shown().end, expected, "{why}");
        }
    }

    #[test]
    fn a_conversation_is_not_counted_as_ringing() {
        let facts = [
            Told::Question(vec![], None, Some("101"), 0),
            Told::Ended("101", DialStatus::Answer, None, Some(300), 307),
        ];
        let shown = joined(&facts).shown();
        assert_eq!(shown.tries[0].after_seconds, Some(7));
    }

    #[test]
    fn what_grows_from_outside_has_an_end() {
        let mut entry = joined(&[Told::Question(vec![], None, Some("101"), 0)]);
        let outcome = |number: String| Outcome {
            call_id: "1.1".to_owned(),
            number,
            status: DialStatus::Busy,
            rang_seconds: Some(u64::MAX),
            talked_seconds: Some(u64::MAX),
        };
        entry.end(&outcome("9".repeat(LONGEST_NUMBER + 1)), at(1));
        entry.end(&outcome(String::new()), at(1));
        assert_eq!(entry.tries.len(), 1);
        for number in 200..400 {
            entry.end(&outcome(number.to_string()), at(1));
        }
        assert_eq!(entry.tries.len(), MOST_TRIES);
        assert_eq!(entry.shown().end, End::NotTold);
    }

    #[test]
    fn a_masked_number_stands_in_no_text() {
        let phone = E164::from_digits(79_161_234_501);
        for text in [
            "`8 916 123-45-01` is +79161234501",
            "9161234501",
            "79161234501 again",
        ] {
            let hidden = hide(text, "8 916 123-45-01", phone);
            assert!(
                !hidden.contains("12345") && !hidden.contains("123-45"),
                "{hidden}"
            );
            assert!(hidden.contains("+7916***4501"), "{hidden}");
        }
    }
}
