//! Bitrix24, read through an incoming webhook.
//!
//! Facts come from the vendor's REST documentation (`bitrix24/b24restdocs`) and from the public
//! SDKs. The classic lists are used, although the vendor develops them no further: only they give
//! all phones of a card cheaply, and each kind has a limit of working time of its own.

mod check;
mod client;
mod lookup;
mod operating;
mod refusal;
mod walk;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use self::check::Checked;
use self::client::{BATCH_LIMIT, Base, Client, shape};
use self::operating::Ledger;
use self::walk::{Ceiling, Listing};
use super::budget::{Budget, Lane, Limits};
use super::{
    Common, Crm, CrmError, Cursor, Finding, Kind, Page, SettingsError, Since, http_client,
    judge_encryption,
};
use crate::phone::E164;
use crate::record::{Card, CrmName, Employee, EntityId, EntityKind};

/// The kind `bitrix24`.
pub const KIND: Kind = Kind {
    name: "bitrix24",
    example: EXAMPLE,
    later: &["application_token", "client_id", "client_secret"],
    open,
};

const EXAMPLE: &str = r#"[[crm]]
name = "sales"
kind = "bitrix24"
# An incoming webhook's address; it is a secret, and may stand in a file instead (`url_file`). Made
# in the portal under "Developer resources" - "Other" - "Incoming webhook" by somebody who may read
# all cards, with the rights crm and user_basic. http:// is taken with a warning.
url = "https://demo.bitrix24.ru/rest/17/k0d3example/"
# An authority of your own to trust, a PEM file.
# ca_file = "ca.pem"
# Pages of 50 cards that one request asks for, 1 to 50.
# batch_pages = 50
# What the portal's plan allows: requests a second, requests at once, and the seconds that a method
# may work for us within ten minutes. With the Enterprise plan 5.0, 250.0 and 480.0.
# limits = { requests_per_second = 2.0, burst = 50.0, operating_seconds = 480.0 }
"#;

/// The right form of the webhook's address, for messages.
const URL_FORM: &str = "https://<portal>/rest/<user id>/<code>/";
/// What part of the bucket is kept for live lookups: 10 of the usual 40 requests.
const RESERVED_PART: f64 = 0.25;
/// The most users that are read; a portal that tells of more repeats itself.
const EMPLOYEES_LIMIT: usize = 100_000;

/// The kind's own part of a `[[crm]]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The incoming webhook's address, `https://host/rest/17/code/`; required.
    pub url: Option<SecretString>,
    /// A PEM file of an own certificate authority; the system's alone when left out.
    pub ca_file: Option<PathBuf>,
    /// What the portal's plan allows.
    #[serde(default)]
    pub limits: PlanLimits,
    /// Pages of 50 cards in one request, 1 to 50; 50 when left out.
    #[serde(default = "default_batch_pages")]
    pub batch_pages: usize,
}

/// The limits that the vendor documents for a plan, before our share of them is taken.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanLimits {
    /// Requests a second that the portal's bucket leaks; 2, with the Enterprise plan 5.
    pub requests_per_second: f64,
    /// Requests that the bucket holds; 50, with the Enterprise plan 250.
    pub burst: f64,
    /// Seconds that one method may work within ten minutes; 480.
    pub operating_seconds: f64,
}

impl Default for PlanLimits {
    fn default() -> Self {
        Self {
            requests_per_second: 2.0,
            burst: 50.0,
            operating_seconds: 480.0,
        }
    }
}

fn default_batch_pages() -> usize {
    BATCH_LIMIT
}

/// A portal behind an incoming webhook.
struct Bitrix24 {
    name: CrmName,
    kinds: Vec<EntityKind>,
    fields: Vec<String>,
    client: Client,
    ceiling: Ceiling,
    /// What is wrong with an address without encryption.
    unencrypted: Option<Finding>,
}

fn open(table: toml::Table, common: Common) -> Result<Arc<dyn Crm>, SettingsError> {
    let settings: Settings = table
        .try_into()
        .map_err(|error| SettingsError::Wrong(format!("{error} (crm `{}`)", common.name)))?;
    let wrong = |text: String| SettingsError::Wrong(format!("{text} (crm `{}`)", common.name));
    settings.check().map_err(wrong)?;
    let (base, unencrypted) = read_url(settings.url.as_ref()).map_err(wrong)?;
    if unencrypted.is_some() {
        tracing::warn!(crm = common.name.as_str(), "`crm.url` is plain http");
    }
    let ca_file = settings.ca_file.map(|file| common.config_dir.join(file));
    let http = http_client(ca_file.as_deref())?;
    let limits = settings.limits;
    let burst = (limits.burst * common.share).max(1.0);
    let budget = Budget::new(Limits {
        per_second: limits.requests_per_second * common.share,
        burst,
        reserve: burst * RESERVED_PART,
    });
    let ledger = Ledger::new(limits.operating_seconds * common.share);
    let mut kinds = Vec::new();
    for kind in common.wanted {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(Arc::new(Bitrix24 {
        name: common.name,
        kinds,
        fields: common.fields,
        client: Client::new(http, base, budget, ledger),
        ceiling: Ceiling::new(settings.batch_pages),
        unencrypted,
    }))
}

impl Settings {
    fn check(&self) -> Result<(), String> {
        if !(1..=BATCH_LIMIT).contains(&self.batch_pages) {
            return Err(format!("`crm.batch_pages` must be 1 to {BATCH_LIMIT}"));
        }
        let limits = [
            ("requests_per_second", self.limits.requests_per_second),
            ("burst", self.limits.burst),
            ("operating_seconds", self.limits.operating_seconds),
        ];
        for (key, value) in limits {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("`crm.limits.{key}` must be above 0"));
            }
        }
        Ok(())
    }
}

/// Takes the webhook's address apart. The messages never show it.
fn read_url(url: Option<&SecretString>) -> Result<(Base, Option<Finding>), String> {
    let url = url.ok_or_else(|| format!("`crm.url` is missing; it looks like {URL_FORM}"))?;
    let ill_formed = || format!("`crm.url` is no webhook's address; it looks like {URL_FORM}");
    let parsed = reqwest::Url::parse(url.expose_secret().trim()).map_err(|_| ill_formed())?;
    if !matches!(parsed.scheme(), "https" | "http") {
        return Err(ill_formed());
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(ill_formed());
    }
    let path = parsed.path().trim_end_matches('/');
    let mut segments = path.rsplit('/');
    let (code, user, rest) = (segments.next(), segments.next(), segments.next());
    let code = code
        .filter(|code| !code.is_empty())
        .filter(|_| user.is_some_and(|id| id.parse::<u64>().is_ok()))
        .filter(|_| rest == Some("rest"))
        .ok_or_else(ill_formed)?;
    let address = format!("{}/", parsed.as_str().trim_end_matches('/'));
    let base = Base {
        address: SecretString::from(address),
        code: SecretString::from(code.to_owned()),
    };
    Ok((base, judge_encryption(&parsed)))
}

#[async_trait]
impl Crm for Bitrix24 {
    fn kinds(&self) -> &[EntityKind] {
        &self.kinds
    }

    async fn employees(&self) -> Result<Vec<Employee>, CrmError> {
        const METHOD: &str = "user.get";
        let mut employees = Vec::new();
        let mut start = 0;
        loop {
            let body = json!({
                "sort": "ID",
                "order": "ASC",
                "select": ["ID", "NAME", "LAST_NAME", "ACTIVE", "UF_PHONE_INNER", "EMAIL",
                           "PERSONAL_MOBILE", "WORK_PHONE", "UF_DEPARTMENT"],
                "start": start,
            });
            let reply = self
                .client
                .patiently(|| self.client.call(Lane::Change, METHOD, &body))
                .await?;
            let rows = wire::items(&reply.result).ok_or_else(|| shape(METHOD, "no list"))?;
            for row in rows {
                employees.push(wire::employee(row).map_err(|fault| shape(METHOD, fault))?);
            }
            match reply.next {
                Some(next) if next <= start || employees.len() > EMPLOYEES_LIMIT => {
                    return Err(shape(METHOD, "its pages do not end"));
                }
                Some(next) => start = next,
                None => break,
            }
        }
        if employees.is_empty() {
            return Err(shape(
                METHOD,
                "nobody at all; has the webhook lost its rights?",
            ));
        }
        Ok(employees)
    }

    fn walk(
        &self,
        kind: EntityKind,
        from: Option<Cursor>,
    ) -> BoxStream<'_, Result<Page, CrmError>> {
        self.listing(kind).walk(from)
    }

    fn changes(&self, kind: EntityKind, since: Since) -> BoxStream<'_, Result<Page, CrmError>> {
        self.listing(kind).changed_since(since.time).walk(None)
    }

    async fn read(&self, kind: EntityKind, ids: &[EntityId]) -> Result<Page, CrmError> {
        self.listing(kind).read(ids).await
    }

    async fn find(&self, phone: E164) -> Result<Vec<Card>, CrmError> {
        lookup::find(&self.client, &self.kinds, &self.fields, phone).await
    }

    async fn check(&self) -> Vec<Finding> {
        let checked = Checked {
            client: &self.client,
            name: &self.name,
            kinds: &self.kinds,
        };
        checked.check(self.unencrypted.as_ref()).await
    }
}

impl Bitrix24 {
    fn listing(&self, kind: EntityKind) -> Listing<'_> {
        Listing::new(&self.client, &self.ceiling, kind, &self.fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "https://demo.bitrix24.ru/rest/17/k0d3example/";

    fn open_with(settings: &str) -> Result<Arc<dyn Crm>, SettingsError> {
        let common = Common {
            name: CrmName::new("sales"),
            wanted: vec![EntityKind::Contact, EntityKind::Lead, EntityKind::Contact],
            fields: Vec::new(),
            share: 0.8,
            state_dir: PathBuf::new(),
            config_dir: PathBuf::new(),
        };
        open(settings.parse().unwrap(), common)
    }

    fn read(url: &str) -> Result<(String, Option<Finding>), String> {
        let (base, unencrypted) = read_url(Some(&SecretString::from(url.to_owned())))?;
        Ok((base.address.expose_secret().to_owned(), unencrypted))
    }

    #[test]
    fn the_trailing_slash_is_optional() {
        let expected = Ok((ADDRESS.to_owned(), None));
        assert_eq!(read(ADDRESS), expected);
        assert_eq!(read(ADDRESS.trim_end_matches('/')), expected);
        assert_eq!(read(&format!(" {ADDRESS}\n")), expected);
        let plain = read("http://127.0.0.1:8080/rest/1/code").unwrap();
        assert!(plain.1.is_some());
    }

    #[test]
    fn a_wrong_address_is_refused_with_the_right_form_and_without_its_secret() {
        let wrong = [
            "demo.bitrix24.ru/rest/17/k0d3example/",
            "ftp://demo.bitrix24.ru/rest/17/k0d3example/",
            "https://demo.bitrix24.ru/rest/k0d3example/",
            "https://demo.bitrix24.ru/rest/anna/k0d3example/",
            "https://demo.bitrix24.ru/rest/17/",
            "https://demo.bitrix24.ru/k0d3example",
            "https://demo.bitrix24.ru/rest/17/k0d3example/?x=1",
            "",
        ];
        for url in wrong {
            let text = read(url).unwrap_err();
            assert!(
                text.contains("`crm.url`") && text.contains(URL_FORM),
                "{text}"
            );
            assert!(!text.contains("k0d3example"), "{text}");
        }
        let missing = open_with("").err().unwrap().to_string();
        assert!(missing.contains("`crm.url` is missing"), "{missing}");
    }

    #[test]
    fn settings_have_the_vendors_values_and_refuse_others() {
        assert!(open_with(&format!("url = '{ADDRESS}'")).is_ok());
        for wrong in [
            "batch_pages = 51",
            "batch_pages = 0",
            "limits = { burst = 0 }",
            "limits = { requests_per_second = -1 }",
            "limits = { operating_seconds = nan }",
            "limits = { operating = 1 }",
            "uri = 'x'",
        ] {
            let settings = format!("url = '{ADDRESS}'\n{wrong}");
            let text = open_with(&settings).err().unwrap().to_string();
            assert!(text.contains("sales"), "{text}");
            assert!(!text.contains("k0d3example"), "{text}");
        }
    }

    #[test]
    fn the_example_holds_the_defaults() {
        let lines = EXAMPLE.lines().skip(1).map(|line| {
            let option = line.strip_prefix("# ").unwrap_or(line);
            let key = option.split_once(" = ").map_or("", |(key, _)| key);
            if key.is_empty() || key.contains(' ') {
                line
            } else {
                option
            }
        });
        let text: Vec<&str> = lines.collect();
        let mut table: toml::Table = text.join("\n").parse().unwrap();
        for common in ["name", "kind"] {
            table.remove(common);
        }
        assert_eq!(table.len(), 4, "every option is there");
        let settings: Settings = table.try_into().unwrap();
        assert_eq!(settings.limits, PlanLimits::default());
        assert_eq!(settings.batch_pages, default_batch_pages());
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        let table: toml::Table = format!("url = '{ADDRESS}'").parse().unwrap();
        let settings: Settings = table.try_into().unwrap();
        assert!(!format!("{settings:?}").contains("k0d3example"));
    }

    #[test]
    fn a_kind_is_mirrored_once() {
        let crm = open_with(&format!("url = '{ADDRESS}'")).unwrap();
        assert_eq!(crm.kinds(), [EntityKind::Contact, EntityKind::Lead]);
    }
}
