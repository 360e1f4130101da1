//! Reads that wait for nobody.
//!
//! SQLite takes and drops a file lock for every statement outside a transaction, which is half the
//! cost of a lookup. So each reader stays inside a transaction and begins anew only when a commit
//! has moved the counter. The price is that a transaction pins the log; [`Readers::tend_log`] pays
//! it. Facts: sqlite.org/wal.html, "Avoiding Excessively Large WAL Files".

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

/// The log is emptied once it holds this many pages: what its index finds in one step, 16 MiB.
const LOG_PAGES: i64 = 4096;

/// The next thread's reader, see [`Readers::take`].
static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<usize> = Cell::new(NEXT_THREAD.fetch_add(1, Ordering::Relaxed));
}

/// Connections for lookups, more than one so that threads do not wait for each other.
pub(super) struct Readers {
    readers: Vec<Mutex<Reader>>,
    /// Commits so far. Moves after a commit and before the writer reports it.
    commits: AtomicU64,
}

struct Reader {
    connection: Connection,
    /// The count of commits, read before the open transaction took its snapshot: the snapshot holds
    /// at least these.
    begun: u64,
}

impl Readers {
    /// Takes over connections on which nothing has begun; at least one.
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        let reader = |connection| {
            Mutex::new(Reader {
                connection,
                begun: 0,
            })
        };
        Self {
            readers: connections.into_iter().map(reader).collect(),
            commits: AtomicU64::new(0),
        }
    }

    /// Lets `work` read one state of the store, no older than the last commit reported.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut reader = self.take().ok_or(rusqlite::Error::InvalidQuery)?;
        reader.begin(self.commits.load(Ordering::SeqCst))?;
        let answer = work(&reader.connection);
        if answer.is_err() {
            reader.end();
        }
        answer
    }

    /// Called by the writer after every commit, before anybody is told of it.
    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::SeqCst);
    }

    /// Empties the log if it has grown; the caller holds the writer, so nobody adds to it.
    ///
    /// First the transactions end that an idle reader has left open, one reader after the other, and
    /// the log is copied into the database while lookups go on. Then, with nothing left to copy, all
    /// readers are held for as long as it takes to turn the log back to its beginning, which touches
    /// memory only. A reader in the way (a long count) puts it off until the next commit.
    pub(super) fn tend_log(&self, writer: &Connection) -> rusqlite::Result<()> {
        if checkpoint(writer, Checkpoint::Look)?.pages < LOG_PAGES {
            return Ok(());
        }
        for reader in &self.readers {
            lock(reader).end();
        }
        if !checkpoint(writer, Checkpoint::Copy)?.is_copied() {
            return Ok(());
        }
        let mut held: Vec<_> = self.readers.iter().map(lock).collect();
        for reader in &mut held {
            reader.end();
        }
        checkpoint(writer, Checkpoint::TurnBack).map(drop)
    }

    /// A free reader, this thread's own if possible: its cache holds what the thread asked before.
    fn take(&self) -> Option<MutexGuard<'_, Reader>> {
        let own = THREAD.get() % self.readers.len().max(1);
        let (before, from_own) = self.readers.split_at_checked(own)?;
        let free = from_own
            .iter()
            .chain(before)
            .find_map(|reader| reader.try_lock().ok());
        free.or_else(|| from_own.first().map(lock))
    }
}

impl Reader {
    /// Makes sure that a transaction is open whose snapshot holds `commits` commits.
    fn begin(&mut self, commits: u64) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() {
            self.connection.prepare_cached("BEGIN")?.execute([])?;
        } else if self.begun != commits {
            self.connection.prepare_cached("COMMIT")?.execute([])?;
            self.connection.prepare_cached("BEGIN")?.execute([])?;
        }
        // The snapshot is taken by the first read after BEGIN, later than the count was loaded.
        self.begun = commits;
        Ok(())
    }

    fn end(&mut self) {
        if !self.connection.is_autocommit() {
            // A failing end leaves the transaction open; the next one ends it.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// What a checkpoint found.
pub(super) struct Log {
    busy: bool,
    /// How many pages it holds.
    pub(super) pages: i64,
    copied: i64,
}

impl Log {
    /// Says whether all of the log is in the database.
    pub(super) fn is_copied(&self) -> bool {
        !self.busy && self.pages == self.copied
    }
}

/// What a checkpoint does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Checkpoint {
    /// Nothing, it says how long the log is.
    Look,
    /// Copies what no reader still needs in the log, and waits for none.
    Copy,
    /// Copies all, then lets the next commit write over the beginning of the log.
    TurnBack,
}

/// Runs a checkpoint.
pub(super) fn checkpoint(writer: &Connection, what: Checkpoint) -> rusqlite::Result<Log> {
    let mut statement = writer.prepare_cached(match what {
        Checkpoint::Look => "PRAGMA wal_checkpoint(NOOP)",
        Checkpoint::Copy => "PRAGMA wal_checkpoint(PASSIVE)",
        Checkpoint::TurnBack => "PRAGMA wal_checkpoint(RESTART)",
    })?;
    statement.query_row([], |row| {
        Ok(Log {
            busy: row.get(0)?,
            pages: row.get(1)?,
            copied: row.get(2)?,
        })
    })
}

/// A panic while a connection was held leaves at worst an open transaction, and that is looked for.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
