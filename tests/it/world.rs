//! A made-up company's CRM data, the same for every fake CRM: what the CRM holds, not what pryamo
//! makes of it.

use std::sync::{Arc, RwLock};

use jiff::civil::DateTime;
use serde_json::Value;

/// Everything that a fake CRM serves. Shared, so that a test can change it while the fake runs.
pub type SharedWorld = Arc<RwLock<World>>;

/// The CRM's content. Lists are kept sorted by id.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub users: Vec<User>,
    /// Groups, to amoCRM. A CRM of a world without any has one of its own, without a head.
    pub departments: Vec<Department>,
    pub contacts: Vec<Entry>,
    pub companies: Vec<Entry>,
    pub leads: Vec<Entry>,
    pub deals: Vec<Entry>,
}

/// A CRM user.
#[derive(Debug, Clone, Default)]
pub struct User {
    pub id: u64,
    pub first_name: String,
    pub last_name: String,
    pub active: bool,
    /// The extension field as typed; amoCRM has none, there it comes from the configuration.
    pub extension: Option<String>,
    pub mobile: Option<String>,
    pub email: String,
    /// Departments' identifiers; the CRM's own one when empty.
    pub departments: Vec<u64>,
    /// What stands in the calendar.
    pub calendar: Vec<Appointment>,
    /// The working-day clock in the CRM's word; "CLOSED" unless given.
    pub workday: Option<&'static str>,
}

/// A department.
#[derive(Debug, Clone, Default)]
pub struct Department {
    pub id: u64,
    pub name: String,
    pub parent: Option<u64>,
    pub head: Option<u64>,
}

/// An entry of a calendar, by the clock of the office.
#[derive(Debug, Clone, Default)]
pub struct Appointment {
    pub name: String,
    pub from: DateTime,
    pub to: DateTime,
    pub whole_days: bool,
    /// What it says of the person, in the CRM's word: "absent", "busy".
    pub means: &'static str,
}

/// A contact, company, lead or deal.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub id: u64,
    /// First name of a contact; the title of everything else.
    pub name: String,
    pub last_name: String,
    pub responsible: u64,
    /// Phone values as typed, one for each value of the phone field.
    pub phones: Vec<String>,
    /// Unix seconds.
    pub modified: i64,
    pub stage: Stage,
    pub company: Option<u64>,
    /// A deal's contacts, the main one first.
    pub contacts: Vec<u64>,
    pub tags: Vec<String>,
    /// More fields, as the CRM writes them.
    pub more: Vec<(&'static str, Value)>,
}

/// Where a lead or deal stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Open,
    Closed,
    Junk,
}

/// Which list of the world an entry stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum List {
    Contacts,
    Companies,
    Leads,
    Deals,
}

/// Something that happened to an entry, as its CRM tells of it. The world has it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened {
    pub list: List,
    pub id: u64,
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Added,
    Changed,
    /// The responsible changed; this was the former one.
    Reassigned(u64),
    /// It is no longer in the world's list.
    Deleted,
    /// Merged into this entry, and no longer in the world's list.
    MergedInto(u64),
}

/// When the clients of an office last changed, Unix seconds.
pub const LONG_AGO: i64 = 1_795_000_000;

/// A client of an office's first employee.
pub fn client(id: u64, modified: i64) -> Entry {
    Entry {
        id,
        name: format!("Клиент {id}"),
        responsible: 1,
        phones: vec![format!("+7 916 {id:07}")],
        modified,
        ..Entry::default()
    }
}

/// What Asterisk asks when this client calls.
pub fn call_of(client: u64) -> String {
    format!("phone=8916{client:07}&trunk=s&callid=1")
}

impl World {
    /// An office of two employees, with the extensions 101 and 102, and so many clients of the first.
    pub fn office(clients: u64) -> Self {
        let user = |id: u64| User {
            id,
            first_name: format!("Сотрудник {id}"),
            active: true,
            extension: Some((100 + id).to_string()),
            email: format!("{id}@example.com"),
            ..User::default()
        };
        Self {
            users: vec![user(1), user(2)],
            contacts: (1..=clients).map(|id| client(id, LONG_AGO)).collect(),
            ..Self::default()
        }
    }

    pub fn list(&self, list: List) -> &Vec<Entry> {
        match list {
            List::Contacts => &self.contacts,
            List::Companies => &self.companies,
            List::Leads => &self.leads,
            List::Deals => &self.deals,
        }
    }

    pub fn list_mut(&mut self, list: List) -> &mut Vec<Entry> {
        match list {
            List::Contacts => &mut self.contacts,
            List::Companies => &mut self.companies,
            List::Leads => &mut self.leads,
            List::Deals => &mut self.deals,
        }
    }

    pub fn shared(self) -> SharedWorld {
        Arc::new(RwLock::new(self))
    }
}
