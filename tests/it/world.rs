//! A made-up company's CRM data, the same for every fake CRM: what the CRM holds, not what pryamo
//! makes of it.

use std::sync::{Arc, RwLock};

/// Everything that a fake CRM serves. Shared, so that a test can change it while the fake runs.
pub type SharedWorld = Arc<RwLock<World>>;

/// The CRM's content. Lists are kept sorted by id.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub users: Vec<User>,
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
}

/// Where a lead or deal stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Open,
    Closed,
    Junk,
}

impl World {
    pub fn shared(self) -> SharedWorld {
        Arc::new(RwLock::new(self))
    }
}
