//! A Bitrix24 portal with an incoming webhook and an application, made from the vendor's
//! documentation: it serves a [`SharedWorld`], enforces the documented limits, counts who breaks them, and can be ill.
//!
//! `speed` makes its time run faster: rates are multiplied and times divided by it. Its clock is
//! its own (see [`Options::clock_start`]), as a portal's clock is not ours.

pub mod application;
pub mod installed;
pub mod limits;
pub mod methods;
pub mod php;
pub mod staff;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use self::application::Application;
use self::limits::Meter;
use self::methods::{Answer, Fault, Portal};
use crate::world::SharedWorld;

const BATCH_LIMIT: usize = 50;

/// What the portal is like. The defaults are those of a usual plan, at the speed of life.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many times faster than life.
    pub speed: f64,
    /// How long a page of a list takes, milliseconds at speed 1.
    pub page_ms: f64,
    /// How long a search by phone takes, milliseconds at speed 1.
    pub find_ms: f64,
    /// How long a question for a working-day clock takes, milliseconds at speed 1.
    pub clock_ms: f64,
    /// Requests a second that the bucket leaks, at speed 1.
    pub per_second: f64,
    /// Requests that the bucket holds.
    pub burst: f64,
    /// Seconds that a method may work within ten minutes, at speed 1.
    pub operating_seconds: f64,
    /// The webhook's owner.
    pub user: u64,
    /// The webhook's secret.
    pub code: &'static str,
    pub scopes: Vec<&'static str>,
    pub is_admin: bool,
    pub is_simple_mode: bool,
    /// The portal's clock at its start, Unix seconds.
    pub clock_start: i64,
    /// The application's id and secret.
    pub client_id: &'static str,
    pub client_secret: &'static str,
    /// What proves a notice of the portal's.
    pub application_token: &'static str,
    /// How long an access token lives.
    pub access_life_seconds: f64,
    pub rotation: Rotation,
    /// Whether the plan lets an application reserve events.
    pub has_reservation: bool,
}

/// What becomes of a refresh token that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It is dead.
    Strict,
    /// It goes on working.
    Lenient,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            speed: 1.0,
            page_ms: 0.0,
            find_ms: 0.0,
            clock_ms: 0.0,
            per_second: 2.0,
            burst: 50.0,
            operating_seconds: 480.0,
            user: 1,
            code: "k0d3example",
            scopes: vec!["crm", "telephony", "user_basic", "department"],
            is_admin: true,
            is_simple_mode: false,
            clock_start: 1_795_348_800,
            client_id: "local.1example",
            client_secret: "s3cretexample",
            application_token: "t0kenexample",
            access_life_seconds: 3600.0,
            rotation: Rotation::Strict,
            has_reservation: true,
        }
    }
}

impl Options {
    /// How long a method that is no list takes, milliseconds at speed 1.
    fn work_ms(&self, method: &str) -> f64 {
        match method {
            "crm.duplicate.findbycomm" => self.find_ms,
            "timeman.status" => self.clock_ms,
            _ => 0.0,
        }
    }
}

/// What ails the portal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    Well,
    /// Standing connections are cut, and so many new ones closed at once, then all is well.
    Down(usize),
    /// Takes requests and never answers.
    Hang,
    /// Answers so many milliseconds late.
    Slow(u64),
    /// A gateway's error page, so many times, then all is well.
    Html502(usize),
    /// HTTP 200 with a page for people.
    NotJson,
    /// So many requests are refused as too many, then all is well.
    QueryLimit(usize),
    /// The vendor has blocked the portal by hand.
    OverloadLimit,
    /// Every method's working time is spent until in so many milliseconds, says the portal; it
    /// lasts until the mood changes.
    OperationLimit(u64),
    /// The webhook was deleted.
    Revoked,
    /// This method ends in an error of the portal's own.
    Fails(&'static str),
    /// The webhook lost this scope.
    ScopeMissing(&'static str),
    /// The n-th page of a list from now on, counted from 1, has a row without an `ID`.
    Damaged(usize),
    /// Every page of a list has a row without an `ID`.
    AllDamaged,
    /// The portal was renamed.
    Redirect,
    /// Lists send everything, whatever the filter.
    FilterIgnored,
    /// References to earlier results are empty.
    ReferencesIgnored,
    /// The token server's next answer is lost on its way, then all is well.
    LoseTokenAnswer,
    /// A gateway's error page in place of the token server's next answer, then all is well.
    TokenHtml502,
    /// The token server refuses with this code.
    TokenRefused(&'static str),
    /// The answer to the next event that is fetched is lost on its way, then all is well.
    LoseNews,
}

/// A request that was received.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Since the start of the portal.
    pub at: Duration,
    /// `oauth/token` for an exchange of tokens.
    pub method: String,
    /// The commands of a batch.
    pub commands: Vec<String>,
    pub status: u16,
}

/// A running portal; stops when dropped.
pub struct FakeBitrix24 {
    portal: Arc<Running>,
    address: SocketAddr,
    accepting: AbortHandle,
}

struct Running {
    world: SharedWorld,
    options: Options,
    started: Instant,
    mood: watch::Sender<Mood>,
    /// Counts up whenever standing connections are cut.
    cuts: watch::Sender<u64>,
    meter: Mutex<Meter>,
    log: Mutex<Log>,
    application: Mutex<Application>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Caller {
    Webhook { user: String, code: String },
    Application { token: String },
}

#[derive(Default)]
struct Log {
    requests: Vec<Request>,
    violations: Vec<String>,
    pages_in_mood: usize,
}

impl FakeBitrix24 {
    pub async fn start(world: SharedWorld, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let portal = Arc::new(Running {
            world,
            meter: Mutex::new(Meter::new(&options)),
            options,
            started: Instant::now(),
            mood: watch::Sender::new(Mood::Well),
            cuts: watch::Sender::new(0),
            log: Mutex::default(),
            application: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&portal))).abort_handle();
        Self {
            portal,
            address,
            accepting,
        }
    }

    /// The webhook's address.
    pub fn url(&self) -> String {
        let Options { user, code, .. } = self.portal.options;
        format!("http://{}/rest/{user}/{code}/", self.address)
    }

    /// Where it listens.
    pub fn server(&self) -> SocketAddr {
        self.address
    }

    /// Every breach of a documented limit, in words.
    pub fn violations(&self) -> Vec<String> {
        self.portal.log().violations.clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.portal.log().requests.clone()
    }

    /// How many pages of lists were served since the mood was set.
    pub fn pages(&self) -> usize {
        self.portal.log().pages_in_mood
    }

    pub fn set_mood(&self, mood: Mood) {
        self.portal.log().pages_in_mood = 0;
        self.portal.mood.send_replace(mood);
        if let Mood::Down(_) = mood {
            self.portal.cuts.send_modify(|count| *count += 1);
        }
    }

    /// The portal's clock in whole seconds: what `modified` of a changed entry should be.
    #[expect(clippy::cast_possible_truncation, reason = "seconds of this century")]
    pub fn clock(&self) -> i64 {
        self.now() as i64
    }

    /// The portal's clock, Unix seconds.
    pub fn now(&self) -> f64 {
        self.portal.now()
    }
}

impl Drop for FakeBitrix24 {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves until aborted; the connections end with it.
async fn accept(listener: TcpListener, portal: Arc<Running>) {
    let router = Router::new()
        .route("/rest/{user}/{code}/{method}", any(by_webhook))
        .route("/rest/{method}", any(by_application))
        .route("/oauth/token/", any(installed::exchange))
        .with_state(Arc::clone(&portal));
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let mood_now = *portal.mood.borrow();
        if let Mood::Down(left) = mood_now {
            if left <= 1 {
                portal.mood.send_replace(Mood::Well);
            } else {
                portal.mood.send_replace(Mood::Down(left - 1));
            }
            continue;
        }
        let service = TowerToHyperService::new(router.clone());
        let mut cuts = portal.cuts.subscribe();
        connections.spawn(async move {
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = serving => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn by_webhook(
    State(portal): State<Arc<Running>>,
    Path((user, code, method)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (params, commands) = read_params(query.as_deref(), &headers, &body);
    let caller = Caller::Webhook { user, code };
    answer(portal, caller, method, params, commands.0).await
}

async fn by_application(
    State(portal): State<Arc<Running>>,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (params, commands) = read_params(query.as_deref(), &headers, &body);
    let token = php::get(&params, "auth").map(php::text).unwrap_or_default();
    let caller = Caller::Application { token };
    answer(portal, caller, method, params, commands.0).await
}

async fn answer(
    portal: Arc<Running>,
    caller: Caller,
    method: String,
    params: Value,
    commands: Vec<(String, String)>,
) -> Response {
    let method = method.trim_end_matches(".json").to_lowercase();
    let mood = portal.feel().await;
    let started = portal.now();
    let outcome = match portal.refuse(mood, &caller) {
        Some(refused) => refused,
        None if method == "batch" => portal.batch(&caller, &params, &commands, started).await,
        None => portal.single(&caller, &method, &params, started).await,
    };
    let response = outcome.into_response();
    portal.log().requests.push(Request {
        at: portal.started.elapsed(),
        method: method.clone(),
        commands: commands.into_iter().map(|(_, line)| line).collect(),
        status: response.status().as_u16(),
    });
    if mood == Mood::LoseNews && method == "event.offline.get" {
        portal.lose_answer().await;
    }
    response
}

/// Query and body together, and a batch's commands in their order.
fn read_params(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> (Value, php::Commands) {
    #[derive(serde::Deserialize)]
    struct WithCommands {
        #[serde(default)]
        cmd: php::Commands,
    }
    let mut params = php::parse(query.unwrap_or_default());
    let kind = headers.get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let text = std::str::from_utf8(body).unwrap_or_default();
    if is_json {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        for (key, value) in sent.as_object().cloned().unwrap_or_default() {
            params[key] = value;
        }
        let commands = serde_json::from_slice(body).map(|sent: WithCommands| sent.cmd);
        return (params, commands.unwrap_or_default());
    }
    let mut pairs = php::pairs(query.unwrap_or_default());
    pairs.extend(php::pairs(text));
    for (key, value) in php::pairs(text) {
        php::insert(&mut params, &key, Value::String(value));
    }
    let commands = pairs.into_iter().filter_map(|(key, line)| {
        let name = key.strip_prefix("cmd[")?.strip_suffix(']')?;
        Some((name.to_owned(), line))
    });
    let mut commands: Vec<(String, String)> = commands.collect();
    for (place, (name, _)) in commands.iter_mut().enumerate() {
        if name.is_empty() {
            *name = place.to_string();
        }
    }
    (params, php::Commands(commands))
}

/// What goes out.
enum Outcome {
    Json(u16, Value),
    Html(u16, &'static str),
    Redirect(String),
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        Self::Json(fault.status, fault.body())
    }
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let code = |status| StatusCode::from_u16(status).unwrap();
        match self {
            Self::Json(status, body) => (code(status), Json(body)).into_response(),
            Self::Html(status, page) => {
                (code(status), [(header::CONTENT_TYPE, "text/html")], page).into_response()
            }
            Self::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        }
    }
}

impl Running {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
        let start = self.options.clock_start as f64;
        start + self.started.elapsed().as_secs_f64()
    }

    fn violate(&self, text: impl Into<String>) {
        self.log().violations.push(text.into());
    }

    fn application(&self) -> MutexGuard<'_, Application> {
        self.application
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The mood of the moment, once it lets a request through at all.
    async fn feel(&self) -> Mood {
        let mood = *self.mood.borrow();
        match mood {
            // When down, the connection is about to be cut.
            Mood::Hang | Mood::Down(_) => std::future::pending().await,
            Mood::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            _ => {}
        }
        mood
    }

    /// Cuts all connections, and is well again.
    async fn lose_answer(&self) {
        self.mood.send_replace(Mood::Well);
        self.cuts.send_modify(|count| *count += 1);
        std::future::pending::<()>().await;
    }

    /// What keeps even the token server from answering.
    fn ill(&self, mood: Mood) -> Option<Outcome> {
        match mood {
            Mood::Html502(left) => {
                self.mood.send_replace(match left {
                    0 | 1 => Mood::Well,
                    left => Mood::Html502(left - 1),
                });
                Some(Outcome::Html(502, "<html><h1>502 Bad Gateway</h1></html>"))
            }
            Mood::NotJson => Some(Outcome::Html(200, "<html>Maintenance</html>")),
            _ => None,
        }
    }

    /// What stops a request before any method runs.
    fn refuse(&self, mood: Mood, caller: &Caller) -> Option<Outcome> {
        if let Some(ill) = self.ill(mood) {
            return Some(ill);
        }
        match mood {
            Mood::Redirect => {
                let path = match caller {
                    Caller::Webhook { user, code } => format!("{user}/{code}/"),
                    Caller::Application { .. } => String::new(),
                };
                let to = format!("https://renamed.example/rest/{path}");
                return Some(Outcome::Redirect(to));
            }
            Mood::QueryLimit(left) => {
                let next = match left {
                    0 | 1 => Mood::Well,
                    left => Mood::QueryLimit(left - 1),
                };
                self.mood.send_replace(next);
                return Some(query_limit().into());
            }
            Mood::OverloadLimit => {
                let text = "REST API is blocked due to overload.";
                return Some(Fault::new(503, "OVERLOAD_LIMIT", text).into());
            }
            _ => {}
        }
        let admitted = match caller {
            Caller::Webhook { user, code } => {
                let is_ours = *user == self.options.user.to_string() && code == self.options.code;
                is_ours && mood != Mood::Revoked
            }
            Caller::Application { token } => {
                let now = self.now();
                if let Err(fault) = self.application().admit(token, now) {
                    return Some(fault.into());
                }
                mood != Mood::Revoked
            }
        };
        if !admitted {
            let text = "Wrong authorization data";
            return Some(Fault::new(401, "NO_AUTH_FOUND", text).into());
        }
        if !self.meter().take_request() {
            self.violate("more requests than the bucket holds");
            return Some(query_limit().into());
        }
        None
    }

    async fn single(&self, caller: &Caller, method: &str, params: &Value, started: f64) -> Outcome {
        match self.run(caller, method, params).await {
            Err(fault) => {
                let mut body = fault.body();
                body["time"] = self.time(method, started);
                Outcome::Json(fault.status, body)
            }
            Ok(answer) => {
                let mut body = json!({"result": answer.result});
                if let Some(next) = answer.next {
                    body["next"] = json!(next);
                }
                if let Some(total) = answer.total {
                    body["total"] = json!(total);
                }
                body["time"] = self.time(method, started);
                Outcome::Json(200, body)
            }
        }
    }

    async fn batch(
        &self,
        caller: &Caller,
        params: &Value,
        cmd: &[(String, String)],
        started: f64,
    ) -> Outcome {
        if cmd.len() > BATCH_LIMIT {
            self.violate(format!("a batch of {} commands", cmd.len()));
        }
        let halts = php::get(params, "halt").is_some_and(|halt| {
            !matches!(
                php::text(halt).to_lowercase().as_str(),
                "" | "0" | "false" | "n"
            )
        });
        let is_deaf = *self.mood.borrow() == Mood::ReferencesIgnored;
        let mut known = Map::new();
        let (mut results, mut errors, mut totals) = (Vec::new(), Vec::new(), Vec::new());
        let (mut nexts, mut times) = (Vec::new(), Vec::new());
        for (place, (name, line)) in cmd.iter().enumerate() {
            let (method, query) = line.split_once('?').unwrap_or((line, ""));
            let method = method.to_lowercase();
            let nothing = Map::new();
            let params = php::parse_with_results(query, if is_deaf { &nothing } else { &known });
            let begun = self.now();
            let outcome = if place >= BATCH_LIMIT {
                let text = "Max batch length exceeded";
                Err(Fault::new(400, "ERROR_BATCH_LENGTH_EXCEEDED", text))
            } else if method == "batch" {
                let text = "Method is not allowed for batch usage";
                Err(Fault::new(405, "ERROR_BATCH_METHOD_NOT_ALLOWED", text))
            } else {
                self.run(caller, &method, &params).await
            };
            match outcome {
                Ok(answer) => {
                    totals.extend(answer.total.map(|total| (name.clone(), json!(total))));
                    nexts.extend(answer.next.map(|next| (name.clone(), json!(next))));
                    known.insert(name.clone(), answer.result.clone());
                    results.push((name.clone(), answer.result));
                    times.push((name.clone(), self.time(&method, begun)));
                }
                Err(fault) => {
                    errors.push((name.clone(), fault.body()));
                    times.push((name.clone(), self.time(&method, begun)));
                    if halts {
                        break;
                    }
                }
            }
        }
        let result = json!({
            "result": php::map(results), "result_error": php::map(errors),
            "result_total": php::map(totals), "result_next": php::map(nexts),
            "result_time": php::map(times),
        });
        Outcome::Json(
            200,
            json!({"result": result, "time": self.time("batch", started)}),
        )
    }

    /// Runs one method, alone or in a batch: scopes, working time, the world, the usual delay.
    async fn run(&self, caller: &Caller, method: &str, params: &Value) -> Result<Answer, Fault> {
        let mood = *self.mood.borrow();
        let needed = methods::scopes_of(method);
        let has = |scope: &&'static str| {
            self.options.scopes.contains(scope) && mood != Mood::ScopeMissing(scope)
        };
        if !needed.is_empty() && !needed.iter().any(has) {
            let text = "The request requires higher privileges than provided by the access token";
            return Err(Fault::new(403, "insufficient_scope", text));
        }
        if matches!(mood, Mood::Fails(ill) if ill == method) {
            let text = "Internal server error";
            return Err(Fault::new(500, "INTERNAL_SERVER_ERROR", text));
        }
        if matches!(mood, Mood::OperationLimit(_)) {
            return Err(operation_limit());
        }
        if !self.meter().has_time(method) {
            self.violate(format!("more working time of {method} than allowed"));
            return Err(operation_limit());
        }
        if method == "feature.get" {
            let code = php::get(params, "CODE").map(php::text).unwrap_or_default();
            let is_there = code == "rest_offline_extended" && self.options.has_reservation;
            return Ok(Answer {
                result: json!({"value": if is_there { "Y" } else { "N" }}),
                ..Answer::default()
            });
        }
        if method.starts_with("event.") && matches!(caller, Caller::Application { .. }) {
            let mut application = self.application();
            return application.run(method, params, &self.options);
        }
        let mut answer = {
            let world = self.world.read().unwrap_or_else(PoisonError::into_inner);
            let portal = Portal {
                world: &world,
                user: self.options.user,
                scopes: &self.options.scopes,
                is_admin: self.options.is_admin,
                is_simple_mode: self.options.is_simple_mode,
                ignores_filters: mood == Mood::FilterIgnored,
            };
            portal.run(method, params)?
        };
        if answer.is_page {
            let page = {
                let mut log = self.log();
                log.pages_in_mood += 1;
                log.pages_in_mood
            };
            if mood == Mood::AllDamaged || mood == Mood::Damaged(page) {
                damage(&mut answer.result);
            }
            let seconds = self.options.page_ms / 1000.0 / self.options.speed;
            // A sleep of no time at all would still take a millisecond.
            if seconds > 0.0 {
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            }
            self.meter().add(method, seconds);
        }
        let work_ms = self.options.work_ms(method);
        if work_ms > 0.0 {
            let seconds = work_ms / 1000.0 / self.options.speed;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            self.meter().add(method, seconds);
        }
        Ok(answer)
    }

    fn time(&self, method: &str, started: f64) -> Value {
        let now = self.now();
        let mut meter = self.meter();
        let spent = meter.spent(method);
        let reset_in = match *self.mood.borrow() {
            Mood::OperationLimit(ms) => Duration::from_millis(ms).as_secs_f64(),
            _ => meter.reset_in(method),
        };
        // The portal tells whole seconds; a faster one needs parts of them.
        let reset_at = now + reset_in;
        let is_lifelike = (self.options.speed - 1.0).abs() < f64::EPSILON;
        let zoned = |seconds: f64| {
            let moment =
                jiff::Timestamp::from_duration(jiff::SignedDuration::from_secs_f64(seconds));
            let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(3));
            let moment = moment.unwrap().to_zoned(zone);
            moment.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
        };
        json!({
            "start": started, "finish": now, "duration": now - started,
            "processing": now - started, "date_start": zoned(started), "date_finish": zoned(now),
            "operating_reset_at": if is_lifelike { reset_at.ceil() } else { reset_at },
            "operating": spent,
        })
    }
}

fn query_limit() -> Fault {
    Fault::new(503, "QUERY_LIMIT_EXCEEDED", "Too many requests")
}

fn operation_limit() -> Fault {
    let text = "Method is blocked due to operation time limit.";
    Fault::new(429, "OPERATION_TIME_LIMIT", text)
}

/// Takes the `ID` from the row in the middle.
fn damage(rows: &mut Value) {
    if let Some(rows) = rows.as_array_mut().filter(|rows| !rows.is_empty()) {
        let middle = rows.len() / 2;
        rows[middle].as_object_mut().unwrap().remove("ID");
    }
}
