//! The JSON addresses for people, monitors and `pryamo`'s own commands.
//!
//! `/api/v1/route`, `/healthz`, `/readyz`, `/metrics` are for everybody who may ask; what changes
//! something or names employees wants the token that lies in `data_dir`, readable by the owner only.

mod employees;
mod journal;
pub mod reload;
mod replay;
pub mod shadow;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::call::{DialStatus, IncomingCall, MOST_TRIED, Target};
use crate::caller_name;
use crate::decision::{Decision, Reason, Step};
use crate::directory::{Count, Directory, Refreshed};
use crate::journal::Reader;
use crate::metrics;
use crate::pbx::forward;
use crate::phone::Region;
use crate::record::CrmName;
use crate::router::{Purpose, Router};
use crate::shadow::Shadow;
use crate::sync::Clock;
use crate::sync::import::{self, ImportError};
use crate::sync::live::Live;
use crate::sync::mirror::{Mirror, Order};
use crate::sync::status::Status;

/// The largest file that `import` takes.
pub const LARGEST_IMPORT: usize = 2 * 1024 * 1024 * 1024;

/// What the addresses answer from.
pub struct Api {
    /// Decides.
    pub router: Arc<Router>,
    /// Decides calls of the past: no live lookups, no phone states.
    pub replay: Router,
    /// The journal; `None` where it is switched off.
    pub journal: Option<Reader>,
    /// How numbers without a country code are read.
    pub region: Region,
    /// How names are shown.
    pub names: caller_name::Settings,
    /// The mirror of all CRMs.
    pub directory: Arc<dyn Directory>,
    /// Every CRM of the configuration and how its phones are read.
    pub regions: BTreeMap<CrmName, Region>,
    /// One for each CRM that can be reached.
    pub mirrors: Vec<Arc<Mirror>>,
    /// Asks the CRMs; here only for how its breakers stand.
    pub live: Arc<Live>,
    /// A mirror whose CRM has not answered for longer is too old (`sync.oldest_seconds`).
    pub oldest_seconds: u64,
    /// The same for its employees (`sync.oldest_employees_seconds`).
    pub oldest_employees_seconds: u64,
    /// The wall clock.
    pub clock: Clock,
    /// What `pryamo`'s own commands show.
    pub control_token: SecretString,
    /// Reads the configuration again.
    pub reloads: reload::Reloads,
    /// Compares answers with the former module's.
    pub shadow: Arc<Shadow>,
    /// Renders the metrics.
    pub prometheus: Option<PrometheusHandle>,
}

/// The addresses as an axum router.
pub fn routes(api: Arc<Api>) -> axum::Router {
    axum::Router::new()
        .route("/healthz", get(async || Json(json!({"status": "alive"}))))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .route("/api/v1/route", get(route))
        .route("/api/v1/employees", get(employees))
        .route("/api/v1/employees/{crm}/{id}", put(employees::set))
        .route("/api/v1/sync", get(sync_status).post(order_sync))
        .route("/api/v1/import", post(import_file))
        .route("/api/v1/journal", get(journal::entries))
        .route("/api/v1/replay", post(replay::judge))
        .route("/api/v1/reload", post(reload::reload))
        .route("/api/v1/shadow", get(shadow::compared))
        .with_state(api)
}

/// A decision as JSON; the same for the API and `explain --json`.
pub fn decision_json(decision: &Decision, names: &caller_name::Settings) -> Value {
    json!({
        "number": decision.ring,
        "ring": decision.ring_seconds,
        "name": forward::shown_name(decision, names),
        "reason": decision.reason,
        "caller": decision.caller,
        "entity": decision.entity,
        "employee": decision.employee,
        "steps": decision.steps,
    })
}

/// Reads a time as people write it: with an offset, or in this machine's zone.
pub fn read_time(written: &str) -> Result<Timestamp, String> {
    if let Ok(timestamp) = written.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    let civil = written.parse::<DateTime>().map_err(|_| {
        format!("`{written}` is no time; write 2026-11-22T15:00 or 2026-11-22T15:00+03:00")
    })?;
    let zoned = civil
        .to_zoned(TimeZone::system())
        .map_err(|error| error.to_string())?;
    Ok(zoned.timestamp())
}

async fn route(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let call = forward::read_query(&query);
    let at = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("at="))
        .next_back();
    let now = match at.filter(|at| !at.is_empty()) {
        None => (api.clock)(),
        Some(at) => {
            let at = percent_encoding::percent_decode_str(at).decode_utf8_lossy();
            match read_time(&at) {
                Ok(time) => time,
                Err(text) => return refuse(StatusCode::BAD_REQUEST, &text),
            }
        }
    };
    let decision = api.router.route(&call, now, Purpose::Explain).await;
    let mut shown = decision_json(&decision, &api.names);
    let then = behind(&api.router, call, &decision, now).await;
    if let Value::Object(fields) = &mut shown {
        fields.insert("then".to_owned(), json!(then));
        fields.insert("mirrors".to_owned(), json!(parts(&api)));
    }
    Json(shown).into_response()
}

/// Somebody who is rung when those before do not answer.
#[derive(Debug, Serialize)]
pub struct Next {
    /// What is rung.
    pub number: Target,
    /// Whose it is; `None` for a group.
    pub name: Option<String>,
    /// Why they are rung.
    pub reason: Reason,
}

/// Who is rung one after another when nobody answers, behind the one whom `decision` rings; `None`
/// where a CRM would have to be asked again for each of them.
pub async fn behind(
    router: &Router,
    mut call: IncomingCall,
    decision: &Decision,
    now: Timestamp,
) -> Option<Vec<Next>> {
    let asked = |step: &Step| matches!(step, Step::Asked(_, Refreshed::Found(_)));
    if decision.steps.iter().any(asked) {
        return None;
    }
    let mut then = Vec::new();
    let mut rung = decision.ring.clone();
    while let Some(target) = rung.take() {
        if call.tried.len() >= MOST_TRIED {
            break;
        }
        call.tried.push(target.to_string());
        call.status = Some(DialStatus::NoAnswer);
        let decision = router.route(&call, now, Purpose::Explain).await;
        rung.clone_from(&decision.ring);
        then.extend(decision.ring.map(|number| Next {
            number,
            name: decision.employee.map(|employee| employee.name.clone()),
            reason: decision.reason,
        }));
    }
    Some(then)
}

/// A decision in words, from what `/api/v1/route` answers.
pub fn explanation(answer: &Value) -> String {
    let text = |value: &Value, key: &str| {
        let text = value.pointer(key).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let list = |key: &str| {
        answer
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    // Writing into a string does not fail.
    let mut told = String::new();
    for step in list("steps") {
        let _ = writeln!(told, "  {}", text(step, "/text"));
    }
    let someone = |value: &Value, name: &str| match text(value, name) {
        name if name.is_empty() => text(value, "/number"),
        name => format!("{}, {name}", text(value, "/number")),
    };
    if text(answer, "/number").is_empty() {
        told += "nobody is rung\n";
    } else {
        let _ = writeln!(told, "rings {}", someone(answer, "/employee/name"));
        for next in list("then") {
            let reason = text(next, "/reason").replace('_', " ");
            let _ = writeln!(
                told,
                "  then, unanswered, {} ({reason})",
                someone(next, "/name")
            );
        }
        if answer.get("then").is_some_and(Value::is_array) {
            told += "  then the standard route\n";
        }
    }
    if !text(answer, "/name").is_empty() {
        let _ = writeln!(told, "shows {}", text(answer, "/name"));
    }
    told
}

/// What a part that is no kind of cards is called.
pub const EMPLOYEE: &str = "employee";

/// How a part of a mirror stands.
#[derive(Serialize)]
pub struct Part {
    /// Its CRM.
    pub crm: CrmName,
    /// A kind of cards, or `employee`.
    pub kind: &'static str,
    /// Whether a first walk, or reading of the employees, has ended.
    pub whole: bool,
    /// Since the CRM last told of it; `null` if never.
    pub age_seconds: Option<i64>,
    /// True if that is longer than `sync` allows.
    pub too_old: bool,
    /// What went wrong last.
    pub error: Option<String>,
    /// True if deletions wait for somebody to confirm them, or for a walk.
    pub doubts_deletions: bool,
}

/// How each part of each mirror stands. Reads no card: quick enough for every question.
pub fn parts(api: &Api) -> Vec<Part> {
    let now = (api.clock)();
    let mut parts = Vec::new();
    for mirror in &api.mirrors {
        let status = mirror.status();
        let age_of = |at: Option<Timestamp>| at.map(|at| now.duration_since(at).as_secs());
        let is_over =
            |age: Option<i64>, limit: u64| age.is_some_and(|age| age > limit.cast_signed());
        let employees_age = age_of(status.employees_at);
        parts.push(Part {
            crm: mirror.name().clone(),
            kind: EMPLOYEE,
            // A file may name employees without ever having been read as a list.
            whole: employees_age.is_some() || status.employees > 0,
            age_seconds: employees_age,
            too_old: is_over(employees_age, api.oldest_employees_seconds),
            error: status.employees_error.map(|trouble| trouble.text),
            doubts_deletions: false,
        });
        for (kind, shown) in status.kinds {
            let age_seconds = age_of(shown.fresh_at);
            parts.push(Part {
                crm: mirror.name().clone(),
                kind: kind.as_str(),
                whole: shown.whole_at.is_some(),
                age_seconds,
                too_old: is_over(age_seconds, api.oldest_seconds),
                error: shown.error.map(|trouble| trouble.text),
                doubts_deletions: shown.doubts_deletions || shown.shrunk.is_some(),
            });
        }
    }
    parts
}

/// Says whether every mirror has had its first walk and knows its employees.
pub fn is_whole(api: &Api) -> bool {
    every_part(api, &parts(api), |part| part.whole)
}

/// Says whether every mirror has parts and all of them are so.
fn every_part(api: &Api, parts: &[Part], is_so: fn(&Part) -> bool) -> bool {
    // Cards without employees would send every caller the standard route.
    api.mirrors.iter().all(|mirror| {
        let own = parts.iter().filter(|part| part.crm == *mirror.name());
        own.clone().count() > 1 && own.clone().all(is_so)
    })
}

/// How many records there are of a CRM's kind, or employees.
fn records(counts: &[Count], api: &Api, part: &Part) -> u64 {
    if part.kind == EMPLOYEE {
        return api.directory.roster().len_of(&part.crm) as u64;
    }
    let counted = counts
        .iter()
        .find(|count| count.crm == part.crm && count.kind.as_str() == part.kind);
    counted.map_or(0, |count| count.cards)
}

async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let counts = api.directory.counts().await.unwrap_or_default();
    let parts = parts(&api);
    let has_all = every_part(&api, &parts, |part| part.whole && !part.too_old);
    let status = if has_all {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let shown: Vec<Value> = parts
        .iter()
        .map(|part| {
            let mut shown = json!(part);
            if let Value::Object(fields) = &mut shown {
                let records = records(&counts, &api, part);
                fields.insert("records".to_owned(), json!(records));
            }
            shown
        })
        .collect();
    let body = json!({
        "ready": has_all,
        "employees": api.directory.roster().len(),
        "mirrors": shown,
    });
    (status, Json(body)).into_response()
}

async fn render_metrics(State(api): State<Arc<Api>>) -> Response {
    let counts = api.directory.counts().await.unwrap_or_default();
    for part in parts(&api) {
        metrics::show_mirror(&metrics::Shown {
            crm: &part.crm,
            kind: part.kind,
            records: records(&counts, &api, &part),
            whole: part.whole,
            age_seconds: part.age_seconds,
            doubts_deletions: part.doubts_deletions,
        });
    }
    for mirror in &api.mirrors {
        let status = mirror.status();
        metrics::show_crm(mirror.name(), status.notices.waiting, status.is_blocked());
        for (kind, shown) in &status.kinds {
            let running = shown.walking.then(|| shown.done.unwrap_or_default());
            let was_whole = shown.whole_at.is_some();
            metrics::show_walk(mirror.name(), kind.as_str(), running, was_whole);
        }
    }
    for (crm, is_open) in api.live.breakers() {
        metrics::show_breaker(crm, is_open);
    }
    let employees = api.directory.roster().all();
    let ringable = employees
        .iter()
        .filter(|one| one.active && one.extension.is_ok());
    metrics::show_roster(employees.len(), ringable.count());
    match &api.prometheus {
        Some(handle) => {
            handle.run_upkeep();
            let kind = [(
                http::header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )];
            (kind, handle.render()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn employees(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    if !is_owner(&api, &headers) {
        return refuse_stranger();
    }
    let listed = employees::shown(&api.directory.roster(), (api.clock)());
    Json(listed).into_response()
}

async fn sync_status(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    if !is_owner(&api, &headers) {
        return refuse_stranger();
    }
    let statuses: Vec<Status> = api.mirrors.iter().map(|mirror| mirror.status()).collect();
    Json(statuses).into_response()
}

/// What `pryamo sync` asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncRequest {
    /// One CRM; all when left out.
    pub crm: Option<String>,
    /// What to do.
    pub order: Order,
}

async fn order_sync(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Json(request): Json<SyncRequest>,
) -> Response {
    if !is_owner(&api, &headers) {
        return refuse_stranger();
    }
    let wanted = |mirror: &&Arc<Mirror>| {
        request
            .crm
            .as_deref()
            .is_none_or(|crm| crm == mirror.name().as_str())
    };
    let tickets: BTreeMap<String, u64> = api
        .mirrors
        .iter()
        .filter(wanted)
        .map(|mirror| (mirror.name().to_string(), mirror.order(request.order)))
        .collect();
    match (&request.crm, tickets.is_empty()) {
        (Some(crm), true) => refuse(
            StatusCode::NOT_FOUND,
            &format!("no [[crm]] is named `{crm}`"),
        ),
        _ => Json(tickets).into_response(),
    }
}

#[derive(Deserialize)]
struct ImportQuery {
    crm: String,
}

async fn import_file(
    State(api): State<Arc<Api>>,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Response {
    // Before the body is read: a stranger's file must not fill the memory.
    if !is_owner(&api, request.headers()) {
        return refuse_stranger();
    }
    let crm = CrmName::new(&query.crm);
    let Some(region) = api.regions.get(&crm).copied() else {
        let text = format!("no [[crm]] is named `{crm}`");
        return refuse(StatusCode::NOT_FOUND, &text);
    };
    let body = match axum::body::to_bytes(request.into_body(), LARGEST_IMPORT).await {
        Ok(body) => body,
        Err(error) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
    };
    match import::import(&*api.directory, &crm, region, &body).await {
        Ok(report) => Json(report).into_response(),
        Err(error @ ImportError::Table(_)) => {
            refuse(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string())
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn is_owner(api: &Api, headers: &HeaderMap) -> bool {
    crate::web::bearer(headers).is_some_and(|given| {
        given
            .as_bytes()
            .ct_eq(api.control_token.expose_secret().as_bytes())
            .into()
    })
}

fn refuse_stranger() -> Response {
    refuse(
        StatusCode::UNAUTHORIZED,
        "this wants the token in data_dir/control.token",
    )
}

fn refuse(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({"error": text}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_written_with_or_without_an_offset() {
        let with_offset = read_time("2026-11-22T15:00:00+03:00").unwrap();
        assert_eq!(with_offset.to_string(), "2026-11-22T12:00:00Z");
        assert!(read_time("2026-11-22T15:00").is_ok());
        assert!(read_time("2026-11-22 15:00").is_ok());
        assert!(
            read_time("tomorrow")
                .unwrap_err()
                .contains("2026-11-22T15:00")
        );
    }
}
