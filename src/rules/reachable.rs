//! Always on: only a working employee with a permitted extension may be rung.
//!
//! So nobody is hidden behind a dead card: the next entity's responsible gets the call.

use super::{Candidate, Facts, Kind, Rule, Verdict};
use crate::decision::SkipReason;

/// The row of `rules::KINDS`.
pub(super) const KIND: Kind = Kind {
    name: "reachable",
    example: "",
    open: || Box::new(Reachable),
};

struct Reachable;

impl Rule for Reachable {
    fn judge(&self, candidate: &Candidate<'_>, _facts: &Facts<'_>) -> Verdict {
        let Some(responsible) = &candidate.entity.responsible else {
            return Verdict::Skip(SkipReason::NoResponsible);
        };
        let Some(employee) = candidate.employee else {
            return Verdict::Skip(SkipReason::UnknownEmployee(responsible.clone()));
        };
        if !employee.active {
            return Verdict::Skip(SkipReason::Dismissed(employee.name.clone()));
        }
        match &employee.extension {
            Ok(_) => Verdict::Ring,
            Err(error) => Verdict::Skip(SkipReason::NoExtension {
                employee: employee.name.clone(),
                why: error.to_string(),
            }),
        }
    }
}
