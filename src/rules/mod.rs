//! Who may be rung now: rules speak about a call and about each of its candidates.
//!
//! Pure: facts come in, a verdict goes out; no clock, no I/O. A new rule is one file and one row in
//! [`KINDS`]; its options are the table `[rules.NAME]`, which it reads itself.

mod absence;
mod card;
mod hours;
mod last_talk;
mod lists;
mod phone_state;
mod script;
mod workday;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::call::{ExtensionPattern, IncomingCall};
use crate::chain::{Candidate, Chain};
use crate::decision::{Said, SkipReason, Step};
use crate::directory::Roster;
use crate::hours::Office;
use crate::phone::{E164, Region};
use crate::presence::Presence;
use crate::record::Entity;

/// Speaks about calls. Every method has a default: nothing to say.
pub trait Rule: Send + Sync {
    /// Looks at the caller's number before anybody is looked up: [`Before::StandardRoute`] ends it.
    fn before(&self, _caller: E164, _facts: &Facts<'_>) -> Before {
        Before::GoOn
    }

    /// May prefer, add, reorder or drop candidates. Rules speak in the order of [`KINDS`].
    fn arrange(&self, _arrangement: &mut Arrangement, _facts: &Facts<'_>) {}

    /// Says whether this candidate may be rung now. The first `Skip` of any rule decides.
    fn judge(&self, _candidate: &Candidate, _facts: &Facts<'_>) -> Verdict {
        Verdict::Ring
    }
}

/// What rules may look at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The call.
    pub call: &'a IncomingCall,
    /// The caller's number.
    pub caller: E164,
    /// When it came.
    pub now: Timestamp,
    /// The office's time zone.
    pub zone: &'a TimeZone,
    /// Everybody.
    pub roster: &'a Roster,
    /// The caller's entities, the best one first; empty before the lookup and for an unknown caller.
    pub entities: &'a [Entity],
    /// What the PBX knows.
    pub presence: &'a dyn Presence,
}

/// What a rule says of a caller's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    GoOn,
    /// Nobody is looked up; this is why.
    StandardRoute(Said),
}

/// The candidates while rules arrange them.
#[derive(Debug, Default)]
pub struct Arrangement {
    /// Who may be rung, and in which order.
    pub chain: Chain,
    /// The name to show in place of the entity's.
    pub name: Option<String>,
    /// True once a rule wants the standard route; nobody is rung.
    pub standard_route: bool,
    /// What the rules did, for whoever asks.
    pub steps: Vec<Step>,
}

/// What a rule says of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Ring,
    /// Not this one.
    Skip(SkipReason),
}

/// What every rule is given when it is made.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Which digits make an extension.
    pub pattern: ExtensionPattern,
    /// How numbers without a country code are read.
    pub region: Region,
    /// Whose clock and holidays hold.
    pub office: Office,
    /// Where relative file names are looked for: the configuration's folder.
    pub config_dir: PathBuf,
    /// Reads a file that a rule names; the error says why not.
    pub read_file: fn(&Path) -> Result<String, String>,
}

/// Why a rule cannot be made; the text names the key and says how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("[rules.{rule}]: {text}")]
pub struct RuleError {
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong.
    pub text: String,
}

/// A rule, nothing for one that is off, or what is wrong with its table.
pub type Opened = Result<Option<Box<dyn Rule>>, String>;

/// A kind of rule: a row of [`KINDS`].
pub struct Kind {
    /// Its table in the configuration, `[rules.NAME]`, and its name in messages.
    pub name: &'static str,
    /// A commented TOML example, every option with its default.
    pub example: &'static str,
    /// Makes the rule of its table; `None` if there is none. Gives nothing for a rule that is off.
    pub open: fn(Option<toml::Value>, &Opening) -> Opened,
}

/// Every kind of rule, in the order in which they speak. A new one adds its row here and its `mod`
/// line above.
pub const KINDS: &[Kind] = &[
    hours::KIND,
    absence::KIND,
    workday::KIND,
    phone_state::KIND,
    last_talk::KIND,
    card::KIND,
    lists::KIND,
    script::KIND,
];

/// Makes all rules of `[rules]`.
pub fn open(mut tables: toml::Table, opening: &Opening) -> Result<Vec<Box<dyn Rule>>, RuleError> {
    let mut rules = Vec::new();
    for kind in KINDS {
        let rule = (kind.open)(tables.remove(kind.name), opening);
        let fault = |text| RuleError {
            rule: kind.name,
            text,
        };
        rules.extend(rule.map_err(fault)?);
    }
    Ok(rules)
}

/// Reads a rule's table into its settings.
fn settings<T: serde::de::DeserializeOwned + Default>(
    table: Option<toml::Value>,
) -> Result<T, String> {
    match table {
        None => Ok(T::default()),
        Some(table) => table
            .try_into()
            .map_err(|error: toml::de::Error| error.message().to_owned()),
    }
}
