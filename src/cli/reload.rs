//! `pryamo reload`: the running daemon reads its configuration again.

use anyhow::Result;

use super::{DONE, FAILED, ask};
use crate::api::reload::Reloaded;
use crate::config::{Config, ConfigError};
use crate::fault;

/// Says why the file cannot be used; the daemon need not be asked for that.
pub(super) fn refused(error: &ConfigError) -> u8 {
    eprintln!("pryamo: {}", fault::told(error));
    eprintln!("nothing has changed");
    FAILED
}

/// Asks the daemon, and prints what it took over and what waits.
pub(super) async fn run(config: &Config, json: bool) -> Result<u8> {
    let daemon = ask::Daemon::of(config).owner()?;
    let nothing = serde_json::Value::Null;
    let reloaded: Reloaded = daemon.post("/api/v1/reload", &nothing).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&reloaded)?);
        return Ok(DONE);
    }
    if reloaded.taken.is_empty() {
        println!("nothing to take over");
    } else {
        println!("taken over:");
        for key in &reloaded.taken {
            println!("  {key}");
        }
    }
    if !reloaded.waiting.is_empty() {
        println!("waits for a restart:");
        for key in &reloaded.waiting {
            println!("  {key}");
        }
    }
    Ok(DONE)
}
