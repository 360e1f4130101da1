//! The configuration: one TOML file, then the environment, then defaults.
//!
//! Reads the file into common options and `kind` tables; the owner of a kind parses its own table.
//! The only place that reads the environment. Every error names the key and, where it can, the line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};

use crate::call::{DidPattern, ExtensionPattern};
use crate::caller_name;
use crate::crm;
use crate::directory::{self, CrmRules, Override, RosterRules};
use crate::phone::Region;
use crate::record::{CrmName, EntityKind};
use crate::router;
use crate::sync;

/// Where the file is looked for when neither `--config` nor `$PRYAMO_CONFIG` names one.
const PLACES: [&str; 2] = ["pryamo.toml", "/etc/pryamo/pryamo.toml"];
/// The environment's variables that override keys begin so.
const PREFIX: &str = "PRYAMO_";
/// Variables with the prefix that are no keys.
const NO_KEYS: [&str; 2] = ["PRYAMO_CONFIG", "PRYAMO_LOG"];
/// Keys whose value is a secret: never printed, and readable from `KEY_file`.
const SECRETS: [&str; 8] = [
    "url",
    "token",
    "client_secret",
    "refresh_token",
    "authorization_code",
    "hook_secret",
    "application_token",
    "password",
];
/// The tables of the file.
const TABLES: [&str; 8] = [
    "forward",
    "phone",
    "directory",
    "crm",
    "match",
    "name",
    "sync",
    "log",
];
/// Tables of features that this version does not have yet: noted, not refused.
const LATER_TABLES: [&str; 3] = ["fastagi", "hooks", "page"];
/// Keys of `[[crm]]` that this version does not use yet.
const LATER_CRM_KEYS: [&str; 2] = ["hook_secret", "application_token"];

/// Everything that the file, the environment and the defaults say.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// `data_dir`.
    pub data_dir: PathBuf,
    /// `[forward]`.
    pub forward: Forward,
    /// `[phone]`.
    pub phone: Phone,
    /// `directory.kind`.
    pub directory_kind: String,
    /// The rest of `[directory]`.
    pub directory: toml::Table,
    /// `[[crm]]`, in order.
    pub crms: Vec<CrmTable>,
    /// `[match]`.
    pub matching: Matching,
    /// `[name]`.
    pub names: caller_name::Settings,
    /// `[sync]`.
    pub sync: sync::Settings,
    /// `[log]`.
    pub log: Log,
    /// What the file holds that this version does not use.
    pub notes: Vec<String>,
}

/// `[forward]`: where Asterisk asks.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    /// Address and port. Default: 127.0.0.1:8077.
    pub listen: SocketAddr,
    /// Who may ask besides this machine: addresses or networks. Default: nobody.
    #[serde(deserialize_with = "networks")]
    pub allow: Vec<IpNet>,
    /// Who sends this as `token=` or as a bearer token may ask from anywhere. Default: none.
    #[serde(skip_serializing)]
    pub token: Option<SecretString>,
    /// Threads that answer. Default: 2.
    pub threads: usize,
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8077)),
            allow: Vec::new(),
            token: None,
            threads: 2,
        }
    }
}

/// A single address is a network of its own.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |written: String| {
        let alone = || written.parse::<IpAddr>().map(IpNet::from);
        let network = written.parse::<IpNet>().or_else(|_| alone());
        network.map_err(|_| {
            serde::de::Error::custom(format!(
                "`allow` holds \"{written}\", which is no address; write \"10.0.0.5\" or \"10.0.0.0/8\""
            ))
        })
    };
    let written = Vec::<String>::deserialize(deserializer)?;
    written.into_iter().map(read).collect()
}

/// `[phone]`: how written numbers are read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Phone {
    /// The country whose rules numbers without a country code follow. Default: RU.
    pub region: Region,
    /// Other countries for single DIDs: `[phone.did."7727*"] region = "KZ"`.
    pub did: BTreeMap<String, DidRegion>,
}

/// A row of `[phone.did]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DidRegion {
    /// The country for callers of this DID.
    pub region: Region,
}

/// `[match]`: who is the right person.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Matching {
    /// Kinds of cards that take part, the first one wins. Default: contact, company, lead.
    pub order: Vec<EntityKind>,
    /// Milliseconds that an unknown number may be asked of the CRM; 0 = never. Default: 1500.
    pub live_lookup_ms: u64,
    /// Which digits make an extension. Default: `[0-9]{2,6}`.
    #[serde(skip_serializing)]
    pub extension_pattern: ExtensionPattern,
}

impl Default for Matching {
    fn default() -> Self {
        Self {
            order: vec![EntityKind::Contact, EntityKind::Company, EntityKind::Lead],
            live_lookup_ms: 1500,
            extension_pattern: ExtensionPattern::default(),
        }
    }
}

/// The longest live lookup: the page's dialplan gives up after 5 s.
const LONGEST_LIVE_LOOKUP_MS: u64 = 4000;

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// error, warn, info or debug. Default: info.
    pub level: LogLevel,
    /// plain or json. Default: plain.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Plain,
        }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// Worse than promised.
    Warn,
    /// A line per call.
    Info,
    /// The path of every call.
    Debug,
}

impl LogLevel {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Plain,
    /// A JSON object a line.
    Json,
}

/// A `[[crm]]` table: what all kinds share, and the rest for the kind.
#[derive(Clone)]
pub struct CrmTable {
    /// `name`.
    pub name: CrmName,
    /// `kind`.
    pub kind: String,
    /// What all kinds share.
    pub common: CrmCommon,
    /// The kind's own keys, secrets read from their files.
    pub own: toml::Table,
}

impl fmt::Debug for CrmTable {
    /// Leaves the kind's own keys out: there are secrets among them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CrmTable")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("common", &self.common)
            .finish_non_exhaustive()
    }
}

/// The keys that every `[[crm]]` table may have.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrmCommon {
    /// Only calls to these numbers; all when left out.
    pub did: Vec<DidPattern>,
    /// The country of its phones, in place of `phone.region`.
    pub region: Option<Region>,
    /// More fields of the cards to mirror.
    pub fields: Vec<String>,
    /// The share of the vendor's limits that pryamo uses. Default: 0.8.
    pub limit_share: f64,
    /// What the CRM does not hold about its users, by e-mail, user id or name.
    pub employees: BTreeMap<String, EmployeeRow>,
}

impl Default for CrmCommon {
    fn default() -> Self {
        Self {
            did: Vec::new(),
            region: None,
            fields: Vec::new(),
            limit_share: 0.8,
            employees: BTreeMap::new(),
        }
    }
}

/// The keys of [`CrmCommon`], to part them from the kind's own.
const COMMON_CRM_KEYS: [&str; 5] = ["did", "region", "fields", "limit_share", "employees"];

/// A row of `[crm.employees]`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmployeeRow {
    /// The extension, in place of the CRM's; a number may stand without quotes.
    #[serde(deserialize_with = "text_or_number")]
    pub extension: Option<String>,
    /// Not used by this version.
    pub deputy: Option<String>,
    /// Not used by this version.
    pub hours: Option<String>,
}

fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => Ok(Some(text)),
        toml::Value::Integer(number) => Ok(Some(number.to_string())),
        other => Err(serde::de::Error::custom(format!(
            "`extension` must be a number, not {other}"
        ))),
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--config` or `$PRYAMO_CONFIG` names a file that cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path} is no TOML:\n{text}")]
    Syntax {
        /// The file.
        path: String,
        /// The parser's words, with the line.
        text: String,
    },
    /// A key is unknown, missing or wrong.
    #[error("{place}: {text}")]
    Wrong {
        /// The file and line, or the variable.
        place: String,
        /// What is wrong and how to mend it.
        text: String,
    },
    /// A file that a secret is read from cannot be read.
    #[error("cannot read {path}, named by `{key}`")]
    SecretFile {
        /// The key.
        key: String,
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

impl Config {
    /// Finds and reads the configuration.
    ///
    /// `named` is `--config`. With no file at all the defaults hold.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(key, _)| key.starts_with(PREFIX))
            .collect();
        let from_environment = environment
            .iter()
            .find(|(key, value)| key == "PRYAMO_CONFIG" && !value.is_empty())
            .map(|(_, value)| PathBuf::from(value));
        let path = named
            .map(Path::to_owned)
            .or(from_environment)
            .or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.exists()));
        let text = match &path {
            Some(path) => std::fs::read_to_string(path).map_err(|cause| ConfigError::Read {
                path: path.display().to_string(),
                cause,
            })?,
            None => String::new(),
        };
        Self::parse(&text, path, &environment)
    }

    /// Reads a configuration from text; `environment` holds `PRYAMO_...` variables.
    pub fn parse(
        text: &str,
        path: Option<PathBuf>,
        environment: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let shown = path
            .as_ref()
            .map_or("the configuration".to_owned(), |path| {
                path.display().to_string()
            });
        let mut table: toml::Table = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: shown.clone(),
            text: error.to_string(),
        })?;
        let reader = Reader {
            text,
            shown,
            notes: Vec::new(),
        };
        override_from(&mut table, environment)?;
        reader.read(table, path)
    }

    /// Which numbers and people may be rung, for the directory.
    pub fn roster_rules(&self) -> RosterRules {
        let crms = self
            .crms
            .iter()
            .map(|table| (table.name.clone(), self.crm_rules(table)));
        RosterRules {
            pattern: self.matching.extension_pattern.clone(),
            crms: crms.collect(),
        }
    }

    fn crm_rules(&self, table: &CrmTable) -> CrmRules {
        let rows = table.common.employees.iter().map(|(who, row)| {
            (
                who.clone(),
                Override {
                    extension: row.extension.clone(),
                },
            )
        });
        CrmRules::new(self.region_of(table), rows)
    }

    /// How this CRM's phones are read.
    pub fn region_of(&self, table: &CrmTable) -> Region {
        table.common.region.unwrap_or(self.phone.region)
    }

    /// What the router is told.
    pub fn router_settings(&self) -> router::Settings {
        let did_regions = self.phone.did.iter().filter_map(|(pattern, row)| {
            DidPattern::try_from(pattern.clone())
                .ok()
                .map(|pattern| (pattern, row.region))
        });
        router::Settings {
            order: self.matching.order.clone(),
            live_lookup: Duration::from_millis(self.matching.live_lookup_ms),
            region: self.phone.region,
            did_regions: did_regions.collect(),
            crms: self
                .crms
                .iter()
                .map(|table| router::Scope {
                    name: table.name.clone(),
                    did: table.common.did.clone(),
                })
                .collect(),
        }
    }

    /// Says whether a table names a CRM and nothing to reach it by: then only what was imported
    /// answers, and it is asked nothing.
    pub fn is_import_only(table: &CrmTable) -> bool {
        table.own.is_empty()
    }

    /// Which CRM a table means: its kind and, where it has an address, the host.
    pub fn identity_of(&self, table: &CrmTable) -> String {
        let url = table
            .own
            .get("url")
            .and_then(toml::Value::as_str)
            .unwrap_or_default();
        let behind_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = behind_scheme.split('/').next().unwrap_or_default();
        format!("{} {}", table.kind, host.to_lowercase())
    }

    /// What the connector of this table is given.
    pub fn connector_common(&self, table: &CrmTable) -> crm::Common {
        let beside = self
            .path
            .as_deref()
            .and_then(Path::parent)
            .unwrap_or(Path::new("."));
        crm::Common {
            name: table.name.clone(),
            wanted: self.matching.order.clone(),
            fields: table.common.fields.clone(),
            share: table.common.limit_share,
            state_dir: self.data_dir.join(format!("crm-{}", table.name)),
            config_dir: if beside.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                beside.to_owned()
            },
        }
    }
}

/// What is needed to say where a fault lies.
struct Reader<'a> {
    text: &'a str,
    shown: String,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn read(
        mut self,
        mut table: toml::Table,
        path: Option<PathBuf>,
    ) -> Result<Config, ConfigError> {
        self.check_tables(&table)?;
        for later in LATER_TABLES {
            if table.remove(later).is_some() {
                self.notes.push(format!(
                    "[{later}] is not in this version yet and does nothing"
                ));
            }
        }
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
        let config = Config {
            data_dir,
            forward: self.section("forward", forward)?,
            phone: self.take(&mut table, "phone")?,
            directory_kind,
            directory,
            crms: self.crms(&mut table)?,
            matching: self.take(&mut table, "match")?,
            names: self.take(&mut table, "name")?,
            sync: self.take(&mut table, "sync")?,
            log: self.take(&mut table, "log")?,
            path,
            notes: std::mem::take(&mut self.notes),
        };
        self.check(&config)?;
        Ok(config)
    }

    fn check_tables(&self, table: &toml::Table) -> Result<(), ConfigError> {
        let known: Vec<&str> = ["data_dir"]
            .into_iter()
            .chain(TABLES)
            .chain(LATER_TABLES)
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

    fn crms(&mut self, table: &mut toml::Table) -> Result<Vec<CrmTable>, ConfigError> {
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

    fn crm(&mut self, mut table: toml::Table) -> Result<CrmTable, ConfigError> {
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
        for later in LATER_CRM_KEYS {
            if table.remove(later).is_some() {
                self.notes.push(format!(
                    "crm `{name}`: `{later}` is not in this version yet and does nothing"
                ));
            }
        }
        let (common, own): (toml::Table, toml::Table) = table
            .into_iter()
            .partition(|(key, _)| COMMON_CRM_KEYS.contains(&key.as_str()));
        let common: CrmCommon = self.section(&format!("crm `{name}`"), common)?;
        if common
            .employees
            .values()
            .any(|row| row.deputy.is_some() || row.hours.is_some())
        {
            self.notes.push(format!("crm `{name}`: `deputy` and `hours` of [crm.employees] are not in this version yet and do nothing"));
        }
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
fn override_from(
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
        return message.to_owned();
    }
    let names = quoted(message);
    match names.split_first() {
        Some((unknown, known)) => unknown_key(unknown, known),
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

/// The settings in force as TOML, secrets starred.
pub fn show(config: &Config) -> String {
    let mut shown = toml::Table::new();
    let mut put_in = |key: &str, value: Option<toml::Value>| {
        if let Some(value) = value {
            shown.insert(key.to_owned(), value);
        }
    };
    put_in(
        "data_dir",
        Some(config.data_dir.display().to_string().into()),
    );
    let mut forward = toml::Value::try_from(&config.forward).ok();
    if let (Some(toml::Value::Table(table)), true) = (&mut forward, config.forward.token.is_some())
    {
        table.insert("token".to_owned(), STARS.into());
    }
    put_in("forward", forward);
    let mut phone = toml::Table::new();
    phone.insert("region".to_owned(), config.phone.region.to_string().into());
    let dids: toml::Table = config
        .phone
        .did
        .iter()
        .map(|(pattern, row)| {
            let row =
                toml::Table::from_iter([("region".to_owned(), row.region.to_string().into())]);
            (pattern.clone(), row.into())
        })
        .collect();
    if !dids.is_empty() {
        phone.insert("did".to_owned(), dids.into());
    }
    put_in("phone", Some(phone.into()));
    let mut directory = config.directory.clone();
    directory.insert("kind".to_owned(), config.directory_kind.clone().into());
    put_in("directory", Some(directory.into()));
    let mut matching = toml::Value::try_from(&config.matching).ok();
    if let Some(toml::Value::Table(table)) = &mut matching {
        table.insert(
            "extension_pattern".to_owned(),
            config.matching.extension_pattern.to_string().into(),
        );
    }
    put_in("match", matching);
    put_in("name", toml::Value::try_from(&config.names).ok());
    put_in("sync", toml::Value::try_from(&config.sync).ok());
    put_in("log", toml::Value::try_from(&config.log).ok());
    let crms: Vec<toml::Value> = config
        .crms
        .iter()
        .map(|table| show_crm(config, table).into())
        .collect();
    put_in("crm", (!crms.is_empty()).then(|| crms.into()));
    toml::to_string(&shown).unwrap_or_default()
}

const STARS: &str = "***";

fn show_crm(config: &Config, crm: &CrmTable) -> toml::Table {
    let mut shown = toml::Table::new();
    shown.insert("name".to_owned(), crm.name.as_str().into());
    shown.insert("kind".to_owned(), crm.kind.clone().into());
    let did: Vec<String> = crm.common.did.iter().map(ToString::to_string).collect();
    shown.insert("did".to_owned(), did.into());
    shown.insert(
        "region".to_owned(),
        config.region_of(crm).to_string().into(),
    );
    shown.insert("fields".to_owned(), crm.common.fields.clone().into());
    shown.insert("limit_share".to_owned(), crm.common.limit_share.into());
    for (key, value) in &crm.own {
        let starred = match value {
            toml::Value::String(text) if key == "url" => star_url(text).into(),
            _ if SECRETS.contains(&key.as_str()) => STARS.into(),
            other => other.clone(),
        };
        shown.insert(key.clone(), starred);
    }
    if let Ok(employees) = toml::Value::try_from(&crm.common.employees) {
        shown.insert("employees".to_owned(), employees);
    }
    shown
}

/// Keeps a web address readable but for the secret in a webhook's path.
fn star_url(url: &str) -> String {
    let Some((start, rest)) = url.split_once("/rest/") else {
        return url.to_owned();
    };
    let user = rest.split('/').next().unwrap_or_default();
    format!("{start}/rest/{user}/{STARS}/")
}

/// Every option with its default, commented: `pryamo.example.toml`.
pub fn example() -> String {
    let mut text = String::from(EXAMPLE);
    for kind in directory::KINDS {
        text.push_str(&commented(kind.example));
    }
    text.push('\n');
    for kind in crm::KINDS {
        text.push_str(&commented(kind.example));
        text.push('\n');
    }
    text.push_str(EXAMPLE_CRM_COMMON);
    text.push('\n');
    text.push_str(EXAMPLE_MATCH);
    text.push('\n');
    text.push_str(caller_name::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(sync::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(EXAMPLE_LOG);
    text
}

/// Puts a comment sign before every line that lacks one: the example as it is sets nothing.
fn commented(example: &str) -> String {
    let lines = example.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line if line.starts_with('#') => format!("{line}\n"),
        line => format!("# {line}\n"),
    });
    lines.collect()
}

const EXAMPLE: &str = "\
# pryamo.toml: every option with its default. Generated by `pryamo config --example`.
# The smallest useful file is one [[crm]] table.
#
# Any value may come from the environment: PRYAMO_FORWARD__LISTEN, PRYAMO_CRM__SALES__TOKEN.
# Any secret may come from a file: url_file, token_file, client_secret_file, ...

# data_dir = \"/var/lib/pryamo\"   # the mirror and tokens; the user that runs pryamo must own it

# [forward]
# listen = \"127.0.0.1:8077\"      # where Asterisk asks
# allow = [\"10.0.0.5\"]           # who may ask besides this machine
# token = \"...\"                  # or: who sends token=... may ask from anywhere
# threads = 2                    # threads that answer

# [phone]
# region = \"RU\"                  # how numbers without a country code are read
# [phone.did.\"7727*\"]            # callers of these numbers are read by another country's rules
# region = \"KZ\"

";

const EXAMPLE_CRM_COMMON: &str = "\
# What every [[crm]] may have besides:
# did = [\"7495*\"]                # only for calls to these numbers; all when left out
# region = \"RU\"                  # how its phones are read; phone.region when left out
# fields = [\"UF_CRM_VIP\"]        # more fields of the cards to mirror
# limit_share = 0.8              # the share of the vendor's limits that pryamo uses
# [crm.employees]                # what the CRM does not hold, by e-mail, user id or name
# \"anna@example.com\" = { extension = \"101\" }
# 502 = { extension = \"102\" }
";

const EXAMPLE_MATCH: &str = "\
# [match]
# order = [\"contact\", \"company\", \"lead\"]   # kinds that take part, the first wins; \"deal\" may be added
# live_lookup_ms = 1500          # an unknown number is asked of the CRM at most this long; 0 = never
# extension_pattern = \"[0-9]{2,6}\"
";

const EXAMPLE_LOG: &str = "\
# [log]
# level = \"info\"                 # error, warn, info, debug
# format = \"plain\"               # plain or json
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Some(PathBuf::from("pryamo.toml")), &[])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_key_is_told_with_the_nearest_known_one() {
        for (text, expected) in [
            (
                "[forwrad]\n",
                "pryamo.toml line 1: unknown key `forwrad`; did you mean `forward`?",
            ),
            (
                "\n[forward]\nlisen = \"x\"\n",
                "pryamo.toml line 3: [forward]: unknown key `lisen`; did you mean `listen`?",
            ),
            (
                "[match]\nlive_lookup = 5\n",
                "pryamo.toml line 2: [match]: unknown key `live_lookup`; did you mean `live_lookup_ms`?",
            ),
            (
                "[directory]\nkind = \"postgres\"\n",
                "pryamo.toml line 2: `directory.kind = \"postgres\"` is not known; there is `embedded`",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_public_address_wants_a_list_or_a_token() {
        let error = parse("[forward]\nlisten = \"0.0.0.0:8077\"\n").unwrap_err();
        assert!(error.contains("forward.allow"), "{error}");
        parse("[forward]\nlisten = \"0.0.0.0:8077\"\nallow = [\"10.0.0.0/8\"]\n").unwrap();
        parse("[forward]\nlisten = \"0.0.0.0:8077\"\ntoken = \"x\"\n").unwrap();
        let single = parse("[forward]\nallow = [\"10.0.0.5\", \"fd00::/8\"]\n").unwrap();
        assert_eq!(single.forward.allow[0].to_string(), "10.0.0.5/32");
        let error = parse("[forward]\nallow = [\"pbx\"]\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("pbx"), "{error}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let environment = [
            ("PRYAMO_FORWARD__LISTEN", "127.0.0.1:9000"),
            ("PRYAMO_MATCH__LIVE_LOOKUP_MS", "0"),
            ("PRYAMO_MATCH__ORDER", "[\"lead\"]"),
            ("PRYAMO_DATA_DIR", "/tmp/elsewhere"),
            ("PRYAMO_TEST_ASTERISK", "22"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config =
            Config::parse("[forward]\nlisten = \"127.0.0.1:1\"\n", None, &environment).unwrap();
        assert_eq!(config.forward.listen.port(), 9000);
        assert_eq!(config.matching.live_lookup_ms, 0);
        assert_eq!(config.matching.order, [EntityKind::Lead]);
        assert_eq!(config.data_dir, Path::new("/tmp/elsewhere"));
    }

    #[test]
    fn nothing_at_all_is_a_configuration() {
        let config = parse("").unwrap();
        assert_eq!(
            config.forward.listen,
            SocketAddr::from(([127, 0, 0, 1], 8077))
        );
        assert_eq!(config.matching.live_lookup_ms, 1500);
        assert!(config.crms.is_empty() && config.notes.is_empty());
    }

    #[test]
    fn a_webhooks_secret_is_starred() {
        assert_eq!(
            star_url("https://demo.bitrix24.ru/rest/17/k0d3/"),
            "https://demo.bitrix24.ru/rest/17/***/"
        );
    }
}
