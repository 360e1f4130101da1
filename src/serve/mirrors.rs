//! The CRMs that are mirrored. One whose table did not change simply goes on when the configuration is
//! read again: its connector keeps count of the requests that the vendor allows.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{RESTART_PAUSE, StartError, open_crm};
use crate::config::{Config, CrmTable};
use crate::crm;
use crate::directory::{Directory, DirectoryError};
use crate::fault::lock;
use crate::metrics;
use crate::sync::mirror::Mirror;
use crate::sync::{self, Clock, Source};

/// Every CRM that can be reached, in the order of the configuration.
#[derive(Default)]
pub(super) struct Mirrors(Vec<Arc<Kept>>);

/// A CRM and its mirror.
struct Kept {
    made_of: MadeOf,
    sync: sync::Settings,
    source: Source,
    mirror: Arc<Mirror>,
    running: Mutex<Option<Running>>,
}

/// What a connector follows from.
#[derive(PartialEq)]
struct MadeOf {
    kind: String,
    own: toml::Table,
    common: crm::Common,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Mirrors {
    /// What is asked while a caller waits.
    pub(super) fn sources(&self) -> Vec<Source> {
        self.0.iter().map(|kept| kept.source.clone()).collect()
    }

    /// The mirrors alone.
    pub(super) fn all(&self) -> Vec<Arc<Mirror>> {
        self.0.iter().map(|kept| Arc::clone(&kept.mirror)).collect()
    }

    /// Runs those that do not run.
    pub(super) fn start(&self, stop: &CancellationToken, tasks: &TaskTracker) {
        for kept in &self.0 {
            kept.start(stop, tasks);
        }
    }

    /// Stops those that `next` does not have, each behind its last page.
    pub(super) async fn stop_unless_in(&self, next: &Self) {
        for kept in self.0.iter().filter(|kept| !next.has(kept)) {
            let running = lock(&kept.running).take();
            if let Some(running) = running {
                running.stop.cancel();
                // One that failed inside is stopped as well.
                let _ = running.task.await;
            }
        }
    }

    /// Takes over, before it is started, what the stopped ones of `former` leave open.
    pub(super) fn succeed(&self, former: &Self) {
        for kept in self.0.iter().filter(|kept| !former.has(kept)) {
            if let Some(before) = former.named(kept.source.name.as_str()) {
                kept.mirror.succeed(&before.mirror);
            }
        }
    }

    /// Removes what other CRMs have left under these names.
    pub(super) async fn forget_others(
        &self,
        directory: &dyn Directory,
    ) -> Result<(), DirectoryError> {
        for kept in &self.0 {
            kept.source.forget_other(directory).await?;
        }
        Ok(())
    }

    fn has(&self, kept: &Arc<Kept>) -> bool {
        self.0.iter().any(|one| Arc::ptr_eq(one, kept))
    }

    fn named(&self, name: &str) -> Option<&Arc<Kept>> {
        let mut all = self.0.iter();
        all.find(|kept| kept.source.name.as_str() == name)
    }
}

/// CRMs that are reached and not mirrored yet: the directory may not be open.
pub(super) struct Sources(Vec<(MadeOf, Source)>);

impl Sources {
    /// Opens the CRMs that the configuration gives something to reach by; of those that did not change,
    /// the connector that `former` has is shared with it.
    ///
    /// `asked_lately` is that of [`crm::Common`].
    pub(super) fn open(
        config: &Config,
        former: &Mirrors,
        asked_lately: bool,
    ) -> Result<Self, StartError> {
        let mut sources = Vec::new();
        for table in &config.crms {
            if Config::is_import_only(table) {
                tracing::warn!(crm = %table.name, "the configuration gives nothing to reach this CRM by; only what was imported answers");
                continue;
            }
            let made_of = MadeOf::of(config, table);
            let identity = config.identity_of(table);
            let known = former.named(table.name.as_str());
            let crm = if let Some(kept) = known.filter(|kept| kept.made_of == made_of) {
                Arc::clone(&kept.source.crm)
            } else {
                let is_known = |kept: &Arc<Kept>| kept.source.identity == identity;
                let asked_lately = asked_lately || former.0.iter().any(is_known);
                open_crm(config, table, asked_lately)?
            };
            let (name, fields) = (table.name.clone(), &table.common.fields);
            let source = Source::new(name, crm, config.region_of(table), fields, identity);
            sources.push((made_of, source));
        }
        Ok(Self(sources))
    }

    /// With a mirror for each: the former one where nothing about it has changed. None is started.
    pub(super) fn mirrored(
        self,
        config: &Config,
        former: &Mirrors,
        directory: &Arc<dyn Directory>,
        clock: &Clock,
    ) -> Mirrors {
        let kept = self.0.into_iter().map(|(made_of, source)| {
            let known = former.named(source.name.as_str());
            let same =
                known.filter(|kept| kept.sync == config.sync && is_same(&kept.source, &source));
            same.cloned().unwrap_or_else(|| {
                let mirror = Mirror::new(
                    source.clone(),
                    config.sync.clone(),
                    Arc::clone(directory),
                    Arc::clone(clock),
                );
                Arc::new(Kept {
                    made_of,
                    sync: config.sync.clone(),
                    source,
                    mirror: Arc::new(mirror),
                    running: Mutex::default(),
                })
            })
        });
        Mirrors(kept.collect())
    }
}

fn is_same(one: &Source, other: &Source) -> bool {
    Arc::ptr_eq(&one.crm, &other.crm)
        && one.region == other.region
        && one.reading == other.reading
        && one.identity == other.identity
}

impl MadeOf {
    fn of(config: &Config, table: &CrmTable) -> Self {
        Self {
            kind: table.kind.clone(),
            own: table.own.clone(),
            common: config.connector_common(table, false),
        }
    }
}

impl Kept {
    fn start(&self, stop: &CancellationToken, tasks: &TaskTracker) {
        let mut running = lock(&self.running);
        if running.is_none() {
            let stop = stop.child_token();
            let task = tasks.spawn(supervise(Arc::clone(&self.mirror), stop.clone()));
            *running = Some(Running { stop, task });
        }
    }
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
