//! Takes requests, counts them, and answers as the account's mood is.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tower_service::Service;

use super::answers::{html, json_answer, problem, unauthorised};
use super::query::line_of;
use super::{BLOCK_AFTER, BLOCK_WINDOW, Mood, Shared, events, lists, oauth, webhooks};

/// Tells hyper to close the connection without an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("cut")
    }
}

impl std::error::Error for Cut {}

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let router = Router::new()
        .route("/oauth2/access_token", post(oauth::exchange))
        .route("/api/v4/account", get(lists::account))
        .route("/api/v4/users", get(lists::users))
        .route("/api/v4/events", get(events::list))
        .route(
            "/api/v4/webhooks",
            get(webhooks::list)
                .post(webhooks::subscribe)
                .delete(webhooks::unsubscribe),
        )
        .route("/api/v4/{list}", get(lists::list))
        .route("/api/v4/{list}/{id}", get(lists::one))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "Not found") })
        .with_state(Arc::clone(&shared));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (shared, router) = (Arc::clone(&shared), router.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                answer(Arc::clone(&shared), router.clone(), request)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    mut router: Router,
    request: Request<Incoming>,
) -> Result<Response, Cut> {
    let line = line_of(request.method(), request.uri());
    let mood = {
        let mut account = shared.lock();
        account.log.push(line.clone());
        account.mood
    };
    let is_exchange = request.uri().path().starts_with("/oauth2/");
    if let Some(refusal) = shared.count(&line) {
        return Ok(refusal);
    }
    match mood {
        Mood::Down => return Err(Cut),
        Mood::Hang => return std::future::pending().await,
        Mood::Slow(time) => tokio::time::sleep(time).await,
        Mood::Html502 => return Ok(html(StatusCode::BAD_GATEWAY)),
        Mood::LimitedHtml => return Ok(html(StatusCode::TOO_MANY_REQUESTS)),
        Mood::LimitedJson(seconds) => {
            let body = json!({"title": "Too Many Requests", "status": 429, "retry_after": seconds});
            return Ok(json_answer(StatusCode::TOO_MANY_REQUESTS, &body));
        }
        Mood::Blocked => return Ok(html(StatusCode::FORBIDDEN)),
        _ => {}
    }
    let mut response = if is_exchange || shared.is_authorised(request.headers()) {
        let answered: Result<Response, Infallible> = router.call(request).await;
        answered.unwrap()
    } else {
        unauthorised()
    };
    if is_exchange && response.status().is_success() {
        match mood {
            Mood::LoseTokenAnswer => return Err(Cut),
            Mood::HoldTokenAnswer => return std::future::pending().await,
            _ => {}
        }
    }
    let clock = jiff::Timestamp::from_second(shared.now()).unwrap();
    let date = clock.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    response
        .headers_mut()
        .insert(header::DATE, date.parse().unwrap());
    Ok(response)
}

impl Shared {
    /// Counts a request; `Some` if it is one too many.
    fn count(&self, line: &str) -> Option<Response> {
        let limit = self.options.limit?;
        let now = Instant::now();
        let mut account = self.lock();
        let window = self.scaled(Duration::from_secs(1));
        while account.recent.front().is_some_and(|at| now - *at >= window) {
            account.recent.pop_front();
        }
        account.recent.push_back(now);
        let seen = account.recent.len();
        if seen > limit {
            account.violations.push(format!(
                "{line}: request {seen} of one second, {limit} are allowed"
            ));
            let window = self.scaled(BLOCK_WINDOW);
            while account
                .refused_at
                .front()
                .is_some_and(|at| now - *at >= window)
            {
                account.refused_at.pop_front();
            }
            account.refused_at.push_back(now);
            account.is_blocked |= account.refused_at.len() >= BLOCK_AFTER;
        }
        if account.is_blocked {
            return Some(html(StatusCode::FORBIDDEN));
        }
        (seen > limit).then(|| html(StatusCode::TOO_MANY_REQUESTS))
    }
}
