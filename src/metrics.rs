//! Names and labels of every metric. Labels come from closed sets only.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use metrics::{
    Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::decision::{AnswerSource, Decision, Reason};
use crate::record::CrmName;

/// Upper ends of the histogram's buckets, in seconds: from far below a millisecond to the dialplan's
/// patience.
const ANSWER_BUCKETS: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.0, 5.0,
];

/// How often times of answers are put into their buckets.
const TEND_EVERY: Duration = Duration::from_secs(30);

/// Sets up the recorder of this process, which began at `now`, and gives what renders it.
pub fn install(now: Timestamp) -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Full("pryamo_answer_seconds".to_owned()),
            &ANSWER_BUCKETS,
        )?
        .install_recorder()?;
    describe_counter!(
        "pryamo_answers_total",
        "Questions answered, by reason of the decision"
    );
    describe_histogram!(
        "pryamo_answer_seconds",
        "Time from question to answer, by where the answer came from"
    );
    describe_crms();
    describe_counter!(
        "pryamo_known_callers_total",
        "Calls of known callers, by what became of them"
    );
    describe_counter!(
        "pryamo_journal_dropped_total",
        "Records that the journal lacks because it could not keep up"
    );
    describe_following();
    describe_counter!(
        "pryamo_panics_total",
        "Internal faults that were caught: a call took the standard route, or a mirror began again"
    );
    describe_gauge!(
        "pryamo_mirror_cards",
        "Cards in the mirror, by CRM and kind; employees as kind `employee`"
    );
    describe_gauge!(
        "pryamo_mirror_age_seconds",
        "Time since the CRM last answered, by CRM and kind"
    );
    describe_gauge!(
        "pryamo_mirror_whole",
        "1 once the first walk of this CRM and kind is whole"
    );
    describe_gauge!(
        "pryamo_mirror_doubts_deletions",
        "1 while suspiciously many deletions wait to be confirmed; see `pryamo sync`"
    );
    describe_gauge!(
        "pryamo_notices_waiting",
        "Cards that wait to be read again because their CRM told of them"
    );
    describe_gauge!(
        "pryamo_crm_blocked",
        "1 while the vendor has blocked us: write to its support"
    );
    describe_state();
    begin(now);
    Ok(handle)
}

/// Puts times of answers into their buckets until `stop`: before, each of them takes up memory, and
/// perhaps nobody ever asks for the figures.
pub async fn tend(handle: PrometheusHandle, stop: CancellationToken) {
    let mut pauses = tokio::time::interval(TEND_EVERY);
    loop {
        tokio::select! {
            _ = pauses.tick() => handle.run_upkeep(),
            () = stop.cancelled() => return,
        }
    }
}

/// What is shown from the beginning: an increase is only seen of what was there before.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn begin(now: Timestamp) {
    counter!("pryamo_panics_total").increment(0);
    counter!("pryamo_journal_dropped_total").increment(0);
    gauge!("pryamo_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("pryamo_start_time_seconds").set(now.as_second() as f64);
}

/// What is asked of CRMs, and what they send.
fn describe_crms() {
    describe_counter!(
        "pryamo_live_lookups_total",
        "Unknown numbers asked of a CRM, by outcome"
    );
    describe_counter!(
        "pryamo_crm_requests_total",
        "Requests sent to a CRM, by what came of them"
    );
    describe_counter!(
        "pryamo_crm_errors_total",
        "Refused or failed requests to a CRM, by kind"
    );
    describe_counter!(
        "pryamo_notices_total",
        "Notices of changed cards that were queued"
    );
    describe_counter!(
        "pryamo_hooks_total",
        "Requests to /hooks, by CRM and outcome"
    );
}

/// What follows the configuration, and the former module.
fn describe_following() {
    describe_counter!(
        "pryamo_shadow_total",
        "Answers compared with the former module's, by verdict"
    );
    describe_counter!(
        "pryamo_shadow_dropped_total",
        "Answers not compared because the former module could not keep up"
    );
    describe_counter!(
        "pryamo_reloads_total",
        "Configurations read again, by outcome"
    );
}

/// Describes what shows how the daemon and its parts stand.
fn describe_state() {
    describe_gauge!(
        "pryamo_build_info",
        "Always 1; the version of pryamo is its label"
    );
    describe_gauge!(
        "pryamo_start_time_seconds",
        "When the daemon began, in seconds since 1970"
    );
    describe_gauge!(
        "pryamo_employees",
        "Employees of all CRMs, whether or not they can be rung"
    );
    describe_gauge!(
        "pryamo_employees_ringable",
        "Employees who are not dismissed and have an extension that may be rung"
    );
    describe_gauge!(
        "pryamo_ami_connected",
        "1 while Asterisk tells how its phones stand; missing without [ami]"
    );
    describe_gauge!(
        "pryamo_breaker_open",
        "1 from when failures suspend the live lookups of this CRM until one succeeds"
    );
    describe_gauge!(
        "pryamo_walk_running",
        "1 while a walk over all cards of this CRM and kind runs"
    );
    describe_gauge!(
        "pryamo_walk_done_ratio",
        "The part of the running walk that is done, 0 to 1; 1 between walks"
    );
    describe_gauge!(
        "pryamo_hygiene_findings",
        "What the last look through all cards found to be mended in the CRM, by list"
    );
}

/// Counts an answer to a PBX.
pub fn count_answer(decision: &Decision, took: Duration) {
    // Looked for among all metrics once and then kept: a caller waits for this.
    static ANSWERS: [OnceLock<Counter>; Reason::ALL.len()] =
        [const { OnceLock::new() }; Reason::ALL.len()];
    static BY_DIRECTORY: OnceLock<Histogram> = OnceLock::new();
    static LIVE: OnceLock<Histogram> = OnceLock::new();
    static BY_NONE: OnceLock<Histogram> = OnceLock::new();
    let reason = decision.reason;
    if let Some(answers) = ANSWERS.get(reason as usize) {
        let make = || counter!("pryamo_answers_total", "reason" => reason.as_str());
        answers.get_or_init(make).increment(1);
    }
    let (times, source) = match decision.source() {
        AnswerSource::Directory => (&BY_DIRECTORY, "directory"),
        AnswerSource::Live => (&LIVE, "live"),
        AnswerSource::None => (&BY_NONE, "none"),
    };
    let make = || histogram!("pryamo_answer_seconds", "source" => source);
    times.get_or_init(make).record(took);
}

/// Counts an internal fault.
pub fn count_panic() {
    counter!("pryamo_panics_total").increment(1);
}

/// Counts a question to a CRM; `outcome` is one of a closed set.
pub fn count_live_lookup(crm: &CrmName, outcome: &'static str) {
    counter!("pryamo_live_lookups_total", "crm" => crm.to_string(), "outcome" => outcome)
        .increment(1);
}

/// Counts a request to a CRM; `outcome` is one of a closed set.
pub fn count_crm_request(crm: &CrmName, outcome: &'static str) {
    counter!("pryamo_crm_requests_total", "crm" => crm.to_string(), "outcome" => outcome)
        .increment(1);
}

/// Counts a failure of a CRM; `error` is [`crate::crm::CrmError::label`], or `directory`.
pub fn count_crm_error(crm: &CrmName, error: &str) {
    counter!("pryamo_crm_errors_total", "crm" => crm.to_string(), "error" => error.to_owned())
        .increment(1);
}

/// Counts a known caller's call once it is settled; `outcome` is one of a closed set.
pub fn count_known_caller(outcome: &'static str) {
    counter!("pryamo_known_callers_total", "outcome" => outcome).increment(1);
}

/// Counts records that the journal lacks.
pub fn count_journal_dropped(count: u64) {
    counter!("pryamo_journal_dropped_total").increment(count);
}

/// Counts a comparison with the former module; `verdict` is one of a closed set.
pub fn count_shadow(verdict: &'static str) {
    counter!("pryamo_shadow_total", "verdict" => verdict).increment(1);
}

/// Counts an answer that was not compared.
pub fn count_shadow_dropped() {
    counter!("pryamo_shadow_dropped_total").increment(1);
}

/// Counts a reload; `outcome` is `taken` or `refused`.
pub fn count_reload(outcome: &'static str) {
    counter!("pryamo_reloads_total", "outcome" => outcome).increment(1);
}

/// Counts notices that were queued.
pub fn count_notices(crm: &CrmName, count: u64) {
    counter!("pryamo_notices_total", "crm" => crm.to_string()).increment(count);
}

/// Counts a request to a hook; `outcome` is one of a closed set. `crm` is `None` where the address
/// names none of ours.
pub fn count_hook(crm: Option<&CrmName>, outcome: &'static str) {
    let crm = crm.map_or_else(|| "unknown".to_owned(), CrmName::to_string);
    counter!("pryamo_hooks_total", "crm" => crm, "outcome" => outcome).increment(1);
}

/// How a part of a mirror stands.
pub struct Shown<'a> {
    /// The CRM.
    pub crm: &'a CrmName,
    /// A kind of cards, or `employee`.
    pub kind: &'static str,
    /// Cards or employees.
    pub records: u64,
    /// Whether a first walk has ended.
    pub whole: bool,
    /// Since the CRM last told of it; `None` if never.
    pub age_seconds: Option<i64>,
    /// Whether deletions are not believed for the moment.
    pub doubts_deletions: bool,
}

/// Shows how a part of a mirror stands.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn show_mirror(shown: &Shown<'_>) {
    let labels = [
        ("crm", shown.crm.to_string()),
        ("kind", shown.kind.to_owned()),
    ];
    gauge!("pryamo_mirror_cards", &labels).set(shown.records as f64);
    gauge!("pryamo_mirror_whole", &labels).set(flag(shown.whole));
    gauge!("pryamo_mirror_doubts_deletions", &labels).set(flag(shown.doubts_deletions));
    if let Some(age) = shown.age_seconds {
        gauge!("pryamo_mirror_age_seconds", &labels).set(age as f64);
    }
}

/// Shows how a CRM stands: cards that wait to be read again, and whether the vendor has blocked us.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn show_crm(crm: &CrmName, waiting: u64, is_blocked: bool) {
    gauge!("pryamo_notices_waiting", "crm" => crm.to_string()).set(waiting as f64);
    gauge!("pryamo_crm_blocked", "crm" => crm.to_string()).set(flag(is_blocked));
}

/// Shows whether live lookups of a CRM are suspended.
pub fn show_breaker(crm: &CrmName, is_open: bool) {
    gauge!("pryamo_breaker_open", "crm" => crm.to_string()).set(flag(is_open));
}

/// Shows how far a walk over all cards of a kind is: the part done of a running one; `None` while
/// none runs. A gauge cannot be taken back, so between walks it stands at 1, or at 0 before the first.
pub fn show_walk(crm: &CrmName, kind: &'static str, running: Option<f64>, was_whole: bool) {
    let labels = [("crm", crm.to_string()), ("kind", kind.to_owned())];
    gauge!("pryamo_walk_running", &labels).set(flag(running.is_some()));
    gauge!("pryamo_walk_done_ratio", &labels).set(running.unwrap_or_else(|| flag(was_whole)));
}

/// Shows how many employees there are, and how many of them can be rung.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn show_roster(employees: usize, ringable: usize) {
    gauge!("pryamo_employees").set(employees as f64);
    gauge!("pryamo_employees_ringable").set(ringable as f64);
}

/// Shows how much is to be mended in the CRM; `list` is one of a closed set.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn show_findings(list: &'static str, count: u64) {
    gauge!("pryamo_hygiene_findings", "list" => list).set(count as f64);
}

/// Shows whether there is a line to Asterisk's Manager Interface.
pub fn show_ami(is_connected: bool) {
    gauge!("pryamo_ami_connected").set(flag(is_connected));
}

fn flag(is_set: bool) -> f64 {
    if is_set { 1.0 } else { 0.0 }
}
