//! The settings in force with their secrets starred, and the example with every option.

use super::{Config, CrmTable, SECRETS};
use crate::caller_name;
use crate::chain;
use crate::crm;
use crate::dialplan;
use crate::directory;
use crate::hooks;
use crate::hours;
use crate::journal;
use crate::page;
use crate::pbx::{ami, fastagi, talks};
use crate::rules;
use crate::shadow;
use crate::sync;

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
    let shadow = config.shadow.address.as_ref();
    put_in("shadow", shadow.map(|address| address.to_string().into()));
    let mut forward = toml::Value::try_from(&config.forward).ok();
    if let (Some(toml::Value::Table(table)), true) = (&mut forward, config.forward.token.is_some())
    {
        table.insert("token".to_owned(), STARS.into());
    }
    put_in("forward", forward);
    put_in("fastagi", toml::Value::try_from(&config.fastagi).ok());
    put_in("asterisk", toml::Value::try_from(&config.asterisk).ok());
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
    let mut ami = toml::Value::try_from(&config.ami).ok();
    if let (Some(toml::Value::Table(table)), true) = (&mut ami, config.ami.secret.is_some()) {
        table.insert("secret".to_owned(), STARS.into());
    }
    put_in("ami", ami);
    put_in("talks", toml::Value::try_from(&config.talks).ok());
    put_in("office", toml::Value::try_from(&config.office).ok());
    put_in("route", toml::Value::try_from(&config.route).ok());
    put_in("rules", Some(config.rules.clone().into()));
    put_in("sync", toml::Value::try_from(&config.sync).ok());
    put_in("hooks", toml::Value::try_from(&config.hooks).ok());
    put_in("page", toml::Value::try_from(&config.page).ok());
    put_in("journal", toml::Value::try_from(&config.journal).ok());
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
    if crm.common.hook_secret.is_some() {
        shown.insert("hook_secret".to_owned(), STARS.into());
    }
    for (key, value) in &crm.own {
        let starred = match value {
            toml::Value::String(text) if key == "url" => star_url(text).into(),
            _ if is_like_a_secret(key) => STARS.into(),
            other => other.clone(),
        };
        shown.insert(key.clone(), starred);
    }
    if let Ok(employees) = toml::Value::try_from(&crm.common.employees) {
        shown.insert("employees".to_owned(), employees);
    }
    shown
}

/// Says whether a key is that of a secret, or as good as one with a slip of the pen: what a kind of
/// CRM does not know is told when it is opened, and not before.
fn is_like_a_secret(key: &str) -> bool {
    let is_near = |secret: &&str| {
        let slips = if secret.len() < 5 { 0 } else { 2 };
        strsim::damerau_levenshtein(key, secret) <= slips
    };
    SECRETS.iter().any(is_near)
}

/// Keeps a web address readable but for the secret in a webhook's path.
pub(super) fn star_url(url: &str) -> String {
    let Some((start, rest)) = url.split_once("/rest/") else {
        return url.to_owned();
    };
    // Without the number of a user in front, the secret may stand there.
    match rest.split('/').next() {
        Some(user) if !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{start}/rest/{user}/{STARS}/")
        }
        _ => format!("{start}/rest/{STARS}/"),
    }
}

/// Every option with its default, commented: `pryamo.example.toml`.
pub fn example() -> String {
    let mut text = String::from(EXAMPLE_TOP);
    // A key of no table must stand before all tables.
    text.push_str(shadow::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(EXAMPLE_FIRST);
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
    text.push_str(ami::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(talks::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(hours::Office::EXAMPLE);
    text.push('\n');
    text.push_str(chain::Settings::EXAMPLE);
    text.push('\n');
    for kind in rules::KINDS {
        text.push_str(&commented(kind.example));
        text.push('\n');
    }
    text.push_str(sync::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(hooks::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(fastagi::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(dialplan::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(page::Settings::EXAMPLE);
    text.push('\n');
    text.push_str(journal::Settings::EXAMPLE);
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

const EXAMPLE_TOP: &str = "\
# pryamo.toml: every option with its default. Generated by `pryamo config --example`.
# The smallest useful file is one [[crm]] table.
#
# Any value may come from the environment: PRYAMO_FORWARD__LISTEN, PRYAMO_CRM__SALES__TOKEN.
# Any secret may come from a file: url_file, token_file, client_secret_file, ...

# data_dir = \"/var/lib/pryamo\"   # the mirror and tokens; the user that runs pryamo must own it
";

const EXAMPLE_FIRST: &str = "\
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
# hook_secret = \"...\"            # the CRM may send notices to /hooks/<name>/<hook_secret>
# [crm.employees]                # what the CRM does not hold, by e-mail, user id or name
# \"anna@example.com\" = { extension = \"101\", deputy = \"boris@example.com\" }
# 502 = { extension = \"102\", mobile = \"+79161234567\", hours = \"Mon-Fri 09:00-18:00\", absent = [\"2026-12-01..2026-12-14\"] }
# [crm.departments]              # heads that the CRM does not hold, by the department's name or id
# \"Sales\" = { head = \"boris@example.com\" }
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
