//! A phone's entities, read from the embedded store. On the path of every call.

use std::collections::HashSet;

use rusqlite::Connection;

use super::asked::{Asked, unpack};
use super::callers;
use super::row::{Found, phone_key};
use super::store::CrmNames;
use crate::phone::E164;
use crate::record::{Entity, EntityKind};

/// A number found in more cards than this is nobody's (a placeholder typed into every card): the
/// oldest entries of the mirror are answered, so that one call cannot hold up all others.
const ENTITIES_MAX: usize = 5000;

/// The cards of a number that is in many. The columns are those of [`Asked::read`].
const CROWD: &str = "
SELECT e.entity, e.source, e.id, e.name, e.company, e.responsible, e.modified, e.stage, e.links,
    e.fields
FROM crowded c JOIN entities e ON e.entity = c.entity WHERE c.phone = ?1 ORDER BY c.entity";
/// The deals of a contact or company.
const DEALS_OF: &str = "
SELECT e.entity, e.source, e.id, e.name, e.company, e.responsible, e.modified, e.stage, e.links,
    e.fields
FROM links l JOIN entities e ON e.entity = l.deal WHERE l.source = ?1 AND l.id = ?2";
/// The name of a card.
const NAME_OF: &str = "
SELECT e.name FROM cards c JOIN entities e ON e.entity = c.entity
WHERE c.source = ?1 AND c.id = ?2";

/// Reads all entities that have this number.
///
/// `connection` is inside a transaction, so that all of it is of one moment. `crms` is looked at
/// after a row is read: a CRM has its name there before a row can refer to it.
pub(super) fn lookup(
    connection: &Connection,
    phone: E164,
    with_deals: bool,
    crms: &CrmNames,
) -> rusqlite::Result<Vec<Entity>> {
    let phone = phone_key(phone);
    let few = callers::read(connection, phone, |cards| {
        let crms = crms.load();
        unpack(cards)
            .map(|card| Found::of(card?, &crms))
            .collect::<rusqlite::Result<Vec<_>>>()
    })?;
    let Some(mut found) = few else {
        return Ok(Vec::new());
    };
    if found.is_empty() {
        found = select(connection, CROWD, [phone], ENTITIES_MAX, crms)?;
    }
    if with_deals {
        add_deals(connection, &mut found, crms)?;
    }
    for card in &mut found {
        name_company(connection, card)?;
    }
    Ok(found.into_iter().map(|card| card.entity).collect())
}

fn select(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    limit: usize,
    crms: &CrmNames,
) -> rusqlite::Result<Vec<Found>> {
    connection
        .prepare_cached(sql)?
        .query_map(parameters, |row| Found::of(Asked::read(row)?, &crms.load()))?
        .take(limit)
        .collect()
}

/// Adds the deals that name one of `found`, each once.
fn add_deals(
    connection: &Connection,
    found: &mut Vec<Found>,
    crms: &CrmNames,
) -> rusqlite::Result<()> {
    let mut known: HashSet<i64> = found.iter().map(|card| card.number).collect();
    let mut added = Vec::new();
    let mut room = ENTITIES_MAX;
    for card in &*found {
        for deal in select(connection, DEALS_OF, (card.source.0, &card.id), room, crms)? {
            room = room.saturating_sub(1);
            if known.insert(deal.number) {
                added.push(deal);
            }
        }
    }
    found.append(&mut added);
    Ok(())
}

/// Fills in the company's name where the card lacks one and its company is in the mirror.
fn name_company(connection: &Connection, card: &mut Found) -> rusqlite::Result<()> {
    let Some(id) = card.missing_company()? else {
        return Ok(());
    };
    let company = card.source.sibling(EntityKind::Company);
    let mut statement = connection.prepare_cached(NAME_OF)?;
    let mut rows = statement.query((company.0, id))?;
    if let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        if !name.is_empty() {
            card.entity.company = Some(name);
        }
    }
    Ok(())
}
