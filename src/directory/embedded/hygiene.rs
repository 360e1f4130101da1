//! Looks through all cards for what somebody should mend in the CRM.
//!
//! Reads a stretch at a time, each in a transaction of its own: a long one would keep the log from
//! being emptied. What changes meanwhile may be counted as it was before or after.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::callers;
use super::row::{Key, Source};
use crate::directory::{
    CardRef, Colleague, Left, LeftCard, Roster, SharedNumber, Survey, Tally, UnreadNumber,
};
use crate::phone::E164;
use crate::record::{CrmName, EmployeeId, EntityId};

/// Rows of one stretch: some 100 ms.
const STRETCH: i64 = 20_000;
/// Cards of one number that are looked at; a number in more is a placeholder.
const MOST_CARDS: i64 = 1000;
/// Responsibles whose standing is remembered: more than any CRM has users.
const MOST_KNOWN: usize = 100_000;

/// Looks through everything.
pub(super) fn survey(
    connection: &Connection,
    crms: &HashMap<i64, CrmName>,
    roster: &Roster,
) -> rusqlite::Result<Survey> {
    let mut people = People {
        crms,
        roster,
        known: HashMap::new(),
    };
    Ok(Survey {
        shared: shared(connection, &mut people)?,
        left: left(connection, &mut people)?,
        unread: unread(connection, &people)?,
    })
}

/// Who the responsibles are.
struct People<'a> {
    crms: &'a HashMap<i64, CrmName>,
    roster: &'a Roster,
    known: HashMap<(i64, Key), Standing>,
}

/// How a responsible stands.
#[derive(Clone)]
enum Standing {
    Works(Arc<Colleague>),
    Left(Left),
    /// The configuration lacks this CRM, or its employees are not read yet.
    Untold,
}

impl People<'_> {
    fn standing(&mut self, crm: i64, responsible: Key) -> Standing {
        let wanted = (crm, responsible);
        if let Some(standing) = self.known.get(&wanted) {
            return standing.clone();
        }
        let standing = self.look_up(crm, &wanted.1);
        if self.known.len() < MOST_KNOWN {
            self.known.insert(wanted, standing.clone());
        }
        standing
    }

    fn look_up(&self, crm: i64, responsible: &Key) -> Standing {
        let Some(crm) = self.crms.get(&crm).filter(|crm| self.roster.knows(crm)) else {
            return Standing::Untold;
        };
        match self.roster.get(crm, &EmployeeId::new(&responsible.text())) {
            None => Standing::Left(Left::Unknown),
            Some(colleague) if colleague.active => Standing::Works(Arc::clone(colleague)),
            Some(_) => Standing::Left(Left::Dismissed),
        }
    }

    /// Reads a row of `source, id, name, responsible` from `at` on; `None` where the configuration
    /// lacks the CRM.
    fn card(&self, row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Option<CardRef>> {
        let source = Source(row.get(at)?);
        let crm = self.crms.get(&source.crm());
        let crm = crm.filter(|crm| self.roster.knows(crm));
        let (Some(crm), Some(kind)) = (crm, source.kind()) else {
            return Ok(None);
        };
        let id: Key = row.get(at + 1)?;
        let responsible: Option<Key> = row.get(at + 3)?;
        Ok(Some(CardRef {
            crm: crm.clone(),
            kind,
            id: EntityId::new(&id.text()),
            name: row.get(at + 2)?,
            responsible: responsible.map(|id| EmployeeId::new(&id.text())),
        }))
    }
}

/// Numbers with several responsibles. Most numbers stand in one card: those cost a row of the table.
fn shared(
    connection: &Connection,
    people: &mut People<'_>,
) -> rusqlite::Result<Tally<SharedNumber>> {
    let mut tally = Tally::default();
    let mut last: i64 = 0;
    loop {
        let stretch = connection.unchecked_transaction()?;
        let before = last;
        let mut statement = stretch.prepare_cached(
            "SELECT phone, cards FROM callers WHERE phone > ?1 ORDER BY phone LIMIT ?2",
        )?;
        let mut rows = statement.query([last, STRETCH])?;
        while let Some(row) = rows.next()? {
            last = row.get(0)?;
            let entities = match row.get_ref(1)?.as_blob()? {
                [] => callers::crowd(&stretch, last, MOST_CARDS)?,
                few => callers::entities(few)?,
            };
            judge(&stretch, people, last, &entities, &mut tally)?;
        }
        if last == before {
            return Ok(tally);
        }
    }
}

/// Counts a number if its cards have several responsibles.
fn judge(
    connection: &Connection,
    people: &mut People<'_>,
    phone: i64,
    entities: &[i64],
    tally: &mut Tally<SharedNumber>,
) -> rusqlite::Result<()> {
    if entities.len() < 2 {
        return Ok(());
    }
    let mut find = connection.prepare_cached(
        "SELECT source, responsible FROM entities WHERE entity = ?1 AND stage = 0",
    )?;
    let mut responsibles: Vec<Arc<Colleague>> = Vec::new();
    let mut theirs = Vec::new();
    for entity in entities {
        let mut rows = find.query([entity])?;
        let Some(row) = rows.next()? else {
            continue;
        };
        let Some(responsible) = row.get::<_, Option<Key>>(1)? else {
            continue;
        };
        let crm = Source(row.get(0)?).crm();
        if let Standing::Works(who) = people.standing(crm, responsible) {
            theirs.push(*entity);
            if !responsibles.iter().any(|one| one.is_same_person(&who)) {
                responsibles.push(who);
            }
        }
    }
    let Some(phone) = E164::from_digits(phone.unsigned_abs()) else {
        return Ok(());
    };
    if responsibles.len() < 2 {
        return Ok(());
    }
    if !tally.has_room() {
        tally.count();
        return Ok(());
    }
    let mut read = connection
        .prepare_cached("SELECT source, id, name, responsible FROM entities WHERE entity = ?1")?;
    let mut cards = Vec::new();
    for entity in theirs.iter().take(SharedNumber::MOST_CARDS) {
        cards.extend(read.query_row([entity], |row| people.card(row, 0))?);
    }
    tally.add(SharedNumber { phone, cards });
    Ok(())
}

/// Cards whose responsible takes no call.
fn left(connection: &Connection, people: &mut People<'_>) -> rusqlite::Result<Tally<LeftCard>> {
    let mut tally = Tally::default();
    let mut last: i64 = 0;
    loop {
        // By the number, not by how many were found: then a stretch is short also where few are open.
        let highest: Option<i64> =
            connection.query_row("SELECT max(entity) FROM entities", [], |row| row.get(0))?;
        if highest.is_none_or(|highest| last >= highest) {
            return Ok(tally);
        }
        let until = last.saturating_add(STRETCH);
        let mut statement = connection.prepare_cached(
            "SELECT source, id, name, responsible FROM entities
            WHERE entity > ?1 AND entity <= ?2 AND stage = 0 AND responsible IS NOT NULL",
        )?;
        let mut rows = statement.query([last, until])?;
        while let Some(row) = rows.next()? {
            let crm = Source(row.get(0)?).crm();
            let Standing::Left(why) = people.standing(crm, row.get(3)?) else {
                continue;
            };
            if !tally.has_room() {
                tally.count();
            } else if let Some(card) = people.card(row, 0)? {
                tally.add(LeftCard { card, why });
            }
        }
        last = until;
    }
}

/// Cards with something in a phone field that is no number.
fn unread(connection: &Connection, people: &People<'_>) -> rusqlite::Result<Tally<UnreadNumber>> {
    let mut tally = Tally::default();
    let mut last: i64 = 0;
    loop {
        let mut statement = connection.prepare_cached(
            "SELECT u.entity, u.text, e.source, e.id, e.name, e.responsible, e.stage
            FROM unread u JOIN entities e ON e.entity = u.entity
            WHERE u.entity > ?1 ORDER BY u.entity LIMIT ?2",
        )?;
        let mut rows = statement.query([last, STRETCH])?;
        let before = last;
        while let Some(row) = rows.next()? {
            last = row.get(0)?;
            let is_open = row.get::<_, i64>(6)? == 0;
            if let Some(card) = people.card(row, 2)?.filter(|_| is_open) {
                let text = row.get(1)?;
                tally.add(UnreadNumber { card, text });
            }
        }
        if last == before {
            return Ok(tally);
        }
    }
}
