//! Requests to one portal: the two budgets, the envelope, the repeats.
//!
//! With which right a request comes, `access` knows; a token that has expired is renewed here, and
//! the request sent once more.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, LOCATION};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::super::budget::{Budget, Lane};
use super::super::{CrmError, read_body, send};
use super::access::{Access, By};
use super::operating::{Ledger, Reading};
use super::refusal::Refusal;
use super::wire;
use crate::record::CrmName;

/// How long a live lookup waits for a place in the bucket.
const LIVE_PATIENCE: Duration = Duration::from_millis(300);
/// How often a background request is repeated after a passing fault.
const REPEATS: u32 = 3;
/// The wait before the first repeat; each further one doubles.
const FIRST_REPEAT_WAIT: Duration = Duration::from_secs(1);
/// The largest answer that is read; a batch of 50 full pages has a few megabytes.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;
/// The most commands that a batch may hold.
pub(super) const BATCH_LIMIT: usize = 50;

/// How long everything rests after the vendor has blocked the portal by hand.
const OVERLOAD_PAUSE: Duration = Duration::from_mins(10);

/// A way into one portal: its webhook or its application.
pub(super) struct Client {
    crm: CrmName,
    http: reqwest::Client,
    access: Access,
    /// The portal counts requests by the address they come from: all ways share one bucket.
    budget: Arc<Budget>,
    /// It counts working time for each webhook and application apart.
    ledger: Ledger,
}

/// One request.
struct Ask<'a> {
    lane: Lane,
    /// The method in the address.
    method: &'a str,
    /// The method that works: the same, or those inside of a batch.
    about: &'static str,
    body: &'a Value,
}

/// A successful reply.
pub(super) struct Reply {
    pub(super) result: Value,
    /// Where the next page of a counted list begins.
    pub(super) next: Option<u64>,
    pub(super) time: Value,
    /// The token that it was asked with.
    token: Option<SecretString>,
}

/// A command of a batch. The query is encoded already, but for `$result[..]`.
pub(super) struct Command {
    pub(super) method: &'static str,
    pub(super) query: String,
}

/// What a batch does after a command that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterFault {
    /// Leaves the rest out: the commands build on each other.
    Stop,
    /// Runs the rest.
    GoOn,
}

/// The reply to a batch.
pub(super) struct Batch {
    methods: Vec<&'static str>,
    answers: Vec<Result<Value, CrmError>>,
    pub(super) time: Value,
}

/// Why the transport gave no answer.
#[derive(Debug, thiserror::Error)]
enum TransportFault {
    #[error("HTTP {0} with something that is not JSON, as a gateway's error page")]
    ErrorPage(u16),
    #[error("HTTP {0} without a reason")]
    BareStatus(u16),
    #[error("the answer has more than {ANSWER_LIMIT_BYTES} bytes")]
    TooLong,
}

impl Client {
    pub(super) fn new(
        crm: CrmName,
        http: reqwest::Client,
        access: Access,
        budget: Arc<Budget>,
        ledger: Ledger,
    ) -> Self {
        Self {
            crm,
            http,
            access,
            budget,
            ledger,
        }
    }

    /// With which right this asks.
    pub(super) fn by(&self) -> By {
        self.access.by()
    }

    /// Calls one method in a background lane.
    pub(super) async fn call(
        &self,
        lane: Lane,
        method: &'static str,
        body: &Value,
    ) -> Result<Reply, CrmError> {
        self.stand_in_line(lane, method, 1).await;
        let ask = Ask {
            lane,
            method,
            about: method,
            body,
        };
        let reply = self.ask(&ask).await?;
        self.ledger
            .note(method, &[Reading::new(&reply.time, &reply.time)]);
        Ok(reply)
    }

    /// Sends up to [`BATCH_LIMIT`] commands as one request. All faults of single commands are left
    /// in the [`Batch`]. In the background the first command's method is waited for.
    pub(super) async fn batch(
        &self,
        lane: Lane,
        commands: Vec<Command>,
        after_fault: AfterFault,
    ) -> Result<Batch, CrmError> {
        debug_assert!(commands.len() <= BATCH_LIMIT, "the caller cuts batches");
        let methods: Vec<&'static str> = commands.iter().map(|command| command.method).collect();
        let about = methods.first().copied().unwrap_or("batch");
        if lane != Lane::Live {
            self.stand_in_line(lane, about, methods.len()).await;
        }
        let cmd: Map<String, Value> = commands
            .into_iter()
            .enumerate()
            .map(|(place, command)| {
                let text = format!("{}?{}", command.method, command.query);
                (command_name(place), Value::String(text))
            })
            .collect();
        let halt = u8::from(after_fault == AfterFault::Stop);
        let ask = Ask {
            lane,
            method: "batch",
            about,
            body: &json!({"halt": halt, "cmd": cmd}),
        };
        let reply = self.ask(&ask).await?;
        self.read_batch(methods, reply)
    }

    /// Repeats `attempt` after passing faults, each time later, and as late as the portal asks.
    pub(super) async fn patiently<T, F>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, CrmError>
    where
        F: Future<Output = Result<T, CrmError>>,
    {
        let mut wait = FIRST_REPEAT_WAIT;
        for _ in 0..REPEATS {
            let asked = match attempt().await {
                Err(CrmError::Unreachable { .. }) => Duration::ZERO,
                Err(CrmError::RateLimited(asked)) => asked,
                done => return done,
            };
            tokio::time::sleep(wait.max(asked)).await;
            wait *= 2;
        }
        attempt().await
    }

    /// How long a background request with so many calls of `method` would have to wait for its
    /// working time.
    pub(super) fn rest_of(&self, lane: Lane, method: &str, calls: usize) -> Duration {
        self.ledger.wait(lane, method, calls)
    }

    /// Waits until the method's working time allows so many calls more.
    async fn stand_in_line(&self, lane: Lane, method: &str, calls: usize) {
        loop {
            let wait = self.ledger.wait(lane, method, calls);
            if wait.is_zero() {
                return;
            }
            tracing::debug!(
                method,
                wait_s = wait.as_secs(),
                "the method's time is spent"
            );
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks, and once more with a new token if the old one has expired.
    async fn ask(&self, ask: &Ask<'_>) -> Result<Reply, CrmError> {
        let mut token = self.access.token(None).await?;
        let (mut status, mut envelope);
        (token, (status, envelope)) = self.exchange(ask, token).await?;
        let is_expired = |status, envelope: &Value| {
            let refusal = Refusal::read(status, envelope);
            refusal.is_some_and(|refusal| refusal.means_expired_token())
        };
        if token.is_some() && is_expired(status, &envelope) {
            token = self.access.token(token).await?;
            (token, (status, envelope)) = self.exchange(ask, token).await?;
        }
        let reply = self.read_reply(ask.about, status, envelope, token)?;
        self.access.note_time(&reply.time);
        Ok(reply)
    }

    /// Gives the token that was sent as well: the given one may have been renewed while the request
    /// waited for its turn.
    async fn exchange(
        &self,
        ask: &Ask<'_>,
        token: Option<SecretString>,
    ) -> Result<(Option<SecretString>, (u16, Value)), CrmError> {
        self.admit(ask).await?;
        let token = self.access.newest(token);
        let (status, body) = self.send(ask, token.as_ref()).await?;
        Ok((token, (status, read_envelope(ask.about, status, &body)?)))
    }

    async fn admit(&self, ask: &Ask<'_>) -> Result<(), CrmError> {
        match ask.lane {
            Lane::Live => {
                let rest = self.ledger.refused(ask.about);
                if !rest.is_zero() {
                    return Err(CrmError::OutOfBudget(rest));
                }
                self.budget.take_live(LIVE_PATIENCE).await?;
            }
            background => self.budget.take(background).await,
        }
        Ok(())
    }

    /// Gives the status and the body; a redirect is an error, for following it would lose the body.
    async fn send(
        &self,
        ask: &Ask<'_>,
        token: Option<&SecretString>,
    ) -> Result<(u16, Vec<u8>), CrmError> {
        let unreachable = |cause: reqwest::Error| CrmError::Unreachable {
            method: ask.about.to_owned(),
            cause: Box::new(cause.without_url()),
        };
        let request = self
            .http
            .post(self.access.address(ask.method))
            .header(ACCEPT, "application/json");
        let request = match token {
            Some(token) => request.json(&with_token(ask.body, token)),
            None => request.json(ask.body),
        };
        let response = send(&self.crm, request).await;
        let mut response = response.map_err(unreachable)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(moved(ask.about, &response));
        }
        let body = read_body(&mut response, ANSWER_LIMIT_BYTES).await;
        let body = body.map_err(unreachable)?;
        let body = body.ok_or_else(|| transport(ask.about, TransportFault::TooLong))?;
        Ok((status.as_u16(), body))
    }

    fn read_reply(
        &self,
        about: &'static str,
        status: u16,
        mut envelope: Value,
        token: Option<SecretString>,
    ) -> Result<Reply, CrmError> {
        if let Some(refusal) = self.refusal(status, &envelope, token.as_ref()) {
            let time = envelope.get("time").unwrap_or(&Value::Null);
            return Err(self.take_refusal(about, refusal, &Reading::new(time, time)));
        }
        if status >= 500 {
            return Err(transport(about, TransportFault::BareStatus(status)));
        }
        let mut take = |key: &str| envelope.get_mut(key).map(Value::take);
        let result = take("result").filter(|result| !result.is_null());
        Ok(Reply {
            result: result.ok_or_else(|| shape(about, "no `result`"))?,
            next: take("next").as_ref().and_then(wire::positive),
            time: take("time").unwrap_or_default(),
            token,
        })
    }

    fn read_batch(&self, methods: Vec<&'static str>, reply: Reply) -> Result<Batch, CrmError> {
        let about = methods.first().copied().unwrap_or("batch");
        let mut parts = reply.result;
        let mut results = parts.get_mut("result").map(Value::take).unwrap_or_default();
        let part = |key: &str| parts.get(key).unwrap_or(&Value::Null);
        if !results.is_object() && !results.is_array() {
            return Err(shape(about, "the batch has no `result`"));
        }
        self.note_batch(&methods, part("result_time"), &reply.time);
        let answers = methods
            .iter()
            .enumerate()
            .map(|(place, method)| {
                let name = command_name(place);
                let refusal = wire::slot(part("result_error"), &name, place)
                    .and_then(|error| self.refusal(200, error, reply.token.as_ref()));
                if let Some(refusal) = refusal {
                    let time = wire::slot(part("result_time"), &name, place);
                    let reading = Reading::new(time.unwrap_or(&reply.time), &reply.time);
                    return Err(self.take_refusal(method, refusal, &reading));
                }
                wire::slot_mut(&mut results, &name, place)
                    .map(Value::take)
                    .ok_or_else(|| shape(method, format!("no answer to command {name}")))
            })
            .collect();
        Ok(Batch {
            methods,
            answers,
            time: reply.time,
        })
    }

    /// Enters what each method of a batch has spent.
    fn note_batch(&self, methods: &[&'static str], times: &Value, outer: &Value) {
        let mut noted: Vec<(&'static str, Vec<Reading>)> = Vec::new();
        for (place, method) in methods.iter().enumerate() {
            let Some(time) = wire::slot(times, &command_name(place), place) else {
                continue;
            };
            let reading = Reading::new(time, outer);
            match noted.iter_mut().find(|(known, _)| known == method) {
                Some((_, readings)) => readings.push(reading),
                None => noted.push((method, vec![reading])),
            }
        }
        for (method, readings) in noted {
            self.ledger.note(method, &readings);
        }
    }

    /// Reads a refusal, without our secret should the portal have repeated it.
    fn refusal(&self, status: u16, body: &Value, token: Option<&SecretString>) -> Option<Refusal> {
        let refusal = Refusal::read(status, body)?;
        Some(refusal.without(self.access.secret(token)))
    }

    /// Draws the consequences for the budgets, and gives the error to tell.
    fn take_refusal(&self, method: &'static str, refusal: Refusal, told: &Reading) -> CrmError {
        if refusal.means_full_bucket() {
            self.budget.fill();
        }
        if refusal.means_overload() {
            // Whatever is asked now makes it worse.
            self.budget.pause(OVERLOAD_PAUSE);
        }
        let mut rest = Duration::ZERO;
        if refusal.means_spent_time() {
            rest = self.ledger.refuse(method, told.forgets_in);
        }
        refusal.into_error(method, self.by(), rest)
    }
}

impl Batch {
    /// The answer to the command in this place.
    pub(super) fn take(&mut self, place: usize) -> Result<Value, CrmError> {
        let gone = Err(shape(self.method(place), "no such command"));
        match self.answers.get_mut(place) {
            Some(answer) => std::mem::replace(answer, gone),
            None => gone,
        }
    }

    fn method(&self, place: usize) -> &'static str {
        self.methods.get(place).copied().unwrap_or("batch")
    }
}

/// The body with the token among the method's parameters.
fn with_token(body: &Value, token: &SecretString) -> Value {
    let mut body = body.clone();
    if let Some(parameters) = body.as_object_mut() {
        let token = Value::String(token.expose_secret().to_owned());
        parameters.insert("auth".to_owned(), token);
    }
    body
}

pub(super) fn read_envelope(
    about: &'static str,
    status: u16,
    body: &[u8],
) -> Result<Value, CrmError> {
    match serde_json::from_slice(body) {
        Ok(envelope) => Ok(envelope),
        Err(error) if body.trim_ascii_start().starts_with(b"{") => {
            let text = format!("broken JSON in column {}", error.column());
            Err(shape(about, text))
        }
        Err(_) => Err(transport(about, TransportFault::ErrorPage(status))),
    }
}

/// The name of the command in this place; names sort like the places, as the portal runs them.
pub(super) fn command_name(place: usize) -> String {
    format!("p{place:02}")
}

/// An answer outside the documented shape.
pub(super) fn shape(method: &str, text: impl Into<String>) -> CrmError {
    CrmError::Shape {
        method: method.to_owned(),
        text: text.into(),
    }
}

fn transport(method: &str, fault: TransportFault) -> CrmError {
    CrmError::Unreachable {
        method: method.to_owned(),
        cause: Box::new(fault),
    }
}

/// A renamed portal redirects to its new name; only the host is told, the path holds the secret.
fn moved(method: &str, response: &reqwest::Response) -> CrmError {
    let host = response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| reqwest::Url::parse(location).ok())
        .and_then(|location| location.host_str().map(str::to_owned));
    let text = match host {
        Some(host) => format!("the portal has moved to {host}; put that host into `crm.url`"),
        None => "the portal sends us elsewhere; see `crm.url`".to_owned(),
    };
    CrmError::Refused {
        method: method.to_owned(),
        code: response.status().as_u16().to_string(),
        text,
    }
}
