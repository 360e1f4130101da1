//! What an administrator sets for an employee because the CRM does not hold it: read and checked.
//!
//! The same row stands in `[crm.employees]` of the configuration and, set on the operators' page, in
//! the directory.

use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::colleague::Colleague;
use super::roster::{Override, Roster};
use super::{Directory, DirectoryError};
use crate::call::Extension;
use crate::hours::{self, Office};
use crate::phone;
use crate::record::{Absence, CrmName, EmployeeId};

/// The longest text of a row.
const LONGEST_CHARS: usize = 200;
/// The most spans of absence in a row.
const MOST_ABSENCES: usize = 100;

/// What the CRM does not hold of an employee, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnRow {
    /// The extension, in place of the CRM's; a number may stand without quotes.
    #[serde(deserialize_with = "text_or_number")]
    pub extension: Option<String>,
    /// A mobile phone, in place of the CRM's.
    #[serde(deserialize_with = "text_or_number")]
    pub mobile: Option<String>,
    /// Who is rung in their place: an e-mail, a user id or a name of this CRM.
    #[serde(deserialize_with = "text_or_number")]
    pub deputy: Option<String>,
    /// When they work: `Mon-Fri 09:00-18:00`. Default: as the office.
    pub hours: Option<String>,
    /// When they are away: `["2026-12-01..2026-12-14"]`.
    pub absent: Vec<String>,
}

/// What is wrong with a row, in words for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct RowFault {
    /// The key of the row: `extension`, `mobile`, `deputy`, `hours`, `absent`.
    pub field: &'static str,
    /// What is wrong and how to mend it.
    pub text: String,
}

/// Why a row was not stored.
#[derive(Debug, thiserror::Error)]
pub enum OwnRowError {
    /// The roster has no such employee.
    #[error("{crm} has no employee {id}; see `pryamo employees`")]
    Nobody {
        /// The CRM.
        crm: CrmName,
        /// Who was named.
        id: EmployeeId,
    },
    /// A value cannot be used.
    #[error(transparent)]
    Wrong(#[from] RowFault),
    /// The directory did not take it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Checks a row and stores it for an employee, named by identifier, e-mail or name; one without any
/// value removes what was set, also of an employee who is gone.
pub async fn set_checked(
    directory: &dyn Directory,
    crm: &CrmName,
    id: &EmployeeId,
    row: OwnRow,
) -> Result<(), OwnRowError> {
    let mut row = row.tidied();
    let roster = directory.roster();
    let Some(colleague) = roster.get(crm, id) else {
        if row.is_empty() {
            return Ok(directory.set_own_row(crm, id, None).await?);
        }
        let (crm, id) = (crm.clone(), id.clone());
        return Err(OwnRowError::Nobody { crm, id });
    };
    let read = roster.check_row(colleague, &row)?;
    row.extension = read.extension;
    let row = (!row.is_empty()).then_some(row);
    directory.set_own_row(crm, &colleague.id, row).await?;
    Ok(())
}

impl OwnRow {
    /// Says whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The row without blanks around its values; a blank value is none.
    #[must_use]
    pub fn tidied(self) -> Self {
        let tidy = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        Self {
            extension: self.extension.and_then(tidy),
            mobile: self.mobile.and_then(tidy),
            deputy: self.deputy.and_then(tidy),
            hours: self.hours.and_then(tidy),
            absent: self.absent.into_iter().filter_map(tidy).collect(),
        }
    }

    /// What the row means by the office's clock and holidays. Whether its extension may be rung and
    /// its deputy is somebody, [`Roster::check_row`] knows.
    pub fn read(&self, office: &Office) -> Result<Override, RowFault> {
        Ok(Override {
            extension: self.extension.clone(),
            mobile: self.mobile.clone(),
            deputy: self.deputy.clone(),
            hours: self
                .hours
                .as_deref()
                .map(|written| office.hours(written))
                .transpose()
                .map_err(|text| fault("hours", text))?,
            absences: self
                .absent
                .iter()
                .map(|written| read_absence(written, office))
                .collect::<Result<_, String>>()
                .map_err(|text| fault("absent", text))?,
        })
    }

    /// The same of a row that was checked long ago: what can no longer be read counts as not set.
    pub(super) fn read_rest(&self, office: &Office) -> Override {
        let hours = self.hours.as_deref();
        let absences = self.absent.iter();
        Override {
            extension: self.extension.clone(),
            mobile: self.mobile.clone(),
            deputy: self.deputy.clone(),
            hours: hours.and_then(|written| office.hours(written).ok()),
            absences: absences
                .filter_map(|written| read_absence(written, office).ok())
                .collect(),
        }
    }

    fn check_size(&self) -> Result<(), RowFault> {
        let texts = [
            ("extension", &self.extension),
            ("mobile", &self.mobile),
            ("deputy", &self.deputy),
            ("hours", &self.hours),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(field, text)| Some((field, text.as_ref()?)));
        let mut texts = texts.chain(self.absent.iter().map(|text| ("absent", text)));
        if let Some((field, _)) = texts.find(|(_, text)| text.chars().count() > LONGEST_CHARS) {
            let text = format!("`{field}` has more than {LONGEST_CHARS} characters");
            return Err(fault(field, text));
        }
        if self.absent.len() > MOST_ABSENCES {
            let text = format!("these are more than {MOST_ABSENCES} absences; leave past ones out");
            return Err(fault("absent", text));
        }
        Ok(())
    }
}

impl Roster {
    /// Reads a row that is to be set for `colleague`: its extension must be one that may be rung, its
    /// deputy somebody else who works in this CRM.
    pub fn check_row(&self, colleague: &Colleague, row: &OwnRow) -> Result<Override, RowFault> {
        row.check_size()?;
        let mut read = row.read(&self.rules().office)?;
        if let Some(written) = &row.extension {
            let extension = Extension::read(written, &self.rules().pattern)
                .map_err(|error| fault("extension", error.to_string()))?;
            read.extension = Some(extension.to_string());
        }
        if let Some(written) = &row.mobile {
            let crm = self.rules().crms.get(&colleague.crm);
            let region = crm.map(|crm| crm.region).unwrap_or_default();
            if phone::read_field(written, region).is_empty() {
                let text = format!("`{written}` is no phone number; write +79161234567");
                return Err(fault("mobile", text));
            }
        }
        if let Some(deputy) = &row.deputy {
            self.check_deputy(colleague, deputy)
                .map_err(|text| fault("deputy", text))?;
        }
        Ok(read)
    }

    fn check_deputy(&self, colleague: &Colleague, deputy: &str) -> Result<(), String> {
        let crm = &colleague.crm;
        match self.get(crm, &EmployeeId::new(deputy)) {
            None => Err(format!(
                "`{deputy}` is nobody in {crm}, or several are named so; name an e-mail, a user id or a name"
            )),
            Some(found) if found.id == colleague.id => {
                Err(format!("{} cannot be their own deputy", found.name))
            }
            Some(found) if !found.active => Err(format!(
                "{} is dismissed and cannot be a deputy",
                found.name
            )),
            Some(_) => Ok(()),
        }
    }
}

fn read_absence(written: &str, office: &Office) -> Result<Absence, String> {
    let (from, until) = hours::read_span(written, &office.zone())?;
    let what = String::new();
    Ok(Absence { from, until, what })
}

fn fault(field: &'static str, text: String) -> RowFault {
    RowFault { field, text }
}

fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_any(TextOrNumber)
}

struct TextOrNumber;

impl Visitor<'_> for TextOrNumber {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number or a text in quotes")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
        u64::try_from(number)
            .map(|number| Some(number.to_string()))
            .map_err(|_| E::custom(format!("{number} is below zero")))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::directory::{CrmRules, RosterRules};
    use crate::record::Employee;

    fn office() -> Roster {
        let sales = CrmName::new("sales");
        let rules = RosterRules {
            crms: HashMap::from([(sales.clone(), CrmRules::default())]),
            ..RosterRules::default()
        };
        let mut vera = Employee::new(EmployeeId::new("3"), "Вера");
        vera.active = false;
        let employees = [
            Employee::new(EmployeeId::new("1"), "Анна"),
            Employee::new(EmployeeId::new("2"), "Борис"),
            vera,
        ];
        let employees = employees.iter().map(|one| (&sales, one));
        Roster::build(employees, [], &[], &Arc::new(rules))
    }

    fn checked(roster: &Roster, json: &str) -> Result<Override, RowFault> {
        let row: OwnRow = serde_json::from_str(json).unwrap();
        let anna = roster.get(&CrmName::new("sales"), &EmployeeId::new("1"));
        roster.check_row(anna.unwrap(), &row.tidied())
    }

    #[test]
    fn what_cannot_be_used_is_told_by_its_field() {
        let roster = office();
        let long = format!(r#"{{"deputy": "{}"}}"#, "x".repeat(201));
        let many = format!(
            r#"{{"absent": [{}"2026-12-01"]}}"#,
            "\"2026-12-01\",".repeat(100)
        );
        for (json, field, says) in [
            (
                r#"{"extension": "+79161234567"}"#,
                "extension",
                "[0-9]{2,6}",
            ),
            (r#"{"extension": 1}"#, "extension", "`1` is no extension"),
            (r#"{"mobile": "none"}"#, "mobile", "+79161234567"),
            (
                r#"{"deputy": "clara"}"#,
                "deputy",
                "`clara` is nobody in sales",
            ),
            (r#"{"deputy": "анна"}"#, "deputy", "their own deputy"),
            (r#"{"deputy": 3}"#, "deputy", "Вера is dismissed"),
            (
                r#"{"hours": "nine to five"}"#,
                "hours",
                "Mon-Fri 09:00-18:00",
            ),
            (r#"{"absent": ["soon"]}"#, "absent", "2026-12-31"),
            (long.as_str(), "deputy", "200 characters"),
            (many.as_str(), "absent", "100 absences"),
        ] {
            let fault = checked(&roster, json).unwrap_err();
            assert_eq!(fault.field, field, "{json}");
            assert!(fault.text.contains(says), "{json}: {}", fault.text);
        }
    }

    #[test]
    fn what_can_be_used_is_read() {
        let read = checked(
            &office(),
            r#"{"extension": " доб. 101", "mobile": 89161234567, "deputy": "борис",
            "hours": "Mon-Fri 09:00-18:00", "absent": ["2026-12-01..2026-12-14", " "]}"#,
        )
        .unwrap();
        assert_eq!(read.extension.as_deref(), Some("101"));
        assert_eq!(read.mobile.as_deref(), Some("89161234567"));
        assert!(read.hours.is_some() && read.absences.len() == 1);
        let nothing = r#"{"extension": null, "mobile": "", "deputy": " ", "absent": []}"#;
        assert_eq!(checked(&office(), nothing), Ok(Override::default()));
    }

    #[test]
    fn the_same_words_are_read_in_toml_and_json() {
        let row = OwnRow {
            extension: Some("101".to_owned()),
            ..OwnRow::default()
        };
        assert_eq!(toml::from_str::<OwnRow>("extension = 101").unwrap(), row);
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<OwnRow>(&json).unwrap(), row);
        for wrong in ["extension = true", "extension = -5", "extention = 101"] {
            assert!(toml::from_str::<OwnRow>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_can_no_longer_be_read_is_left_out() {
        let row = OwnRow {
            extension: Some("101".to_owned()),
            hours: Some("nine to five".to_owned()),
            absent: vec!["soon".to_owned(), "2026-12-01".to_owned()],
            ..OwnRow::default()
        };
        let rest = row.read_rest(&Office::default());
        assert_eq!(rest.extension.as_deref(), Some("101"));
        assert!(rest.hours.is_none() && rest.absences.len() == 1);
    }
}
