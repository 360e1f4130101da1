//! `pryamo journal`: a line for each call, and with `--follow` as calls come.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use jiff::tz::TimeZone;

use super::{DONE, JournalArguments, ask, plain};
use crate::call::DialStatus;
use crate::config::Config;
use crate::journal::{End, Query, Shown, ShownTry};

/// How often `--follow` looks for calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Lines that are remembered, so that a call is not told twice in the same words.
const MOST_REMEMBERED: usize = 1000;

/// Prints what was decided, the oldest call first.
pub(super) async fn run(config: &Config, arguments: &JournalArguments) -> Result<u8> {
    let daemon = ask::Daemon::of(config).owner()?;
    let phone = arguments.phone.as_deref().map(ask::encode);
    let phone = phone.map_or_else(String::new, |phone| format!("&phone={phone}"));
    let path = |how: &str| format!("/api/v1/journal?{how}{phone}");
    let printer = Printer {
        zone: config.office.zone(),
        json: arguments.output.json,
    };
    let limit = arguments.limit.clamp(1, Query::MOST);
    let mut told: BTreeMap<i64, String> = BTreeMap::new();
    let mut entries: Vec<Shown> = daemon.get(&path(&format!("limit={limit}"))).await?;
    entries.reverse();
    // What changed while we asked is told again rather than not at all.
    let mut seen = entries.iter().map(|entry| entry.change).max();
    if !arguments.follow && arguments.output.json {
        println!("{}", serde_json::to_string_pretty(&entries)?);
        return Ok(DONE);
    }
    if entries.is_empty() && !arguments.follow {
        println!("no calls yet");
    }
    loop {
        for entry in &entries {
            seen = seen.max(Some(entry.change));
            printer.print(entry, &mut told)?;
        }
        if !arguments.follow {
            return Ok(DONE);
        }
        std::io::stdout().flush()?;
        if entries.len() < Query::MOST {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let after = seen.unwrap_or(0);
        let how = format!("limit={}&after={after}", Query::MOST);
        entries = daemon.get(&path(&how)).await?;
    }
}

struct Printer {
    zone: TimeZone,
    json: bool,
}

impl Printer {
    /// Prints a call unless it was told in the same words already.
    fn print(&self, entry: &Shown, told: &mut BTreeMap<i64, String>) -> Result<()> {
        let line = if self.json {
            serde_json::to_string(entry)?
        } else {
            line(entry, &self.zone)
        };
        if told.get(&entry.id) == Some(&line) {
            return Ok(());
        }
        writeln!(std::io::stdout(), "{line}")?;
        told.insert(entry.id, line);
        while told.len() > MOST_REMEMBERED {
            told.pop_first();
        }
        Ok(())
    }
}

/// A call in one line: time, caller, DID, who rang and what came of it, reason.
fn line(entry: &Shown, zone: &TimeZone) -> String {
    let at = entry.at.to_zoned(zone.clone());
    let rang: Vec<String> = entry.tries.iter().map(one_try).collect();
    let mut what = rang.join(", then ");
    let end = match entry.end {
        End::StandardRoute => Some("standard route"),
        End::HungUp => Some("the caller hung up"),
        End::Answered | End::NotTold => None,
    };
    if let Some(end) = end {
        let joint = if what.is_empty() { "" } else { ", then " };
        what = format!("{what}{joint}{end}");
    }
    let line = format!(
        "{}  {:<13} {:<12}  {what}  [{}]",
        at.strftime("%d.%m %H:%M:%S"),
        entry.caller.as_deref().unwrap_or("hidden"),
        entry.did.as_deref().unwrap_or("-"),
        entry.reason
    );
    plain(&line)
}

fn one_try(one: &ShownTry) -> String {
    let name = one.employee.as_ref().map(|employee| employee.name.as_str());
    let name = name.map_or_else(String::new, |name| format!(" {name}"));
    let after = one
        .after_seconds
        .map_or_else(String::new, |seconds| format!(" after {seconds} s"));
    let (came, after) = match one.status {
        None => ("was rung", String::new()),
        Some(DialStatus::Answer) => ("answered", after),
        Some(DialStatus::Busy) => ("was busy", after),
        Some(DialStatus::NoAnswer) => ("did not answer", after),
        Some(DialStatus::Cancel) => ("rang in vain", after),
        Some(DialStatus::ChanUnavail | DialStatus::Congestion) => {
            ("could not be reached", String::new())
        }
        Some(DialStatus::Other) => ("did not take it", after),
    };
    format!("{}{name} {came}{after}", one.number)
}
