//! Changes with what is new and old at once, and cards that are read again.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::StreamExt;
use jiff::Timestamp;
use pryamo::crm::Since;
use pryamo::record::{EntityId, EntityKind};

use super::{at_speed, connect, contacts, drain, fast_portal, ids, label, portal_with};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::world::World;

/// An hour before the portal's clock begins; cards 3, 6, 9, ... 63 have changed since, with the
/// overlap.
const AN_HOUR_AGO: i64 = 1_795_348_800 - 60 * 60;

fn since(second: i64, highest_id: u64) -> Since {
    Since {
        time: Timestamp::from_second(second).unwrap(),
        highest_id: Some(highest_id),
    }
}

#[tokio::test]
async fn cards_imported_with_old_dates_are_changes_too() {
    let (fake, crm) = fast_portal(contacts(900)).await;
    // Cards 2688 to 2700 were changed two days ago.
    let (pages, error) = drain(crm.changes(EntityKind::Contact, since(AN_HOUR_AGO, 2685))).await;
    assert!(error.is_none(), "{error:?}");
    let in_window = (1..=21).map(|n| n * 3);
    let new = [2688, 2691, 2694, 2697, 2700];
    assert_eq!(ids(&pages), in_window.chain(new).collect::<Vec<u64>>());
    assert!(pages[0].server_time.is_some());
    assert_eq!(fake.requests().len(), 1);
    assert_eq!(fake.requests()[0].commands.len(), 2);
}

#[tokio::test]
async fn many_new_and_changed_cards_come_each_once_in_few_requests() {
    let (fake, crm) = fast_portal(contacts(900)).await;
    let (pages, error) = drain(crm.changes(EntityKind::Contact, since(AN_HOUR_AGO, 300))).await;
    assert!(error.is_none(), "{error:?}");
    let read = ids(&pages);
    let distinct: BTreeSet<u64> = read.iter().copied().collect();
    let expected: BTreeSet<u64> = (1..=21).chain(101..=900).map(|n| n * 3).collect();
    assert_eq!(distinct, expected);
    assert_eq!(read.len(), distinct.len());
    assert!(fake.requests().len() <= 6, "{}", fake.requests().len());
    // Both strands are long.
    let (pages, error) = drain(crm.changes(EntityKind::Contact, since(0, 1500))).await;
    assert!(error.is_none(), "{error:?}");
    let distinct: BTreeSet<u64> = ids(&pages).into_iter().collect();
    assert_eq!(distinct.len(), 900);
}

#[tokio::test]
async fn a_new_card_that_is_not_above_the_highest_is_an_ignored_filter() {
    let (fake, crm) = fast_portal(contacts(30)).await;
    fake.set_mood(Mood::FilterIgnored);
    // All of them lie in the window, so only the other strand can tell.
    let (pages, error) = drain(crm.changes(EntityKind::Contact, since(0, 60))).await;
    assert_eq!(label(error.as_ref()), "filter_ignored");
    assert!(pages.is_empty());
}

#[tokio::test]
async fn cards_are_read_again_and_the_missing_left_out() {
    let world = contacts(100).shared();
    let fake = portal_with(&world, Options::default()).await;
    let crm = connect(&fake.url(), &at_speed(100.0));
    let wanted = ["6", "3", "4", "999999", "C-17", "9", "3"].map(EntityId::new);
    let page = crm.read(EntityKind::Contact, &wanted).await.unwrap();
    assert_eq!(ids(&[page]), [3, 6, 9]);
    world.write().unwrap().contacts.remove(1);
    let page = crm.read(EntityKind::Contact, &wanted).await.unwrap();
    assert!(page.server_time.is_some() && page.cursor.is_none());
    assert_eq!(ids(&[page]), [3, 9]);

    let fifty: Vec<EntityId> = (11..=60).map(|n| EntityId::from(n * 3)).collect();
    let page = crm.read(EntityKind::Contact, &fifty).await.unwrap();
    assert_eq!(page.cards.len(), 50);
    let page = crm.read(EntityKind::Company, &fifty).await.unwrap();
    assert!(page.cards.is_empty());
    assert_eq!(fake.requests().len(), 4);

    // Without a single number there is nothing to ask; an empty filter would bring all.
    let page = crm
        .read(EntityKind::Contact, &[EntityId::new("C-17")])
        .await;
    assert!(page.unwrap().cards.is_empty());
    assert_eq!(fake.requests().len(), 4);
    fake.set_mood(Mood::FilterIgnored);
    let error = crm.read(EntityKind::Contact, &wanted).await.err();
    assert_eq!(label(error.as_ref()), "filter_ignored");
}

#[tokio::test]
async fn a_notices_card_is_read_before_a_walk_goes_on() {
    let speed = 20.0;
    let options = Options {
        speed,
        ..Options::default()
    };
    let world: Arc<_> = World::shared(contacts(5000));
    let fake = FakeBitrix24::start(world, options).await;
    let crm = connect(
        &fake.url(),
        &format!("batch_pages = 1\n{}", at_speed(speed)),
    );
    let mut pages = crm.walk(EntityKind::Contact, None);
    // By now the walk has used up the background's part of the bucket and waits for each place.
    for _ in 0..35 {
        pages.next().await.unwrap().unwrap();
    }
    let before = fake.requests().len();
    let wanted = [EntityId::from(3)];
    let (_, read) = tokio::join!(pages.next(), crm.read(EntityKind::Contact, &wanted));
    assert_eq!(ids(&[read.unwrap()]), [3]);
    let requests = fake.requests();
    assert_eq!(requests.len(), before + 2);
    assert!(
        requests[before].commands[0].contains("%40ID"),
        "{requests:?}"
    );
}
