//! The files of the embedded store: folder, lock, format, connections.
//!
//! Facts: sqlite.org/wal.html, sqlite.org/pragma.html, sqlite.org/fileformat2.html. Knows nothing of
//! cards.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::callers::{self, OldPhones};
use super::readers::{Checkpoint, checkpoint};
use super::store::store_error;
use crate::directory::DirectoryError;

/// The database, inside `data_dir`. Beside it SQLite keeps its log, `-wal` and `-shm`.
const FILE: &str = "directory.sqlite";
/// Locked for as long as a process has the store open.
const LOCK: &str = "lock";
/// `PRAGMA user_version`: a change of the tables raises it.
const FORMAT: i64 = 7;
/// `PRAGMA application_id`, "prym": tells our file from any other SQLite database.
const APPLICATION: i64 = 0x7072_796d;
/// A log that one transaction has blown up is cut back to this.
const LOG_KEPT_BYTES: u64 = 64 << 20;
/// How long a read waits for another process that looks into the file by hand.
const READ_PATIENCE: Duration = Duration::from_millis(50);
/// Prepared statements kept by each connection; there are fewer.
const STATEMENTS: usize = 48;

/// The tables.
///
/// `cards` is the index of entities by name; the mark of the walk lives there because a nightly walk
/// touches every card, and a page of these rows holds 250 cards, a page of `entities` 60. `links`
/// leads from a contact or company to the deals that name it. Names of CRMs are never deleted: a
/// number that came to mean another CRM would mislead a reader.
const TABLES: &str = "
CREATE TABLE crms (
    crm INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, employees_at INTEGER
) STRICT;
CREATE TABLE entities (
    entity INTEGER PRIMARY KEY, source INTEGER NOT NULL, id ANY NOT NULL, name TEXT NOT NULL,
    company TEXT, responsible ANY, modified ANY, stage INTEGER NOT NULL, phones BLOB, links ANY,
    fields TEXT
) STRICT;
CREATE TABLE cards (
    source INTEGER NOT NULL, id ANY NOT NULL, walk INTEGER NOT NULL, entity INTEGER NOT NULL,
    PRIMARY KEY (source, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE links (
    source INTEGER NOT NULL, id ANY NOT NULL, deal INTEGER NOT NULL,
    PRIMARY KEY (source, id, deal)
) STRICT, WITHOUT ROWID;
CREATE TABLE employees (
    crm INTEGER NOT NULL, id TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY (crm, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE sync_state (
    source INTEGER PRIMARY KEY, json TEXT NOT NULL
) STRICT;
";

/// The index of cards by number, see [`super::callers`]: a lookup reads one leaf.
///
/// The rows of a table with row numbers lie in its leaves alone: at ten million numbers the inner
/// pages are 2 MB and stay in memory. What a call asks of a card lies there a second time; with the
/// number and the card in two a lookup costs 1.7 times as much, and two reads of a slow disk.
const CALLERS: &str = "
CREATE TABLE callers (phone INTEGER PRIMARY KEY, cards BLOB NOT NULL) STRICT;
CREATE TABLE crowded (
    phone INTEGER NOT NULL, entity INTEGER NOT NULL, PRIMARY KEY (phone, entity)
) STRICT, WITHOUT ROWID;
";

/// What format 2 added: the notices that wait, and where each CRM's own queue is read on.
const NOTICES: &str = "
CREATE TABLE notices (
    source INTEGER NOT NULL, id ANY NOT NULL, ticket INTEGER NOT NULL, event INTEGER NOT NULL,
    again INTEGER NOT NULL, due INTEGER NOT NULL, PRIMARY KEY (source, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX notices_due ON notices (source, due, ticket);
CREATE TABLE news (
    crm INTEGER PRIMARY KEY, cursor TEXT NOT NULL
) STRICT;
";

/// What format 3 added: the departments of each CRM.
const DEPARTMENTS: &str = "
CREATE TABLE departments (
    crm INTEGER PRIMARY KEY, json TEXT NOT NULL
) STRICT;
";

/// What format 4 added: what was set on the page for employees, and what stands in cards' phone fields
/// and is no number.
const OWN_ROWS: &str = "
CREATE TABLE own_rows (
    crm INTEGER NOT NULL, id TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY (crm, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE unread (
    entity INTEGER PRIMARY KEY, text TEXT NOT NULL
) STRICT;
";

/// What format 5 added: how much there was to be mended on each day.
const FINDINGS: &str = "
CREATE TABLE findings (
    day INTEGER PRIMARY KEY, shared INTEGER NOT NULL, gone INTEGER NOT NULL,
    unread INTEGER NOT NULL, without_extension INTEGER NOT NULL
) STRICT;
";

/// Reads both ends of every table: a file that was cut or overwritten shows itself, and a sound one
/// of any size answers within a millisecond.
const PROBE: &str = "
SELECT (SELECT max(crm) FROM crms), (SELECT min(name) FROM crms),
    (SELECT entity FROM entities ORDER BY entity LIMIT 1),
    (SELECT name FROM entities ORDER BY entity DESC LIMIT 1),
    (SELECT entity FROM cards ORDER BY source, id LIMIT 1),
    (SELECT walk FROM cards ORDER BY source DESC, id DESC LIMIT 1),
    (SELECT cards FROM callers ORDER BY phone LIMIT 1),
    (SELECT cards FROM callers ORDER BY phone DESC LIMIT 1),
    (SELECT entity FROM crowded ORDER BY phone, entity LIMIT 1),
    (SELECT entity FROM crowded ORDER BY phone DESC, entity DESC LIMIT 1),
    (SELECT deal FROM links ORDER BY source, id, deal LIMIT 1),
    (SELECT deal FROM links ORDER BY source DESC, id DESC, deal DESC LIMIT 1),
    (SELECT max(json) FROM employees), (SELECT max(json) FROM sync_state),
    (SELECT max(event) FROM notices), (SELECT max(cursor) FROM news),
    (SELECT max(json) FROM departments), (SELECT max(json) FROM own_rows),
    (SELECT text FROM unread ORDER BY entity LIMIT 1),
    (SELECT text FROM unread ORDER BY entity DESC LIMIT 1),
    (SELECT shared FROM findings ORDER BY day LIMIT 1),
    (SELECT shared FROM findings ORDER BY day DESC LIMIT 1)
";

/// An open store: one connection that writes and any number that read.
///
/// The order of the fields is the order in which they are closed: the writer after the readers, so
/// that it can empty the log, and the lock last.
pub(super) struct Files {
    pub(super) readers: Vec<Connection>,
    pub(super) survey: Connection,
    pub(super) hygiene: Connection,
    pub(super) writer: Connection,
    pub(super) lock: File,
}

impl Files {
    /// Opens the store in `folder`, makes it if it is not there, and refuses what it cannot trust.
    ///
    /// `cache_kib` is shared out: a quarter to the writer, the rest to the readers.
    pub(super) fn open(
        folder: &Path,
        readers: usize,
        cache_kib: usize,
    ) -> Result<Self, DirectoryError> {
        let lock = lock_folder(folder)?;
        let path = folder.join(FILE);
        create_file(&path).map_err(unusable(folder))?;
        let judge = |error| judge(&path, error);
        let writer = open_writer(&path, cache_kib / 4).map_err(judge)?;
        if writer.is_readonly("main").map_err(judge)? {
            return Err(unusable(&path)(io::ErrorKind::PermissionDenied.into()));
        }
        let journal: String = writer
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .map_err(judge)?;
        if journal != "wal" {
            // A file system without shared memory, as a network's: readers would wait for writers.
            return Err(unusable(&path)(io::ErrorKind::Unsupported.into()));
        }
        check_format(&writer, &path)?;
        check_length(&writer, &path)?;
        writer.query_row(PROBE, [], |_| Ok(())).map_err(judge)?;
        let reader_cache_kib = (cache_kib - cache_kib / 4) / readers.max(1);
        let readers: Result<Vec<_>, _> = (0..readers)
            .map(|_| {
                let reader = open_reader(&path, reader_cache_kib)?;
                // It costs a tenth of a lookup whose leaf is not in memory, and a lookup spreads no
                // damage: SQLite looks at the bounds of what it reads anyway, and so does `asked`.
                reader.pragma_update(None, "cell_size_check", false)?;
                Ok(reader)
            })
            .collect();
        Ok(Self {
            readers: readers.map_err(judge)?,
            survey: open_reader(&path, 1024).map_err(judge)?,
            hygiene: open_reader(&path, 1024).map_err(judge)?,
            writer,
            lock,
        })
    }
}

/// Makes the folder, its owner's alone, and takes it for this process.
fn lock_folder(folder: &Path) -> Result<File, DirectoryError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(unusable(folder))?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(folder.join(LOCK))
        .map_err(unusable(folder))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse {
            path: folder.display().to_string(),
        }),
        Err(TryLockError::Error(cause)) => Err(unusable(folder)(cause)),
    }
}

/// SQLite gives its log the rights of the database, so only this file needs any.
fn create_file(path: &Path) -> io::Result<()> {
    let created = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    match created {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn open_writer(path: &Path, cache_kib: usize) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Nobody else writes. A checkpoint that finds a reader in its way comes again later.
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // See `Readers::tend_log`: SQLite's own checkpoint never gets the log empty under constant reads.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES.cast_signed())?;
    tune(&connection, cache_kib)?;
    Ok(connection)
}

fn open_reader(path: &Path, cache_kib: usize) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(READ_PATIENCE)?;
    tune(&connection, cache_kib)?;
    Ok(connection)
}

fn tune(connection: &Connection, cache_kib: usize) -> rusqlite::Result<()> {
    // Negative means KiB.
    let cache_size = -i64::try_from(cache_kib).unwrap_or(i64::MAX);
    connection.pragma_update(None, "cache_size", cache_size)?;
    // A page fault of a mapped file reads far ahead: on a cold cache p99 is 32 times that of pread.
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // Otherwise a statement is prepared anew for each value bound, in case its plan depends on it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

/// Makes the tables in an empty file; otherwise says whether this version can read them.
fn check_format(writer: &Connection, path: &Path) -> Result<(), DirectoryError> {
    let judge = |error| judge(path, error);
    let number = |pragma| writer.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application = number("application_id").map_err(judge)?;
    let format = number("user_version").map_err(judge)?;
    let tables: i64 = writer
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(judge)?;
    let take_over = |tables, phones| add(writer, tables, phones).map_err(judge);
    match (application, format) {
        (0, 0) if tables == 0 => create_tables(writer).map_err(judge),
        (APPLICATION, FORMAT) => Ok(()),
        (APPLICATION, 1) => take_over(&[NOTICES, DEPARTMENTS, OWN_ROWS, FINDINGS], OldPhones::Bare),
        (APPLICATION, 2) => take_over(&[DEPARTMENTS, OWN_ROWS, FINDINGS], OldPhones::Bare),
        (APPLICATION, 3) => take_over(&[OWN_ROWS, FINDINGS], OldPhones::Bare),
        (APPLICATION, 4) => take_over(&[FINDINGS], OldPhones::Bare),
        (APPLICATION, 5) => take_over(&[], OldPhones::Bare),
        (APPLICATION, 6) => take_over(&[], OldPhones::Whole),
        (APPLICATION, newer) if newer > FORMAT => Err(DirectoryError::Newer {
            path: path.display().to_string(),
            found: newer,
            known: FORMAT,
        }),
        _ => Err(damaged(path, "it is not a directory of pryamo")),
    }
}

fn create_tables(writer: &Connection) -> rusqlite::Result<()> {
    writer.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} {CALLERS} {NOTICES} {DEPARTMENTS} {OWN_ROWS} {FINDINGS}
        PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;"
    ))
}

/// Adds to an older file what it lacks, and makes its index of numbers anew.
fn add(writer: &Connection, tables: &[&str], phones: OldPhones) -> rusqlite::Result<()> {
    let tables = tables.concat();
    tracing::info!("the directory is of an older version: its index of numbers is made anew");
    let transaction = Transaction::new_unchecked(writer, TransactionBehavior::Immediate)?;
    transaction.execute_batch(&format!("{tables} {CALLERS}"))?;
    callers::fill(&transaction, phones)?;
    transaction.execute_batch(&format!(
        "DROP TABLE phones; PRAGMA user_version = {FORMAT};"
    ))?;
    transaction.commit()
}

/// Finds a file that was cut short, as a copy onto a full disk is.
///
/// The file may rightly be shorter than the database while a part lies in the log, so the log is
/// emptied first. If that does not succeed (a full disk) nothing is known, and nothing is refused.
fn check_length(writer: &Connection, path: &Path) -> Result<(), DirectoryError> {
    let judge = |error| judge(path, error);
    if !checkpoint(writer, Checkpoint::Copy).is_ok_and(|log| log.is_copied()) {
        return Ok(());
    }
    let bytes: i64 = writer
        .query_row(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            [],
            |row| row.get(0),
        )
        .map_err(judge)?;
    let length = std::fs::metadata(path).map_err(unusable(path))?.len();
    if length < bytes.unsigned_abs() {
        let what = format!("{length} bytes of {bytes} are there");
        return Err(damaged(path, &what));
    }
    Ok(())
}

/// Whether an error while opening means a damaged file or a failing disk.
fn judge(path: &Path, error: rusqlite::Error) -> DirectoryError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) => {
            damaged(path, &error.to_string())
        }
        _ => store_error("was opening its file")(error),
    }
}

fn damaged(path: &Path, what: &str) -> DirectoryError {
    DirectoryError::Damaged {
        path: path.display().to_string(),
        what: what.to_owned(),
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path: PathBuf = path.to_owned();
    move |cause| DirectoryError::Folder {
        path: path.display().to_string(),
        cause,
    }
}
