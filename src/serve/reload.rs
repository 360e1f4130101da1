//! Reads the configuration again without losing a call.
//!
//! The new file is read and checked whole, and all that it needs is opened; only then is anything
//! swapped. Whatever fails before, nothing has changed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use super::answering::{Answering, Current};
use super::mirrors::{Mirrors, Sources};
use super::pbx::Pbx;
use super::standing::Standing;
use crate::api::reload::{Reloaded, Request};
use crate::config::{self, Config, ConfigError, Followed};
use crate::directory::DirectoryError;
use crate::fault;
use crate::metrics;
use crate::shadow::ShadowError;

/// How often a file is looked at again that somebody is writing, and how soon.
const SETTLE_TRIES: usize = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Open(#[from] StartError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    #[error("{0}")]
    OwnShadow(String),
    #[error("pryamo failed inside while it read the configuration")]
    Fault,
}

/// Follows the configuration of a running daemon.
pub(super) struct Reloader {
    /// In force; what waits for a restart is as it was at the start.
    pub(super) config: Config,
    /// Handed to whatever is made anew.
    pub(super) standing: Standing,
    pub(super) current: Current,
    pub(super) mirrors: Mirrors,
    pub(super) pbx: Pbx,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Reloader {
    /// Reloads whenever it is asked to, until the daemon stops.
    pub(super) async fn run(mut self, mut requests: Receiver<Request>) {
        loop {
            let request = tokio::select! {
                request = requests.recv() => request,
                () = self.stop.cancelled() => return,
            };
            let Some(request) = request else { return };
            let reloaded = self.reload().await;
            tell(&reloaded);
            // Whoever asked may have gone.
            let _ = request.send(reloaded.map_err(|error| fault::told(&error)));
        }
    }

    async fn reload(&mut self) -> Result<Reloaded, ReloadError> {
        let path = self.config.path.clone();
        settle(path.as_deref()).await;
        let read = tokio::task::spawn_blocking(move || Config::load(path.as_deref())).await;
        let read = read.map_err(|_| ReloadError::Fault)??;
        let Followed {
            config,
            taken,
            waiting,
        } = config::follow(&self.config, read);
        let own = config.forward.listen;
        config.shadow.check(own).map_err(ReloadError::OwnShadow)?;
        self.take_over(config).await?;
        Ok(Reloaded { taken, waiting })
    }

    async fn take_over(&mut self, config: Config) -> Result<(), ReloadError> {
        let Standing {
            directory, clock, ..
        } = &self.standing;
        let sources = Sources::open(&config, &self.mirrors, false)?;
        let mirrors = sources.mirrored(&config, &self.mirrors, directory, clock);
        let pbx = self.pbx.next(&config, clock(), &self.stop);
        let former = self.current.load_full();
        let next = Answering::new(
            &config,
            &self.standing,
            &mirrors,
            pbx.presence(),
            Some(&former),
        )?;
        if let Err(error) = self.prepare(&config, &mirrors).await {
            self.mirrors.start(&self.stop, &self.tasks);
            // The former module was asked before, so it can be asked again.
            let _ = self.follow_shadow(&self.config);
            return Err(error);
        }
        mirrors.succeed(&self.mirrors);
        self.current.store(Arc::new(next));
        self.pbx = pbx;
        self.pbx
            .follow(&self.current, &self.standing.clock, &self.tasks);
        self.mirrors = mirrors;
        self.mirrors.start(&self.stop, &self.tasks);
        self.config = config;
        Ok(())
    }

    /// The last steps that may fail. Mirrors that are to go stop here: two of one CRM would ask it
    /// twice.
    async fn prepare(&self, config: &Config, mirrors: &Mirrors) -> Result<(), ReloadError> {
        let directory = &*self.standing.directory;
        self.follow_shadow(config)?;
        self.mirrors.stop_unless_in(mirrors).await;
        mirrors.forget_others(directory).await?;
        super::note_unused(config, directory).await?;
        directory.set_rules(config.roster_rules()).await?;
        Ok(())
    }

    fn follow_shadow(&self, config: &Config) -> Result<(), ShadowError> {
        let shadow = &self.standing.shadow;
        shadow.follow(&config.shadow, &Handle::current())
    }
}

/// Waits until nobody writes the file any more: half of one may be a sound one without a CRM.
async fn settle(path: Option<&Path>) {
    let Some(path) = path else { return };
    let mut before = tokio::fs::read(path).await.ok();
    for _ in 0..SETTLE_TRIES {
        tokio::time::sleep(SETTLE_PAUSE).await;
        let now = tokio::fs::read(path).await.ok();
        if now == before {
            return;
        }
        before = now;
    }
}

fn tell(reloaded: &Result<Reloaded, ReloadError>) {
    match reloaded {
        Err(error) => {
            metrics::count_reload("refused");
            let error = fault::told(error);
            tracing::error!(
                error,
                "the configuration cannot be used; nothing has changed"
            );
        }
        Ok(reloaded) => {
            metrics::count_reload("taken");
            let taken = reloaded.taken.join(", ");
            tracing::info!(taken, "the configuration was read again");
            if !reloaded.waiting.is_empty() {
                let keys = reloaded.waiting.join(", ");
                tracing::warn!(keys, "what these keys say waits for a restart");
            }
        }
    }
}
