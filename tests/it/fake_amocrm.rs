//! A made-up amoCRM account on 127.0.0.1 that serves a [`SharedWorld`].
//!
//! Written from the vendor's pages and from what users report of them, not from the connector:
//! lists by pages with `next` links and 204 when empty, `order`, `filter`, `query`, users for
//! administrators only, OAuth whose refresh token works once, problem+json, and at most seven
//! requests in any second. It runs on a thread of its own, so that a test may block or ask it from
//! another process, and stops when dropped.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower_service::Service;

use crate::world::{Entry, SharedWorld, Stage, User, World};

pub(crate) const CLIENT_ID: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const CLIENT_SECRET: &str = "made-up-secret";
pub(crate) const REDIRECT_URI: &str = "https://pbx.example.com/callback";
/// Codes that an administrator got from the integration's page; each works once.
pub(crate) const CODES: [&str; 2] = ["first-code", "second-code"];
/// A refresh token that is good from the start, as if it came from an earlier exchange.
pub(crate) const FIRST_REFRESH: &str = "refresh-0";

const ACCOUNT_ID: u64 = 100;
const LARGEST_PAGE: usize = 250;
const DEFAULT_PAGE: usize = 50;
const ACCESS_LIFE_SECONDS: i64 = 86_400;
/// So many refusals in a row of the last [`BLOCK_WINDOW`], and the account is blocked for good.
const BLOCK_AFTER: usize = 30;
const BLOCK_WINDOW: Duration = Duration::from_secs(10);

/// What the account is like.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Requests allowed in any second; `None` counts nothing.
    pub(crate) limit: Option<usize>,
    /// How much faster than life limits and times run. A window of the limit is 1 s divided by
    /// this; beyond 5 or so a busy machine's hiccups look like violations.
    pub(crate) speed: f64,
    /// How long a page of a list takes in life, from .. to; 0.3 to 1 s is usual.
    pub(crate) page_latency: (Duration, Duration),
    pub(crate) search: Search,
    /// Whether the tokens are an administrator's.
    pub(crate) admin: bool,
    /// Whether filters work, and the account says so.
    pub(crate) filters: bool,
    /// The account's clock at the start, Unix seconds.
    pub(crate) now: i64,
    /// When the long-lived token ends, Unix seconds.
    pub(crate) token_ends: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit: None,
            speed: 20.0,
            page_latency: (Duration::ZERO, Duration::ZERO),
            search: Search::Literal,
            admin: true,
            filters: true,
            now: 1_795_348_800,
            token_ends: 1_795_348_800 + 3 * 365 * 86_400,
        }
    }
}

/// Whether `query=9000000001` finds a value typed as `8 (900) 000-00-01`; no source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    Literal,
    Digits,
}

/// What ails the account at the moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    Fine,
    /// Takes connections and closes them.
    Down,
    /// Never answers.
    Hang,
    /// Answers after this time, as it is, whatever the speed.
    Slow(Duration),
    Html502,
    /// 429 whose body names `retry_after`, seconds.
    LimitedJson(u64),
    LimitedHtml,
    /// The gateway's 403.
    Blocked,
    /// Every token is refused.
    Revoked,
    /// 504 for pages of more rows.
    HeavyAbove(usize),
    /// The first row lacks its `id`.
    MissingField,
    /// The first row's fields are a text.
    WrongType,
    /// 200, but HTML.
    HtmlPage,
    /// The page ends in the middle.
    CutPage,
    FiltersIgnored,
    FiltersAndOrderIgnored,
    /// `next` points to a stranger.
    NextElsewhere,
    /// Tokens are exchanged, and the connection closed before the answer.
    LoseTokenAnswer,
    /// Tokens are exchanged, and the answer never comes.
    HoldTokenAnswer,
}

/// The running account.
pub(crate) struct FakeAmocrm {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    world: SharedWorld,
    options: Options,
    host: String,
    started: Instant,
    state: Mutex<Account>,
}

struct Account {
    mood: Mood,
    log: Vec<String>,
    recent: VecDeque<Instant>,
    violations: Vec<String>,
    refused_at: VecDeque<Instant>,
    is_blocked: bool,
    codes: Vec<&'static str>,
    refresh: String,
    access: Vec<String>,
    rotations: usize,
    /// List and id -> when it was deleted.
    deleted: BTreeMap<(&'static str, u64), i64>,
    pages_served: u64,
    /// How far the account's clock was put forward, seconds.
    ahead: i64,
}

impl FakeAmocrm {
    pub(crate) fn start(world: SharedWorld, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            world,
            host: address.to_string(),
            started: Instant::now(),
            state: Mutex::new(Account {
                mood: Mood::Fine,
                log: Vec::new(),
                recent: VecDeque::new(),
                violations: Vec::new(),
                refused_at: VecDeque::new(),
                is_blocked: false,
                codes: CODES.to_vec(),
                refresh: FIRST_REFRESH.to_owned(),
                access: vec![long_lived(options.token_ends)],
                rotations: 0,
                deleted: BTreeMap::new(),
                pages_served: 0,
                ahead: 0,
            }),
            options,
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            shared,
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The long-lived token.
    pub(crate) fn token(&self) -> String {
        long_lived(self.shared.options.token_ends)
    }

    /// `limits` for the connector: the vendor's, at this account's speed.
    pub(crate) fn limits(&self) -> String {
        let speed = self.shared.options.speed;
        let per_second = match self.shared.options.limit {
            None => 5000.0,
            Some(limit) => f64::from(u32::try_from(limit).unwrap()) * speed,
        };
        let (retry, timeout) = (1000.0 / speed, 20_000.0 / speed);
        format!(
            "{{ requests_per_second = {per_second:.0}, retry_ms = {retry:.0}, timeout_ms = {timeout:.0} }}"
        )
    }

    /// The connector's own part of a `[[crm]]` table, with the long-lived token.
    pub(crate) fn table(&self) -> String {
        format!(
            "url = \"{}\"\ntoken = \"{}\"\nlimits = {}\n",
            self.url(),
            self.token(),
            self.limits()
        )
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.shared.lock().mood = mood;
    }

    /// Requests beyond the limit, one line each.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// How many requests came.
    pub(crate) fn requests(&self) -> usize {
        self.shared.lock().log.len()
    }

    /// The requests, as `GET /path?decoded=query`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.shared.lock().log.clone()
    }

    /// How many pairs of tokens were given out.
    pub(crate) fn rotations(&self) -> usize {
        self.shared.lock().rotations
    }

    /// Ends every access token that OAuth gave out; the refresh token stays good.
    pub(crate) fn expire_access_tokens(&self) {
        self.shared.lock().access.truncate(1);
    }

    /// Puts the account's clock forward.
    pub(crate) fn pass_time(&self, seconds: i64) {
        self.shared.lock().ahead += seconds;
    }

    /// The account's clock, Unix seconds: what `modified` of a changed entry should be.
    pub(crate) fn now(&self) -> i64 {
        self.shared.now()
    }

    /// Deletes an entry of `contacts`, `companies` or `leads` (the world's deals), as a person would.
    pub(crate) fn delete(&self, list: &'static str, id: u64) {
        let now = self.now();
        self.shared.lock().deleted.insert((list, id), now);
    }
}

impl Drop for FakeAmocrm {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Account> {
        self.state.lock().unwrap()
    }

    fn now(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_secs()).unwrap();
        self.options.now + elapsed + self.lock().ahead
    }

    fn scaled(&self, life: Duration) -> Duration {
        life.div_f64(self.options.speed)
    }

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

    fn is_authorised(&self, headers: &HeaderMap) -> bool {
        let account = self.lock();
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        account.mood != Mood::Revoked
            && token.is_some_and(|token| account.access.iter().any(|known| known == token))
    }

    /// Spread evenly over the range, the same in each run.
    fn page_latency(&self) -> Duration {
        let mut account = self.lock();
        account.pages_served += 1;
        let (from, to) = self.options.page_latency;
        let part = f64::from(u32::try_from(account.pages_served * 7 % 11).unwrap()) / 10.0;
        self.scaled(from + to.saturating_sub(from).mul_f64(part))
    }
}

/// Tells hyper to close the connection without an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("cut")
    }
}

impl std::error::Error for Cut {}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let router = Router::new()
        .route("/oauth2/access_token", post(exchange))
        .route("/api/v4/account", get(account))
        .route("/api/v4/users", get(users))
        .route("/api/v4/contacts", get(list))
        .route("/api/v4/companies", get(list))
        .route("/api/v4/leads", get(list))
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
    let answered: Result<Response, Infallible> = router.call(request).await;
    let mut response = answered.unwrap();
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

async fn exchange(State(shared): State<Arc<Shared>>, body: String) -> Response {
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

async fn account(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    if !shared.is_authorised(&headers) {
        return unauthorised();
    }
    let mut body = json!({"id": ACCOUNT_ID, "name": "Демо", "subdomain": "demo", "created_at": 1_700_000_000,
        "current_user_id": 501, "country": "RU", "currency": "RUB", "is_unsorted_on": true,
        "_links": {"self": {"href": format!("http://{}/api/v4/account", shared.host)}}});
    if Query::read(query.as_deref()).asks_with("is_api_filter_enabled") {
        body["is_api_filter_enabled"] = json!(shared.options.filters);
    }
    json_answer(StatusCode::OK, &body)
}

async fn users(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    if !shared.is_authorised(&headers) {
        return unauthorised();
    }
    if !shared.options.admin {
        return problem(StatusCode::FORBIDDEN, "You are not an administrator");
    }
    let query = Query::read(query.as_deref());
    let (page, limit) = match query.page_and_limit() {
        Ok(both) => both,
        Err(invalid) => return invalid.answer(),
    };
    let world = shared.world.read().unwrap();
    let total = world.users.len();
    let with_phone = query.asks_with("phone_number");
    let rows: Vec<Value> = world
        .users
        .iter()
        .skip((page - 1) * limit)
        .take(limit)
        .map(|user| user_row(user, with_phone))
        .collect();
    if rows.is_empty() {
        return no_content();
    }
    let body = json!({"_total_items": total, "_page": page, "_page_count": total.div_ceil(limit),
        "_links": shared.links("users", &query, page, page * limit < total),
        "_embedded": {"users": rows}});
    json_answer(StatusCode::OK, &body)
}

async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    if !shared.is_authorised(&headers) {
        return unauthorised();
    }
    let list = match uri.path() {
        "/api/v4/contacts" => "contacts",
        "/api/v4/companies" => "companies",
        _ => "leads",
    };
    let response = shared.page(list, &Query::read(query.as_deref()));
    tokio::time::sleep(shared.page_latency()).await;
    response
}

impl Shared {
    fn page(&self, list: &'static str, query: &Query) -> Response {
        let (page, limit) = match query.page_and_limit() {
            Ok(both) => both,
            Err(invalid) => return invalid.answer(),
        };
        let (mood, deleted) = {
            let account = self.lock();
            (account.mood, account.deleted.clone())
        };
        if matches!(mood, Mood::HeavyAbove(most) if limit > most) {
            return html(StatusCode::GATEWAY_TIMEOUT);
        }
        let world = self.world.read().unwrap();
        let entries = match list {
            "contacts" => &world.contacts,
            "companies" => &world.companies,
            _ => &world.deals,
        };
        let select = Select {
            list,
            query,
            deleted: &deleted,
            search: self.options.search,
            filters: self.options.filters && !ignores_filters(mood),
            ordered: mood != Mood::FiltersAndOrderIgnored,
        };
        let picked = match select.entries(entries, (page - 1) * limit, limit + 1) {
            Ok(picked) => picked,
            Err(invalid) => return invalid.answer(),
        };
        if picked.is_empty() {
            return no_content();
        }
        let has_more = picked.len() > limit;
        let rows = rows(&world, &select, &picked[..picked.len().min(limit)]);
        let mut links = self.links(list, query, page, has_more);
        if mood == Mood::NextElsewhere && has_more {
            links["next"]["href"] = json!(format!(
                "http://elsewhere.example/api/v4/{list}?page={}",
                page + 1
            ));
        }
        let mut body = json!({"_page": page, "_links": links, "_embedded": {}});
        body["_embedded"][list] = Value::Array(rows);
        damaged(mood, list, body)
    }

    fn links(&self, list: &str, query: &Query, page: usize, has_more: bool) -> Value {
        let to = |page: usize| {
            let rest = query.0.iter().filter(|(key, _)| key != "page");
            let mut pairs: Vec<(&str, String)> = rest
                .map(|(key, value)| (key.as_str(), value.clone()))
                .collect();
            pairs.push(("page", page.to_string()));
            let query = serde_urlencoded::to_string(pairs).unwrap();
            json!({"href": format!("http://{}/api/v4/{list}?{query}", self.host)})
        };
        let mut links = json!({"self": to(page)});
        if has_more {
            links["next"] = to(page + 1);
        }
        links
    }
}

fn ignores_filters(mood: Mood) -> bool {
    matches!(mood, Mood::FiltersIgnored | Mood::FiltersAndOrderIgnored)
}

fn damaged(mood: Mood, list: &str, mut body: Value) -> Response {
    let first = &mut body["_embedded"][list][0];
    match mood {
        Mood::MissingField => drop(first.as_object_mut().unwrap().remove("id")),
        Mood::WrongType => first["custom_fields_values"] = json!("none"),
        Mood::HtmlPage => return html(StatusCode::OK),
        Mood::CutPage => {
            let text = body.to_string();
            let half = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
            return typed(StatusCode::OK, HAL, text[..half].to_owned());
        }
        _ => {}
    }
    typed(StatusCode::OK, HAL, body.to_string())
}

/// A decoded query.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(raw: Option<&str>) -> Self {
        Self(serde_urlencoded::from_str(raw.unwrap_or_default()).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, Invalid> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| invalid(name, "This value should be of type int."))
    }

    fn page_and_limit(&self) -> Result<(usize, usize), Invalid> {
        let page = self.number("page")?.unwrap_or(1);
        let limit = self.number("limit")?.unwrap_or(DEFAULT_PAGE);
        if page < 1 {
            return Err(invalid("page", "This value should be 1 or more."));
        }
        if !(1..=LARGEST_PAGE).contains(&limit) {
            return Err(invalid("limit", "This value should be 250 or less."));
        }
        Ok((page, limit))
    }

    fn asks_with(&self, what: &str) -> bool {
        self.get("with")
            .is_some_and(|all| all.split(',').any(|one| one == what))
    }

    /// `filter[id][]=1`, `filter[id][0]=1` or `filter[id]=1`.
    fn ids(&self) -> Option<Vec<u64>> {
        let ids: Vec<u64> = self
            .0
            .iter()
            .filter(|(key, _)| key.starts_with("filter[id]"))
            .filter_map(|(_, value)| value.parse().ok())
            .collect();
        (!ids.is_empty()).then_some(ids)
    }
}

/// What of a list is asked for.
struct Select<'a> {
    list: &'static str,
    query: &'a Query,
    deleted: &'a BTreeMap<(&'static str, u64), i64>,
    search: Search,
    filters: bool,
    ordered: bool,
}

impl Select<'_> {
    fn entries<'w>(
        &self,
        entries: &'w [Entry],
        skip: usize,
        take: usize,
    ) -> Result<Vec<&'w Entry>, Invalid> {
        let from: Option<i64> = self.query.number("filter[updated_at][from]")?;
        let to: Option<i64> = self.query.number("filter[updated_at][to]")?;
        let ids = self.query.ids();
        let text = self.query.get("query");
        let order = |key| self.query.get(key).filter(|_| self.ordered);
        let by_time = order("order[updated_at]");
        let only_deleted = self.query.asks_with("only_deleted");
        let is_filtered = self.filters && (from.is_some() || to.is_some() || ids.is_some());
        let fits = |entry: &&Entry| {
            let modified = self.modified(entry);
            let passes = !self.filters
                || (from.is_none_or(|from| modified >= from)
                    && to.is_none_or(|to| modified <= to)
                    && ids.as_ref().is_none_or(|ids| ids.contains(&entry.id)));
            self.deleted.contains_key(&(self.list, entry.id)) == only_deleted
                && passes
                && text.is_none_or(|text| self.matches(entry, text))
        };
        let is_plain = !is_filtered && text.is_none() && by_time.is_none();
        if is_plain
            && !only_deleted
            && self.deleted.is_empty()
            && order("order[id]") != Some("desc")
        {
            // A deep page of a large base must not cost more than the first.
            return Ok(entries.iter().skip(skip).take(take).collect());
        }
        let mut all: Vec<&Entry> = entries.iter().filter(fits).collect();
        match (by_time, order("order[id]")) {
            (Some("desc"), _) => all.sort_by_key(|entry| -self.modified(entry)),
            (Some(_), _) => all.sort_by_key(|entry| self.modified(entry)),
            (None, Some("desc")) => all.reverse(),
            (None, _) => {}
        }
        Ok(all.into_iter().skip(skip).take(take).collect())
    }

    fn modified(&self, entry: &Entry) -> i64 {
        let deleted = self.deleted.get(&(self.list, entry.id));
        deleted.copied().unwrap_or(entry.modified)
    }

    /// All filled fields take part, so a name or a note's digits match as well as a phone.
    fn matches(&self, entry: &Entry, text: &str) -> bool {
        let text = text.to_lowercase();
        let holds = |field: &str| {
            field.to_lowercase().contains(&text)
                || (self.search == Search::Digits && digits(field).contains(&text))
        };
        holds(&full_name(entry)) || entry.phones.iter().any(|phone| holds(phone))
    }
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn full_name(entry: &Entry) -> String {
    format!("{} {}", entry.name, entry.last_name)
        .trim()
        .to_owned()
}

fn rows(world: &World, select: &Select<'_>, entries: &[&Entry]) -> Vec<Value> {
    if select.query.asks_with("only_deleted") {
        return entries
            .iter()
            .map(|entry| deleted_row(entry, select.modified(entry)))
            .collect();
    }
    let query = select.query;
    match select.list {
        "leads" => {
            let with_contacts = query.asks_with("contacts");
            entries
                .iter()
                .map(|deal| deal_row(deal, with_contacts))
                .collect()
        }
        list => {
            let deals = query.asks_with("leads").then(|| deals_by_contact(world));
            entries
                .iter()
                .map(|entry| client_row(entry, list, deals.as_ref()))
                .collect()
        }
    }
}

fn deals_by_contact(world: &World) -> HashMap<u64, Vec<Value>> {
    let mut deals: HashMap<u64, Vec<Value>> = HashMap::new();
    for deal in &world.deals {
        for contact in &deal.contacts {
            deals
                .entry(*contact)
                .or_default()
                .push(json!({"id": deal.id}));
        }
    }
    deals
}

fn common_row(entry: &Entry) -> Value {
    json!({"id": entry.id, "name": full_name(entry), "responsible_user_id": entry.responsible,
        "group_id": 0, "created_by": 501, "updated_by": 0, "created_at": entry.modified - 1000,
        "updated_at": entry.modified, "closest_task_at": null, "is_deleted": false,
        "custom_fields_values": null, "account_id": ACCOUNT_ID})
}

fn client_row(entry: &Entry, list: &str, deals: Option<&HashMap<u64, Vec<Value>>>) -> Value {
    let mut row = common_row(entry);
    let mut embedded = json!({"tags": []});
    if list == "contacts" {
        row["first_name"] = json!(entry.name);
        row["last_name"] = json!(entry.last_name);
        row["is_unsorted"] = json!(false);
        let company = entry.company.map(|id| json!({"id": id}));
        embedded["companies"] = company.into_iter().collect();
    }
    if let Some(deals) = deals {
        embedded["leads"] = json!(deals.get(&entry.id).cloned().unwrap_or_default());
    }
    if !entry.phones.is_empty() {
        let values: Vec<Value> = entry
            .phones
            .iter()
            .map(|phone| json!({"value": phone, "enum_id": 7001, "enum_code": "WORK"}))
            .collect();
        row["custom_fields_values"] = json!([{"field_id": 9001, "field_name": "Телефон",
            "field_code": "PHONE", "field_type": "multitext", "values": values}]);
    }
    row["_embedded"] = embedded;
    row
}

fn deal_row(deal: &Entry, with_contacts: bool) -> Value {
    let mut row = common_row(deal);
    let status = match deal.stage {
        Stage::Open => 40_000_001,
        Stage::Closed => 142,
        Stage::Junk => 143,
    };
    row["status_id"] = json!(status);
    row["pipeline_id"] = json!(30_000_001);
    row["price"] = json!(0);
    row["closed_at"] = match deal.stage {
        Stage::Open => Value::Null,
        Stage::Closed | Stage::Junk => json!(deal.modified),
    };
    let company = deal.company.map(|id| json!({"id": id}));
    let mut embedded = json!({"tags": [], "companies": company.into_iter().collect::<Vec<_>>()});
    if with_contacts {
        let contacts = deal.contacts.iter().enumerate();
        embedded["contacts"] = contacts
            .map(|(index, id)| json!({"id": id, "is_main": index == 0}))
            .collect();
    }
    row["_embedded"] = embedded;
    row
}

fn deleted_row(entry: &Entry, deleted_at: i64) -> Value {
    json!({"id": entry.id, "name": null, "responsible_user_id": null, "group_id": null,
        "updated_at": deleted_at, "is_deleted": true, "custom_fields_values": null,
        "account_id": ACCOUNT_ID})
}

fn user_row(user: &User, with_phone: bool) -> Value {
    let mut row = json!({"id": user.id, "name": format!("{} {}", user.first_name, user.last_name),
        "email": user.email, "lang": "ru",
        "rights": {"contacts": {"view": "A"}, "is_admin": false, "is_free": false,
                   "is_active": user.active, "group_id": 3, "role_id": null}});
    if with_phone {
        row["phone_number"] = json!(user.mobile);
    }
    row
}

const HAL: &str = "application/hal+json";

fn typed(status: StatusCode, kind: &str, body: impl Into<Body>) -> Response {
    let response = Response::builder().status(status);
    response
        .header(header::CONTENT_TYPE, kind)
        .body(body.into())
        .unwrap()
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    let kind = if status.is_success() {
        HAL
    } else {
        "application/problem+json"
    };
    typed(status, kind, body.to_string())
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({"title": status.canonical_reason(), "type": format!("https://httpstatus.es/{}", status.as_u16()),
        "status": status.as_u16(), "detail": detail});
    json_answer(status, &body)
}

/// A parameter that the account does not take.
struct Invalid {
    name: &'static str,
    detail: &'static str,
}

impl Invalid {
    fn answer(&self) -> Response {
        let path = self
            .name
            .replace("][", ".")
            .replace('[', ".")
            .replace(']', "");
        let body = json!({"title": "Bad Request", "type": "https://httpstatus.es/400", "status": 400,
            "detail": "Request validation failed", "validation-errors": [{"request_id": "0",
            "errors": [{"code": "InvalidType", "path": path, "detail": self.detail}]}]});
        json_answer(StatusCode::BAD_REQUEST, &body)
    }
}

fn invalid(name: &'static str, detail: &'static str) -> Invalid {
    Invalid { name, detail }
}

fn unauthorised() -> Response {
    problem(StatusCode::UNAUTHORIZED, "Authorization failed")
}

fn no_content() -> Response {
    let response = Response::builder().status(StatusCode::NO_CONTENT);
    response.body(Body::empty()).unwrap()
}

fn html(status: StatusCode) -> Response {
    let text = format!(
        "<html><head><title>{status}</title></head><body><center>nginx</center></body></html>"
    );
    typed(status, "text/html", text)
}

fn line_of(method: &Method, uri: &Uri) -> String {
    let query = Query::read(uri.query()).0;
    let pairs: Vec<String> = query
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!("{method} {}?{}", uri.path(), pairs.join("&"))
}

/// A token of the vendor's form; only its claim `exp` means anything.
fn long_lived(ends: i64) -> String {
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
