//! With which right a request comes: a webhook's address, or an application's token.
//!
//! The webhook's address holds its secret code, so it never leaves this folder: no error, log line
//! or `Debug` output carries it, and none carries a token.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::application::Application;
use crate::crm::CrmError;

/// How a portal is reached.
#[derive(Clone)]
pub(super) enum Access {
    /// Through an incoming webhook.
    Webhook(Base),
    /// As an application that was installed in the portal.
    Application(Arc<Application>),
}

/// The webhook's address, with a trailing slash, and the secret code in it.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) address: SecretString,
    pub(super) code: SecretString,
}

/// Which of the two it is, for the words to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Webhook,
    Application,
}

impl By {
    /// What the portal calls it.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Application => "application",
        }
    }

    /// The key of the configuration that leads to it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Webhook => "crm.url",
            Self::Application => "crm.client_id",
        }
    }
}

impl Access {
    pub(super) fn by(&self) -> By {
        match self {
            Self::Webhook(_) => By::Webhook,
            Self::Application(_) => By::Application,
        }
    }

    /// The token for the next request; `None` where the address itself is the proof. `refused` is
    /// one that the portal has called expired.
    pub(super) async fn token(
        &self,
        refused: Option<SecretString>,
    ) -> Result<Option<SecretString>, CrmError> {
        match self {
            Self::Webhook(_) => Ok(None),
            Self::Application(application) => application.token(refused).await.map(Some),
        }
    }

    /// The token that is to be sent in place of this one, if it has been renewed since.
    pub(super) fn newest(&self, token: Option<SecretString>) -> Option<SecretString> {
        match self {
            Self::Webhook(_) => None,
            Self::Application(application) => token.map(|token| application.newest(token)),
        }
    }

    /// Where this method is asked.
    pub(super) fn address(&self, method: &str) -> String {
        match self {
            Self::Webhook(base) => format!("{}{method}", base.address.expose_secret()),
            Self::Application(application) => format!("{}{method}", application.rest()),
        }
    }

    /// What must not be repeated in an error.
    pub(super) fn secret<'a>(&'a self, token: Option<&'a SecretString>) -> &'a str {
        match self {
            Self::Webhook(base) => base.code.expose_secret(),
            Self::Application(_) => token.map_or("", ExposeSecret::expose_secret),
        }
    }

    /// Takes note of the portal's clock, by which tokens end.
    pub(super) fn note_time(&self, time: &Value) {
        if let Self::Application(application) = self {
            application.note_time(time);
        }
    }
}
