//! Opens what the PBX tells besides its questions: phones' states, and who spoke with whom.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use futures::FutureExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::RESTART_PAUSE;
use super::answering::Current;
use crate::config::Config;
use crate::fault;
use crate::metrics;
use crate::pbx::ami::{self, Ami};
use crate::pbx::talks::Talks;
use crate::pbx::talks::history::{self, Reading};
use crate::phone::Region;
use crate::presence::Presence;
use crate::sync::Clock;

/// What the PBX tells.
pub(super) struct Pbx {
    talks: Arc<Talks>,
    /// Whether the talks are those of a file, or should have been.
    is_opened: bool,
    line: Arc<Line>,
    history: Option<Arc<History>>,
}

/// The line to the Manager Interface. Dropped, it is closed.
struct Line {
    made_of: (ami::Settings, Reads),
    ami: Arc<Ami>,
    stop: CancellationToken,
    is_followed: AtomicBool,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The CDR file that is followed.
struct History {
    reads: Reads,
    // Dropped, it ends the thread that follows the file.
    _end: Sender<()>,
}

/// How what the PBX tells is read.
#[derive(PartialEq)]
struct Reads {
    pattern: String,
    region: Region,
    zone: TimeZone,
}

impl Reads {
    fn of(config: &Config) -> Self {
        Self {
            pattern: config.matching.extension_pattern.to_string(),
            region: config.phone.region,
            zone: config.office.zone(),
        }
    }
}

impl Pbx {
    /// Opens the file of the talks. One that cannot be used costs the history and no call.
    pub(super) fn open(config: &Config, now: Timestamp, stop: &CancellationToken) -> Self {
        let is_opened = is_wanted(config);
        let talks = open_talks(config, now);
        Self {
            line: Arc::new(Line::new(config, &talks, stop)),
            history: follow_history(config, &talks).map(Arc::new),
            talks,
            is_opened,
        }
    }

    /// What this configuration makes of it; what did not change is shared.
    pub(super) fn next(&self, config: &Config, now: Timestamp, stop: &CancellationToken) -> Self {
        if is_wanted(config) && !self.is_opened {
            // Nobody has told of a talk so far.
            return Self::open(config, now, stop);
        }
        let line = if self.line.is_of(config) {
            Arc::clone(&self.line)
        } else {
            Arc::new(Line::new(config, &self.talks, stop))
        };
        let reads = Reads::of(config);
        let history = match &self.history {
            Some(history) if history.reads == reads => Some(Arc::clone(history)),
            _ => follow_history(config, &self.talks).map(Arc::new),
        };
        Self {
            talks: Arc::clone(&self.talks),
            is_opened: self.is_opened,
            line,
            history,
        }
    }

    /// What rules may ask.
    pub(super) fn presence(&self) -> Arc<dyn Presence> {
        Arc::<Ami>::clone(&self.line.ami)
    }

    /// Listens to the PBX, unless it is listened to already, and tells the reception what became of
    /// phones that were rung.
    pub(super) fn follow(&self, current: &Current, clock: &Clock, tasks: &TaskTracker) {
        if self.line.is_followed.swap(true, Ordering::Relaxed) {
            return;
        }
        let (current, clock) = (Arc::clone(current), Arc::clone(clock));
        let (ami, stop) = (Arc::clone(&self.line.ami), self.line.stop.clone());
        tasks.spawn(async move {
            loop {
                let heard = |outcome: &_| current.load().web.reception.ended(outcome);
                let run = ami.run(Arc::clone(&clock), heard, stop.clone());
                if AssertUnwindSafe(run).catch_unwind().await.is_ok() {
                    return;
                }
                metrics::count_panic();
                tracing::error!("listening to Asterisk failed inside; it begins again in a minute");
                tokio::select! {
                    () = tokio::time::sleep(RESTART_PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
    }
}

impl Line {
    fn new(config: &Config, talks: &Arc<Talks>, stop: &CancellationToken) -> Self {
        let ami = Ami::new(
            config.ami.clone(),
            Arc::clone(talks),
            config.matching.extension_pattern.clone(),
            config.phone.region,
        );
        Self {
            made_of: (config.ami.clone(), Reads::of(config)),
            ami: Arc::new(ami),
            stop: stop.child_token(),
            is_followed: AtomicBool::new(false),
        }
    }

    fn is_of(&self, config: &Config) -> bool {
        let ((old, reads), new) = (&self.made_of, &config.ami);
        let secret = |settings: &ami::Settings| {
            let secret = settings.secret.as_ref();
            secret.map(|secret| secret.expose_secret().to_owned())
        };
        old.address == new.address
            && old.user == new.user
            && old.contexts == new.contexts
            && secret(old) == secret(new)
            && *reads == Reads::of(config)
    }
}

fn is_wanted(config: &Config) -> bool {
    config.ami.address.is_some() || config.talks.cdr.is_some()
}

fn open_talks(config: &Config, now: Timestamp) -> Arc<Talks> {
    let pattern = &config.matching.extension_pattern;
    let opened =
        is_wanted(config).then(|| Talks::open(&config.data_dir, config.talks.days, pattern, now));
    let talks = match opened {
        None => Talks::in_memory(),
        Some(Ok(talks)) => talks,
        Some(Err(error)) => {
            tracing::error!(
                error = fault::told(&error),
                "talks are not kept over a restart"
            );
            Talks::in_memory()
        }
    };
    Arc::new(talks)
}

fn follow_history(config: &Config, talks: &Arc<Talks>) -> Option<History> {
    let path = config.talks.cdr.as_ref()?;
    let reading = Reading {
        path: path.clone(),
        pattern: config.matching.extension_pattern.clone(),
        region: config.phone.region,
        zone: config.office.zone(),
    };
    let followed = history::follow(reading, Arc::clone(talks));
    let told = |error| tracing::error!(%error, "the CDR file is not followed");
    let reads = Reads::of(config);
    followed
        .map_err(told)
        .ok()
        .map(|end| History { reads, _end: end })
}
