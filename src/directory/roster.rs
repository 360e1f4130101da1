//! All employees of all CRMs in memory, with what may be rung for each.
//!
//! A few thousand people at most, read on every call: so they are kept here and not in a table.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::call::{Extension, ExtensionError, ExtensionPattern};
use crate::hours::Hours;
use crate::phone::{self, E164, Region};
use crate::record::{Absence, CrmName, Department, Employee, EmployeeId, Workday};

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
    heads: HashMap<String, String>,
}

impl CrmRules {
    /// Takes `[crm.employees]`: e-mail, user id or name -> what the CRM does not hold.
    pub fn new(region: Region, employees: impl Iterator<Item = (String, Override)>) -> Self {
        Self {
            region,
            overrides: employees.map(|(who, row)| (fold(&who), row)).collect(),
            heads: HashMap::new(),
        }
    }

    /// Takes `[crm.departments]`: a department's name or identifier -> its head's e-mail, id or name.
    #[must_use]
    pub fn with_heads(mut self, heads: impl Iterator<Item = (String, String)>) -> Self {
        self.heads = heads.map(|(which, head)| (fold(&which), head)).collect();
        self
    }
}

/// A row of `[crm.employees]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Override {
    /// The extension, in place of the CRM's.
    pub extension: Option<String>,
    /// A mobile phone, in place of the CRM's.
    pub mobile: Option<String>,
    /// Who is rung in their place: an e-mail, a user id or a name of the same CRM.
    pub deputy: Option<String>,
    /// When they work.
    pub hours: Option<Hours>,
    /// When they are away, besides what the CRM tells.
    pub absences: Vec<Absence>,
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
    /// Those of them that are mobile.
    pub mobiles: Vec<E164>,
    /// Departments' identifiers.
    pub departments: Vec<String>,
    /// Who is rung in their place, as the configuration names them; see [`Roster::deputy_of`].
    pub deputy: Option<String>,
    /// When they work, where the configuration says it.
    #[serde(serialize_with = "hours_as_written")]
    pub hours: Option<Hours>,
    /// When they are away.
    pub absences: Vec<Absence>,
    /// The CRM's working-day clock, where it has one.
    pub workday: Option<Workday>,
}

#[expect(clippy::ref_option, reason = "the shape that serde asks for")]
fn hours_as_written<S: serde::Serializer>(
    hours: &Option<Hours>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    hours
        .as_ref()
        .map(ToString::to_string)
        .serialize(serializer)
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
    /// Working employees by extension; several where a person is a user of several CRMs, or an
    /// extension was given twice.
    extensions: HashMap<Extension, Vec<Arc<Colleague>>>,
    departments: HashMap<CrmName, HashMap<String, Department>>,
}

impl Roster {
    /// Puts the employees and departments of all CRMs together.
    pub fn build<'a>(
        employees: impl IntoIterator<Item = (&'a CrmName, &'a Employee)>,
        departments: impl IntoIterator<Item = (&'a CrmName, Vec<Department>)>,
        rules: &RosterRules,
    ) -> Self {
        let mut roster = Self::default();
        for (crm, listed) in departments {
            if let Some(own_rules) = rules.crms.get(crm) {
                roster.add_departments(crm, listed, own_rules);
            }
        }
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
                if let Ok(extension) = &colleague.extension {
                    let same = roster.extensions.entry(extension.clone()).or_default();
                    same.push(Arc::clone(&colleague));
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

    fn add_departments(&mut self, crm: &CrmName, listed: Vec<Department>, rules: &CrmRules) {
        let own = self.departments.entry(crm.clone()).or_default();
        for mut department in listed {
            let set_here = rules
                .heads
                .get(&fold(&department.name))
                .or_else(|| rules.heads.get(&fold(&department.id)));
            if let Some(head) = set_here {
                department.head = Some(EmployeeId::new(head));
            }
            own.insert(department.id.clone(), department);
        }
    }

    /// Who is rung in this employee's place, if the configuration names somebody whom the roster has.
    pub fn deputy_of(&self, colleague: &Colleague) -> Option<&Arc<Colleague>> {
        let deputy = colleague.deputy.as_deref()?;
        self.get(&colleague.crm, &EmployeeId::new(deputy))
            .filter(|deputy| deputy.id != colleague.id)
    }

    /// The heads of this employee's departments, the nearest first, then those of the departments
    /// above; never the employee.
    pub fn heads_of(&self, colleague: &Colleague) -> Vec<&Arc<Colleague>> {
        let mut heads: Vec<&Arc<Colleague>> = Vec::new();
        let mut level: Vec<&Department> = self.departments_of(colleague).collect();
        let mut seen: Vec<&str> = Vec::new();
        while !level.is_empty() {
            level.retain(|department| !seen.contains(&department.id.as_str()));
            seen.extend(level.iter().map(|department| department.id.as_str()));
            for head in level
                .iter()
                .filter_map(|department| department.head.as_ref())
            {
                let head = self.get(&colleague.crm, head);
                let is_new = |head: &&Arc<Colleague>| {
                    head.id != colleague.id && heads.iter().all(|known| known.id != head.id)
                };
                heads.extend(head.filter(is_new));
            }
            let above = level
                .iter()
                .filter_map(|department| department.parent.as_deref());
            level = above
                .filter_map(|id| self.department(&colleague.crm, id))
                .collect();
        }
        heads
    }

    /// The departments of an employee, those that the CRM tells more of than an identifier.
    pub fn departments_of<'a>(
        &'a self,
        colleague: &'a Colleague,
    ) -> impl Iterator<Item = &'a Department> {
        let ids = colleague.departments.iter();
        ids.filter_map(|id| self.department(&colleague.crm, id))
    }

    fn department(&self, crm: &CrmName, id: &str) -> Option<&Department> {
        self.departments.get(crm)?.get(id)
    }

    /// Says whether an employee belongs to the department of this identifier or name, or to one below
    /// it.
    pub fn belongs_to(&self, colleague: &Colleague, department: &str) -> bool {
        let wanted = fold(department);
        if colleague.departments.iter().any(|id| fold(id) == wanted) {
            return true;
        }
        let mut seen: Vec<&str> = Vec::new();
        let mut level: Vec<&Department> = self.departments_of(colleague).collect();
        while let Some(department) = level.pop() {
            if seen.contains(&department.id.as_str()) {
                continue;
            }
            seen.push(&department.id);
            if fold(&department.id) == wanted || fold(&department.name) == wanted {
                return true;
            }
            let above = department.parent.as_deref();
            level.extend(above.and_then(|id| self.department(&colleague.crm, id)));
        }
        false
    }

    /// The working employees who have this extension.
    pub fn at(&self, extension: &Extension) -> &[Arc<Colleague>] {
        self.extensions.get(extension).map_or(&[], Vec::as_slice)
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
    let row = named(employee.id.as_str())
        .or_else(|| employee.email.as_deref().and_then(named))
        .or_else(|| named(&employee.name))
        .cloned()
        .unwrap_or_default();
    let extension = row.extension.as_deref().or(employee.extension.as_deref());
    let read = |fields: &[String]| {
        let mut phones = Vec::new();
        for field in fields {
            phones.extend(phone::read_field(field, rules.region));
        }
        phones.dedup();
        phones
    };
    let mobiles = match row.mobile {
        Some(mobile) => read(&[mobile]),
        None => read(&employee.mobiles),
    };
    let mut phones = read(&employee.phones);
    phones.extend(
        mobiles
            .iter()
            .filter(|mobile| !phones.contains(mobile))
            .copied()
            .collect::<Vec<_>>(),
    );
    let mut absences = employee.absences.clone();
    absences.extend(row.absences);
    Colleague {
        crm: crm.clone(),
        id: employee.id.clone(),
        name: employee.name.clone(),
        active: employee.active,
        email: employee.email.clone(),
        extension: Extension::read(extension.unwrap_or_default(), pattern),
        phones,
        mobiles,
        departments: employee.departments.clone(),
        deputy: row.deputy,
        hours: row.hours,
        absences,
        workday: employee.workday,
    }
}
