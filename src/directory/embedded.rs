//! The directory in one file on this machine: SQLite with a write-ahead log.
//!
//! One connection writes, one transaction at a time; every commit is on the disk before it is
//! reported. Lookups read on the caller's own thread, a few microseconds each, and wait for no
//! writer. Knows no CRM.

mod asked;
mod callers;
mod file;
mod findings;
mod hygiene;
mod lookup;
mod own_rows;
mod queue;
mod readers;
mod row;
mod store;
mod survey;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::Connection;
use serde::Deserialize;

use self::row::Source;
use self::store::{Store, store_error};
use super::{
    Change, Count, Directory, DirectoryError, Findings, Kind, OpenError, Opening, OwnRow,
    QueueLength, Queued, Roster, RosterRules, Survey, SyncState, Unseen, Waiting,
};
use crate::phone::E164;
use crate::record::{CrmName, Employee, EmployeeId, Entity, EntityId, EntityKind, Notice, Staff};

/// The row of [`super::KINDS`].
pub const KIND: Kind = Kind {
    name: "embedded",
    example: r#"[directory]
kind = "embedded"
# Memory for pages of the file `directory.sqlite` in `data_dir`, in MB. What does not fit is read
# through the system's own cache, a microsecond slower.
# cache_mb = 128
"#,
    open,
};

/// `[directory]` with `kind = "embedded"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Memory for pages of the file, in MB (1 to 65536), of all connections together. Default 128.
    pub cache_mb: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache_mb: CACHE_MB_DEFAULT,
        }
    }
}

const CACHE_MB_DEFAULT: u32 = 128;
const CACHE_MB_MAX: u32 = 65536;
/// The directory in one file.
struct Embedded {
    store: Arc<Store>,
}

fn open(settings: toml::Table, opening: Opening) -> Result<Arc<dyn Directory>, OpenError> {
    let settings: Settings = settings
        .try_into()
        .map_err(|error: toml::de::Error| OpenError::Settings(error.message().to_owned()))?;
    if !(1..=CACHE_MB_MAX).contains(&settings.cache_mb) {
        return Err(OpenError::Settings(format!(
            "`cache_mb` is {}; it may be 1 to {CACHE_MB_MAX}",
            settings.cache_mb
        )));
    }
    Ok(Arc::new(Embedded {
        store: Arc::new(Store::open(&settings, opening)?),
    }))
}

impl Embedded {
    /// Reads something of one kind's cards without holding up any lookup; nothing where the store has
    /// never heard of the CRM.
    async fn survey<T: Default + Send + 'static>(
        &self,
        doing: &'static str,
        crm: &CrmName,
        kind: EntityKind,
        work: impl FnOnce(&Connection, Source) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let Some(source) = self.store.source(crm, kind) else {
            return Ok(T::default());
        };
        self.aside(doing, move |store| {
            store.survey(doing, |connection| work(connection, source))
        })
        .await
    }

    /// The same of the CRM as a whole, by its number.
    async fn survey_crm<T: Default + Send + 'static>(
        &self,
        doing: &'static str,
        crm: &CrmName,
        work: impl FnOnce(&Connection, i64) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        self.survey(doing, crm, EntityKind::Contact, |connection, source| {
            work(connection, source.crm())
        })
        .await
    }

    /// Runs `work` where it may wait for the disk. It runs to its end also when nobody waits for it
    /// any more.
    async fn aside<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Store) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .unwrap_or_else(|error| {
                Err(DirectoryError::Store {
                    doing,
                    cause: Box::new(error),
                })
            })
    }
}

#[async_trait]
impl Directory for Embedded {
    async fn lookup(&self, phone: E164, with_deals: bool) -> Result<Vec<Entity>, DirectoryError> {
        self.store
            .lookup(phone, with_deals)
            .map_err(store_error("was reading a phone"))
    }

    fn roster(&self) -> Arc<Roster> {
        self.store.roster.load_full()
    }

    async fn set_rules(&self, rules: RosterRules) -> Result<(), DirectoryError> {
        self.aside("was reading the employees", move |store| {
            store.set_rules(rules)
        })
        .await
    }

    async fn replace_employees(
        &self,
        crm: &CrmName,
        staff: Staff,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let crm = crm.clone();
        self.aside("was storing employees", move |store| {
            store.replace_employees(&crm, &staff, now)
        })
        .await
    }

    async fn add_employees(
        &self,
        crm: &CrmName,
        employees: Vec<Employee>,
    ) -> Result<(), DirectoryError> {
        let crm = crm.clone();
        self.aside("was storing employees", move |store| {
            store.add_employees(&crm, &employees)
        })
        .await
    }

    async fn set_own_row(
        &self,
        crm: &CrmName,
        id: &EmployeeId,
        row: Option<OwnRow>,
    ) -> Result<(), DirectoryError> {
        let (crm, id) = (crm.clone(), id.clone());
        self.aside("was storing what was set for an employee", move |store| {
            store.set_own_row(&crm, &id, row.as_ref())
        })
        .await
    }

    async fn own_rows(&self) -> Result<Vec<(CrmName, EmployeeId, OwnRow)>, DirectoryError> {
        let doing = "was reading what was set for employees";
        self.aside(doing, move |store| {
            let crms = store.crms.load_full();
            store.survey(doing, |connection| own_rows::all(connection, &crms))
        })
        .await
    }

    async fn survey(&self) -> Result<Survey, DirectoryError> {
        self.aside("was looking through its cards", Store::survey_cards)
            .await
    }

    async fn keep_findings(&self, day: i64, found: Findings) -> Result<(), DirectoryError> {
        let doing = "was storing what is to be mended";
        self.aside(doing, move |store| {
            store.write(doing, |transaction| findings::put(transaction, day, &found))
        })
        .await
    }

    async fn findings(&self, from: i64) -> Result<Vec<(i64, Findings)>, DirectoryError> {
        let doing = "was reading what was to be mended";
        self.aside(doing, move |store| {
            store.survey(doing, |connection| findings::since(connection, from))
        })
        .await
    }

    async fn apply(&self, change: Change) -> Result<(), DirectoryError> {
        self.aside("was storing a page of cards", move |store| {
            store.apply(&change)
        })
        .await
    }

    async fn count_unseen(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        walk: u64,
    ) -> Result<Unseen, DirectoryError> {
        self.survey(
            "was counting cards",
            crm,
            kind,
            move |connection, source| survey::count_unseen(connection, source, writer::mark(walk)),
        )
        .await
    }

    async fn delete_unseen(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        walk: u64,
    ) -> Result<u64, DirectoryError> {
        let Some(source) = self.store.source(crm, kind) else {
            return Ok(0);
        };
        self.aside("was deleting cards", move |store| {
            store.sweep(source, writer::mark(walk))
        })
        .await
    }

    async fn delete(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        ids: &[EntityId],
    ) -> Result<u64, DirectoryError> {
        let Some(source) = self.store.source(crm, kind) else {
            return Ok(0);
        };
        let ids = ids.to_vec();
        self.aside("was deleting cards", move |store| {
            store.delete(source, &ids)
        })
        .await
    }

    async fn known(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        ids: &[EntityId],
    ) -> Result<Vec<EntityId>, DirectoryError> {
        let ids = ids.to_vec();
        self.survey(
            "was looking for cards",
            crm,
            kind,
            move |connection, source| survey::known(connection, source, &ids),
        )
        .await
    }

    async fn kin(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        id: &EntityId,
    ) -> Result<Vec<EntityId>, DirectoryError> {
        let (doing, id) = ("was looking for cards with the same number", id.clone());
        self.survey(doing, crm, kind, move |connection, source| {
            survey::kin(connection, source, &id)
        })
        .await
    }

    async fn queue(
        &self,
        crm: &CrmName,
        notices: &[Notice],
        cursor: Option<&str>,
        most: u64,
    ) -> Result<Queued, DirectoryError> {
        let (crm, notices) = (crm.clone(), notices.to_vec());
        let cursor = cursor.map(str::to_owned);
        self.aside("was queueing notices", move |store| {
            store.queue(&crm, &notices, cursor.as_deref(), most)
        })
        .await
    }

    async fn due(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Waiting>, DirectoryError> {
        self.survey(
            "was reading the queue",
            crm,
            kind,
            move |connection, source| queue::due(connection, source, now, limit),
        )
        .await
    }

    async fn settle(
        &self,
        crm: &CrmName,
        waiting: &[Waiting],
        again: Option<Timestamp>,
    ) -> Result<(), DirectoryError> {
        if waiting.is_empty() {
            return Ok(());
        }
        let (crm, waiting) = (crm.clone(), waiting.to_vec());
        self.aside("was settling notices", move |store| {
            store.settle(&crm, &waiting, again)
        })
        .await
    }

    async fn queue_length(
        &self,
        crm: &CrmName,
        kind: EntityKind,
    ) -> Result<QueueLength, DirectoryError> {
        self.survey("was counting notices", crm, kind, queue::length)
            .await
    }

    async fn news_cursor(&self, crm: &CrmName) -> Result<Option<String>, DirectoryError> {
        self.survey_crm("was reading the queue's cursor", crm, queue::cursor)
            .await
    }

    async fn employees_at(&self, crm: &CrmName) -> Result<Option<Timestamp>, DirectoryError> {
        self.survey_crm("was reading the employees' age", crm, survey::employees_at)
            .await
    }

    async fn sync_state(
        &self,
        crm: &CrmName,
        kind: EntityKind,
    ) -> Result<SyncState, DirectoryError> {
        self.survey("was reading the state of a sync", crm, kind, survey::state)
            .await
    }

    async fn set_sync_state(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        state: &SyncState,
    ) -> Result<(), DirectoryError> {
        let doing = "was storing the state of a sync";
        let (crm, state) = (crm.clone(), state.clone());
        self.aside(doing, move |store| {
            let source = Source::new(store.number_of(&crm)?, kind);
            store.write(doing, |transaction| {
                writer::put_state(transaction, source, &state)
            })
        })
        .await
    }

    async fn counts(&self) -> Result<Vec<Count>, DirectoryError> {
        let doing = "was counting cards";
        self.aside(doing, move |store| {
            store.survey(doing, |connection| survey::counts(connection, &store.crms))
        })
        .await
    }

    async fn forget(&self, crm: &CrmName) -> Result<(), DirectoryError> {
        let crm = crm.clone();
        self.aside("was forgetting a CRM", move |store| store.forget(&crm))
            .await
    }

    async fn crms(&self) -> Result<Vec<CrmName>, DirectoryError> {
        let doing = "was listing the CRMs";
        self.aside(doing, move |store| store.survey(doing, survey::crms))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_are_refused_by_name() {
        for (written, named) in [("cache_mb = 0", "cache_mb"), ("cach_mb = 5", "cach_mb")] {
            let folder = tempfile::tempdir().unwrap();
            let opening = Opening {
                data_dir: folder.path().to_owned(),
                rules: RosterRules::default(),
            };
            let refused = open(written.parse().unwrap(), opening).err().unwrap();
            assert!(refused.to_string().contains(named), "{refused}");
        }
    }

    #[test]
    fn the_example_opens() {
        let mut example: toml::Table = KIND.example.parse().unwrap();
        let Some(toml::Value::Table(mut table)) = example.remove("directory") else {
            panic!("the example is a [directory] table");
        };
        assert_eq!(table.remove("kind"), Some(KIND.name.into()));
        let settings: Settings = table.try_into().unwrap();
        assert_eq!(settings, Settings::default());
    }
}
