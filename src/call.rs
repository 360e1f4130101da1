//! An incoming call as the PBX tells it, and what may be rung for it.
//!
//! Knows nothing of CRMs. Facts: the vendor's page on automatic distribution, Asterisk's
//! `func_curl.c`, FreePBX's inbound routes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// A call that asks where to go, exactly as the PBX wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncomingCall {
    /// The caller's number as in `CALLERID(num)`, unread; may be empty or `anonymous`.
    pub phone: String,
    /// The number that was dialled. `None` where the PBX gives none.
    pub did: Option<Did>,
    /// Asterisk's linkedid, one for all questions about one call.
    pub call_id: Option<String>,
    /// The numbers that were rung for this call already, in their order; at most [`MOST_TRIED`].
    pub tried: Vec<String>,
    /// What became of the last of them, `DIALSTATUS`.
    pub status: Option<DialStatus>,
    /// How long the call has been asked about already: zero with its first question.
    pub waited: Duration,
}

/// More tries than any chain has: what a question names beyond them is not read.
pub const MOST_TRIED: usize = 32;

/// What became of ringing somebody, Asterisk's `DIALSTATUS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DialStatus {
    /// They spoke.
    Answer,
    /// Busy, or declined.
    Busy,
    /// It rang in vain.
    NoAnswer,
    /// The caller hung up meanwhile.
    Cancel,
    /// The line could not be had.
    Congestion,
    /// Not registered, switched off, or unknown to the PBX.
    ChanUnavail,
    /// Anything else that a dialplan says.
    Other,
}

impl DialStatus {
    /// Reads the dialplan's word; `None` if it is empty.
    pub fn read(written: &str) -> Option<Self> {
        let word = written.trim().to_ascii_uppercase();
        (!word.is_empty()).then_some(match word.as_str() {
            "ANSWER" | "ANSWERED" => Self::Answer,
            "BUSY" => Self::Busy,
            "NOANSWER" => Self::NoAnswer,
            "CANCEL" => Self::Cancel,
            "CONGESTION" => Self::Congestion,
            "CHANUNAVAIL" => Self::ChanUnavail,
            _ => Self::Other,
        })
    }

    /// Asterisk's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "ANSWER",
            Self::Busy => "BUSY",
            Self::NoAnswer => "NOANSWER",
            Self::Cancel => "CANCEL",
            Self::Congestion => "CONGESTION",
            Self::ChanUnavail => "CHANUNAVAIL",
            Self::Other => "OTHER",
        }
    }
}

/// What became of a number that was rung for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Asterisk's linkedid.
    pub call_id: String,
    /// The number that was rung, an extension as a rule.
    pub number: String,
    /// How it ended.
    pub status: DialStatus,
    /// Seconds that it rang; `None` where nobody told.
    pub rang_seconds: Option<u64>,
    /// Seconds that they spoke; `None` while they still do, and where nobody told.
    pub talked_seconds: Option<u64>,
}

/// What a dialplan may ring: digits that are safe to hand to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Target {
    /// An extension of the PBX.
    Extension(Extension),
    /// A telephone outside, dialled at the company's cost because the configuration allows it.
    Outside(OutsideNumber),
}

impl Target {
    /// The digits.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Extension(extension) => extension.as_str(),
            Self::Outside(number) => &number.0,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl From<Extension> for Target {
    fn from(extension: Extension) -> Self {
        Self::Extension(extension)
    }
}

/// The digits by which a telephone outside is dialled; made by [`Outgoing::dial`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct OutsideNumber(Arc<str>);

/// Which telephones outside may be dialled, and how: `[route.outgoing]`. Empty means none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outgoing {
    /// Numbers that may be dialled: `["79*"]`. Default: none.
    pub numbers: Vec<DidPattern>,
    /// What is taken off the front of the international number. Default: nothing.
    pub strip: String,
    /// What is put there, digits only: a line's prefix, `8`. Default: nothing.
    pub prefix: String,
}

impl Outgoing {
    /// The digits by which this number (international, digits only) is dialled; `None` if it may not
    /// be.
    pub fn dial(&self, international: &str) -> Option<OutsideNumber> {
        let is_allowed = self
            .numbers
            .iter()
            .any(|pattern| pattern.fits(international));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_allowed || !is_number(international) || !is_number(&self.prefix) {
            return None;
        }
        let rest = international
            .strip_prefix(&self.strip)
            .unwrap_or(international);
        Some(OutsideNumber(format!("{}{rest}", self.prefix).into()))
    }
}

/// The number that the caller dialled, or what the dialplan has in its place (`s`, `dest-3`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Did(String);

impl Did {
    /// Takes what the dialplan sent; `None` if that is nothing but blanks.
    pub fn new(written: &str) -> Option<Self> {
        let trimmed = written.trim();
        (!trimmed.is_empty()).then(|| Self(trimmed.to_owned()))
    }

    /// As the dialplan wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether this is one of the extensions that a dialplan runs after the caller hung up or
    /// went astray (`h`, `i`, `t`): a question from there is no call.
    pub fn is_after_the_call(&self) -> bool {
        matches!(self.0.as_str(), "h" | "i" | "t")
    }

    /// The digits alone; `None` if there are none, as in `s`.
    fn digits(&self) -> Option<String> {
        let is_number = self
            .0
            .chars()
            .all(|c| c.is_ascii_digit() || "+-() ".contains(c));
        let digits: String = self.0.chars().filter(char::is_ascii_digit).collect();
        (is_number && !digits.is_empty()).then_some(digits)
    }
}

impl fmt::Display for Did {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A dialled number or the beginning of one with a star behind it: `74951234567`, `7495*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct DidPattern {
    start: String,
    open: bool,
}

impl DidPattern {
    /// Says whether `did` is one of these numbers, however its country is written.
    ///
    /// `+7495...`, `7495...` and, for a pattern that begins with 7, `8495...` are one number. What
    /// holds no number (`s`, `dest-3`) matches only the pattern `*` and its own exact text.
    pub fn matches(&self, did: &Did) -> bool {
        if self.fits(did.as_str()) {
            return true;
        }
        let Some(digits) = did.digits() else {
            return false;
        };
        let russian = (digits.len() == 11)
            .then(|| digits.strip_prefix('8'))
            .flatten();
        self.fits(&digits) || russian.is_some_and(|rest| self.fits(&format!("7{rest}")))
    }

    /// How many characters are fixed: the longest matching pattern is the most exact one.
    pub fn exactness(&self) -> usize {
        self.start.len() * 2 + usize::from(!self.open)
    }

    fn fits(&self, text: &str) -> bool {
        if self.open {
            text.starts_with(&self.start)
        } else {
            text == self.start
        }
    }
}

impl TryFrom<String> for DidPattern {
    type Error = String;

    fn try_from(written: String) -> Result<Self, String> {
        let trimmed = written.trim().trim_start_matches('+');
        let (start, open) = match trimmed.strip_suffix('*') {
            Some(start) => (start, true),
            None => (trimmed, false),
        };
        if start.contains('*') || (start.is_empty() && !open) {
            return Err(format!(
                "`{written}` is no number pattern; write \"74951234567\" or \"7495*\""
            ));
        }
        Ok(Self {
            start: start.to_owned(),
            open,
        })
    }
}

impl From<DidPattern> for String {
    fn from(pattern: DidPattern) -> Self {
        format!("{}{}", pattern.start, if pattern.open { "*" } else { "" })
    }
}

impl fmt::Display for DidPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}{}",
            self.start,
            if self.open { "*" } else { "" }
        )
    }
}

/// An employee's internal number, safe to hand to the dialplan: digits only, as the pattern allows.
///
/// The page's dialplan rings it in `from-internal`, which also knows outbound routes and feature
/// codes: whatever is not plainly an extension must never become one of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Extension(Arc<str>);

impl Extension {
    /// Reads what somebody typed into a profile field: ` 101 `, `доб. 101`.
    pub fn read(written: &str, pattern: &ExtensionPattern) -> Result<Self, ExtensionError> {
        let trimmed =
            written.trim_matches(|c: char| c.is_whitespace() || c == '\u{200b}' || c == '\u{feff}');
        let bare = strip_label(trimmed);
        if bare.is_empty() {
            return Err(ExtensionError::Empty);
        }
        let is_number = bare.bytes().all(|byte| byte.is_ascii_digit());
        // Asterisk's `$[0]` is false: an all-zero number would lose the call in the page's dialplan.
        let is_zero = bare.bytes().all(|byte| byte == b'0');
        if !is_number || is_zero || !pattern.allows(bare) {
            return Err(ExtensionError::NotAllowed(
                written.to_owned(),
                pattern.to_string(),
            ));
        }
        Ok(Self(bare.into()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn strip_label(text: &str) -> &str {
    for label in ["доб.", "доб", "вн.", "вн", "ext.", "ext", "#"] {
        let is_label = text
            .get(..label.len())
            .is_some_and(|head| head.to_lowercase() == label);
        if is_label {
            return text.get(label.len()..).unwrap_or_default().trim_start();
        }
    }
    text
}

/// Why a text is no extension.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// The field holds nothing. The employee is passed over.
    #[error("no extension")]
    Empty,
    /// The field holds something that may not be rung. The employee is passed over.
    #[error("`{0}` is no extension: `match.extension_pattern` allows {1}")]
    NotAllowed(String, String),
}

/// Which digits make an extension, a regular expression over the whole number.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct ExtensionPattern(Regex);

impl ExtensionPattern {
    /// Two to six digits.
    pub const DEFAULT: &'static str = "[0-9]{2,6}";

    /// Any digits: for what the administrator writes, who may name any number of their own PBX.
    pub fn any() -> Self {
        Self::try_from("[0-9]{1,20}".to_owned()).unwrap_or_default()
    }

    fn allows(&self, digits: &str) -> bool {
        self.0.is_match(digits)
    }
}

impl Default for ExtensionPattern {
    fn default() -> Self {
        // The pattern is a constant and compiles; were it broken, nothing would be an extension.
        Self::try_from(Self::DEFAULT.to_owned())
            .unwrap_or_else(|_| Self(Regex::new("$^").unwrap_or_else(|_| unreachable!())))
    }
}

impl TryFrom<String> for ExtensionPattern {
    type Error = String;

    fn try_from(written: String) -> Result<Self, String> {
        Regex::new(&format!("^(?:{written})$"))
            .map(Self)
            .map_err(|error| format!("`{written}` is no regular expression: {error}"))
    }
}

impl fmt::Display for ExtensionPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_str();
        formatter.write_str(
            whole
                .strip_prefix("^(?:")
                .and_then(|rest| rest.strip_suffix(")$"))
                .unwrap_or(whole),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_digits_within_the_pattern_and_nothing_else() {
        let pattern = ExtensionPattern::default();
        for (written, expected, why) in [
            ("101", Some("101"), "plain"),
            (" 101 ", Some("101"), "padded"),
            ("\u{a0}101", Some("101"), "padded by a no-break space"),
            ("доб. 101", Some("101"), "with its label"),
            ("Доб101", Some("101"), "with its label, close"),
            ("ext. 204", Some("204"), "English label"),
            ("0101", Some("0101"), "leading zero"),
            ("", None, "empty"),
            ("0", None, "one digit, and false in a dialplan"),
            ("000", None, "false in a dialplan"),
            ("*98", None, "a feature code"),
            ("+79161234567", None, "a mobile number would dial out"),
            ("89161234567", None, "a mobile number would dial out"),
            ("101,1", None, "a priority"),
            ("101 102", None, "two numbers"),
            ("12-34-56", None, "a city number"),
            ("１０１", None, "not ASCII digits"),
            ("101&name=x", None, "hostile"),
        ] {
            let read = Extension::read(written, &pattern).ok();
            assert_eq!(
                read.as_ref().map(Extension::as_str),
                expected,
                "{written:?}: {why}"
            );
        }
    }

    #[test]
    fn a_did_matches_however_its_country_is_written() {
        for (pattern, did, expected) in [
            ("7495*", "74951234567", true),
            ("7495*", "+74951234567", true),
            ("7495*", "84951234567", true),
            ("+7495*", "+7 (495) 123-45-67", true),
            ("7495*", "78121234567", false),
            ("7495*", "s", false),
            ("*", "s", true),
            ("74951234567", "74951234567", true),
            ("74951234567", "749512345678", false),
            ("dest-3", "dest-3", true),
        ] {
            let parsed = DidPattern::try_from(pattern.to_owned()).unwrap();
            assert_eq!(
                parsed.matches(&Did::new(did).unwrap()),
                expected,
                "{pattern} {did}"
            );
        }
    }

    #[test]
    fn what_runs_after_the_call_is_no_call() {
        for did in ["h", "i", "t"] {
            assert!(Did::new(did).unwrap().is_after_the_call());
        }
        assert!(!Did::new("s").unwrap().is_after_the_call());
    }
}
