//! Opens what the PBX tells besides its questions: phones' states, and who spoke with whom.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::RESTART_PAUSE;
use crate::config::Config;
use crate::fault;
use crate::metrics;
use crate::pbx::ami::Ami;
use crate::pbx::talks::Talks;
use crate::pbx::talks::history::{self, Reading};
use crate::presence::Presence;
use crate::reception::Reception;
use crate::sync::Clock;

/// What the PBX tells.
pub(super) struct Pbx {
    ami: Arc<Ami>,
    // Dropped, it ends the thread that follows the CDR file.
    history: Option<Sender<()>>,
}

impl Pbx {
    /// Opens the file of the talks. One that cannot be used costs the history and no call.
    pub(super) fn open(config: &Config, now: Timestamp) -> Self {
        let pattern = &config.matching.extension_pattern;
        let is_wanted = config.ami.address.is_some() || config.talks.cdr.is_some();
        let opened =
            is_wanted.then(|| Talks::open(&config.data_dir, config.talks.days, pattern, now));
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
        let talks = Arc::new(talks);
        let history = config.talks.cdr.as_ref().and_then(|path| {
            let reading = Reading {
                path: path.clone(),
                pattern: pattern.clone(),
                region: config.phone.region,
                zone: config.office.zone(),
            };
            let followed = history::follow(reading, Arc::clone(&talks));
            let told = |error| tracing::error!(%error, "the CDR file is not followed");
            followed.map_err(told).ok()
        });
        let ami = Ami::new(
            config.ami.clone(),
            talks,
            pattern.clone(),
            config.phone.region,
        );
        Self {
            ami: Arc::new(ami),
            history,
        }
    }

    /// What rules may ask.
    pub(super) fn presence(&self) -> Arc<dyn Presence> {
        Arc::<Ami>::clone(&self.ami)
    }

    /// Listens to the PBX until `stop`, and tells the reception what became of phones that were rung.
    pub(super) fn follow(
        self,
        reception: Arc<Reception>,
        clock: Clock,
        stop: CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        tasks.spawn(async move {
            let _history = self.history;
            loop {
                let heard = |outcome: &_| reception.ended(outcome);
                let run = self.ami.run(Arc::clone(&clock), heard, stop.clone());
                if AssertUnwindSafe(run).catch_unwind().await.is_ok() {
                    // Without an address there is nothing to listen to; the CDR file is followed on.
                    stop.cancelled().await;
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
