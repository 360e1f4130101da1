//! What the router answers: whom to ring, why, and by which steps it came there.
//!
//! Every front end, `explain` and the API show the same value.

mod said;

use std::fmt;
use std::sync::Arc;

use jiff::civil::DateTime;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::call::{DialStatus, Did, ExtensionError, Target};
use crate::directory::{Colleague, Refreshed, Roster};
use crate::phone::E164;
use crate::presence::PhoneState;
use crate::record::{CrmName, EmployeeId, Entity, EntityId, EntityKind};

pub use said::{Because, CardMatch, Held, HoursOf, Said, listed};

/// The answer to one question about one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Whom to ring; `None` is the standard route.
    pub ring: Option<Target>,
    /// For how long, in seconds; 0 with the standard route.
    pub ring_seconds: u64,
    /// Why, in one word.
    pub reason: Reason,
    /// The caller as read; `None` for a short, hidden or unreadable number.
    pub caller: Option<E164>,
    /// The entity that decided, or the best one if nobody of any entity can be rung.
    pub entity: Option<Entity>,
    /// The employee to ring, or the one who calls; `None` for a group.
    pub employee: Option<Arc<Colleague>>,
    /// The name to show in place of the entity's, where the administrator's script says so.
    pub name: Option<String>,
    /// How it came to this, in order.
    pub steps: Vec<Step>,
}

impl Decision {
    /// The standard route.
    pub fn standard_route(reason: Reason, steps: Vec<Step>) -> Self {
        Self {
            ring: None,
            ring_seconds: 0,
            reason,
            caller: None,
            entity: None,
            employee: None,
            name: None,
            steps,
        }
    }

    /// Where the answer came from, by its steps.
    pub fn source(&self) -> AnswerSource {
        let mut source = AnswerSource::None;
        for step in &self.steps {
            match step {
                // Of the other outcomes the CRM never learned.
                Step::Asked(
                    _,
                    Refreshed::Found(_)
                    | Refreshed::Nothing
                    | Refreshed::TooLate
                    | Refreshed::Failed(_),
                ) => return AnswerSource::Live,
                Step::Found(_) | Step::Missed | Step::Failed(_) => {
                    source = AnswerSource::Directory;
                }
                _ => {}
            }
        }
        source
    }

    /// The caller's own person: who is responsible for them, whether or not they could be rung.
    ///
    /// `None` for an unknown caller, and where the card names nobody whom the roster has.
    pub fn own_person<'a>(&'a self, roster: &'a Roster) -> Option<&'a Arc<Colleague>> {
        let entity = self.entity.as_ref()?;
        let judged = self.steps.iter().find_map(|step| match step {
            Step::Ring(candidate, _) | Step::Skipped(candidate, _)
                if candidate.role == Role::Responsible =>
            {
                candidate.employee.as_ref()
            }
            _ => None,
        });
        judged.or_else(|| roster.get(&entity.crm, entity.responsible.as_ref()?))
    }
}

/// Where an answer came from. A closed set: a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerSource {
    /// The directory alone, also where it lacked the number and no CRM was asked.
    Directory,
    /// A CRM was asked while the caller waited.
    Live,
    /// The number was not looked up: hidden, short, an employee's own.
    None,
}

/// Why a call goes where it goes. A closed set: also a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The responsible of a known caller.
    Responsible,
    /// The responsible, on another phone of theirs.
    OtherPhone,
    /// The responsible's deputy.
    Deputy,
    /// The head of the responsible's department.
    Head,
    /// The responsible of another entity of the caller.
    NextResponsible,
    /// A group or queue of `when_away`.
    Group,
    /// Who spoke with the caller last.
    LastTalk,
    /// The caller stands in `rules.lists.always_to`.
    Listed,
    /// A field of the caller's card says so (`rules.card`).
    CardField,
    /// The administrator's script says so.
    Script,
    /// A list, a card's field or the script sends the caller the standard route.
    NotRouted,
    /// As many were rung in vain as `route.most_tries` allows.
    TriesSpent,
    /// The caller has waited as long as `route.total_seconds` allows.
    TimeSpent,
    /// A known caller, but none of their people can be rung.
    NobodyCanBeRung,
    /// No CRM knows the number.
    UnknownCaller,
    /// The caller is an employee.
    EmployeeCalls,
    /// The caller's number is an extension.
    ShortNumber,
    /// The caller's number is missing, hidden or no number.
    NoNumber,
    /// Asked from `h`, `i` or `t`: the caller is gone.
    AfterTheCall,
    /// pryamo itself failed; the log says how.
    Fault,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 20] = [
        Self::Responsible,
        Self::OtherPhone,
        Self::Deputy,
        Self::Head,
        Self::NextResponsible,
        Self::Group,
        Self::LastTalk,
        Self::Listed,
        Self::CardField,
        Self::Script,
        Self::NotRouted,
        Self::TriesSpent,
        Self::TimeSpent,
        Self::NobodyCanBeRung,
        Self::UnknownCaller,
        Self::EmployeeCalls,
        Self::ShortNumber,
        Self::NoNumber,
        Self::AfterTheCall,
        Self::Fault,
    ];

    /// The word used in JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Responsible => "responsible",
            Self::OtherPhone => "other_phone",
            Self::Deputy => "deputy",
            Self::Head => "head",
            Self::NextResponsible => "next_responsible",
            Self::Group => "group",
            Self::LastTalk => "last_talk",
            Self::Listed => "listed",
            Self::CardField => "card_field",
            Self::Script => "script",
            Self::NotRouted => "not_routed",
            Self::TriesSpent => "tries_spent",
            Self::TimeSpent => "time_spent",
            Self::NobodyCanBeRung => "nobody_can_be_rung",
            Self::UnknownCaller => "unknown_caller",
            Self::EmployeeCalls => "employee_calls",
            Self::ShortNumber => "short_number",
            Self::NoNumber => "no_number",
            Self::AfterTheCall => "after_the_call",
            Self::Fault => "fault",
        }
    }
}

/// Why somebody is a candidate for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Responsible for the caller's best entity.
    Responsible,
    /// The responsible on a mobile phone.
    OtherPhone,
    /// The responsible's deputy, or the deputy's.
    Deputy,
    /// Head of the responsible's department, or of one above it.
    Head,
    /// Responsible for another entity of the caller.
    NextResponsible,
    /// An extension of `when_away`: a group or a queue.
    Group,
    /// Spoke with the caller last.
    LastTalk,
    /// Named by `rules.lists.always_to`.
    Listed,
    /// Named by `rules.card`.
    CardField,
    /// Named by the administrator's script.
    Script,
}

impl Role {
    /// The reason of a decision that rings somebody in this role.
    pub fn reason(self) -> Reason {
        match self {
            Self::Responsible => Reason::Responsible,
            Self::OtherPhone => Reason::OtherPhone,
            Self::Deputy => Reason::Deputy,
            Self::Head => Reason::Head,
            Self::NextResponsible => Reason::NextResponsible,
            Self::Group => Reason::Group,
            Self::LastTalk => Reason::LastTalk,
            Self::Listed => Reason::Listed,
            Self::CardField => Reason::CardField,
            Self::Script => Reason::Script,
        }
    }

    /// The word used in JSON and in the journal.
    pub fn as_str(self) -> &'static str {
        self.reason().as_str()
    }
}

/// A candidate as a step speaks of them.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidateName {
    /// What would be rung.
    pub target: Target,
    /// Whose it is; `None` for a group.
    pub employee: Option<Arc<Colleague>>,
    /// Why they are a candidate.
    pub role: Role,
    /// Whose deputy, head or mobile phone it is.
    pub of: Option<Arc<Colleague>>,
    /// The entity that brought them.
    pub entity: Option<EntityName>,
}

impl fmt::Display for CandidateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, role, .. } = self;
        write!(f, "{target}")?;
        if let Some(employee) = &self.employee {
            write!(f, ": {}", employee.name)?;
        }
        let of = self.of.as_ref().map_or("", |of| of.name.as_str());
        match (role, &self.entity) {
            (Role::Responsible, Some(entity)) => write!(f, ", responsible for {entity}"),
            (Role::Responsible, None) => f.write_str(", responsible for the caller"),
            (Role::OtherPhone, _) => f.write_str(", on the mobile phone"),
            (Role::Deputy, _) => write!(f, ", deputy of {of}"),
            (Role::Head, _) => write!(f, ", head of {of}'s department"),
            (Role::NextResponsible, Some(entity)) => {
                write!(f, ", responsible for the caller's next card, {entity}")
            }
            (Role::NextResponsible, None) => f.write_str(", responsible for another card"),
            (Role::Group, _) => f.write_str(", a group or queue that `when_away` names"),
            (Role::LastTalk, _) => f.write_str(", who spoke with this caller last"),
            (Role::Listed, _) => f.write_str(", always for this caller (`rules.lists`)"),
            (Role::CardField, _) => f.write_str(", because of a field of the card (`rules.card`)"),
            (Role::Script, _) => f.write_str(", named by the script"),
        }
    }
}

/// Which entity a step speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityName {
    /// Its CRM.
    pub crm: CrmName,
    /// Its kind.
    pub kind: EntityKind,
    /// Its identifier.
    pub id: EntityId,
    /// Its name.
    pub name: String,
}

impl From<&Entity> for EntityName {
    fn from(entity: &Entity) -> Self {
        let Entity {
            crm,
            kind,
            id,
            name,
            ..
        } = entity;
        Self {
            crm: crm.clone(),
            kind: *kind,
            id: id.clone(),
            name: name.clone(),
        }
    }
}

impl fmt::Display for EntityName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} of {}", self.kind, self.id, self.crm)?;
        if self.name.is_empty() {
            Ok(())
        } else {
            write!(formatter, ", {}", self.name)
        }
    }
}

/// One step on the way to a decision. Kept as data: text is made only when somebody reads it.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The caller's number was read.
    ReadCaller {
        /// As the PBX wrote it.
        written: String,
        /// As E.164.
        phone: E164,
    },
    /// The caller's number is too short for a client.
    CallerIsShort(String),
    /// The caller's number could not be read.
    CallerUnreadable(String),
    /// The question came after the call.
    CallerGone(Did),
    /// The number is an employee's own.
    CallerIsEmployee(Arc<Colleague>),
    /// A CRM does not take part, since it answers for other DIDs only.
    OtherDids(CrmName, Option<Did>),
    /// The directory has this many entities with the number.
    Found(usize),
    /// The directory lacks the number.
    Missed,
    /// A CRM was asked live.
    Asked(CrmName, Refreshed),
    /// Live lookups are switched off.
    NotAsked,
    /// An entity takes no part.
    LeftOut(EntityName, OutReason),
    /// An entity's place in the order.
    Ranked {
        /// Counted from 1.
        place: usize,
        /// The entity.
        entity: EntityName,
        /// What put it there.
        because: Because,
    },
    /// An entity was passed over: its responsible cannot be rung.
    PassedOver(EntityName, SkipReason),
    /// A rule speaks of the whole call: its name, and what it says.
    Told(&'static str, Said),
    /// A candidate may not be rung now.
    Skipped(CandidateName, SkipReason),
    /// This candidate is rung, so many seconds.
    Ring(CandidateName, u64),
    /// Nobody is rung.
    StandardRoute(Reason),
    /// The directory failed.
    Failed(String),
}

/// Why an entity takes no part in matching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutReason {
    /// Its kind is not in `match.order`.
    KindNotWanted,
    /// Converted, won or lost.
    Closed,
    /// Marked as junk.
    Junk,
}

/// Why a rule will not have an employee rung. A closed set in metrics, by [`SkipReason::label`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkipReason {
    /// The entity names no responsible.
    NoResponsible,
    /// The CRM's list of employees does not have this user.
    UnknownEmployee(EmployeeId),
    /// Dismissed or switched off in the CRM.
    Dismissed(String),
    /// No extension, or one that may not be rung.
    NoExtension {
        /// The employee's name.
        employee: String,
        /// Their identifier in the entity's CRM.
        id: EmployeeId,
        /// Why.
        why: ExtensionError,
    },
    /// Rung for this call already, with this outcome if it was the last one.
    AlreadyTried(Option<DialStatus>),
    /// Away, as the CRM or the configuration says.
    Absent {
        /// What the absence is called; may be empty.
        what: String,
        /// Its end, by the office's clock.
        until: String,
    },
    /// Not within working hours.
    OutsideHours {
        /// Whose hours hold.
        whose: HoursOf,
        /// These hours as they were written: "Mon-Fri 09:00-18:00".
        hours: String,
        /// When they begin next, by the clock that they go by.
        next: Option<DateTime>,
    },
    /// The CRM's working day is closed or paused.
    DayNotOpen,
    /// The phone cannot take a call.
    Phone(PhoneState),
    /// A field of the card speaks against it.
    CardField(CardMatch),
}

impl SkipReason {
    /// One word for metrics and JSON.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoResponsible => "no_responsible",
            Self::UnknownEmployee(_) => "unknown_employee",
            Self::Dismissed(_) => "dismissed",
            Self::NoExtension { .. } => "no_extension",
            Self::AlreadyTried(_) => "already_tried",
            Self::Absent { .. } => "absent",
            Self::OutsideHours { .. } => "outside_hours",
            Self::DayNotOpen => "day_not_open",
            Self::Phone(state) => state.as_str(),
            Self::CardField(_) => "card_field",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoResponsible => formatter.write_str("it names no responsible"),
            Self::UnknownEmployee(id) => {
                write!(
                    formatter,
                    "its responsible, user {id}, is not among the employees"
                )
            }
            Self::Dismissed(name) => write!(formatter, "its responsible {name} is dismissed"),
            Self::NoExtension { employee, why, .. } => {
                write!(
                    formatter,
                    "its responsible {employee} cannot be rung: {why}"
                )
            }
            Self::AlreadyTried(None) => formatter.write_str("was rung for this call already"),
            Self::AlreadyTried(Some(status)) => {
                write!(
                    formatter,
                    "was rung for this call already and {}",
                    told(*status)
                )
            }
            Self::Absent { what, until } if what.is_empty() => {
                write!(formatter, "is away until {until}")
            }
            Self::Absent { what, until } => write!(formatter, "is away until {until} ({what})"),
            Self::OutsideHours { whose, hours, next } => {
                write!(formatter, "does not work now: {whose} {hours}")?;
                next.iter().try_for_each(|next| {
                    let next = next.strftime("%a %d.%m.%Y %H:%M");
                    write!(formatter, "; next from {next}")
                })
            }
            Self::DayNotOpen => {
                formatter.write_str("has not begun the working day in the CRM, or has a break")
            }
            Self::Phone(state) => write!(formatter, "the phone is {state}"),
            Self::CardField(field) => write!(formatter, "{field}"),
        }
    }
}

/// What an outcome means, as a sentence about somebody goes on.
fn told(status: DialStatus) -> &'static str {
    match status {
        DialStatus::Answer => "answered",
        DialStatus::Busy => "was busy or declined",
        DialStatus::NoAnswer => "did not answer",
        DialStatus::Cancel => "the caller hung up",
        DialStatus::Congestion => "the line could not be had",
        DialStatus::ChanUnavail => "could not be reached",
        DialStatus::Other => "did not take the call",
    }
}

impl Step {
    /// One word for JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ReadCaller { .. } => "read_caller",
            Self::CallerIsShort(_) => "caller_is_short",
            Self::CallerUnreadable(_) => "caller_unreadable",
            Self::CallerGone(_) => "caller_gone",
            Self::CallerIsEmployee(_) => "caller_is_employee",
            Self::OtherDids(..) => "other_dids",
            Self::Found(_) => "found",
            Self::Missed => "missed",
            Self::Asked(..) => "asked",
            Self::NotAsked => "not_asked",
            Self::LeftOut(..) => "left_out",
            Self::Ranked { .. } => "ranked",
            Self::PassedOver(..) => "passed_over",
            Self::Told(..) => "rule",
            Self::Skipped(..) => "skipped",
            Self::Ring(..) => "ring",
            Self::StandardRoute(_) => "standard_route",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadCaller { written, phone } => {
                write!(f, "the caller's number `{written}` is {phone}")
            }
            Self::CallerIsShort(short) => write!(f, "`{short}` is an extension, not a client"),
            Self::CallerUnreadable(written) if written.trim().is_empty() => {
                f.write_str("the caller's number is missing")
            }
            Self::CallerUnreadable(written) => write!(f, "`{written}` is no telephone number"),
            Self::CallerGone(did) => write!(f, "asked from `{did}`: the caller is gone"),
            Self::CallerIsEmployee(employee) => {
                write!(
                    f,
                    "the number is {}'s own ({}), an employee, not a client",
                    employee.name, employee.crm
                )
            }
            Self::OtherDids(crm, Some(did)) => {
                write!(f, "{crm} takes no part: its `did` does not list {did}")
            }
            Self::OtherDids(crm, None) => {
                write!(
                    f,
                    "{crm} takes no part: it has a `did` and this call names none"
                )
            }
            Self::Found(1) => f.write_str("the mirror has 1 card with this number"),
            Self::Found(count) => write!(f, "the mirror has {count} cards with this number"),
            Self::Missed => f.write_str("the mirror does not have this number"),
            Self::Asked(crm, refreshed) => write_asked(f, crm, refreshed),
            Self::NotAsked => {
                f.write_str("live lookups are switched off (`match.live_lookup_ms = 0`)")
            }
            Self::LeftOut(entity, OutReason::KindNotWanted) => {
                write!(
                    f,
                    "left out: {entity}: `match.order` does not list its kind"
                )
            }
            Self::LeftOut(entity, OutReason::Closed) => {
                write!(f, "left out: {entity}: it is closed")
            }
            Self::LeftOut(entity, OutReason::Junk) => write!(f, "left out: {entity}: it is junk"),
            Self::Ranked {
                place,
                entity,
                because,
            } => write!(f, "{place}. {entity} ({because})"),
            Self::PassedOver(entity, why) => write!(f, "passed over: {entity}: {why}"),
            Self::Told(rule, said) => write!(f, "{rule}: {said}"),
            Self::Skipped(candidate, why) => write!(f, "not rung: {candidate}: {why}"),
            Self::Ring(candidate, seconds) => write!(f, "ring {candidate}, for {seconds} s"),
            Self::StandardRoute(reason) => write!(f, "standard route: {}", reason_text(*reason)),
            Self::Failed(text) => write!(f, "the directory failed: {text}"),
        }
    }
}

fn write_asked(f: &mut fmt::Formatter<'_>, crm: &CrmName, refreshed: &Refreshed) -> fmt::Result {
    match refreshed {
        Refreshed::Found(entities) => write!(f, "asked {crm} live: {} found", entities.len()),
        Refreshed::Nothing => write!(f, "asked {crm} live: it does not know the number"),
        Refreshed::RememberedNothing => {
            write!(
                f,
                "{crm} did not know the number a moment ago, not asked again"
            )
        }
        Refreshed::TooLate => {
            write!(
                f,
                "asked {crm} live: no answer within `match.live_lookup_ms`"
            )
        }
        Refreshed::BreakerOpen => write!(f, "{crm} has failed lately and is not asked for a while"),
        Refreshed::OutOfBudget => write!(f, "{crm} is not asked: its budget of requests is spent"),
        Refreshed::NotAskable => write!(
            f,
            "{crm} cannot be asked live: it is a file, or only imported"
        ),
        Refreshed::Failed(text) => write!(f, "asked {crm} live: {text}"),
    }
}

fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Responsible
        | Reason::OtherPhone
        | Reason::Deputy
        | Reason::Head
        | Reason::NextResponsible
        | Reason::Group
        | Reason::LastTalk
        | Reason::Listed
        | Reason::CardField
        | Reason::Script => "somebody is rung",
        Reason::NotRouted => "a rule sends this caller there",
        Reason::TriesSpent => "as many were rung in vain as `route.most_tries` allows",
        Reason::TimeSpent => "the caller has waited as long as `route.total_seconds` allows",
        Reason::NobodyCanBeRung => "the caller is known, but none of their people can be rung",
        Reason::UnknownCaller => "nobody knows the caller",
        Reason::EmployeeCalls => "the caller is an employee",
        Reason::ShortNumber => "the caller is an extension",
        Reason::NoNumber => "the caller's number is missing or unreadable",
        Reason::AfterTheCall => "the caller is gone",
        Reason::Fault => "pryamo failed, see its log",
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut step = serializer.serialize_struct("Step", 2)?;
        step.serialize_field("step", self.code())?;
        step.serialize_field("text", &self.to_string())?;
        step.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_tells_whether_a_crm_was_asked() {
        let asked = |refreshed| Step::Asked(CrmName::new("sales"), refreshed);
        let table = [
            (vec![], AnswerSource::None),
            (
                vec![Step::CallerIsShort("101".to_owned())],
                AnswerSource::None,
            ),
            (vec![Step::Found(1)], AnswerSource::Directory),
            (vec![Step::Missed, Step::NotAsked], AnswerSource::Directory),
            (
                vec![Step::Failed("no disk".to_owned())],
                AnswerSource::Directory,
            ),
            (
                vec![Step::Missed, asked(Refreshed::BreakerOpen)],
                AnswerSource::Directory,
            ),
            (
                vec![Step::Missed, asked(Refreshed::RememberedNothing)],
                AnswerSource::Directory,
            ),
            (
                vec![
                    Step::Missed,
                    asked(Refreshed::NotAskable),
                    asked(Refreshed::TooLate),
                ],
                AnswerSource::Live,
            ),
            (
                vec![Step::Missed, asked(Refreshed::Nothing)],
                AnswerSource::Live,
            ),
        ];
        for (steps, expected) in table {
            let decision = Decision::standard_route(Reason::UnknownCaller, steps);
            assert_eq!(decision.source(), expected, "{:?}", decision.steps);
        }
    }
}
