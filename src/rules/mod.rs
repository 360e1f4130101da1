//! Who may be rung: each rule judges one candidate for one call.
//!
//! Pure: facts come in, a verdict goes out; no clock, no I/O. A new rule is one file and one row in
//! [`KINDS`].

mod reachable;

use std::sync::Arc;

use jiff::Timestamp;

use crate::call::{Extension, IncomingCall};
use crate::decision::SkipReason;
use crate::directory::{Colleague, Roster};
use crate::record::Entity;

/// Judges whether a candidate may be rung.
pub trait Rule: Send + Sync {
    /// Says what this rule thinks of ringing the candidate. `Ring` lets the next rule speak; the
    /// first `Skip` or `Hand` decides.
    fn judge(&self, candidate: &Candidate<'_>, facts: &Facts<'_>) -> Verdict;
}

/// An entity and its responsible, as the roster knows them.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The entity that brought the candidate.
    pub entity: &'a Entity,
    /// Its responsible; `None` where there is none or the roster does not have the user.
    pub employee: Option<&'a Arc<Colleague>>,
}

/// What rules may look at besides the candidate.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The call.
    pub call: &'a IncomingCall,
    /// When it came.
    pub now: Timestamp,
    /// Everybody, for handing a call on.
    pub roster: &'a Roster,
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Ring,
    /// Not this one.
    Skip(SkipReason),
    /// Ring this extension in the candidate's place.
    Hand(Extension),
}

/// A kind of rule: a row of [`KINDS`].
pub struct Kind {
    /// The word by which configuration and messages name it.
    pub name: &'static str,
    /// A commented TOML example; empty for a rule that has no options and is always on.
    pub example: &'static str,
    /// Makes the rule.
    pub open: fn() -> Box<dyn Rule>,
}

/// Every kind of rule, in the order in which they speak. A new one adds its row here and its `mod`
/// line above.
pub const KINDS: &[Kind] = &[reachable::KIND];
