//! `[rules.hours]`: nobody is rung outside their working hours, nor on a holiday of the office.
//!
//! An employee's own hours (`[crm.employees]`) stand above those of the department, these above those
//! of the DID, these above the office's. A group or queue follows the hours given for its extension,
//! else those of the DID or the office.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::{Facts, Kind, Opening, Rule, Verdict};
use crate::call::{Did, DidPattern};
use crate::chain::Candidate;
use crate::decision::{HoursOf, SkipReason};
use crate::directory::Colleague;
use crate::hours::{Hours, Office};

/// The row of `rules::KINDS`.
pub(super) const KIND: Kind = Kind {
    name: "hours",
    example: "\
[rules.hours]                  # who is not rung outside working hours; everybody is always rung when left out
# PH: the holidays of office.holidays. Moved days, and what that table lacks, stand behind it.
office = \"Mon-Fri 09:00-18:00; PH off; Jan 08 off; 2026 Dec 31 off\"
[rules.hours.did.\"7812*\"]      # other hours, and another clock, for calls to some numbers
hours = \"Mon-Sun 10:00-20:00\"  # as the office when left out
time_zone = \"Asia/Yekaterinburg\"
[rules.hours.department.\"Duty\"] # or for the employees of a department
hours = \"24/7\"
[rules.hours.extension.\"600\"]  # or for an extension that is nobody's: a group, a queue
hours = \"24/7\"
",
    open,
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// When the office works. Default: always.
    office: Option<String>,
    /// Other hours for calls to single DIDs.
    did: BTreeMap<DidPattern, Written>,
    /// Other hours for the employees of a department, by name or identifier.
    department: BTreeMap<String, Written>,
    /// Hours of single extensions.
    extension: BTreeMap<String, Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// As the office when left out.
    hours: Option<String>,
    time_zone: Option<String>,
}

/// Hours by a clock; the office's where none is named.
struct Plan {
    hours: Hours,
    zone: Option<TimeZone>,
}

struct WorkingHours {
    office: Option<Plan>,
    dids: Vec<(DidPattern, Plan)>,
    departments: Vec<(String, Plan)>,
    extensions: BTreeMap<String, Plan>,
}

fn open(table: Option<toml::Value>, opening: &Opening) -> Result<Option<Box<dyn Rule>>, String> {
    let settings: Settings = super::settings(table)?;
    let usual = settings.office.clone();
    let plan = |written: Written| read(&written, usual.as_deref(), &opening.office);
    let office = settings.office.map(|hours| {
        plan(Written {
            hours: Some(hours),
            time_zone: None,
        })
    });
    let mut rule = WorkingHours {
        office: office.transpose()?,
        dids: Vec::new(),
        departments: Vec::new(),
        extensions: BTreeMap::new(),
    };
    for (did, written) in settings.did {
        rule.dids.push((did, plan(written)?));
    }
    // The most exact pattern speaks.
    rule.dids
        .sort_by_key(|(did, _)| std::cmp::Reverse(did.exactness()));
    for (name, written) in settings.department {
        rule.departments.push((name, plan(written)?));
    }
    for (extension, written) in settings.extension {
        rule.extensions.insert(extension, plan(written)?);
    }
    Ok(Some(Box::new(rule)))
}

fn read(written: &Written, usual: Option<&str>, office: &Office) -> Result<Plan, String> {
    let hours = written.hours.as_deref().or(usual).unwrap_or("24/7");
    let zone = written.time_zone.as_deref().map(|name| {
        TimeZone::get(name).map_err(|_| {
            format!("`time_zone` is \"{name}\", which is no time zone; write \"Europe/Moscow\"")
        })
    });
    Ok(Plan {
        hours: office.hours(hours)?,
        zone: zone.transpose()?,
    })
}

impl WorkingHours {
    /// The hours of a department that this employee belongs to.
    fn of_department(&self, employee: &Colleague, facts: &Facts<'_>) -> Option<&Plan> {
        let mut departments = self.departments.iter();
        let own = departments.find(|(name, _)| facts.roster.belongs_to(employee, name));
        own.map(|(_, plan)| plan)
    }

    fn of_did(&self, did: Option<&Did>) -> Option<&Plan> {
        let did = did?;
        let own = self.dids.iter().find(|(pattern, _)| pattern.matches(did));
        own.map(|(_, plan)| plan)
    }
}

impl Rule for WorkingHours {
    fn judge(&self, candidate: &Candidate, facts: &Facts<'_>) -> Verdict {
        let employee = candidate.employee.as_deref();
        if let Some(hours) = employee.and_then(|employee| employee.hours.as_ref()) {
            return judge(hours, facts.zone, facts.now, HoursOf::Employee);
        }
        let of_extension = self.extensions.get(candidate.target.as_str());
        let of_department = employee.and_then(|employee| self.of_department(employee, facts));
        let own = of_extension.map(|plan| (plan, HoursOf::Extension));
        let own = own.or(of_department.map(|plan| (plan, HoursOf::Department)));
        let of_did = || self.of_did(facts.call.did.as_ref());
        let own = own.or_else(|| of_did().map(|plan| (plan, HoursOf::Did)));
        let own = own.or(self.office.as_ref().map(|plan| (plan, HoursOf::Office)));
        match own {
            Some((plan, whose)) => {
                let zone = plan.zone.as_ref().unwrap_or(facts.zone);
                judge(&plan.hours, zone, facts.now, whose)
            }
            None => Verdict::Ring,
        }
    }
}

fn judge(hours: &Hours, zone: &TimeZone, now: Timestamp, whose: HoursOf) -> Verdict {
    let local = zone.to_datetime(now);
    if hours.holds(local) {
        return Verdict::Ring;
    }
    Verdict::Skip(SkipReason::OutsideHours {
        whose,
        hours: hours.to_string(),
        next: hours.next_begin(local),
    })
}
