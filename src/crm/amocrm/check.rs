//! What `pryamo check` asks an account: is it the right one, may we read it, for how long.

use jiff::{SignedDuration, Timestamp};
use reqwest::{StatusCode, Url};

use super::account::{ACCOUNT, subdomain_of};
use super::wire::{Account, User};
use super::{Amocrm, Listed, USERS, body, method_of, path_of, search, too_heavy, webhooks};
use crate::crm::budget::Lane;
use crate::crm::{CrmError, Finding, judge_encryption};
use crate::fault;
use crate::record::EntityKind;

const UNPAID: &str = "402";
/// A token that ends sooner than this wants a warning.
const NOTICE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Nothing has changed that long after now, so a filter that works finds nothing.
const FUTURE_SECONDS: i64 = 86_400;

/// Asks once each and does not repeat: a person waits.
pub(super) async fn findings(crm: &Amocrm) -> Vec<Finding> {
    let mut findings: Vec<Finding> = judge_encryption(crm.link.base()).into_iter().collect();
    let account = match account(crm).await {
        Ok(account) => account,
        Err(error) => {
            findings.push(fault(&error));
            return findings;
        }
    };
    findings.push(whose(&account, crm.link.base()));
    findings.push(users(crm).await);
    findings.push(filters(crm, &account).await);
    findings.extend(webhooks(crm).await);
    findings.extend(end_of_token(crm));
    findings
}

async fn account(crm: &Amocrm) -> Result<Account, CrmError> {
    let query = vec![("with", "is_api_filter_enabled".to_owned())];
    let answer = crm.ask(Lane::Live, ACCOUNT, &query).await?;
    if answer.status == StatusCode::GATEWAY_TIMEOUT {
        return Err(too_heavy(ACCOUNT));
    }
    body(&method_of(ACCOUNT), &answer)
}

fn whose(account: &Account, base: &Url) -> Finding {
    if subdomain_of(base).is_some_and(|subdomain| subdomain != account.subdomain) {
        let host = base.host_str().unwrap_or_default();
        return Finding::warning(
            format!(
                "the account calls itself `{}`, not {host}",
                account.subdomain
            ),
            "has it been renamed? then correct `crm.url`",
        );
    }
    Finding::good(format!(
        "account `{}` (id {}) answers",
        account.subdomain, account.id
    ))
}

async fn users(crm: &Amocrm) -> Finding {
    let query = vec![("limit", "1".to_owned())];
    match crm.list::<User>(Lane::Live, USERS, &query).await {
        Ok((Listed::Rows(_), _)) => Finding::good("the list of users can be read"),
        Ok((Listed::Nothing, _)) => Finding::fault(
            "the list of users is empty",
            "let an administrator of the account generate `crm.token`",
        ),
        Ok((Listed::TooHeavy, _)) => fault(&too_heavy(USERS)),
        Err(error) => fault(&super::name_the_right(error)),
    }
}

/// The account's own word is believed when it says yes; otherwise a filter that nothing can pass
/// tells the truth.
async fn filters(crm: &Amocrm, account: &Account) -> Finding {
    let works = Finding::good("changes can be filtered by time");
    if account.is_api_filter_enabled == Some(true) {
        return works;
    }
    let Some(now) = crm.link.server_now() else {
        return Finding::warning(
            "the CRM does not tell its clock (no `Date` in its answers)",
            "is there a proxy in between that takes the header away?",
        );
    };
    let tomorrow = now.as_second().saturating_add(FUTURE_SECONDS);
    let query = vec![
        ("filter[updated_at][from]", tomorrow.to_string()),
        ("limit", "1".to_owned()),
    ];
    let path = path_of(EntityKind::Contact);
    match search::rows(crm, path, &query).await {
        Ok(rows) if rows.is_empty() => works,
        Ok(_) => Finding::warning(
            "the account ignores filters; changes are read newest first until known ones come",
            "works as it is; the vendor's support can switch the filters on",
        ),
        Err(error) => fault(&error),
    }
}

/// Whether the account still sends what happens; nothing where no webhook leads here, or where the
/// token's owner may not know.
async fn webhooks(crm: &Amocrm) -> Option<Finding> {
    match webhooks::ours(crm, Lane::Live).await {
        Ok(ours) => webhooks::judge(&ours),
        Err(CrmError::Forbidden { .. }) => None,
        Err(error) => Some(fault(&error)),
    }
}

fn end_of_token(crm: &Amocrm) -> Option<Finding> {
    let (end, now) = crm.tokens.end().zip(crm.link.server_now())?;
    Some(judge_end(end, now))
}

fn judge_end(end: Timestamp, now: Timestamp) -> Finding {
    let date = end.strftime("%F");
    if end.duration_since(now) > NOTICE {
        return Finding::good(format!("the token is valid until {date}"));
    }
    Finding::warning(
        format!("the token ends on {date}"),
        "generate a new one in the integration's settings and put it into `crm.token`",
    )
}

fn fault(error: &CrmError) -> Finding {
    let mend = match error {
        CrmError::Unauthorized(_) => "see `crm.token`, or `crm.authorization_code` with OAuth",
        CrmError::Forbidden { .. } => "see the rights of the user who generated `crm.token`",
        CrmError::Refused { code, .. } if code == UNPAID => "let the account's owner pay for it",
        CrmError::Blocked(_) => "write to the vendor's support",
        CrmError::RateLimited(_) | CrmError::OutOfBudget(_) => {
            "another program uses up the account's requests; lower `crm.limits` or stop it"
        }
        CrmError::File(..) => "see the rights on `data_dir`",
        _ => error
            .mends_certificate()
            .unwrap_or("see `crm.url`, and whether this host reaches it"),
    };
    Finding::fault(fault::told(error), mend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm::Level;

    #[test]
    fn a_token_that_ends_within_thirty_days_is_warned_of() {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let cases = [
            ("2026-12-23T00:00:00Z", Level::Good),
            ("2026-12-21T00:00:00Z", Level::Warning),
            ("2026-11-01T00:00:00Z", Level::Warning),
        ];
        for (end, level) in cases {
            assert_eq!(judge_end(end.parse().unwrap(), now).level, level, "{end}");
        }
    }

    #[test]
    fn a_renamed_account_is_noticed_and_a_proxys_address_is_not_compared() {
        let account = Account::named(100, "demo");
        let cases = [
            ("https://demo.amocrm.ru", Level::Good),
            ("https://demo.kommo.com", Level::Good),
            ("https://old.amocrm.ru", Level::Warning),
            ("http://127.0.0.1:8080", Level::Good),
        ];
        for (url, level) in cases {
            let finding = whose(&account, &Url::parse(url).unwrap());
            assert_eq!(finding.level, level, "{url}");
        }
    }
}
