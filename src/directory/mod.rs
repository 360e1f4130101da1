//! Our own copy: phone -> entities -> responsible employee.
//!
//! What every store promises. Looking up never touches the network. A page and the cursor behind it
//! are one transaction. A new store is one file and one row in [`KINDS`].

mod colleague;
pub mod embedded;
mod own_row;
mod roster;
mod survey;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use colleague::{Colleague, Origin, Origins};
pub use own_row::{OwnRow, OwnRowError, RowFault, set_checked};
pub use roster::{Conflict, CrmRules, Override, Roster, RosterRules};
pub use survey::{
    CardRef, Findings, Left, LeftCard, SharedNumber, Survey, Surveyed, Surveyor, Tally,
    UnreadNumber,
};

use crate::phone::E164;
use crate::record::{
    Card, CrmName, Employee, EmployeeId, Entity, EntityId, EntityKind, Notice, Staff,
};

/// The local copy of all CRMs.
///
/// Readers never wait for writers. All methods may be called from any task.
#[async_trait]
pub trait Directory: Send + Sync {
    /// All entities that have this number, of all CRMs and kinds, in no particular order.
    ///
    /// With `with_deals`, deals linked to one of them are added. Where an entity carries no company
    /// name but links to a company in the mirror, that company's name is filled in.
    async fn lookup(&self, phone: E164, with_deals: bool) -> Result<Vec<Entity>, DirectoryError>;

    /// All employees of all CRMs as they stand now: a snapshot in memory, no I/O.
    fn roster(&self) -> Arc<Roster>;

    /// Puts the configuration's word on employees in place of the former one: the roster is made anew
    /// from the stored employees before this returns. If it fails, the former rules stay.
    async fn set_rules(&self, rules: RosterRules) -> Result<(), DirectoryError>;

    /// Puts the employees and departments of one CRM in place of its former ones.
    async fn replace_employees(
        &self,
        crm: &CrmName,
        staff: Staff,
        now: Timestamp,
    ) -> Result<(), DirectoryError>;

    /// Adds employees of one CRM; those whose identifier is there already stay as they are.
    async fn add_employees(
        &self,
        crm: &CrmName,
        employees: Vec<Employee>,
    ) -> Result<(), DirectoryError>;

    /// Keeps what was set on the page for one employee, in place of what was set before; `None` removes
    /// it. The roster has it at once. It stays when employees are replaced, also of one who is gone.
    /// The caller has checked it, see [`set_checked`].
    async fn set_own_row(
        &self,
        crm: &CrmName,
        id: &EmployeeId,
        row: Option<OwnRow>,
    ) -> Result<(), DirectoryError>;

    /// All that was set on the page, sorted by CRM and employee. What can no longer be read is left
    /// out.
    async fn own_rows(&self) -> Result<Vec<(CrmName, EmployeeId, OwnRow)>, DirectoryError>;

    /// Looks through all cards for what somebody should mend in the CRM. Takes seconds on millions of
    /// cards, and holds up neither lookups nor those who store; two at once wait for each other. Use
    /// a [`Surveyor`].
    async fn survey(&self) -> Result<Survey, DirectoryError>;

    /// Keeps how much there was to be mended on a day, in place of what was kept for it before. Days
    /// are those of [`Findings::day_of`]; the newest [`Findings::DAYS_KEPT`] are kept.
    async fn keep_findings(&self, day: i64, findings: Findings) -> Result<(), DirectoryError>;

    /// What was kept for `from` and the days after it, the oldest first.
    async fn findings(&self, from: i64) -> Result<Vec<(i64, Findings)>, DirectoryError>;

    /// Stores cards with the state of the sync that brought them, in one transaction.
    ///
    /// A card that is there already (same CRM, kind and id) is replaced whole, its phones and links
    /// with it; applying a page twice equals applying it once. With `state`, the state of this CRM
    /// and kind is replaced too. Every card is marked as seen in the walk `change.walk`, unless a
    /// later walk has seen it already. See [`Change::keep_newer`] for cards that are left as they are.
    async fn apply(&self, change: Change) -> Result<(), DirectoryError>;

    /// How many cards of this CRM and kind neither the walk `walk` nor a later one has seen, and how
    /// many there are.
    async fn count_unseen(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        walk: u64,
    ) -> Result<Unseen, DirectoryError>;

    /// Deletes the cards of this CRM and kind that neither the walk `walk` nor a later one has seen;
    /// says how many. In many small transactions: cut short, it is simply repeated.
    async fn delete_unseen(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        walk: u64,
    ) -> Result<u64, DirectoryError>;

    /// Deletes cards by name, those that are there; says how many.
    async fn delete(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        ids: &[EntityId],
    ) -> Result<u64, DirectoryError>;

    /// Which of these cards of one CRM and kind are there.
    async fn known(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        ids: &[EntityId],
    ) -> Result<Vec<EntityId>, DirectoryError>;

    /// The other cards of this CRM and kind that share a number with this one; at most 1000.
    async fn kin(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        id: &EntityId,
    ) -> Result<Vec<EntityId>, DirectoryError>;

    /// Queues notices of a CRM for reading their cards again, durably, and with `cursor` what
    /// [`Directory::news_cursor`] gives from then on.
    ///
    /// There is one queued notice for a card: a further one for it takes its place, with the weightier
    /// event and a new ticket, due at once. If more than `most` would wait for this CRM, all of this
    /// call are refused.
    async fn queue(
        &self,
        crm: &CrmName,
        notices: &[Notice],
        cursor: Option<&str>,
        most: u64,
    ) -> Result<Queued, DirectoryError>;

    /// The queued notices for one kind of a CRM's cards that are due at `now`, the longest waiting
    /// first; at most `limit`.
    async fn due(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Waiting>, DirectoryError>;

    /// Takes notices off the queue, or with `again` puts them back for a second look at that time.
    /// One whose ticket is another meanwhile stays as it is: a new notice has come for its card.
    async fn settle(
        &self,
        crm: &CrmName,
        waiting: &[Waiting],
        again: Option<Timestamp>,
    ) -> Result<(), DirectoryError>;

    /// How many notices for one kind of a CRM's cards are queued, and when the next is due.
    async fn queue_length(
        &self,
        crm: &CrmName,
        kind: EntityKind,
    ) -> Result<QueueLength, DirectoryError>;

    /// The cursor that was stored last with notices of this CRM.
    async fn news_cursor(&self, crm: &CrmName) -> Result<Option<String>, DirectoryError>;

    /// When the employees of a CRM were stored last.
    async fn employees_at(&self, crm: &CrmName) -> Result<Option<Timestamp>, DirectoryError>;

    /// Where the sync of this CRM and kind stands; the default if it has never run.
    async fn sync_state(
        &self,
        crm: &CrmName,
        kind: EntityKind,
    ) -> Result<SyncState, DirectoryError>;

    /// Replaces the state alone.
    async fn set_sync_state(
        &self,
        crm: &CrmName,
        kind: EntityKind,
        state: &SyncState,
    ) -> Result<(), DirectoryError>;

    /// The number of cards for every CRM and kind that has any. May take a second on millions of
    /// cards; never called for a call.
    async fn counts(&self) -> Result<Vec<Count>, DirectoryError>;

    /// Removes everything of a CRM.
    async fn forget(&self, crm: &CrmName) -> Result<(), DirectoryError>;

    /// The CRMs that the directory holds anything of.
    async fn crms(&self) -> Result<Vec<CrmName>, DirectoryError>;
}

/// Cards to be stored, phones already read.
#[derive(Debug, Clone)]
pub struct Change {
    /// The CRM that they come from.
    pub crm: CrmName,
    /// Their kind; every card is of it.
    pub kind: EntityKind,
    /// The cards, each with the numbers found in its phone fields.
    pub cards: Vec<(Card, Vec<E164>)>,
    /// What stands in phone fields of these cards and is no number; cards without any are left out.
    pub unread: Vec<(EntityId, String)>,
    /// The walk that saw them. For a card from elsewhere (a live lookup, a change): the running or
    /// last walk, so that the sweep behind it does not take the card for a deleted one.
    pub walk: u64,
    /// A card of the directory that changed at this moment or later stays as it is if the one given
    /// is older: two readings were under way, and the earlier one came later. Both by the CRM's
    /// clock. A card that lies further back gives way, since a CRM may have been set back to an older
    /// state.
    pub keep_newer: Option<Timestamp>,
    /// The sync's state after this page; `None` leaves it as it is.
    pub state: Option<SyncState>,
}

/// What became of notices that were to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// They are queued, on the disk.
    Yes,
    /// Too many wait; none of these was queued, nor the cursor stored.
    Full,
}

/// A queued notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What the CRM said.
    pub notice: Notice,
    /// Given out anew whenever a notice comes for this card.
    pub ticket: u64,
    /// True if it waits for its second look.
    pub again: bool,
}

/// How long a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueLength {
    /// Notices that wait.
    pub waiting: u64,
    /// When the first is due; `None` when none waits.
    pub next_due: Option<Timestamp>,
}

/// Where the sync of one CRM and kind stands. Survives restarts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncState {
    /// The number of the running walk, or of the last one; 0 before the first.
    pub walk: u64,
    /// Where the running walk goes on; `None` when none runs or it has not had a page yet.
    pub cursor: Option<String>,
    /// True while a walk runs (also while the daemon is stopped in the middle of one).
    pub walking: bool,
    /// True once the running walk has had its last page: only the sweep behind it remains.
    pub all_seen: bool,
    /// When the running walk began, by the CRM's clock: changes since then are read behind it.
    pub walk_began: Option<Timestamp>,
    /// When a walk last ended whole; `None` before the first.
    pub whole_at: Option<Timestamp>,
    /// Changes up to this instant of the CRM's clock are in the mirror.
    pub changes_until: Option<Timestamp>,
    /// The highest identifier met, where identifiers are numbers.
    pub highest_id: Option<u64>,
    /// When the CRM last answered for this kind, by our clock.
    pub fresh_at: Option<Timestamp>,
    /// How phones were read and what was mirrored: when this differs from the configuration's, the
    /// kind is walked again.
    pub reading: String,
    /// Which CRM was walked: kind and host. When the configuration names another one under the same
    /// name, its mirror is forgotten, since identifiers mean other clients there.
    pub identity: String,
    /// Set when a walk found suspiciously few cards: nothing was deleted, somebody must confirm.
    pub shrunk: Option<Unseen>,
}

/// What a sweep behind a walk would delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unseen {
    /// Cards that the walk has not seen.
    pub unseen: u64,
    /// Cards in the mirror, these included.
    pub total: u64,
}

/// How much the mirror holds of one CRM and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The CRM.
    pub crm: CrmName,
    /// The kind.
    pub kind: EntityKind,
    /// Cards.
    pub cards: u64,
}

/// Asks for a number that the directory lacks. Implemented by the sync side; the router knows no
/// more of CRMs than this.
#[async_trait]
pub trait Refresh: Send + Sync {
    /// Asks `crms` for `phone`, all at once, and waits at most `deadline`.
    ///
    /// Calls that ask for the same number share one request. With [`Keep::Yes`] what is found
    /// enters the directory and what is not found is remembered for a short time; with [`Keep::No`]
    /// nothing is stored.
    async fn refresh(
        &self,
        phone: E164,
        crms: &[CrmName],
        deadline: Duration,
        keep: Keep,
    ) -> Vec<(CrmName, Refreshed)>;
}

/// Whether an answer enters the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It does.
    Yes,
    /// It does not: somebody only wants to know.
    No,
}

/// What came of asking one CRM.
#[derive(Debug, Clone, PartialEq)]
pub enum Refreshed {
    /// It has the number: these entities, believed because their phone fields hold it.
    Found(Vec<Entity>),
    /// It does not know the number.
    Nothing,
    /// It did not know the number a moment ago and was not asked again.
    RememberedNothing,
    /// It did not answer in time; its answer will enter the mirror when it comes.
    TooLate,
    /// It has failed lately and is not asked for a while.
    BreakerOpen,
    /// The budget of requests is spent.
    OutOfBudget,
    /// It cannot be asked: it is a file.
    NotAskable,
    /// It failed; the text says how.
    Failed(String),
}

/// Why the directory did not answer. On a call's path this means the standard route.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The files are of a newer version of pryamo. The daemon does not start.
    #[error(
        "{path} was written by a newer version of pryamo (format {found}, this one reads {known}); install that version, or move the folder away to mirror anew"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its format.
        found: i64,
        /// The format that this version writes.
        known: i64,
    },
    /// The files are damaged. The daemon does not start.
    #[error("{path} is damaged ({what}); move it away, pryamo will mirror anew")]
    Damaged {
        /// The file.
        path: String,
        /// What was wrong.
        what: String,
    },
    /// Another process has the folder.
    #[error(
        "{path} is in use by another pryamo; stop it, or give this one a `data_dir` of its own"
    )]
    InUse {
        /// The folder.
        path: String,
    },
    /// The folder cannot be made or written.
    #[error("cannot use {path} (`data_dir`)")]
    Folder {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The store failed in the middle of its work.
    #[error("the directory failed while it {doing}")]
    Store {
        /// What it was doing, "was reading a phone".
        doing: &'static str,
        /// What the store said.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a store is given to open.
#[derive(Debug, Clone)]
pub struct Opening {
    /// `data_dir`.
    pub data_dir: PathBuf,
    /// Who may be rung and how own phones are read.
    pub rules: RosterRules,
}

/// A kind of store: a row of [`KINDS`].
pub struct Kind {
    /// The word in `directory.kind`.
    pub name: &'static str,
    /// A commented TOML example, every option with its default.
    pub example: &'static str,
    /// Opens the store with the `[directory]` table less its `kind`.
    pub open: fn(toml::Table, Opening) -> Result<Arc<dyn Directory>, OpenError>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A key of `[directory]` is unknown or wrong; the text names it.
    #[error("{0}")]
    Settings(String),
    /// The store itself.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Every kind of store. A new one adds its row here and its `mod` line above.
pub const KINDS: &[Kind] = &[embedded::KIND];
