//! A base of 260 000 messy cards: mirrored within its limits, killed on the way, and then every
//! number asked.
//!
//! The fakes keep the vendors' limits at many times the speed of life; the connectors' limits are
//! raised by the same factor, so every ratio is that of life. `PRYAMO_TEST_SPEED=1` runs it at the
//! speed of life (half an hour); `PRYAMO_TEST_TIMES=4` mirrors a million cards.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Line, Site, value};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{self, FakeBitrix24};
use crate::messy::{self, Messy};

/// Contacts, companies, and leads or deals.
const CARDS: [usize; 3] = [200_000, 30_000, 30_000];
/// The share of the vendors' limits that pryamo uses.
pub(crate) const SHARE: f64 = 0.8;
/// A mirror may take this much longer than its budget's floor.
const ALLOWED: f64 = 1.2;
/// The longest that a mirror may take before the test gives up.
const LONGEST: Duration = Duration::from_hours(1);
/// How often the daemon is killed.
const KILLS: u64 = 20;

#[expect(clippy::disallowed_methods, reason = "a knob of this test alone")]
fn knob<T: std::str::FromStr>(name: &str, usual: T) -> T {
    let set = std::env::var(name).ok();
    set.and_then(|set| set.parse().ok()).unwrap_or(usual)
}

pub(crate) fn speed(usual: f64) -> f64 {
    knob("PRYAMO_TEST_SPEED", usual)
}

fn cards() -> [usize; 3] {
    let times = knob("PRYAMO_TEST_TIMES", 1);
    CARDS.map(|cards| cards * times)
}

/// Waits until every mirror is whole; gives how long that took.
pub(crate) fn wait_until_ready(daemon: &Daemon) -> Duration {
    let began = Instant::now();
    while daemon.get("/readyz").status != 200 {
        assert!(began.elapsed() < LONGEST, "not whole:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    began.elapsed()
}

/// The phone fields that end in this number's last digits, for a person who looks for the fault.
fn written(base: &Messy, number: u64) -> Vec<&str> {
    let last = format!("{:06}", number % 1_000_000);
    let world = &base.world;
    let entries = [&world.contacts, &world.companies, &world.leads]
        .into_iter()
        .flatten();
    let fields = entries.flat_map(|entry| &entry.phones).map(String::as_str);
    let digits = |field: &str| {
        field
            .chars()
            .filter(char::is_ascii_digit)
            .collect::<String>()
    };
    fields
        .filter(|field| digits(field).contains(&last))
        .take(5)
        .collect()
}

/// Asks every number of the base; gives the first few wrong answers.
fn wrong_answers(daemon: &Daemon, base: &Messy) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut line = Line::open(daemon);
    for truth in &base.truth {
        let answer = line.forward(&format!("phone=%2B{}&trunk=s&callid=1.1", truth.number));
        let number = value(&answer, "number").filter(|number| !number.is_empty());
        let expected = truth
            .expected
            .as_ref()
            .map(|expected| expected.extension.clone());
        let is_named = !truth.known || value(&answer, "name").is_some();
        if number != expected || !is_named {
            let written = written(base, truth.number);
            wrong.push(format!("{truth:?}: {answer}; written {written:?}"));
        }
    }
    for stranger in base.strangers.iter().chain(&base.own_phones) {
        let answer = line.forward(&format!("phone=%2B{stranger}&trunk=s"));
        if !answer.is_empty() {
            wrong.push(format!("{stranger}, whom nobody knows: {answer}"));
        }
    }
    if !wrong.is_empty() {
        println!("{} of {} answers are wrong", wrong.len(), base.truth.len());
    }
    wrong.truncate(10);
    wrong
}

/// The daemon's configuration for a fake, nothing asked live.
fn config(table: &str, employees: &str) -> String {
    format!(
        "[match]\nlive_lookup_ms = 0\n[sync]\nwalk_every_seconds = 0\n[log]\nlevel = \"warn\"\n\
         [[crm]]\nname = \"big\"\n{table}\n{employees}"
    )
}

/// A portal of that base, at its own speed, with the pace of life: 0.1 s for a page.
async fn bitrix24(base: &Messy, speed: f64) -> (FakeBitrix24, String) {
    let options = fake_bitrix24::Options {
        speed,
        page_ms: 100.0,
        ..fake_bitrix24::Options::default()
    };
    let fake = FakeBitrix24::start(base.world.clone().shared(), options).await;
    let table = format!(
        "kind = \"bitrix24\"\nurl = \"{}\"\nlimits = {{ requests_per_second = {}, operating_seconds = {} }}",
        fake.url(),
        2.0 * speed,
        480.0 / speed
    );
    let config = config(&table, "");
    (fake, config)
}

/// The shortest time, in life, in which a budget lets a portal's pages through.
///
/// Batches of 50 pages leak from a bucket of 50 at 2 a second; each kind's method may work 480 s in
/// ten minutes. Of both pryamo takes its share.
pub(crate) fn bitrix24_floor(cards: [usize; 3], page_seconds: f64) -> f64 {
    let counts = cards.map(|cards| cards.div_ceil(50) + 1);
    let requests: usize = counts.iter().map(|pages| pages.div_ceil(50)).sum();
    let by_rate = (as_float(requests) - 50.0 * SHARE).max(0.0) / (2.0 * SHARE);
    let by_work = counts.iter().map(|pages| {
        let work = as_float(*pages) * page_seconds;
        let windows = (work / (480.0 * SHARE)).ceil() - 1.0;
        // One page after another, and a rest wherever a window's share is used up.
        work.max(windows * 600.0 + work - windows * 480.0 * SHARE)
    });
    by_work.fold(by_rate, f64::max)
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
pub(crate) fn as_float(count: usize) -> f64 {
    count as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_bitrix24_base_is_mirrored_within_its_budget_and_every_answer_is_right() {
    let speed = speed(10.0);
    let cards @ [contacts, companies, leads] = cards();
    let base = messy::base(1, contacts, companies, leads);
    let (fake, config) = bitrix24(&base, speed).await;
    let daemon = Daemon::start_unready(&Site::new(&config));
    let took = wait_until_ready(&daemon).as_secs_f64() * speed;
    let floor = bitrix24_floor(cards, 0.1);
    println!(
        "bitrix24: {took:.0} s of life, floor {floor:.0} s, ratio {:.2}, {} requests",
        took / floor,
        fake.requests().len()
    );
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert!(
        took <= ALLOWED * floor,
        "{took:.0} s against a floor of {floor:.0} s"
    );
    assert_eq!(wrong_answers(&daemon, &base), Vec::<String>::new());
}

/// A base as amoCRM has it: no leads of Bitrix24's kind, but deals, all of them closed, so that the
/// truth of the contacts and companies holds.
pub(crate) fn amocrm_base([contacts, companies, deals]: [usize; 3]) -> Messy {
    let sizes = messy::Sizes {
        contacts,
        companies,
        leads: 0,
        deals,
    };
    let mut base = messy::base_without(2, sizes, &[]);
    for deal in &mut base.world.deals {
        deal.stage = crate::world::Stage::Closed;
    }
    base
}

/// amoCRM has no extensions: they stand in the configuration, by e-mail.
pub(crate) fn employees_table(base: &Messy) -> String {
    let rows = base.world.users.iter().filter_map(|user| {
        let extension = user.extension.as_ref()?;
        Some(format!(
            "\"{}\" = {{ extension = {extension:?} }}\n",
            user.email
        ))
    });
    format!("[crm.employees]\n{}", rows.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_amocrm_base_is_mirrored_within_its_budget_and_every_answer_is_right() {
    // Beyond this a busy machine's hiccups look like a broken limit.
    let speed = speed(2.0);
    let base = amocrm_base(cards());
    let options = fake_amocrm::Options {
        limit: Some(7),
        speed,
        page_latency: (Duration::from_millis(300), Duration::from_secs(1)),
        ..fake_amocrm::Options::default()
    };
    let fake = FakeAmocrm::start(base.world.clone().shared(), options);
    let table = format!("kind = \"amocrm\"\n{}", fake.table());
    let config = config(&table, &employees_table(&base)).replace(
        "live_lookup_ms = 0",
        "live_lookup_ms = 0\norder = [\"contact\", \"company\", \"deal\"]",
    );
    let daemon = Daemon::start_unready(&Site::new(&config));
    let took = wait_until_ready(&daemon).as_secs_f64() * speed;
    let pages = cards().map(|cards| cards.div_ceil(250)).iter().sum();
    let floor = as_float(pages) / (7.0 * SHARE);
    println!(
        "amocrm: {took:.0} s of life, floor {floor:.0} s, ratio {:.2}, {} requests",
        took / floor,
        fake.requests()
    );
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert!(
        took <= ALLOWED * floor,
        "{took:.0} s against a floor of {floor:.0} s"
    );
    assert_eq!(wrong_answers(&daemon, &base), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_twenty_times_while_it_mirrors_it_ends_complete_and_right() {
    let speed = speed(20.0);
    let cards @ [contacts, companies, leads] = cards().map(|cards| cards / 4);
    let messy = messy::base(3, contacts, companies, leads);
    let (fake, config) = bitrix24(&messy, speed).await;
    let site = Site::new(&config);
    let number = u64::from(std::process::id());
    println!("the kills follow from {number}");
    let mut dice = messy::Dice(number);
    for _ in 0..KILLS {
        let mut daemon = Daemon::start_unready(&site);
        tokio::time::sleep(Duration::from_millis(20 + dice.below(500))).await;
        daemon.kill();
    }
    let killed_at = fake.requests().len();
    let daemon = Daemon::start_unready(&site);
    wait_until_ready(&daemon);
    println!(
        "bitrix24 killed {KILLS} times: {killed_at} requests before the last start, {} in all",
        fake.requests().len()
    );
    assert_eq!(fake.violations(), Vec::<String>::new());
    let counts: u64 = daemon.get("/readyz").json()["mirrors"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mirror| mirror["kind"] != "employee")
        .map(|mirror| mirror["records"].as_u64().unwrap())
        .sum();
    assert_eq!(counts, cards.iter().sum::<usize>() as u64);
    assert_eq!(wrong_answers(&daemon, &messy), Vec::<String>::new());
}
