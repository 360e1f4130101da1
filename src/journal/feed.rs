//! Entries as they begin or change, for everyone who looks on.
//!
//! One thread reads for all of them, and only while there are any. Whoever is slow loses the oldest.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::broadcast;

use super::shown::Shown;
use super::{JournalError, Query, Reader, search};
use crate::fault;

/// How often the thread looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Entries that are kept for a slow subscriber.
const MOST_KEPT: usize = 1024;

/// Tells its subscribers of calls.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    reader: Reader,
    sender: broadcast::Sender<Arc<Shown>>,
    /// Whether the thread runs.
    is_looking: Mutex<bool>,
}

impl Feed {
    /// Over this journal; nothing is read before somebody subscribes.
    pub fn new(reader: Reader) -> Self {
        Self(Arc::new(Inner {
            reader,
            sender: broadcast::Sender::new(MOST_KEPT),
            is_looking: Mutex::new(false),
        }))
    }

    /// Tells of every entry that begins or changes from now on, in the order of the changes.
    ///
    /// Reads one number from the journal's file for the first subscriber: call it where a short read
    /// may block.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Shown>> {
        let mut is_looking = fault::lock(&self.0.is_looking);
        let receiver = self.0.sender.subscribe();
        if !*is_looking {
            let seen = search::newest_change(&self.0.reader.0).ok();
            let inner = Arc::downgrade(&self.0);
            let thread = std::thread::Builder::new().name("journal-feed".to_owned());
            match thread.spawn(move || look(&inner, seen)) {
                Ok(_) => *is_looking = true,
                Err(error) => tracing::error!(
                    error = fault::told(&error),
                    "live calls cannot be shown; the journal is written all the same"
                ),
            }
        }
        receiver
    }
}

/// Looks until nobody is subscribed or the feed is gone.
fn look(feed: &Weak<Inner>, mut seen: Option<i64>) {
    let mut is_failing = false;
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(inner) = feed.upgrade() else {
            return;
        };
        {
            let mut is_looking = fault::lock(&inner.is_looking);
            if inner.sender.receiver_count() == 0 {
                *is_looking = false;
                return;
            }
        }
        match inner.step(&mut seen) {
            Ok(()) => is_failing = false,
            Err(error) => {
                if !is_failing {
                    tracing::warn!(error = fault::told(&error), "live calls cannot be read");
                }
                is_failing = true;
            }
        }
    }
}

impl Inner {
    /// Sends what changed since `seen`; a journal begun anew counts its changes anew.
    fn step(&self, seen: &mut Option<i64>) -> Result<(), JournalError> {
        let newest = search::newest_change(&self.reader.0)?;
        let known = seen.map_or(newest, |seen| seen.min(newest));
        *seen = Some(known);
        if known == newest {
            return Ok(());
        }
        let query = Query {
            limit: MOST_KEPT,
            after: Some(known),
            ..Query::default()
        };
        for entry in self.reader.read(&query)? {
            *seen = Some(entry.change);
            // Nobody is left to hear it: the next look ends the thread.
            let _ = self.sender.send(Arc::new(entry));
        }
        Ok(())
    }
}
