//! The journal: every call that was asked about, whom it rang, and what came of it.
//!
//! A watcher of the reception. Answering threads only hand a copy over; a thread of its own puts
//! entries together and writes them into a file of its own. When it cannot keep up, records are
//! dropped and counted: a journal is worth less than a caller's time.

mod entry;
mod export;
mod feed;
mod file;
mod format;
mod search;
mod shown;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::entry::{EntityRef, Entry, Numbers, Person};
pub use self::feed::Feed;
pub use self::file::JournalError;
pub use self::search::HourCount;
pub use self::shown::{Answered, End, KnownOutcome, Shown, ShownStep, ShownTry};
use crate::background;
use crate::call::{IncomingCall, Outcome};
use crate::decision::Decision;
use crate::directory::Directory;
use crate::metrics;
use crate::phone::E164;
use crate::reception::Watcher;

/// Records that wait to be written: a burst of calls. Beyond them they are dropped.
pub const MOST_WAITING: usize = 8192;

/// The wall clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
/// Time as it passes, whatever the wall clock is set to; handed in so that tests may hurry it.
pub type Stopwatch = Arc<dyn Fn() -> Instant + Send + Sync>;

/// `[journal]`: what is written down of calls.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether calls are written down. Default: true.
    pub enabled: bool,
    /// Older entries are deleted. Default: 90.
    pub days: u32,
    /// Writes callers' numbers with their middle hidden. Default: false.
    pub mask_numbers: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            days: Self::DAYS,
            mask_numbers: false,
        }
    }
}

impl Settings {
    /// For how long entries are kept.
    pub const DAYS: u32 = 90;
    /// The longest time that entries may be kept: ten years.
    pub const MOST_DAYS: u32 = 3650;

    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [journal]
# enabled = true                 # what was decided for each call, for `pryamo journal`; in data_dir
# days = 90                      # older entries are deleted
# mask_numbers = false           # true: callers' numbers are kept as +7916***4567
";
}

/// What is handed to the thread.
enum Record {
    Decided(Box<(IncomingCall, Decision, Timestamp)>),
    Ended(Box<(Outcome, Timestamp)>),
}

/// What both sides look at.
#[derive(Default)]
struct Gauge {
    waiting: AtomicUsize,
    dropped: AtomicU64,
    stop: AtomicBool,
    /// The newest change that is in the file.
    change: watch::Sender<i64>,
}

impl Gauge {
    fn drop_records(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
        metrics::count_journal_dropped(count as u64);
    }

    /// Tells of what is in the file, if that is new.
    fn tell(&self, file: &file::File) {
        let newest = file.change();
        self.change.send_if_modified(|told| {
            let is_new = *told != newest;
            *told = newest;
            is_new
        });
    }
}

/// Hears of calls and hands them to the thread that writes.
pub struct Journal {
    records: SyncSender<Record>,
    gauge: Arc<Gauge>,
}

/// The thread that writes. Ends with [`Thread::stop`].
pub struct Thread {
    handle: JoinHandle<()>,
    gauge: Arc<Gauge>,
}

impl Journal {
    /// Begins the journal in `data_dir`. Fails only where no thread can be had: a file that cannot be
    /// used is told in the log and tried again.
    pub fn start(
        settings: &Settings,
        data_dir: &Path,
        directory: Arc<dyn Directory>,
        clock: Clock,
        stopwatch: Stopwatch,
    ) -> std::io::Result<(Arc<Self>, Thread)> {
        let gauge = Arc::new(Gauge::default());
        let (sender, receiver) = sync_channel(MOST_WAITING);
        let writer = writer::Writer {
            path: writer::path(data_dir),
            keep: SignedDuration::from_hours(24 * i64::from(settings.days)),
            numbers: if settings.mask_numbers {
                Numbers::Masked
            } else {
                Numbers::Full
            },
            directory,
            clock,
            stopwatch,
            gauge: Arc::clone(&gauge),
        };
        let handle = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                background::give_way();
                writer.run(&receiver);
            })?;
        let journal = Self {
            records: sender,
            gauge: Arc::clone(&gauge),
        };
        Ok((Arc::new(journal), Thread { handle, gauge }))
    }

    /// How many records were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.gauge.dropped.load(Ordering::Relaxed)
    }

    /// The number of the newest change that can be read; 0 while there is none.
    pub fn changes(&self) -> watch::Receiver<i64> {
        self.gauge.change.subscribe()
    }

    /// Hands a record over; the record is not even made where there is no room for it.
    fn hand_over(&self, record: impl FnOnce() -> Record) {
        if self.gauge.waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING
            && self.records.try_send(record()).is_ok()
        {
            return;
        }
        self.gauge.waiting.fetch_sub(1, Ordering::Relaxed);
        self.gauge.drop_records(1);
    }
}

impl Watcher for Journal {
    fn decided(&self, call: &IncomingCall, decision: &Decision, now: Timestamp) {
        self.hand_over(|| Record::Decided(Box::new((call.clone(), decision.clone(), now))));
    }

    fn ended(&self, outcome: &Outcome, now: Timestamp) {
        self.hand_over(|| Record::Ended(Box::new((outcome.clone(), now))));
    }
}

impl Thread {
    /// Writes what still waits, and ends. Blocks meanwhile.
    pub fn stop(self) {
        self.gauge.stop.store(true, Ordering::Release);
        // A thread that panicked has nothing more to write.
        let _ = self.handle.join();
    }
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// At most so many.
    pub limit: usize,
    /// Entries begun before this one, by [`Shown::id`]; the newest first.
    pub before: Option<i64>,
    /// Entries that changed after this, by [`Shown::change`], in the order of their changes.
    pub after: Option<i64>,
    /// Of this call.
    pub call_id: Option<String>,
    /// Of this caller.
    pub phone: Option<E164>,
    /// Begun at this moment or later.
    pub from: Option<Timestamp>,
    /// Begun before this moment.
    pub until: Option<Timestamp>,
    /// That dialled this number, as it is written.
    pub did: Option<String>,
    /// That ended so.
    pub outcome: Option<Wanted>,
    /// That this number took.
    pub answered: Option<String>,
}

/// Which end of a call is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This one, of a known caller.
    Known(KnownOutcome),
    /// Any, of callers without a card.
    UnknownCallers,
}

impl Wanted {
    /// The word for unknown callers.
    const UNKNOWN: &'static str = "unknown_caller";

    /// Every word that is read.
    pub fn words() -> impl Iterator<Item = &'static str> {
        let known = KnownOutcome::ALL.into_iter().map(KnownOutcome::as_str);
        known.chain([Self::UNKNOWN])
    }

    /// Reads a word; `None` if it is none of [`Wanted::words`].
    pub fn read(word: &str) -> Option<Self> {
        if word == Self::UNKNOWN {
            return Some(Self::UnknownCallers);
        }
        KnownOutcome::read(word).map(Self::Known)
    }
}

impl Query {
    /// So many entries are given where nothing is said.
    pub const USUAL: usize = 50;
    /// More are never given at once.
    pub const MOST: usize = 1000;
}

/// Reads the journal of a folder, off every call's path.
#[derive(Debug, Clone)]
pub struct Reader(PathBuf);

impl Reader {
    /// For the journal in `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self(writer::path(data_dir))
    }

    /// Reads entries: the newest first, with `after` the oldest change first. Blocks.
    pub fn read(&self, query: &Query) -> Result<Vec<Shown>, JournalError> {
        search::read(&self.0, query)
    }

    /// How many calls began in each hour from that of `from` to before `until`, by their end; the
    /// earliest first. Blocks.
    pub fn hours(&self, from: Timestamp, until: Timestamp) -> Result<Vec<HourCount>, JournalError> {
        search::hours(&self.0, from, until)
    }

    /// Writes all entries that fit as CSV, the newest first, times by the clock of `zone`; says how
    /// many. The query's `limit` and `after` count for nothing here. Blocks.
    pub fn export(
        &self,
        query: &Query,
        zone: &TimeZone,
        out: &mut dyn io::Write,
    ) -> Result<u64, JournalError> {
        export::export(&self.0, query, zone, out)
    }
}
