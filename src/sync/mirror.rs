//! Fills the directory from one CRM and keeps it fresh.
//!
//! One task per CRM; its kinds run side by side, since their limits are apart. A full walk stores
//! page after page with its cursor and goes on there after a stop; while it runs again later, what
//! is there stays and changes are still read. Cards that a walk did not see are deleted behind it,
//! unless there are suspiciously many; where a walk may miss cards, two walks must agree.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Clock, Settings, Source, phones_of};
use crate::crm::{CrmError, Cursor, Page, Since};
use crate::directory::{Change, Directory, DirectoryError, SyncState, Unseen};
use crate::fault;
use crate::record::{CrmName, EntityKind};

/// Between two passes, whatever happens.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The first rest of a part that failed; doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_mins(5);
/// After a refusal that only a person can mend.
const REFUSED_PAUSE: Duration = Duration::from_mins(5);
/// After a block by the vendor: asking on would make it worse.
const BLOCKED_PAUSE: Duration = Duration::from_mins(10);
/// No request for cards is under way for longer, waits and repeats included: what changed before
/// one began, less this, no page can be late for.
const LONGEST_READING: SignedDuration = SignedDuration::from_mins(10);
/// Fewer missing cards than this are never suspicious, unless nothing is left.
const FEW_CARDS: u64 = 20;

/// Keeps one CRM's mirror. Shared between its own task and those who ask how it stands.
pub struct Mirror {
    source: Source,
    settings: Settings,
    directory: Arc<dyn Directory>,
    clock: Clock,
    status: Mutex<Status>,
    orders: Mutex<Orders>,
    /// Parts that failed last: a kind, or the employees (`None`).
    rests: Mutex<BTreeMap<Option<EntityKind>, Rest>>,
    wake: Notify,
}

/// A part that is left alone for a while.
#[derive(Debug)]
struct Rest {
    /// Failures in a row.
    failures: u32,
    until: Instant,
}

/// What somebody asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Walk all cards again, even if a walk is not due.
    pub full: bool,
    /// Delete what a walk did not see, however much it is.
    pub accept_deletions: bool,
}

#[derive(Debug, Default)]
struct Orders {
    /// The pass after the one that runs satisfies all orders up to this number.
    last_ticket: u64,
    open: bool,
    order: Order,
}

/// How a CRM's mirror stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// The CRM.
    pub crm: String,
    /// True while a pass runs.
    pub running: bool,
    /// Orders up to this ticket are done.
    pub done_ticket: u64,
    /// Employees read last.
    pub employees: usize,
    /// When the employees were read last.
    pub employees_at: Option<Timestamp>,
    /// What went wrong with the employees last; `None` when all is well.
    pub employees_error: Option<String>,
    /// Each kind.
    pub kinds: BTreeMap<EntityKind, KindStatus>,
}

/// How one kind of a CRM's mirror stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KindStatus {
    /// True while a walk runs.
    pub walking: bool,
    /// Cards that the running walk has stored since the daemon took it up.
    pub walked_cards: u64,
    /// The part of the running walk that is done, 0 to 1, where it is known.
    pub done: Option<f64>,
    /// When a walk last ended whole.
    pub whole_at: Option<Timestamp>,
    /// When the CRM last answered.
    pub fresh_at: Option<Timestamp>,
    /// What went wrong last; `None` when all is well.
    pub error: Option<String>,
    /// Set when a walk found suspiciously few cards.
    pub shrunk: Option<Unseen>,
}

/// Why a pass over one kind ended early.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The CRM did not answer as asked.
    #[error(transparent)]
    Crm(#[from] CrmError),
    /// The directory did not take it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl SyncError {
    /// How long to leave the CRM alone; `None` leaves it to the growing pause.
    fn pause(&self) -> Option<Duration> {
        match self {
            Self::Crm(CrmError::RateLimited(wait) | CrmError::OutOfBudget(wait)) => Some(*wait),
            Self::Crm(CrmError::Blocked(_)) => Some(BLOCKED_PAUSE),
            Self::Crm(CrmError::Unauthorized(_) | CrmError::Forbidden { .. }) => {
                Some(REFUSED_PAUSE)
            }
            _ => None,
        }
    }
}

impl Mirror {
    /// Puts a mirror together; nothing runs yet.
    pub fn new(
        source: Source,
        settings: Settings,
        directory: Arc<dyn Directory>,
        clock: Clock,
    ) -> Self {
        let status = Status {
            crm: source.name.to_string(),
            ..Status::default()
        };
        Self {
            source,
            settings,
            directory,
            clock,
            status: Mutex::new(status),
            orders: Mutex::new(Orders::default()),
            rests: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// The CRM that this mirror copies.
    pub fn name(&self) -> &CrmName {
        &self.source.name
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Asks for a pass; gives a ticket. The pass is over once [`Status::done_ticket`] reaches it.
    pub fn order(&self, order: Order) -> u64 {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.last_ticket += 1;
        orders.open = true;
        orders.order.full |= order.full;
        orders.order.accept_deletions |= order.accept_deletions;
        self.wake.notify_one();
        orders.last_ticket
    }

    /// Passes over the CRM again and again until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        self.recall().await;
        loop {
            tokio::select! {
                () = self.pass() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(self.until_next_pass()) => {}
                () = self.wake.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One pass: the employees if due, and every kind. A part that failed rests for a while, unless
    /// somebody ordered the pass; the others go on.
    pub async fn pass(&self) {
        let (ticket, order) = self.take_orders();
        self.lock().running = true;
        let is_ordered = order.is_some();
        let order = order.unwrap_or_default();
        let employees = async {
            if is_ordered || !self.rests(None) {
                let read = self.employees(is_ordered).await;
                self.note_rest(None, read.as_ref().err());
            }
        };
        let kinds = self.source.crm.kinds().iter().map(|kind| async move {
            if is_ordered || !self.rests(Some(*kind)) {
                let passed = self.kind(*kind, order).await;
                self.note(*kind, &passed);
                self.note_rest(Some(*kind), passed.as_ref().err());
            }
        });
        tokio::join!(employees, join_all(kinds));
        let mut status = self.lock();
        status.running = false;
        status.done_ticket = ticket;
    }

    /// Says whether the employees (`None`) or a kind are left alone after a failure.
    fn rests(&self, part: Option<EntityKind>) -> bool {
        let rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        rests
            .get(&part)
            .is_some_and(|rest| Instant::now() < rest.until)
    }

    fn note_rest(&self, part: Option<EntityKind>, error: Option<&SyncError>) {
        let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = error else {
            rests.remove(&part);
            return;
        };
        let failures = rests.get(&part).map_or(1, |rest| rest.failures + 1);
        let growing = FIRST_PAUSE * 2_u32.saturating_pow((failures - 1).min(6));
        let pause = error.pause().unwrap_or(growing.min(LAST_PAUSE));
        let until = Instant::now() + pause;
        rests.insert(part, Rest { failures, until });
    }

    /// Until the next check for changes, or until the first part has rested.
    fn until_next_pass(&self) -> Duration {
        let rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let rested = rests
            .values()
            .map(|rest| rest.until.saturating_duration_since(now))
            .min();
        let usual = Duration::from_secs(self.settings.changes_every_seconds);
        rested
            .map_or(usual, |rested| rested.min(usual))
            .max(SHORTEST_PAUSE)
    }

    fn take_orders(&self) -> (u64, Option<Order>) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let order = std::mem::take(&mut orders.order);
        let was_open = std::mem::take(&mut orders.open);
        (orders.last_ticket, was_open.then_some(order))
    }

    /// Shows after a restart what the directory remembers.
    async fn recall(&self) {
        for kind in self.source.crm.kinds() {
            if let Ok(state) = self.directory.sync_state(&self.source.name, *kind).await {
                self.show(*kind, &state);
            }
        }
        let employees = self.directory.roster();
        let own = employees
            .all()
            .iter()
            .filter(|one| one.crm == self.source.name)
            .count();
        self.lock().employees = own;
    }

    async fn employees(&self, ordered: bool) -> Result<(), SyncError> {
        let read_at = self.lock().employees_at;
        let every = SignedDuration::from_secs(self.settings.employees_every_seconds.cast_signed());
        let is_due = read_at.is_none_or(|at| (self.clock)().duration_since(at) >= every);
        if !is_due && !ordered {
            return Ok(());
        }
        let read = async {
            let employees = self.source.crm.employees().await?;
            let count = employees.len();
            self.directory
                .replace_employees(&self.source.name, employees, (self.clock)())
                .await?;
            Ok::<usize, SyncError>(count)
        };
        match read.await {
            Ok(count) => {
                let mut status = self.lock();
                status.employees = count;
                status.employees_at = Some((self.clock)());
                status.employees_error = None;
                Ok(())
            }
            Err(error) => {
                let text = fault::told(&error);
                let mut status = self.lock();
                if status.employees_error.as_ref() != Some(&text) {
                    tracing::error!(crm = %self.source.name, error = text, "cannot read the employees; those known stay");
                }
                status.employees_error = Some(text);
                Err(error)
            }
        }
    }

    async fn kind(&self, kind: EntityKind, order: Order) -> Result<(), SyncError> {
        let mut state = self.directory.sync_state(&self.source.name, kind).await?;
        let reading = match self.source.crm.fingerprint() {
            Some(fingerprint) => format!("{}/{fingerprint}", self.source.reading),
            None => self.source.reading.clone(),
        };
        let is_due = self.settings.walk_every_seconds > 0
            && state.whole_at.is_some_and(|at| {
                let age = (self.clock)().duration_since(at).as_secs();
                age >= self.settings.walk_every_seconds.cast_signed()
            });
        let must_begin = state.reading != reading || order.full || (is_due && !state.walking);
        if must_begin || (state.whole_at.is_none() && !state.walking) {
            state.walk += 1;
            state.cursor = None;
            state.walking = true;
            state.all_seen = false;
            state.walk_began = None;
            state.reading = reading;
            state.identity.clone_from(&self.source.identity);
        }
        if state.walking {
            self.walk(kind, &mut state, order).await
        } else if self.source.crm.fingerprint().is_some() {
            state.fresh_at = Some((self.clock)());
            self.directory
                .set_sync_state(&self.source.name, kind, &state)
                .await?;
            self.show(kind, &state);
            Ok(())
        } else {
            self.changes(kind, &mut state).await
        }
    }

    async fn walk(
        &self,
        kind: EntityKind,
        state: &mut SyncState,
        order: Order,
    ) -> Result<(), SyncError> {
        self.begin_to_show(kind);
        let mut changes_at = (self.clock)();
        if !state.all_seen {
            let mut pages = self.source.crm.walk(kind, state.cursor.clone().map(Cursor));
            let mut next = pages.next().await;
            while let Some(page) = next {
                let page = page?;
                let is_last = page.cursor.is_none();
                // The next page is fetched while this one is stored.
                let following = async { if is_last { None } else { pages.next().await } };
                let (stored, following) =
                    tokio::join!(self.store_walked(kind, page, state), following);
                stored?;
                next = following;
                let waited = (self.clock)().duration_since(changes_at).as_secs();
                let is_mirrored = state.whole_at.is_some() && state.changes_until.is_some();
                if is_mirrored && waited >= self.settings.changes_every_seconds.cast_signed() {
                    changes_at = (self.clock)();
                    self.changes(kind, state).await?;
                }
            }
            if !state.all_seen {
                let method = format!("walk of {kind}s");
                let text = "it ended without a last page".to_owned();
                return Err(CrmError::Shape { method, text }.into());
            }
        }
        self.sweep(kind, state, order).await
    }

    /// Stores a walked page and the state behind it, together.
    async fn store_walked(
        &self,
        kind: EntityKind,
        page: Page,
        state: &mut SyncState,
    ) -> Result<(), SyncError> {
        let now = (self.clock)();
        let count = page.cards.len() as u64;
        if state.walk_began.is_none() {
            state.walk_began = Some(page.server_time.unwrap_or(now));
        }
        state.fresh_at = Some(now);
        state.all_seen = page.cursor.is_none();
        state.cursor = page.cursor.as_ref().map(|cursor| cursor.0.clone());
        state.highest_id = state.highest_id.max(highest_id(&page));
        let done = page.done;
        self.store(kind, page, state.walk, Some(state.clone()))
            .await?;
        let mut status = self.lock();
        let shown = status.kinds.entry(kind).or_default();
        shown.walked_cards += count;
        shown.done = done;
        shown.fresh_at = state.fresh_at;
        Ok(())
    }

    async fn store(
        &self,
        kind: EntityKind,
        page: Page,
        walk: u64,
        state: Option<SyncState>,
    ) -> Result<(), DirectoryError> {
        let change = change(&self.source, kind, page, walk, state);
        self.directory.apply(change).await
    }

    /// Deletes what the walk has not seen, unless that is suspiciously much.
    async fn sweep(
        &self,
        kind: EntityKind,
        state: &mut SyncState,
        order: Order,
    ) -> Result<(), SyncError> {
        let crm = &self.source.name;
        let needed = if self.source.crm.walks_may_miss() && !order.accept_deletions {
            state.walk.saturating_sub(1)
        } else {
            state.walk
        };
        let count = self.directory.count_unseen(crm, kind, needed).await?;
        let is_suspicious = is_suspicious(count, self.settings.most_deleted_percent);
        if is_suspicious && !order.accept_deletions {
            tracing::error!(%crm, %kind, missing = count.unseen, of = count.total,
                "the walk found suspiciously few cards; nothing was deleted. If they are really gone: \
                 pryamo sync --crm {crm} --full --accept-deletions");
            state.shrunk = Some(count);
        } else {
            let deleted = self.directory.delete_unseen(crm, kind, needed).await?;
            if deleted > 0 {
                tracing::info!(%crm, %kind, deleted, "cards that the CRM no longer has were deleted");
            }
            state.shrunk = None;
        }
        let now = (self.clock)();
        state.walking = false;
        state.all_seen = false;
        state.cursor = None;
        state.whole_at = Some(now);
        state.fresh_at = Some(now);
        state.changes_until = state.changes_until.max(state.walk_began);
        self.directory.set_sync_state(crm, kind, state).await?;
        self.show(kind, state);
        Ok(())
    }

    /// Reads what has changed since the last time.
    async fn changes(&self, kind: EntityKind, state: &mut SyncState) -> Result<(), SyncError> {
        let since = state
            .changes_until
            .or(state.walk_began)
            .unwrap_or_else(|| (self.clock)());
        let (mut until, mut highest) = (None, state.highest_id);
        let mut pages = self.source.crm.changes(
            kind,
            Since {
                time: since,
                highest_id: state.highest_id,
            },
        );
        while let Some(page) = pages.next().await {
            let page = match page {
                Err(CrmError::FilterIgnored { method }) => {
                    tracing::warn!(crm = %self.source.name, method, "the CRM ignores the filter by time; changes come with the next full walk");
                    return Ok(());
                }
                page => page?,
            };
            until = until.or(page.server_time);
            highest = highest.max(highest_id(&page));
            self.store(kind, page, state.walk, None).await?;
        }
        let now = (self.clock)();
        // Without a word on the CRM's clock the own one counts, less a doubt.
        let own = now - SignedDuration::from_mins(5);
        state.highest_id = highest;
        state.changes_until = Some(until.unwrap_or(own).max(since));
        state.fresh_at = Some(now);
        self.directory
            .set_sync_state(&self.source.name, kind, state)
            .await?;
        self.show(kind, state);
        Ok(())
    }

    fn begin_to_show(&self, kind: EntityKind) {
        let mut status = self.lock();
        let shown = status.kinds.entry(kind).or_default();
        if !shown.walking {
            shown.walking = true;
            shown.walked_cards = 0;
        }
    }

    fn show(&self, kind: EntityKind, state: &SyncState) {
        let mut status = self.lock();
        let shown = status.kinds.entry(kind).or_default();
        shown.walking = state.walking;
        shown.whole_at = state.whole_at;
        shown.fresh_at = state.fresh_at;
        shown.shrunk = state.shrunk;
    }

    fn note(&self, kind: EntityKind, passed: &Result<(), SyncError>) {
        let mut status = self.lock();
        let shown = status.kinds.entry(kind).or_default();
        let text = passed.as_ref().err().map(|error| fault::told(error));
        if let (Some(text), true) = (&text, shown.error != text) {
            tracing::error!(crm = %self.source.name, %kind, error = text, "the mirror cannot be brought up to date; it answers with what it has");
        }
        if text.is_none() && shown.error.is_some() {
            tracing::info!(crm = %self.source.name, %kind, "the CRM answers again");
        }
        if let Err(SyncError::Crm(error)) = passed {
            crate::metrics::count_crm_error(&self.source.name, error.label());
        }
        shown.error = text;
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page as the directory takes it, phones read.
pub(super) fn change(
    source: &Source,
    kind: EntityKind,
    page: Page,
    walk: u64,
    state: Option<SyncState>,
) -> Change {
    let keep_newer = page
        .server_time
        .and_then(|time| time.checked_sub(LONGEST_READING).ok());
    let read = page.cards.into_iter().map(|card| {
        let phones = phones_of(&card, source.region);
        (card, phones)
    });
    Change {
        crm: source.name.clone(),
        kind,
        cards: read.collect(),
        walk,
        keep_newer,
        state,
    }
}

/// The highest identifier of a page, where identifiers are numbers.
fn highest_id(page: &Page) -> Option<u64> {
    let numbers = page.cards.iter().filter_map(|card| card.id.as_number());
    numbers.max().map(i64::unsigned_abs)
}

fn is_suspicious(count: Unseen, most_percent: u64) -> bool {
    let nothing_left = count.unseen > 0 && count.unseen == count.total;
    let many = count.unseen > FEW_CARDS;
    nothing_left || (many && count.unseen * 100 > count.total * most_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_shrunken_source_is_suspicious() {
        for (unseen, total, expected, why) in [
            (0, 0, false, "nothing there, nothing gone"),
            (0, 100, false, "nothing gone"),
            (3, 3, true, "nothing left"),
            (5, 12, false, "a few of a few"),
            (21, 100, true, "more than a fifth"),
            (20, 50, false, "few cards, whatever the share"),
            (2_000, 10_000, false, "a fifth"),
            (2_001, 10_000, true, "more than a fifth"),
        ] {
            assert_eq!(
                is_suspicious(Unseen { unseen, total }, 20),
                expected,
                "{why}"
            );
        }
    }
}
