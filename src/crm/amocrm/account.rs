//! Which account this is: asked for now and then, and compared with what a webhook says of itself.
//!
//! The number stays when an account is renamed, so where both are told the number decides.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{StatusCode, Url};
use tokio::time::Instant;

use super::wire::Account;
use super::{Amocrm, Query, body, method_of, too_heavy};
use crate::crm::budget::Lane;
use crate::crm::{CrmError, HookError};
use crate::fault;
use crate::record::Department;

pub(super) const ACCOUNT: &str = "/api/v4/account";
/// The hosts on which the first word is the account's name.
const HOSTS: [&str; 3] = [".amocrm.ru", ".amocrm.com", ".kommo.com"];
/// How long what was learnt is used: an account may be renamed.
const LEARNT_FOR: Duration = Duration::from_hours(1);

/// What is known of the account.
#[derive(Debug)]
pub(super) struct Identity {
    /// By `crm.url`; `None` behind a proxy's address.
    subdomain: Option<String>,
    learnt: Mutex<Option<Learnt>>,
}

#[derive(Debug)]
struct Learnt {
    id: String,
    subdomain: String,
    at: Instant,
}

/// What somebody says of the account that they speak for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) id: Option<String>,
    pub(super) subdomain: Option<String>,
}

impl Identity {
    /// The account at this address.
    pub(super) fn behind(base: &Url) -> Self {
        Self {
            subdomain: subdomain_of(base).map(str::to_owned),
            learnt: Mutex::default(),
        }
    }

    /// Turns away who speaks for another account. Asks nobody: before the account has told its
    /// number, its address has to do, and who says nothing of themselves is let in.
    pub(super) fn recognise(&self, claim: &Claim) -> Result<(), HookError> {
        let learnt = self.lock();
        let own_id = learnt.as_ref().map(|own| own.id.as_str());
        if let Some((claimed, own)) = claim.id.as_deref().zip(own_id) {
            return admit(claimed.trim() == own, "number");
        }
        let own_name = learnt.as_ref().map(|own| own.subdomain.as_str());
        let own_name = own_name.or(self.subdomain.as_deref());
        if let Some((claimed, own)) = claim.subdomain.as_deref().zip(own_name) {
            return admit(claimed.trim().eq_ignore_ascii_case(own), "name");
        }
        Ok(())
    }

    /// Remembers what the account says of itself.
    pub(super) fn learn(&self, account: &Account) {
        *self.lock() = Some(Learnt {
            id: account.id.to_string(),
            subdomain: account.subdomain.clone(),
            at: Instant::now(),
        });
    }

    fn is_fresh(&self) -> bool {
        let learnt = self.lock();
        learnt
            .as_ref()
            .is_some_and(|own| own.at.elapsed() < LEARNT_FOR)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Learnt>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text names what differs, not what was said: that is a stranger's.
fn admit(is_ours: bool, what: &str) -> Result<(), HookError> {
    if is_ours {
        return Ok(());
    }
    Err(HookError::Stranger(format!(
        "it names an account of another {what}; see `crm.url`"
    )))
}

/// The account's name in its own address.
pub(super) fn subdomain_of(base: &Url) -> Option<&str> {
    let host = base.host_str()?;
    HOSTS.iter().find_map(|end| host.strip_suffix(end))
}

/// Asks the account who it is, unless it was asked within the last hour. It is asked once: whoever
/// calls has other things to do.
pub(super) async fn look(crm: &Amocrm) -> Result<(), CrmError> {
    if crm.account.is_fresh() {
        return Ok(());
    }
    let answer = crm.ask_once(Lane::Change, ACCOUNT, &Query::new()).await?;
    if answer.status == StatusCode::GATEWAY_TIMEOUT {
        return Err(too_heavy(ACCOUNT));
    }
    crm.account.learn(&body(&method_of(ACCOUNT), &answer)?);
    Ok(())
}

/// The groups of users by their names; on the way it is learnt which account this is.
pub(super) async fn groups(crm: &Amocrm) -> Result<Vec<Department>, CrmError> {
    let query = vec![("with", "users_groups".to_owned())];
    let answer = crm.ask_once(Lane::Change, ACCOUNT, &query).await?;
    if answer.status == StatusCode::GATEWAY_TIMEOUT {
        return Err(too_heavy(ACCOUNT));
    }
    let account: Account = body(&method_of(ACCOUNT), &answer)?;
    crm.account.learn(&account);
    Ok(account.groups())
}

/// For those who can do without.
pub(super) fn pass_over(error: &CrmError) {
    let fault = fault::told(error);
    tracing::debug!(fault, "amoCRM does not tell which account it is");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: &str, subdomain: &str) -> Claim {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Claim {
            id: said(id),
            subdomain: said(subdomain),
        }
    }

    #[test]
    fn the_number_decides_and_before_it_is_known_the_address() {
        let vendor = "https://demo.amocrm.ru";
        let cases = [
            // Address, is the account known, its claim, is it let in.
            (vendor, true, claim("100", "demo"), true),
            (vendor, true, claim("100", "renamed"), true),
            (vendor, true, claim("101", "demo"), false),
            (vendor, true, claim("x", ""), false),
            (vendor, true, claim("", "Demo"), true),
            (vendor, true, claim("", "stranger"), false),
            (vendor, true, claim("", ""), true),
            (vendor, false, claim("101", "demo"), true),
            (vendor, false, claim("100", "stranger"), false),
            (vendor, false, claim("100", ""), true),
            ("https://demo.kommo.com", false, claim("1", "other"), false),
            ("https://demo.amocrm.com", false, claim("1", "demo"), true),
            ("http://127.0.0.1:8080", false, claim("1", "other"), true),
            ("http://127.0.0.1:8080", true, claim("1", "demo"), false),
        ];
        for (url, is_known, claim, is_let_in) in cases {
            let identity = Identity::behind(&Url::parse(url).unwrap());
            if is_known {
                identity.learn(&Account::named(100, "demo"));
            }
            let outcome = identity.recognise(&claim);
            assert_eq!(outcome.is_ok(), is_let_in, "{url} {is_known} {claim:?}");
            if let Err(error) = outcome {
                assert!(matches!(error, HookError::Stranger(_)));
                assert!(!error.to_string().contains("stranger"), "{error}");
            }
        }
    }
}
