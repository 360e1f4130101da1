//! pryamo's own commands, run for the page: what they do and say is written in one place only.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Semaphore;

/// This very program, also after its file was replaced by a newer one.
const OURSELVES: &str = "/proc/self/exe";
/// How long one may take: `check` gives every CRM half a minute.
const PATIENCE: Duration = Duration::from_mins(3);

/// Runs commands, one at a time. Lives as long as the process.
pub struct Commands {
    config: Option<PathBuf>,
    turn: Semaphore,
}

/// Why a command did not end by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// It cannot be run.
    #[error("pryamo cannot run its own command")]
    Run(#[source] std::io::Error),
    /// It takes too long.
    #[error("no end within {} s", PATIENCE.as_secs())]
    Late,
}

/// What a command has said.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code; `None` if it was killed.
    pub(super) code: Option<i32>,
    /// Standard output.
    pub(super) out: String,
    /// Standard error.
    pub(super) err: String,
}

impl Commands {
    /// For the configuration that the daemon was started with; looked for anew if there was none.
    pub fn new(config: Option<PathBuf>) -> Self {
        Self {
            config,
            turn: Semaphore::new(1),
        }
    }

    /// Runs `pryamo` with these arguments, as the daemon's own user.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Ended, CommandError> {
        // Never closed.
        let _turn = self.turn.acquire().await;
        let mut command = Command::new(OURSELVES);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        let ended = tokio::time::timeout(PATIENCE, command.output()).await;
        let ended = ended
            .map_err(|_| CommandError::Late)?
            .map_err(CommandError::Run)?;
        Ok(Ended {
            code: ended.status.code(),
            out: String::from_utf8_lossy(&ended.stdout).into_owned(),
            err: String::from_utf8_lossy(&ended.stderr).into_owned(),
        })
    }
}
