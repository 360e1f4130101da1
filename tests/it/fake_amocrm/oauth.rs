//! Tokens: who may ask, and OAuth's pairs that work once.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::answers::json_answer;
use super::{
    ACCESS_LIFE_SECONDS, ACCOUNT_ID, CLIENT_ID, CLIENT_SECRET, Mood, REDIRECT_URI, Shared,
};

pub(super) async fn exchange(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let asked: Value = serde_json::from_str(&body).unwrap_or_default();
    let text = |key: &str| asked[key].as_str().unwrap_or_default().to_owned();
    let now = shared.now();
    let mut account = shared.lock();
    let is_known = text("client_id") == CLIENT_ID
        && text("client_secret") == CLIENT_SECRET
        && text("redirect_uri") == REDIRECT_URI;
    let is_granted = match text("grant_type").as_str() {
        "authorization_code" => {
            let position = account.codes.iter().position(|code| *code == text("code"));
            position.map(|index| account.codes.remove(index)).is_some()
        }
        "refresh_token" => account.refresh == text("refresh_token"),
        _ => false,
    };
    if !is_known || !is_granted || account.mood == Mood::Revoked {
        let body = json!({"hint": "Token has been revoked", "title": "Некорректный запрос",
            "type": "https://developers.amocrm.ru/v3/errors/OAuthProblemJson", "status": 401,
            "detail": "The refresh token is invalid"});
        return json_answer(StatusCode::UNAUTHORIZED, &body);
    }
    account.rotations += 1;
    let number = account.rotations;
    account.refresh = format!("refresh-{number}");
    let access = format!("access-{number}");
    account.access.push(access.clone());
    let body = json!({"token_type": "Bearer", "expires_in": ACCESS_LIFE_SECONDS, "server_time": now,
        "access_token": access, "refresh_token": account.refresh});
    json_answer(StatusCode::OK, &body)
}

impl Shared {
    pub(super) fn is_authorised(&self, headers: &HeaderMap) -> bool {
        let account = self.lock();
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        account.mood != Mood::Revoked
            && token.is_some_and(|token| account.access.iter().any(|known| known == token))
    }
}

/// A token of the vendor's form; only its claim `exp` means anything.
pub(super) fn long_lived(ends: i64) -> String {
    let claims = format!(r#"{{"aud":"{CLIENT_ID}","exp":{ends},"account_id":{ACCOUNT_ID}}}"#);
    format!(
        "eyJ0eXAiOiJKV1QifQ.{}.c2lnbmF0dXJl",
        base64url(claims.as_bytes())
    )
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut three = [0_u8; 4];
        three[1..=chunk.len()].copy_from_slice(chunk);
        let held = u32::from_be_bytes(three);
        for index in 0..=chunk.len() {
            let six = held >> (18 - 6 * index) & 63;
            text.push(char::from(LETTERS[usize::try_from(six).unwrap()]));
        }
    }
    text
}
