//! `pryamo check` and the PBX: how it asks, whether that is loaded, and where FreePBX leads calls.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::cli::console;
use crate::config::Config;
use crate::crm::Finding;
use crate::dialplan::install::FILE;
use crate::dialplan::reader::{Dialplan, Question};

/// FreePBX writes this file; nobody else does.
const FREEPBX_WRITES: &str = "extensions_additional.conf";
/// FreePBX's own settings.
const FREEPBX: &str = "/etc/freepbx.conf";
/// Where FreePBX writes its Custom Destinations that return.
const DESTINATIONS: &str = "customdests";
/// Where `AGI()` goes without a port.
const AGI_PORT: u16 = 4573;
const STEPS: &str = "Admin, Custom Destinations, Add: Target pryamo,s,1, Return Yes; choose it in Connectivity, Inbound Routes; Apply Config";

/// What is told of Asterisk, its dialplan and FreePBX, with the part that each belongs to.
pub(super) async fn check(config: &Config) -> Vec<(&'static str, Finding)> {
    let read = Dialplan::read(&config.asterisk.folder);
    let questions = read.as_ref().map(Dialplan::questions).unwrap_or_default();
    let (finding, answers) = ways(config, &questions).await;
    let mut found = vec![("asterisk", finding)];
    let Some(dialplan) = &read else {
        // Without an Asterisk here there is nothing more to say.
        return found;
    };
    let mut told = dialplan_files(config, dialplan, &questions);
    if answers {
        told.extend(not_loaded(config, &questions).await);
    }
    found.extend(told.into_iter().map(|finding| ("dialplan", finding)));
    if is_freepbx(config) {
        let told = freepbx(config, dialplan, &questions);
        found.extend(told.into_iter().map(|finding| ("freepbx", finding)));
    }
    found
}

fn is_freepbx(config: &Config) -> bool {
    let folder = &config.asterisk.folder;
    folder.join(FREEPBX_WRITES).exists()
        || (folder == Path::new("/etc/asterisk") && Path::new(FREEPBX).exists())
}

/// Whether Asterisk can ask at all: `CURL()`, or `AGI()` where the dialplan asks by it. The second
/// value says whether its console answers.
async fn ways(config: &Config, questions: &[Question<'_>]) -> (Finding, bool) {
    let by_agi = !questions.is_empty() && questions.iter().all(|question| question.by_agi);
    let (asked, what) = if by_agi {
        ("core show application AGI", "the application AGI")
    } else {
        ("core show function CURL", "the function CURL")
    };
    let text = match console::ask_shortly(config, asked).await {
        Ok(text) => text,
        Err(console::ConsoleError::Missing(_)) => {
            let told = Finding::good("is not on this machine and was not asked");
            return (told, false);
        }
        Err(error) => {
            let told = Finding::warning(
                error.what(),
                "run this as root or the user asterisk, while Asterisk runs",
            );
            return (told, false);
        }
    };
    if !text.contains("No function by that name") && !text.contains("is not registered") {
        return (Finding::good(format!("{what} is there")), true);
    }
    let mend = if by_agi {
        "`asterisk -rx 'module load res_agi.so'`, and look whether modules.conf keeps it out"
    } else {
        "`asterisk -rx 'module load func_curl.so'` (Debian: package asterisk-modules), or ask by FastAGI: `pryamo dialplan --agi --install`"
    };
    let told =
        format!("{what} is missing: Asterisk cannot ask, every call goes the standard route");
    (Finding::fault(told, mend), true)
}

/// What the files say where callers are asked about.
fn dialplan_files(
    config: &Config,
    dialplan: &Dialplan,
    questions: &[Question<'_>],
) -> Vec<Finding> {
    if questions.is_empty() {
        let folder = config.asterisk.folder.display();
        return vec![Finding::warning(
            format!("nothing in {folder} asks pryamo"),
            "run `pryamo dialplan --install`",
        )];
    }
    let mut found: Vec<Finding> = questions
        .iter()
        .filter_map(|question| asks_elsewhere(config, question))
        .collect();
    for danger in dialplan.dangers(&config.asterisk.internal) {
        let (file, line) = &danger.place;
        let text = format!(
            "{} line {line}, [{}]: {}",
            file.display(),
            danger.context,
            danger.kind.text()
        );
        found.push(if danger.kind.is_grave() {
            Finding::fault(text, danger.kind.mend())
        } else {
            Finding::warning(text, danger.kind.mend())
        });
    }
    if found.is_empty() {
        let contexts = dialplan.asking().into_iter().collect::<Vec<_>>().join(", ");
        found.push(Finding::good(format!("{contexts}: asks as it should")));
    }
    found
}

/// A question to a port of this machine where pryamo does not listen.
fn asks_elsewhere(config: &Config, question: &Question<'_>) -> Option<Finding> {
    let (key, ours) = if question.by_agi {
        ("fastagi.listen", config.fastagi.address())
    } else {
        ("forward.listen", Some(config.forward.listen))
    };
    let (file, line) = &question.line.place;
    let place = format!(
        "{} line {line}, [{}]",
        file.display(),
        question.line.context
    );
    let Some(ours) = ours else {
        return Some(Finding::fault(
            format!("{place}: asks by FastAGI, which is switched off"),
            format!("set `{key} = \"127.0.0.1:4574\"`"),
        ));
    };
    let (host, port) = target(question.address?, question.by_agi)?;
    let is_here = host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|ip: IpAddr| ip.is_loopback() || ip == ours.ip());
    (is_here && port != ours.port()).then(|| {
        let asked = format!("{host}:{port}");
        Finding::fault(
            format!("{place}: asks {asked}, and pryamo listens at {ours}"),
            format!("set `{key} = \"{}\"`, or mend the address there (`pryamo dialplan --install` renews its own)",
                SocketAddr::new(ours.ip(), port)),
        )
    })
}

/// Host and port of `127.0.0.1:8077`; `None` for what a variable holds.
fn target(address: &str, by_agi: bool) -> Option<(&str, u16)> {
    if address.contains('$') {
        return None;
    }
    let usual = if by_agi { AGI_PORT } else { 80 };
    match address.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => {
            Some((host.trim_matches(['[', ']']), port.parse().ok()?))
        }
        _ => Some((address, usual)),
    }
}

/// What stands in the files and did not reach Asterisk.
async fn not_loaded(config: &Config, questions: &[Question<'_>]) -> Option<Finding> {
    let mut contexts: Vec<&str> = questions
        .iter()
        .map(|question| question.line.context.as_str())
        .collect();
    contexts.dedup();
    for context in contexts {
        let shown = console::ask(config, &format!("dialplan show {context}")).await;
        if shown.is_ok_and(|shown| !shown.contains(&format!("'{context}'"))) {
            return Some(Finding::fault(
                format!("[{context}] stands in the files, and Asterisk has not taken it"),
                "`asterisk -rx 'dialplan reload'`, then look at what /var/log/asterisk/full says",
            ));
        }
    }
    None
}

/// Whether FreePBX leads a call to where pryamo is asked.
fn freepbx(config: &Config, dialplan: &Dialplan, questions: &[Question<'_>]) -> Vec<Finding> {
    let names_file = |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name == FILE);
    if config.asterisk.folder.join(FILE).exists() && !dialplan.files.iter().any(names_file) {
        return vec![Finding::fault(
            format!("{FILE} is not included in extensions.conf: nothing in it counts"),
            "`fwconsole reload`; does that not help, reinstall FreePBX's core module, which includes it",
        )];
    }
    if questions.is_empty() {
        return Vec::new();
    }
    let mut doors: Vec<&str> = vec!["pryamo"];
    doors.extend(
        questions
            .iter()
            .map(|question| question.line.context.as_str()),
    );
    let leads = |does: &str| {
        let behind = does.split_once('(').map_or("", |(_, behind)| behind);
        doors.iter().any(|door| {
            behind
                .strip_prefix(door)
                .is_some_and(|rest| rest.starts_with(','))
        })
    };
    let is_outside = |context: &str| !context.starts_with("pryamo") && !doors.contains(&context);
    let entries: Vec<_> = dialplan
        .lines
        .iter()
        .filter(|line| is_outside(&line.context) && leads(&line.does))
        .collect();
    if entries.is_empty() {
        return vec![Finding::warning(
            "no route leads to pryamo: FreePBX never asks it",
            STEPS,
        )];
    }
    let is_used = |line: &&crate::dialplan::reader::Line| {
        let named = format!("{DESTINATIONS},{},", line.extension);
        line.context != DESTINATIONS || dialplan.lines.iter().any(|one| one.does.contains(&named))
    };
    if !entries.iter().any(is_used) {
        return vec![Finding::warning(
            "the Custom Destination is there, and no inbound route leads to it",
            "choose it in Connectivity, Inbound Routes, Set Destination; Apply Config",
        )];
    }
    vec![Finding::good("a route leads to pryamo")]
}
