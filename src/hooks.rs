//! `POST /hooks/{crm}/{secret}`: what CRMs send to us.
//!
//! Answered as soon as the notices are on the disk. Who does not know the secret learns nothing, not
//! even which CRMs there are: every such request gets the same 404. May have an address of its own,
//! which serves nothing else, so that what faces the Internet can never ask `/forward`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::crm::{HOOK_BYTES, Hook, HookError};
use crate::fault;
use crate::metrics;
use crate::record::CrmName;
use crate::sync::mirror::Mirror;
use crate::sync::notices::{ReceiveError, Received};

/// How long a sender may take for its body; amoCRM waits two seconds for the answer.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// `[hooks]`: where CRMs send their notices.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// An address and port for `/hooks` alone; with it `forward.listen` has no hooks. Default: none.
    pub listen: Option<SocketAddr>,
}

impl Settings {
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [hooks]
# listen = \"127.0.0.1:8078\"      # /hooks alone, for a proxy that faces the Internet; else at forward.listen
";
}

/// The doors of all CRMs that may send notices.
#[derive(Default)]
pub struct Hooks {
    doors: BTreeMap<String, Door>,
}

struct Door {
    secret: SecretString,
    mirror: Arc<Mirror>,
}

impl Hooks {
    /// Opens a door for a CRM.
    pub fn add(&mut self, mirror: Arc<Mirror>, secret: SecretString) {
        let name = mirror.name().to_string();
        self.doors.insert(name, Door { secret, mirror });
    }

    /// The door, if the secret opens it. As long for a CRM that is not ours as for a wrong secret.
    fn open(&self, crm: &str, secret: &str) -> Option<&Door> {
        let nobody = SecretString::from(String::new());
        let door = self.doors.get(crm);
        let expected = door.map_or(&nobody, |door| &door.secret);
        let is_right: bool = expected
            .expose_secret()
            .as_bytes()
            .ct_eq(secret.as_bytes())
            .into();
        door.filter(|door| is_right && !door.secret.expose_secret().is_empty())
    }
}

/// The addresses as an axum router.
pub fn routes(hooks: Arc<Hooks>) -> axum::Router {
    axum::Router::new()
        .route("/hooks/{crm}/{secret}", post(receive))
        .route("/hooks/{crm}/{secret}/", post(receive))
        .method_not_allowed_fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::disable())
        .with_state(hooks)
}

async fn receive(
    State(hooks): State<Arc<Hooks>>,
    Path((crm, secret)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let Some(door) = hooks.open(&crm, &secret) else {
        let known = hooks.doors.get(&crm).map(|door| door.mirror.name());
        metrics::count_hook(known, "wrong_secret");
        tracing::warn!(
            known = known.map_or("no", CrmName::as_str),
            "a hook was called with a wrong secret"
        );
        return StatusCode::NOT_FOUND.into_response();
    };
    let name = door.mirror.name();
    let (status, outcome) = match read_body(request.into_body()).await {
        Err((status, outcome)) => (status, outcome),
        Ok(body) => {
            let content_type = headers.get(CONTENT_TYPE);
            let hook = Hook {
                content_type: content_type.map_or("", |kind| kind.to_str().unwrap_or_default()),
                body: &body,
            };
            judge(name, door.mirror.receive(hook).await)
        }
    };
    metrics::count_hook(Some(name), outcome);
    status.into_response()
}

async fn read_body(body: Body) -> Result<axum::body::Bytes, (StatusCode, &'static str)> {
    let reading = axum::body::to_bytes(body, HOOK_BYTES);
    match tokio::time::timeout(BODY_PATIENCE, reading).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, "too_long")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "too_slow")),
    }
}

/// The answer and its label. A CRM that is told of a failure sends again, or counts it against us.
fn judge(crm: &CrmName, received: Result<Received, ReceiveError>) -> (StatusCode, &'static str) {
    match received {
        Ok(Received::Queued) => (StatusCode::OK, "queued"),
        Ok(Received::WalkInstead) => (StatusCode::OK, "walk_instead"),
        Err(ReceiveError::Hook(HookError::Stranger(why))) => {
            tracing::warn!(%crm, why, "a hook was called by somebody else than its CRM");
            (StatusCode::NOT_FOUND, "stranger")
        }
        Err(ReceiveError::Hook(HookError::Unreadable(why))) => {
            tracing::warn!(%crm, why, "a notice cannot be read");
            (StatusCode::BAD_REQUEST, "unreadable")
        }
        Err(error) => {
            tracing::error!(%crm, error = fault::told(&error), "a notice was not taken; the check for changes remains");
            (StatusCode::SERVICE_UNAVAILABLE, "not_kept")
        }
    }
}
