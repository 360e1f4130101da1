//! What is wrong with a webhook or application, asked in a harmless request each.

use super::super::budget::Lane;
use super::super::{CrmError, Finding};
use super::access::By;
use super::application::Application;
use super::client::{AfterFault, Client, Command};
use super::employees::Wishes;
use super::events::Queue;
use super::wire;
use crate::fault;
use crate::record::{CrmName, EntityKind};

/// The portal that is checked.
pub(super) struct Checked<'a> {
    pub(super) client: &'a Client,
    pub(super) name: &'a CrmName,
    pub(super) kinds: &'a [EntityKind],
    pub(super) wishes: &'a Wishes,
    pub(super) application: Option<(&'a Application, &'a Queue)>,
    /// Whether the configuration says what proves a notice.
    pub(super) proves_notices: bool,
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
        if let Some((application, _)) = self.application
            && let Some(finding) = self.judge_authorisation(application)
        {
            findings.push(finding);
            if self.client.by() == By::Application {
                return findings;
            }
        }
        match self.ask().await {
            Ok(answers) => findings.extend(self.judge(&answers)),
            Err(error) => {
                findings.push(self.fault(&error));
                return findings;
            }
        }
        findings.push(self.notices().await);
        findings
    }

    /// What is wrong as long as the application was not installed.
    fn judge_authorisation(&self, application: &Application) -> Option<Finding> {
        match application.is_authorised() {
            Ok(true) => None,
            Ok(false) => Some(Finding::fault(
                "the application is not authorised: it has not been installed yet",
                format!(
                    "`crm.client_id` of `{}`: let an administrator of the portal install it, its \
                     installation address being that of pryamo's hook, or give `crm.refresh_token`",
                    self.name
                ),
            )),
            Err(error) => Some(Finding::fault(
                fault::told(&error),
                "see the rights on `data_dir`",
            )),
        }
    }

    /// How we learn of changes.
    async fn notices(&self) -> Finding {
        let Some((application, queue)) = self.application else {
            let proof = if self.proves_notices {
                "the notices of an outgoing webhook must carry `crm.application_token`"
            } else {
                "the notices of an outgoing webhook are believed without `crm.application_token`"
            };
            return Finding::good(format!(
                "no application (`crm.client_id`): changes are found by asking for them; {proof}"
            ));
        };
        if !matches!(application.is_authorised(), Ok(true)) {
            return Finding::good("until it is installed, changes are found by asking for them");
        }
        match queue.count_bound().await {
            Ok((0, _)) => Finding::good(
                "the application is authorised; its events are bound when pryamo first fetches them",
            ),
            Ok((bound, wanted)) => Finding::good(format!(
                "the application is authorised, {bound} of {wanted} events are bound"
            )),
            Err(error) => self.fault_of(By::Application, &error),
        }
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
        let noun = self.client.by().noun();
        let mut findings = vec![match answers.user {
            Some(user) => Finding::good(format!("the portal answers, as to user {user}")),
            None => Finding::good("the portal answers"),
        }];
        findings.extend(self.judge_scopes(answers));
        findings.extend(self.judge_optional_scopes(answers));
        if answers.administrator == Some(false) {
            findings.push(Finding::warning(
                format!("the {noun}'s owner is no administrator and may see fewer cards"),
                self.mend(&format!(
                    "let somebody who may read all cards make the {noun}"
                )),
            ));
        }
        if matches!(answers.mode, Ok(Some(2))) && self.kinds.contains(&EntityKind::Lead) {
            findings.push(Finding::good("the CRM runs in simple mode, without leads"));
        }
        findings
    }

    fn judge_scopes(&self, answers: &Answers) -> Option<Finding> {
        let noun = self.client.by().noun();
        let lacks = |wanted: &[&str]| {
            let scopes = answers.scopes.as_deref();
            scopes.is_some_and(|scopes| !scopes.iter().any(|has| wanted.contains(&has.as_str())))
        };
        if lacks(&["crm"]) {
            return Some(Finding::fault(
                format!("the {noun} may not read cards"),
                self.mend(&format!("tick the right `crm` in the {noun}")),
            ));
        }
        if let Err(error @ (CrmError::Forbidden { .. } | CrmError::Unauthorized(_))) = &answers.mode
        {
            return Some(self.fault(error));
        }
        if lacks(&["user", "user_basic", "user_brief"]) {
            return Some(Finding::fault(
                format!("the {noun} may not read employees"),
                self.mend(&format!("tick the right `user_basic` in the {noun}")),
            ));
        }
        lacks(&["user", "user_basic"]).then(|| {
            Finding::warning(
                "employees come without e-mail and own phones",
                self.mend(&format!("tick the right `user_basic` in the {noun}")),
            )
        })
    }

    /// What employees lack for want of a right, and go on without.
    fn judge_optional_scopes(&self, answers: &Answers) -> Vec<Finding> {
        let noun = self.client.by().noun();
        let Some(scopes) = &answers.scopes else {
            return Vec::new();
        };
        let parts = [
            (self.wishes.absences == Some(true), "calendar", "absences"),
            (self.wishes.workday, "timeman", "working days"),
        ];
        let lacks = |scope: &str| !scopes.iter().any(|has| has == scope);
        let missing = parts
            .into_iter()
            .filter(|(is_wanted, scope, _)| *is_wanted && lacks(scope));
        let mut findings: Vec<Finding> = missing
            .map(|(_, scope, what)| {
                Finding::warning(
                    format!("the {noun} may not read {what}"),
                    self.mend(&format!("tick the right `{scope}` in the {noun}")),
                )
            })
            .collect();
        if lacks("department") {
            findings.push(Finding::good(format!(
                "heads of departments are not known: the {noun} has no right `department`"
            )));
        }
        if self.wishes.absences.is_none() && lacks("calendar") {
            findings.push(Finding::good(format!(
                "absences are not read: the {noun} has no right `calendar`"
            )));
        }
        findings
    }

    fn fault(&self, error: &CrmError) -> Finding {
        self.fault_of(self.client.by(), error)
    }

    fn fault_of(&self, by: By, error: &CrmError) -> Finding {
        let mend = match (error, by) {
            (CrmError::Unreachable { .. }, _) => error
                .mends_certificate()
                .unwrap_or("see whether this machine reaches the portal"),
            (CrmError::RateLimited(_) | CrmError::OutOfBudget(_), _) => {
                "other programs use up the portal's limits; see `crm.limits` and try again"
            }
            (CrmError::Blocked(_), _) => "ask the support of Bitrix24",
            (CrmError::Forbidden { .. }, By::Webhook) => {
                "see the webhook's rights, its owner's, and the plan"
            }
            (CrmError::Forbidden { .. }, By::Application) => {
                "see the application's rights, those of who installed it, and the plan"
            }
            (CrmError::Refused { .. }, _) => "see whether the address still is the portal's",
            (CrmError::File(..), _) => "see the rights on `data_dir`",
            (_, By::Webhook) => "make a new incoming webhook and put its address there",
            (_, By::Application) => "let an administrator of the portal install it again",
        };
        Finding::fault(fault::told(error), self.mend_of(by, mend))
    }

    fn mend(&self, text: &str) -> String {
        self.mend_of(self.client.by(), text)
    }

    fn mend_of(&self, by: By, text: &str) -> String {
        format!("`{}` of `{}`: {text}", by.key(), self.name)
    }
}
