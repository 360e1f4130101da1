//! Fills the directory from one CRM and keeps it fresh.
//!
//! Employees and kinds are kept side by side, and beside them the notices ([`super::notices`]). A full walk stores page after page with its cursor and goes on there
//! after a stop; while it runs again later, what is there stays and changes are still read. Cards
//! that a walk did not see are deleted behind it, unless there are suspiciously many; where a walk
//! may miss cards, two walks must agree.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::notices::{Notices, ReceiveError, Received};
use super::rest::Turn;
use super::status::{Part, Status};
use super::{Clock, Settings, Source, SyncError, change, is_suspicious};
use crate::crm::{CrmError, Cursor, Hook, Page, Since};
use crate::directory::{Directory, SyncState};
use crate::fault::lock;
use crate::record::{CrmName, Employee, EmployeeId, EntityId, EntityKind};

/// Between two passes, whatever happens.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Fewer employees than this may vanish at once without a second look.
const FEW_EMPLOYEES: usize = 5;
/// Between two readings of employees of whom suspiciously many are missing.
const SECOND_READING: Duration = Duration::from_mins(1);

/// Keeps one CRM's mirror. Shared between its own task and those who ask how it stands.
pub struct Mirror {
    source: Source,
    settings: Settings,
    directory: Arc<dyn Directory>,
    clock: Clock,
    status: Arc<Mutex<Status>>,
    /// What was ordered of each part and not begun.
    orders: Mutex<BTreeMap<Part, Order>>,
    /// The number of the last order.
    ticket: watch::Sender<u64>,
    /// The last order that each part has done.
    done: Mutex<BTreeMap<Part, u64>>,
    /// Employees that vanished all at once and wait for a second reading to agree.
    vanished: Mutex<Vec<EmployeeId>>,
    notices: Notices,
    /// Who keeps this CRM's mirror from now on.
    successor: OnceLock<Weak<Mirror>>,
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

impl Mirror {
    /// Puts a mirror together; nothing runs yet.
    pub fn new(
        source: Source,
        settings: Settings,
        directory: Arc<dyn Directory>,
        clock: Clock,
    ) -> Self {
        let status = Arc::new(Mutex::new(Status {
            crm: source.name.to_string(),
            ..Status::default()
        }));
        let notices = Notices::new(
            source.clone(),
            settings.clone(),
            Arc::clone(&directory),
            Arc::clone(&clock),
            Arc::clone(&status),
        );
        Self {
            source,
            settings,
            directory,
            clock,
            status,
            orders: Mutex::default(),
            ticket: watch::Sender::new(0),
            done: Mutex::default(),
            vanished: Mutex::default(),
            notices,
            successor: OnceLock::new(),
        }
    }

    /// Takes over from a mirror of the same CRM that was stopped: what was ordered of it and not done,
    /// its tickets, and whatever a hook still hands to it. To be called before this one runs.
    pub fn succeed(self: &Arc<Self>, former: &Self) {
        lock(&self.orders).clone_from(&lock(&former.orders));
        self.ticket.send_replace(*former.ticket.borrow());
        self.lock().done_ticket = former.lock().done_ticket;
        // A second successor is told by the first.
        let _ = former.successor.set(Arc::downgrade(self));
    }

    /// The CRM that this mirror copies.
    pub fn name(&self) -> &CrmName {
        &self.source.name
    }

    /// Where a card is looked at in the CRM's own interface, where it has one.
    pub fn card_address(&self, kind: EntityKind, id: &EntityId) -> Option<String> {
        self.source.crm.card_address(kind, id)
    }

    /// The same for an employee.
    pub fn employee_address(&self, id: &EmployeeId) -> Option<String> {
        self.source.crm.employee_address(id)
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        let mut status = self.lock().clone();
        for (kind, shown) in &mut status.kinds {
            shown.measure((self.clock)());
            shown.doubts_deletions = self.notices.doubts(*kind);
        }
        status
    }

    /// Takes what the CRM has sent to its hook. Returns once it is on the disk.
    pub async fn receive(&self, hook: Hook<'_>) -> Result<Received, ReceiveError> {
        let received = self.notices.receive(hook).await?;
        if received == Received::WalkInstead {
            tracing::warn!(crm = %self.source.name,
                "too many notices wait; all cards are walked over instead");
            self.order_walk();
        }
        // Its notices lie in the directory, where this one no longer looks.
        self.wake_successor(received);
        Ok(received)
    }

    fn wake_successor(&self, received: Received) {
        let Some(successor) = self.successor.get().and_then(Weak::upgrade) else {
            return;
        };
        successor.notices.wake();
        if received == Received::WalkInstead {
            successor.order_walk();
        }
        successor.wake_successor(received);
    }

    fn order_walk(&self) {
        self.order(Order {
            full: true,
            accept_deletions: false,
        });
    }

    /// Asks all parts to be brought up to date; gives a ticket. It is done once
    /// [`Status::done_ticket`] reaches it.
    pub fn order(&self, order: Order) -> u64 {
        let mut orders = lock(&self.orders);
        for part in self.parts() {
            let open = orders.entry(part).or_default();
            open.full |= order.full;
            open.accept_deletions |= order.accept_deletions;
        }
        let mut last = 0;
        self.ticket.send_modify(|ticket| {
            *ticket += 1;
            last = *ticket;
        });
        last
    }

    /// The employees and each kind. The notices keep themselves.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let kinds = self.source.crm.kinds().iter().copied().map(Part::Cards);
        std::iter::once(Part::Employees).chain(kinds)
    }

    /// Keeps the mirror until `stop`: each part by itself, since their limits are apart and a walk
    /// over one may take hours, and beside them what notices name.
    pub async fn run(&self, stop: CancellationToken) {
        self.recall().await;
        let walk = || {
            self.order_walk();
        };
        tokio::select! {
            _ = join_all(self.parts().map(|part| self.keep(part))) => {}
            () = self.notices.run(&walk) => {}
            () = stop.cancelled() => {}
        }
    }

    /// Keeps one part: in its turn, and whenever somebody orders it. After a failure it rests.
    async fn keep(&self, part: Part) {
        let mut tickets = self.ticket.subscribe();
        let mut turn = Turn::now();
        loop {
            let (ticket, order) = {
                let mut orders = lock(&self.orders);
                let ticket = *tickets.borrow_and_update();
                (ticket, orders.remove(&part).unwrap_or_default())
            };
            let kept = match part.kind() {
                None => self.employees().await,
                Some(kind) => self.kind(kind, order).await,
            };
            self.lock()
                .note(&self.source.name, part, kept.as_ref().err());
            match &kept {
                Ok(()) => turn.succeeded(self.pause(part)),
                Err(error) => turn.failed(error),
            }
            self.note_done(part, ticket);
            let due = turn.due().max(Instant::now() + SHORTEST_PAUSE);
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                _ = tickets.changed() => {}
            }
        }
    }

    fn note_done(&self, part: Part, ticket: u64) {
        let mut done = lock(&self.done);
        done.insert(part, ticket);
        let all = self.parts().map(|part| done.get(&part).copied());
        let all = all.map(Option::unwrap_or_default).min();
        self.lock().done_ticket = all.unwrap_or(ticket);
    }

    /// Shows after a restart what the directory remembers.
    async fn recall(&self) {
        for kind in self.source.crm.kinds() {
            if let Ok(state) = self.directory.sync_state(&self.source.name, *kind).await {
                self.show(*kind, &state);
            }
        }
        let read_at = self.directory.employees_at(&self.source.name).await;
        let known = self.known_employees().len();
        let mut status = self.lock();
        status.employees = known;
        status.employees_at = read_at.ok().flatten();
    }

    fn known_employees(&self) -> Vec<EmployeeId> {
        let roster = self.directory.roster();
        let all = roster.all();
        let own = all.iter().filter(|one| one.crm == self.source.name);
        own.map(|one| one.id.clone()).collect()
    }

    /// Until a part is due again after all went well.
    fn pause(&self, part: Part) -> Duration {
        if part.kind().is_some() {
            return Duration::from_secs(self.settings.changes_every_seconds);
        }
        let usual = Duration::from_secs(self.settings.employees_every_seconds);
        if lock(&self.vanished).is_empty() {
            usual
        } else {
            usual.min(SECOND_READING)
        }
    }

    async fn employees(&self) -> Result<(), SyncError> {
        let staff = self.source.crm.employees().await?;
        if self.are_missed(&staff.employees) {
            return Ok(());
        }
        let (count, now) = (staff.employees.len(), (self.clock)());
        self.directory
            .replace_employees(&self.source.name, staff, now)
            .await?;
        let mut status = self.lock();
        status.employees = count;
        status.employees_at = Some(now);
        Ok(())
    }

    /// Says whether so many known employees are missing that a second reading must agree first.
    ///
    /// A dismissed employee is still told, as such; whoever is missing was removed, or the right to
    /// see colleagues was.
    fn are_missed(&self, employees: &[Employee]) -> bool {
        let known = self.known_employees();
        let mut missing: Vec<EmployeeId> = known
            .iter()
            .filter(|id| !employees.iter().any(|one| one.id == **id))
            .cloned()
            .collect();
        missing.sort();
        let percent = usize::try_from(self.settings.most_deleted_percent).unwrap_or(100);
        let is_suspicious =
            missing.len() > FEW_EMPLOYEES && missing.len() * 100 > known.len() * percent;
        let mut vanished = lock(&self.vanished);
        if !is_suspicious || *vanished == missing {
            vanished.clear();
            return false;
        }
        tracing::error!(crm = %self.source.name, missing = missing.len(), of = known.len(),
            "suspiciously many employees are missing; those known stay until a second reading agrees");
        *vanished = missing;
        true
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
        self.begin_to_show(kind, state).await;
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
        let change = change(&self.source, kind, page, state.walk, Some(state.clone()));
        self.directory.apply(change).await?;
        let mut status = self.lock();
        let shown = status.kinds.entry(kind).or_default();
        shown.walked_cards += count;
        shown.done = done.or_else(|| shown.estimate());
        if let Some((_, begun @ None)) = &mut shown.taken_up {
            *begun = shown.done;
        }
        shown.fresh_at = state.fresh_at;
        Ok(())
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
                    let was_known = {
                        let mut status = self.lock();
                        let shown = status.kinds.entry(kind).or_default();
                        std::mem::replace(&mut shown.only_walks, true)
                    };
                    if !was_known {
                        tracing::warn!(crm = %self.source.name, method, "the CRM ignores the filter by time; changes come with notices and the next full walk");
                    }
                    return Ok(());
                }
                page => page?,
            };
            until = until.or(page.server_time);
            highest = highest.max(highest_id(&page));
            let change = change(&self.source, kind, page, state.walk, None);
            self.directory.apply(change).await?;
        }
        self.lock().kinds.entry(kind).or_default().only_walks = false;
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

    /// What a walk that goes on after a restart has seen is counted, and how many cards there were.
    async fn begin_to_show(&self, kind: EntityKind, state: &SyncState) {
        let crm = &self.source.name;
        let counted = self.directory.count_unseen(crm, kind, state.walk).await;
        let counted = counted.unwrap_or_default();
        let now = (self.clock)();
        let mut status = self.lock();
        let shown = status.kinds.entry(kind).or_default();
        shown.walking = true;
        shown.walked_cards = 0;
        shown.done = None;
        shown.seen_before = counted.total - counted.unseen;
        // The first walk finds what nobody has counted.
        shown.expected = state.whole_at.map(|_| counted.total);
        shown.taken_up = Some((now, shown.estimate()));
    }

    fn show(&self, kind: EntityKind, state: &SyncState) {
        let mut status = self.lock();
        let shown = status.kinds.entry(kind).or_default();
        shown.walking = state.walking;
        shown.whole_at = state.whole_at;
        shown.fresh_at = state.fresh_at;
        shown.shrunk = state.shrunk;
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        lock(&self.status)
    }
}

/// The highest identifier of a page, where identifiers are numbers.
fn highest_id(page: &Page) -> Option<u64> {
    let numbers = page.cards.iter().filter_map(|card| card.id.as_number());
    numbers.max().map(i64::unsigned_abs)
}
