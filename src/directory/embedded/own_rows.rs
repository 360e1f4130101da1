//! What was set on the page for employees, as it lies in the tables.

use std::collections::HashMap;

use rusqlite::{Connection, Transaction, params};

use super::row::unwritable;
use crate::directory::OwnRow;
use crate::record::{CrmName, EmployeeId};

/// Stores one row in place of the former one, or removes it.
pub(super) fn put(
    transaction: &Transaction<'_>,
    crm: i64,
    id: &EmployeeId,
    row: Option<&OwnRow>,
) -> rusqlite::Result<()> {
    match row {
        None => transaction.execute(
            "DELETE FROM own_rows WHERE crm = ?1 AND id = ?2",
            params![crm, id.as_str()],
        ),
        Some(row) => transaction.execute(
            "INSERT OR REPLACE INTO own_rows (crm, id, json) VALUES (?1, ?2, ?3)",
            params![
                crm,
                id.as_str(),
                serde_json::to_string(row).map_err(unwritable)?
            ],
        ),
    }
    .map(drop)
}

/// All rows, sorted by CRM and employee; one that cannot be read is left out, since employees must
/// not be lost over it.
pub(super) fn all(
    connection: &Connection,
    crms: &HashMap<i64, CrmName>,
) -> rusqlite::Result<Vec<(CrmName, EmployeeId, OwnRow)>> {
    let mut statement = connection.prepare("SELECT crm, id, json FROM own_rows")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(crm) = crms.get(&row.get(0)?) else {
            continue;
        };
        let id = EmployeeId::new(row.get_ref(1)?.as_str()?);
        match serde_json::from_str(row.get_ref(2)?.as_str()?) {
            Ok(own) => all.push((crm.clone(), id, own)),
            Err(error) => tracing::warn!(%crm, employee = %id, %error,
                "what was set for this employee cannot be read and does not count; set it again"),
        }
    }
    all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    Ok(all)
}

/// Removes all rows of a CRM.
pub(super) fn forget(transaction: &Transaction<'_>, crm: i64) -> rusqlite::Result<()> {
    transaction
        .execute("DELETE FROM own_rows WHERE crm = ?1", [crm])
        .map(drop)
}
