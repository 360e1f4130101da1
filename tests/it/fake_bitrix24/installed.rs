//! The made-up portal's application from outside: its token server, what the portal posts, and what
//! a test can do to it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::application::{self, Pair};
use super::methods::Fault;
use super::{FakeBitrix24, Mood, Outcome, Request, Running, read_params};
use crate::world::Happened;

impl FakeBitrix24 {
    /// The portal's own address, which is that of the token server too.
    pub fn address(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// A refresh token, as an earlier exchange elsewhere has brought it.
    pub fn authorise(&self) -> String {
        self.issue().refresh
    }

    fn issue(&self) -> Pair {
        let (portal, now) = (&self.portal, self.now());
        portal.application().issue(&portal.options, now)
    }

    /// What the portal posts to the installation address when the application is installed.
    pub fn install_form(&self) -> String {
        let pair = self.issue();
        let more = [
            ("auth[access_token]", pair.access),
            ("auth[refresh_token]", pair.refresh),
            ("auth[expires]", format!("{:.0}", pair.ends)),
            (
                "auth[expires_in]",
                self.portal.options.access_life_seconds.to_string(),
            ),
            ("auth[scope]", "crm,user_basic".to_owned()),
        ];
        self.form("ONAPPINSTALL", more)
    }

    /// The application is installed anew: its bindings are gone. Gives what the portal posts.
    pub fn reinstall(&self) -> String {
        self.portal.application().drop_bindings();
        self.install_form()
    }

    pub fn expire_access_tokens(&self) {
        let now = self.now();
        self.portal.application().expire_access_tokens(now);
    }

    /// The application was removed.
    pub fn forget_tokens(&self) {
        self.portal.application().forget_tokens();
    }

    /// How many exchanges gave a new pair.
    pub fn exchanges(&self) -> usize {
        self.portal.application().exchanges
    }

    /// The events that are bound.
    pub fn bound(&self) -> Vec<String> {
        self.portal.application().bound()
    }

    /// The records in the queue of events, `EVENT id`, reserved ones too.
    pub fn queue(&self) -> Vec<String> {
        self.portal.application().queue()
    }

    /// Enters into the queue what has happened in the world.
    pub fn happened(&self, happened: &Happened) {
        let now = self.now();
        self.portal.application().happened(happened, now);
    }

    /// A record whose data is `false`.
    pub fn empty_record(&self) {
        let now = self.now();
        self.portal.application().empty_record(now);
    }

    /// What the portal posts to an outgoing webhook: content types and bodies.
    pub fn hook_bodies(&self, happened: &Happened) -> Vec<(String, String)> {
        let name = application::event_name(happened);
        let id = [("data[FIELDS][ID]", happened.id.to_string())];
        let kind = "application/x-www-form-urlencoded";
        vec![(kind.to_owned(), self.form(&name, id))]
    }

    /// A form as the portal posts it.
    fn form<const N: usize>(&self, event: &str, more: [(&str, String); N]) -> String {
        let options = &self.portal.options;
        let mut fields = vec![
            ("event", event.to_owned()),
            ("event_handler_id", "12".to_owned()),
        ];
        fields.extend(more);
        fields.extend([
            ("ts", format!("{:.0}", self.now())),
            ("auth[domain]", self.address.to_string()),
            ("auth[client_endpoint]", format!("{}rest/", self.address())),
            ("auth[server_endpoint]", format!("{}rest/", self.address())),
            ("auth[member_id]", "m1example".to_owned()),
            (
                "auth[application_token]",
                options.application_token.to_owned(),
            ),
        ]);
        serde_urlencoded::to_string(fields).unwrap()
    }
}

/// The token server.
pub(super) async fn exchange(
    State(portal): State<Arc<Running>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (params, _) = read_params(query.as_deref(), &headers, &body);
    let mood = portal.feel().await;
    let now = portal.now();
    let outcome = match (mood, portal.ill(mood)) {
        (_, Some(ill)) => ill,
        (Mood::TokenHtml502, _) => {
            portal.mood.send_replace(Mood::Well);
            Outcome::Html(502, "<html><h1>502 Bad Gateway</h1></html>")
        }
        (Mood::TokenRefused(code), _) => Fault::new(400, code, "").into(),
        _ => {
            let pair = portal.application().exchange(&params, &portal.options, now);
            match pair {
                Err(fault) => fault.into(),
                Ok(pair) => Outcome::Json(200, portal.grant(&pair)),
            }
        }
    };
    let response = outcome.into_response();
    portal.log().requests.push(Request {
        at: portal.started.elapsed(),
        method: "oauth/token".to_owned(),
        commands: Vec::new(),
        status: response.status().as_u16(),
    });
    if mood == Mood::LoseTokenAnswer {
        portal.lose_answer().await;
    }
    response
}

impl Running {
    /// The token server's answer with a new pair.
    fn grant(&self, pair: &Pair) -> Value {
        json!({
            "access_token": pair.access, "refresh_token": pair.refresh,
            "expires": pair.ends.floor(), "expires_in": self.options.access_life_seconds,
            "scope": "crm,user_basic", "domain": "oauth.bitrix.info", "member_id": "m1example",
            "user_id": self.options.user, "status": "L",
            "client_endpoint": "https://demo.bitrix24.ru/rest/",
            "server_endpoint": "http://127.0.0.1/rest/",
        })
    }
}
