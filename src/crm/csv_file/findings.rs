//! What `pryamo check` says about a table: what it holds, and what to mend in it.
//!
//! Knows nothing of how it was read.

use std::fmt::Write as _;
use std::path::Path;

use super::columns::plain;
use super::table::{Meaning, Summary};
use crate::crm::Finding;
use crate::record::Employee;

/// How many lines or names one finding quotes.
const EXAMPLES_MAX: usize = 5;

/// What is to be said about a table that could be read.
pub(super) fn of(path: &Path, summary: &Summary, fields: &[String]) -> Vec<Finding> {
    let mut findings = vec![
        Finding::good(what_it_holds(path, summary)),
        Finding::good(what_was_recognised(summary)),
    ];
    findings.extend(lines_amiss(summary));
    findings.extend(phones_amiss(summary));
    findings.extend(employees_amiss(summary));
    for (place, field) in fields.iter().enumerate() {
        let is_there = |(_, meaning): &(String, Meaning)| *meaning == Meaning::Field(place);
        if !summary.columns.iter().any(is_there) {
            findings.push(Finding::warning(
                format!("no column `{field}` in the table"),
                "name the column as in `crm.fields`, or take it out there",
            ));
        }
    }
    findings
}

fn what_it_holds(path: &Path, summary: &Summary) -> String {
    let mut text = format!("{}: {} cards", path.display(), summary.cards());
    let counts = summary.counts.iter();
    let counts: Vec<String> = counts
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    let separator = match summary.separator {
        '\t' => "tab".to_owned(),
        sign => format!("`{sign}`"),
    };
    let encoding = summary.encoding;
    let _ = write!(text, " ({}), {encoding}, {separator}", counts.join(", "));
    text
}

fn what_was_recognised(summary: &Summary) -> String {
    let told = |(header, meaning): &(String, Meaning)| format!("`{header}` is {meaning}");
    let columns: Vec<String> = summary.columns.iter().map(told).collect();
    let unread = match summary.unread.len() {
        0 => String::new(),
        count => format!("; {count} more are not read"),
    };
    format!("columns: {}{unread}", columns.join(", "))
}

fn lines_amiss(summary: &Summary) -> Vec<Finding> {
    let mut findings = Vec::new();
    if summary.skipped_total > 0 {
        let told = summary.skipped.iter().take(EXAMPLES_MAX);
        let told: Vec<String> = told
            .map(|skip| format!("line {}: {}", skip.line, skip.why))
            .collect();
        findings.push(Finding::warning(
            format!(
                "{} lines were skipped: {}",
                summary.skipped_total,
                told.join("; ")
            ),
            "mend these lines",
        ));
    }
    if summary.repeated_ids > 0 {
        findings.push(Finding::warning(
            format!(
                "{} lines repeat an id; each is a card of its own",
                summary.repeated_ids
            ),
            "put all phones of a client into one line",
        ));
    }
    if summary.unknown_kinds > 0 {
        findings.push(Finding::warning(
            format!(
                "{} lines have a kind that is no known word",
                summary.unknown_kinds
            ),
            "write contact, company, lead or deal",
        ));
    }
    findings
}

fn phones_amiss(summary: &Summary) -> Vec<Finding> {
    let mut findings = Vec::new();
    if summary.ruined_phones > 0 {
        findings.push(Finding::warning(
            format!(
                "{} phones look like 7,91612E+10: a spreadsheet has lost their digits",
                summary.ruined_phones
            ),
            "export anew and do not save the file from a spreadsheet, or make the column text",
        ));
    }
    if summary.without_phone > 0 {
        findings.push(Finding::warning(
            format!("{} cards have no phone", summary.without_phone),
            "nobody is found by them; fill in the phone column where there is one",
        ));
    }
    if let Some(unread) = summary
        .unread
        .iter()
        .find(|header| sounds_like_phone(header))
    {
        findings.push(Finding::warning(
            format!("the column `{unread}` sounds like phones and is not read"),
            "if these are clients' phones, name it \"phone\"",
        ));
    }
    findings
}

fn sounds_like_phone(header: &str) -> bool {
    let word = plain(header);
    ["телефон", "phone", "моб"]
        .iter()
        .any(|part| word.contains(part))
        && !["есть", "задан", "has"]
            .iter()
            .any(|start| word.starts_with(start))
}

fn employees_amiss(summary: &Summary) -> Vec<Finding> {
    let mut findings = Vec::new();
    let employees = summary.employees();
    let unreachable: Vec<&Employee> = employees
        .iter()
        .filter(|employee| employee.extension.is_none())
        .collect();
    if employees.is_empty() {
        findings.push(Finding::fault(
            "no card names an employee",
            "add a column \"responsible\", \"extension\" or both",
        ));
    }
    if !unreachable.is_empty() {
        let named: Vec<&str> = unreachable
            .iter()
            .take(EXAMPLES_MAX)
            .map(|employee| employee.name.as_str())
            .collect();
        findings.push(Finding::warning(
            format!(
                "{} of {} employees have no extension in the table: {}",
                unreachable.len(),
                employees.len(),
                named.join(", ")
            ),
            "add a column \"extension\", or name them in `[crm.employees]`",
        ));
    }
    if summary.conflicts_total > 0 {
        let told = summary.conflicts.iter().take(EXAMPLES_MAX);
        let told: Vec<String> = told
            .map(|c| {
                format!(
                    "{} has {}, line {} says {}",
                    c.responsible, c.kept, c.line, c.other
                )
            })
            .collect();
        findings.push(Finding::warning(
            format!(
                "{} lines contradict the extension of an earlier one: {}",
                summary.conflicts_total,
                told.join("; ")
            ),
            "give each employee one extension",
        ));
    }
    findings
}
