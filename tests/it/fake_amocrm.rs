//! A made-up amoCRM account on 127.0.0.1 that serves a [`SharedWorld`].
//!
//! Written from the vendor's pages and from what users report of them, not from the connector:
//! lists by pages with `next` links and 204 when empty, `order`, `filter`, `query`, single cards,
//! lists of deleted cards, events, webhooks and what they send, users for administrators only, OAuth
//! whose refresh token works once, problem+json, and at most seven requests in any second. It runs on a thread of its own, so that a test may block or ask it from
//! another process, and stops when dropped.

mod answers;
mod events;
mod hooks;
mod lists;
mod oauth;
mod query;
mod rows;
mod serve;
mod webhooks;

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::oneshot;

use self::events::Recorded;
use self::oauth::long_lived;
use self::webhooks::Webhook;
use crate::world::{List, SharedWorld};

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
    /// What a single card that is not there is answered with; sources name both 404 and 204.
    pub(crate) missing: StatusCode,
    /// Whether `with=only_deleted` is understood.
    pub(crate) lists_deleted: bool,
    /// Which card the event of a merge names; no source says.
    pub(crate) merges_name: MergesName,
    /// The account's clock at the start, Unix seconds.
    pub(crate) now: i64,
    /// When the long-lived token ends, Unix seconds.
    pub(crate) token_ends: i64,
    /// Where its links lead, host and port; `None` for where it listens.
    pub(crate) host: Option<String>,
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
            missing: StatusCode::NOT_FOUND,
            lists_deleted: true,
            merges_name: MergesName::Survivor,
            now: 1_795_348_800,
            token_ends: 1_795_348_800 + 3 * 365 * 86_400,
            host: None,
        }
    }
}

/// Whether `query=9000000001` finds a value typed as `8 (900) 000-00-01`; no source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    Literal,
    Digits,
}

/// Which of two merged cards is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergesName {
    Survivor,
    Victim,
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
    /// The events may not be read.
    EventsForbidden,
    /// The events are asked for in a way that the account does not know.
    EventsUnknown,
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
    /// In the order in which they happened.
    events: Vec<Recorded>,
    webhooks: Vec<Webhook>,
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
            host: options.host.clone().unwrap_or_else(|| address.to_string()),
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
                events: Vec::new(),
                webhooks: Vec::new(),
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
                    () = serve::accept(listener, serving) => {}
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

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
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

    /// What it serves.
    pub(crate) fn world(&self) -> SharedWorld {
        Arc::clone(&self.shared.world)
    }

    /// Deletes an entry of `contacts`, `companies` or `leads` (the world's deals), as a person would.
    /// It may stay in the world: it is shown no more.
    pub(crate) fn delete(&self, list: &'static str, id: u64) {
        self.shared.record_deletion(list, id);
    }
}

/// What amoCRM calls a list of the world; its leads are the world's deals, and the world's leads are
/// unknown to it.
fn list_of(list: List) -> Option<&'static str> {
    match list {
        List::Contacts => Some("contacts"),
        List::Companies => Some("companies"),
        List::Deals => Some("leads"),
        List::Leads => None,
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

    /// Spread evenly over the range, the same in each run.
    fn page_latency(&self) -> Duration {
        let mut account = self.lock();
        account.pages_served += 1;
        let (from, to) = self.options.page_latency;
        let part = f64::from(u32::try_from(account.pages_served * 7 % 11).unwrap()) / 10.0;
        self.scaled(from + to.saturating_sub(from).mul_f64(part))
    }
}
