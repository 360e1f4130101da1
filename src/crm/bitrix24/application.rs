//! The OAuth application: how it comes by its tokens, and what an installation brings.
//!
//! After the vendor's pages "OAuth 2.0" and "automatic renewal", and the SDKs, which send a form by
//! POST. How a pair is kept through every mishap, `crm::oauth` knows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::hook::Installation;
use super::refusal::Refusal;
use super::wire;
use crate::crm::oauth::store::{Pair, Store};
use crate::crm::oauth::{Exchanged, Grant, Keeper, TokenServer};
use crate::crm::{CrmError, read_body};
use crate::fault::lock;

/// Where tokens are renewed if neither the portal nor the configuration says.
pub(super) const OAUTH_URL: &str = "https://oauth.bitrix24.tech/";
/// The vendor's domains, one of which an installation may name its token server under.
const VENDOR_DOMAINS: [&str; 4] = [
    "bitrix.info",
    "bitrix24.tech",
    "bitrix24.com",
    "bitrix24.ru",
];
/// How long a renewal may take; all requests wait for it.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The largest answer of a token server.
const ANSWER_LIMIT_BYTES: usize = 64 << 10;

/// An application of the portal.
pub(super) struct Application {
    keeper: Arc<Keeper<Tokens>>,
    /// The portal's address of all methods, with a trailing slash.
    rest: String,
    /// What proves that a notice is the portal's, as the installation told it.
    proof: Mutex<Option<SecretString>>,
    /// How often it was installed or updated while we run.
    installs: AtomicU64,
}

/// What the configuration says of the application.
pub(super) struct Registration {
    pub(super) client_id: String,
    pub(super) client_secret: SecretString,
    /// A first refresh token from an earlier exchange.
    pub(super) refresh_token: Option<SecretString>,
    /// Where tokens are renewed if the portal names no server of the vendor's.
    pub(super) oauth_url: Url,
}

/// The token server of one application.
struct Tokens {
    http: reqwest::Client,
    client_id: String,
    client_secret: SecretString,
    oauth_url: Url,
    /// The portal's clock and ours when it was told.
    clock: Mutex<Option<(Timestamp, Instant)>>,
}

/// What is stored with a pair.
#[derive(Default, Serialize, Deserialize)]
struct Notes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    application_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_endpoint: Option<String>,
}

impl Notes {
    /// Notes that cannot be read are none.
    fn read(value: &Value) -> Self {
        serde_json::from_value(value.clone()).unwrap_or_default()
    }

    fn written(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Application {
    /// An application that asks nothing yet. `rest` is the portal's address of all methods.
    pub(super) fn new(
        http: reqwest::Client,
        rest: String,
        registration: Registration,
        store: Store,
    ) -> Self {
        let tokens = Tokens {
            http,
            client_id: registration.client_id.clone(),
            client_secret: registration.client_secret,
            oauth_url: registration.oauth_url,
            clock: Mutex::default(),
        };
        let first = registration.refresh_token.map(Grant::Refresh);
        let keeper = Keeper::new(tokens, registration.client_id, first, store);
        // A file that cannot be read is told when a token is wanted.
        let stored = keeper.stored().ok().flatten();
        let notes = stored.map(|stored| Notes::read(&stored.notes));
        let application_token = notes.and_then(|notes| notes.application_token);
        Self {
            keeper: Arc::new(keeper),
            rest,
            proof: Mutex::new(application_token.map(SecretString::from)),
            installs: AtomicU64::new(0),
        }
    }

    /// A token for the next request, renewed if it was refused or its end is near.
    pub(super) async fn token(
        &self,
        refused: Option<SecretString>,
    ) -> Result<SecretString, CrmError> {
        self.keeper.token(refused).await
    }

    /// `token`, or the one that has taken its place since.
    pub(super) fn newest(&self, token: SecretString) -> SecretString {
        self.keeper.newest(token)
    }

    /// The portal's address of all methods, with a trailing slash.
    pub(super) fn rest(&self) -> &str {
        &self.rest
    }

    /// What proves a notice; `None` before an installation has told it.
    pub(super) fn application_token(&self) -> Option<SecretString> {
        lock(&self.proof).clone()
    }

    /// How often it was installed or updated while we run: each time its events must be bound anew.
    pub(super) fn installs(&self) -> u64 {
        self.installs.load(Ordering::Acquire)
    }

    /// Says whether there is anything to come by a token with.
    pub(super) fn is_authorised(&self) -> Result<bool, CrmError> {
        let stored = self.keeper.stored()?;
        Ok(self.keeper.has_first() || stored.is_some_and(|stored| stored.pair.is_some()))
    }

    /// Takes what an installation or update of the application has brought. When this returns, the
    /// tokens are on the disk.
    pub(super) async fn install(self: &Arc<Self>, brought: Installation) -> Result<(), CrmError> {
        // A task of its own: the portal hangs up early and says all this only once.
        let this = Arc::clone(self);
        let taken = tokio::spawn(async move { this.take(brought).await });
        taken.await.map_err(|error| CrmError::Unreachable {
            method: "ONAPPINSTALL".to_owned(),
            cause: error.into(),
        })?
    }

    async fn take(&self, brought: Installation) -> Result<(), CrmError> {
        if let Some(pair) = brought.pair() {
            let known = self.application_token();
            let notes = Notes {
                application_token: brought
                    .application_token
                    .as_ref()
                    .or(known.as_ref())
                    .map(|token| token.expose_secret().to_owned()),
                member_id: brought.member_id.clone(),
                server_endpoint: brought.server_endpoint.clone(),
            };
            self.keeper.adopt(pair, notes.written()).await?;
            if let Some(token) = brought.application_token {
                *lock(&self.proof) = Some(token);
            }
        }
        self.installs.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Takes note of the portal's clock, as a reply's `time` tells it.
    pub(super) fn note_time(&self, time: &Value) {
        if let Some(now) = wire::finish_time(time) {
            *lock(&self.keeper.server().clock) = Some((now, Instant::now()));
        }
    }
}

#[async_trait]
impl TokenServer for Tokens {
    const METHOD: &'static str = "POST /oauth/token/";
    /// Shorter than a batch takes: the portal's refusal is the rule, this only spares requests.
    const AHEAD: Duration = Duration::from_mins(1);

    async fn admit(&self) -> Result<(), CrmError> {
        // Another host than the portal's, with a request an hour: no budget is touched.
        Ok(())
    }

    async fn exchange(&self, grant: &Grant, notes: &Value) -> Result<Exchanged, CrmError> {
        let (grant_type, key) = grant.form();
        let form = [
            ("grant_type", grant_type),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose_secret()),
            (key, grant.secret().expose_secret()),
        ];
        let notes = Notes::read(notes);
        let address = self.address(notes.server_endpoint.as_deref());
        let request = self.http.post(address).timeout(TIMEOUT).form(&form);
        let (status, body) = read(request).await?;
        let Ok(answer) = serde_json::from_slice::<Value>(&body) else {
            return Err(unreachable(format!("HTTP {status} without JSON")));
        };
        if let Some(refusal) = Refusal::read(status, &answer) {
            let refusal = refusal
                .without(grant.secret().expose_secret())
                .without(self.client_secret.expose_secret());
            return judge(status, &refusal);
        }
        if status != 200 {
            return Err(unreachable(format!("HTTP {status} without a reason")));
        }
        let pair = self.read_pair(&answer)?;
        let told = |key: &str| answer.get(key).and_then(wire::text);
        let notes = Notes {
            application_token: notes.application_token,
            member_id: told("member_id").or(notes.member_id),
            server_endpoint: told("server_endpoint").or(notes.server_endpoint),
        };
        Ok(Exchanged::Renewed {
            pair,
            notes: Some(notes.written()),
        })
    }

    fn now(&self) -> Option<Timestamp> {
        let (told, at) = (*lock(&self.clock))?;
        told.checked_add(at.elapsed()).ok()
    }

    fn authorise_again(&self, why: &str) -> String {
        format!(
            "{}; let an administrator of the portal install the application again, its installation \
             address being that of pryamo's hook, or put a new token into `crm.refresh_token`",
            why.trim_end()
        )
    }
}

impl Tokens {
    fn read_pair(&self, answer: &Value) -> Result<Pair, CrmError> {
        let secret = |key: &str| {
            answer
                .get(key)
                .and_then(wire::text)
                .map(SecretString::from)
                .ok_or_else(|| CrmError::Shape {
                    method: Self::METHOD.to_owned(),
                    text: format!("no `{key}`"),
                })
        };
        let seconds = |key: &str| answer.get(key).and_then(wire::positive);
        let told = seconds("expires").map(u64::cast_signed);
        let ends = told.or_else(|| {
            let life = seconds("expires_in")?.cast_signed();
            Some(self.now()?.as_second().saturating_add(life))
        });
        Ok(Pair {
            access: secret("access_token")?,
            refresh: secret("refresh_token")?,
            ends,
        })
    }

    /// The server that the authorisation names, if it is the vendor's; the configured one else: our
    /// secret must not follow a stranger's word.
    fn address(&self, server_endpoint: Option<&str>) -> Url {
        let is_vendors = |host: &str| {
            VENDOR_DOMAINS.iter().any(|domain| {
                host.strip_suffix(domain)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        };
        let named = server_endpoint.and_then(|address| Url::parse(address).ok());
        let named = named.filter(|url| url.scheme() == "https" && url.port().is_none());
        let mut address = named
            .filter(|url| url.host_str().is_some_and(is_vendors))
            .filter(|url| url.host_str() != self.oauth_url.host_str())
            .unwrap_or_else(|| self.oauth_url.clone());
        address.set_query(None);
        address.set_path("/oauth/token/");
        address
    }
}

/// A refusal of the token server's: for good, or one that passes.
fn judge(status: u16, refusal: &Refusal) -> Result<Exchanged, CrmError> {
    if refusal.means_full_bucket() || status == 429 {
        return Err(CrmError::RateLimited(Duration::from_secs(10)));
    }
    if status >= 500 {
        return Err(unreachable(format!("HTTP {status}: {}", refusal.words())));
    }
    let hint = match refusal.code() {
        "invalid_client" | "wrong_client" => {
            " (are `crm.client_id` and `crm.client_secret` those of this application?)"
        }
        "payment_required" => " (the portal's plan has run out: pay for it and restart pryamo)",
        _ => "",
    };
    let words = format!("the token server says {}{hint}", refusal.words());
    Ok(Exchanged::Refused(words))
}

async fn read(request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), CrmError> {
    let failed = |error: reqwest::Error| CrmError::Unreachable {
        method: Tokens::METHOD.to_owned(),
        cause: Box::new(error.without_url()),
    };
    let mut response = request.send().await.map_err(failed)?;
    let body = read_body(&mut response, ANSWER_LIMIT_BYTES).await;
    let body = body.map_err(failed)?;
    let body = body.ok_or_else(|| unreachable("the answer is too long".to_owned()))?;
    Ok((response.status().as_u16(), body))
}

fn unreachable(text: String) -> CrmError {
    CrmError::Unreachable {
        method: Tokens::METHOD.to_owned(),
        cause: text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_secret_goes_to_the_vendor_or_where_it_is_configured() {
        let address = |endpoint: Option<&str>| {
            let tokens = Tokens {
                http: crate::crm::http_client(None).unwrap(),
                client_id: "local.1".into(),
                client_secret: "s".into(),
                oauth_url: Url::parse("https://tokens.example:8443/x/").unwrap(),
                clock: Mutex::default(),
            };
            tokens.address(endpoint).to_string()
        };
        let configured = "https://tokens.example:8443/oauth/token/";
        let table = [
            (None, configured),
            (
                Some("https://oauth.bitrix.info/rest/"),
                "https://oauth.bitrix.info/oauth/token/",
            ),
            (
                Some("https://oauth.bitrix24.tech/rest/?a=b"),
                "https://oauth.bitrix24.tech/oauth/token/",
            ),
            (Some("https://oauth.bitrix.info.evil.example/"), configured),
            (Some("https://evilbitrix.info/rest/"), configured),
            (Some("http://oauth.bitrix.info/rest/"), configured),
            (Some("https://tokens.example/rest/"), configured),
            (Some("no address"), configured),
        ];
        for (endpoint, expected) in table {
            assert_eq!(address(endpoint), expected, "{endpoint:?}");
        }
    }
}
