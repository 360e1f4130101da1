//! Asterisk's console, asked as the configuration says.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::config::Config;

/// How long the console may take; a reload of a large dialplan takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take for what it knows by heart.
const SHORT_PATIENCE: Duration = Duration::from_secs(5);

/// Why the console gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConsoleError {
    /// There is no such program.
    #[error("`{0}` is not on this machine; see `asterisk.command`")]
    Missing(String),
    /// It cannot be run.
    #[error("`{0}` cannot be run; run this as root or the user asterisk")]
    Run(String, #[source] std::io::Error),
    /// It says nothing.
    #[error("`{0}` does not answer; look whether Asterisk runs")]
    Silent(String),
    /// It refuses.
    #[error(
        "Asterisk cannot be asked: {0}; run this as root or the user asterisk, while Asterisk runs"
    )]
    Refused(String),
}

impl ConsoleError {
    /// What happened, without what to do about it.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Missing(program) => format!("`{program}` is not on this machine"),
            Self::Run(program, error) => format!("`{program}` cannot be run: {error}"),
            Self::Silent(program) => format!("`{program} -rx` does not answer"),
            Self::Refused(text) => format!("cannot be asked: {text}"),
        }
    }
}

/// The program, ready for `-rx COMMAND`.
fn program(config: &Config) -> Command {
    let mut words = config.asterisk.command.split_whitespace();
    let mut program = Command::new(words.next().unwrap_or("asterisk"));
    program
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    program
}

/// What the console answers to a command.
pub(super) async fn ask(config: &Config, command: &str) -> Result<String, ConsoleError> {
    ask_within(config, command, PATIENCE).await
}

/// The same to a question that Asterisk answers at once or not at all.
pub(super) async fn ask_shortly(config: &Config, command: &str) -> Result<String, ConsoleError> {
    ask_within(config, command, SHORT_PATIENCE).await
}

async fn ask_within(
    config: &Config,
    command: &str,
    patience: Duration,
) -> Result<String, ConsoleError> {
    let named = || config.asterisk.command.clone();
    let asked = program(config).args(["-rx", command]).output();
    let output = match tokio::time::timeout(patience, asked).await {
        Err(_) => return Err(ConsoleError::Silent(named())),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ConsoleError::Missing(named()));
        }
        Ok(Err(error)) => return Err(ConsoleError::Run(named(), error)),
        Ok(Ok(output)) => output,
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && !text.contains("Unable to connect") {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = errors
        .lines()
        .chain(text.lines())
        .find(|line| !line.trim().is_empty());
    Err(ConsoleError::Refused(first.unwrap_or_default().to_owned()))
}
