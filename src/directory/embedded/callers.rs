//! The index of cards by number: one row holds what a call asks of all cards that have it.
//!
//! So a lookup finds its row in a tree that is keyed by integers and whose inner pages hold nothing
//! else, and reads one leaf. A number in more cards than [`CARDS_MAX`] has a row without cards, and
//! its cards are named in `crowded`: otherwise each change of one card of a placeholder would write
//! them all.

use rusqlite::{Connection, OptionalExtension, Transaction};

use super::asked::{Asked, split};

/// A number in more cards than this is crowded.
const CARDS_MAX: usize = 8;
/// As many of a crowded number's cards as tell that it still is crowded.
const MORE_THAN_FEW: i64 = 9;
const _: () = assert!(MORE_THAN_FEW.unsigned_abs() == CARDS_MAX as u64 + 1);

/// Lets `read` look at the packed cards of a number; `None` where no card has it. Nothing but an empty
/// slice means that it is crowded.
pub(super) fn read<T>(
    connection: &Connection,
    phone: i64,
    read: impl FnOnce(&[u8]) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    let mut statement = connection.prepare_cached("SELECT cards FROM callers WHERE phone = ?1")?;
    let mut rows = statement.query([phone])?;
    match rows.next()? {
        Some(row) => read(row.get_ref(0)?.as_blob()?).map(Some),
        None => Ok(None),
    }
}

/// Which cards these are.
pub(super) fn entities(cards: &[u8]) -> rusqlite::Result<Vec<i64>> {
    split(cards).map(|card| Ok(card?.entity)).collect()
}

/// The oldest cards of a crowded number.
pub(super) fn crowd(connection: &Connection, phone: i64, most: i64) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached("SELECT entity FROM crowded WHERE phone = ?1 ORDER BY entity LIMIT ?2")?
        .query_map([phone, most], |row| row.get(0))?
        .collect()
}

/// Puts a card where this number leads, in place of what stood there of the same card.
pub(super) fn put(
    transaction: &Transaction<'_>,
    phone: i64,
    entity: i64,
    packed: &[u8],
) -> rusqlite::Result<()> {
    let Some(old) = stored(transaction, phone)? else {
        return insert(transaction, phone, packed);
    };
    if old.is_empty() {
        return join(transaction, phone, entity);
    }
    let (new, cards) = merge(&old, entity, packed)?;
    if cards <= CARDS_MAX {
        return replace(transaction, phone, &old, &new);
    }
    for entity in entities(&new)? {
        join(transaction, phone, entity)?;
    }
    replace(transaction, phone, &old, &[])
}

/// Takes a card away from where this number leads.
pub(super) fn remove(
    transaction: &Transaction<'_>,
    phone: i64,
    entity: i64,
) -> rusqlite::Result<()> {
    let Some(old) = stored(transaction, phone)? else {
        return Ok(());
    };
    let new = if old.is_empty() {
        transaction
            .prepare_cached("DELETE FROM crowded WHERE phone = ?1 AND entity = ?2")?
            .execute([phone, entity])?;
        match disband(transaction, phone)? {
            Some(few) => few,
            None => return Ok(()),
        }
    } else {
        merge(&old, entity, &[])?.0
    };
    if new.is_empty() {
        return transaction
            .prepare_cached("DELETE FROM callers WHERE phone = ?1")?
            .execute([phone])
            .map(drop);
    }
    replace(transaction, phone, &old, &new)
}

/// How the table of phones was before format 7.
#[derive(Debug, Clone, Copy)]
pub(super) enum OldPhones {
    /// The number and the card.
    Bare,
    /// And beside them all that a call asks of the card: format 6.
    Whole,
}

/// Makes both tables out of the old one of phones, a number after the other.
pub(super) fn fill(transaction: &Transaction<'_>, phones: OldPhones) -> rusqlite::Result<()> {
    // The outer table of a CROSS JOIN is the left one: read in order, nothing is sorted.
    let (phone, entity, from) = match phones {
        OldPhones::Bare => (
            "o.phone",
            "o.entity",
            "phones o CROSS JOIN entities e USING (entity)",
        ),
        OldPhones::Whole => ("e.phone", "e.entity", "phones e"),
    };
    let mut statement = transaction.prepare(&format!(
        "SELECT {entity}, e.source, e.id, e.name, e.company, e.responsible, e.modified, e.stage,
            e.links, e.fields, {phone} FROM {from} ORDER BY {phone}, {entity}"
    ))?;
    let mut rows = statement.query([])?;
    let mut open = Open::default();
    while let Some(row) = rows.next()? {
        let phone: i64 = row.get(10)?;
        if open.phone != phone {
            open.close(transaction)?;
            open.phone = phone;
        }
        open.add(transaction, Asked::read(row)?)?;
    }
    open.close(transaction)
}

/// A number whose cards are being read.
#[derive(Default)]
struct Open {
    phone: i64,
    /// Packed; none once it is crowded.
    cards: Vec<u8>,
    count: usize,
}

impl Open {
    fn add(&mut self, transaction: &Transaction<'_>, card: Asked<'_>) -> rusqlite::Result<()> {
        self.count += 1;
        if self.count <= CARDS_MAX {
            self.cards.append(&mut card.pack()?);
            return Ok(());
        }
        for entity in entities(&std::mem::take(&mut self.cards))? {
            join(transaction, self.phone, entity)?;
        }
        join(transaction, self.phone, card.entity)
    }

    /// Stores what was found of the number, if any.
    fn close(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        if self.count > 0 {
            insert(transaction, self.phone, &self.cards)?;
        }
        self.cards.clear();
        self.count = 0;
        Ok(())
    }
}

fn stored(transaction: &Transaction<'_>, phone: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    read(transaction, phone, |cards| Ok(cards.to_vec()))
}

fn insert(transaction: &Transaction<'_>, phone: i64, cards: &[u8]) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO callers (phone, cards) VALUES (?1, ?2)")?
        .execute((phone, cards))
        .map(drop)
}

fn replace(
    transaction: &Transaction<'_>,
    phone: i64,
    old: &[u8],
    new: &[u8],
) -> rusqlite::Result<()> {
    if old == new {
        return Ok(());
    }
    transaction
        .prepare_cached("UPDATE callers SET cards = ?2 WHERE phone = ?1")?
        .execute((phone, new))
        .map(drop)
}

fn join(transaction: &Transaction<'_>, phone: i64, entity: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO crowded (phone, entity) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute([phone, entity])
        .map(drop)
}

/// The cards with `packed` for what is there of this card, oldest first, and how many they are.
fn merge(cards: &[u8], entity: i64, packed: &[u8]) -> rusqlite::Result<(Vec<u8>, usize)> {
    let mut merged = Vec::with_capacity(cards.len() + packed.len());
    let mut count = 0;
    let mut own = Some(packed).filter(|packed| !packed.is_empty());
    for card in split(cards) {
        let card = card?;
        if card.entity >= entity
            && let Some(packed) = own.take()
        {
            merged.extend_from_slice(packed);
            count += 1;
        }
        if card.entity != entity {
            merged.extend_from_slice(card.bytes);
            count += 1;
        }
    }
    if let Some(packed) = own {
        merged.extend_from_slice(packed);
        count += 1;
    }
    Ok((merged, count))
}

/// The cards of a crowded number if they have become few enough; they are named there no longer.
fn disband(transaction: &Transaction<'_>, phone: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let left = crowd(transaction, phone, MORE_THAN_FEW)?;
    if left.len() > CARDS_MAX {
        return Ok(None);
    }
    let mut read = transaction.prepare_cached(
        "SELECT entity, source, id, name, company, responsible, modified, stage, links, fields
        FROM entities WHERE entity = ?1",
    )?;
    let mut cards = Vec::new();
    for entity in left {
        let card = read
            .query_row([entity], |row| Asked::read(row)?.pack())
            .optional()?;
        cards.extend(card.unwrap_or_default());
    }
    transaction
        .prepare_cached("DELETE FROM crowded WHERE phone = ?1")?
        .execute([phone])?;
    Ok(Some(cards))
}
