//! Entries as CSV, for spreadsheets. None of its cells is ever run as a formula.

use std::io;
use std::path::Path;

use jiff::tz::TimeZone;

use super::Query;
use super::file::JournalError;
use super::search;
use super::shown::{Answered, KnownOutcome, Shown};

const COLUMNS: [&str; 14] = [
    "time",
    "caller",
    "did",
    "crm",
    "card_kind",
    "card_id",
    "responsible",
    "rung",
    "answered_by",
    "answered_after_seconds",
    "end",
    "outcome",
    "reason",
    "call_id",
];

/// Each step is a read of its own, so that a slow taker never holds the file's log.
pub(super) fn export(
    path: &Path,
    query: &Query,
    zone: &TimeZone,
    out: &mut dyn io::Write,
) -> Result<u64, JournalError> {
    let failed = |error: csv::Error| JournalError::Export(error.into());
    let mut table = csv::Writer::from_writer(out);
    table.write_record(COLUMNS).map_err(failed)?;
    let mut written = 0;
    let mut step = Query {
        limit: Query::MOST,
        after: None,
        ..query.clone()
    };
    if let Some(connection) = search::open(path)? {
        loop {
            let page = search::page(&connection, &step)?;
            for entry in &page.entries {
                table.write_record(cells(entry, zone)).map_err(failed)?;
                written += 1;
            }
            if page.last.is_none() {
                break;
            }
            step.before = page.last;
        }
    }
    table.flush().map_err(JournalError::Export)?;
    Ok(written)
}

fn cells(entry: &Shown, zone: &TimeZone) -> [String; 14] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let card = entry.entity.as_ref();
    let rung = entry.tries.iter().map(|one| {
        let status = one.status.map_or("-", crate::call::DialStatus::as_str);
        format!("{}:{status}", one.number)
    });
    let rung: Vec<String> = rung.collect();
    let answered = entry.answered.as_ref();
    let after = answered.and_then(|who| who.after_seconds);
    let at = entry.at.to_zoned(zone.clone());
    [
        at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        text(&entry.caller),
        text(&entry.did),
        card.map_or_else(String::new, |card| card.crm.as_str().to_owned()),
        card.map_or_else(String::new, |card| card.kind.clone()),
        card.map_or_else(String::new, |card| card.id.as_str().to_owned()),
        entry
            .responsible
            .as_ref()
            .map_or_else(String::new, |who| who.name.clone()),
        rung.join(" > "),
        answered.map_or_else(String::new, by),
        after.map_or_else(String::new, |seconds| seconds.to_string()),
        entry.end.as_str().to_owned(),
        entry.outcome.map_or("", KnownOutcome::as_str).to_owned(),
        entry.reason.clone(),
        text(&entry.call_id),
    ]
    .map(harmless)
}

fn by(who: &Answered) -> String {
    match &who.employee {
        Some(person) => format!("{} {}", who.number, person.name),
        None => who.number.clone(),
    }
}

/// An apostrophe before what a spreadsheet would take for a formula.
/// Source: owasp.org, "CSV Injection".
fn harmless(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        return format!("'{cell}");
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_run_by_a_spreadsheet() {
        for (cell, expected) in [
            ("=1+1", "'=1+1"),
            ("+79161234501", "'+79161234501"),
            ("-1", "'-1"),
            ("@sum", "'@sum"),
            ("\tx", "'\tx"),
            ("\rx", "'\rx"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(harmless(cell.to_owned()), expected);
        }
    }
}
