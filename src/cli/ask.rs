//! Commands that ask the running daemon: explain, employees, sync, and import while it runs.

mod employees;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{DONE, EmployeesArguments, ExplainArguments, FAILED, SyncArguments};
use crate::api::{self, SyncRequest};
use crate::config::Config;
use crate::record::EntityKind;
use crate::serve::{CONTROL_ADDRESS, CONTROL_TOKEN};
use crate::sync::import::ImportReport;
use crate::sync::mirror::Order;
use crate::sync::status::{KindStatus, Status};

/// `explain` found nobody.
const NOBODY: u8 = 4;
/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often `sync` looks how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Prints who would get this call.
pub(super) async fn explain(config: &Config, arguments: &ExplainArguments) -> Result<u8> {
    let mut query = vec![("phone", arguments.phone.as_str())];
    query.extend(arguments.did.as_deref().map(|did| ("did", did)));
    query.extend(arguments.at.as_deref().map(|at| ("at", at)));
    query.extend(arguments.tried.as_deref().map(|tried| ("tried", tried)));
    let written: Vec<String> = query
        .iter()
        .map(|(key, value)| format!("{key}={}", encode(value)))
        .collect();
    let answer: Value = Daemon::of(config)
        .get(&format!("/api/v1/route?{}", written.join("&")))
        .await?;
    if arguments.output.json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        print_decision(&answer);
    }
    Ok(if answer.get("number").is_some_and(Value::is_string) {
        DONE
    } else {
        NOBODY
    })
}

fn print_decision(answer: &Value) {
    print!("{}", api::explanation(answer));
    let ages = answer.get("mirrors").and_then(Value::as_array);
    for (crm, told) in tell_ages(ages.into_iter().flatten()) {
        println!("mirror of {crm}: {told}");
    }
}

/// How old each CRM's mirror is, in words, from what `/readyz` and `/api/v1/route` tell.
pub(super) fn tell_ages<'a>(mirrors: impl Iterator<Item = &'a Value>) -> BTreeMap<String, String> {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    for mirror in mirrors {
        let text = |key: &str| mirror.get(key).and_then(Value::as_str).unwrap_or_default();
        let is = |key: &str| mirror.get(key).and_then(Value::as_bool) == Some(true);
        let age = match mirror.get("age_seconds").and_then(Value::as_u64) {
            None => "never read".to_owned(),
            Some(seconds) => format!("{} old", in_words(seconds)),
        };
        let unfinished = if is("whole") { "" } else { ", not whole yet" };
        let over = if is("too_old") { " (TOO OLD)" } else { "" };
        let kinds = match text("kind") {
            "company" => "companies".to_owned(),
            kind => format!("{kind}s"),
        };
        let line = told.entry(text("crm").to_owned()).or_default();
        if !line.is_empty() {
            line.push_str("; ");
        }
        let _ = write!(line, "{kinds} {age}{over}{unfinished}");
    }
    told
}

/// A time span for people, the largest unit alone.
fn in_words(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Lists the employees.
pub(super) async fn employees(config: &Config, arguments: &EmployeesArguments) -> Result<u8> {
    let employees: Vec<Value> = Daemon::of(config).owner()?.get("/api/v1/employees").await?;
    if arguments.output.json {
        println!("{}", serde_json::to_string_pretty(&employees)?);
    } else if arguments.export {
        print!("{}", employees::export(&employees));
    } else {
        employees::print(&employees);
    }
    Ok(DONE)
}

/// All employees, as the running daemon knows them.
pub(super) async fn known_employees(config: &Config) -> Result<Vec<Value>> {
    Daemon::of(config).owner()?.get("/api/v1/employees").await
}

/// Orders a pass and shows it until it is over.
pub(super) async fn sync(config: &Config, arguments: &SyncArguments) -> Result<u8> {
    let daemon = Daemon::of(config).owner()?;
    let order = Order {
        full: arguments.full,
        accept_deletions: arguments.accept_deletions,
    };
    let request = SyncRequest {
        crm: arguments.crm.clone(),
        order,
    };
    let tickets: BTreeMap<String, u64> = daemon.post("/api/v1/sync", &request).await?;
    let bars = Bars::new(arguments.output.json);
    let statuses = loop {
        let statuses: Vec<Status> = daemon.get("/api/v1/sync").await?;
        bars.show(&statuses, &tickets);
        let is_done = |status: &Status| {
            tickets
                .get(&status.crm)
                .is_none_or(|ticket| status.done_ticket >= *ticket)
        };
        if statuses.iter().all(is_done) {
            break statuses;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    bars.clear();
    let asked: Vec<&Status> = statuses
        .iter()
        .filter(|status| tickets.contains_key(&status.crm))
        .collect();
    if arguments.output.json {
        println!("{}", serde_json::to_string_pretty(&asked)?);
    }
    let ready = daemon_state(config).await.unwrap_or_default();
    let mut code = DONE;
    for status in asked {
        if print_outcome(status, &ready, arguments.output.json) {
            code = FAILED;
        }
    }
    Ok(code)
}

/// What `/readyz` tells, whether ready or not.
pub(super) async fn daemon_state(config: &Config) -> Result<Value> {
    let text = get_text(&format!("{}/readyz", Daemon::of(config).base)).await?;
    Ok(serde_json::from_str(&text)?)
}

/// How many records `/readyz` tells of.
fn records(ready: &Value, crm: &str, kind: &str) -> u64 {
    let mirrors = ready.get("mirrors").and_then(Value::as_array);
    let is_it = |mirror: &&Value| {
        mirror.get("crm").and_then(Value::as_str) == Some(crm)
            && mirror.get("kind").and_then(Value::as_str) == Some(kind)
    };
    let found = mirrors.into_iter().flatten().find(is_it);
    found
        .and_then(|mirror| mirror.get("records")?.as_u64())
        .unwrap_or_default()
}

/// Prints how a pass went; says whether something failed.
fn print_outcome(status: &Status, ready: &Value, quiet: bool) -> bool {
    let mut failed = false;
    let mut say = |text: String, is_fault: bool| {
        failed |= is_fault;
        if !quiet {
            println!("{}: {text}", status.crm);
        }
    };
    match &status.employees_error {
        Some(error) => say(format!("employees: {error}"), true),
        None => say(format!("employees: {}", status.employees), false),
    }
    for (kind, shown) in &status.kinds {
        if let Some(error) = &shown.error {
            say(format!("{kind}: {error}"), true);
        } else if let Some(shrunk) = shown.shrunk {
            say(
                format!(
                    "{kind}: {} of {} cards are missing in the CRM; nothing was deleted. If they are really gone: pryamo sync --crm {} --full --accept-deletions",
                    shrunk.unseen, shrunk.total, status.crm
                ),
                true,
            );
        } else {
            let count = records(ready, &status.crm, kind.as_str());
            say(format!("{kind}: up to date, {count} cards"), false);
        }
        if shown.doubts_deletions {
            say(
                format!(
                    "{kind}: the CRM tells of suspiciously many deletions; the next walk decides"
                ),
                true,
            );
        }
    }
    let troubles = [
        ("notices", &status.notices.error),
        ("the CRM's own queue", &status.notices.news_error),
    ];
    for (what, trouble) in troubles {
        if let Some(trouble) = trouble {
            say(format!("{what}: {trouble}"), true);
        }
    }
    if status.notices.waiting > 0 {
        say(
            format!(
                "notices: {} cards wait to be read again",
                status.notices.waiting
            ),
            false,
        );
    }
    failed
}

/// Sends a file to the daemon, which has the directory open.
pub(super) async fn import(config: &Config, crm: &str, bytes: Vec<u8>) -> Result<ImportReport> {
    Daemon::of(config)
        .owner()?
        .post_bytes(&format!("/api/v1/import?crm={}", encode(crm)), bytes)
        .await
}

/// Something that turns while work of unknown length goes on.
pub(super) fn spinner(text: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(text.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Waits for the first mirror of a daemon that has just been started.
pub(super) async fn wait_until_ready(base: &str) -> Result<()> {
    for _ in 0..100 {
        let answer = client()?.get(format!("{base}/readyz")).send().await?;
        if answer.status().is_success() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the first mirror did not become whole")
}

/// The body of an address.
pub(super) async fn get_text(address: &str) -> Result<String> {
    Ok(client()?.get(address).send().await?.text().await?)
}

pub(super) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn client() -> Result<reqwest::Client> {
    crate::http_client::local(PATIENCE).context("cannot set up a connection")
}

fn base(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}

/// The running daemon, as the configuration says where it listens.
pub(super) struct Daemon {
    base: String,
    token: Option<String>,
    data_dir: std::path::PathBuf,
}

impl Daemon {
    pub(super) fn of(config: &Config) -> Self {
        let token = config
            .forward
            .token
            .as_ref()
            .map(|token| token.expose_secret().to_owned());
        Self {
            base: base(config.forward.listen),
            token,
            data_dir: config.data_dir.clone(),
        }
    }

    /// With the token that only the owner of `data_dir` can read.
    pub(super) fn owner(mut self) -> Result<Self> {
        let path = self.data_dir.join(CONTROL_TOKEN);
        let token = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow::anyhow!(
                "no pryamo runs with data_dir {}: start it with `pryamo serve`, or name its configuration with --config",
                self.data_dir.display()
            ),
            _ => anyhow::Error::new(error).context(format!(
                "cannot read {}: run this as the user that runs pryamo", path.display()
            )),
        })?;
        self.token = Some(token);
        self.listens_where_it_began();
        Ok(self)
    }

    /// A daemon that was told of another address listens there only after its next start.
    fn listens_where_it_began(&mut self) {
        let written = std::fs::read_to_string(self.data_dir.join(CONTROL_ADDRESS));
        let address = written.ok().and_then(|text| text.trim().parse().ok());
        if let Some(address) = address {
            self.base = base(address);
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(client()?.get(format!("{}{path}", self.base)))
            .await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T> {
        self.send(client()?.post(format!("{}{path}", self.base)).json(body))
            .await
    }

    async fn post_bytes<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T> {
        let client = crate::http_client::local(Duration::from_mins(30))?;
        self.send(client.post(format!("{}{path}", self.base)).body(body))
            .await
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let answer = request.send().await.map_err(|error| {
            let base = &self.base;
            if error.is_connect() {
                anyhow::anyhow!("no pryamo answers at {base}: start it with `pryamo serve`, or name its configuration with --config")
            } else {
                anyhow::Error::new(error.without_url()).context(format!("pryamo at {base} did not answer"))
            }
        })?;
        let status = answer.status();
        let body: Value = answer.json().await.with_context(|| {
            format!(
                "what answers at {} ({status}) is not pryamo; see `forward.listen`",
                self.base
            )
        })?;
        if !status.is_success() {
            bail!(
                "{}",
                body.get("error")
                    .and_then(Value::as_str)
                    .unwrap_or("refused")
            );
        }
        Ok(serde_json::from_value(body)?)
    }
}

/// A bar for every kind of every CRM.
struct Bars {
    all: MultiProgress,
    bars: std::cell::RefCell<BTreeMap<(String, EntityKind), ProgressBar>>,
}

impl Bars {
    fn new(hidden: bool) -> Self {
        let all = MultiProgress::new();
        if hidden {
            all.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self {
            all,
            bars: std::cell::RefCell::default(),
        }
    }

    fn show(&self, statuses: &[Status], tickets: &BTreeMap<String, u64>) {
        for status in statuses
            .iter()
            .filter(|status| tickets.contains_key(&status.crm))
        {
            for (kind, shown) in &status.kinds {
                let mut bars = self.bars.borrow_mut();
                let bar = bars
                    .entry((status.crm.clone(), *kind))
                    .or_insert_with(|| self.all.add(new_bar(&format!("{} {kind}", status.crm))));
                bar.set_message(progress(shown));
            }
        }
    }

    fn clear(&self) {
        for bar in self.bars.borrow().values() {
            bar.finish_and_clear();
        }
    }
}

/// How far a walk is: cards, rate, and where it is known the share that is done and the time left.
fn progress(shown: &KindStatus) -> String {
    if !shown.walking {
        return match &shown.error {
            Some(trouble) => trouble.to_string(),
            None => "up to date".to_owned(),
        };
    }
    let mut text = format!("{} cards", shown.walked_cards);
    if let Some(rate) = shown.cards_per_second {
        let _ = write!(text, ", {rate:.0} a second");
    }
    if let Some(done) = shown.done {
        let _ = write!(text, ", {:.0} %", done * 100.0);
    }
    if let Some(seconds) = shown.seconds_left {
        let _ = write!(text, ", {} left", in_words(seconds));
    }
    text
}

fn new_bar(name: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_prefix(name.to_owned());
    let style = ProgressStyle::with_template("{prefix:24} {spinner} {elapsed} {msg}");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
