//! Opens everything, supervises it, stops it: the one place where the parts meet.

mod answering;
mod callers;
mod fastagi;
mod mirrors;
mod pbx;
mod reload;
mod sockets;
mod standing;
mod surveys;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::response::IntoResponse as _;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::answering::replay_router;
use self::answering::{Answering, Current};
use self::mirrors::{Mirrors, Sources};
use self::pbx::Pbx;
use self::reload::Reloader;
use self::sockets::bind;
use self::standing::Standing;
use crate::api::reload::{Reloaded, Reloads};
use crate::config::{self, Config, CrmTable};
use crate::crm::{self, Crm, SettingsError};
use crate::directory::{self, Directory, DirectoryError, OpenError, Opening};
use crate::http_server;
use crate::journal;
use crate::metrics;
use crate::phone;
use crate::rules::RuleError;
use crate::secret;
use crate::shadow::ShadowError;
use crate::sync::Clock;
use crate::web;

/// The file in `data_dir` that holds the token of `pryamo`'s own commands.
pub const CONTROL_TOKEN: &str = "control.token";

/// The file in `data_dir` that says where the daemon listens: its file may name another address since.
pub const CONTROL_ADDRESS: &str = "control.address";

/// A former life whose last trace is younger may have filled a CRM's bucket.
const LATELY: SignedDuration = SignedDuration::from_mins(2);

/// How long a mirror that failed inside rests.
const RESTART_PAUSE: Duration = Duration::from_mins(1);

/// A daemon that listens. Stops when [`Daemon::stop`] is called.
pub struct Daemon {
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
    threads: Vec<JoinHandle<()>>,
    journal: Option<journal::Thread>,
    reloads: Reloads,
}

/// The wall clock.
pub fn clock() -> Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that is handed to all others"
    )]
    Arc::new(Timestamp::now)
}

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something listens there already.
    #[error(
        "{0} is taken: another pryamo or the vendor's module listens there; stop it, or change `forward.listen`"
    )]
    Taken(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {0} (`forward.listen`)")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The address for notices cannot be listened on.
    #[error("cannot listen on {0} (`hooks.listen`)")]
    ListenForHooks(SocketAddr, #[source] std::io::Error),
    /// The address for the page cannot be listened on.
    #[error("cannot listen on {0} (`page.listen`)")]
    ListenForPage(SocketAddr, #[source] std::io::Error),
    /// The address for FastAGI cannot be listened on.
    #[error("cannot listen on {0} (`fastagi.listen`); change it, or switch it off with \"\"")]
    ListenForFastAgi(SocketAddr, #[source] std::io::Error),
    /// A `[[crm]]` table cannot be used.
    #[error("crm `{name}`")]
    Crm {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        cause: SettingsError,
    },
    /// A rule's table cannot be used.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The former module cannot be asked.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// The directory cannot be opened.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The system refused something that is always there.
    #[error("cannot {doing}")]
    System {
        /// What was refused.
        doing: &'static str,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

fn refused(doing: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |cause| StartError::System { doing, cause }
}

/// Opens the connector of a `[[crm]]` table.
///
/// `asked_lately` is that of [`crm::Common`].
pub fn open_crm(
    config: &Config,
    table: &CrmTable,
    asked_lately: bool,
) -> Result<Arc<dyn Crm>, StartError> {
    let fault = |cause| StartError::Crm {
        name: table.name.to_string(),
        cause,
    };
    let kind = crm::KINDS.iter().find(|kind| kind.name == table.kind);
    let unknown = || SettingsError::Wrong(format!("`kind = \"{}\"` is not known", table.kind));
    let kind = kind.ok_or_else(unknown).map_err(fault)?;
    (kind.open)(
        table.own.clone(),
        config.connector_common(table, asked_lately),
    )
    .map_err(|error| match error {
        // The kind does not know how unknown keys are told.
        SettingsError::Wrong(text) => SettingsError::Wrong(config::explain_serde(&text)),
        file @ SettingsError::File { .. } => file,
    })
    .map_err(fault)
}

/// Opens the directory that the configuration names.
pub fn open_directory(config: &Config) -> Result<Arc<dyn Directory>, StartError> {
    let kind = directory::KINDS
        .iter()
        .find(|kind| kind.name == config.directory_kind);
    let unknown = || {
        OpenError::Settings(format!(
            "`directory.kind = \"{}\"` is not known",
            config.directory_kind
        ))
    };
    let opening = Opening {
        data_dir: config.data_dir.clone(),
        rules: config.roster_rules(),
    };
    Ok((kind.ok_or_else(unknown)?.open)(
        config.directory.clone(),
        opening,
    )?)
}

impl Daemon {
    /// Opens the directory and the CRMs, and begins to answer.
    ///
    /// Must be called on a runtime: syncs and live lookups run there; calls are answered on threads
    /// of their own.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, StartError> {
        raise_open_files();
        // The numbering plans are unpacked at their first use: not while a caller waits.
        let _ = phone::read_caller("79161234567", config.phone.region);
        let nobody = Mirrors::default();
        let sources = Sources::open(config, &nobody, ran_lately(&config.data_dir, clock()))?;
        let listener = listen(config.forward.listen)?;
        let address = listener
            .local_addr()
            .map_err(refused("read the port's address"))?;
        let fastagi = fastagi::listen(&config.fastagi)?;
        let directory = open_directory(config)?;
        let mirrors = sources.mirrored(config, &nobody, &directory, &clock);
        mirrors
            .forget_others(&*directory)
            .await
            .map_err(OpenError::from)?;
        note_unused(config, &*directory)
            .await
            .map_err(OpenError::from)?;
        let hooks = config.hooks.listen.map(listen_for_hooks).transpose()?;
        let page = config.page.listen.map(listen_for_page).transpose()?;
        sockets::tell_unused();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let pbx = Pbx::open(config, clock(), &stop);
        let told = address.to_string();
        secret::write(&config.data_dir.join(CONTROL_ADDRESS), told.as_bytes())
            .map_err(refused("write control.address into `data_dir`"))?;
        let (journal, journal_thread) =
            standing::start_journal(config, &directory, &clock)?.unzip();
        let (reloads, requests) = Reloads::new();
        let standing = Standing::new(config, directory, clock, journal, reloads.clone(), &stop)?;
        standing.shadow.follow(&config.shadow, &Handle::current())?;
        let answering = Answering::new(config, &standing, &mirrors, pbx.presence(), None)?;
        let current: Current = Arc::new(ArcSwap::from_pointee(answering));
        if let Some(listener) = hooks {
            tasks.spawn(answer_hooks(listener, Arc::clone(&current), stop.clone()));
        }
        if let Some(listener) = page {
            tasks.spawn(answer_page(listener, Arc::clone(&current), stop.clone()));
        }
        pbx.follow(&current, &standing.clock, &tasks);
        tasks.spawn(surveys::run(&standing, &current));
        if let Some(handle) = standing.prometheus.clone() {
            tasks.spawn(metrics::tend(handle, stop.clone()));
        }
        mirrors.start(&stop, &tasks);
        let threads = config.forward.threads;
        let mut threads = callers::answer(&listener, &current, threads, &standing)?;
        threads.extend(fastagi::answer(fastagi, &current, &stop)?);
        let reloader = Reloader {
            config: config.clone(),
            standing,
            current,
            mirrors,
            pbx,
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(reloader.run(requests));
        Ok(Self {
            address,
            stop,
            tasks,
            threads,
            journal: journal_thread,
            reloads,
        })
    }

    /// Reads the configuration again. The error says why nothing has changed; either is in the log.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        self.reloads.ask().await
    }

    /// Stops: no new connections, answers under way finish, syncs end behind their last page.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for thread in self.threads {
            // A thread that panicked has nothing more to say; its connections are closed.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        // Last, when nobody answers any more: it writes what still waits.
        if let Some(journal) = self.journal {
            let _ = tokio::task::spawn_blocking(move || journal.stop()).await;
        }
    }
}

/// Says whether a daemon has worked with this folder a moment ago: it writes at least each minute.
fn ran_lately(data_dir: &Path, now: Timestamp) -> bool {
    let entries = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    let written = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok());
    let written = written.filter_map(|at| Timestamp::try_from(at).ok());
    written
        .max()
        .is_some_and(|at| now.duration_since(at) < LATELY)
}

/// Notices on an address of their own.
async fn answer_hooks(
    listener: tokio::net::TcpListener,
    current: Current,
    stop: CancellationToken,
) {
    let answer = move |request, _peer| {
        let answering = current.load_full();
        async move { web::through_axum(&answering.hooks, request).await }
    };
    http_server::serve(listener, answer, stop).await;
}

/// The operators' page on an address of its own.
async fn answer_page(listener: tokio::net::TcpListener, current: Current, stop: CancellationToken) {
    let answer = move |request, peer| {
        let answering = current.load_full();
        async move {
            match &answering.page {
                Some(page) => web::answer_page(&Handle::current(), page, request, peer).await,
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    http_server::serve(listener, answer, stop).await;
}

fn listen_for_hooks(address: SocketAddr) -> Result<tokio::net::TcpListener, StartError> {
    listen_beside(address).map_err(|cause| StartError::ListenForHooks(address, cause))
}

fn listen_for_page(address: SocketAddr) -> Result<tokio::net::TcpListener, StartError> {
    listen_beside(address).map_err(|cause| StartError::ListenForPage(address, cause))
}

fn listen_beside(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let listener = bind(address)?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// The port, taken before the directory is opened, so that a second daemon harms nothing.
fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::AddrInUse => StartError::Taken(address),
        _ => StartError::Listen(address, cause),
    })
}

/// The mirror of a CRM that the configuration no longer has stays on the disk and says nothing.
async fn note_unused(config: &Config, directory: &dyn Directory) -> Result<(), DirectoryError> {
    for crm in directory.crms().await? {
        if !config.crms.iter().any(|table| table.name == crm) {
            tracing::warn!(%crm, "the configuration has no CRM of this name any more; its mirror is not used");
        }
    }
    Ok(())
}

/// Every waiting call is an open connection: a thousand files are too few.
fn raise_open_files() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files; many waiting calls may need it");
    }
}
