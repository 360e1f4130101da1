//! Asks the CRMs for a number that the directory lacks, while the caller waits.
//!
//! One request for all calls that wait for the same number; a deadline for each; a breaker that
//! leaves a failing CRM alone; "nobody" is remembered for a short time. An answer that comes too late
//! for its caller still enters the directory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join_all};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::{Source, read_phones};
use crate::crm::CrmError;
use crate::directory::{Change, Directory, Keep, Refresh, Refreshed};
use crate::fault::lock;
use crate::phone::E164;
use crate::record::{Card, CrmName, Entity};

/// The longest that one question may take, whoever still waits for it.
const LONGEST_QUESTION: Duration = Duration::from_secs(10);
/// How long "nobody" is remembered.
const MISS_REMEMBERED: Duration = Duration::from_mins(1);
/// How many numbers of a CRM are remembered as nobody's.
const MISSES_REMEMBERED: u64 = 100_000;
/// Failures in a row that open the breaker.
const FAILURES: u32 = 3;
/// How long an open breaker leaves the CRM alone before one question tries it again.
const BREAK: Duration = Duration::from_secs(30);

type Question = Shared<BoxFuture<'static, Refreshed>>;
/// Questions under way: number, and whether the answer will be kept.
type Questions = Mutex<HashMap<(E164, bool), Question>>;

/// Asks the CRMs live.
pub struct Live {
    asked: HashMap<CrmName, Arc<Asked>>,
    directory: Arc<dyn Directory>,
    runtime: Handle,
}

struct Asked {
    source: Source,
    breaker: Mutex<Breaker>,
    questions: Questions,
    misses: moka::sync::Cache<E164, ()>,
}

impl Live {
    /// Puts it together; questions run on `runtime`, not on the thread that answers calls.
    pub fn new(sources: Vec<Source>, directory: Arc<dyn Directory>, runtime: Handle) -> Self {
        Self::succeeding(None, sources, directory, runtime)
    }

    /// The same in place of a former one: of a CRM that is asked through the same connector, what is
    /// known of it and asked already goes on.
    pub fn succeeding(
        former: Option<&Self>,
        sources: Vec<Source>,
        directory: Arc<dyn Directory>,
        runtime: Handle,
    ) -> Self {
        let asked = sources.into_iter().map(|source| {
            let known = former.and_then(|former| former.asked.get(&source.name));
            let same = known.filter(|known| {
                Arc::ptr_eq(&known.source.crm, &source.crm) && known.source.region == source.region
            });
            let name = source.name.clone();
            (name, same.cloned().unwrap_or_else(|| Asked::new(source)))
        });
        Self {
            asked: asked.collect(),
            directory,
            runtime,
        }
    }

    /// Each CRM, and whether its breaker is open.
    pub fn breakers(&self) -> impl Iterator<Item = (&CrmName, bool)> {
        let asked = self.asked.iter();
        asked.map(|(crm, asked)| (crm, lock(&asked.breaker).open_until.is_some()))
    }

    async fn ask(
        &self,
        crm: CrmName,
        phone: E164,
        deadline: Duration,
        keep: Keep,
    ) -> (CrmName, Refreshed) {
        let refreshed = match self.asked.get(&crm) {
            None => Refreshed::NotAskable,
            Some(asked) if !asked.source.crm.is_askable() => Refreshed::NotAskable,
            Some(asked) if asked.misses.contains_key(&phone) => Refreshed::RememberedNothing,
            Some(asked) => match self.question(asked, phone, keep) {
                None => Refreshed::BreakerOpen,
                Some(question) => tokio::time::timeout(deadline, question)
                    .await
                    .unwrap_or(Refreshed::TooLate),
            },
        };
        crate::metrics::count_live_lookup(&crm, label(&refreshed));
        (crm, refreshed)
    }

    /// The question that runs already for this number, or a new one; `None` while the breaker is
    /// open.
    fn question(&self, asked: &Arc<Asked>, phone: E164, keep: Keep) -> Option<Question> {
        let key = (phone, keep == Keep::Yes);
        let mut questions = lock(&asked.questions);
        if let Some(running) = questions.get(&key) {
            return Some(running.clone());
        }
        if !lock(&asked.breaker).lets_through() {
            return None;
        }
        let asked = Arc::clone(asked);
        let directory = Arc::clone(&self.directory);
        let task = self.runtime.spawn(async move {
            let refreshed = asked.find(phone, keep, &*directory).await;
            if keep == Keep::Yes && refreshed == Refreshed::Nothing {
                asked.misses.insert(phone, ());
            }
            lock(&asked.questions).remove(&key);
            refreshed
        });
        let question = task
            .map(|ended| {
                ended.unwrap_or_else(|_| Refreshed::Failed("the question was cut off".to_owned()))
            })
            .boxed()
            .shared();
        questions.insert(key, question.clone());
        Some(question)
    }
}

#[async_trait]
impl Refresh for Live {
    async fn refresh(
        &self,
        phone: E164,
        crms: &[CrmName],
        deadline: Duration,
        keep: Keep,
    ) -> Vec<(CrmName, Refreshed)> {
        join_all(
            crms.iter()
                .map(|crm| self.ask(crm.clone(), phone, deadline, keep)),
        )
        .await
    }
}

impl Asked {
    fn new(source: Source) -> Arc<Self> {
        let misses = moka::sync::Cache::builder()
            .max_capacity(MISSES_REMEMBERED)
            .time_to_live(MISS_REMEMBERED)
            .build();
        Arc::new(Self {
            source,
            breaker: Mutex::default(),
            questions: Mutex::default(),
            misses,
        })
    }

    async fn find(&self, phone: E164, keep: Keep, directory: &dyn Directory) -> Refreshed {
        let found = tokio::time::timeout(LONGEST_QUESTION, self.source.crm.find(phone)).await;
        let cards = match found {
            Err(_) => return self.failed("no answer", None),
            Ok(Err(CrmError::OutOfBudget(_))) => {
                lock(&self.breaker).undecided();
                return Refreshed::OutOfBudget;
            }
            Ok(Err(error)) => {
                let pause = match &error {
                    CrmError::RateLimited(wait) => Some(*wait),
                    CrmError::Unauthorized(_) | CrmError::Blocked(_) => Some(BREAK * 4),
                    _ => None,
                };
                crate::metrics::count_crm_error(&self.source.name, error.label());
                return self.failed(&error.to_string(), pause);
            }
            Ok(Ok(cards)) => cards,
        };
        lock(&self.breaker).succeeded();
        let (read, _) = read_phones(cards, self.source.region);
        let believed = read
            .into_iter()
            .filter_map(|(card, phones)| phones.contains(&phone).then_some(card));
        let believed: Vec<Card> = believed.collect();
        if believed.is_empty() {
            return Refreshed::Nothing;
        }
        let entities = believed.iter().map(|card| self.entity(card)).collect();
        match keep {
            Keep::No => Refreshed::Found(entities),
            Keep::Yes => Refreshed::Found(self.store(phone, believed, entities, directory).await),
        }
    }

    fn failed(&self, text: &str, pause: Option<Duration>) -> Refreshed {
        let opened = lock(&self.breaker).failed(pause);
        if opened {
            tracing::warn!(crm = %self.source.name, error = text, "live lookups are suspended for a while");
        }
        Refreshed::Failed(text.to_owned())
    }

    /// Stores what was found; gives it back as the directory has it, company names and all.
    async fn store(
        &self,
        phone: E164,
        cards: Vec<Card>,
        entities: Vec<Entity>,
        directory: &dyn Directory,
    ) -> Vec<Entity> {
        let crm = &self.source.name;
        let mut by_kind: HashMap<_, Vec<_>> = HashMap::new();
        for card in cards {
            by_kind.entry(card.kind).or_default().push(card);
        }
        for (kind, cards) in by_kind {
            let (cards, unread) = read_phones(cards, self.source.region);
            let stored = async {
                let walk = directory.sync_state(crm, kind).await?.walk;
                directory
                    .apply(Change {
                        crm: crm.clone(),
                        kind,
                        cards,
                        unread,
                        walk,
                        // The CRM's clock is not known here; whatever is newer stays.
                        keep_newer: Some(Timestamp::MIN),
                        state: None,
                    })
                    .await
            };
            if let Err(error) = stored.await {
                tracing::error!(%crm, %kind, error = %error, "what a live lookup found could not be stored");
                return entities;
            }
        }
        let stored = directory.lookup(phone, true).await.unwrap_or_default();
        let own: Vec<Entity> = stored
            .into_iter()
            .filter(|entity| entity.crm == *crm)
            .collect();
        if own.is_empty() { entities } else { own }
    }

    fn entity(&self, card: &Card) -> Entity {
        Entity {
            crm: self.source.name.clone(),
            kind: card.kind,
            id: card.id.clone(),
            name: card.name.clone(),
            company: card.company.clone(),
            responsible: card.responsible.clone(),
            modified: card.modified,
            stage: card.stage,
            fields: card.fields.clone(),
        }
    }
}

/// Leaves a CRM alone that has failed several times in a row.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Once the break is over one question at a time is let through: each pushes the end of the
    /// break on, a success ends it.
    fn lets_through(&mut self) -> bool {
        match self.open_until {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                self.open_until = Some(Instant::now() + LONGEST_QUESTION);
                true
            }
        }
    }

    fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The probe did not reach the CRM: the next question may try at once.
    fn undecided(&mut self) {
        if let Some(until) = &mut self.open_until {
            *until = Instant::now();
        }
    }

    /// Says whether this failure opened the breaker.
    fn failed(&mut self, pause: Option<Duration>) -> bool {
        let was_closed = self.open_until.is_none();
        self.failures = self.failures.saturating_add(1);
        if pause.is_some() || self.failures >= FAILURES {
            self.open_until = Some(Instant::now() + pause.unwrap_or(BREAK));
        }
        was_closed && self.open_until.is_some()
    }
}

fn label(refreshed: &Refreshed) -> &'static str {
    match refreshed {
        Refreshed::Found(_) => "found",
        Refreshed::Nothing => "nothing",
        Refreshed::RememberedNothing => "remembered_nothing",
        Refreshed::TooLate => "too_late",
        Refreshed::BreakerOpen => "breaker_open",
        Refreshed::OutOfBudget => "out_of_budget",
        Refreshed::NotAskable => "not_askable",
        Refreshed::Failed(_) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_breaker_opens_after_three_failures_and_lets_one_probe_through() {
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(None) && !breaker.failed(None) && breaker.lets_through());
        assert!(breaker.failed(None));
        assert!(!breaker.lets_through());
        tokio::time::advance(BREAK).await;
        assert!(breaker.lets_through());
        assert!(!breaker.lets_through());
        breaker.succeeded();
        assert!(breaker.lets_through() && breaker.lets_through());
    }

    #[tokio::test(start_paused = true)]
    async fn the_crms_own_pause_opens_the_breaker_at_once() {
        let mut breaker = Breaker::default();
        assert!(breaker.failed(Some(Duration::from_mins(5))));
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(!breaker.lets_through());
    }
}
