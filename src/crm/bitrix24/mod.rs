//! Bitrix24, read through an incoming webhook, or as an application of the portal.
//!
//! Facts come from the vendor's REST documentation (`bitrix24/b24restdocs`) and from the public
//! SDKs. The classic lists are used, although the vendor develops them no further: only they give
//! all phones of a card cheaply, and each kind has a limit of working time of its own.

mod access;
mod application;
mod availability;
mod changes;
mod check;
mod client;
mod employees;
mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hook;
mod lookup;
mod operating;
mod query;
mod refusal;
mod settings;
mod walk;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use secrecy::SecretString;

use self::application::Application;
use self::check::Checked;
use self::client::Client;
use self::employees::People;
use self::events::Queue;
use self::hook::Form;
use self::walk::{Ceiling, Listing};
use super::{
    Crm, CrmError, Cursor, Finding, Hook, HookError, Kind, News, Page, Receipt, Since, in_path,
};
use crate::phone::E164;
use crate::record::{Card, CrmName, EmployeeId, EntityId, EntityKind, Notice, Staff};

/// The kind `bitrix24`.
pub const KIND: Kind = Kind {
    name: "bitrix24",
    example: settings::EXAMPLE,
    open: settings::open,
};

/// A portal.
struct Bitrix24 {
    name: CrmName,
    kinds: Vec<EntityKind>,
    fields: Vec<String>,
    /// The portal's host, as `crm.url` names it.
    host: String,
    /// Scheme, host and port of `crm.url`: where the portal's own interface is.
    site: String,
    /// The way to cards and employees.
    client: Arc<Client>,
    ceiling: Ceiling,
    people: People,
    application: Option<Arc<Application>>,
    /// The events that the portal keeps for the application.
    queue: Option<Queue>,
    /// What proves a notice, as configured.
    application_token: Option<SecretString>,
    /// What is wrong with an address without encryption.
    unencrypted: Option<Finding>,
}

#[async_trait]
impl Crm for Bitrix24 {
    fn kinds(&self) -> &[EntityKind] {
        &self.kinds
    }

    async fn employees(&self) -> Result<Staff, CrmError> {
        self.people.read(&self.client, &self.name).await
    }

    fn walk(
        &self,
        kind: EntityKind,
        from: Option<Cursor>,
    ) -> BoxStream<'_, Result<Page, CrmError>> {
        self.listing(kind).walk(from)
    }

    fn changes(&self, kind: EntityKind, since: Since) -> BoxStream<'_, Result<Page, CrmError>> {
        changes::changes(move || self.listing(kind), since)
    }

    async fn read(&self, kind: EntityKind, ids: &[EntityId]) -> Result<Page, CrmError> {
        self.listing(kind).read(ids).await
    }

    async fn receive(&self, hook: Hook<'_>) -> Result<Vec<Notice>, HookError> {
        let form = Form::read(hook.body).map_err(HookError::Unreadable)?;
        if form.is_installation() {
            self.install(&form).await?;
            return Ok(Vec::new());
        }
        let installed = self.application.as_ref();
        let installed = installed.and_then(|application| application.application_token());
        let known: Vec<SecretString> = self
            .application_token
            .iter()
            .cloned()
            .chain(installed)
            .collect();
        // Without any, the secret in the address is the proof.
        if !known.is_empty() && !form.proves(&known) {
            return Err(wrong_token());
        }
        let notice = form.notice(&self.kinds).map_err(HookError::Unreadable)?;
        Ok(notice.into_iter().collect())
    }

    fn has_news(&self) -> bool {
        self.queue.is_some()
    }

    async fn news(&self, from: Option<Cursor>) -> Result<News, CrmError> {
        match &self.queue {
            Some(queue) => queue.news(from.as_ref()).await,
            None => Ok(News::default()),
        }
    }

    async fn confirm(&self, receipt: &Receipt) -> Result<(), CrmError> {
        match &self.queue {
            Some(queue) => queue.confirm(receipt).await,
            None => Ok(()),
        }
    }

    async fn find(&self, phone: E164) -> Result<Vec<Card>, CrmError> {
        lookup::find(&self.client, &self.kinds, &self.fields, phone).await
    }

    fn card_address(&self, kind: EntityKind, id: &EntityId) -> Option<String> {
        let id = in_path(id.as_str());
        Some(format!("{}/crm/{kind}/details/{id}/", self.site))
    }

    fn employee_address(&self, id: &EmployeeId) -> Option<String> {
        let id = in_path(id.as_str());
        Some(format!("{}/company/personal/user/{id}/", self.site))
    }

    async fn check(&self) -> Vec<Finding> {
        let checked = Checked {
            client: &self.client,
            name: &self.name,
            kinds: &self.kinds,
            wishes: &self.people.wishes,
            application: self.application.as_deref().zip(self.queue.as_ref()),
            proves_notices: self.application_token.is_some(),
        };
        checked.check(self.unencrypted.as_ref()).await
    }
}

impl Bitrix24 {
    fn listing(&self, kind: EntityKind) -> Listing<'_> {
        Listing::new(&self.client, &self.ceiling, kind, &self.fields)
    }

    /// Takes the authorisation that an installation brings. Its own word proves it: the secret in
    /// the address, the configured token if there is one, and that it speaks of our portal.
    async fn install(&self, form: &Form) -> Result<(), HookError> {
        let configured = self.application_token.as_slice();
        if !configured.is_empty() && !form.proves(configured) {
            return Err(wrong_token());
        }
        let host = form.host().ok_or_else(|| {
            HookError::Unreadable("the installation does not name its portal".to_owned())
        })?;
        if !host.eq_ignore_ascii_case(&self.host) {
            return Err(HookError::Stranger(format!(
                "the application was installed in {host}, and `crm.url` is {}",
                self.host
            )));
        }
        let Some(application) = &self.application else {
            tracing::warn!(
                crm = self.name.as_str(),
                "an application was installed, and `crm.client_id` is not set: it is not used"
            );
            return Ok(());
        };
        let installed = application.install(form.installation()).await;
        installed.map_err(HookError::NotKept)?;
        tracing::info!(crm = self.name.as_str(), "the application is installed");
        Ok(())
    }
}

fn wrong_token() -> HookError {
    HookError::Stranger(
        "its `auth[application_token]` is not the one that `crm.application_token` or the \
         application's installation told"
            .to_owned(),
    )
}
