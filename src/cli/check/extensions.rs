//! `pryamo check` and the employees: has anybody an extension, and does the PBX know it?

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cli::{ask, console};
use crate::config::Config;
use crate::crm::Finding;
use crate::serve;

/// More extensions than fit a line.
const TOLD_MOST: usize = 10;

/// What is known of the people who may be rung.
struct People {
    active: usize,
    extensions: BTreeSet<String>,
}

/// `hinted` are the extensions that the Manager Interface tells of, if it was asked.
pub(super) async fn check(config: &Config, hinted: Option<Vec<String>>) -> Vec<Finding> {
    let people = match of_directory(config) {
        Some(people) => people,
        None => match ask::known_employees(config).await {
            Ok(employees) => of_daemon(&employees),
            // Told of elsewhere: no daemon, or not ours to ask.
            Err(_) => return Vec::new(),
        },
    };
    if people.active == 0 {
        return Vec::new();
    }
    if people.extensions.is_empty() {
        return vec![Finding::fault(
            format!(
                "none of the {} employees has an extension: every call goes the standard route",
                people.active
            ),
            "give them one: in Bitrix24 the employee's internal number, else in [crm.employees]: \"anna@example.com\" = { extension = \"101\" }; `pryamo employees` lists them",
        )];
    }
    let mut found = vec![Finding::good(format!(
        "{} active, {} extensions",
        people.active,
        people.extensions.len()
    ))];
    let is_by_hints = hinted.is_some();
    let known = match hinted {
        Some(hinted) => hinted.into_iter().collect(),
        None => by_console(config).await,
    };
    // An exchange that tells of none at all keeps its phones some other way.
    if !known.is_empty() || is_by_hints {
        found.extend(unknown(config, &people.extensions, &known, is_by_hints));
    }
    found
}

fn unknown(
    config: &Config,
    extensions: &BTreeSet<String>,
    known: &BTreeSet<String>,
    is_by_hints: bool,
) -> Option<Finding> {
    let without: Vec<&str> = extensions.difference(known).map(String::as_str).collect();
    let shown: Vec<&str> = without.iter().copied().take(TOLD_MOST).collect();
    let more = match without.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = shown.join(", ");
    (!without.is_empty()).then(|| {
        if is_by_hints {
            let contexts = config.ami.contexts.join(" or ");
            Finding::warning(
                format!("no hint for {shown}{more}: the states of these phones may be unknown"),
                format!("add hints in {contexts}, or name their context in `ami.contexts`"),
            )
        } else {
            Finding::warning(
                format!("Asterisk has neither a hint nor an endpoint for {shown}{more}: these employees may be rung in vain"),
                "correct the extension in the CRM or in [crm.employees], or make it in the PBX",
            )
        }
    })
}

/// Known only while no daemon has the directory. A folder that is not there is not made: it would
/// belong to whoever runs this command.
fn of_directory(config: &Config) -> Option<People> {
    std::fs::read_dir(&config.data_dir).ok()?.next()?.ok()?;
    let directory = serve::open_directory(config).ok()?;
    let all = directory.roster().all();
    let active = all.iter().filter(|one| one.active);
    let extensions = active.clone().filter_map(|one| one.extension.as_ref().ok());
    Some(People {
        extensions: extensions.map(|one| one.as_str().to_owned()).collect(),
        active: active.count(),
    })
}

fn of_daemon(employees: &[Value]) -> People {
    let is_active = |one: &&Value| one.get("active").and_then(Value::as_bool) == Some(true);
    let active = employees.iter().filter(is_active);
    let extensions = active
        .clone()
        .filter_map(|one| one.get("extension")?.as_str().map(str::to_owned));
    People {
        extensions: extensions.collect(),
        active: active.count(),
    }
}

/// What the console lists of hints and endpoints; nothing where there is none.
async fn by_console(config: &Config) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for command in ["core show hints", "pjsip show endpoints"] {
        if let Ok(text) = console::ask_shortly(config, command).await {
            known.extend(text.lines().filter_map(listed).map(str::to_owned));
        }
    }
    known
}

/// `  101@ext-local : PJSIP/101 ...` or ` Endpoint:  101/101  Unavailable ...`.
fn listed(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (name, is_hint) = match line.strip_prefix("Endpoint:") {
        Some(rest) => (rest.split_whitespace().next()?.split('/').next()?, false),
        None => (line.split_once('@')?.0, true),
    };
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && (!is_hint || line.contains(':'))).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_and_endpoints_are_read() {
        for (line, expected) in [
            (
                "                 101@ext-local           : PJSIP/101&Custom:DND101  State:Idle  Watchers  0",
                Some("101"),
            ),
            (
                " Endpoint:  102/102                                              Unavailable   0 of inf",
                Some("102"),
            ),
            (
                " Endpoint:  <Endpoint/CID.....................................>  <State.....>",
                None,
            ),
            ("               *8101@ext : Custom:x State:Idle", None),
            ("There are no registered dialplan hints", None),
            ("", None),
        ] {
            assert_eq!(listed(line), expected, "{line}");
        }
    }
}
