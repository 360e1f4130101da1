//! Calls and verdicts -> figures.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::Verdict;
use super::legs::{Call, Origin};

/// DIDs and employees that are counted each; what comes beyond is counted together.
const MOST_LINES: usize = 2000;
/// Damaged lines that are named.
const MOST_DAMAGED: usize = 20;

/// What a replay brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When the first call from outside began.
    pub from: Option<Timestamp>,
    /// When the last one began.
    pub until: Option<Timestamp>,
    /// Lines of the file.
    pub lines: u64,
    /// Lines that could not be read.
    pub damaged: u64,
    /// The numbers of the first of them.
    pub damaged_lines: Vec<u64>,
    /// Calls that an extension made to a telephone outside; left out.
    pub outgoing: u64,
    /// Calls between extensions; left out.
    pub internal: u64,
    /// Calls from outside whose number is hidden or unreadable; not among `calls`.
    pub without_number: u64,
    /// Calls from outside.
    pub calls: u64,
    /// Those of known callers.
    pub known: u64,
    /// Calls of known callers that somebody took then.
    pub answered: u64,
    /// Calls of known callers that their own person took then.
    pub own_then: u64,
    /// Calls of known callers for which their own person would be rung first now.
    pub own_now: u64,
    /// Calls by the reason of today's decision.
    pub reasons: BTreeMap<String, u64>,
    /// By the number dialled, the most called first.
    pub by_did: Vec<Line>,
    /// By the hour of the day, 0 to 23, by the office's clock.
    pub by_hour: Vec<Line>,
    /// By the callers' own person, the most called first.
    pub by_employee: Vec<Line>,
}

/// A line of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// A DID, an hour or an employee; empty where the file names none.
    pub name: String,
    /// Calls from outside.
    pub calls: u64,
    /// Those of known callers.
    pub known: u64,
    /// Of these, taken by their own person then.
    pub own_then: u64,
    /// Of these, for whom their own person would be rung first now.
    pub own_now: u64,
}

impl Line {
    fn add(&mut self, told: Told) {
        self.calls += 1;
        self.known += u64::from(told.known);
        self.own_then += u64::from(told.own_then);
        self.own_now += u64::from(told.own_now);
    }
}

/// What is counted of a call.
#[derive(Clone, Copy)]
struct Told {
    known: bool,
    own_then: bool,
    own_now: bool,
}

/// Counts calls.
pub struct Counter {
    zone: TimeZone,
    report: Report,
    dids: HashMap<String, Line>,
    employees: HashMap<(String, String), Line>,
    hours: Vec<Line>,
}

impl Counter {
    /// Counts hours by the clock of `zone`.
    pub fn new(zone: TimeZone) -> Self {
        let hour = |hour: u32| Line {
            name: hour.to_string(),
            ..Line::default()
        };
        Self {
            zone,
            report: Report::default(),
            dids: HashMap::new(),
            employees: HashMap::new(),
            hours: (0..24).map(hour).collect(),
        }
    }

    /// Counts a line that could not be read.
    pub fn damaged(&mut self, line: u64) {
        self.report.damaged += 1;
        if self.report.damaged_lines.len() < MOST_DAMAGED {
            self.report.damaged_lines.push(line);
        }
    }

    /// Counts a call that takes no part; false for one that is to be judged.
    pub fn left_out(&mut self, call: &Call) -> bool {
        let count = match call.origin {
            Origin::Outside => return false,
            Origin::WithoutNumber => &mut self.report.without_number,
            Origin::Outgoing => &mut self.report.outgoing,
            Origin::Internal => &mut self.report.internal,
        };
        *count += 1;
        true
    }

    /// Counts a call from outside.
    pub fn add(&mut self, call: &Call, verdict: &Verdict) {
        let own_extension = verdict.own.as_ref().and_then(|own| own.extension.as_ref());
        let told = Told {
            known: verdict.known,
            own_then: verdict.known
                && own_extension.is_some()
                && own_extension == call.answered_by.as_ref(),
            own_now: verdict.known && verdict.rings_own,
        };
        let report = &mut self.report;
        report.calls += 1;
        report.known += u64::from(told.known);
        report.answered += u64::from(told.known && call.answered_by.is_some());
        report.own_then += u64::from(told.own_then);
        report.own_now += u64::from(told.own_now);
        *report.reasons.entry(verdict.reason.clone()).or_default() += 1;
        let earliest = report.from.map_or(call.start, |from| from.min(call.start));
        let latest = report
            .until
            .map_or(call.start, |until| until.max(call.start));
        (report.from, report.until) = (Some(earliest), Some(latest));
        let did = call.did.clone().unwrap_or_default();
        line_of(&mut self.dids, did.clone(), &did).add(told);
        let hour = call.start.to_zoned(self.zone.clone()).hour();
        if let Some(line) = usize::try_from(hour)
            .ok()
            .and_then(|hour| self.hours.get_mut(hour))
        {
            line.add(told);
        }
        if let Some(own) = &verdict.own {
            let key = (own.crm.to_string(), own.id.to_string());
            line_of(&mut self.employees, key, &own.name).add(told);
        }
    }

    /// The figures of a file of so many lines.
    pub fn report(self, lines: u64) -> Report {
        Report {
            lines,
            by_did: sorted(self.dids),
            by_hour: self.hours,
            by_employee: sorted(self.employees),
            ..self.report
        }
    }
}

/// The line of a key, or the one that takes all others.
fn line_of<'a, K: std::hash::Hash + Eq + Default>(
    lines: &'a mut HashMap<K, Line>,
    key: K,
    name: &str,
) -> &'a mut Line {
    let is_room = lines.len() < MOST_LINES || lines.contains_key(&key);
    let (key, name) = if is_room {
        (key, name)
    } else {
        (K::default(), "")
    };
    let line = lines.entry(key).or_default();
    if line.name.is_empty() {
        name.clone_into(&mut line.name);
    }
    line
}

fn sorted<K>(lines: HashMap<K, Line>) -> Vec<Line> {
    let mut lines: Vec<Line> = lines.into_values().collect();
    lines.sort_by(|one, other| other.calls.cmp(&one.calls).then(one.name.cmp(&other.name)));
    lines
}
