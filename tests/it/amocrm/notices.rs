//! What a webhook says, and the reading of the cards that it names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pryamo::crm::{Crm, Hook, HookError, READ_AT_ONCE};
use pryamo::record::{EntityId, EntityKind, Event, Notice};
use serde_json::Value;

use super::{Replay, account, cards, changes, connect, id, ids, told, world};
use crate::fake_amocrm::{FakeAmocrm, Mood, Options};
use crate::world::{Entry, Happened, List, What};

fn names(ids: impl IntoIterator<Item = u64>) -> Vec<EntityId> {
    ids.into_iter().map(EntityId::from).collect()
}

async fn read(crm: &dyn Crm, kind: EntityKind, ids: &[u64]) -> Vec<u64> {
    let page = crm.read(kind, &names(ids.iter().copied())).await.unwrap();
    page.cards.iter().map(id).collect()
}

async fn receive(crm: &dyn Crm, content_type: &str, body: &str) -> Result<Vec<String>, HookError> {
    let body = body.as_bytes();
    let notices = crm.receive(Hook { content_type, body }).await?;
    Ok(notices.iter().map(text).collect())
}

fn text(notice: &Notice) -> String {
    format!("{} {} {:?}", notice.kind, notice.id, notice.event)
}

fn sent(name: &str) -> (String, String) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cassettes/amocrm");
    let file = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    let cassette: Value = serde_json::from_str(&file).unwrap();
    assert!(cassette["source"].is_string() && cassette["date"].is_string());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&cassette["headers"]["content-type"]),
        text(&cassette["body"]),
    )
}

// Hooks.

#[tokio::test]
async fn recorded_hooks_say_which_cards_to_read_again() {
    let (fake, crm) = account(1, Options::default());
    let cases: [(&str, &[&str]); 8] = [
        ("hook_update", &["contact 3001 Changed"]),
        ("hook_responsible", &["contact 3001 Changed"]),
        ("hook_delete", &["contact 3001 Gone"]),
        (
            "hook_delete_without_type",
            &["contact 3001 Gone", "company 3001 Gone"],
        ),
        ("hook_company", &["company 4001 Changed"]),
        ("hook_scalar_values", &["contact 3001 Changed"]),
        (
            "hook_several",
            &[
                "contact 3001 Changed",
                "contact 3002 Gone",
                "company 4001 Changed",
                "deal 6001 Changed",
            ],
        ),
        ("hook_task", &[]),
    ];
    for (name, expected) in cases {
        let (content_type, body) = sent(name);
        // A second delivery says the same.
        for _ in 0..2 {
            let told = receive(&*crm, &content_type, &body).await.unwrap();
            assert_eq!(told, expected, "{name}");
        }
    }
    assert_eq!(fake.requests(), 0);
}

#[tokio::test]
async fn a_hook_of_another_account_is_a_strangers_once_ours_is_known() {
    let (fake, crm) = account(1, Options::default());
    let (content_type, body) = sent("hook_other_account");
    // Behind an address that is not the vendor's nothing is known yet.
    assert_eq!(
        receive(&*crm, &content_type, &body).await.unwrap(),
        ["contact 3001 Changed"]
    );
    crm.employees().await.unwrap();
    let before = fake.requests();
    let error = receive(&*crm, &content_type, &body).await.unwrap_err();
    assert!(matches!(error, HookError::Stranger(_)), "{error}");
    let (content_type, body) = sent("hook_update");
    assert_eq!(receive(&*crm, &content_type, &body).await.unwrap().len(), 1);
    let unsigned = "contacts[add][0][id]=5&contacts[add][0][type]=contact";
    assert_eq!(
        receive(&*crm, "", unsigned).await.unwrap(),
        ["contact 5 Changed"]
    );
    assert_eq!(fake.requests(), before);
    let error = receive(&*crm, "multipart/form-data", "x").await;
    assert!(matches!(error, Err(HookError::Unreadable(_))));
}

#[tokio::test]
async fn what_the_account_would_send_names_what_happened() {
    let (fake, crm) = account(9, Options::default());
    crm.employees().await.unwrap();
    let happened = |list, id, what| Happened { list, id, what };
    let cases: [(Happened, &[&[&str]]); 9] = [
        (
            happened(List::Contacts, 3, What::Added),
            &[&["contact 3 Changed"]],
        ),
        (
            happened(List::Contacts, 4, What::Changed),
            &[&["contact 4 Changed"]],
        ),
        (
            happened(List::Companies, 4001, What::Changed),
            &[&["company 4001 Changed"]],
        ),
        (
            happened(List::Contacts, 5, What::Reassigned(502)),
            &[&["contact 5 Changed"], &["contact 5 Changed"]],
        ),
        (
            happened(List::Deals, 6001, What::Changed),
            &[&["deal 6001 Changed"]],
        ),
        (
            happened(List::Companies, 4009, What::Deleted),
            &[&["company 4009 Gone"]],
        ),
        (
            happened(List::Contacts, 99, What::MergedInto(6)),
            &[&["contact 99 Gone"], &["contact 6 Changed"]],
        ),
        (happened(List::Contacts, 999, What::Changed), &[]),
        (happened(List::Leads, 1, What::Deleted), &[]),
    ];
    for (happened, expected) in cases {
        let mut told = Vec::new();
        for (content_type, body) in fake.hook_bodies(&happened) {
            assert!(body.contains("account%5Bid%5D=100"), "{body}");
            told.push(receive(&*crm, &content_type, &body).await.unwrap());
        }
        assert_eq!(told, expected, "{happened:?}");
    }
    let scalar = fake.hook_bodies(&happened(List::Contacts, 3, What::Added));
    assert!(scalar[0].1.contains("%5Bvalues%5D%5B0%5D=%2B7900"));
    let nested = fake.hook_bodies(&happened(List::Contacts, 4, What::Added));
    assert!(
        nested[0]
            .1
            .contains("%5Bvalues%5D%5B0%5D%5Bvalue%5D=%2B7900")
    );
}

// Reading again.

#[tokio::test]
async fn named_cards_come_in_one_request_where_filters_work() {
    let (fake, crm) = account(90, Options::default());
    let wanted: Vec<u64> = (1..=READ_AT_ONCE as u64).collect();
    assert_eq!(read(&*crm, EntityKind::Contact, &wanted).await, wanted);
    assert_eq!(fake.requests(), 1);
    fake.delete("contacts", 7);
    assert_eq!(read(&*crm, EntityKind::Contact, &[5, 7, 400, 5]).await, [5]);
    let page = crm.read(EntityKind::Deal, &names([6001])).await.unwrap();
    let links: Vec<String> = page.cards[0]
        .links
        .iter()
        .map(|(kind, id)| format!("{kind} {id}"))
        .collect();
    assert_eq!(links, ["contact 1", "contact 2", "company 4001"]);
    assert!(page.server_time.is_some());
    // What is no number is not amoCRM's, and not asked for.
    let before = fake.requests();
    let strange = [EntityId::new("../users"), EntityId::new("C-1")];
    let page = crm.read(EntityKind::Contact, &strange).await.unwrap();
    assert_eq!((page.cards.len(), fake.requests()), (0, before));
    assert_eq!(read(&*crm, EntityKind::Contact, &[]).await, [0; 0]);
}

#[tokio::test]
async fn where_filters_are_ignored_cards_are_read_one_by_one() {
    for missing in [404, 204] {
        let options = Options {
            filters: false,
            missing: http::StatusCode::from_u16(missing).unwrap(),
            ..Options::default()
        };
        let (fake, crm) = account(400, options);
        fake.delete("contacts", 3);
        let wanted = [2, 3, 300, 401];
        assert_eq!(read(&*crm, EntityKind::Contact, &wanted).await, [2, 300]);
        // The list, in vain, and each card.
        assert_eq!(fake.requests(), 5);
        let page = crm.read(EntityKind::Deal, &names([6001])).await.unwrap();
        assert_eq!((page.cards[0].links.len(), fake.requests()), (3, 6));
        assert!(page.server_time.is_some());
        let last = fake.log().pop().unwrap();
        assert_eq!(last, "GET /api/v4/leads/6001?with=contacts");
        // The changes know of it as well.
        let since = fake.now() - 1000;
        assert_eq!(ids(&changes(&*crm, since).await.unwrap()), [0; 0]);
        let last = fake.log().pop().unwrap();
        assert!(!last.contains("filter"), "{last}");
    }
}

#[tokio::test]
async fn ignored_filters_are_looked_at_again_after_an_hour() {
    let (fake, crm) = account(400, Options::default());
    let asks_the_list = |log: Vec<String>| log.last().unwrap().contains("filter[id][]=5");
    fake.set_mood(Mood::FiltersIgnored);
    let since = fake.now() - 1000;
    // The changes find it out first.
    changes(&*crm, since).await.unwrap();
    assert_eq!(read(&*crm, EntityKind::Contact, &[5]).await, [5]);
    assert!(!asks_the_list(fake.log()));
    fake.set_mood(Mood::Fine);
    pass(Duration::from_mins(59)).await;
    assert_eq!(read(&*crm, EntityKind::Contact, &[5]).await, [5]);
    assert!(!asks_the_list(fake.log()));
    pass(Duration::from_mins(2)).await;
    assert_eq!(read(&*crm, EntityKind::Contact, &[5]).await, [5]);
    assert!(asks_the_list(fake.log()));
    let before = fake.requests();
    assert_eq!(read(&*crm, EntityKind::Contact, &[5, 6]).await, [5, 6]);
    assert_eq!(fake.requests(), before + 1);
}

/// Puts the daemon's clock forward.
pub(super) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn recorded_single_cards_are_there_missing_or_damaged() {
    let cases = [
        ("card", Ok(1)),
        ("card_404", Ok(0)),
        ("contacts_204", Ok(0)),
        ("gateway_404", Err("refused")),
        ("card_missing_field", Err("shape")),
        ("card_wrong_type", Err("shape")),
        ("card_html", Err("shape")),
        ("bad_gateway_502", Err("unreachable")),
        ("too_heavy_504", Err("unreachable")),
        ("blocked_403", Err("blocked")),
        ("forbidden_403", Err("forbidden")),
    ];
    for (name, expected) in cases {
        // The list holds cards that were not asked for.
        let replay = Replay::start(&["contacts_filter_ignored", name]).await;
        let outcome = replay.crm().read(EntityKind::Contact, &names([3001])).await;
        if let Err(error) = &outcome {
            assert!(!format!("{error:?}{}", told(error)).contains("7900"));
        }
        let outcome = outcome.map(|page| page.cards.len());
        assert_eq!(outcome.map_err(|error| error.label()), expected, "{name}");
    }
    let replay = Replay::start(&["contacts_filter_ignored", "card"]).await;
    let error = replay.crm().read(EntityKind::Contact, &names([3002])).await;
    assert_eq!(error.unwrap_err().label(), "shape");
}

#[tokio::test]
async fn a_list_that_is_too_heavy_is_read_one_by_one() {
    let (fake, crm) = account(9, Options::default());
    fake.set_mood(Mood::HeavyAbove(100));
    assert_eq!(read(&*crm, EntityKind::Contact, &[5, 6]).await, [5, 6]);
}

// Changes while they are read.

#[tokio::test]
async fn a_deletion_during_the_reading_of_changes_hides_no_card() {
    for mood in [Mood::Fine, Mood::FiltersIgnored] {
        let shared = world(1500);
        let fake = FakeAmocrm::start(Arc::clone(&shared), Options::default());
        fake.set_mood(mood);
        let crm = connect(&fake.table(), Path::new("/nonexistent"));
        let since = jiff::Timestamp::UNIX_EPOCH;
        let mut stream = crm.changes(EntityKind::Contact, super::at(since));
        let mut seen = std::collections::HashSet::new();
        let mut deleted = 0;
        while let Some(page) = futures::StreamExt::next(&mut stream).await {
            let page = page.unwrap();
            seen.extend(page.cards.iter().map(id));
            // Of the pages that were read, some cards go: the rest moves forward, now and then by
            // more rows than two pages share.
            let few_or_many = if deleted % 4 == 1 { 150 } else { 3 };
            let mut world = shared.write().unwrap();
            for card in page.cards.iter().skip(90).take(few_or_many) {
                let gone = id(card);
                world.contacts.retain(|entry| entry.id != gone);
            }
            deleted += 1;
        }
        assert!(deleted > 5);
        let left: Vec<u64> = {
            let world = shared.read().unwrap();
            world
                .contacts
                .iter()
                .map(|entry: &Entry| entry.id)
                .collect()
        };
        let hidden: Vec<u64> = left.into_iter().filter(|id| !seen.contains(id)).collect();
        assert_eq!(hidden, [0; 0], "{mood:?}");
    }
}

#[tokio::test]
async fn many_pages_of_changes_cost_hardly_more_than_their_rows() {
    let (fake, crm) = account(3000, Options::default());
    let pages = changes(&*crm, 0).await.unwrap();
    let seen: std::collections::HashSet<u64> = cards(&pages).into_iter().map(id).collect();
    assert_eq!(seen.len(), 3000);
    // 12 full pages would do without any shared row.
    assert!(fake.requests() <= 15, "{}", fake.requests());
}

#[tokio::test]
async fn a_gone_card_is_gone_only_together_with_its_absence() {
    let (fake, crm) = account(5, Options::default());
    // Deleted, restored, and told in the wrong order: what is read again is what counts.
    let body = "contacts[delete][0][id]=2&contacts[delete][0][type]=contact\
                &contacts[delete][1][id]=3&contacts[delete][1][type]=contact";
    fake.delete("contacts", 3);
    let hook = Hook {
        content_type: "application/x-www-form-urlencoded",
        body: body.as_bytes(),
    };
    let notices = crm.receive(hook).await.unwrap();
    assert!(notices.iter().all(|notice| notice.event == Event::Gone));
    let wanted: Vec<EntityId> = notices.into_iter().map(|notice| notice.id).collect();
    let page = crm.read(EntityKind::Contact, &wanted).await.unwrap();
    assert_eq!(page.cards.iter().map(id).collect::<Vec<_>>(), [2]);
}
