//! Tables become settings; a fault is told with its key, its line and the nearest known key.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Config, ConfigError, CrmCommon, CrmTable, PREFIX, SECRETS};
use crate::call::{DidPattern, MOST_TRIED};
use crate::caller_name;
use crate::crm;
use crate::directory;
use crate::journal;
use crate::pbx::ami;
use crate::record::{CrmName, EntityKind};
use crate::rules;
use crate::shadow;

/// Variables with the prefix that are no keys.
const NO_KEYS: [&str; 2] = ["PRYAMO_CONFIG", "PRYAMO_LOG"];
/// The tables of the file.
const TABLES: &[&str] = &[
    "forward",
    "fastagi",
    "asterisk",
    "phone",
    "directory",
    "crm",
    "match",
    "name",
    "ami",
    "talks",
    "office",
    "route",
    "rules",
    "sync",
    "hooks",
    "page",
    "journal",
    "log",
];
/// The longest live lookup: the page's dialplan gives up after 5 s.
const LONGEST_LIVE_LOOKUP_MS: u64 = 4000;
/// The keys of [`CrmCommon`], to part them from the kind's own.
const COMMON_CRM_KEYS: &[&str] = &[
    "did",
    "region",
    "fields",
    "limit_share",
    "hook_secret",
    "employees",
    "departments",
];

/// What is needed to say where a fault lies.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) shown: String,
}

impl Reader<'_> {
    /// Takes the tables apart, each to its owner.
    pub(super) fn read(
        self,
        mut table: toml::Table,
        path: Option<PathBuf>,
    ) -> Result<Config, ConfigError> {
        self.check_tables(&table)?;
        let data_dir = match table.remove("data_dir") {
            None => PathBuf::from("/var/lib/pryamo"),
            Some(toml::Value::String(folder)) if !folder.is_empty() => PathBuf::from(folder),
            Some(other) => {
                return Err(self.wrong(
                    "data_dir",
                    format!("`data_dir` must be a folder's name, not {other}"),
                ));
            }
        };
        let mut directory = self.table(&mut table, "directory")?;
        let directory_kind = match directory.remove("kind") {
            None => "embedded".to_owned(),
            Some(toml::Value::String(kind)) => kind,
            Some(other) => {
                return Err(self.wrong(
                    "kind",
                    format!("`directory.kind` must be text, not {other}"),
                ));
            }
        };
        self.known_kind(
            "directory.kind",
            &directory_kind,
            directory::KINDS.iter().map(|kind| kind.name),
        )?;
        let mut forward = self.table(&mut table, "forward")?;
        self.secrets_from_files("forward", &mut forward)?;
        let shadow = self.shadow(&mut table, &mut forward)?;
        let config = Config {
            data_dir,
            shadow,
            forward: self.section("forward", forward)?,
            fastagi: self.take(&mut table, "fastagi")?,
            asterisk: self.take(&mut table, "asterisk")?,
            phone: self.take(&mut table, "phone")?,
            directory_kind,
            directory,
            crms: self.crms(&mut table)?,
            matching: self.take(&mut table, "match")?,
            names: self.take(&mut table, "name")?,
            ami: self.ami(&mut table)?,
            talks: self.take(&mut table, "talks")?,
            office: self.take(&mut table, "office")?,
            route: self.take(&mut table, "route")?,
            rules: self.table(&mut table, "rules")?,
            sync: self.take(&mut table, "sync")?,
            hooks: self.take(&mut table, "hooks")?,
            page: self.take(&mut table, "page")?,
            journal: self.take(&mut table, "journal")?,
            log: self.take(&mut table, "log")?,
            path,
        };
        self.check(&config)?;
        Ok(config)
    }

    /// At the top of the file, or in `[forward]`.
    fn shadow(
        &self,
        table: &mut toml::Table,
        forward: &mut toml::Table,
    ) -> Result<shadow::Settings, ConfigError> {
        let address = match (table.remove("shadow"), forward.remove("shadow")) {
            (Some(_), Some(_)) => {
                let text = "`shadow` and `forward.shadow` mean the same: write one of them";
                return Err(self.wrong("shadow", text.to_owned()));
            }
            (one, other) => one.or(other),
        };
        match address {
            None => Ok(shadow::Settings::default()),
            Some(toml::Value::String(written)) if written.trim().is_empty() => {
                Ok(shadow::Settings::default())
            }
            Some(toml::Value::String(written)) => shadow::Address::read(&written)
                .map(|address| shadow::Settings {
                    address: Some(address),
                })
                .map_err(|text| self.wrong("shadow", text)),
            Some(other) => Err(self.wrong(
                "shadow",
                format!("`shadow` must be an address in quotes, not {other}"),
            )),
        }
    }

    fn ami(&self, table: &mut toml::Table) -> Result<ami::Settings, ConfigError> {
        let mut section = self.table(table, "ami")?;
        self.secrets_from_files("ami", &mut section)?;
        self.section("ami", section)
    }

    fn check_tables(&self, table: &toml::Table) -> Result<(), ConfigError> {
        let known: Vec<&str> = ["data_dir", "shadow"]
            .into_iter()
            .chain(TABLES.iter().copied())
            .collect();
        match table.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(self.wrong(key, unknown_key(key, &known))),
            None => Ok(()),
        }
    }

    fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let forward = &config.forward;
        if !forward.listen.ip().is_loopback() && forward.allow.is_empty() && forward.token.is_none()
        {
            return Err(self.wrong("listen", format!(
                "`forward.listen = \"{}\"` can be reached from other machines: say who may ask, \
                 `forward.allow = [\"10.0.0.5\"]` or `forward.token`", forward.listen)));
        }
        config
            .fastagi
            .check()
            .map_err(|text| self.wrong("listen", text))?;
        config
            .page
            .check()
            .map_err(|text| self.wrong("base_path", text))?;
        config
            .shadow
            .check(forward.listen)
            .map_err(|text| self.wrong("shadow", text))?;
        config
            .asterisk
            .check()
            .map_err(|(key, text)| self.wrong(key, format!("[asterisk]: {text}")))?;
        if forward.threads == 0 || forward.threads > 64 {
            return Err(self.wrong("threads", "`forward.threads` must be 1 to 64".to_owned()));
        }
        if config.matching.live_lookup_ms > LONGEST_LIVE_LOOKUP_MS {
            return Err(self.wrong("live_lookup_ms", format!(
                "`match.live_lookup_ms` may be {LONGEST_LIVE_LOOKUP_MS} at most: the dialplan waits 5 s")));
        }
        if config.matching.order.is_empty() {
            return Err(self.wrong(
                "order",
                "`match.order` must name at least one kind".to_owned(),
            ));
        }
        let wants = |kind| config.matching.order.contains(&kind);
        if wants(EntityKind::Deal) && !wants(EntityKind::Contact) && !wants(EntityKind::Company) {
            return Err(self.wrong("order", "`match.order` names deal, which has no phone of its own: it is found through its contact or company, so name one of them too".to_owned()));
        }
        for pattern in config.phone.did.keys() {
            DidPattern::try_from(pattern.clone())
                .map_err(|text| self.wrong(pattern, format!("[phone.did]: {text}")))?;
        }
        if !(8..=caller_name::Settings::MOST_BYTES).contains(&config.names.bytes) {
            return Err(self.wrong(
                "bytes",
                format!(
                    "`name.bytes` must be 8 to {}",
                    caller_name::Settings::MOST_BYTES
                ),
            ));
        }
        if !(1..=journal::Settings::MOST_DAYS).contains(&config.journal.days) {
            let most = journal::Settings::MOST_DAYS;
            return Err(self.wrong(
                "days",
                format!(
                    "`journal.days` must be 1 to {most}; to keep nothing, `journal.enabled = false`"
                ),
            ));
        }
        self.check_route(config)?;
        self.check_rules(config)?;
        self.check_crms(config)
    }

    fn check_route(&self, config: &Config) -> Result<(), ConfigError> {
        for (place, policy) in config.route.policies() {
            let wrong = |key: &str, text: &str| Err(self.wrong(key, format!("[{place}]: {text}")));
            if policy
                .ring_seconds
                .is_some_and(|seconds| !(3..=300).contains(&seconds))
            {
                return wrong("ring_seconds", "`ring_seconds` must be 3 to 300");
            }
            if policy
                .most_tries
                .is_some_and(|tries| !(1..=MOST_TRIED).contains(&tries))
            {
                return wrong("most_tries", "`most_tries` must be 1 to 32");
            }
            if policy
                .total_seconds
                .is_some_and(|seconds| !(3..=3600).contains(&seconds))
            {
                return wrong("total_seconds", "`total_seconds` must be 3 to 3600");
            }
        }
        let outgoing = &config.route.outgoing;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(&outgoing.strip) || !is_number(&outgoing.prefix) {
            return Err(self.wrong(
                "outgoing",
                "[route.outgoing]: `strip` and `prefix` are digits".to_owned(),
            ));
        }
        Ok(())
    }

    /// Opens the rules once, so that a wrong one is told with its line, before anything runs.
    fn check_rules(&self, config: &Config) -> Result<(), ConfigError> {
        let known: Vec<&str> = rules::KINDS.iter().map(|kind| kind.name).collect();
        if let Some(key) = config
            .rules
            .keys()
            .find(|key| !known.contains(&key.as_str()))
        {
            return Err(self.wrong(key, format!("[rules]: {}", unknown_key(key, &known))));
        }
        config.open_rules().map(drop).map_err(|error| {
            let text = explain_serde(&error.text);
            let key = quoted(&error.text)
                .first()
                .copied()
                .unwrap_or(error.rule)
                .to_owned();
            self.wrong(&key, format!("[rules.{}]: {text}", error.rule))
        })
    }

    fn check_crms(&self, config: &Config) -> Result<(), ConfigError> {
        for (index, table) in config.crms.iter().enumerate() {
            if config
                .crms
                .iter()
                .take(index)
                .any(|earlier| earlier.name == table.name)
            {
                return Err(self.wrong(
                    "name",
                    format!("two [[crm]] tables are named `{}`", table.name),
                ));
            }
            for (who, row) in &table.common.employees {
                row.read(&config.office).map_err(|fault| {
                    self.wrong(
                        who,
                        format!("crm `{}`: employee `{who}`: {fault}", table.name),
                    )
                })?;
            }
            let is_blank = |secret: &SecretString| secret.expose_secret().trim().is_empty();
            if table.common.hook_secret.as_ref().is_some_and(is_blank) {
                return Err(self.wrong(
                    "hook_secret",
                    format!(
                        "`hook_secret` of crm `{}` is empty: anybody could send notices",
                        table.name
                    ),
                ));
            }
            let share = table.common.limit_share;
            if !(share > 0.0 && share <= 1.0) {
                return Err(self.wrong(
                    "limit_share",
                    format!(
                        "`limit_share` of crm `{}` must be above 0 and at most 1",
                        table.name
                    ),
                ));
            }
        }
        Ok(())
    }

    fn crms(&self, table: &mut toml::Table) -> Result<Vec<CrmTable>, ConfigError> {
        match table.remove("crm") {
            None => Ok(Vec::new()),
            Some(toml::Value::Array(tables)) => tables
                .into_iter()
                .map(|value| match value {
                    toml::Value::Table(table) => self.crm(table),
                    other => {
                        Err(self.wrong("crm", format!("a [[crm]] must be a table, not {other}")))
                    }
                })
                .collect(),
            Some(_) => Err(self.wrong(
                "crm",
                "write [[crm]] with two brackets: there may be several".to_owned(),
            )),
        }
    }

    fn crm(&self, mut table: toml::Table) -> Result<CrmTable, ConfigError> {
        let kind = self.text_of(&mut table, "kind")?.ok_or_else(|| {
            self.wrong(
                "[crm]",
                format!(
                    "a [[crm]] table lacks `kind`: one of {}",
                    listed(crm::KINDS.iter().map(|kind| kind.name))
                ),
            )
        })?;
        self.known_kind("crm.kind", &kind, crm::KINDS.iter().map(|kind| kind.name))?;
        let name = self
            .text_of(&mut table, "name")?
            .unwrap_or_else(|| kind.clone());
        let is_plain = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_plain {
            return Err(self.wrong("name", format!("crm `{name}`: a `name` is made of letters a-z, digits, - and _: it stands in addresses")));
        }
        self.secrets_from_files(&format!("crm.{name}"), &mut table)?;
        let (common, own): (toml::Table, toml::Table) = table
            .into_iter()
            .partition(|(key, _)| COMMON_CRM_KEYS.contains(&key.as_str()));
        let common: CrmCommon = self.section(&format!("crm `{name}`"), common)?;
        Ok(CrmTable {
            name: CrmName::new(&name),
            kind,
            common,
            own,
        })
    }

    fn text_of(&self, table: &mut toml::Table, key: &str) -> Result<Option<String>, ConfigError> {
        match table.remove(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(
                key,
                format!("`crm.{key}` must be text in quotes, not {other}"),
            )),
        }
    }

    fn known_kind<'k>(
        &self,
        key: &str,
        kind: &str,
        known: impl Iterator<Item = &'k str>,
    ) -> Result<(), ConfigError> {
        let known: Vec<&str> = known.collect();
        if known.contains(&kind) {
            return Ok(());
        }
        Err(self.wrong(
            "kind",
            format!(
                "`{key} = \"{kind}\"` is not known; there is {}",
                listed(known.into_iter())
            ),
        ))
    }

    fn table(&self, table: &mut toml::Table, name: &str) -> Result<toml::Table, ConfigError> {
        match table.remove(name) {
            None => Ok(toml::Table::new()),
            Some(toml::Value::Table(section)) => Ok(section),
            Some(_) => Err(self.wrong(name, format!("[{name}] must be a table"))),
        }
    }

    fn take<T: for<'de> Deserialize<'de>>(
        &self,
        table: &mut toml::Table,
        name: &str,
    ) -> Result<T, ConfigError> {
        let section = self.table(table, name)?;
        self.section(name, section)
    }

    fn section<T: for<'de> Deserialize<'de>>(
        &self,
        name: &str,
        section: toml::Table,
    ) -> Result<T, ConfigError> {
        section.try_into().map_err(|error: toml::de::Error| {
            let text = explain_serde(error.message());
            let key = quoted(error.message())
                .first()
                .copied()
                .unwrap_or(name)
                .to_owned();
            self.wrong(&key, format!("[{name}]: {text}"))
        })
    }

    /// Reads `KEY_file` into `KEY` for every secret.
    fn secrets_from_files(&self, place: &str, table: &mut toml::Table) -> Result<(), ConfigError> {
        for secret in SECRETS {
            let key = format!("{secret}_file");
            let Some(value) = table.remove(&key) else {
                continue;
            };
            if table.contains_key(secret) {
                return Err(self.wrong(
                    &key,
                    format!("{place}: `{secret}` and `{key}` exclude each other"),
                ));
            }
            let toml::Value::String(path) = value else {
                return Err(self.wrong(&key, format!("{place}: `{key}` must be a file's name")));
            };
            let text = std::fs::read_to_string(&path).map_err(|cause| ConfigError::SecretFile {
                key,
                path,
                cause,
            })?;
            table.insert(
                secret.to_owned(),
                toml::Value::String(text.trim().to_owned()),
            );
        }
        Ok(())
    }

    /// An error at the line where `key` stands, if it stands anywhere.
    fn wrong(&self, key: &str, text: String) -> ConfigError {
        let stands = |line: &str| {
            let line = line
                .trim_start()
                .trim_start_matches('[')
                .trim_start_matches('"');
            line.strip_prefix(key).is_some_and(|rest| {
                rest.trim_start_matches('"')
                    .trim_start()
                    .starts_with(['=', ']', '.'])
            })
        };
        let line = self.text.lines().position(stands);
        let place = match line {
            Some(index) => format!("{} line {}", self.shown, index + 1),
            None => self.shown.clone(),
        };
        ConfigError::Wrong { place, text }
    }
}

/// Lets `PRYAMO_FORWARD__LISTEN` and `PRYAMO_CRM__SALES__TOKEN` override the file.
pub(super) fn override_from(
    table: &mut toml::Table,
    environment: &[(String, String)],
) -> Result<(), ConfigError> {
    for (variable, value) in environment {
        if NO_KEYS.contains(&variable.as_str()) || variable.starts_with("PRYAMO_TEST") {
            continue;
        }
        let path: Vec<String> = variable
            .trim_start_matches(PREFIX)
            .split("__")
            .map(str::to_lowercase)
            .collect();
        put(table, &path, read_value(value)).map_err(|text| ConfigError::Wrong {
            place: format!("environment variable {variable}"),
            text,
        })?;
    }
    Ok(())
}

/// A variable's value: TOML where it is one (numbers, lists, true), else the text itself.
fn read_value(written: &str) -> toml::Value {
    toml::from_str::<toml::Table>(&format!("value = {written}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(written.to_owned()))
}

fn put(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    let Some((key, rest)) = path.split_first() else {
        return Ok(());
    };
    if rest.is_empty() {
        // The file that a secret would have been read from gives way to the secret itself.
        table.remove(&format!("{key}_file"));
        table.insert(key.clone(), value);
        return Ok(());
    }
    let entry = table
        .entry(key.clone())
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    match entry {
        toml::Value::Table(inner) => put(inner, rest, value),
        toml::Value::Array(tables) => {
            let Some((which, rest)) = rest.split_first() else {
                return Ok(());
            };
            let found = tables
                .iter_mut()
                .enumerate()
                .find_map(|(index, candidate)| {
                    let candidate = candidate.as_table_mut()?;
                    let name = candidate
                        .get("name")
                        .and_then(toml::Value::as_str)
                        .unwrap_or_default();
                    let is_it = name.replace('-', "_").to_lowercase() == *which
                        || index.to_string() == *which;
                    is_it.then_some(candidate)
                });
            match found {
                Some(inner) => put(inner, rest, value),
                None => Err(format!("no [[{key}]] is named `{which}`")),
            }
        }
        _ => Err(format!("`{key}` is no table")),
    }
}

/// Turns serde's words into ours: an unknown key is told with the nearest known one.
pub fn explain_serde(message: &str) -> String {
    if !message.starts_with("unknown field") {
        return unquoted_text(message);
    }
    let names = quoted(message);
    match names.split_first() {
        Some((unknown, known)) => unknown_key(unknown, known),
        None => message.to_owned(),
    }
}

/// A number in place of text, which may be a secret that somebody wrote without its quotes.
fn unquoted_text(message: &str) -> String {
    const EXPECTED: &str = ", expected a string";
    let number = ["invalid type: integer `", "invalid type: floating point `"]
        .iter()
        .find_map(|start| message.split_once(start));
    match number.and_then(|(before, rest)| Some((before, rest.split_once(EXPECTED)?.1))) {
        Some((before, behind)) => format!("{before}a number, expected text in quotes{behind}"),
        None => message.to_owned(),
    }
}

fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

fn unknown_key(unknown: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(unknown, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(unknown.len()) / 2)
        .min();
    match nearest {
        Some((_, nearest)) => format!("unknown key `{unknown}`; did you mean `{nearest}`?"),
        None => format!(
            "unknown key `{unknown}`; known are {}",
            listed(known.iter().copied())
        ),
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
