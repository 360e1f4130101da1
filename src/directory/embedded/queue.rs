//! The notices that wait for their cards to be read again, and where a CRM's own queue is read on.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::row::{Key, Source};
use crate::directory::{QueueLength, Waiting};
use crate::record::{EntityId, Event, Notice};

/// A notice that came a moment ago is due at once, whatever the clock says.
const AT_ONCE: i64 = 0;

/// The greatest ticket given out; 0 when none is queued.
pub(super) fn last_ticket(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(ticket), 0) FROM notices", [], |row| {
        row.get(0)
    })
}

/// Queues a notice, or lets the one that waits for its card say what the weightier of both says.
pub(super) fn put(
    transaction: &Transaction<'_>,
    crm: i64,
    notice: &Notice,
    ticket: i64,
) -> rusqlite::Result<()> {
    let source = Source::new(crm, notice.kind);
    transaction
        .prepare_cached(
            "INSERT INTO notices (source, id, ticket, event, again, due) VALUES (?1, ?2, ?3, ?4, 0, ?5)
            ON CONFLICT DO UPDATE SET ticket = excluded.ticket, again = 0, due = excluded.due,
                event = max(event, excluded.event)",
        )?
        .execute(params![
            source.0,
            Key::of(notice.id.as_str()),
            ticket,
            event_code(notice.event),
            AT_ONCE
        ])
        .map(drop)
}

/// Stores where a CRM's own queue is read on.
pub(super) fn put_cursor(
    transaction: &Transaction<'_>,
    crm: i64,
    cursor: &str,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO news (crm, cursor) VALUES (?1, ?2)")?
        .execute(params![crm, cursor])
        .map(drop)
}

/// Takes a notice off the queue, or puts it back until `again`, unless another came for its card.
pub(super) fn settle(
    transaction: &Transaction<'_>,
    crm: i64,
    waiting: &Waiting,
    again: Option<Timestamp>,
) -> rusqlite::Result<()> {
    let source = Source::new(crm, waiting.notice.kind);
    let id = Key::of(waiting.notice.id.as_str());
    let ticket = waiting.ticket.cast_signed();
    match again {
        None => transaction
            .prepare_cached("DELETE FROM notices WHERE source = ?1 AND id = ?2 AND ticket = ?3")?
            .execute(params![source.0, id, ticket]),
        Some(due) => transaction
            .prepare_cached(
                "UPDATE notices SET again = 1, due = ?4
                WHERE source = ?1 AND id = ?2 AND ticket = ?3",
            )?
            .execute(params![source.0, id, ticket, due.as_second()]),
    }
    .map(drop)
}

/// Removes all that waits for a CRM.
pub(super) fn forget(transaction: &Transaction<'_>, crm: i64) -> rusqlite::Result<()> {
    let (from, to) = range(crm);
    transaction.execute(
        "DELETE FROM notices WHERE source >= ?1 AND source < ?2",
        [from, to],
    )?;
    transaction
        .execute("DELETE FROM news WHERE crm = ?1", [crm])
        .map(drop)
}

/// The notices for one kind that are due, the longest waiting first.
pub(super) fn due(
    connection: &Connection,
    source: Source,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<Waiting>> {
    let kind = source
        .kind()
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(0, source.0))?;
    connection
        .prepare_cached(
            "SELECT id, ticket, event, again FROM notices
            WHERE source = ?1 AND due <= ?2 ORDER BY due, ticket",
        )?
        .query_map(params![source.0, now.as_second()], |row| {
            let id: Key = row.get(0)?;
            let event = match row.get(2)? {
                0 => Event::Changed,
                1 => Event::Gone,
                2 => Event::Merged,
                other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
            };
            Ok(Waiting {
                notice: Notice {
                    kind,
                    id: EntityId::new(&id.text()),
                    event,
                },
                ticket: row.get::<_, i64>(1)?.unsigned_abs(),
                again: row.get(3)?,
            })
        })?
        .take(limit)
        .collect()
}

/// How many wait for a CRM in all.
pub(super) fn count(connection: &Connection, crm: i64) -> rusqlite::Result<u64> {
    let (from, to) = range(crm);
    connection
        .prepare_cached("SELECT count(*) FROM notices WHERE source >= ?1 AND source < ?2")?
        .query_row([from, to], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))
}

/// How many wait for one kind, and when the first is due.
pub(super) fn length(connection: &Connection, source: Source) -> rusqlite::Result<QueueLength> {
    connection
        .prepare_cached("SELECT count(*), min(due) FROM notices WHERE source = ?1")?
        .query_row([source.0], |row| {
            let due: Option<i64> = row.get(1)?;
            Ok(QueueLength {
                waiting: row.get::<_, i64>(0)?.unsigned_abs(),
                next_due: due.and_then(|due| Timestamp::from_second(due).ok()),
            })
        })
}

/// Where a CRM's own queue is read on.
pub(super) fn cursor(connection: &Connection, crm: i64) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT cursor FROM news WHERE crm = ?1")?
        .query_row([crm], |row| row.get(0))
        .optional()
}

/// The sources of a CRM, from .. below.
fn range(crm: i64) -> (i64, i64) {
    (
        crm * Source::KINDS_PER_CRM,
        (crm + 1) * Source::KINDS_PER_CRM,
    )
}

/// The number of an event in the file: the weightier, the greater. Never changes.
fn event_code(event: Event) -> i64 {
    match event {
        Event::Changed => 0,
        Event::Gone => 1,
        Event::Merged => 2,
    }
}
