//! Sessions in memory: they end with the process, and by themselves when nobody uses them.

use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, SessionStore};

/// A session that nobody uses for so long is over.
pub(super) const LASTS: Duration = Duration::from_hours(12);
/// Sessions at once; beyond them the longest unused go.
const MOST: u64 = 10_000;

/// Where sessions lie.
#[derive(Debug, Clone)]
pub(super) struct Sessions(Cache<Id, Record>);

impl Sessions {
    pub(super) fn new() -> Self {
        let cache = Cache::builder().max_capacity(MOST).time_to_idle(LASTS);
        Self(cache.build())
    }
}

#[async_trait]
impl SessionStore for Sessions {
    async fn create(&self, record: &mut Record) -> Result<(), Error> {
        while self.0.contains_key(&record.id) {
            record.id = Id::default();
        }
        self.save(record).await
    }

    async fn save(&self, record: &Record) -> Result<(), Error> {
        self.0.insert(record.id, record.clone());
        Ok(())
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>, Error> {
        Ok(self.0.get(id))
    }

    async fn delete(&self, id: &Id) -> Result<(), Error> {
        self.0.invalidate(id);
        Ok(())
    }
}
