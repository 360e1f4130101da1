//! What the mirror holds: entities (CRM cards) and employees.
//!
//! Pure data. Knows nothing of any CRM's wire format and nothing of how it is stored.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The `name` of a `[[crm]]` table: which CRM a record comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CrmName(Arc<str>);

impl CrmName {
    /// Takes a name that the configuration has checked.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as written in the configuration.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CrmName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What kind of card an entity is. amoCRM's API calls its deals `leads`; here they are deals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntityKind {
    /// A person.
    Contact,
    /// An organisation.
    Company,
    /// Somebody who is not yet a client.
    Lead,
    /// A sale; has no phone of its own, only links to contacts and companies.
    Deal,
}

impl EntityKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Contact, Self::Company, Self::Lead, Self::Deal];

    /// The word used in configuration, JSON and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contact => "contact",
            Self::Company => "company",
            Self::Lead => "lead",
            Self::Deal => "deal",
        }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A card's identifier inside its CRM and kind. Numbers sort as numbers and before other text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntityId(Arc<str>);

impl EntityId {
    /// Takes the identifier as the CRM writes it.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// As the CRM writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identifier as a number, if it is one and is written without leading zeros.
    pub fn as_number(&self) -> Option<i64> {
        let number: i64 = self.0.parse().ok()?;
        (number >= 0 && number.to_string() == *self.0).then_some(number)
    }
}

impl From<u64> for EntityId {
    fn from(id: u64) -> Self {
        Self(id.to_string().into())
    }
}

impl Ord for EntityId {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.as_number(), other.as_number()) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for EntityId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A user's identifier inside their CRM; for a table without users, the name as written there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EmployeeId(Arc<str>);

impl EmployeeId {
    /// Takes the identifier as the CRM writes it.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// As the CRM writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EmployeeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a lead or deal is still being worked on. Contacts and companies are always open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// In work.
    #[default]
    Open,
    /// Converted, won or lost: takes no part in matching.
    Closed,
    /// Marked as junk: takes no part in matching.
    Junk,
}

/// An entity as its CRM wrote it: phones are text, exactly as typed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Which kind of card.
    pub kind: EntityKind,
    /// Its identifier in the CRM.
    pub id: EntityId,
    /// The person's or organisation's name; may be empty.
    pub name: String,
    /// The organisation's name, where the card itself carries it.
    pub company: Option<String>,
    /// The employee responsible; `None` where the card names nobody.
    pub responsible: Option<EmployeeId>,
    /// Phone fields as typed; one field may hold several numbers.
    pub phones: Vec<String>,
    /// When the card last changed; `None` where the CRM does not say.
    pub modified: Option<Timestamp>,
    /// Whether it is still worked on.
    pub stage: Stage,
    /// Other cards that it names: a contact's company; a deal's contacts and company.
    pub links: Vec<(EntityKind, EntityId)>,
    /// More fields, those that `crm.fields` asks for: field code -> value as text.
    pub fields: BTreeMap<String, String>,
}

impl Card {
    /// An open card that holds nothing but its identity.
    pub fn new(kind: EntityKind, id: EntityId) -> Self {
        Self {
            kind,
            id,
            name: String::new(),
            company: None,
            responsible: None,
            phones: Vec::new(),
            modified: None,
            stage: Stage::Open,
            links: Vec::new(),
            fields: BTreeMap::new(),
        }
    }
}

/// An entity as the directory answers it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// The CRM it comes from.
    pub crm: CrmName,
    /// Which kind of card.
    pub kind: EntityKind,
    /// Its identifier in the CRM.
    pub id: EntityId,
    /// The person's or organisation's name; may be empty.
    pub name: String,
    /// The organisation's name, its own or that of the linked company.
    pub company: Option<String>,
    /// The employee responsible.
    pub responsible: Option<EmployeeId>,
    /// When the card last changed.
    pub modified: Option<Timestamp>,
    /// Whether it is still worked on.
    pub stage: Stage,
    /// More fields, those that `crm.fields` asks for.
    pub fields: BTreeMap<String, String>,
}

/// What a CRM says has happened to one of its cards: a reason to read the card again, no more. Given
/// twice, late or in a wrong order it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notice {
    /// Which kind of card.
    pub kind: EntityKind,
    /// Its identifier in the CRM.
    pub id: EntityId,
    /// What is said of it.
    pub event: Event,
}

/// What is said of a card. Ordered: of two notices for one card the greater says enough.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// It was added or changed in any way.
    #[default]
    Changed,
    /// It was deleted or merged away: believed once reading it again agrees.
    Gone,
    /// Two cards became one, and the CRM names one of them: whoever shares a phone with it may be
    /// gone too.
    Merged,
}

/// A CRM user as the CRM wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Employee {
    /// The user's identifier in the CRM.
    pub id: EmployeeId,
    /// First and last name.
    pub name: String,
    /// False once dismissed or switched off.
    pub active: bool,
    /// The extension field as typed; `None` where the CRM has no such field.
    pub extension: Option<String>,
    /// E-mail, by which `[crm.employees]` may name the user.
    pub email: Option<String>,
    /// The user's own phones as typed (mobile, work): who calls from them is an employee.
    pub phones: Vec<String>,
    /// Those of [`Employee::phones`] that the CRM calls mobile: the user may be rung there when the
    /// configuration allows outgoing calls.
    #[serde(default)]
    pub mobiles: Vec<String>,
    /// Departments' identifiers.
    pub departments: Vec<String>,
    /// When the user is away, as far as the CRM tells; past ones may be left out.
    #[serde(default)]
    pub absences: Vec<Absence>,
    /// The CRM's working-day clock; `None` where it has none, or it was not asked for.
    #[serde(default)]
    pub workday: Option<Workday>,
}

impl Employee {
    /// A working user of whom nothing is known but who it is.
    pub fn new(id: EmployeeId, name: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            active: true,
            extension: None,
            email: None,
            phones: Vec::new(),
            mobiles: Vec::new(),
            departments: Vec::new(),
            absences: Vec::new(),
            workday: None,
        }
    }
}

/// A span in which an employee is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
    /// What it is called, "Vacation"; may be empty.
    pub what: String,
}

impl Absence {
    /// Says whether `now` falls inside this absence.
    ///
    /// The span is half-open, so back-to-back absences neither overlap nor leave a gap. Both ends are
    /// instants; whoever made it has applied the office's zone.
    pub fn covers(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }
}

/// What a user's working-day clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workday {
    /// The day has begun.
    Open,
    /// A break.
    Paused,
    /// The day has not begun, or has ended.
    Closed,
}

/// A department as the CRM wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Department {
    /// Its identifier in the CRM.
    pub id: String,
    /// Its name; may be empty.
    pub name: String,
    /// The department above it.
    pub parent: Option<String>,
    /// Its head, where the CRM knows one.
    pub head: Option<EmployeeId>,
}

/// Everybody who works with a CRM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staff {
    /// Its users, dismissed ones included where the CRM tells them.
    pub employees: Vec<Employee>,
    /// Its departments; none where it has none or does not tell them.
    pub departments: Vec<Department>,
}

impl From<Vec<Employee>> for Staff {
    fn from(employees: Vec<Employee>) -> Self {
        Self {
            employees,
            departments: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_numbers_and_before_text() {
        let mut ids: Vec<EntityId> = ["C-17", "100", "9", "007", "20"]
            .map(EntityId::new)
            .to_vec();
        ids.sort();
        let sorted: Vec<&str> = ids.iter().map(EntityId::as_str).collect();
        assert_eq!(sorted, ["9", "20", "100", "007", "C-17"]);
    }
}
