//! How much there was to be mended on each day, as it lies in its table.

use rusqlite::{Connection, Transaction, params};

use crate::directory::Findings;

/// Stores a day in place of what was there for it, and removes all but the newest.
pub(super) fn put(
    transaction: &Transaction<'_>,
    day: i64,
    findings: &Findings,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT OR REPLACE INTO findings (day, shared, gone, unread, without_extension)
        VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            day,
            findings.shared.cast_signed(),
            findings.left.cast_signed(),
            findings.unread.cast_signed(),
            findings.without_extension.cast_signed(),
        ],
    )?;
    // By how many there are, not by how old: a clock that once ran ahead must not empty the table.
    transaction
        .execute(
            "DELETE FROM findings
            WHERE day NOT IN (SELECT day FROM findings ORDER BY day DESC LIMIT ?1)",
            [Findings::DAYS_KEPT],
        )
        .map(drop)
}

/// The days from `from` on, the oldest first.
pub(super) fn since(connection: &Connection, from: i64) -> rusqlite::Result<Vec<(i64, Findings)>> {
    connection
        .prepare_cached(
            "SELECT day, shared, gone, unread, without_extension FROM findings
            WHERE day >= ?1 ORDER BY day",
        )?
        .query_map([from], |row| {
            let count = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.unsigned_abs());
            let findings = Findings {
                shared: count(1)?,
                left: count(2)?,
                unread: count(3)?,
                without_extension: count(4)?,
            };
            Ok((row.get(0)?, findings))
        })?
        .collect()
}
