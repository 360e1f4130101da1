//! The promises of ARCHITECTURE.md that need a CRM: who waits for it, and what its failures do.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Line, Site, value};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::world::{Entry, SharedWorld, User, World};

const KNOWN: &str = "phone=%2B79161234567&trunk=74951234567&callid=1.1";
const UNKNOWN: &str = "phone=%2B79161234568&trunk=74951234567&callid=1.2";

fn world() -> SharedWorld {
    let anna = User {
        id: 17,
        first_name: "Анна".to_owned(),
        last_name: "Соколова".to_owned(),
        active: true,
        extension: Some("101".to_owned()),
        mobile: Some("+7 903 000-00-09".to_owned()),
        email: "anna@example.com".to_owned(),
        ..User::default()
    };
    World {
        users: vec![anna],
        contacts: vec![ivan(156, "8 (916) 123-45-67")],
        ..World::default()
    }
    .shared()
}

fn ivan(id: u64, phone: &str) -> Entry {
    Entry {
        id,
        name: "Иван".to_owned(),
        last_name: "Петров".to_owned(),
        responsible: 17,
        phones: vec![phone.to_owned()],
        modified: 1_795_000_000,
        ..Entry::default()
    }
}

async fn portal(world: &SharedWorld) -> (FakeBitrix24, Site, Daemon) {
    let fake = FakeBitrix24::start(SharedWorld::clone(world), Options::default()).await;
    let config = format!(
        "[match]\nlive_lookup_ms = 700\n[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nurl = \"{}\"\n",
        fake.url()
    );
    let site = Site::new(&config);
    let daemon = Daemon::start(&site);
    (fake, site, daemon)
}

fn add(world: &SharedWorld, contact: Entry) {
    world.write().unwrap().contacts.push(contact);
}

/// How often the portal was asked for a number since the mirror became whole.
fn lookups(fake: &FakeBitrix24) -> usize {
    let asks = |request: &crate::fake_bitrix24::Request| {
        request
            .commands
            .iter()
            .any(|command| command.starts_with("crm.duplicate.findbycomm"))
    };
    fake.requests()
        .iter()
        .filter(|request| asks(request))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_caller_never_waits_for_a_crm() {
    let (fake, _site, daemon) = portal(&world()).await;
    fake.set_mood(Mood::Hang);
    let before = lookups(&fake);
    for _ in 0..20 {
        let answer = daemon.forward(KNOWN);
        assert_eq!(value(&answer, "number").as_deref(), Some("101"));
        assert_eq!(value(&answer, "name").as_deref(), Some("Иван Петров"));
    }
    assert_eq!(lookups(&fake), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_is_silence() {
    let (fake, _site, daemon) = portal(&world()).await;
    for mood in [
        Mood::Down(usize::MAX),
        Mood::Html502(100),
        Mood::NotJson,
        Mood::Revoked,
        Mood::Hang,
    ] {
        fake.set_mood(mood);
        let began = Instant::now();
        assert_eq!(daemon.forward(UNKNOWN), "", "{mood:?}");
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{mood:?} took {:?}",
            began.elapsed()
        );
        assert_eq!(
            value(&daemon.forward(KNOWN), "number").as_deref(),
            Some("101")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_one_number_share_one_question() {
    let world = world();
    let (fake, _site, daemon) = portal(&world).await;
    add(&world, ivan(157, "+7 916 123-45-68 доб. 5"));
    fake.set_mood(Mood::Slow(200));
    let before = lookups(&fake);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..30)
            .map(|_| scope.spawn(|| daemon.forward(UNKNOWN)))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    for answer in answers {
        assert_eq!(
            value(&answer, "number"),
            None,
            "the portal's own search misses «доб. 5»"
        );
    }
    assert_eq!(lookups(&fake), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_live_lookup_finds_enters_the_mirror() {
    let world = world();
    let (fake, site, daemon) = portal(&world).await;
    add(&world, ivan(157, "+7 (916) 123-45-68"));
    let before = lookups(&fake);
    // Somebody who only wants to know changes nothing.
    let explained = site.run(&["explain", "+79161234568"]);
    assert!(explained.out.contains("asked sales live: 1 found"));
    let found = daemon.forward(UNKNOWN);
    assert_eq!(value(&found, "number").as_deref(), Some("101"));
    assert_eq!(lookups(&fake), before + 2);
    fake.set_mood(Mood::Down(usize::MAX));
    assert_eq!(daemon.forward(UNKNOWN), found);
    assert_eq!(lookups(&fake), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_behind_a_caller_who_was_asked_for_live() {
    let world = world();
    let (fake, _site, daemon) = portal(&world).await;
    add(&world, ivan(157, "+7 (916) 123-45-68"));
    fake.set_mood(Mood::Slow(200));
    let mut waits = Line::open(&daemon);
    let mut knows = Line::open(&daemon);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| waits.forward(UNKNOWN));
        // Whoever is known is answered meanwhile.
        for _ in 0..20 {
            assert_eq!(
                value(&knows.forward(KNOWN), "number").as_deref(),
                Some("101")
            );
        }
        let found = asked.join().unwrap();
        assert_eq!(value(&found, "number").as_deref(), Some("101"));
    });
    for query in [KNOWN, UNKNOWN, KNOWN] {
        assert_eq!(
            value(&waits.forward(query), "number").as_deref(),
            Some("101")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_remembered_for_a_short_time() {
    let (fake, _site, daemon) = portal(&world()).await;
    let before = lookups(&fake);
    for _ in 0..5 {
        assert_eq!(daemon.forward(UNKNOWN), "");
    }
    assert_eq!(lookups(&fake), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_crm_is_left_alone() {
    let (fake, _site, daemon) = portal(&world()).await;
    fake.set_mood(Mood::Html502(1000));
    for last in 0..10 {
        let query = format!("phone=%2B7916123400{last}&trunk=s");
        assert_eq!(daemon.forward(&query), "");
    }
    assert!(
        lookups(&fake) <= 3,
        "the breaker opens after three failures: {}",
        lookups(&fake)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_path() {
    let (_fake, site, daemon) = portal(&world()).await;
    let api: serde_json::Value = serde_json::from_str(
        &daemon
            .get("/api/v1/route?phone=%2B79161234567&did=74951234567")
            .body,
    )
    .unwrap();
    let command = site.run(&["explain", "+79161234567", "--did", "74951234567", "--json"]);
    let explained: serde_json::Value = serde_json::from_str(&command.out).unwrap();
    assert_eq!(api, explained);
    let answer = daemon.forward(KNOWN);
    assert_eq!(value(&answer, "number").as_deref(), api["number"].as_str());
    assert_eq!(value(&answer, "name").as_deref(), api["name"].as_str());
    assert_eq!(
        daemon.get("/name?phone=%2B79161234567").body,
        api["name"].as_str().unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_employees_own_phone_is_no_client() {
    let world = world();
    add(&world, ivan(158, "8 903 000 00 09"));
    let (_fake, site, daemon) = portal(&world).await;
    assert_eq!(daemon.forward("phone=79030000009&trunk=s"), "");
    let explained = site.run(&["explain", "89030000009"]);
    assert_eq!(explained.code, 4);
    assert!(explained.out.contains("an employee, not a client"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_source_deletes_nothing() {
    let world = world();
    {
        let mut world = world.write().unwrap();
        for id in 200..260 {
            world.contacts.push(ivan(id, &format!("+7916765{id:04}")));
        }
    }
    let (_fake, site, daemon) = portal(&world).await;
    let all = std::mem::take(&mut world.write().unwrap().contacts);
    let refused = site.run(&["sync", "--full"]);
    let told = &refused.out;
    assert_eq!(refused.code, 1, "{told}");
    assert!(
        told.contains("61 of 61 cards are missing") && told.contains("--accept-deletions"),
        "{told}"
    );
    assert_eq!(
        value(&daemon.forward(KNOWN), "number").as_deref(),
        Some("101")
    );
    // A few that are gone are believed; what is there again is found again.
    world.write().unwrap().contacts = all[1..].to_vec();
    assert_eq!(site.run(&["sync", "--full"]).code, 0);
    assert_eq!(daemon.forward(KNOWN), "");
    world.write().unwrap().contacts.clear();
    assert_eq!(site.run(&["sync", "--full", "--accept-deletions"]).code, 0);
    assert_eq!(daemon.forward("phone=79167650200&trunk=s"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_with_the_periodic_check() {
    let world = world();
    let (fake, site, daemon) = portal(&world).await;
    {
        let mut world = world.write().unwrap();
        world.contacts[0].phones = vec!["8 916 123 45 69".to_owned()];
        world.contacts[0].modified = fake.clock();
    }
    assert_eq!(site.run(&["sync"]).code, 0);
    let moved = daemon.forward("phone=79161234569&trunk=s");
    assert_eq!(value(&moved, "number").as_deref(), Some("101"));
    assert_eq!(daemon.forward(KNOWN), "");
}
