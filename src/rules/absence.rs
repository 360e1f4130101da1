//! `[rules.absence]`: who is away, by the CRM's calendar or the configuration, is not rung; neither on
//! the extension nor on the mobile phone.

use serde::Deserialize;

use super::{Facts, Kind, Opening, Rule, Verdict};
use crate::chain::Candidate;
use crate::decision::SkipReason;

/// The row of `rules::KINDS`.
pub(super) const KIND: Kind = Kind {
    name: "absence",
    example: "\
[rules.absence]
enabled = true                 # who is away by the CRM's calendar or `absent` is not rung
",
    open,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

struct Absent;

fn open(table: Option<toml::Value>, _opening: &Opening) -> Result<Option<Box<dyn Rule>>, String> {
    let settings: Settings = super::settings(table)?;
    Ok(settings.enabled.then(|| Box::new(Absent) as Box<dyn Rule>))
}

impl Rule for Absent {
    fn judge(&self, candidate: &Candidate, facts: &Facts<'_>) -> Verdict {
        let absences = candidate
            .employee
            .iter()
            .flat_map(|employee| &employee.absences);
        let now = absences.filter(|absence| absence.covers(facts.now));
        // Of two that overlap, the one that lasts longer says when the employee is back.
        match now.max_by_key(|absence| absence.until) {
            None => Verdict::Ring,
            Some(absence) => {
                let until = facts.zone.to_datetime(absence.until);
                Verdict::Skip(SkipReason::Absent {
                    what: absence.what.clone(),
                    until: until.strftime("%d.%m.%Y %H:%M").to_string(),
                })
            }
        }
    }
}
