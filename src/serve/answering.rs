//! What answers questions by one configuration: made anew when it is read again, and swapped as one.
//!
//! A request that has begun ends on what it began with.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::StartError;
use super::mirrors::Mirrors;
use super::standing::Standing;
use crate::api::{self, Api};
use crate::config::Config;
use crate::directory::Directory;
use crate::hooks::{self, Hooks};
use crate::journal;
use crate::page::{self, Board, Page};
use crate::pbx::fastagi::FastAgi;
use crate::presence::{self, Presence};
use crate::reception::Reception;
use crate::router::{self, Router};
use crate::sync::live::Live;
use crate::web::{Access, Web};

/// What answers now.
pub(super) type Current = Arc<ArcSwap<Answering>>;

/// What one configuration answers with.
pub(super) struct Answering {
    /// The HTTP port.
    pub(super) web: Arc<Web>,
    /// FastAGI's port.
    pub(super) agi: Arc<FastAgi>,
    /// The address of the notices, where they have their own.
    pub(super) hooks: axum::Router,
    /// The operators' page.
    pub(super) page: Option<axum::Router>,
    /// What the JSON addresses and the page answer from.
    pub(super) api: Arc<Api>,
    /// Asks the CRMs while a caller waits.
    live: Arc<Live>,
}

impl Answering {
    /// Must be called on the runtime on which live lookups are to run.
    pub(super) fn new(
        config: &Config,
        standing: &Standing,
        mirrors: &Mirrors,
        presence: Arc<dyn Presence>,
        former: Option<&Self>,
    ) -> Result<Self, StartError> {
        let live = Arc::new(Live::succeeding(
            former.map(|former| &*former.live),
            mirrors.sources(),
            Arc::clone(&standing.directory),
            Handle::current(),
        ));
        let refresh = Arc::<Live>::clone(&live);
        let router = Arc::new(Router::new(
            config.router_settings(),
            Arc::clone(&standing.directory),
            refresh,
            Arc::clone(&presence),
            config.open_rules()?,
        ));
        let api = Arc::new(api(
            config,
            standing,
            mirrors,
            Arc::clone(&router),
            Arc::clone(&live),
        )?);
        let page = page(config, standing, &api, presence);
        let addresses = api::routes(Arc::clone(&api));
        let hooks = hooks::routes(Arc::new(open_hooks(config, mirrors)));
        let reception = Arc::new(Reception::new(
            router,
            Arc::clone(&standing.clock),
            standing.memory.clone(),
            standing.watchers.clone(),
        ));
        let web = Web {
            reception: Arc::clone(&reception),
            names: config.names.clone(),
            access: Access {
                allow: config.forward.allow.clone(),
                token: config.forward.token.clone(),
            },
            shadow: Arc::clone(&standing.shadow),
            api: match config.hooks.listen {
                None => addresses.merge(hooks.clone()),
                Some(_) => addresses,
            },
            page: match config.page.listen {
                None => page.clone(),
                Some(_) => None,
            },
            background: Handle::current(),
        };
        let agi = FastAgi {
            reception,
            names: config.names.clone(),
            settings: config.fastagi.clone(),
        };
        Ok(Self {
            web: Arc::new(web),
            agi: Arc::new(agi),
            hooks,
            page,
            api,
            live,
        })
    }
}

/// The operators' page, unless it is switched off.
fn page(
    config: &Config,
    standing: &Standing,
    api: &Arc<Api>,
    presence: Arc<dyn Presence>,
) -> Option<axum::Router> {
    let page = || Page {
        api: Arc::clone(api),
        door: Arc::clone(&standing.door),
        feed: standing.feed.clone(),
        board: Board::default(),
        surveyor: Arc::clone(&standing.surveyor),
        presence,
        commands: Arc::clone(&standing.commands),
        config: config.path.clone(),
        settings: config.page.clone(),
        zone: config.office.zone(),
        stop: standing.stop.clone(),
    };
    let page = config.page.enabled.then(page)?;
    Some(page::routes(&Arc::new(page)))
}

fn api(
    config: &Config,
    standing: &Standing,
    mirrors: &Mirrors,
    router: Arc<Router>,
    live: Arc<Live>,
) -> Result<Api, StartError> {
    let regions = config.crms.iter();
    Ok(Api {
        router,
        replay: replay_router(config, &standing.directory)?,
        journal: config
            .journal
            .enabled
            .then(|| journal::Reader::new(&config.data_dir)),
        region: config.phone.region,
        names: config.names.clone(),
        directory: Arc::clone(&standing.directory),
        regions: regions
            .map(|table| (table.name.clone(), config.region_of(table)))
            .collect(),
        mirrors: mirrors.all(),
        live,
        oldest_seconds: config.sync.oldest_seconds,
        oldest_employees_seconds: config.sync.oldest_employees_seconds,
        clock: Arc::clone(&standing.clock),
        control_token: standing.control_token.clone(),
        reloads: standing.reloads.clone(),
        shadow: Arc::clone(&standing.shadow),
        prometheus: standing.prometheus.clone(),
    })
}

/// A door for every CRM that has a secret and can be reached.
fn open_hooks(config: &Config, mirrors: &Mirrors) -> Hooks {
    let mut hooks = Hooks::default();
    for mirror in mirrors.all() {
        let table = config
            .crms
            .iter()
            .find(|table| table.name == *mirror.name());
        if let Some(secret) = table.and_then(|table| table.common.hook_secret.clone()) {
            hooks.add(mirror, secret);
        }
    }
    hooks
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
