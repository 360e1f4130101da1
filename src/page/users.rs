//! Who may see the operators' page: names, roles and argon2 hashes, in a file of `data_dir`.
//!
//! Read anew for every request: a password that `pryamo password` has just changed counts at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::secret;

/// The file in `data_dir`.
const FILE: &str = "page-users.json";
/// Shorter passwords are refused.
const SHORTEST: usize = 8;
/// Longer ones only cost time.
const LONGEST: usize = 256;
/// More people than a page of this kind has.
const MOST_USERS: usize = 200;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything, changes nothing.
    Viewer,
    /// May also change what the page can change.
    Administrator,
}

impl Role {
    /// The word used in files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Administrator => "administrator",
        }
    }
}

/// Somebody who may sign in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    /// What they may do.
    pub role: Role,
    /// The argon2 hash of the password, in PHC form.
    hash: String,
}

impl User {
    /// Changes whenever the password does: a session made with an older one is over.
    pub fn stamp(&self) -> &str {
        self.hash.rsplit('$').next().unwrap_or_default()
    }

    /// Nobody, whose password takes as long to look at as anybody's.
    pub(super) fn nobody() -> Self {
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        Self {
            role: Role::Viewer,
            hash: hash.to_owned(),
        }
    }

    /// Says whether this is the password. Takes tens of milliseconds of a processor, and memory.
    pub fn is_password(&self, password: &SecretString) -> bool {
        let Ok(hash) = PasswordHash::new(&self.hash) else {
            return false;
        };
        let given = password.expose_secret();
        given.len() <= LONGEST && hasher().verify_password(given.as_bytes(), &hash).is_ok()
    }
}

/// Why a password cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// Too short or too long.
    #[error("a password must have {SHORTEST} to {LONGEST} characters")]
    Length,
    /// The name cannot be used.
    #[error(
        "`{0}` is no name to sign in with: write 1 to 40 letters, digits, `.`, `-`, `_` or `@`"
    )]
    Name(String),
    /// Too many.
    #[error("there are {MOST_USERS} people already; remove one first")]
    TooMany,
    /// Nobody of this name.
    #[error("there is nobody named `{0}`")]
    Nobody(String),
    /// The file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path} cannot be read; remove it and set the passwords anew with `pryamo password`")]
    Damaged {
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// The library refuses.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// The file with all who may sign in.
#[derive(Debug, Clone)]
pub struct Users(PathBuf);

impl Users {
    /// Those of a folder.
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// Everybody, by name; empty where nobody has a password yet.
    pub fn all(&self) -> Result<BTreeMap<String, User>, UsersError> {
        let text = match std::fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeMap::new());
            }
            Err(cause) => return Err(self.file(cause)),
        };
        serde_json::from_str(&text).map_err(|cause| UsersError::Damaged {
            path: self.0.display().to_string(),
            cause,
        })
    }

    /// Sets somebody's password and role; adds them if they are new.
    pub fn set(&self, name: &str, role: Role, password: &SecretString) -> Result<(), UsersError> {
        let is_plain = |letter: char| letter.is_alphanumeric() || ".-_@".contains(letter);
        if name.is_empty() || name.chars().count() > 40 || !name.chars().all(is_plain) {
            return Err(UsersError::Name(name.to_owned()));
        }
        let given = password.expose_secret();
        if given.chars().count() < SHORTEST || given.len() > LONGEST {
            return Err(UsersError::Length);
        }
        let mut all = self.all()?;
        if all.len() >= MOST_USERS && !all.contains_key(name) {
            return Err(UsersError::TooMany);
        }
        let hash = hasher()
            .hash_password(given.as_bytes())
            .map_err(|error| UsersError::Hash(error.to_string()))?
            .to_string();
        all.insert(name.to_owned(), User { role, hash });
        self.write(&all)
    }

    /// Takes somebody out; their sessions are over.
    pub fn remove(&self, name: &str) -> Result<(), UsersError> {
        let mut all = self.all()?;
        if all.remove(name).is_none() {
            return Err(UsersError::Nobody(name.to_owned()));
        }
        self.write(&all)
    }

    fn write(&self, all: &BTreeMap<String, User>) -> Result<(), UsersError> {
        let text = serde_json::to_vec_pretty(all).map_err(|cause| UsersError::Damaged {
            path: self.0.display().to_string(),
            cause,
        })?;
        secret::write(&self.0, &text).map_err(|cause| self.file(cause))
    }

    fn file(&self, cause: std::io::Error) -> UsersError {
        UsersError::File {
            path: self.0.display().to_string(),
            cause,
        }
    }
}

/// Argon2id with 19 MiB and two passes: the least that OWASP's password storage page names.
fn hasher() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_as_a_hash_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::of(folder.path());
        assert!(users.all().unwrap().is_empty());
        let secret = |text: &str| SecretString::from(text.to_owned());
        users
            .set("anna", Role::Administrator, &secret("correct horse"))
            .unwrap();
        users
            .set("boris", Role::Viewer, &secret("battery staple"))
            .unwrap();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(
            text.contains("$argon2id$") && !text.contains("horse"),
            "{text}"
        );
        let all = users.all().unwrap();
        assert!(all["anna"].is_password(&secret("correct horse")));
        assert!(!all["anna"].is_password(&secret("battery staple")));
        assert_eq!(all["boris"].role, Role::Viewer);
        let before = all["anna"].stamp().to_owned();
        users
            .set("anna", Role::Administrator, &secret("correct horse"))
            .unwrap();
        assert_ne!(users.all().unwrap()["anna"].stamp(), before);
        users.remove("boris").unwrap();
        assert!(users.remove("boris").is_err());
    }

    #[test]
    fn short_passwords_and_odd_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::of(folder.path());
        for (name, password) in [
            ("anna", "short"),
            ("", "long enough"),
            ("a b", "long enough"),
            ("../x", "long enough"),
        ] {
            let set = users.set(name, Role::Viewer, &SecretString::from(password.to_owned()));
            assert!(set.is_err(), "{name}");
        }
    }
}
