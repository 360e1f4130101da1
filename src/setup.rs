//! First set-up: a few answers become a configuration that works.
//!
//! Asks nobody and prints nothing, so that a terminal and a page can both use it. An existing file
//! keeps its comments and order, and nothing in it is replaced.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::config::{Config, ConfigError, CrmTable, syntax_fault};
use crate::crm;
pub use crate::crm::{Finding, Level};
use crate::fault;
use crate::phone::Region;
use crate::secret;

/// Where the configuration goes when nobody says where.
const PLACE: &str = "/etc/pryamo/pryamo.toml";

/// How long a CRM may take for all its questions.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a made-up secret, before they are written as digits.
const SECRET_BYTES: usize = 16;
/// The mode of a new file: there are secrets in it.
const NEW_MODE: u32 = 0o600;

/// What is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answers {
    /// Where the cards are: `bitrix24`, `amocrm` or `csv`.
    pub crm: String,
    /// What it is called here; by its kind when left out.
    pub name: Option<String>,
    /// Its address; of Bitrix24 the incoming webhook's.
    pub url: Option<SecretString>,
    /// amoCRM's long-lived token.
    pub token: Option<SecretString>,
    /// The table, for `csv`.
    pub file: Option<PathBuf>,
    /// How numbers without a country code are read.
    pub region: Region,
    /// Where the mirror lies; as the file says or the default when left out.
    pub data_dir: Option<PathBuf>,
    /// Where Asterisk asks; as the file says or the default when left out.
    pub listen: Option<SocketAddr>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Something was not answered.
    #[error("{0}")]
    Missing(String),
    /// The existing file is no TOML.
    #[error("the configuration that is there is no TOML:\n{0}")]
    Syntax(String),
    /// This CRM stands in it already.
    #[error(
        "the configuration has {what} already; change that table by hand, or take it out first"
    )]
    There {
        /// Which table.
        what: String,
    },
    /// It says something else already.
    #[error(
        "the configuration says `{key} = {there}`, not {given}; change it by hand, or leave that answer out"
    )]
    Differs {
        /// The key.
        key: &'static str,
        /// What the file says.
        there: String,
        /// What was answered.
        given: String,
    },
    /// What came out would not be taken.
    #[error("the answers make no configuration")]
    Config(#[from] ConfigError),
    /// The system refuses it.
    #[error("cannot {doing} {path}; run this as root, or name another file with --config")]
    File {
        /// What was refused.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No secret could be made up.
    #[error("the system gives no random numbers")]
    Random(#[source] io::Error),
}

/// What became of a file.
#[derive(Debug)]
pub struct Written {
    /// Its former state, if there was one.
    pub backup: Option<PathBuf>,
}

impl Answers {
    /// What this kind of CRM needs and was not answered.
    pub fn lacking(&self) -> Vec<&'static str> {
        let needed = match self.crm.as_str() {
            "bitrix24" => vec![("url", self.url.is_none())],
            "amocrm" => vec![("url", self.url.is_none()), ("token", self.token.is_none())],
            "csv" => vec![("file", self.file.is_none())],
            _ => vec![("crm", true)],
        };
        let lacking = needed.into_iter().filter(|(_, lacks)| *lacks);
        lacking.map(|(what, _)| what).collect()
    }

    /// Which CRM is meant, so that it is not taken in twice.
    fn identity(&self) -> String {
        match &self.file {
            Some(file) if self.crm == "csv" => file.display().to_string(),
            _ => host(self.url.as_ref().map_or("", |url| url.expose_secret())),
        }
    }
}

/// The host of an address, without what is secret in it.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/')
        .next()
        .unwrap_or_default()
        .trim()
        .to_lowercase()
}

/// Asks the CRM that the answers name, and tells what is wrong with the mend; nothing is written.
pub async fn try_crm(answers: &Answers) -> Vec<Finding> {
    let alone = Answers {
        name: None,
        ..answers.clone()
    };
    let config = config_text(None, &alone)
        .map_err(|error| fault::told(&error))
        .and_then(|text| Config::parse(&text, None, &[]).map_err(|error| fault::told(&error)));
    let (config, table) = match config {
        Ok(config) => match config.crms.first().cloned() {
            Some(table) => (config, table),
            None => return Vec::new(),
        },
        Err(text) => return vec![Finding::fault(text, "correct the answer")],
    };
    match tokio::time::timeout(PATIENCE, ask(&config, &table)).await {
        Ok(found) => found,
        Err(_) => vec![Finding::fault(
            format!("no answer within {} s", PATIENCE.as_secs()),
            "look whether this machine reaches the CRM's address",
        )],
    }
}

async fn ask(config: &Config, table: &CrmTable) -> Vec<Finding> {
    let kind = crm::KINDS.iter().find(|kind| kind.name == table.kind);
    let Some(kind) = kind else {
        return vec![Finding::fault("there is no such CRM", "choose another")];
    };
    let opened = (kind.open)(table.own.clone(), config.connector_common(table, false));
    let crm = match opened {
        Ok(crm) => crm,
        Err(error) => {
            return vec![Finding::fault(fault::told(&error), "correct the answer")];
        }
    };
    let mut found = crm.check().await;
    if found.iter().all(|one| one.level != Level::Fault)
        && let Ok(staff) = crm.employees().await
    {
        let active = staff.employees.iter().filter(|one| one.active);
        let with = active.clone().filter(|one| one.extension.is_some()).count();
        found.push(Finding::good(format!(
            "{} employees, {with} of them with an extension in the CRM",
            active.count()
        )));
    }
    found
}

/// The configuration with these answers in it; `existing` is the file as it is.
///
/// Makes up a `hook_secret` for a CRM that can send notices.
pub fn config_text(existing: Option<&str>, answers: &Answers) -> Result<String, SetupError> {
    if let Some(what) = answers.lacking().first() {
        let crm = answers.crm.as_str();
        return Err(SetupError::Missing(match *what {
            "crm" => "say which CRM: bitrix24, amocrm or csv".to_owned(),
            what => format!("{crm} needs `{what}`"),
        }));
    }
    let existing = existing.filter(|text| !text.trim().is_empty());
    let mut document: DocumentMut =
        existing
            .unwrap_or(HEAD)
            .parse()
            .map_err(|error: toml_edit::TomlError| {
                let written = existing.unwrap_or(HEAD);
                SetupError::Syntax(syntax_fault(written, error.message(), error.span()))
            })?;
    let folder = answers
        .data_dir
        .as_ref()
        .map(|path| path.display().to_string());
    set(document.as_table_mut(), ("data_dir", "data_dir"), folder)?;
    if let Some(listen) = answers.listen {
        let forward = table_of(document.as_table_mut(), "forward")?;
        set(
            forward,
            ("listen", "forward.listen"),
            Some(listen.to_string()),
        )?;
    }
    let own_region = region(document.as_table_mut(), answers.region, existing.is_some())?;
    let crms = document
        .entry("crm")
        .or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(crms) = crms.as_array_of_tables_mut() else {
        let what = "its CRMs in another form than [[crm]] tables,".to_owned();
        return Err(SetupError::There { what });
    };
    let name = free_name(crms, answers)?;
    crms.push(crm_table(answers, &name, own_region)?);
    let text = document.to_string();
    // Secret files are read here: what is wrong with them is told before anything is written.
    Config::parse(&text, None, &[])?;
    Ok(text)
}

const HEAD: &str = "# Written by `pryamo setup`. Every option: `pryamo config --example`.\n";

/// The region belongs to all CRMs in a new file, and to this one alone where the file has another.
fn region(
    document: &mut Table,
    region: Region,
    is_existing: bool,
) -> Result<Option<String>, SetupError> {
    let there = document
        .get("phone")
        .and_then(|phone| phone.get("region")?.as_str().map(str::to_owned));
    let common = there.unwrap_or_else(|| Region::default().to_string());
    let region = region.to_string();
    if is_existing {
        return Ok((common != region).then_some(region));
    }
    set(
        table_of(document, "phone")?,
        ("region", "phone.region"),
        Some(region),
    )?;
    Ok(None)
}

fn table_of<'a>(document: &'a mut Table, name: &'static str) -> Result<&'a mut Table, SetupError> {
    let item = document.entry(name).or_insert(Item::Table(Table::new()));
    let what = format!("`{name}` in another form than [{name}],");
    item.as_table_mut().ok_or(SetupError::There { what })
}

/// Writes a key unless it is there; another value there is an error.
fn set(
    table: &mut Table,
    (key, shown): (&str, &'static str),
    given: Option<String>,
) -> Result<(), SetupError> {
    let Some(given) = given else {
        return Ok(());
    };
    match table.get(key) {
        None => {
            table.insert(key, value(given));
            Ok(())
        }
        Some(there) if there.as_str() == Some(given.as_str()) => Ok(()),
        Some(there) => Err(SetupError::Differs {
            key: shown,
            there: there.to_string().trim().to_owned(),
            given,
        }),
    }
}

/// A name that no other table has; the CRM itself must not be there either.
fn free_name(crms: &ArrayOfTables, answers: &Answers) -> Result<String, SetupError> {
    let text = |table: &Table, key: &str| {
        let found = table.get(key).and_then(Item::as_str);
        found.unwrap_or_default().to_owned()
    };
    let taken: Vec<String> = crms.iter().map(|table| text(table, "name")).collect();
    for table in crms {
        let file = text(table, "file");
        let there = if file.is_empty() {
            host(&text(table, "url"))
        } else {
            file
        };
        if text(table, "kind") == answers.crm && there == answers.identity() {
            let what = format!("{there} as [[crm]] `{}`", text(table, "name"));
            return Err(SetupError::There { what });
        }
    }
    if let Some(name) = &answers.name {
        let is_taken = taken.contains(name);
        let what = format!("a [[crm]] named `{name}`");
        return if is_taken {
            Err(SetupError::There { what })
        } else {
            Ok(name.clone())
        };
    }
    let usual = if answers.crm == "csv" {
        "list"
    } else {
        answers.crm.as_str()
    };
    let numbered = (2..).map(|number| format!("{usual}-{number}"));
    let mut names = std::iter::once(usual.to_owned()).chain(numbered);
    let free = names.find(|name| !taken.contains(name));
    Ok(free.unwrap_or_else(|| usual.to_owned()))
}

fn crm_table(answers: &Answers, name: &str, region: Option<String>) -> Result<Table, SetupError> {
    let mut table = Table::new();
    table.decor_mut().set_prefix("\n");
    table.insert("name", value(name));
    table.insert("kind", value(answers.crm.as_str()));
    let exposed = |text: &SecretString| value(text.expose_secret().trim());
    if answers.crm == "csv" {
        let file = answers.file.as_ref().map(|file| file.display().to_string());
        table.insert("file", value(file.unwrap_or_default()));
    } else {
        if let Some(url) = &answers.url {
            table.insert("url", exposed(url));
        }
        if let Some(token) = answers.token.as_ref().filter(|_| answers.crm == "amocrm") {
            table.insert("token", exposed(token));
        }
        table.insert(
            "hook_secret",
            value(secret::made_up::<SECRET_BYTES>().map_err(SetupError::Random)?),
        );
        if let Some(mut key) = table.key_mut("hook_secret") {
            let told = format!(
                "# Its notices may come to /hooks/{name}/<hook_secret>; see docs/changes.md.\n"
            );
            key.leaf_decor_mut().set_prefix(told);
        }
    }
    if let Some(region) = region {
        table.insert("region", value(region));
    }
    Ok(table)
}

/// Where the configuration is, or will be: `named`, the file that is found, or the usual place.
pub fn place(named: Option<&Path>) -> PathBuf {
    Config::find(named).unwrap_or_else(|| PathBuf::from(PLACE))
}

/// Reads the file that is there; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<String>, SetupError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused("read", path)(error)),
    }
}

/// Replaces the file in one step. A new one is its owner's alone; one that was there keeps its owner
/// and group, is closed to others, and stays beside as `NAME.STAMP`.
pub fn write(path: &Path, text: &str, stamp: &str) -> Result<Written, SetupError> {
    // What a link leads to is changed.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(refused("make", folder))?;
    let before = fs::metadata(path).ok();
    let backup = free_beside(path, stamp);
    if before.is_some() {
        let former = fs::read(path).map_err(refused("read", path))?;
        put(&backup, &former, before.as_ref()).map_err(refused("write", &backup))?;
    }
    let new = beside(path, &format!("new-{}", std::process::id()));
    let written = put(&new, text.as_bytes(), before.as_ref()).and_then(|()| fs::rename(&new, path));
    written.map_err(|cause| {
        // What was half written helps nobody.
        let _ = fs::remove_file(&new);
        refused("write", path)(cause)
    })?;
    Ok(Written {
        backup: before.map(|_| backup),
    })
}

fn put(path: &Path, text: &[u8], like: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(NEW_MODE)
        .open(path)?;
    if let Some(like) = like {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            chown(path, Some(like.uid()), Some(like.gid()))?;
        }
        let mode = like.permissions().mode() & 0o770 | NEW_MODE;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    file.write_all(text)?;
    file.sync_all()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Two changes of one second must not lose the first state.
fn free_beside(path: &Path, stamp: &str) -> PathBuf {
    let numbered = (2..).map(|number| beside(path, &format!("{stamp}-{number}")));
    let mut names = std::iter::once(beside(path, stamp)).chain(numbered);
    let free = names.find(|name| !name.exists());
    free.unwrap_or_else(|| beside(path, stamp))
}

fn refused(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SetupError {
    let path = path.to_owned();
    move |cause| SetupError::File { doing, path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portal() -> Answers {
        Answers {
            crm: "bitrix24".to_owned(),
            url: Some("https://demo.bitrix24.ru/rest/17/k0d3/".into()),
            region: "KZ".parse().unwrap(),
            data_dir: Some(PathBuf::from("/srv/pryamo")),
            listen: Some("127.0.0.1:9077".parse().unwrap()),
            ..Answers::default()
        }
    }

    fn account() -> Answers {
        Answers {
            crm: "amocrm".to_owned(),
            url: Some("https://demo.amocrm.ru".into()),
            token: Some(" t0ken\n".into()),
            ..Answers::default()
        }
    }

    fn parsed(text: &str) -> Config {
        Config::parse(text, None, &[]).unwrap()
    }

    #[test]
    fn what_was_answered_is_what_is_read() {
        let text = config_text(None, &portal()).unwrap();
        let config = parsed(&text);
        assert_eq!(config.data_dir, Path::new("/srv/pryamo"));
        assert_eq!(config.forward.listen.port(), 9077);
        assert_eq!(config.phone.region.to_string(), "KZ");
        let [crm] = config.crms.as_slice() else {
            panic!("{text}");
        };
        assert_eq!(
            (crm.name.as_str(), crm.kind.as_str()),
            ("bitrix24", "bitrix24")
        );
        let url = crm.own["url"].as_str();
        assert_eq!(url, Some("https://demo.bitrix24.ru/rest/17/k0d3/"));
        let secret = crm.common.hook_secret.as_ref().unwrap();
        assert_eq!(secret.expose_secret().len(), 2 * SECRET_BYTES);
        assert_ne!(
            config_text(None, &portal()).unwrap(),
            text,
            "another secret"
        );
        let of_table = Answers {
            crm: "csv".to_owned(),
            file: Some(PathBuf::from("/srv/it's \"mine\".csv")),
            ..Answers::default()
        };
        let config = parsed(&config_text(None, &of_table).unwrap());
        assert_eq!(
            config.crms[0].own["file"].as_str(),
            Some("/srv/it's \"mine\".csv")
        );
        assert!(config.crms[0].common.hook_secret.is_none());
    }

    #[test]
    fn an_existing_file_keeps_its_comments_and_its_order() {
        let before = "# the office\ndata_dir = \"/srv/pryamo\" # ours\n\n[phone]\nregion = \"RU\"\n\n\
                      # the first\n[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\n\
                      url = \"https://one.bitrix24.ru/rest/1/a/\" # Anna's\n\n[log]\nlevel = \"warn\"\n";
        let answers = Answers {
            region: "KZ".parse().unwrap(),
            ..account()
        };
        let text = config_text(Some(before), &answers).unwrap();
        for line in before.lines() {
            assert!(
                text.lines().any(|one| one == line),
                "{line:?} is gone:\n{text}"
            );
        }
        let config = parsed(&text);
        assert_eq!(config.crms.len(), 2);
        assert_eq!(config.phone.region, Region::default());
        assert_eq!(config.region_of(&config.crms[1]).to_string(), "KZ");
        assert_eq!(config.crms[1].own["token"].as_str(), Some("t0ken"));
        let again = config_text(Some(&text), &answers).unwrap_err().to_string();
        assert!(
            again.contains("demo.amocrm.ru as [[crm]] `amocrm`"),
            "{again}"
        );
    }

    #[test]
    fn nothing_that_is_there_is_replaced() {
        let before = "data_dir = \"/var/lib/pryamo\"\n";
        let error = config_text(Some(before), &portal())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("data_dir") && error.contains("/srv/pryamo"),
            "{error}"
        );
        let named = Answers {
            name: Some("sales".to_owned()),
            ..account()
        };
        let before = "[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\n";
        let error = config_text(Some(before), &named).unwrap_err().to_string();
        assert!(error.contains("named `sales`"), "{error}");
        let broken = config_text(Some("[forward\n"), &account());
        assert!(matches!(broken, Err(SetupError::Syntax(_))), "{broken:?}");
        let lacking = Answers {
            token: None,
            ..account()
        };
        let error = config_text(None, &lacking).unwrap_err().to_string();
        assert_eq!(error, "amocrm needs `token`");
    }

    #[test]
    fn the_file_is_its_owners_alone_and_the_former_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/pryamo.toml");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert!(write(&path, "a", "then").unwrap().backup.is_none());
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let backup = write(&path, "b", "then").unwrap().backup.unwrap();
        assert_eq!((mode(&path), mode(&backup)), (0o640, 0o640));
        assert_eq!(fs::read_to_string(&path).unwrap(), "b");
        assert_eq!(fs::read_to_string(&backup).unwrap(), "a");
        // A former state is never lost, not even to the next one of the same second.
        let second = write(&path, "c", "then").unwrap().backup.unwrap();
        assert_eq!(fs::read_to_string(&backup).unwrap(), "a");
        assert_eq!(fs::read_to_string(&second).unwrap(), "b");
        assert_eq!(fs::read_to_string(&path).unwrap(), "c");
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}{:?}", portal(), account());
        assert!(
            !shown.contains("k0d3") && !shown.contains("t0ken"),
            "{shown}"
        );
    }
}
