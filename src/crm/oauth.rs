//! OAuth's pair of tokens: who renews it, when, and what becomes of it when something breaks.
//!
//! A refresh token may die the moment it is used, so whoever loses the answer may have lost the
//! account until a person authorises again. Hence: one refresher at a time, in this process and
//! among all; the new pair is on the disk before its first use; a mark there tells the next start
//! that an answer is missing; and a caller who hangs up does not cut a renewal short. What differs
//! from CRM to CRM is behind [`TokenServer`]; where the pair survives, in [`store`].

pub(super) mod store;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::Mutex;

use self::store::{Pair, Store, Stored};
use super::CrmError;

/// Where a CRM's tokens are exchanged, and how that is said.
#[async_trait]
pub(super) trait TokenServer: Send + Sync + 'static {
    /// The exchange's name in errors.
    const METHOD: &'static str;
    /// An access token is renewed this long before its end.
    const AHEAD: Duration;

    /// Waits until an exchange may be sent; an error means that nothing was sent.
    async fn admit(&self) -> Result<(), CrmError>;

    /// Sends one exchange, once, whatever comes back: a second try could only find the token spent.
    /// `notes` are those that were stored with the pair.
    async fn exchange(&self, grant: &Grant, notes: &Value) -> Result<Exchanged, CrmError>;

    /// The CRM's clock; `None` before its first answer.
    fn now(&self) -> Option<Timestamp>;

    /// Tells the operator how to authorise again, and why.
    fn authorise_again(&self, why: &str) -> String;
}

/// What a token server answered.
pub(super) enum Exchanged {
    /// A new pair.
    Renewed {
        /// The pair.
        pair: Pair,
        /// The connector's own notes on it; `None` leaves those that are stored.
        notes: Option<Value>,
    },
    /// The secret is refused for good; the server's words.
    Refused(String),
}

/// A secret that may work only once.
#[derive(Clone)]
pub(super) enum Grant {
    /// From the browser's consent.
    Code(SecretString),
    /// From an earlier exchange.
    Refresh(SecretString),
}

impl Grant {
    /// The code or token itself.
    pub(super) fn secret(&self) -> &SecretString {
        match self {
            Self::Code(secret) | Self::Refresh(secret) => secret,
        }
    }

    /// The `grant_type` of the exchange, and the key of its secret.
    pub(super) fn form(&self) -> (&'static str, &'static str) {
        match self {
            Self::Code(_) => ("authorization_code", "code"),
            Self::Refresh(_) => ("refresh_token", "refresh_token"),
        }
    }
}

/// The keeper of one application's pair.
pub(super) struct Keeper<S> {
    server: S,
    client_id: String,
    /// What the configuration gives to begin with; may be gone once a pair is stored.
    first: Option<Grant>,
    store: Store,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    pair: Option<Pair>,
    /// What the stored pair descends from; kept when the configuration no longer holds it.
    origin: Option<SecretString>,
    /// The connector's own notes on the stored pair.
    notes: Value,
    /// The access token that the CRM has refused last: not asked with again.
    refused: Option<SecretString>,
    /// A pair that the disk would not take: not used before it does.
    unsaved: Option<Stored>,
    /// The secret that was refused for good, and the words for it.
    dead: Option<(SecretString, String)>,
}

impl<S: TokenServer> Keeper<S> {
    /// A keeper that asks nothing yet.
    pub(super) fn new(server: S, client_id: String, first: Option<Grant>, store: Store) -> Self {
        Self {
            server,
            client_id,
            first,
            store,
            memory: Mutex::default(),
        }
    }

    /// The server that the pair comes from.
    pub(super) fn server(&self) -> &S {
        &self.server
    }

    /// What is stored and belongs to this configuration; read from the disk each time.
    pub(super) fn stored(&self) -> Result<Option<Stored>, CrmError> {
        Ok(self.store.load()?.filter(|stored| self.descends(stored)))
    }

    /// Says whether the configuration holds a code or token to begin with.
    pub(super) fn has_first(&self) -> bool {
        self.first.is_some()
    }

    /// An access token that is not the refused one and does not end at once.
    pub(super) async fn token(
        self: &Arc<Self>,
        refused: Option<SecretString>,
    ) -> Result<SecretString, CrmError> {
        {
            let mut memory = self.memory.lock().await;
            memory.refused = refused.or(memory.refused.take());
            if let Some(pair) = &memory.pair
                && self.is_usable(pair, &memory)
            {
                return Ok(pair.access.clone());
            }
        }
        // A task of its own: a live lookup that gives up must not take the answer with it.
        let this = Arc::clone(self);
        let renewal = tokio::spawn(async move { this.renew().await });
        // It ends without an answer when the program stops.
        renewal.await.map_err(|error| CrmError::Unreachable {
            method: S::METHOD.to_owned(),
            cause: error.into(),
        })?
    }

    /// The newest access token, at once: `known`, unless it has been renewed since it was given out.
    ///
    /// For a request whose turn has come. Were it to wait for a renewal here, it would leave together
    /// with all others that wait, and no budget would hold them apart.
    pub(super) fn newest(&self, known: SecretString) -> SecretString {
        let memory = self.memory.try_lock().ok();
        let pair = memory.as_ref().and_then(|memory| memory.pair.as_ref());
        pair.map_or(known, |pair| pair.access.clone())
    }

    /// Puts a pair that the CRM has brought itself in place of whatever was stored.
    pub(super) async fn adopt(&self, pair: Pair, notes: Value) -> Result<(), CrmError> {
        let mut memory = self.memory.lock().await;
        let _alone = self.store.lock().await?;
        memory.origin = self.origin().cloned();
        memory.notes = notes;
        memory.unsaved = None;
        let brought = self.record(&memory, Some(pair), false);
        self.keep(&mut memory, brought).map(drop)
    }

    async fn renew(&self) -> Result<SecretString, CrmError> {
        let mut memory = self.memory.lock().await;
        if let Some(pair) = &memory.pair
            && self.is_usable(pair, &memory)
        {
            return Ok(pair.access.clone());
        }
        let _alone = self.store.lock().await?;
        if let Some(unsaved) = memory.unsaved.take() {
            return self.keep(&mut memory, unsaved);
        }
        let stored = self.stored()?;
        memory.origin = stored.as_ref().and_then(|stored| stored.origin.clone());
        memory.notes = stored
            .as_ref()
            .map(|stored| stored.notes.clone())
            .unwrap_or_default();
        let pair = stored.as_ref().and_then(|stored| stored.pair.clone());
        if let Some(pair) = &pair
            && self.is_usable(pair, &memory)
        {
            memory.pair = Some(pair.clone());
            return Ok(pair.access.clone());
        }
        let earlier_lost = stored.as_ref().is_some_and(|stored| stored.pending);
        let outcome = self.exchange(&mut memory, pair.clone(), earlier_lost).await;
        match (outcome, pair) {
            // Renewal ahead of time has failed, but the old token still works for a while.
            (Err(CrmError::Unreachable { .. } | CrmError::RateLimited(_)), Some(pair))
                if self.is_alive(&pair, &memory) =>
            {
                Ok(pair.access)
            }
            (outcome, _) => outcome,
        }
    }

    async fn exchange(
        &self,
        memory: &mut Memory,
        pair: Option<Pair>,
        earlier_lost: bool,
    ) -> Result<SecretString, CrmError> {
        let renewing = pair
            .as_ref()
            .map(|pair| Grant::Refresh(pair.refresh.clone()));
        let Some(grant) = renewing.or_else(|| self.first.clone()) else {
            return Err(self.unauthorised("no token is stored"));
        };
        if let Some((dead, words)) = &memory.dead
            && is_same(dead, grant.secret())
        {
            return Err(CrmError::Unauthorized(words.clone()));
        }
        self.server.admit().await?;
        // Before the request: a crash behind it must not look like a token that was never used.
        // A full disk shows here too, while the old token is still good.
        self.store.save(&self.record(memory, pair.clone(), true))?;
        match self.server.exchange(&grant, &memory.notes).await {
            Ok(Exchanged::Renewed { pair, notes }) => {
                if let Some(notes) = notes {
                    memory.notes = notes;
                }
                let renewed = self.record(memory, Some(pair), false);
                self.keep(memory, renewed)
            }
            Ok(Exchanged::Refused(words)) => {
                let why = if earlier_lost {
                    "the answer to an earlier renewal was lost, and with it the token"
                } else {
                    &words
                };
                let words = self.server.authorise_again(why);
                memory.dead = Some((grant.secret().clone(), words.clone()));
                Err(CrmError::Unauthorized(words))
            }
            Err(fault) => {
                if was_not_processed(&fault) {
                    self.store.save(&self.record(memory, pair, earlier_lost))?;
                }
                Err(fault)
            }
        }
    }

    /// Puts a new pair onto the disk, and only then into use.
    fn keep(&self, memory: &mut Memory, stored: Stored) -> Result<SecretString, CrmError> {
        if let Err(fault) = self.store.save(&stored) {
            memory.unsaved = Some(stored);
            return Err(fault);
        }
        memory.dead = None;
        memory.refused = None;
        memory.pair = stored.pair;
        let kept = memory.pair.as_ref().map(|pair| pair.access.clone());
        kept.ok_or_else(|| self.unauthorised("no token is stored"))
    }

    fn record(&self, memory: &Memory, pair: Option<Pair>, pending: bool) -> Stored {
        Stored {
            client_id: self.client_id.clone(),
            origin: self.origin().or(memory.origin.as_ref()).cloned(),
            pair,
            pending,
            notes: memory.notes.clone(),
        }
    }

    fn unauthorised(&self, why: &str) -> CrmError {
        CrmError::Unauthorized(self.server.authorise_again(why))
    }

    fn origin(&self) -> Option<&SecretString> {
        self.first.as_ref().map(Grant::secret)
    }

    /// Says whether a stored pair goes back to what the configuration holds. Somebody who writes a
    /// new code or token there has authorised again, and means that one.
    fn descends(&self, stored: &Stored) -> bool {
        let same_origin = match (self.origin(), &stored.origin) {
            (Some(configured), Some(stored)) => is_same(configured, stored),
            (Some(_), None) => false,
            (None, _) => true,
        };
        same_origin && stored.client_id == self.client_id
    }

    fn is_usable(&self, pair: &Pair, memory: &Memory) -> bool {
        self.lives_for(pair, memory, S::AHEAD)
    }

    fn is_alive(&self, pair: &Pair, memory: &Memory) -> bool {
        self.lives_for(pair, memory, Duration::ZERO)
    }

    /// By the CRM's clock; before its first answer a token is simply tried.
    fn lives_for(&self, pair: &Pair, memory: &Memory, span: Duration) -> bool {
        let refused = memory.refused.as_ref();
        let is_refused = refused.is_some_and(|token| is_same(token, &pair.access));
        let left = pair
            .ends
            .zip(self.server.now())
            .map(|(ends, now)| ends.saturating_sub(now.as_second()));
        !is_refused && left.is_none_or(|seconds| seconds > span.as_secs().cast_signed())
    }
}

fn is_same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// Says whether the server certainly did not get to spend the token.
fn was_not_processed(fault: &CrmError) -> bool {
    match fault {
        CrmError::RateLimited(_) | CrmError::Blocked(_) => true,
        CrmError::Unreachable { cause, .. } => cause
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_connect),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_that_never_arrived_leaves_the_token_whole() {
        assert!(was_not_processed(&CrmError::RateLimited(
            Duration::from_secs(1)
        )));
        assert!(!was_not_processed(&CrmError::Unreachable {
            method: "POST /token".to_owned(),
            cause: "connection closed".into(),
        }));
    }
}
