//! All employees of all CRMs in memory, with what may be rung for each.
//!
//! A few thousand people at most, read on every call: so they are kept here and not in a table.

use std::collections::HashMap;
use std::sync::Arc;

// A caller waits for several lookups in these.
use foldhash::HashMap as FastMap;

use super::colleague::{self, Colleague};
use super::own_row::OwnRow;
use crate::call::{Extension, ExtensionPattern};
use crate::hours::{Hours, Office};
use crate::phone::{E164, Region};
use crate::record::{Absence, CrmName, Department, Employee, EmployeeId};

/// What the configuration says about employees.
#[derive(Debug, Clone, Default)]
pub struct RosterRules {
    /// Which digits make an extension.
    pub pattern: ExtensionPattern,
    /// By whose clock and holidays hours and absences are read.
    pub office: Office,
    /// For each CRM: how its phones are read, and `[crm.employees]`.
    pub crms: HashMap<CrmName, CrmRules>,
}

/// What the configuration says about one CRM's employees.
#[derive(Debug, Clone, Default)]
pub struct CrmRules {
    /// How phones without a country code are read.
    pub region: Region,
    pub(super) overrides: HashMap<String, Override>,
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

/// What a row of `[crm.employees]`, or one set on the page, means.
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

/// All employees at one moment.
#[derive(Debug, Default)]
pub struct Roster {
    employees: FastMap<CrmName, FastMap<EmployeeId, Arc<Colleague>>>,
    /// E-mails and names in lower case; `None` where two employees share one.
    aliases: FastMap<CrmName, FastMap<String, Option<Arc<Colleague>>>>,
    owners: FastMap<E164, Arc<Colleague>>,
    /// Working employees by extension; several where a person is a user of several CRMs, or an
    /// extension was given twice.
    extensions: FastMap<Extension, Vec<Arc<Colleague>>>,
    departments: HashMap<CrmName, HashMap<String, Department>>,
    rules: Arc<RosterRules>,
}

/// An extension that several working employees of one CRM have.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The CRM.
    pub crm: CrmName,
    /// Their extension.
    pub extension: Extension,
    /// Who has it, two or more.
    pub employees: Vec<Arc<Colleague>>,
}

impl Roster {
    /// Puts the employees and departments of all CRMs together with what was set on the page.
    pub fn build<'a>(
        employees: impl IntoIterator<Item = (&'a CrmName, &'a Employee)>,
        departments: impl IntoIterator<Item = (&'a CrmName, Vec<Department>)>,
        own_rows: &[(CrmName, EmployeeId, OwnRow)],
        rules: &Arc<RosterRules>,
    ) -> Self {
        let mut roster = Self {
            rules: Arc::clone(rules),
            ..Self::default()
        };
        let own_rows: HashMap<_, _> = own_rows
            .iter()
            .map(|(crm, id, row)| ((crm, id), row))
            .collect();
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
            let own_row = own_rows.get(&(crm, &employee.id)).copied();
            let colleague = colleague::put_together(crm, employee, own_rules, own_row, rules);
            let colleague = Arc::new(colleague);
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
            .flat_map(FastMap::values)
            .cloned()
            .collect();
        all.sort_by(|a, b| (&a.crm, &a.name, &a.id).cmp(&(&b.crm, &b.name, &b.id)));
        all
    }

    /// The extensions that two or more working employees of one CRM share, sorted. Two CRMs may know
    /// the same person under the same extension.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts: Vec<Conflict> = Vec::new();
        for (extension, owners) in &self.extensions {
            let mut by_crm: HashMap<&CrmName, Vec<Arc<Colleague>>> = HashMap::new();
            for owner in owners {
                let same = by_crm.entry(&owner.crm).or_default();
                same.push(Arc::clone(owner));
            }
            by_crm.retain(|_, same| same.len() > 1);
            conflicts.extend(by_crm.into_iter().map(|(crm, employees)| Conflict {
                crm: crm.clone(),
                extension: extension.clone(),
                employees,
            }));
        }
        conflicts.sort_by(|a, b| (&a.crm, &a.extension).cmp(&(&b.crm, &b.extension)));
        conflicts
    }

    /// The working employees who cannot be rung for want of an extension, sorted as [`Roster::all`].
    pub fn without_extension(&self) -> Vec<Arc<Colleague>> {
        let mut without = self.all();
        without.retain(|one| one.active && one.extension.is_err());
        without
    }

    /// Says whether the configuration has this CRM and any of its employees are known.
    pub fn knows(&self, crm: &CrmName) -> bool {
        self.employees.contains_key(crm)
    }

    /// What the configuration says about employees.
    pub(super) fn rules(&self) -> &RosterRules {
        &self.rules
    }

    /// How many employees a CRM has.
    pub fn len_of(&self, crm: &CrmName) -> usize {
        self.employees.get(crm).map_or(0, FastMap::len)
    }

    /// How many employees there are.
    pub fn len(&self) -> usize {
        self.employees.values().map(FastMap::len).sum()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Text as it is compared: case and the number of blanks do not count.
pub(super) fn fold(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}
