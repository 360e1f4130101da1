//! `pryamo check`: each CRM, the directory and the PBX are asked one harmless question.
//!
//! A line that is no good says what to do: what cannot be mended is not told as a warning.

mod ami;
mod asterisk;
mod clocks;
mod extensions;
mod files;
mod page;
mod ports;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::DONE;
use crate::config::{Config, CrmTable};
use crate::crm::{Finding, Level};
use crate::fault;
use crate::serve;
use crate::shadow;

/// `check` found something to mend.
const TO_MEND: u8 = 3;
/// How long a CRM may take for all its questions.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints a line per finding.
pub(super) async fn run(config: &Config, json: bool) -> Result<u8> {
    let findings = findings(config).await;
    let is_to_mend = findings.iter().any(|(_, one)| one.level != Level::Good);
    if json {
        let listed: Vec<_> = findings
            .iter()
            .map(|(part, finding)| json!({"part": part, "level": finding.level, "text": finding.text, "mend": finding.mend}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&listed)?);
    } else {
        for (part, finding) in &findings {
            print(part, finding);
        }
    }
    Ok(if is_to_mend { TO_MEND } else { DONE })
}

/// Asks everybody, one after the other: the same order each time.
async fn findings(config: &Config) -> Vec<(String, Finding)> {
    let mut findings: Vec<(String, Finding)> = Vec::new();
    let mut add = |part: &str, found: Vec<Finding>| {
        findings.extend(found.into_iter().map(|mut finding| {
            if finding.mend.is_empty() {
                finding.level = Level::Good;
            }
            (part.to_owned(), finding)
        }));
    };
    add("config", check_config(config));
    add("directory", files::check(config));
    let (daemon, daemon_runs) = check_daemon(config).await;
    add("daemon", vec![daemon]);
    add("ports", ports::check(config, daemon_runs));
    add("page", page::check(config));
    if daemon_runs && let Ok(state) = super::ask::daemon_state(config).await {
        add("mirror", check_mirrors(&state));
    }
    for table in &config.crms {
        let mut found = check_crm(config, table).await;
        found.extend(check_notices(config, table));
        add(&format!("crm {}", table.name), found);
    }
    if let Some(address) = &config.shadow.address {
        add("shadow", vec![check_shadow(address).await]);
    }
    let clock = serve::clock();
    add("clock", clocks::check(config, || clock()).await);
    for (part, finding) in asterisk::check(config).await {
        add(part, vec![finding]);
    }
    let (ami, hinted) = ami::check(config).await;
    add("ami", vec![ami]);
    add("employees", extensions::check(config, hinted).await);
    findings
}

/// What the connector finds, given a reasonable time.
async fn check_crm(config: &Config, table: &CrmTable) -> Vec<Finding> {
    if Config::is_import_only(table) {
        return vec![Finding::warning(
            "nothing to reach it by: only what was imported answers",
            "set `crm.url`, or import anew when the CRM has changed",
        )];
    }
    let crm = match serve::open_crm(config, table, false) {
        Ok(crm) => crm,
        Err(error) => {
            return vec![Finding::fault(
                fault::told(&error),
                "mend the configuration",
            )];
        }
    };
    let late = |_| {
        let text = format!("no answer within {} s", PATIENCE.as_secs());
        let mend = "look whether this machine reaches the CRM's address";
        vec![Finding::fault(text, mend)]
    };
    let asked = tokio::time::timeout(PATIENCE, crm.check()).await;
    asked.unwrap_or_else(late)
}

/// Where this CRM's notices arrive, as far as it can be told from here.
fn check_notices(config: &Config, table: &CrmTable) -> Option<Finding> {
    table.common.hook_secret.as_ref()?;
    let address = config.hooks.listen.unwrap_or(config.forward.listen);
    let reach = if address.ip().is_loopback() {
        ", which only this machine reaches: a proxy with a certificate must lead there"
    } else {
        ""
    };
    Some(Finding::good(format!(
        "notices are taken at http://{address}/hooks/{}/***{reach}",
        table.name
    )))
}

/// A line, and under it the mend.
pub(super) fn print(part: &str, finding: &Finding) {
    let level = match finding.level {
        _ if finding.mend.is_empty() => "ok   ",
        Level::Good => "ok   ",
        Level::Warning => "warn ",
        Level::Fault => "FAULT",
    };
    println!("{level} {part}: {}", finding.text);
    if !finding.mend.is_empty() {
        println!("      -> {}", finding.mend);
    }
}

fn check_config(config: &Config) -> Vec<Finding> {
    let place = config
        .path
        .as_ref()
        .map_or("no file, all defaults".to_owned(), |path| {
            path.display().to_string()
        });
    let mut found = vec![Finding::good(format!("{place} is read"))];
    if config.crms.is_empty() {
        found.push(Finding::fault(
            "there is no [[crm]]: every call goes the standard route",
            "add one; `pryamo config --example` shows how",
        ));
    }
    found.extend(files::secrets(config));
    found
}

/// What answers where Asterisk asks, and whether that is our own daemon.
async fn check_daemon(config: &Config) -> (Finding, bool) {
    let address = config.forward.listen;
    match super::ask::get_text(&format!("http://{address}/healthz")).await {
        Ok(body) if body.contains("alive") => {
            (Finding::good(format!("answers at {address}")), true)
        }
        Ok(_) => {
            let told = Finding::fault(
                format!(
                    "something else than pryamo answers at {address}: {}",
                    ports::holder(address)
                ),
                "stop it (the vendor's module?), or change `forward.listen`",
            );
            (told, false)
        }
        Err(_) => (ports::silent(address), false),
    }
}

/// What the running daemon says of its mirrors.
fn check_mirrors(state: &Value) -> Vec<Finding> {
    let mirrors = state.get("mirrors").and_then(Value::as_array);
    let mirrors: Vec<&Value> = mirrors.into_iter().flatten().collect();
    let mut found: Vec<Finding> = super::ask::tell_ages(mirrors.iter().copied())
        .into_iter()
        .map(|(crm, told)| Finding::good(format!("{crm}: {told}")))
        .collect();
    for mirror in mirrors {
        let text = |key: &str| mirror.get(key).and_then(Value::as_str).unwrap_or_default();
        let is = |key: &str| mirror.get(key).and_then(Value::as_bool) == Some(true);
        let (crm, kind) = (text("crm"), text("kind"));
        if is("too_old") {
            found.push(Finding::warning(
                format!("{crm}: the CRM has not told of its {kind} cards for too long; calls are answered from what is there"),
                "see the next lines and the daemon's log for the reason",
            ));
        }
        if !text("error").is_empty() {
            found.push(Finding::fault(
                format!("{crm}: {kind}: {}", text("error")),
                "mend what it says; the mirror goes on by itself",
            ));
        }
        if is("doubts_deletions") {
            found.push(Finding::warning(
                format!("{crm}: suspiciously many {kind} cards are missing in the CRM; nothing was deleted"),
                format!("if they are really gone: pryamo sync --crm {crm} --full --accept-deletions"),
            ));
        }
    }
    found
}

/// Whether the former module answers.
async fn check_shadow(address: &shadow::Address) -> Finding {
    match shadow::probe(address).await {
        Ok(()) => Finding::good(format!("{address} answers")),
        Err(error) => Finding::fault(
            format!("{address}: {}", fault::told(&error)),
            "look whether the former module runs and listens there, or take `shadow` out",
        ),
    }
}
