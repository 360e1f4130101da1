//! The journal: entries through `/forward`, the file's mishaps, and `pryamo journal`.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use pryamo::call::{DialStatus, IncomingCall, Outcome};
use pryamo::config::Config;
use pryamo::decision::{Decision, Reason};
use pryamo::journal::{Feed, Journal, MOST_WAITING, Query, Reader, Settings, Shown};
use pryamo::phone::E164;
use pryamo::reception::Watcher as _;
use pryamo::serve;

use crate::daemon::{Daemon, Line, Site, start, wait_for};

const CLIENTS: &str = "\
id;kind;name;company;phone;responsible;extension
1;contact;Иван Петров;ООО «Ромашка»;79161234501;Анна Соколова;101
2;contact;Мария Весна;;79161234502;Борис Жуков;102
";

const EMPLOYEES: &str = "[crm.employees]\n\"Анна Соколова\" = { deputy = \"Борис Жуков\" }\n";

fn site(more: &str) -> Site {
    let site = Site::with_csv(CLIENTS);
    site.configure(&format!(
        "{more}[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n{EMPLOYEES}"
    ));
    site
}

/// What the API tells; `query` behind the question mark.
fn entries(site: &Site, daemon: &Daemon, query: &str) -> Vec<Value> {
    let token = std::fs::read_to_string(site.path("data/control.token")).unwrap();
    let request = format!(
        "GET /api/v1/journal?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let answer = daemon.raw(request.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json().as_array().unwrap().clone()
}

/// The entry of a call once it has so many tries.
fn entry(site: &Site, daemon: &Daemon, call_id: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    wait_for("the entry", || {
        let found = entries(site, daemon, &format!("call_id={call_id}"));
        found.into_iter().find(&is_it)
    })
}

fn texts(entry: &Value, pointer: &str, key: &str) -> Vec<String> {
    let list = entry.pointer(pointer).and_then(Value::as_array).unwrap();
    let text = |one: &Value| one[key].as_str().unwrap_or("-").to_owned();
    list.iter().map(text).collect()
}

#[test]
fn an_entry_tells_the_whole_call() {
    let site = site("");
    let daemon = Daemon::start(&site);
    let call = "phone=+79161234501&trunk=74951234567&callid=1.1";
    assert_eq!(daemon.rings(call).unwrap(), "101");
    let first = entry(&site, &daemon, "1.1", |_| true);
    assert_eq!(first["end"], "not_told");
    assert_eq!(first["tries"][0]["status"], Value::Null);
    let second = format!("{call}&tried=101&status=NOANSWER");
    assert_eq!(daemon.rings(&second).unwrap(), "102");
    let third = format!("{call}&tried=101,102&status=BUSY");
    assert_eq!(daemon.rings(&third).unwrap(), "");
    let told = entry(&site, &daemon, "1.1", |entry| {
        entry["end"] == "standard_route"
    });
    assert_eq!(told["id"], first["id"], "one entry");
    assert!(told["change"].as_i64() > first["change"].as_i64());
    assert_eq!(told["caller"], "+79161234501");
    assert_eq!(told["did"], "74951234567");
    assert_eq!(told["entity"]["crm"], "list");
    assert_eq!(told["entity"]["kind"], "contact");
    assert_eq!(told["entity"]["id"], "1");
    assert_eq!(told["responsible"]["name"], "Анна Соколова");
    assert_eq!(told["reason"], "nobody_can_be_rung");
    assert_eq!(told["outcome"], "standard_route");
    assert_eq!(texts(&told, "/tries", "number"), ["101", "102"]);
    assert_eq!(texts(&told, "/tries", "role"), ["responsible", "deputy"]);
    assert_eq!(texts(&told, "/tries", "status"), ["NOANSWER", "BUSY"]);
    assert_eq!(told["tries"][0]["ring_seconds"], 20);
    assert_eq!(told["tries"][1]["employee"]["name"], "Борис Жуков");
    let explained = daemon.get("/api/v1/route?phone=79161234501").json();
    assert_eq!(told["steps"][0]["step"], explained["steps"][0]["step"]);
    assert_eq!(
        told["steps"][0]["text_ru"],
        "Номер звонящего — +79161234501"
    );
    // A question without a call id is an entry of its own; one after the call is none.
    for query in [
        "phone=79161234502",
        "phone=79161234502",
        "phone=79161234501&trunk=h&callid=1.1",
    ] {
        daemon.forward(query);
    }
    let of_caller = wait_for("two entries", || {
        let found = entries(&site, &daemon, "phone=8%20916%20123-45-02");
        (found.len() == 2).then_some(found)
    });
    assert_eq!(of_caller[0]["call_id"], Value::Null);
    assert_eq!(entries(&site, &daemon, "limit=50").len(), 3);
    let newest = entries(&site, &daemon, "limit=1");
    let older = entries(&site, &daemon, &format!("before={}", newest[0]["id"]));
    assert_eq!(older.len(), 2);
    let refused = daemon.get("/api/v1/journal");
    assert_eq!(refused.status, 401, "callers and employees are named");
}

#[test]
fn a_known_callers_call_is_counted_once() {
    let site = site("");
    let daemon = Daemon::start(&site);
    let counted = |outcome: &str| daemon.metric("pryamo_known_callers_total", outcome);
    for _ in 0..3 {
        daemon.forward("phone=79161234501&callid=1.1");
        daemon.forward("phone=79161234501&callid=1.1&tried=101&status=ANSWER");
    }
    daemon.forward("phone=79161234501&callid=1.2");
    daemon.forward("phone=79161234501&callid=1.2&tried=101&status=NOANSWER");
    daemon.forward("phone=79161234501&callid=1.2&tried=101,102&status=ANSWER");
    daemon.forward("phone=79169999999&callid=1.3");
    entry(&site, &daemon, "1.3", |_| true);
    wait_for("the second call", || {
        (counted("another") == 1).then_some(())
    });
    assert_eq!(counted("own_person"), 1);
    assert_eq!(counted("pryamo_"), 2, "nobody else is known or settled");
    let own = entry(&site, &daemon, "1.1", |_| true);
    assert_eq!(own["outcome"], "own_person");
    assert_eq!(own["answered"]["employee"]["name"], "Анна Соколова");
}

#[test]
fn masked_numbers_reach_neither_the_file_nor_the_api() {
    let site = site("[journal]\nmask_numbers = true\n");
    let mut daemon = Daemon::start(&site);
    daemon.forward("phone=8(916)1234501&trunk=s&callid=1.1");
    let told = entry(&site, &daemon, "1.1", |_| true);
    assert_eq!(told["caller"], "+7916***4501");
    assert_eq!(entries(&site, &daemon, "phone=79161234501").len(), 1);
    assert_eq!(daemon.stop(), Some(0));
    for file in ["journal.sqlite", "journal.sqlite-wal"] {
        let bytes = std::fs::read(site.path("data").join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        for form in ["9161234501", "(916)1234501"] {
            assert!(!text.contains(form), "{file} holds {form}");
        }
    }
}

/// What somebody has read in the journal is still there; the file opens again.
#[test]
fn kill_9_loses_at_most_the_last_moments() {
    let site = site("");
    let mut daemon = Daemon::start(&site);
    let mode = std::fs::metadata(site.path("data/journal.sqlite")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        for call in 0..200 {
            daemon.forward(&format!("phone=79161234501&callid={round}.{call}"));
        }
        seen.extend(wait_for("entries", || {
            let found = entries(&site, &daemon, "limit=1000");
            let found: Vec<String> = found.iter().map(|one| one["call_id"].to_string()).collect();
            let is_new = found
                .iter()
                .any(|id| id.starts_with(&format!("\"{round}.")));
            is_new.then_some(found)
        }));
        daemon.kill();
        daemon = Daemon::start(&site);
        let found = entries(&site, &daemon, "limit=1000");
        let found: BTreeSet<String> = found.iter().map(|one| one["call_id"].to_string()).collect();
        let lost: Vec<_> = seen.difference(&found).collect();
        assert!(lost.is_empty(), "{lost:?}");
        assert!(!daemon.log().contains("damaged"), "{}", daemon.log());
    }
}

#[test]
fn a_damaged_journal_is_moved_aside_and_calls_are_answered() {
    let site = site("");
    std::fs::create_dir_all(site.path("data")).unwrap();
    let garbage = "no journal ".repeat(1000);
    std::fs::write(site.path("data/journal.sqlite"), &garbage).unwrap();
    let daemon = Daemon::start(&site);
    assert_eq!(daemon.rings("phone=79161234501&callid=1.1").unwrap(), "101");
    entry(&site, &daemon, "1.1", |_| true);
    let names = std::fs::read_dir(site.path("data")).unwrap();
    let aside = names
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("journal.sqlite.damaged-"))
        .unwrap();
    assert_eq!(std::fs::read_to_string(aside).unwrap(), garbage);
    assert!(daemon.log().contains("ERROR"), "{}", daemon.log());
}

/// Somebody holds the file: callers are answered as ever, what finds no room is dropped and counted.
#[test]
fn a_blocked_journal_delays_no_answer() {
    let site = site("");
    let daemon = Daemon::start(&site);
    daemon.forward("phone=79161234501&callid=0.0");
    entry(&site, &daemon, "0.0", |_| true);
    let holder = rusqlite::Connection::open(site.path("data/journal.sqlite")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut line = Line::open(&daemon);
    let mut slowest = Duration::ZERO;
    let extra = 1000;
    for call in 0..MOST_WAITING + extra {
        let began = Instant::now();
        let answer = line.forward(&format!("phone=79161234501&callid=9.{call}"));
        slowest = slowest.max(began.elapsed());
        assert!(answer.starts_with("number=101"), "{answer}");
    }
    println!("slowest answer beside a blocked journal: {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let dropped = daemon.metric("pryamo_journal_dropped_total", "");
    assert!(dropped > 0 && dropped <= extra as u64, "{dropped}");
    wait_for("the warning", || {
        daemon.log().contains("could not keep up").then_some(())
    });
    holder.execute_batch("ROLLBACK").unwrap();
    // What waited is written, in the order of the calls.
    entry(&site, &daemon, "9.0", |_| true);
    entry(&site, &daemon, "9.5000", |_| true);
    let warnings = daemon.log().matches("could not keep up").count();
    assert_eq!(warnings, 1, "at most one a minute");
}

#[test]
fn follow_shows_a_call_that_comes() {
    let site = site("");
    let daemon = Daemon::start(&site);
    daemon.forward("phone=79161234502&trunk=s&callid=1.1");
    entry(&site, &daemon, "1.1", |_| true);
    let config = site.config();
    let arguments = ["journal", "--follow", "--config", config.to_str().unwrap()];
    let mut follower = start(site.folder.path(), &arguments, "follow.log", Stdio::piped());
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let line = next();
    assert!(line.contains("+79161234502"), "{line}");
    assert!(line.contains("102 Борис Жуков was rung"), "{line}");
    daemon.forward("phone=79161234501&trunk=s&callid=1.2");
    let line = next();
    assert!(line.contains("101 Анна Соколова was rung"), "{line}");
    daemon.forward("phone=79161234501&trunk=s&callid=1.2&tried=101&status=NOANSWER");
    let line = next();
    assert!(line.contains("101 Анна Соколова did not answer"), "{line}");
    assert!(line.contains(", then 102 Борис Жуков was rung"), "{line}");
    assert!(line.ends_with("[deputy]"), "{line}");
    let pid = follower.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    follower.wait().unwrap();
    let ran = site.run(&["journal", "--phone", "8 916 123-45-01"]);
    assert_eq!((ran.code, ran.out.lines().count()), (0, 1), "{}", ran.out);
    let ran = site.run(&["journal", "--limit", "1", "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json[0]["call_id"], "1.2");
}

#[test]
fn a_journal_that_is_switched_off_leaves_no_file() {
    let site = site("[journal]\nenabled = false\n");
    let daemon = Daemon::start(&site);
    assert_eq!(daemon.rings("phone=79161234501&callid=1.1").unwrap(), "101");
    let ran = site.run(&["journal"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("`journal.enabled = false`"), "{}", ran.err);
    assert!(!site.path("data/journal.sqlite").exists());
}

/// A journal of its own with a clock that the test sets.
struct Alone {
    _folder: tempfile::TempDir,
    journal: Arc<Journal>,
    thread: Option<pryamo::journal::Thread>,
    reader: Reader,
    /// Seconds that have passed.
    passed: Arc<AtomicI64>,
    /// Seconds that the clock was set forward.
    set: Arc<AtomicI64>,
}

const NOW: i64 = 1_800_000_000;

impl Alone {
    fn start(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("data_dir = '{}'\n", folder.path().display());
        let config = Config::parse(&text, None, &[]).unwrap();
        let directory = serve::open_directory(&config).unwrap();
        let (passed, set) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let (own, own_set) = (Arc::clone(&passed), Arc::clone(&set));
        let now = Arc::new(move || {
            let shown = own.load(Ordering::Relaxed) + own_set.load(Ordering::Relaxed);
            Timestamp::from_second(NOW + shown).unwrap()
        });
        let (own, began) = (Arc::clone(&passed), Instant::now());
        let stopwatch = Arc::new(move || {
            let passed = own.load(Ordering::Relaxed);
            began + Duration::from_secs(passed.unsigned_abs())
        });
        let (journal, thread) =
            Journal::start(settings, folder.path(), directory, now, stopwatch).unwrap();
        Self {
            reader: Reader::new(folder.path()),
            _folder: folder,
            journal,
            thread: Some(thread),
            passed,
            set,
        }
    }

    fn ask(&self, call_id: &str, at: i64) {
        let call = IncomingCall {
            phone: "79161234501".to_owned(),
            call_id: Some(call_id.to_owned()),
            ..IncomingCall::default()
        };
        let mut decision = Decision::standard_route(Reason::UnknownCaller, Vec::new());
        decision.caller = E164::from_digits(79_161_234_501);
        let at = Timestamp::from_second(at).unwrap();
        self.journal.decided(&call, &decision, at);
    }

    fn end(&self, call_id: &str, number: &str, status: DialStatus, at: i64) {
        let outcome = Outcome {
            call_id: call_id.to_owned(),
            number: number.to_owned(),
            status,
            rang_seconds: None,
            talked_seconds: None,
        };
        self.journal
            .ended(&outcome, Timestamp::from_second(at).unwrap());
    }

    fn read(&self) -> Vec<Shown> {
        let query = Query {
            limit: Query::MOST,
            ..Query::default()
        };
        self.reader.read(&query).unwrap()
    }

    fn call_ids(&self) -> BTreeSet<String> {
        self.read()
            .into_iter()
            .filter_map(|one| one.call_id)
            .collect()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
    }
}

#[test]
fn old_entries_are_deleted_by_their_age() {
    let settings = Settings {
        days: 30,
        ..Settings::default()
    };
    let alone = Alone::start(&settings);
    let day = 24 * 3600;
    for call in 0..700 {
        alone.ask(&format!("old.{call}"), NOW - 29 * day);
    }
    alone.ask("young", NOW - 28 * day);
    wait_for("all entries", || {
        (alone.call_ids().len() == 701).then_some(())
    });
    // A clock that was set is not believed: the thread has looked at it when it writes a new entry.
    alone.set.store(365 * day, Ordering::Relaxed);
    for call in 0..3 {
        let id = format!("meanwhile.{call}");
        alone.ask(&id, NOW - 28 * day);
        wait_for("the entry", || alone.call_ids().contains(&id).then_some(()));
    }
    assert_eq!(alone.call_ids().len(), 704, "nothing is deleted");
    alone.set.store(0, Ordering::Relaxed);
    for id in ["right", "again"] {
        alone.ask(id, NOW - 28 * day);
        wait_for("the entry", || alone.call_ids().contains(id).then_some(()));
    }
    alone.passed.store(day + 1, Ordering::Relaxed);
    wait_for("the old ones to go", || {
        let left = alone.call_ids();
        (left.len() == 6 && left.contains("young")).then_some(())
    });
}

#[test]
fn outcomes_may_come_first_twice_or_for_nobodys_call() {
    let alone = Alone::start(&Settings::default());
    alone.end("1.1", "600", DialStatus::Answer, NOW + 9);
    alone.end("7.7", "600", DialStatus::Answer, NOW);
    // Written in batches of their own, so that the outcome really waits.
    alone.ask("1.0", NOW);
    wait_for("the first entry", || {
        alone.call_ids().contains("1.0").then_some(())
    });
    alone.ask("1.1", NOW);
    alone.end("1.1", "600", DialStatus::Answer, NOW + 30);
    let told = wait_for("the second entry", || {
        alone.read().into_iter().find(|one| one.answered.is_some())
    });
    assert_eq!(told.call_id.as_deref(), Some("1.1"));
    assert_eq!(told.tries.len(), 1);
    assert_eq!(
        alone.call_ids(),
        BTreeSet::from(["1.0".to_owned(), "1.1".to_owned()])
    );
}

#[test]
fn calls_that_an_exchange_gives_one_id_are_kept_apart() {
    let alone = Alone::start(&Settings::default());
    alone.ask("1", NOW - 7200);
    alone.ask("1", NOW);
    alone.ask("1", NOW + 5);
    wait_for("two entries", || (alone.read().len() == 2).then_some(()));
}

#[test]
fn a_stop_writes_what_still_waits() {
    let mut alone = Alone::start(&Settings::default());
    for call in 0..1000 {
        alone.ask(&format!("1.{call}"), NOW);
    }
    alone.thread.take().unwrap().stop();
    assert_eq!(alone.journal.dropped(), 0);
    assert_eq!(alone.call_ids().len(), 1000);
}

#[test]
fn entries_are_found_by_every_filter_and_counted_by_the_hour() {
    let site = site("");
    let daemon = Daemon::start(&site);
    daemon.forward("phone=79161234501&trunk=7495&callid=1.1");
    daemon.forward("phone=79161234501&trunk=7495&callid=1.1&tried=101&status=ANSWER");
    daemon.forward("phone=79161234502&trunk=7496&callid=1.2");
    daemon.forward("phone=79169999999&trunk=7495&callid=1.3");
    entry(&site, &daemon, "1.1", |entry| entry["end"] == "answered");
    entry(&site, &daemon, "1.3", |_| true);
    for (query, expected) in [
        ("did=7495", vec!["1.3", "1.1"]),
        ("did=749", vec![]),
        ("answered=101", vec!["1.1"]),
        ("answered=102", vec![]),
        ("outcome=own_person", vec!["1.1"]),
        ("outcome=not_told", vec!["1.2"]),
        ("outcome=unknown_caller", vec!["1.3"]),
        ("outcome=unknown_caller&did=7496", vec![]),
        (
            "outcome=own_person&did=7495&answered=101&phone=79161234501",
            vec!["1.1"],
        ),
        ("from=2020-01-01T00:00:00Z&limit=2", vec!["1.3", "1.2"]),
        (
            "from=2020-01-01T00:00:00Z&until=2020-01-02T00:00:00Z",
            vec![],
        ),
        ("until=2100-01-01T00:00:00Z&did=7495&limit=1", vec!["1.3"]),
        ("after=0&did=7496", vec!["1.2"]),
        ("did=&outcome=&from=&answered=", vec!["1.3", "1.2", "1.1"]),
    ] {
        let found = entries(&site, &daemon, query);
        let ids: Vec<&str> = found
            .iter()
            .map(|one| one["call_id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, expected, "{query}");
    }
    let token = std::fs::read_to_string(site.path("data/control.token")).unwrap();
    for (query, expected) in [
        ("from=yesterday", "`from`: `yesterday` is no moment"),
        ("until=1", "`until`: `1` is no moment"),
        ("outcome=lost", "`outcome`: `lost` is none of own_person"),
        (
            "from=2020-01-02T00:00:00Z&until=2020-01-01T00:00:00Z",
            "must be earlier",
        ),
    ] {
        let request = format!(
            "GET /api/v1/journal?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let answer = daemon.raw(request.as_bytes());
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(expected), "{}", answer.body);
    }
    let reader = Reader::new(&site.path("data"));
    let (from, until) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
    let hours = reader.hours(from, until).unwrap();
    assert_eq!(hours.iter().map(|one| one.calls).sum::<u64>(), 3);
    assert!(reader.hours(from, from).unwrap().is_empty());
}

#[test]
fn an_export_holds_all_that_fit() {
    let alone = Alone::start(&Settings::default());
    for call in 0..1500 {
        alone.ask(&format!("=1.{call}"), NOW + call);
    }
    wait_for("all entries", || {
        (alone.call_ids().contains("=1.1499")).then_some(())
    });
    let mut out = Vec::new();
    let utc = jiff::tz::TimeZone::UTC;
    let query = Query {
        limit: 1,
        from: Timestamp::from_second(NOW + 100).ok(),
        ..Query::default()
    };
    assert_eq!(alone.reader.export(&query, &utc, &mut out).unwrap(), 1400);
    let mut table = csv::Reader::from_reader(out.as_slice());
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 1400);
    assert_eq!(&rows[0][0], "2027-01-15 08:24:59");
    assert_eq!(&rows[0][1], "'+79161234501");
    assert_eq!(&rows[0][13], "'=1.1499");
    assert_eq!(&rows[1399][13], "'=1.100");
}

#[tokio::test]
async fn a_feed_tells_that_calls_have_begun_or_changed_and_whoever_reads_then_finds_them() {
    let alone = Alone::start(&Settings::default());
    let mut feed = Feed::of(&alone.journal);
    let begun = feed.told();
    alone.ask("new", NOW);
    let told = feed.told_after(begun).await.unwrap();
    assert!(alone.call_ids().contains("new"));
    // A page that was made meanwhile need not wait for the next call.
    let mut late = feed.clone();
    assert_eq!(late.told_after(begun).await, Some(told));
    alone.end("new", "600", DialStatus::Answer, NOW + 9);
    let next = late.told_after(told).await.unwrap();
    assert_eq!(feed.told_after(told).await, Some(next));
    let entries = alone.reader.read(&Query::default()).unwrap();
    assert!(entries[0].answered.is_some(), "{entries:?}");
    drop(alone);
    assert_eq!(feed.told_after(next).await, None, "the journal has ended");
}
