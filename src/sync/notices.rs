//! Reads cards again because their CRM has said that something happened to them.
//!
//! A notice comes through a hook or from what the CRM keeps for us, and is on the disk before it is
//! confirmed. Here it is only a reason to read its card again, so a notice that comes twice, late or
//! in a wrong order changes nothing. A card is deleted only if the CRM has said so and reading it
//! again agrees; a while later it is looked for once more, since a page that was read before the
//! deletion may have brought it back.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::rest::Turn;
use super::status::{Part, Status};
use super::{Clock, FEW_CARDS, Settings, Source, SyncError, change, is_suspicious};
use crate::crm::{CrmError, Cursor, Hook, HookError, READ_AT_ONCE};
use crate::directory::{Directory, DirectoryError, QueueLength, Queued, Unseen, Waiting};
use crate::fault::{self, lock};
use crate::record::{EntityId, EntityKind, Event, Notice};

/// A whole folder of changes made at once comes as many notices: waiting for them a moment saves
/// requests, and half of the two seconds in which a change should arrive remain.
const GATHERING: Duration = Duration::from_millis(200);
/// Notices that wait at most for one CRM: beyond it walking over all cards is the shorter way.
const MOST_WAITING: u64 = 100_000;
/// Between two looks into the queue though nothing was queued.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// The notices of one CRM.
pub(super) struct Notices {
    source: Source,
    settings: Settings,
    directory: Arc<dyn Directory>,
    clock: Clock,
    /// Of the whole mirror.
    status: Arc<Mutex<Status>>,
    deletions: Mutex<BTreeMap<EntityKind, Deletions>>,
    /// Something was queued.
    queued: Notify,
    /// Something may wait at the CRM.
    rang: Notify,
}

/// How the queue of one kind stands after a look.
struct Looked {
    /// When to look again.
    wake: Instant,
    waiting: u64,
    error: Option<SyncError>,
}

/// Deletions of one kind that were believed since its last whole walk.
#[derive(Debug, Clone, Copy, Default)]
struct Deletions {
    since: Option<Timestamp>,
    count: u64,
    /// Too many: none is believed before the next walk.
    doubted: bool,
}

/// What became of a hook's notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// They are queued.
    Queued,
    /// Too many wait: all cards are walked over instead.
    WalkInstead,
}

/// Why a hook's notices were not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The connector did not take it.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The directory did not take it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl Notices {
    /// Puts it together; nothing runs yet.
    pub(super) fn new(
        source: Source,
        settings: Settings,
        directory: Arc<dyn Directory>,
        clock: Clock,
        status: Arc<Mutex<Status>>,
    ) -> Self {
        Self {
            source,
            settings,
            directory,
            clock,
            status,
            deletions: Mutex::default(),
            queued: Notify::new(),
            rang: Notify::new(),
        }
    }

    /// Says whether deletions of this kind are no longer believed.
    pub(super) fn doubts(&self, kind: EntityKind) -> bool {
        lock(&self.deletions)
            .get(&kind)
            .is_some_and(|told| told.doubted)
    }

    /// Takes what a CRM has sent to its hook. Returns once the notices are on the disk.
    pub(super) async fn receive(&self, hook: Hook<'_>) -> Result<Received, ReceiveError> {
        let notices = self.source.crm.receive(hook).await?;
        if notices.is_empty() {
            // A bell, or an authorisation that was waited for.
            self.rang.notify_one();
        }
        match self.queue(notices, None).await? {
            Queued::Yes => Ok(Received::Queued),
            Queued::Full => Ok(Received::WalkInstead),
        }
    }

    /// Looks into the queue at once, and at what the CRM keeps for us.
    pub(super) fn wake(&self) {
        self.queued.notify_one();
        self.rang.notify_one();
    }

    /// Works for ever; calls `walk` when only a walk over all cards can tell.
    pub(super) async fn run(&self, walk: &(dyn Fn() + Send + Sync)) {
        tokio::join!(self.fetch_on(), self.work_on(walk));
    }

    async fn queue(
        &self,
        mut notices: Vec<Notice>,
        cursor: Option<Cursor>,
    ) -> Result<Queued, DirectoryError> {
        notices.retain(|notice| self.source.crm.kinds().contains(&notice.kind));
        if notices.is_empty() && cursor.is_none() {
            return Ok(Queued::Yes);
        }
        let crm = &self.source.name;
        let cursor = cursor.as_ref().map(|cursor| cursor.0.as_str());
        let queued = self
            .directory
            .queue(crm, &notices, cursor, MOST_WAITING)
            .await?;
        if !notices.is_empty() && queued == Queued::Yes {
            crate::metrics::count_notices(crm, notices.len() as u64);
            lock(&self.status).notices.last_at = Some((self.clock)());
            self.queued.notify_one();
        }
        Ok(queued)
    }

    /// Fetches what the CRM keeps for us, again and again.
    async fn fetch_on(&self) {
        let every = Duration::from_secs(self.settings.news_every_seconds.max(1));
        let mut turn = Turn::now();
        while self.source.crm.has_news() {
            let fetched = self.fetch().await;
            self.note(Part::News, fetched.as_ref().err());
            match fetched {
                Ok(true) => turn.succeeded(Duration::ZERO),
                Ok(false) => turn.succeeded(every),
                Err(error) => turn.failed(&error),
            }
            tokio::select! {
                () = tokio::time::sleep_until(turn.due()) => {}
                () = self.rang.notified() => {}
            }
        }
        std::future::pending::<()>().await;
    }

    /// Fetches once; says whether more waits there.
    async fn fetch(&self) -> Result<bool, SyncError> {
        let from = self.directory.news_cursor(&self.source.name).await?;
        let news = self.source.crm.news(from.map(Cursor)).await?;
        if self.queue(news.notices, news.cursor).await? == Queued::Full {
            // They stay where they are until there is room.
            return Ok(false);
        }
        if let Some(receipt) = &news.receipt {
            self.source.crm.confirm(receipt).await?;
        }
        Ok(news.more)
    }

    /// Reads the queued cards again as they fall due.
    async fn work_on(&self, walk: &(dyn Fn() + Send + Sync)) {
        let kinds = self.source.crm.kinds();
        let mut turns: Vec<(EntityKind, Turn)> =
            kinds.iter().map(|kind| (*kind, Turn::now())).collect();
        loop {
            let looked = turns
                .iter_mut()
                .map(|(kind, turn)| self.look(*kind, turn, walk));
            let looked = join_all(looked).await;
            let error = looked.iter().find_map(|looked| looked.error.as_ref());
            // A kind that rests after a failure has not been tried.
            if error.is_some() || turns.iter().all(|(_, turn)| turn.is_due()) {
                self.note(Part::Notices, error);
            }
            lock(&self.status).notices.waiting = looked.iter().map(|looked| looked.waiting).sum();
            let wake = looked.iter().map(|looked| looked.wake).min();
            tokio::select! {
                () = tokio::time::sleep_until(wake.unwrap_or_else(far_off)) => {}
                () = self.queued.notified() => tokio::time::sleep(GATHERING).await,
            }
        }
    }

    /// Reads the cards of one kind again that are due, unless it rests.
    async fn look(
        &self,
        kind: EntityKind,
        turn: &mut Turn,
        walk: &(dyn Fn() + Send + Sync),
    ) -> Looked {
        let mut error = None;
        if turn.is_due() {
            error = self.work(kind, walk).await.err();
            match &error {
                None => turn.succeeded(Duration::ZERO),
                Some(error) => turn.failed(error),
            }
        }
        let crm = &self.source.name;
        let length = self.directory.queue_length(crm, kind).await;
        let length = length.unwrap_or_else(|fault| {
            error.get_or_insert(fault.into());
            QueueLength::default()
        });
        Looked {
            wake: self.wake_for(length).max(turn.due()),
            waiting: length.waiting,
            error,
        }
    }

    /// When the queue is looked at again though nothing comes.
    fn wake_for(&self, length: QueueLength) -> Instant {
        let Some(due) = length.next_due else {
            return far_off();
        };
        let wait = due.duration_since((self.clock)());
        let wait = Duration::try_from(wait).unwrap_or_default();
        // A clock that jumps must not leave the queue asleep, nor awake all the time.
        Instant::now() + wait.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
    }

    /// Reads all cards of a kind again that are due.
    async fn work(
        &self,
        kind: EntityKind,
        walk: &(dyn Fn() + Send + Sync),
    ) -> Result<(), SyncError> {
        loop {
            let now = (self.clock)();
            let crm = &self.source.name;
            let due = self.directory.due(crm, kind, now, READ_AT_ONCE).await?;
            if due.is_empty() {
                return Ok(());
            }
            self.widen(kind, &due).await?;
            self.read_again(kind, &due, walk).await?;
        }
    }

    /// Two cards became one, and the CRM has named one of them: the other had the same number.
    async fn widen(&self, kind: EntityKind, due: &[Waiting]) -> Result<(), DirectoryError> {
        let merged = due
            .iter()
            .filter(|waiting| waiting.notice.event == Event::Merged && !waiting.again);
        for waiting in merged {
            let crm = &self.source.name;
            let kin = self.directory.kin(crm, kind, &waiting.notice.id).await?;
            let notices = kin.into_iter().map(|id| Notice {
                kind,
                id,
                event: Event::Gone,
            });
            self.queue(notices.collect(), None).await?;
        }
        Ok(())
    }

    fn read_again<'a>(
        &'a self,
        kind: EntityKind,
        due: &'a [Waiting],
        walk: &'a (dyn Fn() + Send + Sync),
    ) -> BoxFuture<'a, Result<(), SyncError>> {
        async move {
            let crm = &self.source.name;
            let ids: Vec<EntityId> = due.iter().map(|one| one.notice.id.clone()).collect();
            let page = match self.source.crm.read(kind, &ids).await {
                // One of them cannot be read: the others must not wait for it.
                Err(CrmError::Shape { .. }) if due.len() > 1 => {
                    let (some, others) = due.split_at(due.len() / 2);
                    self.read_again(kind, some, walk).await?;
                    return self.read_again(kind, others, walk).await;
                }
                Err(error @ CrmError::Shape { .. }) => {
                    tracing::warn!(%crm, %kind, error = fault::told(&error), "a card cannot be read; it is tried again later");
                    self.directory.settle(crm, due, Some(self.later())).await?;
                    return Ok(());
                }
                page => page?,
            };
            let there: HashSet<EntityId> = page.cards.iter().map(|card| card.id.clone()).collect();
            let state = self.directory.sync_state(crm, kind).await?;
            if !page.cards.is_empty() {
                let change = change(&self.source, kind, page, state.walk, None);
                self.directory.apply(change).await?;
            }
            // Missing without a word of a deletion: that is for the walk to judge.
            let is_gone = |one: &&Waiting| {
                !there.contains(&one.notice.id) && one.notice.event != Event::Changed
            };
            let (gone, settled): (Vec<&Waiting>, Vec<&Waiting>) = due.iter().partition(is_gone);
            self.delete(kind, &gone, state.whole_at, walk).await?;
            let (looked_twice, looked_once): (Vec<&Waiting>, Vec<&Waiting>) =
                gone.into_iter().partition(|one| one.again);
            let settled: Vec<Waiting> = settled.into_iter().chain(looked_twice).cloned().collect();
            let looked_once: Vec<Waiting> = looked_once.into_iter().cloned().collect();
            self.directory.settle(crm, &settled, None).await?;
            self.directory
                .settle(crm, &looked_once, Some(self.later()))
                .await?;
            Ok(())
        }
        .boxed()
    }

    /// When a card is looked for once more.
    fn later(&self) -> Timestamp {
        let wait = SignedDuration::from_secs(self.settings.second_look_seconds.cast_signed());
        let now = (self.clock)();
        now.checked_add(wait).unwrap_or(now)
    }

    /// Deletes cards of which the CRM has said so and which it no longer shows, unless they are
    /// suspiciously many since the last walk, which ended at `whole_at`: then the next must agree.
    async fn delete(
        &self,
        kind: EntityKind,
        gone: &[&Waiting],
        whole_at: Option<Timestamp>,
        walk: &(dyn Fn() + Send + Sync),
    ) -> Result<(), SyncError> {
        let crm = &self.source.name;
        let ids: Vec<EntityId> = gone.iter().map(|one| one.notice.id.clone()).collect();
        let known = self.directory.known(crm, kind, &ids).await?;
        if known.is_empty() {
            return Ok(());
        }
        let mut told = lock(&self.deletions)
            .get(&kind)
            .copied()
            .filter(|told| told.since == whole_at)
            .unwrap_or(Deletions {
                since: whole_at,
                ..Deletions::default()
            });
        let count = told.count + known.len() as u64;
        if count > FEW_CARDS && !told.doubted {
            let present = self.directory.count_unseen(crm, kind, 0).await?.total;
            let unseen = Unseen {
                unseen: count,
                total: present + told.count,
            };
            told.doubted = is_suspicious(unseen, self.settings.most_deleted_percent);
            if told.doubted {
                tracing::error!(%crm, %kind, told = count, of = unseen.total,
                    "the CRM tells of suspiciously many deletions; none is believed until a walk over all cards agrees");
                walk();
            }
        }
        if told.doubted {
            lock(&self.deletions).insert(kind, told);
            return Ok(());
        }
        told.count = count;
        let deleted = self.directory.delete(crm, kind, &known).await?;
        lock(&self.deletions).insert(kind, told);
        tracing::info!(%crm, %kind, deleted, "cards were deleted in the CRM, and here");
        Ok(())
    }

    fn note(&self, part: Part, error: Option<&SyncError>) {
        lock(&self.status).note(&self.source.name, part, error);
    }
}

fn far_off() -> Instant {
    Instant::now() + LONGEST_SLEEP
}
