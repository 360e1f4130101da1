//! What is wrong with a webhook, asked in one harmless request.

use super::super::budget::Lane;
use super::super::{CrmError, Finding};
use super::client::{AfterFault, Client, Command};
use super::wire;
use crate::fault;
use crate::record::{CrmName, EntityKind};

/// The webhook that is checked.
pub(super) struct Checked<'a> {
    pub(super) client: &'a Client,
    pub(super) name: &'a CrmName,
    pub(super) kinds: &'a [EntityKind],
}

/// What the portal tells about the webhook; `None` where it did not.
struct Answers {
    user: Option<u64>,
    administrator: Option<bool>,
    scopes: Option<Vec<String>>,
    /// What `crm.settings.mode.get` says, 2 for a CRM without leads. Old portals lack the method.
    mode: Result<Option<u64>, CrmError>,
}

impl Checked<'_> {
    /// Asks and judges.
    pub(super) async fn check(&self, unencrypted: Option<&Finding>) -> Vec<Finding> {
        let mut findings: Vec<Finding> = unencrypted.cloned().into_iter().collect();
        match self.ask().await {
            Ok(answers) => findings.extend(self.judge(&answers)),
            Err(error) => findings.push(self.fault(&error)),
        }
        findings
    }

    async fn ask(&self) -> Result<Answers, CrmError> {
        let methods = [
            "user.current",
            "user.admin",
            "scope",
            "crm.settings.mode.get",
        ];
        let commands = methods
            .into_iter()
            .map(|method| Command {
                method,
                query: String::new(),
            })
            .collect();
        let mut batch = self
            .client
            .batch(Lane::Change, commands, AfterFault::GoOn)
            .await?;
        let mut answer = |place| batch.take(place).ok();
        Ok(Answers {
            user: answer(0).and_then(|user| user.get("ID").and_then(wire::positive)),
            administrator: answer(1).as_ref().and_then(wire::truth),
            scopes: answer(2).as_ref().and_then(wire::items).map(|scopes| {
                let texts = scopes.into_iter().filter_map(wire::text);
                texts.map(|scope| scope.to_lowercase()).collect()
            }),
            mode: batch.take(3).map(|mode| wire::positive(&mode)),
        })
    }

    fn judge(&self, answers: &Answers) -> Vec<Finding> {
        let mut findings = vec![match answers.user {
            Some(user) => Finding::good(format!("the portal answers, as to user {user}")),
            None => Finding::good("the portal answers"),
        }];
        findings.extend(self.judge_scopes(answers));
        if answers.administrator == Some(false) {
            findings.push(Finding::warning(
                "the webhook's owner is no administrator and may see fewer cards",
                self.mend("let somebody who may read all cards make the webhook"),
            ));
        }
        if matches!(answers.mode, Ok(Some(2))) && self.kinds.contains(&EntityKind::Lead) {
            findings.push(Finding::good("the CRM runs in simple mode, without leads"));
        }
        findings
    }

    fn judge_scopes(&self, answers: &Answers) -> Option<Finding> {
        let lacks = |wanted: &[&str]| {
            let scopes = answers.scopes.as_deref();
            scopes.is_some_and(|scopes| !scopes.iter().any(|has| wanted.contains(&has.as_str())))
        };
        if lacks(&["crm"]) {
            return Some(Finding::fault(
                "the webhook may not read cards",
                self.mend("tick the right `crm` in the webhook"),
            ));
        }
        if let Err(error @ (CrmError::Forbidden { .. } | CrmError::Unauthorized(_))) = &answers.mode
        {
            return Some(self.fault(error));
        }
        if lacks(&["user", "user_basic", "user_brief"]) {
            return Some(Finding::fault(
                "the webhook may not read employees",
                self.mend("tick the right `user_basic` in the webhook"),
            ));
        }
        lacks(&["user", "user_basic"]).then(|| {
            Finding::warning(
                "employees come without e-mail and own phones",
                self.mend("tick the right `user_basic` in the webhook"),
            )
        })
    }

    fn fault(&self, error: &CrmError) -> Finding {
        let mend = match error {
            CrmError::Unreachable { .. } => "see whether this machine reaches the portal",
            CrmError::RateLimited(_) | CrmError::OutOfBudget(_) => {
                "other programs use up the portal's limits; see `crm.limits` and try again"
            }
            CrmError::Blocked(_) => "ask the support of Bitrix24",
            CrmError::Forbidden { .. } => "see the webhook's rights, its owner's, and the plan",
            CrmError::Refused { .. } => "see whether the address still is the portal's",
            _ => "make a new incoming webhook and put its address there",
        };
        Finding::fault(fault::told(error), self.mend(mend))
    }

    fn mend(&self, text: &str) -> String {
        format!("`crm.url` of `{}`: {text}", self.name)
    }
}
