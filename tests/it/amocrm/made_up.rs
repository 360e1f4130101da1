//! The connector against the made-up account: walks, changes, searches, limits, ailments.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use pryamo::crm::amocrm::KIND;
use pryamo::crm::{Common, Level};
use pryamo::phone::E164;
use pryamo::record::EntityKind;

use super::{
    ALL, CALLER, account, at, cards, changes, collect, common, connect, connect_with, find, id,
    ids, told, walk, world,
};
use crate::fake_amocrm::{FakeAmocrm, Mood, Options, Search};
use crate::world::Department;

#[tokio::test]
async fn a_full_walk_brings_every_card_once_and_in_order() {
    let latency = (Duration::from_millis(300), Duration::from_secs(1));
    let (fake, crm) = account(
        2_600,
        Options {
            page_latency: latency,
            ..Options::default()
        },
    );
    assert_eq!(crm.kinds(), ALL);
    let pages = walk(&*crm, EntityKind::Contact).await.unwrap();
    assert_eq!(ids(&pages), (1..=2_600).collect::<Vec<_>>());
    assert_eq!(pages.len(), 11);
    let (last, before) = pages.split_last().unwrap();
    assert!(last.cursor.is_none() && before.iter().all(|page| page.cursor.is_some()));
    assert_eq!(
        ids(&walk(&*crm, EntityKind::Company).await.unwrap()),
        [4001, 4002]
    );
    let deals = walk(&*crm, EntityKind::Deal).await.unwrap();
    assert_eq!(ids(&deals), [6001, 6002, 6003]);
    assert_eq!(crm.employees().await.unwrap().employees.len(), 2);
    assert!(fake.requests() >= 14);
}

#[tokio::test]
async fn a_walk_resumes_behind_any_cursor() {
    let (_fake, crm) = account(1_100, Options::default());
    let pages = walk(&*crm, EntityKind::Contact).await.unwrap();
    for (index, page) in pages.iter().enumerate() {
        let Some(cursor) = page.cursor.clone() else {
            continue;
        };
        let rest = collect(crm.walk(EntityKind::Contact, Some(cursor)))
            .await
            .unwrap();
        assert_eq!(ids(&rest), ids(&pages[index + 1..]));
    }
}

#[tokio::test]
async fn a_page_that_is_too_heavy_is_asked_for_in_smaller_ones() {
    let (fake, crm) = account(700, Options::default());
    let mut stream = crm.walk(EntityKind::Contact, None);
    let mut seen: HashSet<u64> = HashSet::new();
    while let Some(page) = stream.next().await {
        seen.extend(page.unwrap().cards.iter().map(id));
        fake.set_mood(Mood::HeavyAbove(100));
    }
    assert_eq!(seen.len(), 700);
    let pages = changes(&*crm, 0).await.unwrap();
    assert_eq!(ids(&pages).into_iter().collect::<HashSet<_>>(), seen);
}

#[tokio::test]
async fn changes_come_with_working_filters_and_without() {
    let (fake, crm) = account(900, Options::default());
    let since = 1_795_050_000;
    let expected: HashSet<u64> = {
        let shared = world(900);
        let world = shared.read().unwrap();
        let fresh = world
            .contacts
            .iter()
            .filter(|entry| entry.modified >= since - 120);
        fresh.map(|entry| entry.id).collect()
    };
    assert!(expected.len() > 250);
    for mood in [Mood::Fine, Mood::FiltersIgnored] {
        fake.set_mood(mood);
        let pages = changes(&*crm, since).await.unwrap();
        assert_eq!(
            ids(&pages).into_iter().collect::<HashSet<_>>(),
            expected,
            "{mood:?}"
        );
        let times: HashSet<_> = pages.iter().map(|page| page.server_time).collect();
        assert!(times.len() == 1 && !times.contains(&None));
    }
    fake.set_mood(Mood::FiltersAndOrderIgnored);
    let error = changes(&*crm, since).await.unwrap_err();
    assert_eq!(error.label(), "filter_ignored");
    assert_eq!(fake.violations(), [""; 0]);
}

#[tokio::test]
async fn a_change_during_the_reading_of_changes_hides_no_other() {
    let shared = world(900);
    let fake = FakeAmocrm::start(Arc::clone(&shared), Options::default());
    let crm = connect(&fake.table(), Path::new("/nonexistent"));
    let mut stream = crm.changes(EntityKind::Contact, at(Timestamp::UNIX_EPOCH));
    let mut seen: HashSet<u64> = HashSet::new();
    while let Some(page) = stream.next().await {
        let page = page.unwrap();
        // What was just read changes again and jumps to the front.
        let mut world = shared.write().unwrap();
        for card in page.cards.iter().take(40) {
            let now = fake.now();
            let changed = id(card);
            let entry = world.contacts.iter_mut().find(|entry| entry.id == changed);
            entry.unwrap().modified = now;
        }
        seen.extend(page.cards.iter().map(id));
    }
    assert_eq!(seen.len(), 900);
}

#[tokio::test]
async fn a_caller_is_found_with_their_company_and_deals() {
    let (fake, crm) = account(5, Options::default());
    let found = find(&*crm, CALLER).await.unwrap();
    // The company's number is written with brackets: this account's search is literal.
    assert_eq!(found, ["contact 1", "deal 6001", "deal 6002"]);
    assert_eq!(find(&*crm, 79_990_000_000).await.unwrap(), [""; 0]);
    fake.set_mood(Mood::FiltersIgnored);
    assert_eq!(
        find(&*crm, CALLER).await.unwrap(),
        ["contact 1", "deal 6001", "deal 6002"]
    );
    let options = Options {
        search: Search::Digits,
        ..Options::default()
    };
    let (_fake, crm) = account(5, options);
    let found = find(&*crm, CALLER).await.unwrap();
    assert_eq!(
        found,
        ["contact 1", "company 4002", "deal 6001", "deal 6002"]
    );
}

#[tokio::test]
async fn only_wanted_kinds_are_mirrored_and_searched() {
    let fake = FakeAmocrm::start(world(5), Options::default());
    let cases = [
        (
            vec![EntityKind::Contact, EntityKind::Lead],
            vec![EntityKind::Contact],
            1,
        ),
        (vec![EntityKind::Company], vec![EntityKind::Company], 1),
        // The deal is found by its contact, so that is searched too.
        (vec![EntityKind::Deal], vec![EntityKind::Deal], 2),
    ];
    for (wanted, kinds, requests) in cases {
        let common = Common {
            wanted,
            ..common(Path::new("/nonexistent"), &[])
        };
        let crm = (KIND.open)(toml::from_str(&fake.table()).unwrap(), common).unwrap();
        assert_eq!(crm.kinds(), kinds);
        let before = fake.requests();
        find(&*crm, CALLER).await.unwrap();
        assert_eq!(fake.requests() - before, requests);
        assert!(walk(&*crm, EntityKind::Lead).await.is_err());
    }
}

#[tokio::test]
async fn deleted_cards_are_gone_from_lists_and_search() {
    let (fake, crm) = account(5, Options::default());
    fake.delete("contacts", 1);
    fake.delete("leads", 6003);
    assert_eq!(
        ids(&walk(&*crm, EntityKind::Contact).await.unwrap()),
        [2, 3, 4, 5]
    );
    assert_eq!(
        ids(&walk(&*crm, EntityKind::Deal).await.unwrap()),
        [6001, 6002]
    );
    assert_eq!(find(&*crm, CALLER).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn the_limit_is_kept_and_a_live_lookup_is_let_through_while_a_walk_runs() {
    let latency = (Duration::from_millis(300), Duration::from_secs(1));
    let options = Options {
        limit: Some(7),
        speed: 4.0,
        page_latency: latency,
        ..Options::default()
    };
    let (fake, crm) = account(6_000, options);
    let started = Instant::now();
    let mut slowest_lookup = Duration::ZERO;
    let mut pages = Vec::new();
    let mut stream = crm.walk(EntityKind::Contact, None);
    while let Some(page) = stream.next().await {
        pages.push(page.unwrap());
        if pages.len() % 8 == 4 {
            let asked = Instant::now();
            let found = find(&*crm, CALLER).await.unwrap();
            assert!(found.contains(&"contact 1".to_owned()));
            slowest_lookup = slowest_lookup.max(asked.elapsed());
        }
    }
    assert_eq!(ids(&pages).len(), 6_000);
    assert_eq!(fake.violations(), [""; 0]);
    // 24 pages at five a second are 4.8 s in life, 1.2 s here; a sequential walk took over 3.6 s.
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    // Two searches and the deals behind them, each up to 1 s in life.
    assert!(
        slowest_lookup < Duration::from_secs(1),
        "{slowest_lookup:?}"
    );
}

#[tokio::test]
async fn a_careless_client_is_refused_and_then_blocked() {
    let options = Options {
        limit: Some(7),
        speed: 1.0,
        ..Options::default()
    };
    let fake = FakeAmocrm::start(world(1), options);
    let http = pryamo::crm::http_client(None).unwrap();
    let mut statuses = Vec::new();
    for _ in 0..50 {
        let request = http.get(format!("{}/api/v4/account", fake.url()));
        let response = request.bearer_auth(fake.token()).send().await.unwrap();
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 7);
    assert_eq!((statuses[7], statuses[49]), (429, 403));
    assert_eq!(fake.violations().len(), 43);
}

#[tokio::test]
async fn every_ailment_is_told_and_passes() {
    let cases = [
        (Mood::Down, "unreachable"),
        (Mood::Hang, "unreachable"),
        (Mood::Html502, "unreachable"),
        (Mood::LimitedJson(300), "rate_limited"),
        (Mood::LimitedHtml, "rate_limited"),
        (Mood::Blocked, "blocked"),
        (Mood::Revoked, "unauthorized"),
        (Mood::HeavyAbove(0), "unreachable"),
        (Mood::MissingField, "shape"),
        (Mood::WrongType, "shape"),
        (Mood::HtmlPage, "shape"),
        (Mood::CutPage, "shape"),
        (Mood::NextElsewhere, "shape"),
    ];
    let fake = FakeAmocrm::start(
        world(300),
        Options {
            speed: 200.0,
            ..Options::default()
        },
    );
    for (mood, label) in cases {
        // A connector of its own: a block or a long wait would reach into the next case.
        let crm = connect(&fake.table(), Path::new("/nonexistent"));
        fake.set_mood(mood);
        let error = walk(&*crm, EntityKind::Contact).await.unwrap_err();
        assert_eq!(error.label(), label, "{mood:?}: {}", told(&error));
        fake.set_mood(Mood::Fine);
        if matches!(mood, Mood::Blocked | Mood::LimitedJson(_)) {
            let before = fake.requests();
            assert!(walk(&*crm, EntityKind::Contact).await.is_err(), "{mood:?}");
            assert!(find(&*crm, CALLER).await.is_err(), "{mood:?}");
            assert_eq!(fake.requests(), before, "{mood:?}");
        } else {
            let pages = walk(&*crm, EntityKind::Contact).await.unwrap();
            assert_eq!(ids(&pages).len(), 300, "{mood:?}");
        }
    }
}

#[tokio::test]
async fn a_slow_account_is_waited_for_and_a_passing_fault_is_sat_out() {
    let (fake, crm) = account(300, Options::default());
    fake.set_mood(Mood::Slow(Duration::from_millis(50)));
    assert_eq!(
        ids(&walk(&*crm, EntityKind::Contact).await.unwrap()).len(),
        300
    );
    fake.set_mood(Mood::Down);
    let before = fake.requests();
    let recovery = async {
        while fake.requests() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fake.set_mood(Mood::Fine);
    };
    let (pages, ()) = tokio::join!(walk(&*crm, EntityKind::Contact), recovery);
    assert_eq!(ids(&pages.unwrap()).len(), 300);
}

#[tokio::test]
async fn check_finds_what_is_to_mend() {
    let ends_soon = Options {
        token_ends: 1_795_348_800 + 10 * 86_400,
        ..Options::default()
    };
    let cases = [
        (Options::default(), ""),
        (
            Options {
                admin: false,
                ..Options::default()
            },
            "administrator",
        ),
        (
            Options {
                filters: false,
                ..Options::default()
            },
            "filters",
        ),
        (ends_soon, "`crm.token`"),
    ];
    for (options, part) in cases {
        let (_fake, crm) = account(3, options);
        let findings = crm.check().await;
        let to_mend: Vec<String> = findings[1..]
            .iter()
            .filter(|finding| finding.level != Level::Good)
            .map(|finding| format!("{} {}", finding.text, finding.mend))
            .collect();
        assert_eq!(to_mend.len(), usize::from(!part.is_empty()), "{findings:?}");
        assert!(to_mend.concat().contains(part), "{findings:?}");
    }
}

#[tokio::test]
async fn tags_and_fields_are_asked_for_by_code_or_id() {
    let shared = world(1);
    {
        let mut world = shared.write().unwrap();
        world.contacts[0].tags = vec!["опт".to_owned(), "VIP".to_owned()];
        world.deals[0].tags = vec!["срочно".to_owned()];
    }
    let fake = FakeAmocrm::start(shared, Options::default());
    let crm = connect_with(
        &fake.table(),
        Path::new("/nonexistent"),
        &["9001", "NONE", "tags"],
    );
    let walked = walk(&*crm, EntityKind::Contact).await.unwrap();
    let changed = changes(&*crm, 0).await.unwrap();
    let read = crm.read(EntityKind::Contact, &[1.into()]).await.unwrap();
    let found = crm.find(E164::from_digits(CALLER).unwrap()).await.unwrap();
    let found = found.iter().find(|card| card.kind == EntityKind::Contact);
    let expected = [("9001", "+79000000001"), ("tags", "опт, VIP")];
    for card in [
        cards(&walked)[0],
        cards(&changed)[0],
        &read.cards[0],
        found.unwrap(),
    ] {
        let fields = card.fields.iter();
        let fields: Vec<(&str, &str)> = fields
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(fields, expected);
    }
    let deals = walk(&*crm, EntityKind::Deal).await.unwrap();
    assert_eq!(cards(&deals)[0].fields["tags"], "срочно");
    assert!(cards(&deals)[1].fields.is_empty());
}

#[tokio::test]
async fn groups_are_departments_without_heads() {
    let shared = world(1);
    {
        let mut world = shared.write().unwrap();
        let group = |id, name: &str| Department {
            id,
            name: name.to_owned(),
            ..Department::default()
        };
        world.departments = vec![group(3, "Опт"), group(8, "Розница")];
        world.users[1].departments = vec![9];
    }
    let fake = FakeAmocrm::start(Arc::clone(&shared), Options::default());
    let crm = connect(&fake.table(), Path::new("/nonexistent"));
    let staff = crm.employees().await.unwrap();
    let groups: Vec<(&str, &str)> = staff
        .departments
        .iter()
        .map(|group| (group.id.as_str(), group.name.as_str()))
        .collect();
    assert_eq!(
        groups,
        [
            ("0", "Отдел продаж"),
            ("3", "Опт"),
            ("8", "Розница"),
            ("9", "")
        ]
    );
    assert!(
        staff
            .departments
            .iter()
            .all(|group| group.head.is_none() && group.parent.is_none())
    );
    assert_eq!(staff.employees[0].departments, ["3"]);
}
