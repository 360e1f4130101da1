//! The connections of one embedded directory and what is done with them.
//!
//! Everything here may wait for the disk, [`Store::lookup`] only where the system's cache does not
//! hold the page. Knows no tokio.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::file::Files;
use super::readers::{Readers, lock};
use super::row::{Key, Source};
use super::{Settings, hygiene, lookup, own_rows, queue, survey, writer};
use crate::background;
use crate::directory::{
    Change, DirectoryError, Opening, OwnRow, Queued, Roster, RosterRules, Survey, Waiting,
};
use crate::phone::E164;
use crate::record::{CrmName, Employee, EmployeeId, Entity, EntityId, EntityKind, Notice, Staff};

/// More threads than this share their readers.
const READERS_MAX: usize = 8;
/// Cards deleted in one transaction: some 100 ms, after which a page of a sync gets its turn.
const CARDS_PER_SWEEP: usize = 5000;

/// Cards that are written at a stretch: some tenths of a millisecond.
const CARDS_AT_A_STRETCH: usize = 16;

/// The numbers of all CRMs ever met, as the file has them.
pub(super) type CrmNames = ArcSwap<HashMap<i64, CrmName>>;

/// What the tasks of one directory share. The order of the fields is that of [`Files`].
pub(super) struct Store {
    readers: Readers,
    /// For counting and the like: a long read here makes no lookup wait.
    survey: Mutex<Connection>,
    /// For looking through all cards: the syncs' own reads do not wait for it either.
    hygiene: Mutex<Connection>,
    writer: Mutex<Connection>,
    pub(super) crms: CrmNames,
    pub(super) roster: ArcSwap<Roster>,
    /// Changed and read with the writer held only.
    rules: Mutex<Arc<RosterRules>>,
    /// Of the queue of notices.
    last_ticket: AtomicI64,
    _lock: File,
}

impl Store {
    /// Opens the files in `data_dir`.
    pub(super) fn open(settings: &Settings, opening: Opening) -> Result<Self, DirectoryError> {
        let readers = available_parallelism().map_or(1, |threads| threads.get().min(READERS_MAX));
        let cache_kib = usize::try_from(settings.cache_mb).unwrap_or(1) * 1024;
        let files = Files::open(&opening.data_dir, readers, cache_kib)?;
        let read_all = store_error("was reading the employees");
        let rules = Arc::new(opening.rules);
        let crms = survey::crm_names(&files.writer);
        let (crms, roster) = crms
            .and_then(|crms| {
                let roster = survey::roster(&files.writer, &crms, &rules)?;
                Ok((crms, roster))
            })
            .map_err(read_all)?;
        let last_ticket =
            queue::last_ticket(&files.writer).map_err(store_error("was reading its queue"))?;
        Ok(Self {
            last_ticket: AtomicI64::new(last_ticket),
            readers: Readers::new(files.readers),
            survey: Mutex::new(files.survey),
            hygiene: Mutex::new(files.hygiene),
            writer: Mutex::new(files.writer),
            crms: ArcSwap::from_pointee(crms),
            roster: ArcSwap::from_pointee(roster),
            rules: Mutex::new(rules),
            _lock: files.lock,
        })
    }

    /// Runs one transaction: all of `work` or nothing, on the disk before this returns.
    pub(super) fn write<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DirectoryError> {
        let mut writer = lock(&self.writer);
        let done = commit(&mut writer, work);
        self.readers.committed();
        if let Err(error) = self.readers.tend_log(&writer) {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                "cannot copy the directory's log into its file; trying again"
            );
        }
        done.map_err(store_error(doing))
    }

    /// Lets `work` read without holding up any lookup.
    pub(super) fn survey<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DirectoryError> {
        work(&lock(&self.survey)).map_err(store_error(doing))
    }

    /// See [`crate::directory::Directory::survey`].
    pub(super) fn survey_cards(&self) -> Result<Survey, DirectoryError> {
        let connection = lock(&self.hygiene);
        let roster = self.roster.load_full();
        hygiene::survey(&connection, &self.crms.load_full(), &roster)
            .map_err(store_error("was looking through its cards"))
    }

    /// The cards of one kind; `None` if the store has never heard of this CRM.
    pub(super) fn source(&self, crm: &CrmName, kind: EntityKind) -> Option<Source> {
        let crms = self.crms.load();
        let (number, _) = crms.iter().find(|(_, name)| *name == crm)?;
        Some(Source::new(*number, kind))
    }

    /// The CRM's number, given out now if it has none.
    ///
    /// In a transaction of its own, and known to readers before anything can refer to it.
    pub(super) fn number_of(&self, crm: &CrmName) -> Result<i64, DirectoryError> {
        let doing = "was adding a CRM";
        if let Some(source) = self.source(crm, EntityKind::Contact) {
            return Ok(source.crm());
        }
        self.write(doing, |transaction| writer::add_crm(transaction, crm))?;
        {
            // Holds the writer, so that a shorter list never follows a longer one.
            let writer = lock(&self.writer);
            let names = survey::crm_names(&writer).map_err(store_error(doing))?;
            self.crms.store(Arc::new(names));
        }
        self.source(crm, EntityKind::Contact)
            .map(Source::crm)
            .ok_or(rusqlite::Error::QueryReturnedNoRows)
            .map_err(store_error(doing))
    }

    /// See [`crate::directory::Directory::lookup`]; on the caller's thread.
    pub(super) fn lookup(&self, phone: E164, with_deals: bool) -> rusqlite::Result<Vec<Entity>> {
        self.readers
            .read(|connection| lookup::lookup(connection, phone, with_deals, &self.crms))
    }

    /// See [`crate::directory::Directory::replace_employees`].
    pub(super) fn replace_employees(
        &self,
        crm: &CrmName,
        staff: &Staff,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let number = self.number_of(crm)?;
        self.write("was storing employees", |transaction| {
            writer::replace_employees(transaction, number, staff, now)
        })?;
        self.rebuild_roster()
    }

    /// See [`crate::directory::Directory::add_employees`].
    pub(super) fn add_employees(
        &self,
        crm: &CrmName,
        employees: &[Employee],
    ) -> Result<(), DirectoryError> {
        let number = self.number_of(crm)?;
        self.write("was storing employees", |transaction| {
            writer::add_employees(transaction, number, employees)
        })?;
        self.rebuild_roster()
    }

    /// See [`crate::directory::Directory::set_own_row`].
    pub(super) fn set_own_row(
        &self,
        crm: &CrmName,
        id: &EmployeeId,
        row: Option<&OwnRow>,
    ) -> Result<(), DirectoryError> {
        if row.is_none() && self.source(crm, EntityKind::Contact).is_none() {
            return Ok(());
        }
        let number = self.number_of(crm)?;
        self.write("was storing what was set for an employee", |transaction| {
            own_rows::put(transaction, number, id, row)
        })?;
        self.rebuild_roster()
    }

    /// Holds the writer, so that an older state of the employees never follows a newer one.
    fn rebuild_roster(&self) -> Result<(), DirectoryError> {
        let writer = lock(&self.writer);
        let roster = survey::roster(&writer, &self.crms.load(), &lock(&self.rules))
            .map_err(store_error("was reading the employees"))?;
        self.roster.store(Arc::new(roster));
        Ok(())
    }

    /// See [`crate::directory::Directory::set_rules`].
    pub(super) fn set_rules(&self, rules: RosterRules) -> Result<(), DirectoryError> {
        let rules = Arc::new(rules);
        let writer = lock(&self.writer);
        let roster = survey::roster(&writer, &self.crms.load(), &rules)
            .map_err(store_error("was reading the employees"))?;
        *lock(&self.rules) = rules;
        self.roster.store(Arc::new(roster));
        Ok(())
    }

    /// See [`crate::directory::Directory::apply`].
    pub(super) fn apply(&self, change: &Change) -> Result<(), DirectoryError> {
        let source = Source::new(self.number_of(&change.crm)?, change.kind);
        let unread = change.unread.iter();
        let unread: HashMap<&EntityId, &str> =
            unread.map(|(id, text)| (id, text.as_str())).collect();
        self.write("was storing a page of cards", |transaction| {
            for (place, (card, phones)) in change.cards.iter().enumerate() {
                if place.is_multiple_of(CARDS_AT_A_STRETCH) {
                    background::step_aside();
                }
                writer::put(
                    transaction,
                    source,
                    card,
                    phones,
                    unread.get(&card.id).copied(),
                    change.walk,
                    change.keep_newer,
                )?;
            }
            match &change.state {
                Some(state) => writer::put_state(transaction, source, state),
                None => Ok(()),
            }
        })
    }

    /// See [`crate::directory::Directory::delete`].
    pub(super) fn delete(&self, source: Source, ids: &[EntityId]) -> Result<u64, DirectoryError> {
        let mut deleted = 0;
        for some in ids.chunks(CARDS_PER_SWEEP) {
            deleted += self.write("was deleting cards", |transaction| {
                let mut here = 0;
                for id in some {
                    here += writer::remove(transaction, source, &Key::of(id.as_str()), i64::MAX)?;
                }
                Ok(here)
            })?;
        }
        Ok(deleted)
    }

    /// See [`crate::directory::Directory::queue`].
    pub(super) fn queue(
        &self,
        crm: &CrmName,
        notices: &[Notice],
        cursor: Option<&str>,
        most: u64,
    ) -> Result<Queued, DirectoryError> {
        let crm = self.number_of(crm)?;
        self.write("was queueing notices", |transaction| {
            let waiting = queue::count(transaction, crm)?;
            if !notices.is_empty() && waiting.saturating_add(notices.len() as u64) > most {
                return Ok(Queued::Full);
            }
            for notice in notices {
                let ticket = self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1;
                queue::put(transaction, crm, notice, ticket)?;
            }
            if let Some(cursor) = cursor {
                queue::put_cursor(transaction, crm, cursor)?;
            }
            Ok(Queued::Yes)
        })
    }

    /// See [`crate::directory::Directory::settle`].
    pub(super) fn settle(
        &self,
        crm: &CrmName,
        waiting: &[Waiting],
        again: Option<Timestamp>,
    ) -> Result<(), DirectoryError> {
        let crm = self.number_of(crm)?;
        self.write("was settling notices", |transaction| {
            for one in waiting {
                queue::settle(transaction, crm, one, again)?;
            }
            Ok(())
        })
    }

    /// Deletes the cards whose mark is below `mark`, some at a time.
    ///
    /// What to delete is looked for without holding the writer; it is looked at again before it is
    /// deleted, as a page may have brought it back meanwhile.
    pub(super) fn sweep(&self, source: Source, mark: i64) -> Result<u64, DirectoryError> {
        let doing = "was deleting cards";
        let mut deleted = 0;
        let mut last = Key::FIRST;
        loop {
            let unseen = self.survey(doing, |connection| {
                survey::unseen_after(connection, source, mark, &last, CARDS_PER_SWEEP)
            })?;
            deleted += self.write(doing, |transaction| {
                let mut here = 0;
                for id in &unseen {
                    here += writer::remove(transaction, source, id, mark)?;
                }
                Ok(here)
            })?;
            match unseen.into_iter().next_back() {
                Some(id) => last = id,
                None => return Ok(deleted),
            }
        }
    }

    /// The state goes first: should the rest be cut short, the CRM is walked anew if it comes back.
    pub(super) fn forget(&self, crm: &CrmName) -> Result<(), DirectoryError> {
        let Some(any) = self.source(crm, EntityKind::Contact) else {
            return Ok(());
        };
        self.write("was forgetting a CRM", |transaction| {
            writer::forget_state(transaction, any.crm())
        })?;
        self.rebuild_roster()?;
        for kind in EntityKind::ALL {
            self.sweep(any.sibling(kind), i64::MAX)?;
        }
        Ok(())
    }
}

fn commit<T>(
    writer: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// Makes an error of the store out of SQLite's.
pub(super) fn store_error(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> DirectoryError {
    move |cause| DirectoryError::Store {
        doing,
        cause: Box::new(cause),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::directory::embedded::asked::Asked;
    use crate::directory::embedded::readers;
    use crate::directory::embedded::row::unpack_phones;
    use crate::record::{Card, Stage};

    fn store(folder: &std::path::Path) -> Store {
        let opening = Opening {
            data_dir: folder.to_owned(),
            rules: RosterRules::default(),
        };
        Store::open(&Settings::default(), opening).unwrap()
    }

    fn phone(number: u64) -> E164 {
        E164::from_digits(79_160_000_000 + number).unwrap()
    }

    /// A page of contacts `from..until`, each with a number of its own.
    fn page(from: u64, until: u64, name: &str) -> Change {
        let card = |id: u64| {
            let mut card = Card::new(EntityKind::Contact, EntityId::from(id));
            name.clone_into(&mut card.name);
            (card, vec![phone(id)])
        };
        Change {
            crm: CrmName::new("sales"),
            kind: EntityKind::Contact,
            cards: (from..until).map(card).collect(),
            walk: 1,
            unread: Vec::new(),
            keep_newer: None,
            state: None,
        }
    }

    fn name_at(store: &Store, number: u64) -> Option<String> {
        let found = store.lookup(phone(number), false).unwrap();
        found.into_iter().next().map(|entity| entity.name)
    }

    #[test]
    fn a_full_disk_stops_writes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.apply(&page(0, 1000, "before")).unwrap();
        let limit = |pages: i64| {
            lock(&store.writer)
                .pragma_update(None, "max_page_count", pages)
                .unwrap();
        };
        // SQLite takes the present size for the limit if that is larger.
        limit(1);

        let full = store.apply(&page(0, 5000, &"after".repeat(40)));

        let error = full.expect_err("the disk is full");
        let DirectoryError::Store { cause, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(cause.to_string().contains("full"), "{cause}");
        assert_eq!(name_at(&store, 0).as_deref(), Some("before"));
        assert_eq!(name_at(&store, 1000), None);
        limit(1_000_000);
        store.apply(&page(0, 5000, "after")).unwrap();
        assert_eq!(name_at(&store, 0).as_deref(), Some("after"));
        assert_eq!(name_at(&store, 4999).as_deref(), Some("after"));
    }

    #[test]
    fn the_log_stays_small_though_readers_never_pause() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        store.lookup(phone(reader), false).unwrap();
                    }
                });
            }
            for round in 0..40 {
                store
                    .apply(&page(0, 5000, &format!("{round} {}", "long ".repeat(40))))
                    .unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let log = std::fs::metadata(folder.path().join("directory.sqlite-wal")).unwrap();
        assert!(log.len() < 24 << 20, "{} bytes", log.len());
        assert!(name_at(&store, 4999).unwrap().starts_with("39 "));
    }

    #[test]
    fn the_log_stays_small_though_readers_have_fallen_asleep() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.apply(&page(0, 1, "first")).unwrap();
        for _ in 0..2 * READERS_MAX {
            std::thread::scope(|scope| {
                scope.spawn(|| store.lookup(phone(0), false).unwrap());
            });
        }
        for round in 0..40 {
            store
                .apply(&page(0, 5000, &format!("{round} {}", "long ".repeat(40))))
                .unwrap();
        }
        let log = std::fs::metadata(folder.path().join("directory.sqlite-wal")).unwrap();
        assert!(log.len() < 24 << 20, "{} bytes", log.len());
    }

    #[test]
    fn a_card_that_is_as_it_was_costs_a_mark() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.apply(&page(0, 5000, &"long ".repeat(40))).unwrap();
        let pages = |store: &Store| {
            let writer = lock(&store.writer);
            writer
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .unwrap();
            drop(writer);
            let mut again = page(0, 5000, &"long ".repeat(40));
            again.walk = 2;
            store.apply(&again).unwrap();
            let log = readers::checkpoint(&lock(&store.writer), readers::Checkpoint::Look);
            log.unwrap().pages
        };
        // 5000 cards fill 300 pages of entities, 300 of callers and 20 of marks.
        assert!(pages(&store) < 40);
    }

    /// What must lie under each number, as the cards say: the packed cards, and those of a crowd.
    type Index = (BTreeMap<i64, Vec<u8>>, Vec<(i64, i64)>);

    fn index_by_cards(connection: &Connection) -> Index {
        let mut statement = connection
            .prepare(
                "SELECT entity, source, id, name, company, responsible, modified, stage, links,
                    fields, phones FROM entities WHERE phones IS NOT NULL ORDER BY entity",
            )
            .unwrap();
        let mut rows = statement.query([]).unwrap();
        let mut cards: BTreeMap<i64, Vec<(i64, Vec<u8>)>> = BTreeMap::new();
        while let Some(row) = rows.next().unwrap() {
            let card = Asked::read(row).unwrap();
            for phone in unpack_phones(row.get_ref(10).unwrap().as_blob().unwrap()) {
                let packed = card.pack().unwrap();
                cards.entry(phone).or_default().push((card.entity, packed));
            }
        }
        let mut crowded = Vec::new();
        let mut packed = |(phone, cards): (i64, Vec<(i64, Vec<u8>)>)| {
            let few = cards.len() <= 8;
            if !few {
                crowded.extend(cards.iter().map(|(entity, _)| (phone, *entity)));
            }
            let cards = cards.into_iter().filter(|_| few);
            (phone, cards.flat_map(|(_, packed)| packed).collect())
        };
        let callers = cards.into_iter().map(&mut packed).collect();
        (callers, crowded)
    }

    fn index(connection: &Connection) -> Index {
        let read = |sql: &str| connection.prepare(sql).unwrap();
        let callers = read("SELECT phone, cards FROM callers")
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<rusqlite::Result<_>>();
        let crowded = read("SELECT phone, entity FROM crowded ORDER BY phone, entity")
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<rusqlite::Result<_>>();
        (callers.unwrap(), crowded.unwrap())
    }

    #[test]
    fn what_lies_under_a_number_is_what_lies_in_its_cards() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut random: u64 = 1;
        let mut draw = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        let mut crowds = 0;
        for walk in 1..=300 {
            let mut change = page(0, 24, "somebody");
            change.walk = walk;
            for (card, phones) in &mut change.cards {
                card.name = format!("name {}", draw(3));
                card.company = (draw(3) == 0).then(|| format!("company {}", draw(2)));
                card.stage = match draw(3) {
                    0 => Stage::Open,
                    1 => Stage::Closed,
                    _ => Stage::Junk,
                };
                if draw(3) == 0 {
                    card.fields.insert("city".to_owned(), draw(2).to_string());
                }
                // Some numbers become crowded and cease to be.
                let numbers = if walk % 50 < 25 { 4 } else { 40 };
                *phones = (0..draw(4)).map(|_| phone(draw(numbers))).collect();
            }
            store.apply(&change).unwrap();
            if draw(4) == 0 {
                let source = store.source(&change.crm, change.kind).unwrap();
                let gone: Vec<_> = (0..draw(20)).map(|_| EntityId::from(draw(24))).collect();
                store.delete(source, &gone).unwrap();
            }
            let writer = lock(&store.writer);
            let stored = index(&writer);
            assert_eq!(stored, index_by_cards(&writer), "walk {walk}");
            crowds += u32::from(!stored.1.is_empty());
        }
        assert!((50..250).contains(&crowds), "{crowds} of 300");
    }

    #[test]
    fn a_number_in_every_card_is_answered_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut change = page(0, 6000, "everybody");
        for (_, phones) in &mut change.cards {
            *phones = vec![phone(1)];
        }
        store.apply(&change).unwrap();
        assert_eq!(store.lookup(phone(1), true).unwrap().len(), 5000);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.apply(&page(0, 10, "before")).unwrap();
        lock(&store.writer)
            .execute_batch(
                "UPDATE callers SET cards = CAST(x'0b' || substr(cards, 2) AS BLOB)
                WHERE phone = 79160000001",
            )
            .unwrap();
        store.readers.committed();
        let error = store
            .lookup(phone(1), false)
            .expect_err("the card is shorter");
        assert!(matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
        ));
        assert_eq!(name_at(&store, 2).as_deref(), Some("before"));
    }
}
