//! The tables of the journal's file, and how a file of an older format is taken over.

use std::path::Path;

use rusqlite::Connection;

use super::file::{JournalError, Sought, read_entry, store};

/// `PRAGMA application_id`, "pryj": tells our file from any other SQLite database.
const APPLICATION: i64 = 0x7072_796a;
/// `PRAGMA user_version`: a change of the tables raises it.
pub(super) const FORMAT: i64 = 2;
/// Rows that are taken over in one go.
const STEP_ROWS: i64 = 1000;

/// What format 1 began with.
const FIRST: &str = "
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, call_id TEXT, caller TEXT, at INTEGER NOT NULL,
    change INTEGER NOT NULL, settle_at INTEGER, entry TEXT NOT NULL
) STRICT;
CREATE INDEX calls_call_id ON calls (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX calls_caller ON calls (caller) WHERE caller IS NOT NULL;
CREATE INDEX calls_at ON calls (at);
CREATE INDEX calls_change ON calls (change);
CREATE INDEX calls_settle ON calls (settle_at) WHERE settle_at IS NOT NULL;
";

/// What entries are searched by. An empty outcome is an unknown caller.
const COLUMNS: &str = "
ALTER TABLE calls ADD COLUMN outcome TEXT NOT NULL DEFAULT '';
ALTER TABLE calls ADD COLUMN did TEXT;
ALTER TABLE calls ADD COLUMN answered TEXT;
";

/// Each index holds all that may be asked together with its first column, so that rows that do not
/// fit are passed over without reading the entry. `hours` also tells between which ids the calls of
/// an hour lie: perhaps too wide after a deletion, never too narrow.
const SEARCH: &str = "
CREATE INDEX calls_outcome ON calls (outcome, id, at, did, answered);
CREATE INDEX calls_did ON calls (did, id, at, outcome, answered) WHERE did IS NOT NULL;
CREATE INDEX calls_answered ON calls (answered, id, at, outcome, did) WHERE answered IS NOT NULL;
CREATE TABLE hours (
    hour INTEGER NOT NULL, outcome TEXT NOT NULL, calls INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (hour, outcome)
) STRICT, WITHOUT ROWID;
INSERT INTO hours SELECT at / 3600000, outcome, count(*), min(id), max(id)
    FROM calls GROUP BY at / 3600000, outcome;
CREATE TRIGGER calls_begun AFTER INSERT ON calls BEGIN
    INSERT INTO hours VALUES (new.at / 3600000, new.outcome, 1, new.id, new.id)
        ON CONFLICT (hour, outcome) DO UPDATE SET calls = calls + 1,
            first = min(first, excluded.first), last = max(last, excluded.last);
END;
CREATE TRIGGER calls_changed AFTER UPDATE OF at, outcome ON calls
WHEN old.at / 3600000 <> new.at / 3600000 OR old.outcome <> new.outcome BEGIN
    UPDATE hours SET calls = calls - 1
        WHERE hour = old.at / 3600000 AND outcome = old.outcome;
    DELETE FROM hours WHERE hour = old.at / 3600000 AND outcome = old.outcome AND calls <= 0;
    INSERT INTO hours VALUES (new.at / 3600000, new.outcome, 1, new.id, new.id)
        ON CONFLICT (hour, outcome) DO UPDATE SET calls = calls + 1,
            first = min(first, excluded.first), last = max(last, excluded.last);
END;
CREATE TRIGGER calls_deleted AFTER DELETE ON calls BEGIN
    UPDATE hours SET calls = calls - 1
        WHERE hour = old.at / 3600000 AND outcome = old.outcome;
    DELETE FROM hours WHERE hour = old.at / 3600000 AND outcome = old.outcome AND calls <= 0;
END;
";

/// Makes the tables of a new file, takes an older one over, and refuses any other.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application = number("application_id").map_err(store("read"))?;
    let format = number("user_version").map_err(store("read"))?;
    let count = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection
        .query_row(count, [], |row| row.get(0))
        .map_err(store("read"))?;
    match (application, format) {
        (0, 0) if tables == 0 => make(connection, true).map_err(store("made")),
        (APPLICATION, 1) => make(connection, false).map_err(store("taken over")),
        (APPLICATION, FORMAT) => Ok(()),
        (APPLICATION, other) => Err(foreign(path, &format!("its format is {other}"))),
        _ => Err(foreign(path, "another program has made it")),
    }
}

pub(super) fn foreign(path: &Path, what: &str) -> JournalError {
    JournalError::Foreign {
        path: path.display().to_string(),
        what: what.to_owned(),
    }
}

/// All in one transaction: whoever is killed meanwhile finds the file as it was.
fn make(connection: &Connection, is_new: bool) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    if is_new {
        transaction.execute_batch(FIRST)?;
    }
    transaction.execute_batch(COLUMNS)?;
    if !is_new {
        fill(&transaction)?;
    }
    transaction.execute_batch(SEARCH)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Works out for entries of format 1 what they are searched by.
fn fill(connection: &Connection) -> rusqlite::Result<()> {
    let mut select =
        connection.prepare("SELECT id, entry FROM calls WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let mut update = connection
        .prepare("UPDATE calls SET outcome = ?2, did = ?3, answered = ?4 WHERE id = ?1")?;
    let mut done = i64::MIN;
    loop {
        let rows = select.query_map((done, STEP_ROWS), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        let rows: Vec<(i64, String)> = rows.collect::<rusqlite::Result<_>>()?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        done = *last;
        for (id, text) in rows {
            let Some(entry) = read_entry(&text) else {
                continue;
            };
            let shown = entry.shown();
            let sought = Sought::of(&shown);
            update.execute((id, sought.outcome, sought.did, sought.answered))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::File;
    use super::*;

    const ENTRY: &str = r#"{"call_id":"1.1","first":Q,"last":Q,"tries":{"101":{"place":0,
        "asked":null,"status":"ANSWER","rang_seconds":3,"known_at":null}}}"#;
    const QUESTION: &str = r#"{"tried":0,"at":"2026-01-31T09:00:00Z","caller":null,
        "did":"74951234567","entity":{"crm":"list","kind":"contact","id":"1"},
        "responsible":null,"reason":"x","rings":"101","steps":[]}"#;

    fn hours(connection: &Connection) -> Vec<(i64, String, i64)> {
        let sql = "SELECT hour, outcome, calls FROM hours ORDER BY hour, outcome";
        let mut select = connection.prepare(sql).unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_file_of_format_1_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(FIRST).unwrap();
        let entry = ENTRY.replace('Q', QUESTION);
        let insert = "INSERT INTO calls (at, change, entry) VALUES (?1, ?2, ?3)";
        for number in 0..2500_i64 {
            let text = if number == 7 { "unreadable" } else { &entry };
            old.execute(insert, (number % 2 * 3_600_000, number, text))
                .unwrap();
        }
        old.pragma_update(None, "application_id", APPLICATION)
            .unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        drop(File::open(&path).unwrap());
        drop(File::open(&path).unwrap());
        let new = Connection::open(&path).unwrap();
        let word = |word: &str| word.to_owned();
        let expected = [
            (0, word("another"), 1250),
            (1, word(""), 1),
            (1, word("another"), 1249),
        ];
        assert_eq!(hours(&new), expected);
        let sql = "SELECT count(*) FROM calls WHERE did = '74951234567' AND answered = '101'";
        let found: i64 = new.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(found, 2499);
        new.pragma_update(None, "user_version", 3).unwrap();
        assert!(
            File::open(&path).err().unwrap().is_damage(),
            "a later format"
        );
    }

    #[test]
    fn hours_follow_every_insert_update_and_deletion() {
        let connection = Connection::open_in_memory().unwrap();
        make(&connection, true).unwrap();
        let sum = "SELECT at / 3600000, outcome, count(*) FROM calls GROUP BY 1, 2 ORDER BY 1, 2";
        let counted = || {
            let mut select = connection.prepare(sum).unwrap();
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            let rows: Vec<(i64, String, i64)> = rows.unwrap().map(Result::unwrap).collect();
            rows
        };
        for sql in [
            "INSERT INTO calls (at, change, entry) SELECT value * 1000000, value, ''
                FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n
                WHERE value < 50) SELECT value FROM n)",
            "UPDATE calls SET outcome = 'another' WHERE id % 3 = 0",
            "UPDATE calls SET at = at + 3600000 WHERE id % 5 = 0",
            "UPDATE calls SET settle_at = 1",
            "DELETE FROM calls WHERE id % 2 = 0",
            "DELETE FROM calls WHERE outcome = 'another'",
        ] {
            connection.execute(sql, []).unwrap();
            assert!(!counted().is_empty(), "{sql}");
            assert_eq!(hours(&connection), counted(), "{sql}");
        }
        let outside = "SELECT count(*) FROM calls LEFT JOIN hours ON hour = at / 3600000
            AND hours.outcome = calls.outcome AND id BETWEEN first AND last WHERE hour IS NULL";
        let outside: i64 = connection.query_row(outside, [], |row| row.get(0)).unwrap();
        assert_eq!(outside, 0);
        connection.execute("DELETE FROM calls", []).unwrap();
        assert_eq!(hours(&connection), []);
    }
}
