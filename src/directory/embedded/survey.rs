//! What the embedded store reads off a call's path: names, states, counts, employees.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::asked::unpack;
use super::row::{Key, KeyRef, Source, unpack_phones, unreadable};
use super::store::CrmNames;
use super::{callers, own_rows};
use crate::directory::{Count, Roster, RosterRules, SyncState, Unseen};
use crate::record::{CrmName, Department, Employee, EntityId};

/// A number in more cards than this is a placeholder, not a merged client's.
const KIN_MAX: usize = 1000;

/// The numbers of all CRMs ever met.
pub(super) fn crm_names(connection: &Connection) -> rusqlite::Result<HashMap<i64, CrmName>> {
    connection
        .prepare("SELECT crm, name FROM crms")?
        .query_map([], |row| {
            let name: String = row.get(1)?;
            Ok((row.get(0)?, CrmName::new(&name)))
        })?
        .collect()
}

/// The CRMs of which there is anything, by name.
pub(super) fn crms(connection: &Connection) -> rusqlite::Result<Vec<CrmName>> {
    connection
        .prepare(
            "SELECT name FROM crms c WHERE EXISTS (SELECT 1 FROM employees e WHERE e.crm = c.crm)
                OR EXISTS (SELECT 1 FROM own_rows o WHERE o.crm = c.crm)
                OR EXISTS (SELECT 1 FROM cards
                    WHERE source >= c.crm * ?1 AND source < (c.crm + 1) * ?1)
                OR EXISTS (SELECT 1 FROM sync_state
                    WHERE source >= c.crm * ?1 AND source < (c.crm + 1) * ?1)
            ORDER BY name",
        )?
        .query_map([Source::KINDS_PER_CRM], |row| {
            Ok(CrmName::new(&row.get::<_, String>(0)?))
        })?
        .collect()
}

/// All employees and departments of all CRMs, put together with what was set on the page.
pub(super) fn roster(
    connection: &Connection,
    crms: &HashMap<i64, CrmName>,
    rules: &Arc<RosterRules>,
) -> rusqlite::Result<Roster> {
    let mut statement = connection.prepare("SELECT crm, json FROM employees ORDER BY crm, id")?;
    let mut rows = statement.query([])?;
    let mut employees: Vec<(&CrmName, Employee)> = Vec::new();
    while let Some(row) = rows.next()? {
        let json = row.get_ref(1)?.as_str()?;
        if let Some(crm) = crms.get(&row.get(0)?) {
            employees.push((crm, serde_json::from_str(json).map_err(unreadable)?));
        }
    }
    let mut statement = connection.prepare("SELECT crm, json FROM departments")?;
    let mut rows = statement.query([])?;
    let mut departments: Vec<(&CrmName, Vec<Department>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let json = row.get_ref(1)?.as_str()?;
        if let Some(crm) = crms.get(&row.get(0)?) {
            departments.push((crm, serde_json::from_str(json).map_err(unreadable)?));
        }
    }
    let employees = employees.iter().map(|(crm, employee)| (*crm, employee));
    let own_rows = own_rows::all(connection, crms)?;
    Ok(Roster::build(employees, departments, &own_rows, rules))
}

/// The state of one sync.
pub(super) fn state(connection: &Connection, source: Source) -> rusqlite::Result<SyncState> {
    let json: Option<String> = connection
        .prepare_cached("SELECT json FROM sync_state WHERE source = ?1")?
        .query_row([source.0], |row| row.get(0))
        .optional()?;
    json.map_or_else(
        || Ok(SyncState::default()),
        |json| serde_json::from_str(&json).map_err(unreadable),
    )
}

/// Reads the whole index of one kind.
pub(super) fn count_unseen(
    connection: &Connection,
    source: Source,
    mark: i64,
) -> rusqlite::Result<Unseen> {
    connection
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE walk < ?2), count(*) FROM cards WHERE source = ?1",
        )?
        .query_row([source.0, mark], |row| {
            Ok(Unseen {
                unseen: row.get::<_, i64>(0)?.unsigned_abs(),
                total: row.get::<_, i64>(1)?.unsigned_abs(),
            })
        })
}

/// The next cards below `mark`, in the order of their ids; at most `limit`.
pub(super) fn unseen_after(
    connection: &Connection,
    source: Source,
    mark: i64,
    after: &Key,
    limit: usize,
) -> rusqlite::Result<Vec<Key>> {
    connection
        .prepare_cached(
            "SELECT id FROM cards WHERE source = ?1 AND id > ?3 AND walk < ?2
            ORDER BY id",
        )?
        .query_map(params![source.0, mark, after], |row| row.get(0))?
        .take(limit)
        .collect()
}

/// Which of these cards are there.
pub(super) fn known(
    connection: &Connection,
    source: Source,
    ids: &[EntityId],
) -> rusqlite::Result<Vec<EntityId>> {
    let mut find =
        connection.prepare_cached("SELECT 1 FROM cards WHERE source = ?1 AND id = ?2")?;
    let mut known = Vec::new();
    for id in ids {
        if find.exists(params![source.0, Key::of(id.as_str())])? {
            known.push(id.clone());
        }
    }
    Ok(known)
}

/// The other cards of the same CRM and kind that share a number with this one.
pub(super) fn kin(
    connection: &Connection,
    source: Source,
    id: &EntityId,
) -> rusqlite::Result<Vec<EntityId>> {
    let own = Key::of(id.as_str());
    let packed: Option<Option<Vec<u8>>> = connection
        .prepare_cached(
            "SELECT e.phones FROM cards c JOIN entities e ON e.entity = c.entity
            WHERE c.source = ?1 AND c.id = ?2",
        )?
        .query_row(params![source.0, own], |row| row.get(0))
        .optional()?;
    let mut kin: Vec<EntityId> = Vec::new();
    let mut add = |key: KeyRef<'_>| {
        let id = key.told(EntityId::new);
        if kin.len() < KIN_MAX && !kin.contains(&id) {
            kin.push(id);
        }
    };
    let mut crowd = connection.prepare_cached(
        "SELECT e.id FROM crowded c JOIN entities e ON e.entity = c.entity
        WHERE c.phone = ?1 AND e.source = ?2 AND e.id <> ?3 ORDER BY c.entity",
    )?;
    for phone in unpack_phones(&packed.flatten().unwrap_or_default()) {
        let is_crowd = callers::read(connection, phone, |cards| {
            for card in unpack(cards) {
                let card = card?;
                if card.source == source && card.id != own.lent() {
                    add(card.id);
                }
            }
            Ok(cards.is_empty())
        })?;
        if is_crowd == Some(true) {
            let found = crowd.query_map(params![phone, source.0, own], |row| row.get(0))?;
            for key in found.take(KIN_MAX) {
                add(Key::lent(&key?));
            }
        }
    }
    Ok(kin)
}

/// When the employees of a CRM were stored last.
pub(super) fn employees_at(
    connection: &Connection,
    crm: i64,
) -> rusqlite::Result<Option<Timestamp>> {
    let second: Option<i64> = connection
        .prepare_cached("SELECT employees_at FROM crms WHERE crm = ?1")?
        .query_row([crm], |row| row.get(0))?;
    Ok(second.and_then(|second| Timestamp::from_second(second).ok()))
}

/// Reads the whole index of cards.
pub(super) fn counts(connection: &Connection, crms: &CrmNames) -> rusqlite::Result<Vec<Count>> {
    let counted: rusqlite::Result<Vec<(i64, i64)>> = connection
        .prepare_cached("SELECT source, count(*) FROM cards GROUP BY source ORDER BY source")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect();
    let crms = crms.load();
    let named = |(source, cards): (i64, i64)| {
        let source = Source(source);
        Some(Count {
            crm: crms.get(&source.crm())?.clone(),
            kind: source.kind()?,
            cards: cards.unsigned_abs(),
        })
    };
    Ok(counted?.into_iter().filter_map(named).collect())
}
