//! All employees of all CRMs in memory, with what may be rung for each.
//!
//! A few thousand people at most, read on every call: so they are kept here and not in a table.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::call::{Extension, ExtensionError, ExtensionPattern};
use crate::phone::{self, E164, Region};
use crate::record::{CrmName, Employee, EmployeeId};

/// What the configuration says about employees.
#[derive(Debug, Clone, Default)]
pub struct RosterRules {
    /// Which digits make an extension.
    pub pattern: ExtensionPattern,
    /// For each CRM: how its phones are read, and `[crm.employees]`.
    pub crms: HashMap<CrmName, CrmRules>,
}

/// What the configuration says about one CRM's employees.
#[derive(Debug, Clone, Default)]
pub struct CrmRules {
    /// How phones without a country code are read.
    pub region: Region,
    overrides: HashMap<String, Override>,
}

impl CrmRules {
    /// Takes `[crm.employees]`: e-mail, user id or name -> what the CRM does not hold.
    pub fn new(region: Region, employees: impl Iterator<Item = (String, Override)>) -> Self {
        Self {
            region,
            overrides: employees.map(|(who, row)| (fold(&who), row)).collect(),
        }
    }
}

/// A row of `[crm.employees]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Override {
    /// The extension, in place of the CRM's.
    pub extension: Option<String>,
}

/// An employee with what may be rung for them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Colleague {
    /// The CRM that they are a user of.
    pub crm: CrmName,
    /// The user's identifier there.
    pub id: EmployeeId,
    /// First and last name.
    pub name: String,
    /// False once dismissed or switched off.
    pub active: bool,
    /// E-mail, where known.
    pub email: Option<String>,
    /// The extension that may be rung, or why there is none.
    #[serde(serialize_with = "extension_or_null")]
    pub extension: Result<Extension, ExtensionError>,
    /// Their own phones: who calls from these is an employee.
    pub phones: Vec<E164>,
    /// Departments' identifiers.
    pub departments: Vec<String>,
}

fn extension_or_null<S: serde::Serializer>(
    extension: &Result<Extension, ExtensionError>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    extension.as_ref().ok().serialize(serializer)
}

/// All employees at one moment.
#[derive(Debug, Default)]
pub struct Roster {
    employees: HashMap<CrmName, HashMap<EmployeeId, Arc<Colleague>>>,
    /// E-mails and names in lower case; `None` where two employees share one.
    aliases: HashMap<CrmName, HashMap<String, Option<Arc<Colleague>>>>,
    owners: HashMap<E164, Arc<Colleague>>,
}

impl Roster {
    /// Puts the employees of all CRMs together.
    pub fn build<'a>(
        employees: impl IntoIterator<Item = (&'a CrmName, &'a Employee)>,
        rules: &RosterRules,
    ) -> Self {
        let mut roster = Self::default();
        for (crm, employee) in employees {
            // The mirror of a CRM that the configuration no longer has says nothing.
            let Some(own_rules) = rules.crms.get(crm) else {
                continue;
            };
            let colleague = Arc::new(colleague(crm, employee, own_rules, &rules.pattern));
            if colleague.active {
                for phone in &colleague.phones {
                    roster
                        .owners
                        .entry(*phone)
                        .or_insert_with(|| Arc::clone(&colleague));
                }
            }
            let aliases = roster.aliases.entry(crm.clone()).or_default();
            let email = colleague.email.as_deref().map(fold);
            for alias in [Some(fold(&colleague.name)), email].into_iter().flatten() {
                let owner = aliases
                    .entry(alias)
                    .or_insert_with(|| Some(Arc::clone(&colleague)));
                if owner.as_ref().is_some_and(|owner| owner.id != colleague.id) {
                    *owner = None;
                }
            }
            let crm_employees = roster.employees.entry(crm.clone()).or_default();
            crm_employees.insert(employee.id.clone(), colleague);
        }
        roster
    }

    /// The employee with this identifier in this CRM.
    ///
    /// An exported file names the responsible instead: a name or e-mail finds its employee, unless
    /// two share it.
    pub fn get(&self, crm: &CrmName, id: &EmployeeId) -> Option<&Arc<Colleague>> {
        self.employees.get(crm)?.get(id).or_else(|| {
            let aliases = self.aliases.get(crm)?;
            aliases.get(&fold(id.as_str()))?.as_ref()
        })
    }

    /// The working employee who owns this number.
    pub fn owner_of(&self, phone: E164) -> Option<&Arc<Colleague>> {
        self.owners.get(&phone)
    }

    /// Everybody, sorted by CRM, name and identifier.
    pub fn all(&self) -> Vec<Arc<Colleague>> {
        let mut all: Vec<_> = self
            .employees
            .values()
            .flat_map(HashMap::values)
            .cloned()
            .collect();
        all.sort_by(|a, b| (&a.crm, &a.name, &a.id).cmp(&(&b.crm, &b.name, &b.id)));
        all
    }

    /// How many employees there are.
    pub fn len(&self) -> usize {
        self.employees.values().map(HashMap::len).sum()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Text as it is compared: case and the number of blanks do not count.
fn fold(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}

fn colleague(
    crm: &CrmName,
    employee: &Employee,
    rules: &CrmRules,
    pattern: &ExtensionPattern,
) -> Colleague {
    let named = |key: &str| rules.overrides.get(&fold(key));
    let set_here = named(employee.id.as_str())
        .or_else(|| employee.email.as_deref().and_then(named))
        .or_else(|| named(&employee.name))
        .and_then(|row| row.extension.as_deref());
    let written = set_here
        .or(employee.extension.as_deref())
        .unwrap_or_default();
    let mut phones = Vec::new();
    for field in &employee.phones {
        phones.extend(phone::read_field(field, rules.region));
    }
    phones.dedup();
    Colleague {
        crm: crm.clone(),
        id: employee.id.clone(),
        name: employee.name.clone(),
        active: employee.active,
        email: employee.email.clone(),
        extension: Extension::read(written, pattern),
        phones,
        departments: employee.departments.clone(),
    }
}
