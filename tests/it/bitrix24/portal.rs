//! The connector against the made-up portal: walks, changes, lookups, limits, illnesses.

use std::time::Duration;

use futures::stream::StreamExt;
use jiff::Timestamp;
use pryamo::crm::{CrmError, Cursor, Level, Page, Since};
use pryamo::record::{Card, EmployeeId, EntityId, EntityKind, Stage};

use super::{
    CODE, at_speed, connect, contact, contacts, drain, fast_portal, ids, label, phone, printed,
    user,
};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::world::{self, Entry, World};

fn ids_of(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.id).collect()
}

#[tokio::test]
async fn a_full_walk_brings_every_card_of_every_kind() {
    let mut world = contacts(1234);
    world.contacts[0].phones.clear();
    world.contacts[1].company = Some(7);
    world.companies = (1..=250).map(contact).collect();
    world.leads = (1..=60).map(contact).collect();
    world.leads[0].stage = world::Stage::Junk;
    world.deals = vec![Entry {
        contacts: vec![3, 6],
        company: Some(7),
        stage: world::Stage::Closed,
        ..contact(1)
    }];
    let (fake, crm) = fast_portal(world.clone()).await;
    for (kind, expected) in [
        (EntityKind::Contact, &world.contacts),
        (EntityKind::Company, &world.companies),
        (EntityKind::Lead, &world.leads),
        (EntityKind::Deal, &world.deals),
    ] {
        let (pages, error) = drain(crm.walk(kind, None)).await;
        assert!(error.is_none(), "{kind}: {error:?}");
        assert_eq!(ids(&pages), ids_of(expected), "{kind}");
        let cards = pages.iter().flat_map(|page| &page.cards);
        for (card, entry) in cards.zip(expected) {
            assert_eq!(*card, as_card(kind, entry));
        }
    }
    assert_eq!(fake.violations(), [""; 0]);
    assert!(fake.requests().len() < 12, "{}", fake.requests().len());
}

/// What the connector has to make of a made-up entry.
fn as_card(kind: EntityKind, entry: &Entry) -> Card {
    let mut card = Card::new(kind, EntityId::from(entry.id));
    card.name = match kind {
        EntityKind::Contact => format!("{} {}", entry.name, entry.last_name),
        EntityKind::Lead => entry.last_name.clone(),
        _ => entry.name.clone(),
    };
    card.responsible = Some(EmployeeId::new(&entry.responsible.to_string()));
    if kind != EntityKind::Deal {
        card.phones.clone_from(&entry.phones);
    }
    card.modified = Timestamp::from_second(entry.modified).ok();
    card.stage = match (kind, entry.stage) {
        (EntityKind::Lead, world::Stage::Junk) => Stage::Junk,
        (_, world::Stage::Open) => Stage::Open,
        _ => Stage::Closed,
    };
    let contact = entry.contacts.first();
    card.links
        .extend(contact.map(|id| (EntityKind::Contact, EntityId::from(*id))));
    let company = entry.company;
    card.links
        .extend(company.map(|id| (EntityKind::Company, EntityId::from(id))));
    card
}

#[tokio::test]
async fn a_walk_goes_on_behind_a_cursor() {
    let world = contacts(1000);
    let (_fake, crm) = fast_portal(world.clone()).await;
    let first: Vec<Page> = crm
        .walk(EntityKind::Contact, None)
        .take(2)
        .map(Result::unwrap)
        .collect()
        .await;
    let cursor = first[1].cursor.clone();
    assert!(cursor.is_some());
    let crm_restarted = crm;
    let (rest, error) = drain(crm_restarted.walk(EntityKind::Contact, cursor)).await;
    assert!(error.is_none());
    let together = [ids(&first), ids(&rest)].concat();
    assert_eq!(together, ids_of(&world.contacts));
}

#[tokio::test]
async fn few_pages_are_asked_for_behind_the_end() {
    let mut world = contacts(10_000);
    for (place, entry) in (1..).zip(&mut world.contacts) {
        entry.id = place;
    }
    let (fake, crm) = fast_portal(world).await;
    let (pages, error) = drain(crm.walk(EntityKind::Contact, None)).await;
    assert!(error.is_none());
    assert_eq!(ids(&pages).len(), 10_000);
    // 200 full pages, the empty one behind them, and two questions for the highest ID.
    assert_eq!(fake.pages(), 203);
}

#[tokio::test]
async fn a_base_of_whole_pages_ends_without_repeats() {
    for count in [0, 49, 50, 51, 250, 500] {
        let world = contacts(count);
        let (_fake, crm) = fast_portal(world.clone()).await;
        let (pages, error) = drain(crm.walk(EntityKind::Contact, None)).await;
        assert!(error.is_none(), "{count}");
        assert_eq!(ids(&pages), ids_of(&world.contacts), "{count}");
        let last = pages.last().unwrap();
        assert_eq!(last.cursor, None, "{count}");
    }
}

#[tokio::test]
async fn simple_mode_has_no_leads() {
    let mut world = contacts(1);
    world.leads = vec![contact(1)];
    let options = Options {
        is_simple_mode: true,
        ..Options::default()
    };
    let fake = FakeBitrix24::start(world.shared(), options).await;
    let crm = connect(&fake.url(), "");
    let (pages, error) = drain(crm.walk(EntityKind::Lead, None)).await;
    assert!(error.is_none() && ids(&pages).is_empty());
}

fn at(time: Timestamp) -> Since {
    Since {
        time,
        highest_id: None,
    }
}

#[tokio::test]
async fn changes_are_those_since_then_with_an_overlap() {
    let (fake, crm) = fast_portal(contacts(900)).await;
    // Cards changed 3, 6, 9 ... minutes before the portal's clock began.
    let since = Timestamp::from_second(1_795_348_800 - 60 * 60).unwrap();
    let (pages, error) = drain(crm.changes(EntityKind::Contact, at(since))).await;
    assert!(error.is_none());
    assert_eq!(ids(&pages), (1..=21).map(|n| n * 3).collect::<Vec<u64>>());
    assert_eq!(fake.requests().len(), 1);
    assert_eq!(fake.requests()[0].commands.len(), 1);
    let clock = pages[0].server_time.unwrap().as_second();
    assert!((1_795_348_800..1_795_348_900).contains(&clock), "{clock}");

    let since = Timestamp::from_second(0).unwrap();
    let (pages, error) = drain(crm.changes(EntityKind::Contact, at(since))).await;
    assert!(error.is_none());
    assert_eq!(ids(&pages).len(), 900);
    assert!(fake.requests().len() <= 7, "{}", fake.requests().len());
}

#[tokio::test]
async fn an_ignored_filter_is_noticed() {
    let (fake, crm) = fast_portal(contacts(200)).await;
    fake.set_mood(Mood::FilterIgnored);
    let since = Timestamp::from_second(1_795_348_800).unwrap();
    let (pages, error) = drain(crm.changes(EntityKind::Contact, at(since))).await;
    assert_eq!(label(error.as_ref()), "filter_ignored");
    assert!(pages.is_empty());
    let cursor = Some(Cursor("30".into()));
    let (pages, error) = drain(crm.walk(EntityKind::Contact, cursor)).await;
    assert_eq!(label(error.as_ref()), "filter_ignored");
    assert!(pages.is_empty());
}

#[tokio::test]
async fn a_portal_without_references_is_walked_page_by_page() {
    let world = contacts(230);
    let (fake, crm) = fast_portal(world.clone()).await;
    fake.set_mood(Mood::ReferencesIgnored);
    let (pages, error) = drain(crm.walk(EntityKind::Contact, None)).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(ids(&pages), ids_of(&world.contacts));
}

#[tokio::test]
async fn a_damaged_page_keeps_the_cursor_before_it() {
    let world = contacts(1000);
    let (fake, crm) = fast_portal(world.clone()).await;
    // The ninth list comes damaged once: it is the third of the second batch.
    fake.set_mood(Mood::Damaged(9));
    let (pages, error) = drain(crm.walk(EntityKind::Contact, None)).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(ids(&pages), ids_of(&world.contacts));
    assert_eq!(pages[1].cards.len(), 100);

    fake.set_mood(Mood::AllDamaged);
    let (pages, error) = drain(crm.walk(EntityKind::Contact, None)).await;
    assert_eq!(label(error.as_ref()), "shape");
    assert!(error.unwrap().to_string().contains("`crm.contact.list`"));
    assert!(pages.is_empty());
}

#[tokio::test]
async fn employees_include_the_dismissed_and_those_behind_the_first_page() {
    let world = World {
        users: (1..=120).map(user).collect(),
        ..World::default()
    };
    let (fake, crm) = fast_portal(world).await;
    let employees = crm.employees().await.unwrap().employees;
    assert_eq!(employees.len(), 120);
    assert!(employees[0].active && !employees[1].active);
    assert_eq!(employees[0].extension.as_deref(), Some("101"));
    assert_eq!(employees[2].extension, None);
    // Three pages, the departments, and calendars that are not ours to read.
    assert_eq!(fake.requests().len(), 5);
}

#[tokio::test]
async fn a_number_is_found_however_it_was_typed() {
    let mut world = contacts(3);
    world.contacts[0].phones = vec!["8 (912) 000-00-01".into()];
    world.contacts[1].phones = vec!["912 000-00-01".into()];
    world.contacts[2].phones = vec!["+8 912 000 00 01".into()];
    world.companies = vec![Entry {
        phones: vec!["+7 912 000-00-01".into()],
        ..contact(9)
    }];
    world.leads = vec![contact(5)];
    let (fake, crm) = fast_portal(world).await;
    let found = crm.find(phone(79_120_000_001)).await.unwrap();
    let found: Vec<(EntityKind, &str)> = found
        .iter()
        .map(|card| (card.kind, card.id.as_str()))
        .collect();
    let expected = [
        (EntityKind::Contact, "3"),
        (EntityKind::Contact, "6"),
        (EntityKind::Contact, "9"),
        (EntityKind::Company, "9"),
    ];
    assert_eq!(found, expected);
    assert_eq!(fake.requests().len(), 2);
    assert_eq!(crm.find(phone(79_120_000_009)).await.unwrap(), []);
    assert_eq!(fake.requests().len(), 3);
}

#[tokio::test]
async fn a_found_card_carries_what_a_walked_one_does() {
    let world = contacts(1);
    let (_fake, crm) = fast_portal(world.clone()).await;
    let found = crm.find(phone(79_000_000_003)).await.unwrap();
    assert_eq!(found, [as_card(EntityKind::Contact, &world.contacts[0])]);
}

#[tokio::test]
async fn the_bucket_is_never_overfilled_and_the_reserve_stays_for_callers() {
    let speed = 20.0;
    let options = Options {
        speed,
        ..Options::default()
    };
    let world = contacts(5000);
    let fake = FakeBitrix24::start(world.clone().shared(), options).await;
    let settings = format!("batch_pages = 1\n{}", at_speed(speed));
    let crm = connect(&fake.url(), &settings);
    let mut pages = crm.walk(EntityKind::Contact, None);
    let mut read = Vec::new();
    while let Some(page) = pages.next().await {
        read.push(page.unwrap());
        // By now the walk has used up its part of the bucket.
        if read.len() == 40 {
            for _ in 0..4 {
                let found = crm.find(phone(79_000_000_003)).await.unwrap();
                assert_eq!(found.len(), 1);
            }
        }
    }
    assert_eq!(ids(&read), ids_of(&world.contacts));
    assert_eq!(fake.violations(), [""; 0]);
    // 0.8 of 50 at once and of 40 a second, less the reserve.
    let requests = fake.requests();
    let last = requests.last().unwrap().at.as_secs_f64();
    let fastest = (101.0 - 30.0) / (0.8 * 2.0 * speed);
    assert!(last > fastest * 0.95, "{last} s against {fastest} s");
}

#[tokio::test]
async fn the_working_time_is_never_overdrawn() {
    let speed = 600.0;
    let options = Options {
        speed,
        page_ms: 600.0,
        ..Options::default()
    };
    let world = contacts(50_000);
    let fake = FakeBitrix24::start(world.clone().shared(), options).await;
    let crm = connect(&fake.url(), &at_speed(speed));
    let (pages, error) = drain(crm.walk(EntityKind::Contact, None)).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(ids(&pages), ids_of(&world.contacts));
    assert_eq!(fake.violations(), [""; 0]);
}

#[tokio::test]
async fn gateway_errors_halve_the_batches() {
    let world = contacts(2000);
    let (fake, crm) = fast_portal(world.clone()).await;
    let mut pages = crm.walk(EntityKind::Contact, None);
    let mut read = vec![pages.next().await.unwrap().unwrap()];
    fake.set_mood(Mood::Html502(1));
    while let Some(page) = pages.next().await {
        read.push(page.unwrap());
    }
    assert_eq!(ids(&read), ids_of(&world.contacts));
    let sizes: Vec<usize> = fake.requests().iter().map(|r| r.commands.len()).collect();
    // The second batch failed and was halved; then the size rises by and by.
    assert_eq!(sizes, [6, 10, 5, 6, 7, 8, 10]);
}

#[tokio::test]
async fn a_live_lookup_fails_at_once_and_never_tells_the_secret() {
    let (fake, crm) = fast_portal(contacts(1)).await;
    let number = phone(79_000_000_003);
    assert_eq!(crm.find(number).await.unwrap().len(), 1);
    let table = [
        (Mood::Html502(1), "unreachable"),
        (Mood::NotJson, "unreachable"),
        (Mood::Down(1), "unreachable"),
        (Mood::Revoked, "unauthorized"),
        (Mood::ScopeMissing("crm"), "forbidden"),
        (Mood::Redirect, "refused"),
        (Mood::AllDamaged, "shape"),
        (Mood::FilterIgnored, "well"),
        (Mood::Slow(20), "well"),
    ];
    for (mood, expected) in table {
        let before = fake.requests().len();
        fake.set_mood(mood);
        let found = crm.find(number).await;
        assert_eq!(label(found.as_ref().err()), expected, "{mood:?}: {found:?}");
        assert!(fake.requests().len() <= before + 2, "{mood:?}");
        if let Err(error) = found {
            let text = printed(&error);
            assert!(!text.contains(CODE), "{text}");
        }
    }
    fake.set_mood(Mood::Well);
    assert_eq!(crm.find(number).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_block_by_the_vendors_hand_stops_everything() {
    let (fake, crm) = fast_portal(contacts(1)).await;
    let number = phone(79_000_000_003);
    fake.set_mood(Mood::OverloadLimit);
    let first = crm.find(number).await;
    assert_eq!(label(first.as_ref().err()), "blocked");
    fake.set_mood(Mood::Well);
    let Err(CrmError::OutOfBudget(wait)) = crm.find(number).await else {
        panic!("a blocked portal was asked");
    };
    assert!((590..=600).contains(&wait.as_secs()), "{wait:?}");
    let kinds = [EntityId::from(3)];
    let background = async {
        tokio::select! {
            read = crm.read(EntityKind::Contact, &kinds) => Some(read),
            walked = drain(crm.walk(EntityKind::Contact, None)) => panic!("{walked:?}"),
            () = tokio::time::sleep(Duration::from_millis(100)) => None,
        }
    };
    assert!(background.await.is_none());
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_full_bucket_stops_live_lookups_at_once() {
    // Somebody else on the same address has filled it.
    let fake = FakeBitrix24::start(contacts(1).shared(), Options::default()).await;
    let crm = connect(&fake.url(), "");
    let number = phone(79_000_000_003);
    fake.set_mood(Mood::QueryLimit(1));
    let first = crm.find(number).await;
    assert_eq!(label(first.as_ref().err()), "rate_limited");
    let second = crm.find(number).await;
    assert_eq!(label(second.as_ref().err()), "out_of_budget");
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_spent_method_rests_and_the_others_go_on() {
    let (fake, crm) = fast_portal(contacts(1)).await;
    let number = phone(79_000_000_003);
    fake.set_mood(Mood::OperationLimit(600_000));
    let first = crm.find(number).await;
    assert_eq!(label(first.as_ref().err()), "rate_limited");
    fake.set_mood(Mood::Well);
    let second = crm.find(number).await;
    assert_eq!(label(second.as_ref().err()), "out_of_budget");
    let (pages, error) = drain(crm.walk(EntityKind::Contact, None)).await;
    assert!(error.is_none());
    assert_eq!(ids(&pages), [3]);
}

#[tokio::test]
async fn a_portal_that_is_down_for_a_moment_is_waited_for() {
    let (fake, crm) = fast_portal(contacts(10)).await;
    assert_eq!(crm.employees().await.unwrap().employees.len(), 3);
    fake.set_mood(Mood::Down(2));
    assert_eq!(crm.employees().await.unwrap().employees.len(), 3);
}

#[tokio::test]
async fn a_check_names_the_missing_right() {
    let (fake, crm) = fast_portal(contacts(1)).await;
    let findings = crm.check().await;
    let levels: Vec<Level> = findings.iter().map(|finding| finding.level).collect();
    assert_eq!(
        levels,
        [Level::Warning, Level::Good, Level::Good, Level::Good],
        "{findings:?}"
    );
    assert!(findings[2].text.contains("absences"), "{findings:?}");
    assert!(findings[3].text.contains("found by asking"), "{findings:?}");
    fake.set_mood(Mood::ScopeMissing("crm"));
    let findings = crm.check().await;
    let fault = findings.iter().find(|f| f.level == Level::Fault).unwrap();
    assert!(fault.text.contains("tick the right `crm`"), "{fault:?}");
    assert_eq!(fake.requests().len(), 2);
}
