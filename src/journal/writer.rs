//! The thread that writes the journal. Nobody waits for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::entry::{Entry, Numbers};
use super::file::{self, File, JournalError};
use super::shown::KnownOutcome;
use super::{Clock, Gauge, Record, Stopwatch};
use crate::call::Outcome;
use crate::directory::Directory;
use crate::{fault, metrics};

/// Records that are written in one transaction.
const BATCH: usize = 128;
/// After a batch the thread rests so long: at most 1280 records a second are written, more than any
/// exchange asks, so that the journal never takes the processor from those who answer.
const REST: Duration = Duration::from_millis(100);
/// How long it waits for a record before it looks after old entries.
const LOOK_ROUND: Duration = Duration::from_millis(500);
/// Outcomes that wait for the first question of their call.
const MOST_WAITING: usize = 1024;
/// They wait so long.
const WAITS: SignedDuration = SignedDuration::from_mins(10);
/// The same trouble is told once in this time.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// After a failure the file is opened again after this.
const OPEN_AGAIN: Duration = Duration::from_secs(10);

/// Old entries are deleted only once the clock has run on for so long: one that is a year ahead for a
/// moment, as after a start without a battery, would take the whole journal.
const STEADY: Duration = Duration::from_hours(1);
/// A clock that is so far from the time that has passed was set.
const SET: SignedDuration = SignedDuration::from_mins(1);

/// What the thread needs.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) keep: SignedDuration,
    pub(super) numbers: Numbers,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) clock: Clock,
    pub(super) stopwatch: Stopwatch,
    pub(super) gauge: Arc<Gauge>,
}

/// Its state.
struct State {
    file: Option<File>,
    waiting: Vec<(Outcome, Timestamp)>,
    tried_to_open: Option<Instant>,
    told_trouble: Option<Instant>,
    told_drops: Option<Instant>,
    drops_told: u64,
    steady: Steady,
}

/// Since when the clock has run on without being set.
struct Steady {
    since: Instant,
    /// What it said when it was last looked at.
    last: (Instant, Timestamp),
}

impl Steady {
    fn from(at: Instant, now: Timestamp) -> Self {
        Self {
            since: at,
            last: (at, now),
        }
    }

    /// Looks at the clock, which says `now`; gives how long it has run on.
    fn look(&mut self, at: Instant, now: Timestamp) -> Duration {
        let passed = at.saturating_duration_since(self.last.0);
        let ran = now.duration_since(self.last.1);
        let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
        if ran.saturating_sub(passed).abs() > SET {
            self.since = at;
        }
        self.last = (at, now);
        at.saturating_duration_since(self.since)
    }
}

impl Writer {
    /// Writes until it is asked to stop and nothing waits.
    pub(super) fn run(self, records: &Receiver<Record>) {
        let mut state = State {
            file: None,
            waiting: Vec::new(),
            tried_to_open: None,
            told_trouble: None,
            told_drops: None,
            drops_told: 0,
            steady: Steady::from((self.stopwatch)(), (self.clock)()),
        };
        loop {
            self.open(&mut state);
            let mut batch = Vec::new();
            let next = records.recv_timeout(LOOK_ROUND);
            let is_over = matches!(next, Err(RecvTimeoutError::Disconnected));
            batch.extend(next);
            while batch.len() < BATCH {
                let Ok(record) = records.try_recv() else {
                    break;
                };
                batch.push(record);
            }
            self.gauge.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            let is_stopping = self.gauge.stop.load(Ordering::Acquire);
            let is_empty = batch.is_empty();
            self.write(&mut state, batch);
            self.tend(&mut state);
            self.tell_drops(&mut state);
            if is_empty && (is_stopping || is_over) {
                return;
            }
            if !is_empty && !is_stopping {
                std::thread::sleep(REST);
            }
        }
    }

    /// Opens the file, moves aside what is no journal, and begins anew.
    fn open(&self, state: &mut State) {
        let lately = |tried: Instant| tried.elapsed() < OPEN_AGAIN;
        if state.file.is_some() || state.tried_to_open.is_some_and(lately) {
            return;
        }
        state.tried_to_open = Some(Instant::now());
        let opened = File::open(&self.path).or_else(|error| {
            if !error.is_damage() {
                return Err(error);
            }
            self.move_aside(&error)?;
            File::open(&self.path)
        });
        match opened {
            Ok(file) => {
                self.gauge.tell(&file);
                state.file = Some(file);
            }
            Err(error) => tell(state, &error),
        }
    }

    fn move_aside(&self, why: &JournalError) -> Result<(), JournalError> {
        let aside = file::move_aside(&self.path, (self.clock)())?;
        tracing::error!(
            error = fault::told(why),
            aside = %aside.display(),
            "the journal was damaged; it is moved aside and a new one begun"
        );
        Ok(())
    }

    /// Writes a batch; repeats it while somebody else holds the file.
    fn write(&self, state: &mut State, batch: Vec<Record>) {
        if batch.is_empty() {
            return;
        }
        loop {
            let Some(file) = &mut state.file else {
                self.gauge.drop_records(batch.len());
                return;
            };
            let roster = self.directory.roster();
            let entry_of = |record: &Record| match record {
                Record::Decided(told) => {
                    let (call, decision, now) = &**told;
                    Some(Entry::new(call, decision, *now, &roster, self.numbers))
                }
                Record::Ended(_) => None,
            };
            match file.apply(&batch, &state.waiting, &entry_of) {
                Ok(applied) => {
                    self.gauge.tell(file);
                    count(&applied.settled);
                    self.keep_unplaced(state, batch, &applied);
                    return;
                }
                Err(error) if error.is_busy() && !self.gauge.stop.load(Ordering::Acquire) => {
                    std::thread::sleep(REST);
                    self.tell_drops(state);
                }
                Err(error) => {
                    self.failed(state, &error);
                    self.gauge.drop_records(batch.len());
                    return;
                }
            }
        }
    }

    /// Outcomes that came before their call wait for it; those that were used wait no more.
    fn keep_unplaced(&self, state: &mut State, batch: Vec<Record>, applied: &file::Applied) {
        let oldest = (self.clock)().checked_sub(WAITS).unwrap_or(Timestamp::MIN);
        let waiting = &mut state.waiting;
        waiting.retain(|(outcome, at)| !applied.begun.contains(&outcome.call_id) && *at >= oldest);
        for (index, record) in batch.into_iter().enumerate() {
            if let (true, Record::Ended(told)) = (applied.unplaced.contains(&index), record) {
                waiting.push(*told);
            }
        }
        let surplus = waiting.len().saturating_sub(MOST_WAITING);
        waiting.drain(..surplus);
    }

    /// Settles and deletes a step, where anything is due.
    fn tend(&self, state: &mut State) {
        let Some(file) = &mut state.file else {
            return;
        };
        let now = (self.clock)();
        let is_steady = state.steady.look((self.stopwatch)(), now) >= STEADY;
        let before = now.checked_sub(self.keep).unwrap_or(Timestamp::MIN);
        let prune = |file: &File| {
            if is_steady {
                file.prune(before)?;
            }
            Ok(())
        };
        let tended = file
            .settle(now)
            .map(|settled| count(&settled))
            .and_then(|()| prune(file));
        match tended {
            Err(error) if !error.is_busy() => self.failed(state, &error),
            _ => {}
        }
    }

    fn failed(&self, state: &mut State, error: &JournalError) {
        tell(state, error);
        if error.is_damage() {
            state.file = None;
            state.tried_to_open = None;
            if let Err(error) = self.move_aside(error) {
                tell(state, &error);
            }
        }
    }

    fn tell_drops(&self, state: &mut State) {
        let dropped = self.gauge.dropped.load(Ordering::Relaxed);
        let lately = |told: Instant| told.elapsed() < TELL_EVERY;
        if dropped == state.drops_told || state.told_drops.is_some_and(lately) {
            return;
        }
        let count = dropped - state.drops_told;
        state.told_drops = Some(Instant::now());
        state.drops_told = dropped;
        tracing::warn!(
            count,
            "the journal could not keep up and lacks these records; no call has waited for it"
        );
    }
}

fn count(settled: &[KnownOutcome]) {
    for outcome in settled {
        metrics::count_known_caller(outcome.as_str());
    }
}

fn tell(state: &mut State, error: &JournalError) {
    let lately = |told: Instant| told.elapsed() < TELL_EVERY;
    if state.told_trouble.is_some_and(lately) {
        return;
    }
    state.told_trouble = Some(Instant::now());
    tracing::error!(
        error = fault::told(error),
        "the journal is not written; calls are answered all the same"
    );
}

/// The journal of a folder.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("journal.sqlite")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_not_believed_at_once() {
        let (start, noon) = (
            Instant::now(),
            Timestamp::from_second(1_795_000_000).unwrap(),
        );
        let at = |minutes: u64| start + Duration::from_mins(minutes);
        let said = |minutes: i64| noon + SignedDuration::from_mins(minutes);
        let mut steady = Steady::from(start, noon);
        let mut ran = |minutes: u64, said_minutes: i64| {
            steady.look(at(minutes), said(said_minutes)).as_secs() / 60
        };
        assert_eq!(ran(10, 10), 10);
        assert_eq!(ran(59, 59), 59);
        // It drifts, and is set right by seconds.
        assert_eq!(ran(70, 70), 70);
        let year = 365 * 24 * 60;
        assert_eq!(ran(71, 71 + year), 0);
        assert_eq!(ran(80, 80 + year), 9);
        // Set back.
        assert_eq!(ran(81, 81), 0);
        assert_eq!(ran(141, 141), 60);
    }
}
