//! The configuration: one TOML file, then the environment, then defaults.
//!
//! Reads the file into common options and `kind` tables; the owner of a kind parses its own table.
//! The only place that reads the environment. Every error names the key and, where it can, the line.

mod changes;
mod read;
mod secrets;
mod show;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::changes::{Followed, follow};
pub use self::read::explain_serde;
use self::read::{Reader, override_from};
pub use self::secrets::secret_files;
pub use self::show::{example, show};
use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::call::{DidPattern, ExtensionPattern};
use crate::caller_name;
use crate::chain;
use crate::crm;
use crate::dialplan;
use crate::directory::{CrmRules, OwnRow, RosterRules};
use crate::hooks;
use crate::hours;
use crate::journal;
use crate::page;
use crate::pbx::{self, ami, fastagi, talks};
use crate::phone::Region;
use crate::record::{CrmName, EntityKind};
use crate::router;
use crate::rules;
use crate::shadow;
use crate::sync;

/// Where the file is looked for when neither `--config` nor `$PRYAMO_CONFIG` names one.
const PLACES: [&str; 2] = ["pryamo.toml", "/etc/pryamo/pryamo.toml"];
/// The environment's variables that override keys begin so.
const PREFIX: &str = "PRYAMO_";
/// Keys whose value is a secret: never printed, and readable from `KEY_file`.
const SECRETS: [&str; 9] = [
    "url",
    "secret",
    "token",
    "client_secret",
    "refresh_token",
    "authorization_code",
    "hook_secret",
    "application_token",
    "password",
];

/// Everything that the file, the environment and the defaults say.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// `data_dir`.
    pub data_dir: PathBuf,
    /// `shadow`.
    pub shadow: shadow::Settings,
    /// `[forward]`.
    pub forward: Forward,
    /// `[fastagi]`.
    pub fastagi: fastagi::Settings,
    /// `[asterisk]`.
    pub asterisk: dialplan::Settings,
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
    /// `[ami]`.
    pub ami: ami::Settings,
    /// `[talks]`.
    pub talks: talks::Settings,
    /// `[office]`.
    pub office: hours::Office,
    /// `[route]`.
    pub route: chain::Settings,
    /// `[rules]`: a table for each rule, which the rule reads.
    pub rules: toml::Table,
    /// `[sync]`.
    pub sync: sync::Settings,
    /// `[hooks]`.
    pub hooks: hooks::Settings,
    /// `[page]`.
    pub page: page::Settings,
    /// `[journal]`.
    pub journal: journal::Settings,
    /// `[log]`.
    pub log: Log,
}

/// `[forward]`: where Asterisk asks.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    /// Address and port. Default: 127.0.0.1:8077.
    pub listen: SocketAddr,
    /// Who may ask besides this machine: addresses or networks. Default: nobody.
    #[serde(deserialize_with = "pbx::networks")]
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
    /// Switches on `POST /hooks/{name}/{hook_secret}`. Default: none.
    pub hook_secret: Option<SecretString>,
    /// What the CRM does not hold about its users, by e-mail, user id or name.
    pub employees: BTreeMap<String, OwnRow>,
    /// The heads of departments, by the department's name or identifier.
    pub departments: BTreeMap<String, DepartmentRow>,
}

impl Default for CrmCommon {
    fn default() -> Self {
        Self {
            did: Vec::new(),
            region: None,
            fields: Vec::new(),
            limit_share: 0.8,
            hook_secret: None,
            employees: BTreeMap::new(),
            departments: BTreeMap::new(),
        }
    }
}

/// A row of `[crm.departments]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DepartmentRow {
    /// Its head: an e-mail, a user id or a name of this CRM.
    pub head: String,
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
        /// The parser's words, with the place.
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
        let path = Self::find(named);
        let text = match &path {
            Some(path) => std::fs::read_to_string(path).map_err(|cause| ConfigError::Read {
                path: path.display().to_string(),
                cause,
            })?,
            None => String::new(),
        };
        Self::parse(&text, path, &environment)
    }

    /// The file that [`Config::load`] reads; `None` with no file at all.
    pub fn find(named: Option<&Path>) -> Option<PathBuf> {
        let from_environment = std::env::var_os("PRYAMO_CONFIG")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        named
            .map(Path::to_owned)
            .or(from_environment)
            .or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.exists()))
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
            text: syntax_fault(text, error.message(), error.span()),
        })?;
        let reader = Reader { text, shown };
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
            office: self.office.clone(),
            crms: crms.collect(),
        }
    }

    fn crm_rules(&self, table: &CrmTable) -> CrmRules {
        let rows = table.common.employees.iter().map(|(who, row)| {
            // A text that is wrong was refused when the configuration was read.
            let row = row.read(&self.office).unwrap_or_default();
            (who.clone(), row)
        });
        let departments = table.common.departments.iter();
        let heads = departments.map(|(which, row)| (which.clone(), row.head.clone()));
        CrmRules::new(self.region_of(table), rows).with_heads(heads)
    }

    /// Makes the rules of `[rules]`.
    pub fn open_rules(&self) -> Result<Vec<Box<dyn rules::Rule>>, rules::RuleError> {
        let opening = rules::Opening {
            pattern: self.matching.extension_pattern.clone(),
            region: self.phone.region,
            office: self.office.clone(),
            config_dir: self.folder().to_owned(),
            read_file: |path| std::fs::read_to_string(path).map_err(|error| error.to_string()),
        };
        rules::open(self.rules.clone(), &opening)
    }

    /// Where relative file names are looked for: the configuration's folder.
    fn folder(&self) -> &Path {
        let beside = self.path.as_deref().and_then(Path::parent);
        beside
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
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
            route: self.route.clone(),
            zone: self.office.zone(),
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
    pub fn connector_common(&self, table: &CrmTable, asked_lately: bool) -> crm::Common {
        crm::Common {
            name: table.name.clone(),
            wanted: self.matching.order.clone(),
            fields: table.common.fields.clone(),
            share: table.common.limit_share,
            asked_lately,
            state_dir: self.data_dir.join(format!("crm-{}", table.name)),
            config_dir: self.folder().to_owned(),
        }
    }
}

/// A parser's words with their place, and of that line only the key: its value may be a secret.
pub fn syntax_fault(text: &str, message: &str, span: Option<Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else {
        return message.to_owned();
    };
    let number = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let shown = match line.split_once('=') {
        Some((key, _)) => format!("{key}= ..."),
        None if line.trim_start().starts_with('[') => line.to_owned(),
        None => "...".to_owned(),
    };
    format!("  line {number}, column {column}: {shown}\n  {message}")
}

#[cfg(test)]
mod tests {
    use super::show::star_url;
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
    fn a_fault_of_syntax_is_placed_and_shows_no_value() {
        for (text, told) in [
            ("data_dir = 'x'\ntoken = \"s3cret\n", "line 2, column"),
            ("[ami]\nsecret = s3cret\n", "column 10: secret = ..."),
            ("[[crm\nname = 1\n", ": [[crm\n"),
            ("url = \"a\n  s3cret\"\n", "line 2, column 10: ...\n"),
            ("token = \"s3cret\"\ntoken = \"s3cret\"\n", "duplicate"),
            ("s3cret\n", "line 1, column"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("is no TOML:\n  line "), "{error}");
            assert!(error.contains(told), "{told}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
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
        assert!(config.crms.is_empty());
    }

    #[test]
    fn a_kind_takes_the_keys_that_are_its_own() {
        let config = parse(
            "[page]\nlisten = \"127.0.0.1:8079\"\n[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\n\
             url = \"https://demo.bitrix24.ru/rest/17/k0d3example/\"\nhook_secret = \"s\"\n\
             application_token = \"t\"\nclient_id = \"i\"\nclient_secret = \"c\"\n\
             [crm.employees]\n502 = { extension = \"102\", hours = \"Mon-Fri 09:00-18:00\" }\n",
        )
        .unwrap();
        assert_eq!(config.page.listen, Some(([127, 0, 0, 1], 8079).into()));
        assert_eq!(config.crms[0].own.len(), 4);
    }

    #[test]
    fn a_webhooks_secret_is_starred() {
        assert_eq!(
            star_url("https://demo.bitrix24.ru/rest/17/k0d3/"),
            "https://demo.bitrix24.ru/rest/17/***/"
        );
    }
}
