//! `pryamo check`: each CRM, the directory and the PBX are asked one harmless question.

mod ami;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{DONE, is_in_use};
use crate::config::Config;
use crate::crm::{Finding, Level};
use crate::dialplan::reader::Dialplan;
use crate::fault;
use crate::serve;
use crate::shadow;

/// `check` found something to mend.
const TO_MEND: u8 = 3;
/// How long a CRM may take for all its questions.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints a line per finding.
pub(super) async fn run(config: &Config, json: bool) -> Result<u8> {
    let mut findings: Vec<(String, Finding)> = Vec::new();
    let mut add = |part: &str, found: Vec<Finding>| {
        findings.extend(found.into_iter().map(|finding| (part.to_owned(), finding)));
    };
    add("config", check_config(config));
    add("directory", vec![check_directory(config)]);
    add("daemon", vec![check_daemon(config).await]);
    if let Ok(state) = super::ask::daemon_state(config).await {
        add("mirror", check_mirrors(&state));
    }
    for table in &config.crms {
        if Config::is_import_only(table) {
            let found = Finding::warning(
                "nothing to reach it by: only what was imported answers",
                "set `crm.url`, or import anew when the CRM has changed",
            );
            add(&format!("crm {}", table.name), vec![found]);
            continue;
        }
        let found = match serve::open_crm(config, table, false) {
            Ok(crm) => tokio::time::timeout(PATIENCE, crm.check())
                .await
                .unwrap_or_else(|_| {
                    let text = format!("no answer within {} s", PATIENCE.as_secs());
                    vec![Finding::fault(
                        text,
                        "look whether this machine reaches the CRM's address",
                    )]
                }),
            Err(error) => vec![Finding::fault(
                format!("{error:#}"),
                "mend the configuration",
            )],
        };
        add(&format!("crm {}", table.name), found);
    }
    if let Some(address) = &config.shadow.address {
        add("shadow", vec![check_shadow(address).await]);
    }
    add("asterisk", vec![check_asterisk(config).await]);
    add("ami", ami::check(config).await);
    add("dialplan", check_dialplan(config));
    let to_mend = findings
        .iter()
        .filter(|(_, finding)| !finding.mend.is_empty())
        .count();
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
    Ok(if to_mend > 0 { TO_MEND } else { DONE })
}

fn print(part: &str, finding: &Finding) {
    let level = match finding.level {
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
    for note in &config.notes {
        found.push(Finding::warning(
            note.clone(),
            "take it out until that version comes",
        ));
    }
    found
}

fn check_directory(config: &Config) -> Finding {
    let place = config.data_dir.display();
    // Not made here: it would belong to whoever runs this command.
    if !config.data_dir.exists() {
        return Finding::good(format!("{place} is not there yet; `pryamo serve` makes it"));
    }
    match serve::open_directory(config) {
        Ok(directory) => Finding::good(format!(
            "{place} opens, {} employees known",
            directory.roster().len()
        )),
        Err(error) if is_in_use(&error) => {
            Finding::good(format!("{place} is in use by the running daemon"))
        }
        Err(error) => Finding::fault(
            fault::told(&error),
            "let the user that runs pryamo own the folder, or change `data_dir`",
        ),
    }
}

async fn check_daemon(config: &Config) -> Finding {
    let address = config.forward.listen;
    match super::ask::get_text(&format!("http://{address}/healthz")).await {
        Ok(body) if body.contains("alive") => Finding::good(format!("answers at {address}")),
        Ok(_) => Finding::fault(
            format!("something else than pryamo answers at {address}"),
            "stop it (the vendor's module?), or change `forward.listen`",
        ),
        Err(_) => Finding::good(format!(
            "does not run ({address} is free); start it with `pryamo serve`"
        )),
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

async fn check_asterisk(config: &Config) -> Finding {
    let asked = super::console::program(config)
        .args(["-rx", "core show function CURL"])
        .output();
    let output = match tokio::time::timeout(Duration::from_secs(5), asked).await {
        Err(_) => {
            return Finding::warning(
                "`asterisk -rx` does not answer",
                "look whether Asterisk runs",
            );
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::good("is not on this machine and was not asked");
        }
        Ok(Err(error)) => {
            return Finding::warning(
                format!("cannot be asked: {error}"),
                "run this as root or the user asterisk",
            );
        }
        Ok(Ok(output)) => output,
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + String::from_utf8_lossy(&output.stderr).as_ref();
    if !output.status.success() || text.contains("Unable to connect") {
        let what = text.lines().next().unwrap_or_default();
        return Finding::warning(
            format!("cannot be asked: {what}"),
            "run this as root or the user asterisk, while Asterisk runs",
        );
    }
    if text.contains("No function by that name") {
        return Finding::fault(
            "the function CURL is missing",
            "load func_curl.so (Debian: package asterisk-modules)",
        );
    }
    Finding::good("the function CURL is there")
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

/// What the dialplan on this machine does where callers are asked about.
fn check_dialplan(config: &Config) -> Vec<Finding> {
    let folder = &config.asterisk.folder;
    // Without an Asterisk here there is nothing to say.
    let Some(dialplan) = Dialplan::read(folder) else {
        return Vec::new();
    };
    let asking = dialplan.asking();
    if asking.is_empty() {
        return vec![Finding::warning(
            format!("nothing in {} asks pryamo", folder.display()),
            "run `pryamo dialplan --install`",
        )];
    }
    let dangers = dialplan.dangers(&config.asterisk.internal);
    let contexts = asking.into_iter().collect::<Vec<_>>().join(", ");
    if dangers.is_empty() {
        return vec![Finding::good(format!("{contexts}: asks as it should"))];
    }
    let told = dangers.into_iter().map(|danger| {
        let (file, line) = &danger.place;
        let text = format!(
            "{} line {line}, [{}]: {}",
            file.display(),
            danger.context,
            danger.kind.text()
        );
        if danger.kind.is_grave() {
            Finding::fault(text, danger.kind.mend())
        } else {
            Finding::warning(text, danger.kind.mend())
        }
    });
    told.collect()
}
