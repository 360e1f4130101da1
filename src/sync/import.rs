//! Takes a table exported from a CRM's own interface: a first mirror without any key.
//!
//! Cards keep the CRM's identifiers, so a later walk over the CRM itself takes their place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::read_phones;
use crate::crm::csv_file::table::{self, Options, TableError};
use crate::directory::{Change, Directory, DirectoryError};
use crate::phone::Region;
use crate::record::{Card, CrmName, Employee, EmployeeId, EntityKind};

/// Cards stored in one transaction.
const CARDS_AT_ONCE: usize = 5000;

/// What an import did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImportReport {
    /// Cards stored, by kind.
    pub cards: BTreeMap<EntityKind, u64>,
    /// Different numbers found in them.
    pub phones: u64,
    /// Cards without a readable number.
    pub without_phone: u64,
    /// Lines left out.
    pub skipped: u64,
    /// The first of these lines, with the reason.
    pub skipped_lines: Vec<String>,
    /// Headers that mean nothing here.
    pub unread_columns: Vec<String>,
    /// Responsibles whom neither the file nor `[crm.employees]` gives an extension.
    pub without_extension: Vec<String>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is no table of clients; the text says what to do.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The directory did not take it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Stores a table's cards and the employees that only it names.
pub async fn import(
    directory: &dyn Directory,
    crm: &CrmName,
    region: Region,
    bytes: &[u8],
) -> Result<ImportReport, ImportError> {
    let table = table::read_table(bytes, &Options::default())?;
    let mut report = ImportReport {
        skipped: table.summary.skipped_total,
        skipped_lines: table
            .summary
            .skipped
            .iter()
            .map(|skipped| format!("line {}: {}", skipped.line, skipped.why))
            .collect(),
        unread_columns: table.summary.unread.clone(),
        ..ImportReport::default()
    };
    let named = table.summary.employees();
    add_employees(directory, crm, named.clone()).await?;
    let mut by_kind: BTreeMap<EntityKind, Vec<Card>> = BTreeMap::new();
    for card in table.cards {
        by_kind.entry(card.kind).or_default().push(card);
    }
    for (kind, cards) in by_kind {
        report.cards.insert(kind, cards.len() as u64);
        let walk = directory.sync_state(crm, kind).await?.walk;
        for part in cards.chunks(CARDS_AT_ONCE) {
            let (cards, unread) = read_phones(part.iter().cloned(), region);
            report.phones += cards
                .iter()
                .map(|(_, phones)| phones.len() as u64)
                .sum::<u64>();
            report.without_phone +=
                cards.iter().filter(|(_, phones)| phones.is_empty()).count() as u64;
            directory
                .apply(Change {
                    crm: crm.clone(),
                    kind,
                    cards,
                    unread,
                    walk,
                    keep_newer: None,
                    state: None,
                })
                .await?;
        }
    }
    let roster = directory.roster();
    report.without_extension = named
        .iter()
        .filter(|one| {
            roster
                .get(crm, &one.id)
                .is_none_or(|known| known.extension.is_err())
        })
        .map(|one| one.name.clone())
        .collect();
    Ok(report)
}

/// Adds those whom the roster does not know yet, by identifier, e-mail or name.
async fn add_employees(
    directory: &dyn Directory,
    crm: &CrmName,
    named: Vec<Employee>,
) -> Result<(), DirectoryError> {
    let roster = directory.roster();
    let is_new = |id: &EmployeeId| roster.get(crm, id).is_none();
    let new: Vec<Employee> = named.into_iter().filter(|one| is_new(&one.id)).collect();
    if new.is_empty() {
        return Ok(());
    }
    directory.add_employees(crm, new).await
}
