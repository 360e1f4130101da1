//! The journal's file: one SQLite database of its own, beside the directory's.
//!
//! Facts: sqlite.org/wal.html, sqlite.org/pragma.html. What cannot be trusted is moved aside, never
//! mended: calls must be answered, and an old journal is for people to look into.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::entry::Entry;
use super::shown::{End, KnownOutcome, Shown};
use super::{Record, format};
use crate::background;
use crate::call::Outcome;

/// Rows that are settled or deleted in one go.
const STEP_ROWS: i64 = 256;
/// A call of which nobody tells anything more for so long is over.
const QUIET_MS: i64 = 10 * 60 * 1000;
/// The same while somebody is rung or speaks: a dialplan reports when the conversation has ended.
const LONG_TALK_MS: i64 = 60 * 60 * 1000;
/// A question so much later is another call, though an exchange gives it the same call id.
const SAME_CALL_MS: i64 = 60 * 60 * 1000;
/// The log is copied into the file once it has so many pages.
const LOG_PAGES: i64 = 1000;

/// Begins a row, or writes it anew.
const WRITE: &str = "
INSERT INTO calls (id, call_id, caller, at, change, settle_at, entry, outcome, did, answered)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
ON CONFLICT (id) DO UPDATE SET caller = excluded.caller, at = excluded.at,
    change = excluded.change, settle_at = excluded.settle_at, entry = excluded.entry,
    outcome = excluded.outcome, did = excluded.did, answered = excluded.answered
";

/// Reads both ends of everything: a file that was cut or overwritten shows itself.
const PROBE: &str = "
SELECT (SELECT entry FROM calls ORDER BY id LIMIT 1),
    (SELECT entry FROM calls ORDER BY id DESC LIMIT 1),
    (SELECT max(at) FROM calls), (SELECT max(change) FROM calls),
    (SELECT max(call_id) FROM calls WHERE call_id IS NOT NULL),
    (SELECT max(caller) FROM calls WHERE caller IS NOT NULL),
    (SELECT max(settle_at) FROM calls WHERE settle_at IS NOT NULL)
";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be made, moved or read. Tried again later.
    #[error("cannot use {path}: see that the user who runs pryamo may write there")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// SQLite refuses; full disks come here.
    #[error("the journal cannot be {doing}")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        cause: rusqlite::Error,
    },
    /// It is no journal of this version, or it is damaged. It is moved aside.
    #[error("{path} is no journal that this version can read: {what}")]
    Foreign {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// What was found cannot be written where it is wanted: whoever wanted it has gone, or no room.
    #[error("the export cannot be written")]
    Export(#[source] io::Error),
}

impl JournalError {
    /// Says whether somebody else holds the file for the moment.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Store { cause, .. } if matches!(
            cause.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        ))
    }

    /// Says whether the file itself is the trouble.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Foreign { .. } => true,
            Self::Store { cause, .. } => matches!(
                cause.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            Self::File { .. } | Self::Export(_) => false,
        }
    }
}

pub(super) fn store(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> JournalError {
    move |cause| JournalError::Store { doing, cause }
}

/// The open file; one writes it.
pub(super) struct File {
    connection: Connection,
    /// The number of the last change.
    change: i64,
}

/// What applying a batch brought.
#[derive(Default)]
pub(super) struct Applied {
    /// Calls of known callers that are settled now.
    pub(super) settled: Vec<KnownOutcome>,
    /// Outcomes of calls that nobody asked about yet, by their place in the batch.
    pub(super) unplaced: Vec<usize>,
    /// Call ids of which an entry was begun.
    pub(super) begun: Vec<String>,
}

impl File {
    /// Opens the journal, or makes it; refuses what is none.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        create(path).map_err(unusable(path))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = store("opened");
        let connection = Connection::open_with_flags(path, flags).map_err(opened)?;
        let tuned = || -> rusqlite::Result<()> {
            connection.busy_timeout(Duration::ZERO)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // A power failure may take the last moments; a killed process takes nothing.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
            connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            connection.pragma_update(None, "cell_size_check", true)
        };
        tuned().map_err(store("opened"))?;
        format::check(&connection, path)?;
        connection
            .query_row(PROBE, [], |_| Ok(()))
            .map_err(store("read"))?;
        let last = "SELECT coalesce(max(change), 0) FROM calls";
        let change = connection
            .query_row(last, [], |row| row.get(0))
            .map_err(store("read"))?;
        Ok(Self { connection, change })
    }

    /// The number of the last change.
    pub(super) fn change(&self) -> i64 {
        self.change
    }

    /// Joins a batch in one transaction.
    ///
    /// `waiting` are outcomes that came before their call. Applied twice it changes nothing more.
    pub(super) fn apply(
        &mut self,
        batch: &[Record],
        waiting: &[(Outcome, Timestamp)],
        entry_of: &dyn Fn(&Record) -> Option<Entry>,
    ) -> Result<Applied, JournalError> {
        let mut change = self.change;
        let mut applied = Applied::default();
        let write = |transaction: &Transaction<'_>| -> rusqlite::Result<()> {
            let mut rows = Rows {
                transaction,
                change: &mut change,
                settled: &mut applied.settled,
            };
            for (index, record) in batch.iter().enumerate() {
                background::step_aside();
                match record {
                    Record::Ended(told) => {
                        let (outcome, now) = &**told;
                        if !rows.end(outcome, *now)? {
                            applied.unplaced.push(index);
                        }
                    }
                    Record::Decided(_) => {
                        let Some(entry) = entry_of(record) else {
                            continue;
                        };
                        let call_id = entry.call_id.clone();
                        if rows.decide(entry)? {
                            for (outcome, now) in waiting {
                                if Some(&outcome.call_id) == call_id.as_ref() {
                                    rows.end(outcome, *now)?;
                                }
                            }
                            applied.begun.extend(call_id);
                        }
                    }
                }
            }
            Ok(())
        };
        in_transaction(&mut self.connection, write).map_err(store("written"))?;
        self.change = change;
        Ok(applied)
    }

    /// Settles calls of which nothing more was told for long.
    pub(super) fn settle(&mut self, now: Timestamp) -> Result<Vec<KnownOutcome>, JournalError> {
        let mut settled = Vec::new();
        let write = |transaction: &Transaction<'_>| -> rusqlite::Result<()> {
            let mut due = transaction.prepare_cached(
                "SELECT id, entry FROM calls WHERE settle_at IS NOT NULL AND settle_at <= ?1 LIMIT ?2",
            )?;
            let limits = (now.as_millisecond(), STEP_ROWS);
            let rows = due.query_map(limits, |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })?;
            let rows: Vec<(i64, String)> = rows.collect::<rusqlite::Result<_>>()?;
            let mut done =
                transaction.prepare_cached("UPDATE calls SET settle_at = NULL WHERE id = ?1")?;
            for (id, entry) in rows {
                done.execute([id])?;
                settled.extend(read_entry(&entry).and_then(|entry| entry.shown().outcome));
            }
            Ok(())
        };
        in_transaction(&mut self.connection, write).map_err(store("written"))?;
        Ok(settled)
    }

    /// Deletes a step of what is older; says how many.
    pub(super) fn prune(&self, before: Timestamp) -> Result<usize, JournalError> {
        let delete = "DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE at < ?1 LIMIT ?2)";
        self.connection
            .prepare_cached(delete)
            .and_then(|mut delete| delete.execute((before.as_millisecond(), STEP_ROWS)))
            .map_err(store("cleared of old entries"))
    }
}

/// What an entry is searched and counted by, besides its caller.
pub(super) struct Sought<'a> {
    /// Empty for an unknown caller.
    pub(super) outcome: &'static str,
    pub(super) did: Option<&'a str>,
    pub(super) answered: Option<&'a str>,
}

impl<'a> Sought<'a> {
    pub(super) fn of(shown: &'a Shown) -> Self {
        Self {
            outcome: shown.outcome.map_or("", KnownOutcome::as_str),
            did: shown.did.as_deref(),
            answered: shown.answered.as_ref().map(|who| who.number.as_str()),
        }
    }
}

/// The rows of one transaction.
struct Rows<'a> {
    transaction: &'a Transaction<'a>,
    change: &'a mut i64,
    settled: &'a mut Vec<KnownOutcome>,
}

/// An entry as it lies there.
struct Lying {
    id: i64,
    is_settled: bool,
    entry: Entry,
}

impl Rows<'_> {
    /// Begins an entry, or joins one; true if it was begun.
    fn decide(&mut self, entry: Entry) -> rusqlite::Result<bool> {
        let at = entry.at();
        let is_same = |lying: &Lying| {
            let near = |one: Timestamp| (at.as_millisecond() - one.as_millisecond()).abs();
            lying.entry.caller() == entry.caller()
                && near(lying.entry.at()).min(near(lying.entry.asked_last())) <= SAME_CALL_MS
        };
        let known = match &entry.call_id {
            Some(call_id) => self.of_call(call_id)?.into_iter().find(is_same),
            None => None,
        };
        let Some(mut lying) = known else {
            self.write(None, false, &entry, at)?;
            return Ok(true);
        };
        let before = lying.entry.clone();
        lying.entry.join(entry);
        if lying.entry != before {
            self.write(Some(lying.id), lying.is_settled, &lying.entry, at)?;
        }
        Ok(false)
    }

    /// Joins an outcome; false if nobody has asked about this call.
    fn end(&mut self, outcome: &Outcome, now: Timestamp) -> rusqlite::Result<bool> {
        let Some(mut lying) = self.of_call(&outcome.call_id)?.into_iter().next() else {
            return Ok(false);
        };
        let before = lying.entry.clone();
        lying.entry.end(outcome, now);
        if lying.entry != before {
            self.write(Some(lying.id), lying.is_settled, &lying.entry, now)?;
        }
        Ok(true)
    }

    /// The latest entries with this call id, the last one first. More than one only where an
    /// exchange gives its calls one id.
    fn of_call(&self, call_id: &str) -> rusqlite::Result<Vec<Lying>> {
        let mut find = self.transaction.prepare_cached(
            "SELECT id, settle_at IS NULL, entry FROM calls WHERE call_id = ?1
            ORDER BY id DESC LIMIT 8",
        )?;
        let rows = find.query_map([call_id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
        })?;
        let mut found = Vec::new();
        for row in rows {
            let (id, is_settled, entry) = row?;
            found.extend(read_entry(&entry).map(|entry| Lying {
                id,
                is_settled,
                entry,
            }));
        }
        Ok(found)
    }

    fn write(
        &mut self,
        id: Option<i64>,
        was_settled: bool,
        entry: &Entry,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let shown = entry.shown();
        let settle_at = match shown.end {
            _ if was_settled => None,
            End::Answered => {
                self.settled.extend(shown.outcome);
                None
            }
            End::NotTold => Some(now.as_millisecond() + LONG_TALK_MS),
            End::HungUp | End::StandardRoute => Some(now.as_millisecond() + QUIET_MS),
        };
        *self.change += 1;
        let text = serde_json::to_string(entry)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let at = entry.at().as_millisecond();
        let sought = Sought::of(&shown);
        let values = rusqlite::params![
            id,
            entry.call_id,
            entry.caller(),
            at,
            *self.change,
            settle_at,
            text,
            sought.outcome,
            sought.did,
            sought.answered,
        ];
        self.transaction.prepare_cached(WRITE)?.execute(values)?;
        Ok(())
    }
}

fn in_transaction(
    connection: &mut Connection,
    write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let behaviour = rusqlite::TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(behaviour)?;
    write(&transaction)?;
    transaction.commit()
}

/// A row that another version has written otherwise is passed over.
pub(super) fn read_entry(text: &str) -> Option<Entry> {
    serde_json::from_str(text).ok()
}

/// SQLite gives its log the rights of the database, so only this file needs any.
fn create(path: &Path) -> io::Result<()> {
    let created = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    match created {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::set_permissions(path, Permissions::from_mode(0o600))
        }
        Err(error) => Err(error),
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> JournalError + use<> {
    let path = path.display().to_string();
    move |cause| JournalError::File { path, cause }
}

/// Moves a file that cannot be used aside, with its log; gives its new name.
pub(super) fn move_aside(path: &Path, now: Timestamp) -> Result<PathBuf, JournalError> {
    let named = |suffix: &str, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.push(end);
        PathBuf::from(name)
    };
    let end = format!(".damaged-{}", now.as_second());
    for suffix in ["-wal", "-shm"] {
        // Often there is none.
        let _ = std::fs::rename(named(suffix, ""), named(suffix, &end));
    }
    let aside = named("", &end);
    std::fs::rename(path, &aside).map_err(unusable(path))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_file_is_refused_and_can_be_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        for content in [
            &b"no database at all, and long enough to be read"[..],
            &[0; 5000],
        ] {
            std::fs::write(&path, content).unwrap();
            let error = File::open(&path).err().unwrap();
            assert!(error.is_damage(), "{error:?}");
            let now = Timestamp::from_second(1_800_000_000).unwrap();
            let aside = move_aside(&path, now).unwrap();
            assert_eq!(std::fs::read(&aside).unwrap(), content);
            assert!(File::open(&path).is_ok());
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn another_programs_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE theirs (x)").unwrap();
        drop(other);
        let error = File::open(&path).err().unwrap();
        assert!(error.to_string().contains("another program"), "{error}");
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let _file = File::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_quiet_call_is_settled_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::open(&folder.path().join("journal.sqlite")).unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let call = crate::call::IncomingCall {
            call_id: Some("1.1".to_owned()),
            ..crate::call::IncomingCall::default()
        };
        let reason = crate::decision::Reason::NobodyCanBeRung;
        let mut decision = crate::decision::Decision::standard_route(reason, Vec::new());
        decision.entity = Some(crate::record::Entity {
            crm: crate::record::CrmName::new("list"),
            kind: crate::record::EntityKind::Contact,
            id: crate::record::EntityId::new("1"),
            name: String::new(),
            company: None,
            responsible: None,
            modified: None,
            stage: crate::record::Stage::default(),
            fields: std::collections::BTreeMap::new(),
        });
        let roster = crate::directory::Roster::default();
        let numbers = super::super::Numbers::Full;
        let entry = Entry::new(&call, &decision, now, &roster, numbers);
        let batch = [Record::Decided(Box::new((call, decision, now)))];
        let applied = file.apply(&batch, &[], &|_| Some(entry.clone())).unwrap();
        assert!(applied.settled.is_empty());
        let later = |milliseconds| {
            Timestamp::from_millisecond(now.as_millisecond() + milliseconds).unwrap()
        };
        assert_eq!(file.settle(later(QUIET_MS - 1)).unwrap(), []);
        let settled = file.settle(later(QUIET_MS)).unwrap();
        assert_eq!(settled, [KnownOutcome::StandardRoute]);
        assert_eq!(file.settle(later(QUIET_MS * 9)).unwrap(), []);
        // Told again, late: the entry stays settled.
        file.apply(&batch, &[], &|_| Some(entry.clone())).unwrap();
        let outcome = Outcome {
            call_id: "1.1".to_owned(),
            number: "101".to_owned(),
            status: crate::call::DialStatus::Answer,
            rang_seconds: None,
            talked_seconds: None,
        };
        let late = [Record::Ended(Box::new((outcome, later(QUIET_MS * 10))))];
        let applied = file.apply(&late, &[], &|_| None).unwrap();
        assert!(applied.settled.is_empty() && applied.unplaced.is_empty());
        assert_eq!(file.settle(later(QUIET_MS * 99)).unwrap(), []);
    }
}
