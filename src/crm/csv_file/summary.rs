//! What reading a table brings to light besides its cards: employees, counts, and what was amiss.
//!
//! Knows nothing of files and columns.

use std::collections::BTreeMap;

use serde::Serialize;

use super::columns::Meaning;
use crate::record::{Employee, EmployeeId, EntityKind};

/// How many skipped lines and conflicts are told one by one; the rest is counted.
const TOLD_MAX: usize = 1_000;

/// A line that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its number, from 1.
    pub line: u64,
    /// Why.
    pub why: String,
}

/// An employee with two extensions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The responsible as written.
    pub responsible: String,
    /// The extension that stands first, and holds.
    pub kept: String,
    /// The other one.
    pub other: String,
    /// Where the other one stands.
    pub line: u64,
}

/// What has been read of a table so far, besides the cards.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The encoding's name.
    pub encoding: &'static str,
    /// What stands between fields.
    pub separator: char,
    /// The headers that were recognised, with what they mean.
    pub columns: Vec<(String, Meaning)>,
    /// The headers that mean nothing here.
    pub unread: Vec<String>,
    /// Cards of each kind.
    pub counts: BTreeMap<EntityKind, u64>,
    /// The first lines that were left out.
    pub skipped: Vec<Skipped>,
    /// How many lines were left out in all.
    pub skipped_total: u64,
    /// The first employees with two extensions.
    pub conflicts: Vec<Conflict>,
    /// How many lines name another extension than an earlier one in all.
    pub conflicts_total: u64,
    /// Cards without anything in a phone column.
    pub without_phone: u64,
    /// Phones that a spreadsheet made into `7,91612E+10`: their digits are lost.
    pub ruined_phones: u64,
    /// Lines whose identifier stands in an earlier line too; each became a card of its own.
    pub repeated_ids: u64,
    /// Lines whose kind is no word that is known; taken for the file's own kind.
    pub unknown_kinds: u64,
    /// Who is responsible, as written, with the first extension told.
    pub(super) employees: BTreeMap<String, Option<String>>,
}

impl Summary {
    /// Cards of all kinds.
    pub fn cards(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Everybody who is responsible for a card, sorted.
    pub fn employees(&self) -> Vec<Employee> {
        let drafts = self.employees.iter();
        drafts
            .map(|(written, extension)| Employee {
                extension: extension.clone(),
                email: is_email(written).then(|| written.clone()),
                ..Employee::new(EmployeeId::new(written), written)
            })
            .collect()
    }

    /// Notes that a line was left out.
    pub(super) fn skip(&mut self, line: u64, why: String) {
        self.skipped_total += 1;
        if self.skipped.len() < TOLD_MAX {
            self.skipped.push(Skipped { line, why });
        }
    }

    /// Notes who is responsible and, where the line tells it, their extension.
    pub(super) fn note_employee(&mut self, written: &str, extension: Option<&str>, line: u64) {
        let Some(known) = self.employees.get_mut(written) else {
            let extension = extension.map(str::to_owned);
            self.employees.insert(written.to_owned(), extension);
            return;
        };
        match (known.as_deref(), extension) {
            (None, Some(new)) => *known = Some(new.to_owned()),
            (Some(kept), Some(other)) if kept != other => {
                self.conflicts_total += 1;
                if self.conflicts.len() < TOLD_MAX {
                    self.conflicts.push(Conflict {
                        responsible: written.to_owned(),
                        kept: kept.to_owned(),
                        other: other.to_owned(),
                        line,
                    });
                }
            }
            _ => {}
        }
    }
}

fn is_email(written: &str) -> bool {
    written
        .split_once('@')
        .is_some_and(|(user, domain)| !user.is_empty() && domain.contains('.'))
        && !written.contains(char::is_whitespace)
}
