//! What the PBX knows besides the question: how phones stand, and who spoke with whom.
//!
//! Types and one trait; who listens to the PBX implements it, rules only read it. Reading is a look
//! into memory.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::call::Extension;
use crate::phone::E164;

/// What is known while a call is decided.
pub trait Presence: Send + Sync {
    /// How the phone of this extension stands; [`PhoneState::Unknown`] where the PBX does not tell.
    fn phone(&self, extension: &Extension) -> PhoneState;

    /// The last conversation with this number, in either direction.
    fn last_talk(&self, caller: E164) -> Option<Talk>;
}

/// How a phone stands, as Asterisk's hints and device states tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PhoneState {
    /// Nobody told: no connection to the PBX, or no hint for this extension.
    Unknown,
    /// Registered, and nothing goes on.
    Free,
    /// It rings.
    Ringing,
    /// In a conversation; with call waiting it may still be rung.
    InUse,
    /// Takes no further call.
    Busy,
    /// The employee does not want to be disturbed.
    DoNotDisturb,
    /// Not registered, or switched off.
    Unavailable,
}

impl PhoneState {
    /// Every state, as `rules.phone_state.skip` names them.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Free,
        Self::Ringing,
        Self::InUse,
        Self::Busy,
        Self::DoNotDisturb,
        Self::Unavailable,
    ];

    /// The word used in configuration, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Free => "free",
            Self::Ringing => "ringing",
            Self::InUse => "in_use",
            Self::Busy => "busy",
            Self::DoNotDisturb => "do_not_disturb",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for PhoneState {
    /// As a sentence about the phone goes on.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unknown => "in a state that the PBX does not tell",
            Self::Free => "free",
            Self::Ringing => "ringing already",
            Self::InUse => "in a conversation",
            Self::Busy => "busy",
            Self::DoNotDisturb => "set to do not disturb",
            Self::Unavailable => "switched off or not registered",
        })
    }
}

/// A conversation that took place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Talk {
    /// Who spoke for us.
    pub extension: Extension,
    /// When it began.
    pub at: Timestamp,
    /// Who had called whom.
    pub direction: Direction,
}

/// Who had called whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The client had called.
    Incoming,
    /// The employee had called.
    Outgoing,
}

/// Where the PBX tells nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Presence for Nothing {
    fn phone(&self, _extension: &Extension) -> PhoneState {
        PhoneState::Unknown
    }

    fn last_talk(&self, _caller: E164) -> Option<Talk> {
        None
    }
}
