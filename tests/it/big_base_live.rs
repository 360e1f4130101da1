//! Callers whom the mirror lacks, while it is filled: they are asked of the CRM at once, and neither
//! they nor the walk break a limit. Prints how long they wait, against a CRM that is idle otherwise.
//!
//! `PRYAMO_TEST_SPEED=1` runs at the speed of life, `PRYAMO_TEST_PART=1` over the whole base of
//! `big_base`, some 300 000 cards.

use std::time::{Duration, Instant};

use crate::big_base::{SHARE, amocrm_base, as_float, bitrix24_floor, employees_table, speed};
use crate::daemon::{Daemon, Line, Site};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{self, FakeBitrix24};
use crate::messy;

/// Cards of the whole base, by kind: contacts, companies, leads or deals.
const CARDS: [usize; 3] = [240_000, 30_000, 30_000];
/// Callers whom nobody knows, for the idle CRM.
const IDLE_CALLERS: usize = 100;
const LONGEST: Duration = Duration::from_hours(1);

#[expect(clippy::disallowed_methods, reason = "a knob of this test alone")]
fn part() -> usize {
    std::env::var("PRYAMO_TEST_PART")
        .ok()
        .and_then(|part| part.parse().ok())
        .unwrap_or(6)
}

/// A stranger's call each second of life; how long it waited, in life.
struct Callers<'a> {
    line: Line,
    daemon: &'a Daemon,
    speed: f64,
    next: u64,
}

impl<'a> Callers<'a> {
    fn of(daemon: &'a Daemon, speed: f64) -> Self {
        Self {
            line: Line::open(daemon),
            daemon,
            speed,
            next: 0,
        }
    }

    fn call(&mut self) -> Duration {
        let began = Instant::now();
        let number = 79_990_000_000 + self.next;
        self.next += 1;
        let answer = self
            .line
            .forward(&format!("phone=%2B{number}&trunk=s&callid=1"));
        assert_eq!(answer, "", "a stranger");
        let took = began.elapsed();
        let second = Duration::from_secs_f64(1.0 / self.speed);
        std::thread::sleep(second.saturating_sub(took));
        took.mul_f64(self.speed)
    }

    fn while_filling(&mut self) -> Vec<Duration> {
        let began = Instant::now();
        let mut took = Vec::new();
        while self.daemon.get("/readyz").status != 200 {
            assert!(
                began.elapsed() < LONGEST,
                "not whole:\n{}",
                self.daemon.log()
            );
            took.push(self.call());
        }
        took
    }

    fn idle(&mut self) -> Vec<Duration> {
        (0..IDLE_CALLERS).map(|_| self.call()).collect()
    }
}

/// Prints both, and the share of callers whom the CRM did not answer in time.
fn compare(name: &str, daemon: &Daemon, mut filling: Vec<Duration>, mut idle: Vec<Duration>) {
    filling.sort_unstable();
    idle.sort_unstable();
    let at =
        |took: &[Duration], percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    let (busy, free) = (at(&filling, 99), at(&idle, 99));
    println!(
        "{name}: {} callers beside the walk, p50 {:.3?}, p99 {busy:.3?}; idle p50 {:.3?}, p99 {free:.3?}; p99 ratio {:.2}",
        filling.len(),
        at(&filling, 50),
        at(&idle, 50),
        busy.as_secs_f64() / free.as_secs_f64()
    );
    let lookups = |outcome: &str| daemon.metric("pryamo_live_lookups_total", outcome);
    let asked = lookups("\"nothing\"");
    let refused = lookups("out_of_budget")
        + lookups("too_late")
        + lookups("failed")
        + lookups("breaker_open");
    println!("{name}: {asked} asked live and answered, {refused} not");
    assert_eq!(refused, 0, "each caller finds a place at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_find_a_place_beside_bitrix24s_walk() {
    let (speed, part) = (speed(4.0), part());
    let [contacts, companies, leads] = CARDS.map(|cards| cards / part);
    let base = messy::base(1, contacts, companies, leads);
    let options = fake_bitrix24::Options {
        speed,
        page_ms: 100.0,
        find_ms: 50.0,
        ..fake_bitrix24::Options::default()
    };
    let fake = FakeBitrix24::start(base.world.clone().shared(), options).await;
    let config = format!(
        "[match]\nlive_lookup_ms = 4000\n[sync]\nwalk_every_seconds = 0\n[log]\nlevel = \"warn\"\n\
         [[crm]]\nname = \"big\"\nkind = \"bitrix24\"\nurl = \"{}\"\n\
         limits = {{ requests_per_second = {}, operating_seconds = {} }}\n",
        fake.url(),
        2.0 * speed,
        480.0 / speed
    );
    let site = Site::new(&config);
    let daemon = Daemon::start_unready(&site);
    let began = Instant::now();
    let mut callers = Callers::of(&daemon, speed);
    let filling = callers.while_filling();
    let took = began.elapsed().as_secs_f64() * speed;
    let floor = bitrix24_floor([contacts, companies, leads], 0.1);
    println!(
        "bitrix24: {} cards, {took:.0} s of life, floor {floor:.0} s, ratio {:.2}",
        contacts + companies + leads,
        took / floor
    );
    let idle = callers.idle();
    compare("bitrix24", &daemon, filling, idle);
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_find_a_place_beside_amocrms_walk() {
    let (speed, part) = (speed(2.0), part());
    let base = amocrm_base(CARDS.map(|cards| cards / part));
    let options = fake_amocrm::Options {
        limit: Some(7),
        speed,
        page_latency: (Duration::from_millis(300), Duration::from_secs(1)),
        ..fake_amocrm::Options::default()
    };
    let fake = FakeAmocrm::start(base.world.clone().shared(), options);
    let config = format!(
        "[match]\nlive_lookup_ms = 4000\norder = [\"contact\", \"company\", \"deal\"]\n\
         [sync]\nwalk_every_seconds = 0\n[log]\nlevel = \"warn\"\n\
         [[crm]]\nname = \"big\"\nkind = \"amocrm\"\n{}{}",
        fake.table(),
        employees_table(&base)
    );
    let site = Site::new(&config);
    let daemon = Daemon::start_unready(&site);
    let (began, before) = (Instant::now(), fake.requests());
    let mut callers = Callers::of(&daemon, speed);
    let filling = callers.while_filling();
    let took = began.elapsed().as_secs_f64() * speed;
    let requests = fake.requests() - before;
    let floor = as_float(requests) / (7.0 * SHARE);
    println!(
        "amocrm: {took:.0} s of life for {requests} requests, callers' among them; floor {floor:.0} s, ratio {:.2}",
        took / floor
    );
    let idle = callers.idle();
    compare("amocrm", &daemon, filling, idle);
    assert_eq!(fake.violations(), Vec::<String>::new());
}
