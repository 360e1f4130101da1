//! The `[[crm]]` table of kind `bitrix24`, and how it becomes a connector.

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::Bitrix24;
use super::access::{Access, Base};
use super::application::{Application, OAUTH_URL, Registration};
use super::availability::Accessibility;
use super::client::{BATCH_LIMIT, Client};
use super::employees::{People, Wishes};
use super::events::Queue;
use super::operating::Ledger;
use super::walk::Ceiling;
use crate::crm::budget::{Budget, Limits};
use crate::crm::oauth::store::Store;
use crate::crm::{Common, Crm, SettingsError, http_client, judge_encryption};
use crate::record::EntityKind;

pub(super) const EXAMPLE: &str = r#"[[crm]]
name = "sales"
kind = "bitrix24"
# An incoming webhook's address; it is a secret, and may stand in a file instead (`url_file`). Made
# in the portal under "Developer resources" - "Other" - "Incoming webhook" by somebody who may read
# all cards, with the rights crm, user_basic, department (the heads of departments) and calendar (who is
# away). http:// is taken with a warning.
url = "https://demo.bitrix24.ru/rest/17/k0d3example/"
# What an outgoing webhook sends to pryamo's hook as `auth[application_token]`; with it, a notice that
# lacks it is refused. An application brings its own when it is installed.
# application_token = "t0ken"
# An application of the portal ("Developer resources" - "Other" - "Local application", script only, its
# installation address being that of pryamo's hook): changes are then fetched from the portal's queue
# of events as they happen. An administrator installs it, with the same rights. Cards are read through the webhook, or, when `url` is the portal's alone (https://demo.bitrix24.ru/), through
# the application too. The tokens are kept in `data_dir`.
# client_id = "local.6713a5e2000000.00000000"
# client_secret = "..."             # an earlier token may begin: refresh_token = "..."
# Where tokens are renewed unless the portal names a server of the vendor's.
# oauth_url = "https://oauth.bitrix24.tech/"
# An authority of your own to trust, a PEM file.
# ca_file = "ca.pem"
# Pages of 50 cards that one request asks for, 1 to 50.
# batch_pages = 50
# Who is away by the calendars, today and the next two days. Left out, it is read where the right
# `calendar` is given; true: `check` warns when the right is missing; false: never.
# absences = true
# What in a calendar means away: "absent", "busy" (meetings too), "quest" (not sure).
# absent_when = ["absent"]
# The working-day clock of everybody with an extension, with the right `timeman`. For firms where all use
# it: who has not begun the day counts as closed. Like all of the employees it is as fresh as
# `sync.employees_every_seconds`; each user costs a third of a second of the portal's time.
# workday = false
# What the portal's plan allows: requests a second, requests at once, and the seconds that a method
# may work for us within ten minutes. With the Enterprise plan 5.0, 250.0 and 480.0.
# limits = { requests_per_second = 2.0, burst = 50.0, operating_seconds = 480.0 }
"#;

/// The right form of the webhook's address, for messages.
const URL_FORM: &str = "https://<portal>/rest/<user id>/<code>/";
/// What part of the bucket is kept for live lookups: 10 of the usual 40 requests.
const RESERVED_PART: f64 = 0.25;

/// The kind's own part of a `[[crm]]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The incoming webhook's address, `https://host/rest/17/code/`; with an application the portal's
    /// alone is enough. Required.
    url: Option<SecretString>,
    /// The application's id.
    client_id: Option<String>,
    /// The application's secret key.
    client_secret: Option<SecretString>,
    /// A first refresh token from an earlier exchange; an installation brings one by itself.
    refresh_token: Option<SecretString>,
    /// Where tokens are renewed; the vendor's server when left out.
    oauth_url: Option<String>,
    /// What proves that a notice comes from the portal.
    application_token: Option<SecretString>,
    /// A PEM file of an own certificate authority; the system's alone when left out.
    ca_file: Option<PathBuf>,
    /// Whether absences are read; where the right to is given when left out.
    absences: Option<bool>,
    /// What in a calendar means that somebody is away; `absent` alone when left out.
    #[serde(default = "default_absent_when")]
    absent_when: Vec<Accessibility>,
    /// Whether the working-day clock is read; not when left out.
    #[serde(default)]
    workday: bool,
    /// What the portal's plan allows.
    #[serde(default)]
    limits: PlanLimits,
    /// Pages of 50 cards in one request, 1 to 50; 50 when left out.
    #[serde(default = "default_batch_pages")]
    batch_pages: usize,
}

/// The limits that the vendor documents for a plan, before our share of them is taken.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PlanLimits {
    /// Requests a second that the portal's bucket leaks; 2, with the Enterprise plan 5.
    requests_per_second: f64,
    /// Requests that the bucket holds; 50, with the Enterprise plan 250.
    burst: f64,
    /// Seconds that one method may work within ten minutes; 480.
    operating_seconds: f64,
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

fn default_absent_when() -> Vec<Accessibility> {
    vec![Accessibility::Absent]
}

fn default_batch_pages() -> usize {
    BATCH_LIMIT
}

/// The portal, as `url` names it.
struct Address {
    url: Url,
    /// The webhook, unless the address is just the portal's.
    webhook: Option<Base>,
}

impl PlanLimits {
    /// The portal's bucket, our share of it.
    fn budget(&self, share: f64, asked_lately: bool) -> Budget {
        let burst = (self.burst * share).max(1.0);
        let limits = Limits {
            per_second: self.requests_per_second * share,
            burst,
            reserve: burst * RESERVED_PART,
        };
        Budget::new(limits, asked_lately)
    }
}

fn each_once(wanted: Vec<EntityKind>) -> Vec<EntityKind> {
    let mut kinds = Vec::new();
    for kind in wanted {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// Reads the table; asks nothing of the portal yet.
pub(super) fn open(table: toml::Table, common: Common) -> Result<Arc<dyn Crm>, SettingsError> {
    let settings: Settings = table
        .try_into()
        .map_err(|error| SettingsError::Wrong(format!("{error} (crm `{}`)", common.name)))?;
    let wrong = |text: String| SettingsError::Wrong(format!("{text} (crm `{}`)", common.name));
    settings.check().map_err(wrong)?;
    let address = read_url(settings.url.as_ref()).map_err(wrong)?;
    let registration = settings.registration().map_err(wrong)?;
    let unencrypted = judge_encryption(&address.url);
    if unencrypted.is_some() {
        tracing::warn!(crm = common.name.as_str(), "`crm.url` is plain http");
    }
    let ca_file = settings.ca_file.map(|file| common.config_dir.join(file));
    let http = http_client(ca_file.as_deref())?;
    let limits = settings.limits;
    let budget = Arc::new(limits.budget(common.share, common.asked_lately));
    let client = |access: Access| {
        let ledger = Ledger::new(limits.operating_seconds * common.share);
        let budget = Arc::clone(&budget);
        Arc::new(Client::new(
            common.name.clone(),
            http.clone(),
            access,
            budget,
            ledger,
        ))
    };
    let application = registration.map(|registration| {
        let store = Store::new(common.state_dir);
        let rest = rest_of(&address.url);
        Arc::new(Application::new(http.clone(), rest, registration, store))
    });
    let by_application = application
        .as_ref()
        .map(|application| client(Access::Application(Arc::clone(application))));
    let reader = match (address.webhook, &by_application) {
        (Some(base), _) => client(Access::Webhook(base)),
        (None, Some(application)) => Arc::clone(application),
        (None, None) => {
            return Err(wrong(format!(
                "`crm.url` is no webhook's address; it looks like {URL_FORM} (the portal's alone \
                 is enough with `crm.client_id`)"
            )));
        }
    };
    let kinds = each_once(common.wanted);
    let queue = application
        .as_ref()
        .zip(by_application)
        .map(|(application, client)| Queue::new(client, Arc::clone(application), kinds.clone()));
    Ok(Arc::new(Bitrix24 {
        name: common.name,
        kinds,
        fields: common.fields,
        host: address.url.host_str().unwrap_or_default().to_owned(),
        site: address.url.origin().ascii_serialization(),
        client: reader,
        ceiling: Ceiling::new(settings.batch_pages),
        people: People::new(Wishes {
            absences: settings.absences,
            absent_when: settings.absent_when,
            workday: settings.workday,
        }),
        application,
        queue,
        application_token: settings.application_token,
        unencrypted,
    }))
}

impl Settings {
    fn check(&self) -> Result<(), String> {
        if !(1..=BATCH_LIMIT).contains(&self.batch_pages) {
            return Err(format!("`crm.batch_pages` must be 1 to {BATCH_LIMIT}"));
        }
        if self.absent_when.is_empty() {
            return Err("`crm.absent_when` is empty; `absences = false` reads none".to_owned());
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
        let is_blank = |secret: &SecretString| secret.expose_secret().trim().is_empty();
        if self.application_token.as_ref().is_some_and(is_blank) {
            return Err("`crm.application_token` is empty".to_owned());
        }
        Ok(())
    }

    /// The application, if there is one.
    fn registration(&self) -> Result<Option<Registration>, String> {
        let Some(client_id) = &self.client_id else {
            let more = [
                ("client_secret", self.client_secret.is_some()),
                ("refresh_token", self.refresh_token.is_some()),
            ];
            return match more.into_iter().find(|(_, is_set)| *is_set) {
                Some((key, _)) => Err(format!("`crm.{key}` wants `crm.client_id` beside it")),
                None => Ok(None),
            };
        };
        let client_secret = self.client_secret.clone();
        let client_secret =
            client_secret.ok_or("`crm.client_id` wants `crm.client_secret` beside it")?;
        let oauth_url = self.oauth_url.as_deref().unwrap_or(OAUTH_URL);
        let oauth_url = Url::parse(oauth_url.trim())
            .ok()
            .filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host())
            .ok_or_else(|| {
                format!("`crm.oauth_url` is no address of a token server, such as {OAUTH_URL}")
            })?;
        Ok(Some(Registration {
            client_id: client_id.trim().to_owned(),
            client_secret,
            refresh_token: self.refresh_token.clone(),
            oauth_url,
        }))
    }
}

/// Takes the address apart: a webhook's, or the portal's alone. The messages never show it.
fn read_url(url: Option<&SecretString>) -> Result<Address, String> {
    let url = url.ok_or_else(|| format!("`crm.url` is missing; it looks like {URL_FORM}"))?;
    let ill_formed = || format!("`crm.url` is no webhook's address; it looks like {URL_FORM}");
    let parsed = Url::parse(url.expose_secret().trim()).map_err(|_| ill_formed())?;
    if !matches!(parsed.scheme(), "https" | "http") {
        return Err(ill_formed());
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(ill_formed());
    }
    let path = parsed.path().trim_end_matches('/');
    if path.is_empty() || path == "/rest" {
        return Ok(Address {
            url: parsed,
            webhook: None,
        });
    }
    let mut segments = path.rsplit('/');
    let (code, user, rest) = (segments.next(), segments.next(), segments.next());
    let code = code
        .filter(|code| !code.is_empty())
        .filter(|_| user.is_some_and(|id| id.parse::<u64>().is_ok()))
        .filter(|_| rest == Some("rest"))
        .ok_or_else(ill_formed)?;
    let address = format!("{}/", parsed.as_str().trim_end_matches('/'));
    let webhook = Base {
        address: SecretString::from(address),
        code: SecretString::from(code.to_owned()),
    };
    Ok(Address {
        url: parsed,
        webhook: Some(webhook),
    })
}

/// Where the portal answers an application.
fn rest_of(url: &Url) -> String {
    let mut rest = url.clone();
    rest.set_path("/rest/");
    rest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm::Finding;
    use crate::record::{CrmName, EntityKind};
    use crate::record::{EmployeeId, EntityId};

    const ADDRESS: &str = "https://demo.bitrix24.ru/rest/17/k0d3example/";

    fn open_with(settings: &str) -> Result<Arc<dyn Crm>, SettingsError> {
        let common = Common {
            name: CrmName::new("sales"),
            wanted: vec![EntityKind::Contact, EntityKind::Lead, EntityKind::Contact],
            fields: Vec::new(),
            share: 0.8,
            asked_lately: false,
            state_dir: PathBuf::new(),
            config_dir: PathBuf::new(),
        };
        open(settings.parse().unwrap(), common)
    }

    fn read(url: &str) -> Result<(String, Option<Finding>), String> {
        let address = read_url(Some(&SecretString::from(url.to_owned())))?;
        let webhook = address.webhook.expect("a webhook");
        let unencrypted = judge_encryption(&address.url);
        Ok((webhook.address.expose_secret().to_owned(), unencrypted))
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
            "absent_when = []",
            "absent_when = ['free']",
            "workday = 'yes'",
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
        // `refresh_token` stands in place of an installation, behind a comment sign.
        assert_eq!(table.len(), 11, "every option is there");
        let settings: Settings = table.try_into().unwrap();
        assert_eq!(settings.oauth_url.as_deref(), Some(OAUTH_URL));
        assert_eq!(settings.limits, PlanLimits::default());
        assert_eq!(settings.batch_pages, default_batch_pages());
        assert_eq!(settings.absent_when, default_absent_when());
        assert!(!settings.workday);
    }

    #[test]
    fn an_application_is_whole_or_refused_and_needs_no_webhook() {
        let portal = "url = 'https://demo.bitrix24.ru/'";
        let application = "client_id = 'local.1'\nclient_secret = 's3cret'";
        for right in [
            format!("{portal}\n{application}"),
            format!("url = 'https://demo.bitrix24.ru/rest'\n{application}"),
            format!("url = '{ADDRESS}'\n{application}\nrefresh_token = 'r'"),
            format!("{portal}\n{application}\noauth_url = 'http://127.0.0.1:8080'"),
        ] {
            assert!(open_with(&right).unwrap().has_news(), "{right}");
        }
        assert!(!open_with(&format!("url = '{ADDRESS}'")).unwrap().has_news());
        for (wrong, key) in [
            (portal.to_owned(), "`crm.url`"),
            (
                format!("{portal}\nclient_id = 'local.1'"),
                "`crm.client_secret`",
            ),
            (
                format!("url = '{ADDRESS}'\nclient_secret = 's3cret'"),
                "`crm.client_id`",
            ),
            (
                format!("url = '{ADDRESS}'\nrefresh_token = 's3cret'"),
                "`crm.client_id`",
            ),
            (
                format!("{portal}\n{application}\noauth_url = 'token server'"),
                "`crm.oauth_url`",
            ),
            (
                format!("url = '{ADDRESS}'\napplication_token = ' '"),
                "`crm.application_token`",
            ),
        ] {
            let text = open_with(&wrong).err().unwrap().to_string();
            assert!(text.contains(key) && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        let table: toml::Table = format!("url = '{ADDRESS}'").parse().unwrap();
        let settings: Settings = table.try_into().unwrap();
        assert!(!format!("{settings:?}").contains("k0d3example"));
    }

    #[test]
    fn cards_and_employees_are_linked_without_the_secret() {
        let crm = open_with(&format!("url = '{ADDRESS}'")).unwrap();
        for (kind, word) in [
            (EntityKind::Contact, "contact"),
            (EntityKind::Company, "company"),
            (EntityKind::Lead, "lead"),
            (EntityKind::Deal, "deal"),
        ] {
            let address = crm.card_address(kind, &EntityId::new("17"));
            let expected = format!("https://demo.bitrix24.ru/crm/{word}/details/17/");
            assert_eq!(address, Some(expected));
        }
        let hostile = crm.employee_address(&EmployeeId::new("1/../?x=\"<"));
        assert_eq!(
            hostile.as_deref(),
            Some("https://demo.bitrix24.ru/company/personal/user/1%2F%2E%2E%2F%3Fx%3D%22%3C/")
        );
        let own = open_with("url = 'http://127.0.0.1:8080/rest/17/k0d3example/'").unwrap();
        assert_eq!(
            own.card_address(EntityKind::Deal, &EntityId::new("5"))
                .as_deref(),
            Some("http://127.0.0.1:8080/crm/deal/details/5/")
        );
    }

    #[test]
    fn a_kind_is_mirrored_once() {
        let crm = open_with(&format!("url = '{ADDRESS}'")).unwrap();
        assert_eq!(crm.kinds(), [EntityKind::Contact, EntityKind::Lead]);
    }
}
