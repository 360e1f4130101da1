//! Where a rotating pair of tokens survives: one small file, replaced whole, and a lock beside it.
//!
//! Knows no network. The file holds live secrets, so only its owner may read it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use tokio::time::Instant;

use crate::crm::CrmError;

const FILE: &str = "tokens.json";
const NEW_FILE: &str = "tokens.json.new";
const LOCK_FILE: &str = "tokens.lock";
/// Longer than another process's renewal takes.
const LOCK_PATIENCE: Duration = Duration::from_secs(90);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// What the file holds.
#[derive(Serialize, Deserialize)]
pub(in crate::crm) struct Stored {
    /// The application that the pair belongs to.
    pub(in crate::crm) client_id: String,
    /// The code or token of the configuration that the pair descends from; spent by now.
    #[serde(serialize_with = "expose_optional")]
    pub(in crate::crm) origin: Option<SecretString>,
    /// `None` while the first exchange is under way.
    pub(in crate::crm) pair: Option<Pair>,
    /// A renewal was sent and its answer is not here: the refresh token may be spent.
    pub(in crate::crm) pending: bool,
    /// The connector's own notes on the authorisation; may hold secrets.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(in crate::crm) notes: Value,
}

/// An access token and the refresh token that came with it.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::crm) struct Pair {
    #[serde(serialize_with = "expose")]
    pub(in crate::crm) access: SecretString,
    #[serde(serialize_with = "expose")]
    pub(in crate::crm) refresh: SecretString,
    /// When the access token ends, Unix seconds by the CRM's clock; `None` when that was not told.
    pub(in crate::crm) ends: Option<i64>,
}

/// The folder that keeps the pair.
pub(in crate::crm) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(in crate::crm) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// What is stored; `None` before the first exchange.
    pub(in crate::crm) fn load(&self) -> Result<Option<Stored>, CrmError> {
        let path = self.folder.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read the stored tokens", &path, error)),
        };
        let stored = serde_json::from_slice(&text).map_err(|_| {
            let error = io::Error::new(ErrorKind::InvalidData, "damaged; authorise again");
            failed("read the stored tokens", &path, error)
        })?;
        Ok(Some(stored))
    }

    /// Replaces what is stored; when this returns, it outlives a power cut. A few milliseconds once
    /// a day, so it may block.
    pub(in crate::crm) fn save(&self, stored: &Stored) -> Result<(), CrmError> {
        let path = self.folder.join(FILE);
        self.replace(&path, stored)
            .map_err(|error| failed("write the tokens", &path, error))
    }

    fn replace(&self, path: &Path, stored: &Stored) -> io::Result<()> {
        self.make_folder()?;
        let new = self.folder.join(NEW_FILE);
        let mut file = private()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(stored)?)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Waits until no other process renews. The lock ends with the returned file, also by a kill.
    pub(in crate::crm) async fn lock(&self) -> Result<File, CrmError> {
        let path = self.folder.join(LOCK_FILE);
        let lock = self
            .make_folder()
            .and_then(|()| {
                private()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
            })
            .map_err(|error| failed("open the lock", &path, error))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_POLL).await;
                }
                Err(error) => return Err(failed("take the lock", &path, error.into())),
            }
        }
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn failed(what: &str, path: &Path, error: io::Error) -> CrmError {
    CrmError::File(format!("cannot {what} {}", path.display()), error)
}

fn expose<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

#[expect(
    clippy::ref_option,
    reason = "serde hands over a reference to the field"
)]
fn expose_optional<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    secret
        .as_ref()
        .map(ExposeSecret::expose_secret)
        .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn stored(access: &str, pending: bool) -> Stored {
        Stored {
            client_id: "c1".to_owned(),
            origin: Some("code".into()),
            pair: Some(Pair {
                access: access.into(),
                refresh: "r1".into(),
                ends: Some(5),
            }),
            pending,
            notes: Value::Null,
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("made/when/needed"));
        assert!(store.load().unwrap().is_none());
        store.save(&stored("a1", true)).unwrap();
        store.save(&stored("a2", false)).unwrap();
        let loaded = store.load().unwrap().unwrap();
        assert_eq!(loaded.pair.unwrap().access.expose_secret(), "a2");
        assert!(!loaded.pending);
        let file = store.folder.join(FILE);
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!store.folder.join(NEW_FILE).exists());
    }

    #[test]
    fn a_file_without_notes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let old = r#"{"client_id":"c1","origin":null,"pending":false,
            "pair":{"access":"a1","refresh":"r1","ends":null}}"#;
        std::fs::write(folder.path().join(FILE), old).unwrap();
        let loaded = store.load().unwrap().unwrap();
        assert!(loaded.notes.is_null() && loaded.pair.is_some());
    }

    #[test]
    fn a_half_written_file_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        store.save(&stored("a1", false)).unwrap();
        std::fs::write(folder.path().join(NEW_FILE), "{\"client_id\":").unwrap();
        assert!(store.load().unwrap().is_some());
        store.save(&stored("a2", false)).unwrap();
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let error = store.load().err().unwrap().to_string();
        assert!(error.contains(FILE), "{error}");
    }

    #[tokio::test]
    async fn a_second_refresher_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let first = store.lock().await.unwrap();
        let mut second = Box::pin(store.lock());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
    }
}
