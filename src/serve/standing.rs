//! What lives as long as the process, however often the configuration is read again.
//!
//! Whatever must outlive a reload (a memory, a thread, sessions) stands here, and is handed to what is
//! made anew by [`super::answering`].

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{CONTROL_TOKEN, StartError, refused};
use crate::api::reload::Reloads;
use crate::config::Config;
use crate::directory::{Directory, Surveyor};
use crate::journal::{self, Feed, Journal};
use crate::metrics;
use crate::page::{Commands, Door};
use crate::reception::{Memory, Watcher};
use crate::secret;
use crate::shadow::Shadow;
use crate::sync::Clock;

/// Of the token of `pryamo`'s own commands.
const TOKEN_BYTES: usize = 32;

/// The parts that stay.
pub(super) struct Standing {
    /// The mirror of all CRMs.
    pub(super) directory: Arc<dyn Directory>,
    /// Looks for what is wrong with the cards.
    pub(super) surveyor: Arc<Surveyor>,
    /// Tells the page that calls have come.
    pub(super) feed: Option<Feed>,
    /// Who may see the page, and who is in.
    pub(super) door: Arc<Door>,
    /// Runs pryamo's own commands for the page.
    pub(super) commands: Arc<Commands>,
    /// Ends what streams.
    pub(super) stop: CancellationToken,
    /// The wall clock.
    pub(super) clock: Clock,
    /// When each call under way asked first.
    pub(super) memory: Memory,
    /// Who hears of calls.
    pub(super) watchers: Vec<Arc<dyn Watcher>>,
    /// Compares answers with the former module's.
    pub(super) shadow: Arc<Shadow>,
    /// What `pryamo`'s own commands show.
    pub(super) control_token: SecretString,
    /// Renders the metrics.
    pub(super) prometheus: Option<PrometheusHandle>,
    /// Asks for the configuration to be read again.
    pub(super) reloads: Reloads,
}

impl Standing {
    /// Must be called on the runtime on which cards are to be looked through.
    pub(super) fn new(
        config: &Config,
        directory: Arc<dyn Directory>,
        clock: Clock,
        journal: Option<Arc<Journal>>,
        reloads: Reloads,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let surveyor = Surveyor::new(
            Arc::clone(&directory),
            Arc::clone(&clock),
            Handle::current(),
        );
        Ok(Self {
            surveyor: Arc::new(surveyor),
            feed: journal.as_deref().map(Feed::of),
            door: Arc::new(Door::open(&config.data_dir)),
            commands: Arc::new(Commands::new(config.path.clone())),
            stop: stop.clone(),
            memory: Memory::default(),
            watchers: journal
                .map(|journal| journal as Arc<dyn Watcher>)
                .into_iter()
                .collect(),
            shadow: Arc::default(),
            control_token: make_control_token(&config.data_dir)?,
            // A second daemon in one process (tests) goes without.
            prometheus: metrics::install(clock()).ok(),
            reloads,
            directory,
            clock,
        })
    }
}

/// Begins the journal unless it is switched off.
pub(super) fn start_journal(
    config: &Config,
    directory: &Arc<dyn Directory>,
    clock: &Clock,
) -> Result<Option<(Arc<Journal>, journal::Thread)>, StartError> {
    if !config.journal.enabled {
        return Ok(None);
    }
    let (directory, clock) = (Arc::clone(directory), Arc::clone(clock));
    let stopwatch = Arc::new(Instant::now);
    Journal::start(
        &config.journal,
        &config.data_dir,
        directory,
        clock,
        stopwatch,
    )
    .map(Some)
    .map_err(refused("start the thread of the journal"))
}

/// A new token for `pryamo`'s own commands, readable by the owner of `data_dir` only.
fn make_control_token(data_dir: &Path) -> Result<SecretString, StartError> {
    let token = secret::made_up::<TOKEN_BYTES>().map_err(refused("get random numbers"))?;
    secret::write(&data_dir.join(CONTROL_TOKEN), token.as_bytes())
        .map_err(refused("write control.token into `data_dir`"))?;
    Ok(token.into())
}
