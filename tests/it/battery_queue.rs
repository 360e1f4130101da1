//! What every store does with notices, with cards that are read again, and with those that vanish.

use pryamo::directory::{Change, Directory, QueueLength, Queued, Waiting};
use pryamo::record::{EntityId, EntityKind, Event, Notice};

use EntityKind::{Company, Contact};

use crate::battery_directory::{benches, card, change, instant, phone, retail, sales};

const MOST: u64 = 1000;

fn notice(kind: EntityKind, id: u64, event: Event) -> Notice {
    Notice {
        kind,
        id: EntityId::from(id),
        event,
    }
}

async fn put(store: &dyn Directory, notices: &[Notice]) {
    let queued = store.queue(&sales(), notices, None, MOST).await.unwrap();
    assert_eq!(queued, Queued::Yes);
}

async fn due(store: &dyn Directory) -> Vec<Waiting> {
    let now = instant("2026-11-22T10:00:00Z");
    store.due(&sales(), Contact, now, 100).await.unwrap()
}

fn told(waiting: &[Waiting]) -> Vec<(&str, Event, bool)> {
    let told = waiting
        .iter()
        .map(|one| (one.notice.id.as_str(), one.notice.event, one.again));
    told.collect()
}

#[tokio::test]
async fn notices_wait_in_order_one_for_a_card_and_survive_a_restart() {
    for bench in benches() {
        let store = bench.open();
        put(
            &*store,
            &[
                notice(Contact, 7, Event::Changed),
                notice(Contact, 3, Event::Gone),
                notice(Contact, 7, Event::Changed),
                notice(Company, 7, Event::Changed),
            ],
        )
        .await;
        put(&*store, &[notice(Contact, 3, Event::Changed)]).await;
        drop(store);
        let store = bench.open();
        assert_eq!(
            told(&due(&*store).await),
            [("7", Event::Changed, false), ("3", Event::Gone, false)],
            "the weightier event stays"
        );
        let length = store.queue_length(&sales(), Contact).await.unwrap();
        assert_eq!(length.waiting, 2);
        let other = store.queue_length(&retail(), Contact).await.unwrap();
        assert_eq!(other, QueueLength::default());
    }
}

#[tokio::test]
async fn a_notice_that_comes_while_its_card_is_read_is_not_lost() {
    for bench in benches() {
        let store = bench.open();
        put(&*store, &[notice(Contact, 7, Event::Changed)]).await;
        let reading = due(&*store).await;
        put(&*store, &[notice(Contact, 7, Event::Changed)]).await;
        store.settle(&sales(), &reading, None).await.unwrap();
        let left = due(&*store).await;
        assert_eq!(left.len(), 1);
        assert_ne!(left[0].ticket, reading[0].ticket);
        store.settle(&sales(), &left, None).await.unwrap();
        assert_eq!(due(&*store).await, []);
        // Tickets go on after the queue was empty.
        put(&*store, &[notice(Contact, 7, Event::Changed)]).await;
        store.settle(&sales(), &left, None).await.unwrap();
        assert_eq!(due(&*store).await.len(), 1);
    }
}

#[tokio::test]
async fn a_second_look_comes_in_its_time_and_a_new_notice_at_once() {
    for bench in benches() {
        let store = bench.open();
        put(&*store, &[notice(Contact, 7, Event::Gone)]).await;
        let first = due(&*store).await;
        let later = instant("2026-11-22T10:05:00Z");
        store.settle(&sales(), &first, Some(later)).await.unwrap();
        assert_eq!(due(&*store).await, []);
        let length = store.queue_length(&sales(), Contact).await.unwrap();
        assert_eq!(length.next_due, Some(later));
        let then = store.due(&sales(), Contact, later, 100).await.unwrap();
        assert_eq!(told(&then), [("7", Event::Gone, true)]);
        put(&*store, &[notice(Contact, 7, Event::Changed)]).await;
        assert_eq!(told(&due(&*store).await), [("7", Event::Gone, false)]);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_all_and_keeps_the_cursor() {
    for bench in benches() {
        let store = bench.open();
        let three: Vec<Notice> = (1..=3)
            .map(|id| notice(Contact, id, Event::Changed))
            .collect();
        let queue = async |cursor| {
            store
                .queue(&sales(), &three, Some(cursor), 4)
                .await
                .unwrap()
        };
        assert_eq!(queue("first").await, Queued::Yes);
        assert_eq!(queue("second").await, Queued::Full);
        let cursor = store.news_cursor(&sales()).await.unwrap();
        assert_eq!(cursor.as_deref(), Some("first"));
        let nothing = store.queue(&sales(), &[], Some("third"), 4).await.unwrap();
        assert_eq!(nothing, Queued::Yes, "a cursor alone needs no room");
        let cursor = store.news_cursor(&sales()).await.unwrap();
        assert_eq!(cursor.as_deref(), Some("third"));
        assert_eq!(store.news_cursor(&retail()).await.unwrap(), None);
        store.forget(&sales()).await.unwrap();
        assert_eq!(due(&*store).await, []);
        assert_eq!(store.news_cursor(&sales()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_earlier_reading_that_comes_late_does_not_replace_a_newer_one() {
    for bench in benches() {
        let store = bench.open();
        let read = |name: &str, modified: &str, keep_newer: Option<&str>| {
            let mut read = card(Contact, "7", name);
            read.modified = Some(instant(modified));
            Change {
                unread: Vec::new(),
                keep_newer: keep_newer.map(instant),
                ..change(&sales(), Contact, vec![(read, vec![phone(7)])])
            }
        };
        let name = async || {
            let found = store.lookup(phone(7), false).await.unwrap();
            found[0].name.clone()
        };
        let young = Some("2026-11-22T09:50:00Z");
        store
            .apply(read("new", "2026-11-22T10:00:00Z", young))
            .await
            .unwrap();
        store
            .apply(read("late", "2026-11-22T09:59:59Z", young))
            .await
            .unwrap();
        assert_eq!(name().await, "new");
        store
            .apply(read("same second", "2026-11-22T10:00:00Z", young))
            .await
            .unwrap();
        assert_eq!(name().await, "same second");
        // A CRM that was set back to an older state: what is mirrored changed long ago.
        store
            .apply(read(
                "set back",
                "2026-11-20T10:00:00Z",
                Some("2026-11-22T11:00:00Z"),
            ))
            .await
            .unwrap();
        assert_eq!(name().await, "set back");
    }
}

#[tokio::test]
async fn a_late_reading_still_counts_as_seen() {
    for bench in benches() {
        let store = bench.open();
        let read = |modified: &str, walk| {
            let mut read = card(Contact, "7", "Anna");
            read.modified = Some(instant(modified));
            Change {
                walk,
                unread: Vec::new(),
                keep_newer: Some(instant("2026-11-22T09:50:00Z")),
                ..change(&sales(), Contact, vec![(read, vec![phone(7)])])
            }
        };
        store.apply(read("2026-11-22T10:00:00Z", 1)).await.unwrap();
        store.apply(read("2026-11-22T09:55:00Z", 2)).await.unwrap();
        let unseen = store.count_unseen(&sales(), Contact, 2).await.unwrap();
        assert_eq!(unseen.unseen, 0);
    }
}

#[tokio::test]
async fn cards_that_share_a_number_are_kin_and_deleting_counts() {
    for bench in benches() {
        let store = bench.open();
        let cards = vec![
            (card(Contact, "1", "a"), vec![phone(1), phone(2)]),
            (card(Contact, "2", "b"), vec![phone(2)]),
            (card(Contact, "3", "c"), vec![phone(1), phone(2)]),
            (card(Contact, "4", "d"), vec![phone(4)]),
        ];
        store.apply(change(&sales(), Contact, cards)).await.unwrap();
        let company = vec![(card(Company, "9", "e"), vec![phone(1)])];
        store
            .apply(change(&sales(), Company, company))
            .await
            .unwrap();
        let mut kin = store
            .kin(&sales(), Contact, &EntityId::from(1))
            .await
            .unwrap();
        kin.sort();
        assert_eq!(kin, [EntityId::from(2), EntityId::from(3)]);
        let alone = store.kin(&sales(), Contact, &EntityId::from(4)).await;
        assert_eq!(alone.unwrap(), []);
        let unknown = store.kin(&sales(), Contact, &EntityId::from(5)).await;
        assert_eq!(unknown.unwrap(), []);
        let ids = [2, 5, 4].map(EntityId::from);
        let known = store.known(&sales(), Contact, &ids).await.unwrap();
        assert_eq!(known, [EntityId::from(2), EntityId::from(4)]);
        assert_eq!(store.delete(&sales(), Contact, &ids).await.unwrap(), 2);
        assert_eq!(store.delete(&sales(), Contact, &ids).await.unwrap(), 0);
        assert_eq!(store.delete(&retail(), Contact, &ids).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn the_employees_age_is_kept() {
    for bench in benches() {
        let store = bench.open();
        assert_eq!(store.employees_at(&sales()).await.unwrap(), None);
        let at = instant("2026-11-22T10:00:00Z");
        store
            .replace_employees(&sales(), Vec::new().into(), at)
            .await
            .unwrap();
        drop(store);
        let store = bench.open();
        assert_eq!(store.employees_at(&sales()).await.unwrap(), Some(at));
    }
}
