//! Which entries fit a question, and how many calls each hour had. Reads the journal's file by
//! connections of its own, which hold nobody up.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::file::{JournalError, read_entry, store};
use super::format::{FORMAT, foreign};
use super::shown::{KnownOutcome, Shown};
use super::{Query, Wanted};

/// How long a read waits for the writer.
const READ_PATIENCE: Duration = Duration::from_secs(1);
const HOUR_MS: i64 = 3_600_000;

/// How many calls of an hour ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourCount {
    /// When the hour begins; hours are those of UTC.
    pub hour: Timestamp,
    /// How they ended for known callers; `None` for unknown ones.
    pub outcome: Option<KnownOutcome>,
    /// So many.
    pub calls: u64,
}

/// Entries in the order of the question.
#[derive(Default)]
pub(super) struct Page {
    pub(super) entries: Vec<Shown>,
    /// The last row's id, even of one that cannot be read; `None` if there was no row.
    pub(super) last: Option<i64>,
}

/// Opens the file; `None` while there is none in the present format: the thread that writes is about
/// to make it or to take it over.
pub(super) fn open(path: &Path) -> Result<Option<Connection>, JournalError> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(store("opened"))?;
    let format = || -> rusqlite::Result<i64> {
        connection.busy_timeout(READ_PATIENCE)?;
        connection.pragma_query_value(None, "user_version", |row| row.get(0))
    };
    match format().map_err(store("read"))? {
        FORMAT => Ok(Some(connection)),
        older if older < FORMAT => Ok(None),
        later => Err(foreign(path, &format!("its format is {later}"))),
    }
}

pub(super) fn read(path: &Path, query: &Query) -> Result<Vec<Shown>, JournalError> {
    let Some(connection) = open(path)? else {
        return Ok(Vec::new());
    };
    Ok(page(&connection, query)?.entries)
}

/// One page of what fits.
pub(super) fn page(connection: &Connection, query: &Query) -> Result<Page, JournalError> {
    let read = || -> rusqlite::Result<Page> {
        let mut page = Page::default();
        let ids = ids(connection, query)?;
        let (sql, values) = statement(query, ids);
        let mut select = connection.prepare(&sql)?;
        let mut rows = select.query(rusqlite::params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let (id, change) = (row.get(0)?, row.get(1)?);
            let text: String = row.get(2)?;
            page.last = Some(id);
            page.entries.extend(read_entry(&text).map(|entry| Shown {
                id,
                change,
                ..entry.shown()
            }));
        }
        Ok(page)
    };
    read().map_err(store("read"))
}

pub(super) fn hours(
    path: &Path,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<HourCount>, JournalError> {
    let Some(connection) = open(path)? else {
        return Ok(Vec::new());
    };
    let read = || -> rusqlite::Result<Vec<HourCount>> {
        let mut select = connection.prepare(
            "SELECT hour, outcome, calls FROM hours WHERE hour >= ?1 AND hour * ?3 < ?2
            AND hour <= ?2 / ?3 ORDER BY hour, outcome",
        )?;
        let from = from.as_millisecond().div_euclid(HOUR_MS);
        let bounds = (from, until.as_millisecond(), HOUR_MS);
        let mut rows = select.query(bounds)?;
        let mut counts = Vec::new();
        while let Some(row) = rows.next()? {
            let (hour, word): (i64, String) = (row.get(0)?, row.get(1)?);
            let calls = u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default();
            let hour = Timestamp::from_millisecond(hour.saturating_mul(HOUR_MS)).ok();
            counts.extend(hour.map(|hour| HourCount {
                hour,
                outcome: KnownOutcome::read(&word),
                calls,
            }));
        }
        Ok(counts)
    };
    read().map_err(store("read"))
}

/// Between which ids the calls of the wanted span lie; an empty span if no call does.
///
/// Without it a page far in the past would pass over every later call.
fn ids(connection: &Connection, query: &Query) -> rusqlite::Result<(i64, i64)> {
    if query.from.is_none() && query.until.is_none() {
        return Ok((i64::MIN, i64::MAX));
    }
    let hour = |at: Timestamp| at.as_millisecond().div_euclid(HOUR_MS);
    let from = query.from.map_or(i64::MIN, hour);
    let until = query.until.map_or(i64::MAX, hour);
    let sql = "SELECT min(first), max(last) FROM hours WHERE hour BETWEEN ?1 AND ?2";
    let ids: (Option<i64>, Option<i64>) =
        connection.query_row(sql, (from, until), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(ids.0.zip(ids.1).unwrap_or((1, 0)))
}

/// Conditions, and what is bound to them.
#[derive(Default)]
struct Conditions {
    texts: Vec<String>,
    values: Vec<Value>,
    /// Whether an index is chosen already.
    is_led: bool,
}

impl Conditions {
    fn add(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.texts
            .push(format!("{condition} ?{}", self.values.len()));
    }

    /// The first of these leads through its index. A plus before the others keeps SQLite from
    /// choosing theirs, for it does not know how many rows have which value.
    fn equal(&mut self, column: &str, value: impl Into<Value>) {
        let plus = if self.is_led { "+" } else { "" };
        self.is_led = true;
        self.add(&format!("{plus}{column} ="), value);
    }
}

/// The question as SQL, and what is bound to it: those that narrow most come first.
fn statement(query: &Query, (first, last): (i64, i64)) -> (String, Vec<Value>) {
    let mut conditions = Conditions::default();
    if let Some(after) = query.after {
        conditions.add("change >", after);
        conditions.is_led = true;
    }
    if let Some(call_id) = &query.call_id {
        conditions.equal("call_id", call_id.clone());
    }
    if let Some(phone) = query.phone {
        let plus = if conditions.is_led { "+" } else { "" };
        conditions.is_led = true;
        conditions.values.push(phone.masked().into());
        let masked = conditions.values.len();
        conditions.add(&format!("{plus}caller IN (?{masked},"), phone.to_string());
        if let Some(last) = conditions.texts.last_mut() {
            last.push(')');
        }
    }
    if let Some(number) = &query.answered {
        conditions.equal("answered", number.clone());
    }
    if let Some(did) = &query.did {
        conditions.equal("did", did.clone());
    }
    if let Some(outcome) = query.outcome {
        let word = match outcome {
            Wanted::Known(outcome) => outcome.as_str(),
            Wanted::UnknownCallers => "",
        };
        conditions.equal("outcome", word.to_owned());
    }
    let id = if query.after.is_some() { "+id" } else { "id" };
    if let Some(before) = query.before {
        conditions.add(&format!("{id} <"), before);
    }
    conditions.add(&format!("{id} >="), first);
    conditions.add(&format!("{id} <="), last);
    if let Some(from) = query.from {
        conditions.add("+at >=", from.as_millisecond());
    }
    if let Some(until) = query.until {
        conditions.add("+at <", until.as_millisecond());
    }
    let order = if query.after.is_some() {
        "change"
    } else {
        "id DESC"
    };
    let limit = query.limit.clamp(1, Query::MOST);
    let sql = format!(
        "SELECT id, change, entry FROM calls WHERE id IN (
            SELECT id FROM calls WHERE {} ORDER BY {order} LIMIT {limit}
        ) ORDER BY {order}",
        conditions.texts.join(" AND ")
    );
    (sql, conditions.values)
}
