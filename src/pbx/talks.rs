//! Who spoke with which number last: in memory, and in a file so that a restart forgets nothing.
//!
//! Learned from the Manager Interface as calls happen, and from Asterisk's CDR file. Only the last
//! talk of each number is kept, and only for so many days.

pub mod history;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::call::{Extension, ExtensionPattern};
use crate::phone::E164;
use crate::presence::{Direction, Talk};

/// The file in `data_dir`.
const FILE: &str = "talks.sqlite";
/// Numbers of which a talk is kept; of more, further ones are not learned.
const MOST_KEPT: usize = 1_000_000;
/// Talks that may wait to be written; what comes above is only in memory.
const MOST_WAITING: usize = 10_000;
/// Talks that are written in one transaction.
const WRITTEN_AT_ONCE: usize = 500;

/// `[talks]`: who spoke with whom.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a talk is remembered. Default: 90.
    pub days: u32,
    /// Asterisk's CDR file, read from its beginning and as it grows. Default: none.
    pub cdr: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            days: 90,
            cdr: None,
        }
    }
}

impl Settings {
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [talks]                        # who spoke with whom last, for [rules.last_talk]; learned by [ami] and
# cdr = \"/var/log/asterisk/cdr-csv/Master.csv\"   # from Asterisk's CDR file: the history, and without [ami] all
# days = 90                      # how long a talk is remembered
";
}

/// The last talks.
pub struct Talks {
    last: RwLock<HashMap<E164, Talk>>,
    writer: Option<SyncSender<(E164, Talk)>>,
}

/// Why the file of the talks cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be used; move it away, talks are then learned anew")]
pub struct TalksError {
    path: String,
    #[source]
    cause: rusqlite::Error,
}

impl Talks {
    /// Remembers nothing over a restart.
    pub fn in_memory() -> Self {
        Self {
            last: RwLock::default(),
            writer: None,
        }
    }

    /// Opens the file in `data_dir`, forgets what is older than `days` and takes what is left.
    pub fn open(
        data_dir: &Path,
        days: u32,
        pattern: &ExtensionPattern,
        now: Timestamp,
    ) -> Result<Self, TalksError> {
        let path = data_dir.join(FILE);
        let fault = |cause| TalksError {
            path: path.display().to_string(),
            cause,
        };
        let connection = open_file(&path).map_err(fault)?;
        let oldest = now.checked_sub(SignedDuration::from_hours(24 * i64::from(days)));
        let oldest = oldest.map_or(i64::MIN, Timestamp::as_second);
        connection
            .execute("DELETE FROM talks WHERE at < ?1", [oldest])
            .map_err(fault)?;
        let last = read_all(&connection, pattern).map_err(fault)?;
        let (writer, waiting) = mpsc::sync_channel(MOST_WAITING);
        // Without the thread talks are kept in memory: better than no daemon.
        let started = std::thread::Builder::new()
            .name("talks".to_owned())
            .spawn(move || write_all(connection, &waiting));
        if let Err(error) = &started {
            tracing::error!(%error, "talks are not kept over a restart");
        }
        Ok(Self {
            last: RwLock::new(last),
            writer: started.is_ok().then_some(writer),
        })
    }

    /// Takes a talk; an older one than is known of this number changes nothing.
    pub fn learn(&self, caller: E164, talk: Talk) {
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        let known = last.get(&caller);
        if known.is_some_and(|known| known.at >= talk.at)
            || (known.is_none() && last.len() >= MOST_KEPT)
        {
            return;
        }
        last.insert(caller, talk.clone());
        drop(last);
        if let Some(writer) = &self.writer {
            // A full queue or a writer that is gone loses only what a restart would have kept.
            let _ = writer.try_send((caller, talk));
        }
    }

    /// The last talk with this number.
    pub fn last(&self, caller: E164) -> Option<Talk> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        last.get(&caller).cloned()
    }
}

fn open_file(path: &Path) -> rusqlite::Result<Connection> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Made first, so that only its owner can read it; where that fails SQLite says why.
    let _ = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS talks (
            phone INTEGER PRIMARY KEY, extension TEXT NOT NULL, at INTEGER NOT NULL,
            outgoing INTEGER NOT NULL
        ) STRICT;",
    )?;
    Ok(connection)
}

fn read_all(
    connection: &Connection,
    pattern: &ExtensionPattern,
) -> rusqlite::Result<HashMap<E164, Talk>> {
    let mut statement = connection
        .prepare("SELECT phone, extension, at, outgoing FROM talks ORDER BY at DESC LIMIT ?1")?;
    let mut rows = statement.query([i64::try_from(MOST_KEPT).unwrap_or(i64::MAX)])?;
    let mut last = HashMap::new();
    while let Some(row) = rows.next()? {
        let phone: i64 = row.get(0)?;
        let extension: String = row.get(1)?;
        let number = u64::try_from(phone).ok().and_then(E164::from_digits);
        let at = Timestamp::from_second(row.get(2)?).ok();
        let extension = Extension::read(&extension, pattern).ok();
        let direction = if row.get(3)? {
            Direction::Outgoing
        } else {
            Direction::Incoming
        };
        if let (Some(number), Some(at), Some(extension)) = (number, at, extension) {
            let talk = Talk {
                extension,
                at,
                direction,
            };
            last.insert(number, talk);
        }
    }
    Ok(last)
}

/// Writes talks until nobody can send any more.
fn write_all(mut connection: Connection, waiting: &mpsc::Receiver<(E164, Talk)>) {
    while let Ok(first) = waiting.recv() {
        let more = waiting.try_iter().take(WRITTEN_AT_ONCE);
        let talks: Vec<_> = std::iter::once(first).chain(more).collect();
        if let Err(error) = write(&mut connection, &talks) {
            tracing::error!(%error, count = talks.len(), "talks were not written");
        }
    }
}

fn write(connection: &mut Connection, talks: &[(E164, Talk)]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO talks (phone, extension, at, outgoing) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (phone) DO UPDATE SET extension = ?2, at = ?3, outgoing = ?4 WHERE at < ?3",
    )?;
    for (caller, talk) in talks {
        insert.execute(params![
            caller.digits().cast_signed(),
            talk.extension.as_str(),
            talk.at.as_second(),
            talk.direction == Direction::Outgoing,
        ])?;
    }
    drop(insert);
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::{CallerNumber, Region, read_caller};

    fn number(written: &str) -> E164 {
        match read_caller(written, Region::default()) {
            CallerNumber::Number(number) => number,
            other => panic!("{other:?}"),
        }
    }

    fn talk(extension: &str, second: i64) -> Talk {
        Talk {
            extension: Extension::read(extension, &ExtensionPattern::default()).unwrap(),
            at: Timestamp::from_second(second).unwrap(),
            direction: Direction::Incoming,
        }
    }

    #[test]
    fn the_last_talk_of_a_number_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let open = || Talks::open(folder.path(), 90, &ExtensionPattern::default(), now).unwrap();
        let (ivan, old) = (number("+79161234567"), number("+79161234568"));
        let talks = open();
        talks.learn(ivan, talk("101", 1_794_900_000));
        talks.learn(ivan, talk("102", 1_794_990_000));
        talks.learn(ivan, talk("103", 1_794_000_000));
        talks.learn(old, talk("104", 1_700_000_000));
        assert_eq!(talks.last(ivan), Some(talk("102", 1_794_990_000)));
        drop(talks);
        // The writer ends by itself once nobody can send: what it has yet to write comes in a moment.
        let began = std::time::Instant::now();
        while open().last(ivan).is_none() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "the talk was not written"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(open().last(ivan), Some(talk("102", 1_794_990_000)));
        assert_eq!(open().last(old), None, "older than 90 days");
    }
}
