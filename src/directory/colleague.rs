//! An employee, put together from what the CRM, the configuration and the page say.

use serde::Serialize;

use super::own_row::OwnRow;
use super::roster::{CrmRules, RosterRules, fold};
use crate::call::{Extension, ExtensionError};
use crate::hours::Hours;
use crate::phone::{self, E164, Region};
use crate::record::{Absence, CrmName, Employee, EmployeeId, Workday};

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
    /// Who is rung in their place, as whoever set it names them; see
    /// [`super::Roster::deputy_of`].
    pub deputy: Option<String>,
    /// When they work, where somebody has set it.
    #[serde(serialize_with = "hours_as_written")]
    pub hours: Option<Hours>,
    /// When they are away.
    pub absences: Vec<Absence>,
    /// The CRM's working-day clock, where it has one.
    pub workday: Option<Workday>,
    /// Where each of these comes from.
    #[serde(skip)]
    pub origins: Origins,
    /// What was set on the page, whether or not it counts.
    #[serde(skip)]
    pub own_row: Option<OwnRow>,
}

/// Where a value comes from. The configuration wins over the page, the page over the CRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The CRM holds it.
    Crm,
    /// `[crm.employees]` says it.
    Config,
    /// It was set on the page.
    Page,
}

/// Where the values of an employee come from; `None` for a value that nobody gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Origins {
    /// Of the extension, also of one that may not be rung.
    pub extension: Option<Origin>,
    /// Of the mobile phones.
    pub mobile: Option<Origin>,
    /// Of the deputy.
    pub deputy: Option<Origin>,
    /// Of the hours.
    pub hours: Option<Origin>,
    /// Of each absence, in their order.
    pub absences: Vec<Origin>,
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

impl Colleague {
    /// Says whether two users are one person: two CRMs may both know them, by the same e-mail or name.
    pub fn is_same_person(&self, other: &Self) -> bool {
        if self.crm == other.crm {
            return self.id == other.id;
        }
        let email = |one: &Self| one.email.as_deref().map(fold);
        (self.email.is_some() && email(self) == email(other))
            || fold(&self.name) == fold(&other.name)
    }
}

/// Reads an employee; what cannot be read of `own_row` counts as not set.
pub(super) fn put_together(
    crm: &CrmName,
    employee: &Employee,
    crm_rules: &CrmRules,
    own_row: Option<&OwnRow>,
    rules: &RosterRules,
) -> Colleague {
    let named = |key: &str| crm_rules.overrides.get(&fold(key));
    let config = named(employee.id.as_str())
        .or_else(|| employee.email.as_deref().and_then(named))
        .or_else(|| named(&employee.name))
        .cloned()
        .unwrap_or_default();
    let page = own_row.map(|row| row.read_rest(&rules.office));
    let page = page.unwrap_or_default();

    let in_crm = employee.extension.clone();
    let in_crm = in_crm.filter(|written| !written.trim().is_empty());
    let (extension, extension_from) = first(config.extension, page.extension, in_crm);
    let mobiles_in_crm = (!employee.mobiles.is_empty()).then(|| employee.mobiles.clone());
    let (mobiles, mobile_from) = first(
        config.mobile.map(|mobile| vec![mobile]),
        page.mobile.map(|mobile| vec![mobile]),
        mobiles_in_crm,
    );
    let (deputy, deputy_from) = first(config.deputy, page.deputy, None);
    let (hours, hours_from) = first(config.hours, page.hours, None);
    let some = |absences: Vec<Absence>| (!absences.is_empty()).then_some(absences);
    let (set, absences_from) = first(some(config.absences), some(page.absences), None);
    let mut absences = employee.absences.clone();
    let mut absence_origins = vec![Origin::Crm; absences.len()];
    if let (Some(set), Some(origin)) = (set, absences_from) {
        absence_origins.extend(set.iter().map(|_| origin));
        absences.extend(set);
    }

    let mobiles = read_all(&mobiles.unwrap_or_default(), crm_rules.region);
    let mut phones = read_all(&employee.phones, crm_rules.region);
    let others = mobiles.iter().filter(|mobile| !phones.contains(mobile));
    let others: Vec<E164> = others.copied().collect();
    phones.extend(others);
    Colleague {
        crm: crm.clone(),
        id: employee.id.clone(),
        name: employee.name.clone(),
        active: employee.active,
        email: employee.email.clone(),
        extension: Extension::read(&extension.unwrap_or_default(), &rules.pattern),
        phones,
        mobiles,
        departments: employee.departments.clone(),
        deputy,
        hours,
        absences,
        workday: employee.workday,
        origins: Origins {
            extension: extension_from,
            mobile: mobile_from,
            deputy: deputy_from,
            hours: hours_from,
            absences: absence_origins,
        },
        own_row: own_row.cloned(),
    }
}

/// The value that counts, and whose it is.
fn first<T>(config: Option<T>, page: Option<T>, crm: Option<T>) -> (Option<T>, Option<Origin>) {
    let given = [
        (config, Origin::Config),
        (page, Origin::Page),
        (crm, Origin::Crm),
    ];
    let counts = given
        .into_iter()
        .find_map(|(value, origin)| Some((value?, origin)));
    counts.unzip()
}

fn read_all(fields: &[String], region: Region) -> Vec<E164> {
    let mut phones = Vec::new();
    for field in fields {
        phones.extend(phone::read_field(field, region));
    }
    phones.dedup();
    phones
}
