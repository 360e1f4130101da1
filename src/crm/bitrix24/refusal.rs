//! What Bitrix24's error codes mean, and what mends them.
//!
//! The codes are those of the vendor's pages "system errors" and of the methods; some are known
//! only from the vendor's SDKs. The code decides, then the HTTP status, for inside a batch the
//! status is always 200.

use std::time::Duration;

use serde_json::Value;

use super::super::{CrmError, one_line};
use super::access::By;
use super::wire;

/// How long to wait after "too many requests"; who repeats lets it grow.
const TOO_MANY_REQUESTS_WAIT: Duration = Duration::from_secs(1);
/// The longest text of the portal's that is passed on, in characters.
const TEXT_LIMIT: usize = 200;

/// The portal's refusal of a request or of one command of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In lower case, one line, cut; may be empty.
    code: String,
    /// One line, cut, without control characters.
    text: String,
    status: u16,
}

/// A fault that the portal's own machinery reports, not a refusal of ours.
#[derive(Debug, thiserror::Error)]
#[error("HTTP {status} {code}: {text}")]
struct PortalFault {
    status: u16,
    code: String,
    text: String,
}

impl Refusal {
    /// Reads `error` and `error_description`; `None` when there is no `error`.
    pub(super) fn read(status: u16, body: &Value) -> Option<Self> {
        let code = match body.get("error")? {
            Value::Null => return None,
            value => wire::text(value).unwrap_or_default(),
        };
        let text = body
            .get("error_description")
            .and_then(wire::text)
            .unwrap_or_default();
        Some(Self {
            code: one_line(&code.trim().to_lowercase(), TEXT_LIMIT),
            text: one_line(&text, TEXT_LIMIT),
            status,
        })
    }

    /// The same, with stars in place of a secret.
    pub(super) fn without(mut self, secret: &str) -> Self {
        if !secret.is_empty() {
            self.text = self.text.replace(secret, "***");
            self.code = self.code.replace(&secret.to_lowercase(), "***");
        }
        self
    }

    /// Says whether the bucket of requests is full.
    pub(super) fn means_full_bucket(&self) -> bool {
        self.code == "query_limit_exceeded"
    }

    /// Says whether the vendor has blocked the portal by hand.
    pub(super) fn means_overload(&self) -> bool {
        self.code == "overload_limit"
    }

    /// Says whether the access token has ended.
    pub(super) fn means_expired_token(&self) -> bool {
        self.code == "expired_token"
    }

    /// The code in lower case; may be empty.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// Code and text in one line.
    pub(super) fn words(&self) -> String {
        let words = format!("{} {}", self.shown_code(), self.text);
        words.trim_end().to_owned()
    }

    /// Says whether the method's working time is spent.
    pub(super) fn means_spent_time(&self) -> bool {
        self.code == "operation_time_limit"
    }

    /// What a caller of `method` is told. `rest` is how long the method rests if its time is spent.
    pub(super) fn into_error(self, method: &str, by: By, rest: Duration) -> CrmError {
        match self.code.as_str() {
            "query_limit_exceeded" => CrmError::RateLimited(TOO_MANY_REQUESTS_WAIT),
            "operation_time_limit" => CrmError::RateLimited(rest),
            "overload_limit" => CrmError::Blocked(
                "Bitrix24 has blocked the portal's REST by hand (OVERLOAD_LIMIT); ask its support"
                    .into(),
            ),
            "portal_deleted" => {
                CrmError::Blocked("the portal is closed (PORTAL_DELETED); see `crm.url`".into())
            }
            "internal_server_error" | "error_unexpected_answer" => self.into_fault(method),
            code => {
                if let Some(mend) = credentials_mend(code, by) {
                    CrmError::Unauthorized(self.with_code(mend))
                } else if let Some(mend) = rights_mend(code, method, by) {
                    self.into_forbidden(method, mend)
                } else {
                    self.into_error_by_status(method, by, rest)
                }
            }
        }
    }

    fn into_error_by_status(self, method: &str, by: By, rest: Duration) -> CrmError {
        if self.text.eq_ignore_ascii_case("access denied.") {
            return self.into_forbidden(method, owner_rights(by));
        }
        match self.status {
            401 => CrmError::Unauthorized(self.with_code(anew(by))),
            403 => self.into_forbidden(method, owner_rights(by)),
            429 => CrmError::RateLimited(rest),
            500.. => self.into_fault(method),
            _ => CrmError::Refused {
                method: method.to_owned(),
                code: self.shown_code(),
                text: self.text,
            },
        }
    }

    fn into_forbidden(self, method: &str, mend: impl AsRef<str>) -> CrmError {
        CrmError::Forbidden {
            method: method.to_owned(),
            text: self.with_code(mend.as_ref()),
        }
    }

    fn into_fault(self, method: &str) -> CrmError {
        CrmError::Unreachable {
            method: method.to_owned(),
            cause: Box::new(PortalFault {
                status: self.status,
                code: self.shown_code(),
                text: self.text,
            }),
        }
    }

    fn with_code(&self, mend: &str) -> String {
        format!("{mend} ({})", self.shown_code())
    }

    fn shown_code(&self) -> String {
        if self.code.is_empty() {
            return self.status.to_string();
        }
        self.code
            .chars()
            .take(TEXT_LIMIT)
            .collect::<String>()
            .to_uppercase()
    }
}

/// How to come by new credentials.
fn anew(by: By) -> &'static str {
    match by {
        By::Webhook => "make an incoming webhook in the portal and put its address into `crm.url`",
        By::Application => {
            "let an administrator of the portal install the application of `crm.client_id` again"
        }
    }
}

fn owner_rights(by: By) -> &'static str {
    match by {
        By::Webhook => {
            "the owner of the webhook behind `crm.url` may not do this; give the webhook to \
             somebody with rights to read all cards"
        }
        By::Application => {
            "who installed the application of `crm.client_id` may not do this; an administrator of \
             the portal has to install it"
        }
    }
}

/// What to do about refused credentials; `None` if the code means something else.
fn credentials_mend(code: &str, by: By) -> Option<&'static str> {
    let mend = match (code, by) {
        (
            "no_auth_found" | "invalid_token" | "authorization_error" | "error_oauth",
            By::Webhook,
        ) => "the portal does not know this webhook; make a new one and put it into `crm.url`",
        ("expired_token", By::Webhook) => {
            "the webhook has expired; make one without an end and put it into `crm.url`"
        }
        ("expired_token", By::Application) => {
            "a newly renewed token is refused too; is `crm.url` the portal that the application \
             of `crm.client_id` is installed in?"
        }
        (
            "no_auth_found"
            | "invalid_token"
            | "authorization_error"
            | "error_oauth"
            | "application_not_found"
            | "not_installed",
            _,
        ) => anew(by),
        ("payment_required", _) => "the portal's plan has run out; pay for it, or see `crm.url`",
        ("method_confirm_waiting", By::Webhook) => {
            "an administrator of the portal has to confirm the access of `crm.url`"
        }
        ("method_confirm_waiting", By::Application) => {
            "an administrator of the portal has to confirm the access of `crm.client_id`"
        }
        _ => return None,
    };
    Some(mend)
}

/// What to do about a missing right; `None` if the code means something else.
fn rights_mend(code: &str, method: &str, by: By) -> Option<String> {
    let (noun, key) = (by.noun(), by.key());
    match code {
        "insufficient_scope" | "invalid_scope" => Some(match scope_of(method) {
            Some(scope) => format!("tick the right `{scope}` in the {noun} behind `{key}`"),
            None => format!("the {noun} behind `{key}` lacks a right for this"),
        }),
        "access_denied" | "access denied" => Some(format!(
            "{}, and see that the portal's plan has REST",
            owner_rights(by)
        )),
        "invalid_credentials"
        | "user_access_error"
        | "access_error"
        | "allowed_only_intranet_user" => Some(owner_rights(by).to_owned()),
        "wrong_auth_type" | "method_confirm_denied" => Some(match by {
            By::Webhook => "an incoming webhook, as in `crm.url`, may not do this".to_owned(),
            By::Application => owner_rights(by).to_owned(),
        }),
        _ => None,
    }
}

/// The scope that a method needs, as the webhook's form calls it.
fn scope_of(method: &str) -> Option<&'static str> {
    match method.split('.').next()? {
        "crm" => Some("crm"),
        "user" => Some("user_basic"),
        "department" => Some("department"),
        "calendar" => Some("calendar"),
        "timeman" => Some("timeman"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn label(status: u16, code: &str, text: &str) -> (&'static str, String) {
        let body = json!({"error": code, "error_description": text});
        let error = Refusal::read(status, &body).unwrap().into_error(
            "crm.lead.list",
            By::Webhook,
            Duration::from_mins(1),
        );
        (error.label(), error.to_string())
    }

    #[test]
    fn every_code_is_known() {
        let table = [
            (503, "QUERY_LIMIT_EXCEEDED", "rate_limited"),
            (429, "OPERATION_TIME_LIMIT", "rate_limited"),
            (503, "OVERLOAD_LIMIT", "blocked"),
            (401, "expired_token", "unauthorized"),
            (401, "EXPIRED_TOKEN", "unauthorized"),
            (401, "NO_AUTH_FOUND", "unauthorized"),
            (401, "INVALID_TOKEN", "unauthorized"),
            (401, "AUTHORIZATION_ERROR", "unauthorized"),
            (401, "ERROR_OAUTH", "unauthorized"),
            (401, "APPLICATION_NOT_FOUND", "unauthorized"),
            (401, "NOT_INSTALLED", "unauthorized"),
            (401, "PAYMENT_REQUIRED", "unauthorized"),
            (401, "METHOD_CONFIRM_WAITING", "unauthorized"),
            (403, "insufficient_scope", "forbidden"),
            (403, "INVALID_CREDENTIALS", "forbidden"),
            (403, "user_access_error", "forbidden"),
            (403, "ACCESS_DENIED", "forbidden"),
            (403, "Access denied", "forbidden"),
            (403, "WRONG_AUTH_TYPE", "forbidden"),
            (403, "METHOD_CONFIRM_DENIED", "forbidden"),
            (403, "ALLOWED_ONLY_INTRANET_USER", "forbidden"),
            (403, "ACCESS_ERROR", "forbidden"),
            (400, "INVALID_REQUEST", "refused"),
            (400, "ERROR_BATCH_LENGTH_EXCEEDED", "refused"),
            (400, "INVALID_ARG_VALUE", "refused"),
            (400, "ERROR_CORE", "refused"),
            (400, "", "refused"),
            (404, "NOT_FOUND", "refused"),
            (404, "ERROR_METHOD_NOT_FOUND", "refused"),
            (404, "ERROR_MANIFEST_IS_NOT_AVAILABLE", "refused"),
            (405, "ERROR_BATCH_METHOD_NOT_ALLOWED", "refused"),
            (500, "INTERNAL_SERVER_ERROR", "unreachable"),
            (500, "ERROR_UNEXPECTED_ANSWER", "unreachable"),
            (500, "PORTAL_DELETED", "blocked"),
            (410, "PORTAL_DELETED", "blocked"),
            (401, "SOMETHING_NEW", "unauthorized"),
            (403, "SOMETHING_NEW", "forbidden"),
            (502, "SOMETHING_NEW", "unreachable"),
        ];
        for (status, code, expected) in table {
            assert_eq!(label(status, code, "text").0, expected, "{status} {code}");
            // Inside a batch the status is always 200; a known code must not need it.
            if code != "SOMETHING_NEW" {
                assert_eq!(label(200, code, "text").0, expected, "200 {code}");
            }
        }
    }

    #[test]
    fn an_error_that_can_be_mended_names_the_key() {
        for code in [
            "NO_AUTH_FOUND",
            "expired_token",
            "insufficient_scope",
            "ACCESS_DENIED",
        ] {
            assert!(label(401, code, "").1.contains("`crm.url`"), "{code}");
        }
        assert!(label(403, "insufficient_scope", "").1.contains("`crm`"));
    }

    #[test]
    fn an_applications_errors_do_not_speak_of_a_webhook() {
        for code in [
            "NO_AUTH_FOUND",
            "expired_token",
            "APPLICATION_NOT_FOUND",
            "METHOD_CONFIRM_WAITING",
            "insufficient_scope",
            "ACCESS_DENIED",
            "WRONG_AUTH_TYPE",
            "SOMETHING_NEW",
        ] {
            let body = json!({"error": code});
            let refusal = Refusal::read(403, &body).unwrap();
            let told = refusal.into_error("crm.lead.list", By::Application, Duration::ZERO);
            let told = told.to_string();
            assert!(
                told.contains("`crm.client_id`") && !told.contains("webhook"),
                "{told}"
            );
        }
    }

    #[test]
    fn an_empty_code_still_tells_a_missing_right() {
        assert_eq!(label(400, "", "Access denied.").0, "forbidden");
        assert_eq!(Refusal::read(200, &json!({"result": []})), None);
        assert_eq!(
            Refusal::read(200, &json!({"result": [], "error": null})),
            None
        );
    }
}
