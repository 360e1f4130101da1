//! `[rules.phone_state]`: whose phone cannot take the call is not rung.
//!
//! In use is not busy: with call waiting the employee can still take a call, so it is left to the site.
//! A mobile phone has no state here, but whoever wants no disturbance is not rung on it either.

use serde::{Deserialize, Deserializer};

use super::{Facts, Kind, Opening, Rule, Verdict};
use crate::call::Target;
use crate::chain::Candidate;
use crate::decision::SkipReason;
use crate::presence::PhoneState;

/// The row of `rules::KINDS`.
pub(super) const KIND: Kind = Kind {
    name: "phone_state",
    example: "\
[rules.phone_state]            # needs [ami]; without it no phone's state is known, and all are rung
# in which states a phone is not rung; besides these there are \"ringing\", \"in_use\", \"unknown\", \"free\"
skip = [\"unavailable\", \"busy\", \"do_not_disturb\"]
",
    open,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    #[serde(deserialize_with = "states")]
    skip: Vec<PhoneState>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            skip: vec![
                PhoneState::Unavailable,
                PhoneState::Busy,
                PhoneState::DoNotDisturb,
            ],
        }
    }
}

fn states<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PhoneState>, D::Error> {
    let read = |written: String| {
        let mut states = PhoneState::ALL.into_iter();
        states
            .find(|state| state.as_str() == written)
            .ok_or_else(|| {
                let known = PhoneState::ALL.map(PhoneState::as_str).join(", ");
                serde::de::Error::custom(format!("`skip` holds \"{written}\"; there is {known}"))
            })
    };
    let written = Vec::<String>::deserialize(deserializer)?;
    written.into_iter().map(read).collect()
}

struct PhoneStates {
    skip: Vec<PhoneState>,
}

fn open(table: Option<toml::Value>, _opening: &Opening) -> Result<Option<Box<dyn Rule>>, String> {
    let Settings { skip } = super::settings(table)?;
    Ok((!skip.is_empty()).then(|| Box::new(PhoneStates { skip }) as Box<dyn Rule>))
}

impl Rule for PhoneStates {
    fn judge(&self, candidate: &Candidate, facts: &Facts<'_>) -> Verdict {
        let own = || candidate.employee.as_ref()?.extension.as_ref().ok();
        let (state, skips) = match &candidate.target {
            Target::Extension(extension) => {
                let state = facts.presence.phone(extension);
                (state, self.skip.contains(&state))
            }
            Target::Outside(_) => {
                let state = own().map_or(PhoneState::Unknown, |own| facts.presence.phone(own));
                let is_private = state == PhoneState::DoNotDisturb;
                (state, is_private && self.skip.contains(&state))
            }
        };
        if skips {
            Verdict::Skip(SkipReason::Phone(state))
        } else {
            Verdict::Ring
        }
    }
}
