//! Names and labels of every metric. Labels come from closed sets only.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::decision::Reason;
use crate::record::CrmName;

/// Upper ends of the histogram's buckets, in seconds: from far below a millisecond to the dialplan's
/// patience.
const ANSWER_BUCKETS: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.0, 5.0,
];

/// Sets up the recorder of this process and gives what renders it.
pub fn install() -> Result<PrometheusHandle, BuildError> {
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
    describe_histogram!("pryamo_answer_seconds", "Time from question to answer");
    describe_counter!(
        "pryamo_live_lookups_total",
        "Unknown numbers asked of a CRM, by outcome"
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
    Ok(handle)
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

/// Counts an answer to a PBX.
pub fn count_answer(reason: Reason, took: Duration) {
    counter!("pryamo_answers_total", "reason" => reason.as_str()).increment(1);
    histogram!("pryamo_answer_seconds").record(took);
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

fn flag(is_set: bool) -> f64 {
    if is_set { 1.0 } else { 0.0 }
}
