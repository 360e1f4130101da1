//! The right to ask: a long-lived token, or OAuth's pair whose refresh token works only once.
//!
//! amoCRM kills a refresh token the moment it is used (developers.kommo.com/reference/get-token),
//! so whoever loses the answer has lost the account until a person authorises again. Hence: one
//! refresher at a time, in this process and among all; the new pair is on the disk before its
//! first use; a mark there tells the next start that an answer is missing; and a caller who hangs
//! up does not cut a refresh short.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::sync::Mutex;

use super::link::{Answer, Link, refusal};
use super::store::{Pair, Store, Stored};
use super::wire::{self, Problem};
use crate::crm::CrmError;
use crate::crm::budget::Lane;

/// An access token is renewed this long before its end.
const AHEAD: Duration = Duration::from_mins(5);
/// Where tokens are exchanged, at the account's own address.
const PATH: &str = "/oauth2/access_token";
const METHOD: &str = "POST /oauth2/access_token";

/// Where the access token of the next request comes from.
pub(super) enum Tokens {
    /// One token for years; nothing to renew.
    LongLived(SecretString),
    /// A pair that is renewed daily.
    OAuth(Arc<OAuth>),
}

impl Tokens {
    /// The token for the next request, renewed if its end is near.
    pub(super) async fn current(&self) -> Result<SecretString, CrmError> {
        match self {
            Self::LongLived(token) => Ok(token.clone()),
            Self::OAuth(oauth) => oauth.token(None).await,
        }
    }

    /// The token to try once more with after `refused` was answered 401.
    pub(super) async fn instead_of(&self, refused: SecretString) -> Result<SecretString, CrmError> {
        match self {
            Self::LongLived(_) => Err(CrmError::Unauthorized(
                "the token is expired or revoked; put a new one into `crm.token`".to_owned(),
            )),
            Self::OAuth(oauth) => oauth.token(Some(refused)).await,
        }
    }

    /// When a long-lived token ends, by its own unverified word.
    pub(super) fn end(&self) -> Option<Timestamp> {
        match self {
            Self::LongLived(token) => end_of(token.expose_secret()),
            Self::OAuth(_) => None,
        }
    }
}

/// The application that was registered in the account.
pub(super) struct Application {
    pub(super) client_id: String,
    pub(super) client_secret: SecretString,
    pub(super) redirect_uri: String,
    /// What the configuration gives to begin with; may be gone once a pair is stored.
    pub(super) first: Option<First>,
}

/// A secret that works once.
#[derive(Clone)]
pub(super) enum First {
    /// From the browser's consent; lives 20 minutes.
    Code(SecretString),
    /// From an earlier exchange elsewhere.
    Refresh(SecretString),
}

impl First {
    fn secret(&self) -> &SecretString {
        match self {
            Self::Code(secret) | Self::Refresh(secret) => secret,
        }
    }

    fn form(&self) -> (&'static str, &'static str) {
        match self {
            Self::Code(_) => ("authorization_code", "code"),
            Self::Refresh(_) => ("refresh_token", "refresh_token"),
        }
    }
}

/// The renewing of a pair.
pub(super) struct OAuth {
    link: Arc<Link>,
    application: Application,
    store: Store,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    pair: Option<Pair>,
    /// What the stored pair descends from; kept when the configuration no longer holds it.
    origin: Option<SecretString>,
    /// A pair that the disk would not take: not used before it does.
    unsaved: Option<Stored>,
    /// The secret that was refused for good, and the words for it.
    dead: Option<(SecretString, String)>,
}

impl OAuth {
    pub(super) fn new(link: Arc<Link>, application: Application, store: Store) -> Self {
        Self {
            link,
            application,
            store,
            memory: Mutex::default(),
        }
    }

    /// An access token that is not the refused one and does not end at once.
    async fn token(
        self: &Arc<Self>,
        refused: Option<SecretString>,
    ) -> Result<SecretString, CrmError> {
        if let Some(pair) = &self.memory.lock().await.pair
            && self.is_usable(pair, refused.as_ref())
        {
            return Ok(pair.access.clone());
        }
        // A task of its own: a live lookup that gives up must not take the answer with it.
        let this = Arc::clone(self);
        let renewal = tokio::spawn(async move { this.renew(refused).await });
        renewal.await.map_err(|error| CrmError::Unreachable {
            method: METHOD.to_owned(),
            cause: error.into(),
        })?
    }

    async fn renew(&self, refused: Option<SecretString>) -> Result<SecretString, CrmError> {
        let mut memory = self.memory.lock().await;
        if let Some(pair) = &memory.pair
            && self.is_usable(pair, refused.as_ref())
        {
            return Ok(pair.access.clone());
        }
        let _alone = self.store.lock().await?;
        if let Some(unsaved) = memory.unsaved.take() {
            return self.keep(&mut memory, unsaved);
        }
        let stored = self.store.load()?.filter(|stored| self.descends(stored));
        memory.origin = stored.as_ref().and_then(|stored| stored.origin.clone());
        let pair = stored.as_ref().and_then(|stored| stored.pair.clone());
        if let Some(pair) = &pair
            && self.is_usable(pair, refused.as_ref())
        {
            memory.pair = Some(pair.clone());
            return Ok(pair.access.clone());
        }
        let earlier_lost = stored.as_ref().is_some_and(|stored| stored.pending);
        let outcome = self.exchange(&mut memory, pair.clone(), earlier_lost).await;
        match (outcome, pair) {
            // Renewal ahead of time has failed, but the old token still works for a while.
            (Err(CrmError::Unreachable { .. } | CrmError::RateLimited(_)), Some(pair))
                if self.is_alive(&pair, refused.as_ref()) =>
            {
                Ok(pair.access)
            }
            (outcome, _) => outcome,
        }
    }

    async fn exchange(
        &self,
        memory: &mut Memory,
        pair: Option<Pair>,
        earlier_lost: bool,
    ) -> Result<SecretString, CrmError> {
        let renewing = pair
            .as_ref()
            .map(|pair| First::Refresh(pair.refresh.clone()));
        let Some(secret) = renewing.or_else(|| self.application.first.clone()) else {
            return Err(CrmError::Unauthorized(authorise_again(
                "no token is stored",
            )));
        };
        if let Some((dead, words)) = &memory.dead
            && dead.expose_secret() == secret.secret().expose_secret()
        {
            return Err(CrmError::Unauthorized(words.clone()));
        }
        self.link.admit(Lane::Notice).await?;
        // Before the request: a crash behind it must not look like a token that was never used.
        // A full disk shows here too, while the old token is still good.
        self.store.save(&self.record(memory, pair.clone(), true))?;
        let answer = match self.ask(&secret).await {
            Ok(answer) => answer,
            Err(fault) => {
                if was_not_processed(&fault) {
                    self.store.save(&self.record(memory, pair, earlier_lost))?;
                }
                return Err(fault);
            }
        };
        if answer.status == StatusCode::OK {
            let pair = self.read_pair(&answer)?;
            let renewed = self.record(memory, Some(pair), false);
            return self.keep(memory, renewed);
        }
        if answer.status.is_server_error() {
            return Err(refusal(METHOD, &answer));
        }
        let words = refused_words(&answer, earlier_lost);
        memory.dead = Some((secret.secret().clone(), words.clone()));
        Err(CrmError::Unauthorized(words))
    }

    async fn ask(&self, secret: &First) -> Result<Answer, CrmError> {
        let (grant_type, key) = secret.form();
        let body = json!({
            "client_id": self.application.client_id,
            "client_secret": self.application.client_secret.expose_secret(),
            "redirect_uri": self.application.redirect_uri,
            "grant_type": grant_type,
            key: secret.secret().expose_secret(),
        });
        // Sent once, whatever comes back: a second try could only find the token spent.
        let request = self.link.post(PATH).json(&body);
        self.link.send(Lane::Notice, METHOD, request).await
    }

    fn read_pair(&self, answer: &Answer) -> Result<Pair, CrmError> {
        let grant: wire::Grant = wire::read(&answer.body).map_err(|text| CrmError::Shape {
            method: METHOD.to_owned(),
            text,
        })?;
        let now = grant
            .server_time
            .or_else(|| Some(self.link.server_now()?.as_second()));
        Ok(Pair {
            access: grant.access_token.into(),
            refresh: grant.refresh_token.into(),
            ends: now.map(|now| now.saturating_add(grant.expires_in)),
        })
    }

    /// Puts a new pair onto the disk, and only then into use.
    fn keep(&self, memory: &mut Memory, stored: Stored) -> Result<SecretString, CrmError> {
        if let Err(fault) = self.store.save(&stored) {
            memory.unsaved = Some(stored);
            return Err(fault);
        }
        memory.dead = None;
        memory.pair = stored.pair;
        let kept = memory.pair.as_ref().map(|pair| pair.access.clone());
        kept.ok_or_else(|| CrmError::Unauthorized(authorise_again("no token is stored")))
    }

    fn record(&self, memory: &Memory, pair: Option<Pair>, pending: bool) -> Stored {
        Stored {
            client_id: self.application.client_id.clone(),
            origin: self.origin().or(memory.origin.as_ref()).cloned(),
            pair,
            pending,
        }
    }

    fn origin(&self) -> Option<&SecretString> {
        self.application.first.as_ref().map(First::secret)
    }

    /// Says whether a stored pair goes back to what the configuration holds. Somebody who writes a
    /// new code or token there has authorised again, and means that one.
    fn descends(&self, stored: &Stored) -> bool {
        let same_origin = match (self.origin(), &stored.origin) {
            (Some(configured), Some(stored)) => {
                configured.expose_secret() == stored.expose_secret()
            }
            (Some(_), None) => false,
            (None, _) => true,
        };
        same_origin && stored.client_id == self.application.client_id
    }

    fn is_usable(&self, pair: &Pair, refused: Option<&SecretString>) -> bool {
        self.lives_for(pair, refused, AHEAD)
    }

    fn is_alive(&self, pair: &Pair, refused: Option<&SecretString>) -> bool {
        self.lives_for(pair, refused, Duration::ZERO)
    }

    /// By the CRM's clock; before its first answer a token is simply tried.
    fn lives_for(&self, pair: &Pair, refused: Option<&SecretString>, span: Duration) -> bool {
        let is_refused =
            refused.is_some_and(|token| token.expose_secret() == pair.access.expose_secret());
        let left = pair
            .ends
            .zip(self.link.server_now())
            .map(|(ends, now)| ends - now.as_second());
        !is_refused && left.is_none_or(|seconds| seconds > span.as_secs().cast_signed())
    }
}

/// Says whether the CRM certainly did not get to spend the token.
fn was_not_processed(fault: &CrmError) -> bool {
    match fault {
        CrmError::RateLimited(_) | CrmError::Blocked(_) => true,
        CrmError::Unreachable { cause, .. } => cause
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_connect),
        _ => false,
    }
}

fn refused_words(answer: &Answer, earlier_lost: bool) -> String {
    if earlier_lost {
        return authorise_again("the answer to an earlier renewal was lost, and with it the token");
    }
    let words = Problem::read(&answer.body).words();
    authorise_again(&format!("HTTP {} {words}", answer.status.as_u16()))
}

fn authorise_again(why: &str) -> String {
    format!(
        "{}; authorise again and put the new code into `crm.authorization_code`",
        why.trim_end()
    )
}

/// The claim `exp` of a JWT, not verified: a hint for a warning, never a decision.
fn end_of(token: &str) -> Option<Timestamp> {
    let claims = from_base64url(token.split('.').nth(1)?)?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Timestamp::from_second(claims.get("exp")?.as_i64()?).ok()
}

fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0_u32);
    for letter in text.trim_end_matches('=').bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_read_from_its_claims() {
        // {"aud":"c1","exp":1795348800,"account_id":100}
        let token = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJjMSIsImV4cCI6MTc5NTM0ODgwMCwiYWNjb3VudF9pZCI6MTAwfQ.c2ln";
        assert_eq!(end_of(token).unwrap().as_second(), 1_795_348_800);
        for damaged in ["", "opaque", "a.b", "a.!!!.c", "a.e30.c"] {
            assert_eq!(end_of(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn only_a_request_that_never_arrived_leaves_the_token_whole() {
        assert!(was_not_processed(&CrmError::RateLimited(AHEAD)));
        assert!(!was_not_processed(&CrmError::Unreachable {
            method: METHOD.to_owned(),
            cause: "connection closed".into(),
        }));
    }
}
