//! Looks after the webhooks that lead here: an account switches one off when too many of its
//! deliveries fail, tells nobody, and never switches it on again.
//!
//! Facts: amocrm.ru/developers/content/crm_platform/webhooks-api, and
//! developers.kommo.com/docs/webhooks-general on when one is switched off.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Amocrm, Listed, Query, too_heavy};
use crate::crm::budget::Lane;
use crate::crm::{CrmError, Finding};
use crate::fault;

const WEBHOOKS: &str = "/api/v4/webhooks";
/// How often they are looked at.
const EVERY: Duration = Duration::from_hours(1);
/// The folder of our own address that all webhooks come to.
const FOLDER: &str = "hooks";
const MEND: &str = "switch it on again in the account's settings, under the installed webhooks, \
                    once this host can be reached from outside";

/// A webhook, as the account lists it.
#[derive(Deserialize)]
pub(super) struct Webhook {
    destination: String,
    #[serde(default)]
    disabled: bool,
}

impl Webhook {
    /// Says whether it leads to `/hooks/{crm}/...`, on whatever host: ours is not known here.
    fn leads_to(&self, crm: &str) -> bool {
        let Some(url) = Url::parse(&self.destination).ok() else {
            return false;
        };
        let path: Vec<&str> = url.path().trim_end_matches('/').split('/').collect();
        let decoded = |part: &str| {
            let decoded = percent_encoding::percent_decode_str(part).decode_utf8();
            decoded.is_ok_and(|part| part == crm)
        };
        matches!(path.as_slice(), [.., folder, name, _] if *folder == FOLDER && decoded(name))
    }

    /// Where it leads, without its secret.
    fn host(&self) -> String {
        let url = Url::parse(&self.destination).ok();
        url.and_then(|url| url.host_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

/// When they were looked at, and what was told.
#[derive(Debug, Default)]
pub(super) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked_at: Option<Instant>,
    is_told: bool,
}

impl Watch {
    /// True at most once an hour.
    fn is_due(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.is_some_and(|at| at.elapsed() < EVERY) {
            return false;
        }
        state.looked_at = Some(Instant::now());
        true
    }

    /// True when this is to be told: once for each time that one is switched off.
    fn is_to_be_told(&self, is_off: bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_told = std::mem::replace(&mut state.is_told, is_off);
        is_off && !was_told
    }
}

/// The webhooks that lead to this CRM's address here.
pub(super) async fn ours(crm: &Amocrm, lane: Lane) -> Result<Vec<Webhook>, CrmError> {
    let (listed, _) = crm.list::<Webhook>(lane, WEBHOOKS, &Query::new()).await?;
    let mut all = match listed {
        Listed::Rows(list) => list.into_rows(),
        Listed::Nothing => Vec::new(),
        Listed::TooHeavy => return Err(too_heavy(WEBHOOKS)),
    };
    all.retain(|webhook| webhook.leads_to(crm.name.as_str()));
    Ok(all)
}

/// What is to be said of them; nothing where there are none.
pub(super) fn judge(ours: &[Webhook]) -> Option<Finding> {
    if let Some(off) = ours.iter().find(|webhook| webhook.disabled) {
        let text = format!("the account has switched off its webhook to {}", off.host());
        return Some(Finding::fault(text, MEND));
    }
    let one = ours.first()?;
    let text = format!("the account sends what happens to {}", one.host());
    Some(Finding::good(text))
}

/// Looks at them once an hour, and raises an alarm if one is switched off. An account that does not
/// show them (that takes an administrator) is not asked more often either.
pub(super) async fn look(crm: &Amocrm) {
    if !crm.watch.is_due() {
        return;
    }
    let ours = match ours(crm, Lane::Change).await {
        Ok(ours) => ours,
        Err(error) => {
            let fault = fault::told(&error);
            tracing::debug!(crm = %crm.name, fault, "amoCRM does not show its webhooks");
            return;
        }
    };
    let off = ours.iter().find(|webhook| webhook.disabled);
    if crm.watch.is_to_be_told(off.is_some()) {
        let host = off.map(Webhook::host).unwrap_or_default();
        tracing::error!(
            crm = %crm.name,
            host,
            "the account has switched off its webhook to this host; {MEND}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(destination: &str, disabled: bool) -> Webhook {
        Webhook {
            destination: destination.to_owned(),
            disabled,
        }
    }

    #[test]
    fn our_webhooks_are_known_by_the_end_of_their_address() {
        let cases = [
            ("https://pbx.example/hooks/retail/s3cret", true),
            ("https://pbx.example:8443/pbx/hooks/retail/s3cret/", true),
            ("https://pbx.example/hooks/retail/s3cret?x=1", true),
            ("https://pbx.example/hooks/ret%61il/s3cret", true),
            ("https://pbx.example/hooks/other/s3cret", false),
            ("https://pbx.example/hooks/retail", false),
            ("https://pbx.example/hooks/retail/", false),
            ("https://pbx.example/hooks/retail/a/b", false),
            ("https://pbx.example/?to=/hooks/retail/s3cret", false),
            ("https://pbx.example/hooks/%FF/s3cret", false),
            ("no address", false),
        ];
        for (destination, expected) in cases {
            assert_eq!(
                webhook(destination, false).leads_to("retail"),
                expected,
                "{destination}"
            );
        }
    }

    #[test]
    fn one_that_is_off_is_told_without_its_secret() {
        let on = webhook("https://pbx.example/hooks/retail/s3cret", false);
        let off = webhook("https://old.example/hooks/retail/s3cret", true);
        assert_eq!(judge(&[]), None);
        let finding = judge(&[on, off]).unwrap();
        assert_eq!(finding.level, crate::crm::Level::Fault);
        assert!(finding.text.contains("old.example"), "{finding:?}");
        assert!(!format!("{finding:?}").contains("s3cret"), "{finding:?}");
    }

    #[test]
    fn each_time_that_one_goes_off_is_told_once() {
        let watch = Watch::default();
        let told: Vec<bool> = [false, true, true, false, true]
            .map(|is_off| watch.is_to_be_told(is_off))
            .to_vec();
        assert_eq!(told, [false, true, false, false, true]);
    }
}
