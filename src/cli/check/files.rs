//! `pryamo check` and what lies on the disk: the directory, its room, and who can read secrets.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::cli::is_in_use;
use crate::config::Config;
use crate::crm::Finding;
use crate::directory::{DirectoryError, OpenError};
use crate::fault;
use crate::serve::{self, StartError};

/// The mirror of ten million numbers takes three gigabytes; less room than this fills up unseen.
const LEAST_FREE_MIB: u64 = 512;
/// What others than owner and group may do.
const OTHERS: u32 = 0o007;

/// The folder, the store in it, the room, and who can read what.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut found = vec![directory(config)];
    found.extend(room(&config.data_dir));
    found.extend(strangers(&config.data_dir));
    found.extend(owners(&config.data_dir));
    found
}

fn directory(config: &Config) -> Finding {
    let folder = &config.data_dir;
    let place = folder.display();
    // Not made here: it would belong to whoever runs this command.
    if !folder.exists() {
        return missing(folder);
    }
    if !folder.is_dir() {
        return Finding::fault(
            format!("{place} (`data_dir`) is a file"),
            "name a folder in `data_dir`; `pryamo serve` makes it",
        );
    }
    if fs::read_dir(folder).is_ok_and(|mut files| files.next().is_none()) {
        return Finding::good(format!("{place} is empty; `pryamo serve` fills it"));
    }
    match serve::open_directory(config) {
        Ok(directory) => Finding::good(format!(
            "{place} opens, {} employees known",
            directory.roster().len()
        )),
        Err(error) if is_in_use(&error) => {
            Finding::good(format!("{place} is in use by the running daemon"))
        }
        Err(error) => Finding::fault(fault::told(&error), mend(config, &error)),
    }
}

fn mend(config: &Config, error: &StartError) -> String {
    let place = config.data_dir.display();
    match error {
        StartError::Directory(OpenError::Directory(DirectoryError::Damaged { .. })) => format!(
            "stop the daemon, `mv {place} {place}.damaged`, start it again: it mirrors anew, and calls go the standard route until then"
        ),
        StartError::Directory(OpenError::Directory(DirectoryError::Newer { .. })) => {
            "install the version of pryamo that was here before".to_owned()
        }
        _ => format!(
            "let the user that runs pryamo own the folder: `chown -R pryamo: {place}`; or change `data_dir`"
        ),
    }
}

/// A folder that is not there yet: can it be made?
fn missing(folder: &Path) -> Finding {
    let place = folder.display();
    let above = folder.ancestors().find(|above| above.exists());
    match above {
        Some(above) if !above.is_dir() => Finding::fault(
            format!(
                "{place} (`data_dir`) cannot be made: {} is a file",
                above.display()
            ),
            "name a folder in `data_dir`; `pryamo serve` makes it",
        ),
        _ => Finding::good(format!("{place} is not there yet; `pryamo serve` makes it")),
    }
}

fn room(folder: &Path) -> Option<Finding> {
    let there = folder.ancestors().find(|above| above.is_dir())?;
    let found = rustix::fs::statvfs(there).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize) >> 20;
    Some(if free < LEAST_FREE_MIB {
        Finding::warning(
            format!(
                "{free} MiB are free for {}; the mirror stops where the disk is full",
                folder.display()
            ),
            "make room there, or move `data_dir` to another disk",
        )
    } else {
        Finding::good(format!(
            "{} GiB are free for {}",
            free >> 10,
            folder.display()
        ))
    })
}

/// Who besides the owner can look into the folder and into files with secrets.
fn strangers(data_dir: &Path) -> Option<Finding> {
    let found = fs::metadata(data_dir).ok().filter(fs::Metadata::is_dir)?;
    (found.permissions().mode() & OTHERS != 0).then(|| {
        let place = data_dir.display();
        Finding::warning(
            format!("every user of this machine can look into {place}: clients' numbers and tokens are there"),
            format!("chmod 700 {place}"),
        )
    })
}

/// Files in the folder that the daemon's user could not write.
fn owners(data_dir: &Path) -> Option<Finding> {
    let folder = fs::metadata(data_dir).ok()?;
    let entries = fs::read_dir(data_dir).ok()?.flatten();
    let strange: Vec<PathBuf> = entries
        .filter(|entry| {
            entry
                .metadata()
                .is_ok_and(|file| file.uid() != folder.uid())
        })
        .map(|entry| entry.path())
        .collect();
    let first = strange.first()?;
    Some(Finding::warning(
        format!(
            "{} belongs to another user than its folder: the daemon may not be able to write it",
            first.display()
        ),
        format!("chown -R --reference={0} {0}", data_dir.display()),
    ))
}

/// Files with secrets that every user can read.
pub(super) fn secrets(config: &Config) -> Vec<Finding> {
    let Some(path) = &config.path else {
        return Vec::new();
    };
    let open = crate::config::secret_files(path)
        .into_iter()
        .filter(|file| {
            fs::metadata(file).is_ok_and(|found| found.permissions().mode() & OTHERS != 0)
        });
    open.map(|file| {
        let place = file.display();
        Finding::warning(
            format!("{place} holds a secret, and every user of this machine can read it"),
            format!("chmod o= {place} (and let the user that runs pryamo own it)"),
        )
    })
    .collect()
}
