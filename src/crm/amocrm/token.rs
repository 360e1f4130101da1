//! The right to ask: a long-lived token, or OAuth's pair.
//!
//! amoCRM kills a refresh token the moment it is used (developers.kommo.com/reference/get-token);
//! how a pair is kept nevertheless, `crm::oauth` knows. Here is what is amoCRM's own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::link::{Answer, Link, refusal};
use super::wire::{self, Problem};
use crate::crm::CrmError;
use crate::crm::budget::Lane;
use crate::crm::oauth::store::Pair;
use crate::crm::oauth::{Exchanged, Grant, Keeper, TokenServer};

/// Where tokens are exchanged, at the account's own address.
const PATH: &str = "/oauth2/access_token";

/// Where the access token of the next request comes from.
pub(super) enum Tokens {
    /// One token for years; nothing to renew.
    LongLived(SecretString),
    /// A pair that is renewed daily.
    OAuth(Arc<Keeper<Application>>),
}

impl Tokens {
    /// The token for the next request, renewed if its end is near.
    pub(super) async fn current(&self) -> Result<SecretString, CrmError> {
        match self {
            Self::LongLived(token) => Ok(token.clone()),
            Self::OAuth(keeper) => keeper.token(None).await,
        }
    }

    /// `token`, or the one that has taken its place since.
    pub(super) fn newest(&self, token: SecretString) -> SecretString {
        match self {
            Self::LongLived(_) => token,
            Self::OAuth(keeper) => keeper.newest(token),
        }
    }

    /// The token to try once more with after `refused` was answered 401.
    pub(super) async fn instead_of(&self, refused: SecretString) -> Result<SecretString, CrmError> {
        match self {
            Self::LongLived(_) => Err(CrmError::Unauthorized(
                "the token is expired or revoked; put a new one into `crm.token`".to_owned(),
            )),
            Self::OAuth(keeper) => keeper.token(Some(refused)).await,
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

/// The application that was registered in the account, and where its tokens are exchanged.
pub(super) struct Application {
    pub(super) link: Arc<Link>,
    pub(super) client_id: String,
    pub(super) client_secret: SecretString,
    pub(super) redirect_uri: String,
}

#[async_trait]
impl TokenServer for Application {
    const METHOD: &'static str = "POST /oauth2/access_token";
    const AHEAD: Duration = Duration::from_mins(5);

    async fn admit(&self) -> Result<(), CrmError> {
        self.link.admit(Lane::Notice).await
    }

    async fn exchange(&self, grant: &Grant, _notes: &Value) -> Result<Exchanged, CrmError> {
        let (grant_type, key) = grant.form();
        let body = json!({
            "client_id": self.client_id,
            "client_secret": self.client_secret.expose_secret(),
            "redirect_uri": self.redirect_uri,
            "grant_type": grant_type,
            key: grant.secret().expose_secret(),
        });
        let request = self.link.post(PATH).json(&body);
        let answer = self.link.send(Lane::Notice, Self::METHOD, request).await?;
        if answer.status == StatusCode::OK {
            let pair = self.read_pair(&answer)?;
            return Ok(Exchanged::Renewed { pair, notes: None });
        }
        if answer.status.is_server_error() {
            return Err(refusal(Self::METHOD, &answer));
        }
        let words = Problem::read(&answer.body).words();
        let words = format!("HTTP {} {words}", answer.status.as_u16());
        Ok(Exchanged::Refused(words))
    }

    fn now(&self) -> Option<Timestamp> {
        self.link.server_now()
    }

    fn authorise_again(&self, why: &str) -> String {
        format!(
            "{}; authorise again and put the new code into `crm.authorization_code`",
            why.trim_end()
        )
    }
}

impl Application {
    fn read_pair(&self, answer: &Answer) -> Result<Pair, CrmError> {
        let grant: wire::Grant = wire::read(&answer.body).map_err(|text| CrmError::Shape {
            method: Self::METHOD.to_owned(),
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
}
