//! `[rules.workday]`: who has not begun the working day in the CRM is not rung.
//!
//! Only where the CRM's table asks for the working day (`workday = true`): many companies do not use
//! the button, and everybody's day would look closed. Who has no such clock is rung.

use serde::Deserialize;

use super::{Facts, Kind, Opening, Rule, Verdict};
use crate::chain::Candidate;
use crate::decision::SkipReason;
use crate::record::Workday;

/// The row of `rules::KINDS`.
pub(super) const KIND: Kind = Kind {
    name: "workday",
    example: "\
[rules.workday]                # for a CRM with `workday = true`
ring_in_breaks = false         # true: a paused working day counts as open
",
    open,
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    ring_in_breaks: bool,
}

struct OpenDay {
    ring_in_breaks: bool,
}

fn open(table: Option<toml::Value>, _opening: &Opening) -> Result<Option<Box<dyn Rule>>, String> {
    let Settings { ring_in_breaks } = super::settings(table)?;
    Ok(Some(Box::new(OpenDay { ring_in_breaks })))
}

impl Rule for OpenDay {
    fn judge(&self, candidate: &Candidate, _facts: &Facts<'_>) -> Verdict {
        let workday = candidate
            .employee
            .as_ref()
            .and_then(|employee| employee.workday);
        let is_open = match workday {
            None | Some(Workday::Open) => true,
            Some(Workday::Paused) => self.ring_in_breaks,
            Some(Workday::Closed) => false,
        };
        if is_open {
            Verdict::Ring
        } else {
            Verdict::Skip(SkipReason::DayNotOpen)
        }
    }
}
