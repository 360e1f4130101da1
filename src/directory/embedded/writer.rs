//! What a transaction of the embedded store writes. Every function runs inside one.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::callers;
use super::row::{Key, Row, Source, unpack_links, unwritable};
use crate::directory::SyncState;
use crate::phone::E164;
use crate::record::{Card, CrmName, Employee, EntityKind, Staff};

/// Where a card lies, and in which walk it was last seen.
struct Place {
    entity: i64,
    walk: i64,
}

/// A walk as a mark in the table of cards; the largest number stays above all marks.
pub(super) fn mark(walk: u64) -> i64 {
    i64::try_from(walk).map_or(i64::MAX - 1, |mark| mark.min(i64::MAX - 1))
}

/// Gives a CRM its number, unless it has one.
pub(super) fn add_crm(transaction: &Transaction<'_>, crm: &CrmName) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO crms (name) VALUES (?1) ON CONFLICT DO NOTHING")?
        .execute([crm.as_str()])
        .map(drop)
}

/// Stores a card in place of the one of the same name, if there is one.
///
/// Most cards of a walk are as they were: those cost a mark and nothing else. A mark never goes
/// back: a live lookup may know only of the walk before the one that has seen the card meanwhile.
/// `unread` is what stands in its phone fields and is no number; it and `keep_newer` are those of
/// [`crate::directory::Change`].
pub(super) fn put(
    transaction: &Transaction<'_>,
    source: Source,
    card: &Card,
    phones: &[E164],
    unread: Option<&str>,
    walk: u64,
    keep_newer: Option<Timestamp>,
) -> rusqlite::Result<()> {
    let id = Key::of(card.id.as_str());
    let row = Row::pack(card, phones)?;
    let Some(place) = find(transaction, source, &id)? else {
        let entity = insert(transaction, source, &id, &row, mark(walk))?;
        return match unread {
            Some(_) => put_unread(transaction, entity, unread),
            None => Ok(()),
        };
    };
    let old = read_row(transaction, place.entity)?;
    if !is_newer(&old, &row, keep_newer) {
        if old != row {
            replace(transaction, source, &id, place.entity, &old, &row)?;
        }
        put_unread(transaction, place.entity, unread)?;
    }
    if place.walk < mark(walk) {
        transaction
            .prepare_cached("UPDATE cards SET walk = ?3 WHERE source = ?1 AND id = ?2")?
            .execute(params![source.0, id, mark(walk)])?;
    }
    Ok(())
}

/// Says whether the stored row is younger than the one given, and young enough to count.
fn is_newer(old: &Row, new: &Row, keep_newer: Option<Timestamp>) -> bool {
    let instant = |row: &Row| row.modified.as_ref().and_then(Key::instant);
    match (instant(old), instant(new), keep_newer) {
        (Some(old), Some(new), Some(from)) => old > new && old >= from,
        _ => false,
    }
}

/// Deletes a card with all that leads to it, if it is there and its mark is below `mark`; says how
/// many were deleted.
pub(super) fn remove(
    transaction: &Transaction<'_>,
    source: Source,
    id: &Key,
    mark: i64,
) -> rusqlite::Result<u64> {
    let Some(Place { entity, walk }) = find(transaction, source, id)? else {
        return Ok(0);
    };
    if walk >= mark {
        return Ok(0);
    }
    let row = read_row(transaction, entity)?;
    for phone in row.phone_keys() {
        callers::remove(transaction, phone, entity)?;
    }
    remove_links(transaction, source, entity, &row)?;
    put_unread(transaction, entity, None)?;
    transaction
        .prepare_cached("DELETE FROM entities WHERE entity = ?1")?
        .execute([entity])?;
    transaction
        .prepare_cached("DELETE FROM cards WHERE source = ?1 AND id = ?2")?
        .execute(params![source.0, id])?;
    Ok(1)
}

/// Replaces the state of one sync.
pub(super) fn put_state(
    transaction: &Transaction<'_>,
    source: Source,
    state: &SyncState,
) -> rusqlite::Result<()> {
    let json = serde_json::to_string(state).map_err(unwritable)?;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO sync_state (source, json) VALUES (?1, ?2)")?
        .execute(params![source.0, json])
        .map(drop)
}

/// Puts the employees and departments of one CRM in place of its former ones; of two employees with
/// one id the last counts.
pub(super) fn replace_employees(
    transaction: &Transaction<'_>,
    crm: i64,
    staff: &Staff,
    now: Timestamp,
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM employees WHERE crm = ?1", [crm])?;
    let mut insert = transaction
        .prepare_cached("INSERT OR REPLACE INTO employees (crm, id, json) VALUES (?1, ?2, ?3)")?;
    for employee in &staff.employees {
        let json = serde_json::to_string(employee).map_err(unwritable)?;
        insert.execute(params![crm, employee.id.as_str(), json])?;
    }
    let departments = serde_json::to_string(&staff.departments).map_err(unwritable)?;
    transaction.execute(
        "INSERT OR REPLACE INTO departments (crm, json) VALUES (?1, ?2)",
        params![crm, departments],
    )?;
    transaction
        .execute(
            "UPDATE crms SET employees_at = ?2 WHERE crm = ?1",
            params![crm, now.as_second()],
        )
        .map(drop)
}

/// Adds employees of one CRM; those whose id is there already stay as they are.
pub(super) fn add_employees(
    transaction: &Transaction<'_>,
    crm: i64,
    employees: &[Employee],
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO employees (crm, id, json) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    for employee in employees {
        let json = serde_json::to_string(employee).map_err(unwritable)?;
        insert.execute(params![crm, employee.id.as_str(), json])?;
    }
    Ok(())
}

/// Removes what is known of a CRM besides its cards.
pub(super) fn forget_state(transaction: &Transaction<'_>, crm: i64) -> rusqlite::Result<()> {
    for kind in EntityKind::ALL {
        let source = Source::new(crm, kind);
        transaction.execute("DELETE FROM sync_state WHERE source = ?1", [source.0])?;
    }
    super::queue::forget(transaction, crm)?;
    super::own_rows::forget(transaction, crm)?;
    transaction.execute("DELETE FROM departments WHERE crm = ?1", [crm])?;
    transaction.execute("DELETE FROM employees WHERE crm = ?1", [crm])?;
    transaction
        .execute("UPDATE crms SET employees_at = NULL WHERE crm = ?1", [crm])
        .map(drop)
}

fn find(
    transaction: &Transaction<'_>,
    source: Source,
    id: &Key,
) -> rusqlite::Result<Option<Place>> {
    transaction
        .prepare_cached("SELECT entity, walk FROM cards WHERE source = ?1 AND id = ?2")?
        .query_row(params![source.0, id], |row| {
            Ok(Place {
                entity: row.get(0)?,
                walk: row.get(1)?,
            })
        })
        .optional()
}

fn read_row(transaction: &Transaction<'_>, entity: i64) -> rusqlite::Result<Row> {
    transaction
        .prepare_cached(
            "SELECT name, company, responsible, modified, stage, phones, links, fields
            FROM entities WHERE entity = ?1",
        )?
        .query_row([entity], Row::read)
}

fn insert(
    transaction: &Transaction<'_>,
    source: Source,
    id: &Key,
    row: &Row,
    mark: i64,
) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO entities (source, id, name, company, responsible, modified, stage,
                phones, links, fields)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            source.0,
            id,
            row.name,
            row.company,
            row.responsible,
            row.modified,
            row.stage,
            row.phones,
            row.links,
            row.fields
        ])?;
    let entity = transaction.last_insert_rowid();
    transaction
        .prepare_cached("INSERT INTO cards (source, id, walk, entity) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![source.0, id, mark, entity])?;
    let packed = row.asked(entity, source, id).pack()?;
    for phone in row.phone_keys() {
        callers::put(transaction, phone, entity, &packed)?;
    }
    add_links(transaction, source, entity, row)?;
    Ok(entity)
}

/// Only few cards have any: nothing is written for the others.
fn put_unread(
    transaction: &Transaction<'_>,
    entity: i64,
    unread: Option<&str>,
) -> rusqlite::Result<()> {
    match unread {
        None => transaction
            .prepare_cached("DELETE FROM unread WHERE entity = ?1")?
            .execute([entity]),
        Some(text) => transaction
            .prepare_cached(
                "INSERT INTO unread (entity, text) VALUES (?1, ?2)
                ON CONFLICT DO UPDATE SET text = excluded.text WHERE text <> excluded.text",
            )?
            .execute(params![entity, text]),
    }
    .map(drop)
}

fn replace(
    transaction: &Transaction<'_>,
    source: Source,
    id: &Key,
    entity: i64,
    old: &Row,
    new: &Row,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE entities SET name = ?2, company = ?3, responsible = ?4, modified = ?5,
                stage = ?6, phones = ?7, links = ?8, fields = ?9 WHERE entity = ?1",
        )?
        .execute(params![
            entity,
            new.name,
            new.company,
            new.responsible,
            new.modified,
            new.stage,
            new.phones,
            new.links,
            new.fields
        ])?;
    let (gone, kept) = (old.phone_keys(), new.phone_keys());
    for phone in gone.into_iter().filter(|phone| !kept.contains(phone)) {
        callers::remove(transaction, phone, entity)?;
    }
    let packed = new.asked(entity, source, id).pack()?;
    for phone in kept {
        callers::put(transaction, phone, entity, &packed)?;
    }
    if old.links != new.links {
        remove_links(transaction, source, entity, old)?;
        add_links(transaction, source, entity, new)?;
    }
    Ok(())
}

fn add_links(
    transaction: &Transaction<'_>,
    source: Source,
    deal: i64,
    row: &Row,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO links (source, id, deal) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    for (kind, id) in links_of_deal(source, row)? {
        insert.execute(params![source.sibling(kind).0, id, deal])?;
    }
    Ok(())
}

fn remove_links(
    transaction: &Transaction<'_>,
    source: Source,
    deal: i64,
    row: &Row,
) -> rusqlite::Result<()> {
    let mut delete = transaction
        .prepare_cached("DELETE FROM links WHERE source = ?1 AND id = ?2 AND deal = ?3")?;
    for (kind, id) in links_of_deal(source, row)? {
        delete.execute(params![source.sibling(kind).0, id, deal])?;
    }
    Ok(())
}

/// Only deals are looked for from the other end; a contact's company is found by the contact.
fn links_of_deal(source: Source, row: &Row) -> rusqlite::Result<Vec<(EntityKind, Key)>> {
    match source.kind() {
        Some(EntityKind::Deal) => unpack_links(row.links.as_ref()),
        _ => Ok(Vec::new()),
    }
}
