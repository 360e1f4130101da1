//! `[rules.last_talk]`: who spoke with the caller last is rung first, so that a client who calls back
//! reaches the one who called.

use jiff::SignedDuration;
use serde::Deserialize;

use super::{Arrangement, Facts, Kind, Opening, Rule};
use crate::chain::Candidate;
use crate::decision::{Role, Said, Step};
use crate::presence::Talk;

/// The row of `rules::KINDS`.
pub(super) const KIND: Kind = Kind {
    name: "last_talk",
    example: "\
[rules.last_talk]              # needs [ami], or a CDR file
prefer = \"nobody\"              # whose last partner is rung first: \"unknown_callers\" (whom no CRM knows) or
                               # \"everybody\"
hours = 168                    # how long a talk counts
",
    open,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    prefer: Prefer,
    hours: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefer: Prefer::Nobody,
            hours: 168,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Prefer {
    Nobody,
    UnknownCallers,
    Everybody,
}

struct LastTalk {
    prefer: Prefer,
    counts: SignedDuration,
}

fn open(table: Option<toml::Value>, _opening: &Opening) -> Result<Option<Box<dyn Rule>>, String> {
    let Settings { prefer, hours } = super::settings(table)?;
    if !(1..=8760).contains(&hours) {
        return Err("`hours` must be 1 to 8760".to_owned());
    }
    let counts = SignedDuration::from_hours(hours.into());
    let rule = LastTalk { prefer, counts };
    Ok((prefer != Prefer::Nobody).then(|| Box::new(rule) as Box<dyn Rule>))
}

impl LastTalk {
    /// The talk that counts for this call.
    fn talk(&self, facts: &Facts<'_>) -> Option<Talk> {
        if self.prefer == Prefer::UnknownCallers && !facts.entities.is_empty() {
            return None;
        }
        let talk = facts.presence.last_talk(facts.caller)?;
        let ago = facts.now.duration_since(talk.at);
        (ago <= self.counts).then_some(talk)
    }
}

impl Rule for LastTalk {
    fn arrange(&self, arrangement: &mut Arrangement, facts: &Facts<'_>) {
        let Some(talk) = self.talk(facts) else {
            return;
        };
        // An extension that nobody has any more is nobody's call.
        let candidate = Candidate::named(&talk.extension, Role::LastTalk, facts.roster);
        let Some(employee) = &candidate.employee else {
            return;
        };
        let said = Said::Talked {
            employee: employee.name.clone(),
            direction: talk.direction,
            at: facts.zone.to_datetime(talk.at),
            hours_ago: facts.now.duration_since(talk.at).as_hours(),
        };
        arrangement.steps.push(Step::Told("last_talk", said));
        arrangement.chain.prefer(candidate);
    }
}
