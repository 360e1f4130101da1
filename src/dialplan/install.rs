//! Puts the dialplan into `extensions_custom.conf` and takes it out again.
//!
//! The file is somebody's work: it is replaced in one step, keeps its owner and mode, and its former
//! state stays beside it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::{BEGIN, END};

/// The file for an administrator's own contexts.
pub const FILE: &str = "extensions_custom.conf";
/// A larger file is no dialplan that anybody wrote.
const LARGEST: u64 = 16 * 1024 * 1024;
/// The mode of a file that is made: Asterisk's user must be able to read it.
const NEW_MODE: u32 = 0o644;

/// Why the file cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The system refuses it.
    #[error(
        "cannot {doing} {path}; run this as root or as the owner of that file, and see `asterisk.folder`"
    )]
    File {
        /// What was refused.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Only one of the marks is there.
    #[error(
        "{0} has `{BEGIN}` without `{END}` or the other way round; take out by hand what pryamo has written there"
    )]
    Marks(PathBuf),
    /// It is far too large.
    #[error("{0} is larger than any dialplan; see `asterisk.folder`")]
    Large(PathBuf),
}

/// `extensions_custom.conf` as it was found.
#[derive(Debug)]
pub struct Custom {
    path: PathBuf,
    /// Its text byte by byte: it may be in any encoding. `None` if there is no such file.
    before: Option<Vec<u8>>,
}

/// What can undo a change.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
    before: Option<Vec<u8>>,
    /// The former state, if there was one.
    pub backup: Option<PathBuf>,
}

impl Custom {
    /// Reads it. A link is followed: what it leads to is changed.
    pub fn open(folder: &Path) -> Result<Self, InstallError> {
        let path = folder.join(FILE);
        let path = fs::canonicalize(&path).unwrap_or(path);
        let before = match fs::metadata(&path) {
            Ok(found) if found.len() > LARGEST => return Err(InstallError::Large(path)),
            Ok(_) => Some(fs::read(&path).map_err(refused("read", &path))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(refused("read", &path)(error)),
        };
        Ok(Self { path, before })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.before.as_deref().unwrap_or_default()).into_owned()
    }

    /// Its text with `block` in the place of what pryamo has written before, or behind all else.
    pub fn with(&self, block: &str) -> Result<Vec<u8>, InstallError> {
        let (mut text, behind) = self.around()?;
        if behind.is_none() && !text.is_empty() {
            if text.last() != Some(&b'\n') {
                text.push(b'\n');
            }
            text.push(b'\n');
        }
        text.extend_from_slice(block.as_bytes());
        text.extend(behind.unwrap_or_default());
        Ok(text)
    }

    /// Its text without what pryamo has written, and without the empty line before that.
    pub fn without(&self) -> Result<Vec<u8>, InstallError> {
        let (mut text, behind) = self.around()?;
        if let Some(behind) = behind {
            if text.ends_with(b"\n\n") {
                text.pop();
            }
            text.extend(behind);
        }
        Ok(text)
    }

    /// Says whether the file would be another one.
    pub fn differs(&self, text: &[u8]) -> bool {
        self.before.as_deref().unwrap_or_default() != text
    }

    /// What stands before the marks and what behind them; `None` if there are none.
    fn around(&self) -> Result<(Vec<u8>, Option<Vec<u8>>), InstallError> {
        let text = self.before.as_deref().unwrap_or_default();
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        let (mut begins, mut ends) = (0, 0);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let plain = line.trim_ascii();
            if plain == BEGIN.as_bytes() {
                begins += 1;
            } else if plain == END.as_bytes() && begins > 0 {
                ends += 1;
            } else if begins == 0 {
                before.extend_from_slice(line);
            } else if ends > 0 {
                behind.extend_from_slice(line);
            }
            if plain == END.as_bytes() && begins == 0 {
                return Err(InstallError::Marks(self.path.clone()));
            }
        }
        match (begins, ends) {
            (0, 0) => Ok((before, None)),
            (1, 1) => Ok((before, Some(behind))),
            _ => Err(InstallError::Marks(self.path.clone())),
        }
    }

    /// Replaces it in one step. `stamp` names the former state, which stays beside it.
    pub fn replace(self, text: &[u8], stamp: &str) -> Result<Written, InstallError> {
        let backup = match &self.before {
            None => None,
            Some(before) => {
                let backup = beside(&self.path, &format!("pryamo-{stamp}"));
                put(&backup, before, &self.path)?;
                Some(backup)
            }
        };
        put(&self.path, text, &self.path)?;
        Ok(Written {
            path: self.path,
            before: self.before,
            backup,
        })
    }
}

impl Written {
    /// Puts the former state back.
    pub fn undo(self) -> Result<(), InstallError> {
        match self.before {
            Some(before) => put(&self.path, &before, &self.path)?,
            None => fs::remove_file(&self.path).map_err(refused("remove", &self.path))?,
        }
        if let Some(backup) = self.backup {
            fs::remove_file(&backup).map_err(refused("remove", &backup))?;
        }
        Ok(())
    }
}

/// Writes `path` in one step, with the owner and mode of `like`, or of the folder for a new file.
fn put(path: &Path, text: &[u8], like: &Path) -> Result<(), InstallError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let new = beside(path, &format!("pryamo-new-{}", std::process::id()));
    let (owner, mode) = if let Ok(found) = fs::metadata(like) {
        ((found.uid(), found.gid()), found.permissions().mode())
    } else {
        let found = fs::metadata(folder).map_err(refused("read", folder))?;
        ((found.uid(), found.gid()), NEW_MODE)
    };
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != owner {
            chown(&new, Some(owner.0), Some(owner.1))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|cause| {
        // What was half written helps nobody.
        let _ = fs::remove_file(&new);
        refused("write", path)(cause)
    })
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

fn refused(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> InstallError {
    let path = path.to_owned();
    move |cause| InstallError::File { doing, path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(text: Option<&str>) -> Custom {
        Custom {
            path: PathBuf::from(FILE),
            before: text.map(|text| text.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_block_goes_in_once_and_out_without_a_trace() {
        let block = format!("{BEGIN}\n[pryamo]\n{END}\n");
        let newer = format!("{BEGIN}\n[pryamo]\nexten => s,1,NoOp()\n{END}\n");
        for before in [
            "",
            "[a]\n",
            "[a]\nexten => s,1,NoOp(\u{436})\n\n",
            "[a]\n\n\n",
        ] {
            let once = String::from_utf8(custom(Some(before)).with(&block).unwrap()).unwrap();
            let twice = custom(Some(&once)).with(&block).unwrap();
            assert_eq!(String::from_utf8(twice).unwrap(), once, "{before:?}");
            let renewed = custom(Some(&once)).with(&newer).unwrap();
            let renewed = String::from_utf8(renewed).unwrap();
            assert_eq!(renewed, once.replace(&block, &newer), "{before:?}");
            let without = custom(Some(&once)).without().unwrap();
            assert_eq!(String::from_utf8(without).unwrap(), before, "{before:?}");
        }
        let between = format!("[a]\n{block}[b]\n");
        let without = custom(Some(&between)).without().unwrap();
        assert_eq!(without, b"[a]\n[b]\n");
    }

    #[test]
    fn half_a_block_is_left_alone() {
        for text in [
            format!("{BEGIN}\n[pryamo]\n"),
            format!("[pryamo]\n{END}\n"),
            format!("{BEGIN}\n{BEGIN}\n{END}\n"),
            format!("{BEGIN}\n{END}\n{END}\n"),
        ] {
            assert!(custom(Some(&text)).with("x").is_err(), "{text}");
            assert!(custom(Some(&text)).without().is_err(), "{text}");
        }
    }

    #[test]
    fn the_mode_is_kept_and_the_change_can_be_undone() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real.conf");
        let path = folder.path().join(FILE);
        fs::write(&real, "[a]\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        let found = Custom::open(folder.path()).unwrap();
        let written = found.replace(b"[b]\n", "stamp").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"[b]\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&real), 0o640);
        let backup = written.backup.clone().unwrap();
        assert_eq!(fs::read(&backup).unwrap(), b"[a]\n");
        assert_eq!(mode(&backup), 0o640);
        written.undo().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"[a]\n");
        assert!(!backup.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_was_not_there_is_made_and_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let found = Custom::open(folder.path()).unwrap();
        let written = found.replace(b"[b]\n", "stamp").unwrap();
        assert_eq!(written.backup, None);
        written.undo().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
