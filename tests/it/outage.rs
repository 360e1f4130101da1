//! A CRM that is down for a whole day: every call is answered, and its return is no rush. The day
//! is simulated, the connector, the mirror, the store and the router are the real ones.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pryamo::config::Config;
use pryamo::directory::Directory;
use pryamo::pbx::forward;
use pryamo::record::EntityKind;
use pryamo::router::{Purpose, Router};
use pryamo::serve;
use pryamo::sync::live::Live;
use pryamo::sync::mirror::Mirror;
use pryamo::sync::{Clock, Source};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::world::{SharedWorld, World, call_of};

const CONTACTS: u64 = 1000;
/// Contacts that get another responsible while the portal is down.
const MOVED: u64 = 200;
const DAY: Duration = Duration::from_hours(24);
const BETWEEN_CALLS: Duration = Duration::from_secs(10);
/// Whole burst of a usual plan, and what drains a second: the portal's own limits.
const BURST: usize = 50;
const PER_SECOND: usize = 2;

/// What a daemon puts together, on simulated time.
struct Office {
    router: Router,
    mirror: Arc<Mirror>,
    clock: Clock,
}

impl Office {
    fn open(config: &Config) -> Self {
        let began = Instant::now();
        let clock: Clock = Arc::new(move || {
            let start = Timestamp::from_second(1_795_348_800).unwrap();
            start.checked_add(began.elapsed()).unwrap()
        });
        let directory: Arc<dyn Directory> = serve::open_directory(config).unwrap();
        let table = &config.crms[0];
        let source = Source::new(
            table.name.clone(),
            serve::open_crm(config, table, false).unwrap(),
            config.region_of(table),
            &[],
            config.identity_of(table),
        );
        let mirror = Arc::new(Mirror::new(
            source.clone(),
            config.sync.clone(),
            Arc::clone(&directory),
            Arc::clone(&clock),
        ));
        let live = Live::new(vec![source], Arc::clone(&directory), Handle::current());
        let rules = config.open_rules().unwrap();
        let presence = Arc::new(pryamo::presence::Nothing);
        let router = Router::new(
            config.router_settings(),
            directory,
            Arc::new(live),
            presence,
            rules,
        );
        Self {
            router,
            mirror,
            clock,
        }
    }

    async fn rings(&self, query: &str) -> Option<String> {
        let call = forward::read_query(query);
        let decision = self
            .router
            .route(&call, (self.clock)(), Purpose::Call)
            .await;
        decision.ring.map(|extension| extension.to_string())
    }

    async fn wait_until_whole(&self) {
        let is_whole = || {
            let kinds = self.mirror.status().kinds;
            kinds.len() == 3 && kinds.values().all(|kind| kind.whole_at.is_some())
        };
        while !is_whole() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// What happened on a day.
struct Day {
    calls: u64,
    moved: u64,
    /// The longest that a stranger waited.
    slowest: Duration,
}

/// A day of calls while the portal is down and people go on working in it.
async fn live_through(office: &Office, world: &SharedWorld, fake: &FakeBitrix24) -> Day {
    let (mut calls, mut moved, mut slowest) = (0_u64, 0, Duration::ZERO);
    let down_at = Instant::now();
    while down_at.elapsed() < DAY {
        let id = calls % CONTACTS + 1;
        let asked_at = Instant::now();
        assert_eq!(office.rings(&call_of(id)).await.as_deref(), Some("101"));
        assert_eq!(
            asked_at.elapsed(),
            Duration::ZERO,
            "a known caller waits for nobody"
        );
        if calls.is_multiple_of(10) {
            let asked_at = Instant::now();
            let stranger = format!("phone=8903{calls:07}&trunk=s&callid=1");
            assert_eq!(office.rings(&stranger).await, None);
            slowest = slowest.max(asked_at.elapsed());
        }
        if calls.is_multiple_of(40) && moved < MOVED {
            moved += 1;
            let mut world = world.write().unwrap();
            let entry = &mut world.contacts[usize::try_from(moved).unwrap() - 1];
            entry.responsible = 2;
            entry.modified = fake.clock();
        }
        calls += 1;
        tokio::time::sleep(BETWEEN_CALLS).await;
    }
    Day {
        calls,
        moved,
        slowest,
    }
}

/// The most requests in any stretch of so many seconds.
fn most_within(times: &[Duration], stretch: Duration) -> usize {
    let within = |from: &Duration| {
        let later = times.iter().filter(|at| *at >= from);
        later.filter(|at| **at < *from + stretch).count()
    };
    times.iter().map(within).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_day_without_the_crm_stops_no_call_and_ends_without_a_rush() {
    let world = World::office(CONTACTS).shared();
    let fake = FakeBitrix24::start(SharedWorld::clone(&world), Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "data_dir = '{}'\n[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nurl = \"{}\"\n",
        folder.path().join("data").display(),
        fake.url()
    );
    let config = Config::parse(&text, None, &[]).unwrap();
    let office = Office::open(&config);
    let stop = CancellationToken::new();
    let mirror = Arc::clone(&office.mirror);
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { mirror.run(stop).await }
    });
    office.wait_until_whole().await;

    fake.set_mood(Mood::Down(usize::MAX));
    let Day {
        calls,
        moved,
        slowest,
    } = live_through(&office, &world, &fake).await;
    assert_eq!(moved, MOVED);
    let status = office.mirror.status();
    let contacts = &status.kinds[&EntityKind::Contact];
    assert!(contacts.error.is_some(), "{contacts:?}");
    let age = (office.clock)().duration_since(contacts.fresh_at.unwrap());
    assert!(age.as_hours() >= 23, "{age:?}");
    assert!(slowest <= Duration::from_millis(1500), "{slowest:?}");

    let before = fake.requests().len();
    fake.set_mood(Mood::Well);
    let up_at = Instant::now();
    for id in 1..=MOVED {
        while office.rings(&call_of(id)).await.as_deref() != Some("102") {
            assert!(up_at.elapsed() < Duration::from_hours(1), "contact {id}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let caught_up = up_at.elapsed();
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(fake.violations(), Vec::<String>::new());
    let times: Vec<Duration> = fake.requests()[before..]
        .iter()
        .map(|request| request.at)
        .collect();
    let rush = most_within(&times, Duration::from_secs(10));
    println!(
        "{calls} calls in 24 hours, all answered; caught up {caught_up:?} after the return, \
         {rush} requests at most within ten seconds, {} in half an hour",
        times.len()
    );
    assert!(rush <= BURST + 10 * PER_SECOND, "{rush}");
    stop.cancel();
    running.await.unwrap();
}
