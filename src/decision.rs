//! What the router answers: whom to ring, why, and by which steps it came there.
//!
//! Every front end, `explain` and the API show the same value.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::call::{Did, Extension};
use crate::directory::{Colleague, Refreshed};
use crate::phone::E164;
use crate::record::{CrmName, EmployeeId, Entity, EntityId, EntityKind};

/// The answer to one question about one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Whom to ring; `None` is the standard route.
    pub ring: Option<Extension>,
    /// Why, in one word.
    pub reason: Reason,
    /// The caller as read; `None` for a short, hidden or unreadable number.
    pub caller: Option<E164>,
    /// The entity that decided, or the best one if nobody of any entity can be rung.
    pub entity: Option<Entity>,
    /// The employee to ring, or the one who calls.
    pub employee: Option<Arc<Colleague>>,
    /// How it came to this, in order.
    pub steps: Vec<Step>,
}

impl Decision {
    /// The standard route.
    pub fn standard_route(reason: Reason, steps: Vec<Step>) -> Self {
        Self {
            ring: None,
            reason,
            caller: None,
            entity: None,
            employee: None,
            steps,
        }
    }
}

/// Why a call goes where it goes. A closed set: also a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The responsible of a known caller.
    Responsible,
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
    /// The word used in JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Responsible => "responsible",
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
        because: String,
    },
    /// An entity was passed over: its responsible cannot be rung.
    PassedOver(EntityName, SkipReason),
    /// This employee is rung.
    Ring(EntityName, Arc<Colleague>, Extension),
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
        /// Why.
        why: String,
    },
}

impl SkipReason {
    /// One word for metrics and JSON.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoResponsible => "no_responsible",
            Self::UnknownEmployee(_) => "unknown_employee",
            Self::Dismissed(_) => "dismissed",
            Self::NoExtension { .. } => "no_extension",
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
            Self::NoExtension { employee, why } => {
                write!(
                    formatter,
                    "its responsible {employee} cannot be rung: {why}"
                )
            }
        }
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
            Self::Found(1) => f.write_str("the mirror has 1 entity with this number"),
            Self::Found(count) => write!(f, "the mirror has {count} entities with this number"),
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
            Self::Ring(entity, employee, extension) => {
                write!(
                    f,
                    "ring {extension}: {}, responsible for {entity}",
                    employee.name
                )
            }
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
        Reason::Responsible => "the responsible is rung",
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
