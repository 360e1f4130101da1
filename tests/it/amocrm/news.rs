//! What the account keeps for us: events, lists of deleted cards, webhooks that went off.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pryamo::crm::amocrm::KIND;
use pryamo::crm::{Common, Crm, CrmError, Cursor, News};
use pryamo::record::{EntityKind, Notice};

use super::notices::pass;
use super::{CALLER, Replay, account, asked, common, connect, find, told, walk, world};
use crate::fake_amocrm::{FakeAmocrm, MergesName, Mood, Options};
use crate::world::{Happened, List, What};

fn texts(notices: &[Notice]) -> Vec<String> {
    let text = |notice: &Notice| format!("{} {} {:?}", notice.kind, notice.id, notice.event);
    notices.iter().map(text).collect()
}

/// Asks until no more waits; says what came, and remembers the cursor.
async fn news(crm: &dyn Crm, cursor: &mut Option<Cursor>) -> Result<Vec<String>, CrmError> {
    let mut notices = Vec::new();
    loop {
        let News {
            notices: some,
            cursor: next,
            more,
            ..
        } = crm.news(cursor.clone()).await?;
        notices.extend(texts(&some));
        *cursor = next.or(cursor.take());
        if !more {
            return Ok(notices);
        }
    }
}

fn happened(list: List, id: u64, what: What) -> Happened {
    Happened { list, id, what }
}

/// Puts the account's clock forward, and the daemon's.
async fn later(fake: &FakeAmocrm, seconds: i64) {
    fake.pass_time(seconds);
    pass(Duration::from_secs(seconds.unsigned_abs())).await;
}

/// After this the overlap of the events is over.
const LATER: i64 = 130;
/// After this the lists of deleted cards are due again.
const MUCH_LATER: i64 = 700;

#[tokio::test]
async fn what_happens_comes_once_and_what_was_before_never() {
    let (fake, crm) = account(9, Options::default());
    assert!(crm.has_news());
    fake.delete("contacts", 1);
    later(&fake, LATER).await;
    let mut cursor = None;
    assert_eq!(news(&*crm, &mut cursor).await.unwrap(), [""; 0]);
    fake.happened(&happened(List::Contacts, 2, What::Deleted));
    fake.happened(&happened(List::Companies, 4001, What::Reassigned(502)));
    fake.happened(&happened(List::Deals, 6001, What::Deleted));
    fake.happened(&happened(List::Contacts, 3, What::Changed));
    fake.happened(&happened(List::Leads, 9, What::Deleted));
    assert_eq!(
        news(&*crm, &mut cursor).await.unwrap(),
        ["contact 2 Gone", "company 4001 Changed", "deal 6001 Gone"]
    );
    // Within the overlap they are met again, and known.
    for seconds in [0, 5, 30, LATER] {
        later(&fake, seconds).await;
        assert_eq!(news(&*crm, &mut cursor).await.unwrap(), [""; 0]);
    }
    // One that shows up late, with an older time.
    let late = fake.now() - 30;
    fake.record_event("company_restored", "companies", 4002, late);
    assert_eq!(
        news(&*crm, &mut cursor).await.unwrap(),
        ["company 4002 Changed"]
    );
    // A call without a cursor, or with one of another program, begins now.
    for foreign in [None, Some(Cursor("17".to_owned()))] {
        later(&fake, LATER).await;
        assert_eq!(news(&*crm, &mut foreign.clone()).await.unwrap(), [""; 0]);
    }
    assert_eq!(asked(&fake, "/account"), 1);
    let line = fake.log().into_iter().find(|line| line.contains("/events"));
    let line = line.unwrap();
    for part in [
        "contact_deleted,",
        "lead_restored",
        "entity_merged",
        "limit=100",
    ] {
        assert!(line.contains(part), "{line}");
    }
}

#[tokio::test]
async fn a_merge_is_told_whichever_card_its_event_names() {
    for (merges_name, expected) in [
        (MergesName::Survivor, vec!["contact 3 Merged"]),
        (MergesName::Victim, vec!["contact 2 Merged"]),
    ] {
        let options = Options {
            merges_name,
            ..Options::default()
        };
        let (fake, crm) = account(9, options);
        let mut cursor = None;
        news(&*crm, &mut cursor).await.unwrap();
        fake.happened(&happened(List::Contacts, 2, What::MergedInto(3)));
        assert_eq!(news(&*crm, &mut cursor).await.unwrap(), expected);
        // The victim is on the list of deleted cards.
        later(&fake, MUCH_LATER).await;
        assert_eq!(news(&*crm, &mut cursor).await.unwrap(), ["contact 2 Gone"]);
    }
}

#[tokio::test]
async fn the_lists_of_deleted_cards_are_read_every_ten_minutes() {
    let (fake, crm) = account(9, Options::default());
    fake.delete("contacts", 1);
    later(&fake, MUCH_LATER).await;
    let mut cursor = None;
    assert_eq!(news(&*crm, &mut cursor).await.unwrap(), [""; 0]);
    assert_eq!(asked(&fake, "only_deleted"), 3);
    // The events may not be read: only the lists tell.
    fake.set_mood(Mood::EventsForbidden);
    fake.happened(&happened(List::Contacts, 2, What::Deleted));
    fake.happened(&happened(List::Deals, 6003, What::Deleted));
    for _ in 0..3 {
        later(&fake, 190).await;
        assert_eq!(news(&*crm, &mut cursor).await.unwrap(), [""; 0]);
    }
    assert_eq!(asked(&fake, "only_deleted"), 3);
    later(&fake, 40).await;
    assert_eq!(
        news(&*crm, &mut cursor).await.unwrap(),
        ["contact 2 Gone", "deal 6003 Gone"]
    );
    assert_eq!(asked(&fake, "only_deleted"), 6);
    later(&fake, MUCH_LATER).await;
    assert_eq!(news(&*crm, &mut cursor).await.unwrap(), [""; 0]);
    // The events were asked for once in the first call, once when they were forbidden.
    assert_eq!(asked(&fake, "/events"), 2);
    pass(Duration::from_mins(61)).await;
    fake.set_mood(Mood::Fine);
    fake.happened(&happened(List::Contacts, 3, What::Deleted));
    assert_eq!(news(&*crm, &mut cursor).await.unwrap(), ["contact 3 Gone"]);
}

#[tokio::test]
async fn events_that_cannot_be_had_hold_nothing_up() {
    for mood in [Mood::EventsForbidden, Mood::EventsUnknown] {
        let (fake, crm) = account(9, Options::default());
        fake.set_mood(mood);
        let mut cursor = None;
        for _ in 0..3 {
            news(&*crm, &mut cursor).await.unwrap();
        }
        assert_eq!(asked(&fake, "/events"), 1, "{mood:?}");
    }
    let (fake, crm) = account(9, Options::default());
    for (mood, label) in [
        (Mood::Html502, "unreachable"),
        (Mood::Revoked, "unauthorized"),
    ] {
        fake.set_mood(mood);
        assert_eq!(crm.news(None).await.unwrap_err().label(), label);
    }
}

#[tokio::test]
async fn many_events_take_several_calls_and_come_all() {
    let (fake, crm) = account(1, Options::default());
    let mut cursor = None;
    news(&*crm, &mut cursor).await.unwrap();
    for id in 1..=7_350 {
        let at = fake.now() + i64::try_from(id).unwrap() / 100;
        fake.record_event("contact_deleted", "contacts", id, at);
    }
    let first = crm.news(cursor.clone()).await.unwrap();
    assert!(first.more);
    assert_eq!(first.notices.len(), 5_000);
    // What comes meanwhile is told by the end.
    later(&fake, 5).await;
    fake.record_event("contact_deleted", "contacts", 9_999, fake.now() + 70);
    let mut all = texts(&first.notices);
    cursor = first.cursor;
    all.extend(news(&*crm, &mut cursor).await.unwrap());
    all.extend(news(&*crm, &mut cursor).await.unwrap());
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 7_351);
    assert!(cursor.unwrap().0.len() < 40_000);
}

#[tokio::test]
async fn where_filters_are_ignored_the_order_says_where_to_stop() {
    let (fake, crm) = account(9, Options::default());
    for id in 1..=1_000 {
        let at = fake.now() - 10_000 + i64::try_from(id).unwrap();
        fake.record_event("contact_deleted", "contacts", id, at);
        fake.record_event("outgoing_chat_message", "leads", id, at);
    }
    fake.set_mood(Mood::FiltersIgnored);
    let mut cursor = None;
    assert_eq!(news(&*crm, &mut cursor).await.unwrap(), [""; 0]);
    fake.happened(&happened(List::Contacts, 2, What::Deleted));
    fake.happened(&happened(List::Contacts, 3, What::Changed));
    assert_eq!(news(&*crm, &mut cursor).await.unwrap(), ["contact 2 Gone"]);
    // A page for each call is enough.
    assert_eq!(asked(&fake, "/events"), 2);
    // Oldest first and unfiltered: that is given up, and the lists of deleted cards remain.
    fake.set_mood(Mood::FiltersAndOrderIgnored);
    fake.happened(&happened(List::Contacts, 4, What::Deleted));
    let mut seen = Vec::new();
    for _ in 0..3 {
        later(&fake, MUCH_LATER / 3 + 1).await;
        seen.extend(news(&*crm, &mut cursor).await.unwrap());
    }
    assert!(seen.contains(&"contact 4 Gone".to_owned()), "{seen:?}");
    assert!(
        asked(&fake, "/events") <= 2 + 50,
        "{}",
        asked(&fake, "/events")
    );
}

#[tokio::test]
async fn an_account_that_does_not_list_deleted_cards_is_not_believed() {
    let options = Options {
        lists_deleted: false,
        ..Options::default()
    };
    let (fake, crm) = account(9, options);
    let mut cursor = None;
    for entry in &mut fake.world().write().unwrap().contacts {
        entry.modified = fake.now();
    }
    assert_eq!(news(&*crm, &mut cursor).await.unwrap(), [""; 0]);
    let before = asked(&fake, "only_deleted");
    later(&fake, MUCH_LATER).await;
    assert_eq!(news(&*crm, &mut cursor).await.unwrap(), [""; 0]);
    assert_eq!(asked(&fake, "only_deleted"), before);
}

#[tokio::test]
async fn heavy_events_are_asked_for_in_smaller_pages() {
    let (fake, crm) = account(1, Options::default());
    let mut cursor = None;
    news(&*crm, &mut cursor).await.unwrap();
    fake.set_mood(Mood::HeavyAbove(30));
    for id in 1..=120 {
        fake.record_event("contact_deleted", "contacts", id, fake.now());
    }
    assert_eq!(news(&*crm, &mut cursor).await.unwrap().len(), 120);
}

#[tokio::test]
async fn only_mirrored_kinds_are_asked_for() {
    let fake = FakeAmocrm::start(world(5), Options::default());
    let common = Common {
        wanted: vec![EntityKind::Company],
        ..common(Path::new("/nonexistent"), &[])
    };
    let crm = (KIND.open)(toml::from_str(&fake.table()).unwrap(), common).unwrap();
    let mut cursor = None;
    news(&*crm, &mut cursor).await.unwrap();
    fake.happened(&happened(List::Contacts, 2, What::MergedInto(3)));
    fake.happened(&happened(List::Deals, 6001, What::Deleted));
    fake.happened(&happened(List::Companies, 4001, What::Deleted));
    assert_eq!(
        news(&*crm, &mut cursor).await.unwrap(),
        ["company 4001 Gone"]
    );
    assert_eq!(asked(&fake, "lead_deleted"), 0);
    assert_eq!(asked(&fake, "/companies?with=only_deleted"), 1);
    assert_eq!(asked(&fake, "/contacts"), 0);
}

#[tokio::test]
async fn news_keep_the_limit_beside_everything_else() {
    let options = Options {
        limit: Some(7),
        speed: 4.0,
        ..Options::default()
    };
    let shared = world(2_000);
    let fake = FakeAmocrm::start(Arc::clone(&shared), options);
    let crm = connect(&fake.table(), Path::new("/nonexistent"));
    let mut cursor = None;
    news(&*crm, &mut cursor).await.unwrap();
    for id in 1..=300 {
        fake.record_event("contact_deleted", "contacts", id, fake.now());
    }
    let ids: Vec<_> = (1..=50_u64).map(Into::into).collect();
    let (told, pages, read, found) = tokio::join!(
        crm.news(cursor),
        walk(&*crm, EntityKind::Contact),
        crm.read(EntityKind::Contact, &ids),
        find(&*crm, CALLER),
    );
    assert_eq!(told.unwrap().notices.len(), 300);
    assert_eq!((pages.unwrap().len(), read.unwrap().cards.len()), (8, 50));
    assert!(!found.unwrap().is_empty());
    assert_eq!(fake.violations(), [""; 0]);
}

// Recorded answers: the account, the webhooks, the events, then the lists of deleted cards.

fn cursor_at(second: i64) -> Cursor {
    let lists =
        ["contact", "company", "deal"].map(|kind| format!(r#""{kind}":{{"from":{second}}}"#));
    Cursor(format!(
        r#"{{"events":{{"from":{second}}},"seen":[],"deleted":{{{}}},"deleted_read_at":null}}"#,
        lists.join(",")
    ))
}

const NOON: i64 = 1_795_348_800;

/// What a recorded account tells to who has read up to a moment ago.
async fn news_of(replay: &Replay) -> Result<News, CrmError> {
    replay.crm().news(Some(cursor_at(NOON - 100))).await
}

#[tokio::test]
async fn recorded_events_say_what_happened() {
    for events in ["events", "events_filter_ignored"] {
        let answers = ["account", "webhooks_204", events, "contacts_204"];
        let replay = Replay::start(&answers).await;
        let told = news_of(&replay).await.unwrap();
        assert_eq!(
            texts(&told.notices),
            [
                "contact 3001 Merged",
                "contact 3002 Gone",
                "company 4001 Changed",
                "deal 6001 Gone"
            ],
            "{events}"
        );
        assert!(!told.more);
        assert_eq!(replay.requests(), 6);
        // They are known from now on.
        let told = Replay::start(&answers).await.crm().news(told.cursor).await;
        assert_eq!(told.unwrap().notices, []);
    }
}

#[tokio::test]
async fn recorded_deleted_rows_are_believed_for_their_number_alone() {
    let lists = [
        "account",
        "webhooks_204",
        "contacts_204",
        "only_deleted",
        "contacts_204",
    ];
    let replay = Replay::start(&lists).await;
    let told = news_of(&replay).await.unwrap();
    assert_eq!(
        texts(&told.notices),
        ["contact 3006 Gone", "contact 3007 Gone"]
    );
    let seen = replay.seen.lock().unwrap()[3].clone();
    assert!(
        seen.starts_with(
            "GET /api/v4/contacts?with=only_deleted&order%5Bupdated_at%5D=desc&page=1&limit=250 "
        ),
        "{seen}"
    );
    let lists = [
        "account",
        "webhooks_204",
        "contacts_204",
        "only_deleted_ignored",
    ];
    let replay = Replay::start(&lists).await;
    let told = news_of(&replay).await.unwrap();
    assert_eq!(told.notices, []);
}

#[tokio::test]
async fn damaged_news_are_told_without_quoting_them() {
    let none = "contacts_204";
    let cases = [
        (
            vec!["account", "webhooks_204", "events_missing_field"],
            "entity_id",
        ),
        (vec!["account", "webhooks_204", "events_wrong_type"], "i64"),
        (vec!["account", "webhooks_204", "events_html"], "JSON"),
        (
            vec![
                "account",
                "webhooks_204",
                none,
                "only_deleted_missing_field",
            ],
            "id",
        ),
        (
            vec!["account", "webhooks_204", none, "only_deleted_wrong_type"],
            "u64",
        ),
        (
            vec!["account", "webhooks_204", none, "contacts_html"],
            "JSON",
        ),
    ];
    for (names, part) in cases {
        let replay = Replay::start(&names).await;
        let error = news_of(&replay).await.unwrap_err();
        assert_eq!(error.label(), "shape", "{names:?}");
        assert!(told(&error).contains(part), "{names:?}: {}", told(&error));
        assert!(!format!("{error:?}").contains("7900"), "{error:?}");
    }
    // Neither the account nor the webhooks are needed for the rest.
    for webhooks in ["webhooks_html", "webhooks_wrong_type", "webhooks_forbidden"] {
        for account in ["account", "account_missing_field", "account_html"] {
            let replay = Replay::start(&[account, webhooks, "events_empty_list"]).await;
            assert_eq!(replay.crm().news(None).await.unwrap().notices, []);
        }
    }
    // Without the header `Date` there is no moment to begin with.
    for (name, part) in [("account_without_date", "clock"), ("card_html", "JSON")] {
        let error = Replay::start(&[name])
            .await
            .crm()
            .news(None)
            .await
            .unwrap_err();
        assert!(told(&error).contains(part), "{name}: {}", told(&error));
    }
}
