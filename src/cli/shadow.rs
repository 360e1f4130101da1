//! `pryamo shadow`: how often pryamo and the former module agree, and where they do not.

use anyhow::Result;

use super::{DONE, ask, plain};
use crate::api::shadow::Compared;
use crate::config::Config;
use crate::shadow::{Disagreement, MOST_REMEMBERED, Verdict};

/// Prints what the daemon has compared since its start.
pub(super) async fn run(config: &Config, json: bool) -> Result<u8> {
    let daemon = ask::Daemon::of(config).owner()?;
    let compared: Compared = daemon.get("/api/v1/shadow").await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&compared)?);
        return Ok(DONE);
    }
    let counts = &compared.counts;
    match &compared.address {
        Some(address) => println!("asked besides pryamo: {}", plain(address)),
        None => println!(
            "no former module is asked; set `shadow = \"http://127.0.0.1:8078/forward\"` and run `pryamo reload`"
        ),
    }
    for (count, what) in [
        (counts.same, "the same answer"),
        (counts.other_number, "another number"),
        (counts.only_ours, "only pryamo rings somebody"),
        (counts.only_theirs, "only the former module rings somebody"),
        (counts.other_name, "the same number, another name"),
        (counts.failed, "the former module gave no answer"),
        (counts.dropped, "not compared: too many waited"),
    ] {
        println!("{count:>8}  {what}");
    }
    if compared.disagreements.is_empty() {
        return Ok(DONE);
    }
    println!("\nwhere they disagree, the newest last, {MOST_REMEMBERED} at most:");
    println!(
        "{:<15}  {:<15}  {:<28}  {:<28}  difference",
        "time", "caller", "pryamo", "former module"
    );
    let zone = config.office.zone();
    for found in compared.disagreements.iter().rev() {
        let at = found.at.to_zoned(zone.clone()).strftime("%d.%m %H:%M:%S");
        let line = format!(
            "{:<15}  {:<15}  {:<28}  {:<28}  {}",
            at.to_string(),
            found.caller.as_deref().unwrap_or("hidden"),
            found.ours.shown("-"),
            found.theirs.shown("-"),
            difference(found)
        );
        println!("{}", plain(&line));
    }
    Ok(DONE)
}

fn difference(found: &Disagreement) -> String {
    let what = match found.verdict {
        Verdict::Same => "none",
        Verdict::OtherNumber => "another number",
        Verdict::OnlyOurs => "only pryamo rings",
        Verdict::OnlyTheirs => "only the former module rings",
        Verdict::OtherName => "another name",
        Verdict::Failed => "no answer",
    };
    match &found.error {
        Some(error) => format!("{what} ({error})"),
        None => what.to_owned(),
    }
}
