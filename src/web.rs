//! What the HTTP port serves: `/forward`, `/ended` and `/name` by the shortest way, all else through axum.
//!
//! A caller waits behind `/forward`, so whatever happens there is answered 200, with an empty body
//! for the standard route. No framework stands between the connection and the router: the usual
//! question does not even become a request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::runtime::Handle;
use tower_service::Service;

use crate::caller_name;
use crate::decision::Reason;
use crate::http_server::callers::{Asked, Question};
use crate::metrics;
use crate::pbx::{ended, forward};
use crate::reception::Reception;
use crate::shadow::{self, Shadow};

/// Everything that answering needs; made anew when the configuration is read again.
pub struct Web {
    /// Takes the PBX's questions.
    pub reception: Arc<Reception>,
    /// How names are shown.
    pub names: caller_name::Settings,
    /// Who may ask.
    pub access: Access,
    /// Compares answers with the former module's.
    pub shadow: Arc<Shadow>,
    /// JSON, metrics and hooks.
    pub api: axum::Router,
    /// The operators' page, unless it has an address of its own.
    pub page: Option<axum::Router>,
    /// Where the page is made: not on the threads that answer calls.
    pub background: Handle,
}

/// Who may ask `/forward`, `/ended`, `/name`, `/metrics` and the API.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// `forward.allow`.
    pub allow: Vec<IpNet>,
    /// `forward.token`.
    pub token: Option<SecretString>,
}

impl Access {
    /// Says whether this peer may ask: from this machine, from the list, or with the token.
    pub fn permits(&self, peer: IpAddr, headers: &HeaderMap, query: &str) -> bool {
        if self.permits_address(peer) {
            return true;
        }
        let Some(token) = &self.token else {
            return false;
        };
        let is_token =
            |given: &str| bool::from(given.as_bytes().ct_eq(token.expose_secret().as_bytes()));
        let in_query = query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("token="))
            .any(is_token);
        in_query || bearer(headers).is_some_and(is_token)
    }

    /// Says whether this peer may ask because of where it is.
    fn permits_address(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback() || self.allow.iter().any(|net| net.contains(&peer))
    }
}

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

impl Web {
    /// Begins to answer `/forward` as Asterisk asks it; `None` for all that [`Web::answer`] must see.
    pub fn ask(self: &Arc<Self>, question: &Question<'_>) -> Option<Asked> {
        let query = question.target.strip_prefix("/forward?")?;
        if !self.access.permits_address(question.peer.ip()) || question.has(shadow::HEADER) {
            return None;
        }
        let (web, query) = (Arc::clone(self), query.to_owned());
        Some(Box::pin(async move { web.forward(&query, false).await }))
    }

    /// Answers one request from `peer`.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Body> {
        // FreePBX's CID Lookup writes `//name` where the administrator typed a leading slash.
        let path = request.uri().path().trim_start_matches('/');
        let query = request.uri().query().unwrap_or_default();
        let may_ask = || self.access.permits(peer.ip(), request.headers(), query);
        match path {
            "forward" | "ended" if !is_question(request.method()) => text(String::new()),
            "forward" | "name" | "ended" if !may_ask() => {
                tracing::warn!(%peer, path, "asked by somebody who may not; see `forward.allow` and `forward.token`");
                text(String::new())
            }
            "forward" => {
                let is_comparison = request.headers().contains_key(shadow::HEADER);
                text(self.forward(query, is_comparison).await)
            }
            "name" => text(self.name(query).await),
            "ended" => {
                if let Some(outcome) = ended::read_query(query) {
                    self.reception.ended(&outcome);
                }
                text(String::new())
            }
            "healthz" | "readyz" => through_axum(&self.api, request).await,
            // The secret in the address says who may.
            _ if path.starts_with("hooks/") => through_axum(&self.api, request).await,
            _ if path == "metrics" || path.starts_with("api/") => {
                if may_ask() {
                    through_axum(&self.api, request).await
                } else {
                    status(StatusCode::FORBIDDEN)
                }
            }
            // The page has a door of its own.
            _ => match &self.page {
                Some(page) => answer_page(&self.background, page, request, peer).await,
                None => status(StatusCode::NOT_FOUND),
            },
        }
    }

    /// The answer to `/forward`. One that is asked for to be compared is not compared once more.
    pub async fn forward(&self, query: &str, is_comparison: bool) -> String {
        let call = forward::read_query(query);
        let is_first = call.tried.is_empty() && !is_comparison;
        let asked =
            (is_first && self.shadow.is_on()).then(|| (self.reception.now(), call.call_id.clone()));
        let decision = self.reception.decide(call).await;
        let answer = forward::write_answer(&decision, &self.names);
        if let Some((at, call_id)) = asked.filter(|_| decision.reason != Reason::AfterTheCall) {
            self.shadow.compare(shadow::Question {
                query: query.to_owned(),
                at,
                call_id,
                caller: decision.caller,
                answer: answer.clone(),
                name_bytes: self.names.bytes,
            });
        }
        answer
    }

    async fn name(&self, query: &str) -> String {
        let decision = self.reception.name(&forward::read_query(query)).await;
        forward::shown_name(&decision, &self.names).unwrap_or_default()
    }
}

/// The answer of an axum router, which never fails.
pub async fn through_axum(router: &axum::Router, request: Request<Incoming>) -> Response<Body> {
    match router.clone().call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// An answer of the operators' page, made on the runtime of the syncs; only its bytes pass here.
pub async fn answer_page(
    background: &Handle,
    page: &axum::Router,
    mut request: Request<Incoming>,
    peer: SocketAddr,
) -> Response<Body> {
    request.extensions_mut().insert(ConnectInfo(peer));
    let page = page.clone();
    let made = background.spawn(async move { through_axum(&page, request).await });
    made.await.unwrap_or_else(|_| {
        metrics::count_panic();
        status(StatusCode::INTERNAL_SERVER_ERROR)
    })
}

fn is_question(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

fn text(body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_the_list_and_the_token_may_ask() {
        let access = Access {
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            token: Some("s3cret".to_owned().into()),
        };
        let nothing = HeaderMap::new();
        let mut with_token = HeaderMap::new();
        with_token.insert(AUTHORIZATION, HeaderValue::from_static("Bearer s3cret"));
        for (peer, headers, query, expected) in [
            ("127.0.0.1", &nothing, "", true),
            ("::1", &nothing, "", true),
            ("::ffff:127.0.0.1", &nothing, "", true),
            ("10.1.2.3", &nothing, "", true),
            ("192.0.2.1", &nothing, "", false),
            ("192.0.2.1", &nothing, "phone=1&token=s3cret", true),
            ("192.0.2.1", &nothing, "phone=1&token=s3cre", false),
            ("192.0.2.1", &with_token, "", true),
        ] {
            assert_eq!(
                access.permits(peer.parse().unwrap(), headers, query),
                expected,
                "{peer} {query}"
            );
        }
    }
}
