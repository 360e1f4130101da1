//! Opens everything, supervises it, stops it: the one place where the parts meet.

mod fastagi;
mod pbx;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::pbx::Pbx;
use crate::api::{self, Api};
use crate::config::{self, Config, CrmTable};
use crate::crm::{self, Crm, SettingsError};
use crate::directory::{self, Directory, DirectoryError, OpenError, Opening};
use crate::hooks::{self, Hooks};
use crate::http_server;
use crate::journal::{self, Journal};
use crate::metrics;
use crate::page::{self, Door, Page};
use crate::phone;
use crate::presence::{self, Presence};
use crate::reception::{Reception, Watcher};
use crate::router::{self, Router};
use crate::rules::RuleError;
use crate::sync::live::Live;
use crate::sync::mirror::Mirror;
use crate::sync::{Clock, Source};
use crate::web::{self, Access, Web};

/// The file in `data_dir` that holds the token of `pryamo`'s own commands.
pub const CONTROL_TOKEN: &str = "control.token";

/// Callers who may wait to be accepted; the kernel's own limit is 4096.
const BACKLOG: u32 = 4096;

/// A former life whose last trace is younger may have filled a CRM's bucket.
const LATELY: SignedDuration = SignedDuration::from_mins(2);

/// How long a mirror that failed inside rests.
const RESTART_PAUSE: Duration = Duration::from_mins(1);

/// A daemon that listens. Stops when [`Daemon::stop`] is called.
pub struct Daemon {
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    threads: Vec<JoinHandle<()>>,
    journal: Option<journal::Thread>,
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
        let sources = open_sources(config, ran_lately(&config.data_dir, clock()))?;
        let listener = listen(config.forward.listen)?;
        let address = listener
            .local_addr()
            .map_err(refused("read the port's address"))?;
        let fastagi = fastagi::listen(&config.fastagi)?;
        let directory = open_directory(config)?;
        for source in &sources {
            source
                .forget_other(&*directory)
                .await
                .map_err(OpenError::from)?;
        }
        note_unused(config, &*directory)
            .await
            .map_err(OpenError::from)?;
        let mirror = |source: &Source| {
            Arc::new(Mirror::new(
                source.clone(),
                config.sync.clone(),
                Arc::clone(&directory),
                Arc::clone(&clock),
            ))
        };
        let mirrors: Vec<Arc<Mirror>> = sources.iter().map(mirror).collect();
        let hooks = hooks::routes(Arc::new(open_hooks(config, &mirrors)));
        let hooks_listener = config.hooks.listen.map(listen_for_hooks).transpose()?;
        let page_listener = config.page.listen.map(listen_for_page).transpose()?;
        let pbx = Pbx::open(config, clock());
        let presence = pbx.presence();
        let (watchers, journal) = start_journal(config, &directory, &clock)?;
        let stop = CancellationToken::new();
        let door = Arc::new(Door::open(&config.data_dir));
        let mut web = Self::web(
            config,
            directory,
            sources,
            mirrors.clone(),
            &clock,
            presence,
            watchers,
            Looking { door, stop: stop.clone() },
        )?;
        let mut tasks = JoinSet::new();
        if let Some(listener) = page_listener
            && let Some(page) = web.page.take()
        {
            tasks.spawn(answer_page(listener, page, stop.clone()));
        }
        match hooks_listener {
            None => web.api = web.api.merge(hooks),
            Some(listener) => {
                tasks.spawn(answer_hooks(listener, hooks, stop.clone()));
            }
        }
        let web = Arc::new(web);
        pbx.follow(Arc::clone(&web.reception), clock, stop.clone(), &mut tasks);
        for mirror in mirrors {
            let stop = stop.clone();
            tasks.spawn(supervise(mirror, stop));
        }
        let mut threads = answer_on_threads(&listener, &web, config.forward.threads, &stop)?;
        threads.extend(fastagi::answer(fastagi, &config.fastagi, &web, &stop)?);
        Ok(Self {
            address,
            stop,
            tasks,
            threads,
            journal,
        })
    }

    fn web(
        config: &Config,
        directory: Arc<dyn Directory>,
        sources: Vec<Source>,
        mirrors: Vec<Arc<Mirror>>,
        clock: &Clock,
        presence: Arc<dyn Presence>,
        watchers: Vec<Arc<dyn Watcher>>,
        looking: Looking,
    ) -> Result<Web, StartError> {
        let live = Arc::new(Live::new(
            sources,
            Arc::clone(&directory),
            Handle::current(),
        ));
        let rules = config.open_rules()?;
        let router = Router::new(
            config.router_settings(),
            Arc::clone(&directory),
            live,
            Arc::clone(&presence),
            rules,
        );
        let router = Arc::new(router);
        let journal = config.journal.enabled;
        let api = Api {
            router: Arc::clone(&router),
            replay: replay_router(config, &directory)?,
            journal: journal.then(|| journal::Reader::new(&config.data_dir)),
            region: config.phone.region,
            names: config.names.clone(),
            directory,
            regions: config
                .crms
                .iter()
                .map(|table| (table.name.clone(), config.region_of(table)))
                .collect(),
            mirrors,
            oldest_seconds: config.sync.oldest_seconds,
            oldest_employees_seconds: config.sync.oldest_employees_seconds,
            clock: Arc::clone(clock),
            control_token: make_control_token(&config.data_dir)?,
            // A second daemon in one process (tests) goes without.
            prometheus: metrics::install().ok(),
        };
        let api = Arc::new(api);
        let page = config.page.enabled.then(|| {
            page::routes(Arc::new(Page {
                api: Arc::clone(&api),
                door: looking.door,
                presence,
                settings: config.page.clone(),
                zone: config.office.zone(),
                stop: looking.stop,
            }))
        });
        Ok(Web {
            reception: Arc::new(Reception::new(router, Arc::clone(clock), watchers)),
            names: config.names.clone(),
            access: Access {
                allow: config.forward.allow.clone(),
                token: config.forward.token.clone(),
            },
            api: api::routes(Arc::clone(&api)),
            page,
            background: Handle::current(),
        })
    }

    /// Stops: no new connections, answers under way finish, syncs end behind their last page.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
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

/// What the page is given besides what is made anew.
struct Looking {
    door: Arc<Door>,
    stop: CancellationToken,
}

/// Who hears of calls, and the thread behind them.
type Watching = (Vec<Arc<dyn Watcher>>, Option<journal::Thread>);

/// Begins the journal unless it is switched off.
fn start_journal(
    config: &Config,
    directory: &Arc<dyn Directory>,
    clock: &Clock,
) -> Result<Watching, StartError> {
    if !config.journal.enabled {
        return Ok((Vec::new(), None));
    }
    let (directory, clock) = (Arc::clone(directory), Arc::clone(clock));
    let (journal, thread) = Journal::start(&config.journal, &config.data_dir, directory, clock)
        .map_err(refused("start the thread of the journal"))?;
    Ok((vec![journal], Some(thread)))
}

/// The router for calls of the past: it asks no CRM, and no phone's state of today counts.
///
/// Must be called on a runtime.
pub fn replay_router(
    config: &Config,
    directory: &Arc<dyn Directory>,
) -> Result<Router, StartError> {
    let settings = router::Settings {
        live_lookup: Duration::ZERO,
        ..config.router_settings()
    };
    let nobody = Live::new(Vec::new(), Arc::clone(directory), Handle::current());
    Ok(Router::new(
        settings,
        Arc::clone(directory),
        Arc::new(nobody),
        Arc::new(presence::Nothing),
        config.open_rules()?,
    ))
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

/// The CRMs that the configuration gives something to reach by.
fn open_sources(config: &Config, ran_lately: bool) -> Result<Vec<Source>, StartError> {
    let mut sources = Vec::new();
    for table in &config.crms {
        if Config::is_import_only(table) {
            tracing::warn!(crm = %table.name, "the configuration gives nothing to reach this CRM by; only what was imported answers");
            continue;
        }
        let crm = open_crm(config, table, ran_lately)?;
        let (name, fields) = (table.name.clone(), &table.common.fields);
        let (region, identity) = (config.region_of(table), config.identity_of(table));
        sources.push(Source::new(name, crm, region, fields, identity));
    }
    Ok(sources)
}

/// Notices on an address of their own.
async fn answer_hooks(
    listener: tokio::net::TcpListener,
    hooks: axum::Router,
    stop: CancellationToken,
) {
    let hooks = Arc::new(hooks);
    let answer = move |request, _peer| {
        let hooks = Arc::clone(&hooks);
        async move { web::through_axum(&hooks, request).await }
    };
    http_server::serve(listener, answer, stop).await;
}

/// The operators' page on an address of its own.
async fn answer_page(
    listener: tokio::net::TcpListener,
    page: axum::Router,
    stop: CancellationToken,
) {
    let page = Arc::new(page);
    let answer = move |request, peer| {
        let page = Arc::clone(&page);
        async move { web::answer_page(&Handle::current(), &page, request, peer).await }
    };
    http_server::serve(listener, answer, stop).await;
}

/// A door for every CRM that has a secret and can be reached.
fn open_hooks(config: &Config, mirrors: &[Arc<Mirror>]) -> Hooks {
    let mut hooks = Hooks::default();
    for mirror in mirrors {
        let table = config
            .crms
            .iter()
            .find(|table| table.name == *mirror.name());
        if let Some(secret) = table.and_then(|table| table.common.hook_secret.clone()) {
            hooks.add(Arc::clone(mirror), secret);
        }
    }
    hooks
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

/// Runs a mirror until `stop`, again should it fail inside: one card that nobody foresaw must not
/// leave a CRM without its mirror until somebody looks.
async fn supervise(mirror: Arc<Mirror>, stop: CancellationToken) {
    loop {
        let run = AssertUnwindSafe(mirror.run(stop.clone())).catch_unwind();
        if run.await.is_ok() {
            return;
        }
        metrics::count_panic();
        tracing::error!(crm = %mirror.name(), "the mirror failed inside; it begins again in a minute");
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The port, taken before the directory is opened, so that a second daemon harms nothing.
fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::AddrInUse => StartError::Taken(address),
        _ => StartError::Listen(address, cause),
    })
}

/// Listens with room for a burst of callers who have not been accepted yet: beyond it the kernel
/// lets them wait a second, and the standard library's room is 128.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As the standard library does: a restart must not wait for old connections to die.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Threads with a small runtime each, so that neither a sync nor a slow log holds a caller up.
fn answer_on_threads(
    listener: &TcpListener,
    web: &Arc<Web>,
    count: usize,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut threads = Vec::new();
    for number in 0..count {
        let listener = listener.try_clone().map_err(refused("share the port"))?;
        let web = Arc::clone(web);
        let stop = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(refused("set up a thread that answers"))?;
        let thread = std::thread::Builder::new()
            .name(format!("answer-{number}"))
            .spawn(move || {
                runtime.block_on(async {
                    let listener = match tokio::net::TcpListener::from_std(listener) {
                        Ok(listener) => listener,
                        Err(error) => {
                            tracing::error!(%error, "a thread cannot answer");
                            return;
                        }
                    };
                    let answer = move |request, peer| Arc::clone(&web).answer(request, peer);
                    http_server::serve(listener, answer, stop).await;
                });
            });
        threads.push(thread.map_err(refused("start a thread that answers"))?);
    }
    Ok(threads)
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

/// A new token for `pryamo`'s own commands, readable by the owner of `data_dir` only.
fn make_control_token(data_dir: &Path) -> Result<SecretString, StartError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random)
        .map_err(|error| refused("get random numbers")(std::io::Error::other(error)))?;
    let mut token = String::with_capacity(64);
    for byte in random {
        // Writing into a string does not fail.
        let _ = write!(token, "{byte:02x}");
    }
    let path = data_dir.join(CONTROL_TOKEN);
    // Removed first: the mode counts only for a file that is made.
    let _ = std::fs::remove_file(&path);
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(token.as_bytes()))
        .map_err(refused("write control.token into `data_dir`"))?;
    Ok(token.into())
}
