//! Holds the reading of phone numbers to two corpora: Google's own answers, and forms beyond them.
//!
//! `tests/phones/generate.py` writes both. Where we read otherwise than Google on purpose, a rule
//! of [`DELIBERATE`] says so, and `docs/phones.md` gives the reason; everything else is a failure.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot read its corpus must fail"
)]

use std::collections::BTreeMap;

use pryamo::phone::{CallerNumber, E164, Region, google, read_caller, read_field};

const GOOGLE: &str = include_str!("../phones/google.tsv");
const BEYOND: &str = include_str!("../phones/beyond.tsv");

/// One line of a corpus.
struct Row {
    region: Region,
    class: &'static str,
    written: String,
    expected: Vec<String>,
}

fn rows(corpus: &'static str) -> Vec<Row> {
    corpus
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [region, class, written, expected] = columns[..] else {
                panic!("columns: {line}")
            };
            Row {
                region: region.parse().unwrap(),
                class,
                written: unescape(written),
                expected: expected.split_whitespace().map(str::to_owned).collect(),
            }
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut signs = text.chars();
    while let Some(sign) = signs.next() {
        plain.push(match (sign, sign == '\\') {
            (_, true) => match signs.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                other => other.unwrap_or('\\'),
            },
            (sign, false) => sign,
        });
    }
    plain
}

fn texts(numbers: &[E164]) -> Vec<String> {
    numbers.iter().map(E164::to_string).collect()
}

fn report(row: &Row, got: &[String]) -> String {
    format!(
        "{} {} {:?}: expected {:?}, got {got:?}",
        row.region, row.class, row.written, row.expected
    )
}

#[test]
fn the_library_answers_as_google_does() {
    let wrong: Vec<String> = rows(GOOGLE)
        .iter()
        .filter_map(|row| {
            let got: Vec<String> = google(&row.written, row.region)
                .iter()
                .map(E164::to_string)
                .collect();
            (got != row.expected).then(|| report(row, &got))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// How our answer differs from Google's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// Google reads nothing, we read a number.
    More,
    /// Google reads a number, we read nothing.
    Less,
    /// Both read a number, not the same one.
    Other,
}

use Difference::{Less, More, Other};

/// Where we differ on purpose: the rule's name in `docs/phones.md`, the classes it covers, and how
/// it differs. A class names what was done to a number, so a rule covers nothing but its own
/// matter.
const DELIBERATE: [(&str, &[&str], &[Difference]); 8] = [
    (
        "bare international digits",
        &[
            "abroad",
            "abroad_digits",
            "any_digits",
            "digits",
            "dots",
            "swapped",
            "too_long",
        ],
        &[More],
    ),
    ("another country's dialling prefix", &["idd"], &[More]),
    (
        "a plus before the trunk prefix",
        &["plus_eight"],
        &[More, Other],
    ),
    ("a zero in brackets", &["zero_in_brackets"], &[More]),
    (
        "words and signs behind a number",
        &["trailing_text"],
        &[More, Other],
    ),
    (
        "blanks and marks that Google does not know",
        &["invisible"],
        &[More],
    ),
    (
        "the letter O is a zero, other letters spoil a number",
        &["typo"],
        &[More, Less, Other],
    ),
    ("a tilde inside a number", &["mixed_signs"], &[More, Other]),
];

/// Six digits and fewer are an extension, whatever the class: in Andorra Google reads them as
/// numbers.
const SHORT: &str = "six digits are an extension";

fn deliberate_rule(row: &Row, got: &[String]) -> Option<&'static str> {
    let difference = match (row.expected.is_empty(), got.is_empty()) {
        (true, _) => More,
        (false, true) => Less,
        (false, false) => Other,
    };
    let head = row
        .written
        .split(['x', 'e', 'E', '#', ';'])
        .next()
        .unwrap_or_default();
    if difference == Less && head.chars().filter(|sign| sign.is_numeric()).count() <= 6 {
        return Some(SHORT);
    }
    DELIBERATE
        .iter()
        .find(|(_, classes, differences)| {
            classes.contains(&row.class) && differences.contains(&difference)
        })
        .map(|(rule, _, _)| *rule)
}

#[test]
fn fields_are_read_as_google_does_or_otherwise_on_purpose() {
    let rows = rows(GOOGLE);
    let mut agree = 0;
    let mut other = Vec::new();
    let mut deliberate: BTreeMap<&str, usize> = BTreeMap::new();
    let mut undeclared = Vec::new();
    for row in &rows {
        let got = texts(&read_field(&row.written, row.region));
        if got == row.expected {
            agree += 1;
        } else if let Some(rule) = deliberate_rule(row, &got) {
            *deliberate.entry(rule).or_default() += 1;
            if !got.is_empty() && !row.expected.is_empty() {
                other.push(report(row, &got));
            }
        } else {
            undeclared.push(report(row, &got));
        }
    }
    let declared: usize = deliberate.values().sum();
    eprintln!(
        "google: {agree} of {} agree, {declared} deliberate",
        rows.len()
    );
    for (rule, count) in &deliberate {
        eprintln!("  {count} {rule}");
    }
    eprintln!(
        "another number than Google's, on purpose:\n{}",
        other.join("\n")
    );
    assert!(
        undeclared.is_empty(),
        "{} undeclared:\n{}",
        undeclared.len(),
        undeclared.join("\n")
    );
}

#[test]
fn forms_beyond_google_are_read() {
    let rows = rows(BEYOND);
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let got = texts(&read_field(&row.written, row.region));
            (got != row.expected).then(|| report(row, &got))
        })
        .collect();
    eprintln!("beyond: {} of {}", rows.len() - wrong.len(), rows.len());
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_number_read_is_read_again_from_its_own_text() {
    for row in rows(GOOGLE).iter().chain(&rows(BEYOND)) {
        for number in read_field(&row.written, row.region) {
            assert_eq!(
                read_field(&number.to_string(), row.region),
                [number],
                "{:?}",
                row.written
            );
        }
    }
}

#[test]
fn callers_and_fields_are_read_alike() {
    for row in rows(GOOGLE).iter().chain(&rows(BEYOND)) {
        let field = read_field(&row.written, row.region);
        match read_caller(&row.written, row.region) {
            CallerNumber::Number(number) => {
                assert_eq!(Some(&number), field.first(), "{:?}", row.written);
            }
            CallerNumber::Short(_) | CallerNumber::Unreadable => {
                assert!(field.is_empty(), "{:?}", row.written);
            }
        }
    }
}
