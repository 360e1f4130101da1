//! How long each page takes, from a new connection to the last byte.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use pryamo::journal::Wanted;

use crate::browser::Browser;
use crate::company::{Company, MAIN_DID, RARE_DID, STRANGER, STRANGERS_DID};

/// How often each page is asked for, behind a first time that does not count.
const TIMES: usize = 20;
/// A row of calls, and the words that stand where there is none.
const ROW: &str = "<tr id=\"call-";
const NO_CALLS: [&str; 2] = ["There are no such calls.", "Таких звонков нет."];

/// What was measured.
pub struct Measured {
    rows: Vec<Row>,
    /// Looking through all cards, for Hygiene.
    pub survey: Duration,
    /// The whole journal as CSV.
    pub export: Duration,
    /// Its size.
    pub export_bytes: usize,
}

struct Row {
    what: String,
    /// In Russian and in English, sorted.
    times: [Vec<Duration>; 2],
    bytes: usize,
}

/// Asks for every page.
pub fn measure(browser: &mut Browser, company: &Company) -> Measured {
    let survey = survey(browser);
    let rows = addresses(company)
        .into_iter()
        .map(|(what, path, expected)| row(browser, what, &path, expected));
    let rows = rows.collect();
    let began = Instant::now();
    let csv = browser.get("/journal.csv").body;
    let export = began.elapsed();
    let bytes = csv.len();
    let lines = String::from_utf8(csv).unwrap().lines().count() as u64;
    assert_eq!(lines, company.size.entries + 1);
    Measured {
        rows,
        survey,
        export,
        export_bytes: bytes,
    }
}

/// Hygiene begins to count when it is first looked at.
fn survey(browser: &mut Browser) -> Duration {
    let began = Instant::now();
    loop {
        let page = browser.get("/hygiene").body;
        let page = String::from_utf8(page).unwrap();
        if !page.contains("class=\"live\"") {
            for list in ["without-extension", "shared", "left", "unread"] {
                assert!(page.contains(&format!("id=\"{list}\"")), "{page}");
            }
            assert!(!page.contains("note good"), "a list is empty");
            return began.elapsed();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What each page must hold.
#[derive(Clone, Copy)]
enum Expected {
    Text(&'static str),
    Calls,
    NoCalls,
    /// Calls, or none where the journal was made small.
    FewCalls,
}

/// What a page is called here, its address, and what it must hold.
type Address = (String, String, Expected);

fn addresses(company: &Company) -> Vec<Address> {
    use Expected::{Calls, Text};
    let known = company.phone(3 * 999_983);
    let steps = Text("class=\"steps\"");
    let pages = [
        ("Now", "/".to_owned(), Calls),
        ("Who: known", format!("/who?phone={known}"), steps),
        ("Who: unknown", format!("/who?phone={STRANGER}"), steps),
        ("Employees", "/employees".to_owned(), Text("employee299@")),
        (
            "Employees: searched",
            "/employees?q=%D0%9D%D0%BE%D0%BC%D0%B5%D1%80%2029".to_owned(),
            Text("employee299@"),
        ),
        (
            "Employees: one to edit",
            "/employees?crm=sales&id=42".to_owned(),
            Text("/employees/set"),
        ),
        ("Hygiene", "/hygiene".to_owned(), Text("id=\"shared\"")),
        ("Mirrors", "/mirrors".to_owned(), Text("sales")),
        ("Journal", "/journal".to_owned(), Calls),
    ];
    let pages = pages.map(|(what, path, expected)| (what.to_owned(), path, expected));
    let outcomes = Wanted::words().map(|word| (word, format!("outcome={word}"), Calls));
    let searches = searches(company).into_iter().chain(outcomes);
    let searches = searches.map(|(what, query, expected)| {
        let (what, path) = (format!("Journal: {what}"), format!("/journal?{query}"));
        (what, path, expected)
    });
    pages.into_iter().chain(searches).collect()
}

/// The journal, searched in many ways; the hard ones pass over many calls that do not fit.
fn searches(company: &Company) -> Vec<(&'static str, String, Expected)> {
    use Expected::{Calls, FewCalls, NoCalls};
    let day = |ago: i64| {
        let at = company.now - SignedDuration::from_hours(24 * ago);
        at.strftime("%Y-%m-%d").to_string()
    };
    let (oldest, from, until) = (day(80), day(46), day(45));
    let middle = company.size.entries / 2;
    let caller = called(company);
    let main = format!("did={MAIN_DID}");
    vec![
        ("a page in the middle", format!("before={middle}"), Calls),
        ("a caller", format!("phone={caller}"), Calls),
        ("a number dialled", main.clone(), Calls),
        ("answered by", "answered=142".to_owned(), Calls),
        (
            "two days in the middle",
            format!("from={from}&until={until}"),
            Calls,
        ),
        (
            "the same with a number dialled and an outcome",
            format!("{main}&outcome=standard_route&from={from}&until={until}"),
            Calls,
        ),
        (
            "a number dialled and an outcome, in the middle",
            format!("{main}&outcome=hung_up&before={middle}"),
            Calls,
        ),
        (
            "the rarest number dialled, an outcome, until a day",
            format!("did={RARE_DID}&outcome=not_told&until={until}"),
            FewCalls,
        ),
        (
            "four filters, the oldest days, few or none",
            format!("answered=142&outcome=another&{main}&until={oldest}"),
            FewCalls,
        ),
        (
            "nothing found among a tenth of all",
            format!("did={STRANGERS_DID}&outcome=own_person"),
            NoCalls,
        ),
        (
            "four filters, nothing found",
            format!("{main}&answered=142&outcome=unknown_caller&from={from}"),
            NoCalls,
        ),
        (
            "a caller who never called",
            format!("phone={STRANGER}"),
            NoCalls,
        ),
    ]
}

/// Somebody whom the journal knows.
fn called(company: &Company) -> String {
    let reader = pryamo::journal::Reader::new(&company.config.data_dir);
    let query = pryamo::journal::Query {
        limit: 1,
        before: Some(company.size.entries.cast_signed() / 3),
        outcome: Wanted::read("own_person"),
        ..pryamo::journal::Query::default()
    };
    let found = reader.read(&query).unwrap();
    let caller = found
        .first()
        .and_then(|entry| entry.caller.clone())
        .unwrap();
    caller.trim_start_matches('+').to_owned()
}

fn row(browser: &mut Browser, what: String, path: &str, expected: Expected) -> Row {
    let mut bytes = 0;
    let times = ["ru", "en"].map(|language| {
        let mut browser = browser.speaking(language);
        let mut times: Vec<Duration> = (0..=TIMES)
            .map(|_| {
                let answer = browser.get(path);
                bytes = answer.body.len();
                let page = String::from_utf8(answer.body).unwrap();
                let has_calls = page.contains(ROW);
                let has_none = NO_CALLS.iter().any(|text| page.contains(text));
                let is_it = match expected {
                    Expected::Text(text) => page.contains(text),
                    Expected::Calls => has_calls,
                    Expected::NoCalls => has_none,
                    Expected::FewCalls => has_calls || has_none,
                };
                assert!(is_it, "{path}: {page}");
                answer.took
            })
            .skip(1)
            .collect();
        times.sort_unstable();
        times
    });
    Row { what, times, bytes }
}

fn median(times: &[Duration]) -> f64 {
    milliseconds(times.get(times.len() / 2).copied())
}

fn milliseconds(time: Option<Duration>) -> f64 {
    time.unwrap_or_default().as_secs_f64() * 1000.0
}

impl Measured {
    /// Of the slowest page.
    pub fn worst_median_ms(&self) -> f64 {
        let medians = self.rows.iter().flat_map(|row| &row.times);
        medians.map(|times| median(times)).fold(0.0, f64::max)
    }

    /// Every page, milliseconds.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| page | Russian: median | worst | English: median | worst | KiB |\n|---|---:|---:|---:|---:|---:|\n",
        );
        for row in &self.rows {
            let [russian, english] = &row.times;
            writeln!(
                table,
                "| {} | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} ms | {} |",
                row.what,
                median(russian),
                milliseconds(russian.last().copied()),
                median(english),
                milliseconds(english.last().copied()),
                row.bytes.div_ceil(1024),
            )
            .unwrap();
        }
        table
    }
}
