//! Names and labels of every metric. Labels come from closed sets only.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::decision::Reason;
use crate::record::{CrmName, EntityKind};

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
        "pryamo_panics_total",
        "Internal faults that were caught: a call took the standard route, or a mirror began again"
    );
    describe_gauge!(
        "pryamo_mirror_cards",
        "Cards in the mirror, by CRM and kind"
    );
    describe_gauge!(
        "pryamo_mirror_age_seconds",
        "Time since the CRM last answered, by CRM and kind"
    );
    describe_gauge!(
        "pryamo_mirror_whole",
        "1 once the first walk of this CRM and kind is whole"
    );
    Ok(handle)
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

/// Counts a failure of a CRM; `error` is [`crate::crm::CrmError::label`].
pub fn count_crm_error(crm: &CrmName, error: &'static str) {
    counter!("pryamo_crm_errors_total", "crm" => crm.to_string(), "error" => error).increment(1);
}

/// Shows how a kind of a CRM's mirror stands; `age` is `None` before its first answer.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn show_mirror(crm: &CrmName, kind: EntityKind, cards: u64, whole: bool, age: Option<f64>) {
    let labels = [("crm", crm.to_string()), ("kind", kind.as_str().to_owned())];
    gauge!("pryamo_mirror_cards", &labels).set(cards as f64);
    gauge!("pryamo_mirror_whole", &labels).set(if whole { 1.0 } else { 0.0 });
    if let Some(age) = age {
        gauge!("pryamo_mirror_age_seconds", &labels).set(age);
    }
}
