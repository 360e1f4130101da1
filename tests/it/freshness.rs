//! How long a change in the CRM takes to the right answer of `/forward`: with notices, and by asking
//! for changes alone. Prints the figures; that each change arrives is what is tested.
//!
//! `PRYAMO_TEST_CHANGES_EVERY` sets how often changes are asked for, seconds; 60 is life.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Line, Site, posting, value};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{self, FakeBitrix24};
use crate::messy::Dice;
use crate::world::{Happened, List, SharedWorld, What, World, call_of};

const CONTACTS: u64 = 5000;
const CHANGES: u64 = 100;
/// Without notices each one waits for the next check.
const CHANGES_UNTOLD: u64 = 15;
const SECRET: &str = "made-up-secret";
const LONGEST: Duration = Duration::from_mins(5);

/// The fakes, as far as this test goes.
enum Crm {
    Bitrix24(FakeBitrix24),
    Amocrm(FakeAmocrm),
}

impl Crm {
    fn now(&self) -> i64 {
        match self {
            Self::Bitrix24(fake) => fake.clock(),
            Self::Amocrm(fake) => fake.now(),
        }
    }

    fn hook_bodies(&self, happened: &Happened) -> Vec<(String, String)> {
        match self {
            Self::Bitrix24(fake) => fake.hook_bodies(happened),
            Self::Amocrm(fake) => {
                fake.happened(happened);
                fake.hook_bodies(happened)
            }
        }
    }

    fn table(&self) -> String {
        match self {
            Self::Bitrix24(fake) => format!("kind = \"bitrix24\"\nurl = \"{}\"\n", fake.url()),
            Self::Amocrm(fake) => format!(
                "kind = \"amocrm\"\n{}[crm.employees]\n1 = {{ extension = \"101\" }}\n2 = {{ extension = \"102\" }}\n",
                fake.table()
            ),
        }
    }
}

async fn bitrix24(world: &SharedWorld) -> Crm {
    let options = fake_bitrix24::Options {
        page_ms: 100.0,
        ..fake_bitrix24::Options::default()
    };
    Crm::Bitrix24(FakeBitrix24::start(SharedWorld::clone(world), options).await)
}

fn amocrm(world: &SharedWorld) -> Crm {
    let options = fake_amocrm::Options {
        limit: Some(7),
        speed: 1.0,
        page_latency: (Duration::from_millis(300), Duration::from_secs(1)),
        ..fake_amocrm::Options::default()
    };
    Crm::Amocrm(FakeAmocrm::start(SharedWorld::clone(world), options))
}

#[expect(clippy::disallowed_methods, reason = "a knob of this test alone")]
fn changes_every() -> u64 {
    std::env::var("PRYAMO_TEST_CHANGES_EVERY")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(2)
}

/// Changes one card after another, and waits for each at `/forward`; gives how long each took.
fn measure(crm: &Crm, world: &SharedWorld, every: u64, notices: bool) -> Vec<Duration> {
    let hook = if notices {
        format!("hook_secret = \"{SECRET}\"\n")
    } else {
        String::new()
    };
    let config = format!(
        "[match]\nlive_lookup_ms = 0\n[sync]\nchanges_every_seconds = {every}\n[[crm]]\nname = \"sales\"\n{hook}{}",
        crm.table()
    );
    let site = Site::new(&config);
    let daemon = Daemon::start(&site);
    let mut line = Line::open(&daemon);
    let mut dice = Dice(7);
    let mut took = Vec::new();
    let changes = if notices { CHANGES } else { CHANGES_UNTOLD };
    for change in 0..changes {
        // Anywhere between two checks for changes.
        let longest_ms = if notices { 300 } else { every * 1000 };
        std::thread::sleep(Duration::from_millis(dice.below(longest_ms)));
        let id = change * 37 % CONTACTS + 1;
        {
            let mut world = world.write().unwrap();
            let entry = &mut world.contacts[usize::try_from(id).unwrap() - 1];
            entry.responsible = 3 - entry.responsible;
            entry.modified = crm.now();
        }
        let expected = (100
            + world.read().unwrap().contacts[usize::try_from(id).unwrap() - 1].responsible)
            .to_string();
        let changed_at = Instant::now();
        let happened = Happened {
            list: List::Contacts,
            id,
            what: What::Reassigned(1),
        };
        let bodies = crm.hook_bodies(&happened);
        for (content_type, body) in bodies.iter().filter(|_| notices) {
            let target = format!("/hooks/sales/{SECRET}");
            let sent = posting(&target, content_type, body.as_bytes());
            assert_eq!(daemon.raw(&sent).status, 200);
        }
        let query = call_of(id);
        while value(&line.forward(&query), "number").as_ref() != Some(&expected) {
            assert!(
                changed_at.elapsed() < LONGEST,
                "contact {id}:\n{}",
                daemon.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        took.push(changed_at.elapsed());
    }
    took.sort_unstable();
    took
}

fn show(what: &str, took: &[Duration]) {
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    println!(
        "{what}: {} changes, p50 {:.2?}, p99 {:.2?}, slowest {:.2?}",
        took.len(),
        at(50),
        at(99),
        took[took.len() - 1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_with_notices_and_without() {
    let every = changes_every();
    let first = World::office(CONTACTS).shared();
    let portal = bitrix24(&first).await;
    show("bitrix24, notices", &measure(&portal, &first, 86_400, true));
    let second = World::office(CONTACTS).shared();
    let account = amocrm(&second);
    show("amocrm, notices", &measure(&account, &second, 86_400, true));
    show(
        &format!("bitrix24, changes asked for every {every} s"),
        &measure(&portal, &first, every, false),
    );
    show(
        &format!("amocrm, changes asked for every {every} s"),
        &measure(&account, &second, every, false),
    );
    if let Crm::Bitrix24(fake) = &portal {
        assert_eq!(fake.violations(), Vec::<String>::new());
    }
    if let Crm::Amocrm(fake) = &account {
        assert_eq!(fake.violations(), Vec::<String>::new());
    }
}
