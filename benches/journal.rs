//! What questions to a journal of a million entries cost.
//!
//! `cargo bench --bench journal`; the entries are made first, in about a minute.
#![expect(clippy::unwrap_used, reason = "a bench that fails may panic")]
#![expect(clippy::print_stdout, reason = "prints its figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use pryamo::call::{DialStatus, IncomingCall, Outcome};
use pryamo::config::Config;
use pryamo::decision::{Decision, Reason};
use pryamo::journal::{Journal, KnownOutcome, Query, Reader, Settings, Wanted};
use pryamo::phone::E164;
use pryamo::reception::Watcher as _;
use rusqlite::Connection;

const ENTRIES: i64 = 1_000_000;
const DAYS: i64 = 90;
const ROUNDS: u32 = 5;

/// A journal with one true entry, and that entry a million times with other columns.
fn fill(folder: &std::path::Path, now: Timestamp) {
    let text = format!("data_dir = '{}'\n", folder.display());
    let config = Config::parse(&text, None, &[]).unwrap();
    let directory = pryamo::serve::open_directory(&config).unwrap();
    let clock = Arc::new(move || now);
    let (journal, thread) = Journal::start(&Settings::default(), folder, directory, clock).unwrap();
    let call = IncomingCall {
        phone: "79161234501".to_owned(),
        call_id: Some("1.1".to_owned()),
        ..IncomingCall::default()
    };
    let mut decision = Decision::standard_route(Reason::UnknownCaller, Vec::new());
    decision.caller = E164::from_digits(79_161_234_501);
    journal.decided(&call, &decision, now);
    let outcome = Outcome {
        call_id: "1.1".to_owned(),
        number: "101".to_owned(),
        status: DialStatus::Answer,
        rang_seconds: Some(3),
        talked_seconds: None,
    };
    journal.ended(&outcome, now);
    thread.stop();
    let file = Connection::open(folder.join("journal.sqlite")).unwrap();
    let outcomes = KnownOutcome::ALL.map(|one| format!("'{}'", one.as_str()));
    let whens: Vec<String> = outcomes
        .iter()
        .enumerate()
        .map(|(at, word)| format!("WHEN {at} THEN {word}"))
        .collect();
    let begin = now.as_millisecond() - DAYS * 86_400_000;
    // The padding stands for the steps of a usual decision.
    file.execute_batch(&format!(
        "WITH RECURSIVE n(x) AS (SELECT 2 UNION ALL SELECT x + 1 FROM n WHERE x <= {ENTRIES})
        INSERT INTO calls (call_id, caller, at, change, entry, outcome, did, answered)
        SELECT '2.' || x, '+7916' || (1000000 + x % 200000), {begin} + x * ({DAYS} * 86400000 / {ENTRIES}),
            x + 10, (SELECT entry FROM calls WHERE id = 1) || printf('%*s', 800, ' '),
            CASE x * 7 % 11 {} ELSE '' END, '7495' || (1000000 + x % 20), CASE WHEN x % 3 = 0 THEN '' || (100 + x / 3 % 50) END
        FROM n",
        whens.join(" ")
    ))
    .unwrap();
}

fn tell(name: &str, what: impl Fn() -> usize) {
    let mut worst = Duration::ZERO;
    let mut found = 0;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        found = what();
        worst = worst.max(begun.elapsed());
    }
    println!("{name:<36} {found:>6} found, at most {worst:?}");
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let begun = Instant::now();
    fill(folder.path(), now);
    println!("{ENTRIES} entries made in {:?}", begun.elapsed());
    let reader = Reader::new(folder.path());
    let ago = |days: i64| Some(now - SignedDuration::from_hours(24 * days));
    let all = Query {
        limit: Query::USUAL,
        ..Query::default()
    };
    let own = Some(Wanted::Known(KnownOutcome::OwnPerson));
    let did = Some("74951000007".to_owned());
    let answered = Some("120".to_owned());
    let queries = [
        ("newest page", all.clone()),
        (
            "page in the middle",
            Query {
                before: Some(ENTRIES / 2),
                ..all.clone()
            },
        ),
        (
            "a call id",
            Query {
                call_id: Some("2.77777".to_owned()),
                ..all.clone()
            },
        ),
        (
            "a caller",
            Query {
                phone: E164::from_digits(79_161_123_456),
                ..all.clone()
            },
        ),
        (
            "a span 80 days ago",
            Query {
                from: ago(81),
                until: ago(80),
                ..all.clone()
            },
        ),
        (
            "an outcome",
            Query {
                outcome: own,
                ..all.clone()
            },
        ),
        (
            "unknown callers",
            Query {
                outcome: Some(Wanted::UnknownCallers),
                ..all.clone()
            },
        ),
        (
            "a DID",
            Query {
                did: did.clone(),
                ..all.clone()
            },
        ),
        (
            "a DID that nobody dialled",
            Query {
                did: Some("1".to_owned()),
                ..all.clone()
            },
        ),
        (
            "who answered",
            Query {
                answered: answered.clone(),
                ..all.clone()
            },
        ),
        (
            "outcome, DID, who, a day of old",
            Query {
                outcome: own,
                did: did.clone(),
                answered: answered.clone(),
                from: ago(81),
                until: ago(80),
                ..all.clone()
            },
        ),
        (
            "outcome and DID never together",
            Query {
                outcome: own,
                did: Some("74951000000".to_owned()),
                answered: Some("101".to_owned()),
                ..all.clone()
            },
        ),
    ];
    for (name, query) in &queries {
        tell(name, || reader.read(query).unwrap().len());
    }
    tell("hours of 90 days", || {
        reader.hours(ago(90).unwrap(), now).unwrap().len()
    });
}
