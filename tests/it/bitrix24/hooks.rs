//! What the portal sends by itself: notices of an outgoing webhook, and installations.

use pryamo::crm::{Crm, Hook, HookError, Level};
use pryamo::record::{EntityId, EntityKind, Event, Notice};

use super::recorded::cassette;
use super::{CLIENT_SECRET, application, connect, connect_in, contacts, hook, portal_with};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::world::{Happened, List, What};

const TOKEN: &str = "application_token = 't0kenexample'";

async fn portal() -> FakeBitrix24 {
    portal_with(&contacts(3).shared(), Options::default()).await
}

async fn sends(crm: &dyn Crm, body: &str) -> &'static str {
    match crm.receive(hook(body)).await {
        Ok(_) => "taken",
        Err(HookError::Stranger(text)) => {
            assert!(!text.contains("t0kenexample"), "{text}");
            "stranger"
        }
        Err(HookError::Unreadable(_)) => "unreadable",
        Err(HookError::NotKept(_)) => "not kept",
    }
}

#[tokio::test]
async fn everything_that_happens_to_a_card_is_a_notice() {
    let fake = portal().await;
    let crm = connect(&fake.url(), TOKEN);
    let table = [
        (
            List::Contacts,
            What::Added,
            EntityKind::Contact,
            Event::Changed,
        ),
        (
            List::Companies,
            What::Changed,
            EntityKind::Company,
            Event::Changed,
        ),
        (
            List::Leads,
            What::Reassigned(2),
            EntityKind::Lead,
            Event::Changed,
        ),
        (List::Deals, What::Deleted, EntityKind::Deal, Event::Gone),
        (
            List::Contacts,
            What::MergedInto(3),
            EntityKind::Contact,
            Event::Gone,
        ),
    ];
    for (list, what, kind, event) in table {
        let happened = Happened {
            list,
            id: 156,
            what,
        };
        for (content_type, body) in fake.hook_bodies(&happened) {
            let hook = Hook {
                content_type: &content_type,
                body: body.as_bytes(),
            };
            let id = EntityId::from(156);
            let notices = crm.receive(hook).await.unwrap();
            assert_eq!(notices, [Notice { kind, id, event }]);
        }
    }
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn a_notice_without_the_right_token_is_a_strangers() {
    let fake = portal().await;
    let wrong = cassette("event_form_wrong_token").body;
    let wrong = wrong.as_str().unwrap();
    let happened = Happened {
        list: List::Contacts,
        id: 3,
        what: What::Changed,
    };
    let (_, right) = fake.hook_bodies(&happened).remove(0);
    let crm = connect(&fake.url(), TOKEN);
    assert_eq!(sends(&*crm, &right).await, "taken");
    assert_eq!(sends(&*crm, wrong).await, "stranger");
    assert_eq!(sends(&*crm, "event=ONCRMCONTACTADD").await, "stranger");
    assert_eq!(sends(&*crm, "{}").await, "unreadable");
    // Without a token the secret in the address is the proof, and has been looked at before.
    let trusting = connect(&fake.url(), "");
    assert_eq!(sends(&*trusting, wrong).await, "taken");
    assert_eq!(
        sends(&*trusting, "event=ONCRMCONTACTADD").await,
        "unreadable"
    );
    assert_eq!(sends(&*trusting, "event=ONTASKADD").await, "taken");
}

#[tokio::test]
async fn an_installation_authorises_the_application_and_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal().await;
    let crm = connect_in(folder.path(), &fake.address(), &application(&fake));
    let findings = crm.check().await;
    let fault = findings.last().unwrap();
    assert_eq!(fault.level, Level::Fault);
    assert!(fault.text.contains("not authorised"), "{fault:?}");
    let error = crm.employees().await.unwrap_err();
    assert!(
        error.to_string().contains("install the application"),
        "{error}"
    );
    assert!(fake.requests().is_empty());

    let form = fake.install_form();
    assert_eq!(crm.receive(hook(&form)).await.unwrap(), []);
    // It is on the disk before anything was asked with it.
    assert!(fake.requests().is_empty());
    assert!(folder.path().join("tokens.json").exists());
    assert_eq!(crm.employees().await.unwrap().employees.len(), 3);
    let restarted = connect_in(folder.path(), &fake.address(), &application(&fake));
    assert_eq!(restarted.employees().await.unwrap().employees.len(), 3);
    assert_eq!(fake.exchanges(), 0);
    // From now on its token proves the notices, after a restart too.
    for crm in [&crm, &restarted] {
        let wrong = "event=ONCRMCONTACTADD&data[FIELDS][ID]=3&auth[application_token]=wrong";
        assert_eq!(sends(&**crm, wrong).await, "stranger");
        let right = wrong.replace("wrong", "t0kenexample");
        assert_eq!(sends(&**crm, &right).await, "taken");
    }
}

#[tokio::test]
async fn a_strangers_installation_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal().await;
    let stored = folder.path().join("tokens.json");
    let form = fake.install_form();
    let elsewhere = form.replace(
        "auth%5Bdomain%5D=127.0.0.1",
        "auth%5Bdomain%5D=evil.example",
    );
    assert_ne!(form, elsewhere);
    let crm = connect_in(folder.path(), &fake.address(), &application(&fake));
    assert_eq!(sends(&*crm, &elsewhere).await, "stranger");
    assert_eq!(sends(&*crm, "event=ONAPPINSTALL").await, "unreadable");
    let demanding = format!("{}\napplication_token = 'another'", application(&fake));
    let demanding = connect_in(folder.path(), &fake.address(), &demanding);
    assert_eq!(sends(&*demanding, &form).await, "stranger");
    // Nobody has configured an application here.
    let webhook = connect_in(folder.path(), &fake.url(), "");
    assert_eq!(sends(&*webhook, &form).await, "taken");
    assert!(!stored.exists());
    assert_eq!(sends(&*crm, &form).await, "taken");
    assert!(stored.exists());
}

#[tokio::test]
async fn an_installation_that_cannot_be_kept_is_not_used() {
    let fake = portal().await;
    let crm = connect_in(
        "/dev/null/bitrix24".as_ref(),
        &fake.address(),
        &application(&fake),
    );
    assert_eq!(sends(&*crm, &fake.install_form()).await, "not kept");
    let error = crm.employees().await.unwrap_err();
    assert_eq!((error.label(), fake.requests().len()), ("file", 0));
}

#[tokio::test]
async fn cards_are_read_through_the_webhook_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal().await;
    let settings = application(&fake);
    let both = connect_in(folder.path(), &fake.url(), &settings);
    let alone = connect_in(folder.path(), &fake.address(), &settings);
    assert_eq!(sends(&*both, &fake.install_form()).await, "taken");
    assert_eq!(alone.employees().await.unwrap().employees.len(), 3);
    fake.forget_tokens();
    assert_eq!(both.employees().await.unwrap().employees.len(), 3);
    let error = alone.employees().await.unwrap_err();
    assert_eq!(error.label(), "unauthorized");
    assert!(both.news(None).await.is_err());
    assert!(!format!("{error:?}").contains(CLIENT_SECRET));
}
