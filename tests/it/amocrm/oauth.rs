//! OAuth's pairs of tokens against the made-up account.

use std::path::Path;
use std::time::Duration;

use pryamo::crm::{Crm, CrmError, Level};
use serde_json::Value;

use super::{CALLER, connect, find, oauth_keys, told, world};
use crate::fake_amocrm::{CODES, FIRST_REFRESH, FakeAmocrm, Mood, Options};

fn oauth_table(fake: &FakeAmocrm, first: &str) -> String {
    format!(
        "url = \"{}\"\nlimits = {}\n{}",
        fake.url(),
        fake.limits(),
        oauth_keys(first)
    )
}

fn code(index: usize) -> String {
    format!("authorization_code = \"{}\"", CODES[index])
}

fn stored(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("tokens.json")).unwrap()).unwrap()
}

async fn works(crm: &dyn Crm) -> Result<(), CrmError> {
    crm.employees().await.map(drop)
}

#[tokio::test]
async fn a_code_is_spent_once_and_the_pair_lives_through_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    let table = oauth_table(&fake, &code(0));
    for _ in 0..3 {
        works(&*connect(&table, folder.path())).await.unwrap();
    }
    assert_eq!(fake.rotations(), 1);
    let without_code = oauth_table(&fake, "");
    works(&*connect(&without_code, folder.path()))
        .await
        .unwrap();
    fake.expire_access_tokens();
    works(&*connect(&table, folder.path())).await.unwrap();
    assert_eq!(fake.rotations(), 2);
    assert_eq!(stored(folder.path())["pair"]["refresh"], "refresh-2");
    assert_eq!(stored(folder.path())["pending"], false);
}

#[tokio::test]
async fn a_code_that_comes_back_into_the_configuration_is_known_as_spent() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    for first in [code(0), String::new(), code(0)] {
        fake.expire_access_tokens();
        let table = oauth_table(&fake, &first);
        works(&*connect(&table, folder.path())).await.unwrap();
    }
    assert_eq!(fake.rotations(), 3);
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_used_to_its_end_if_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    let crm = connect(&oauth_table(&fake, &code(0)), folder.path());
    works(&*crm).await.unwrap();
    fake.pass_time(86_400 - 120);
    // This answer tells the time; the next request finds the token near its end.
    works(&*crm).await.unwrap();
    fake.set_mood(Mood::LoseTokenAnswer);
    works(&*crm).await.unwrap();
    assert!(fake.log().last().unwrap().starts_with("GET"));
    assert_eq!(fake.rotations(), 2);
    let users = fake
        .log()
        .iter()
        .filter(|line| line.starts_with("GET /api/v4/users"))
        .count();
    assert_eq!(users, 3);
}

#[tokio::test]
async fn a_pair_that_could_not_be_stored_is_not_asked_for() {
    let fake = FakeAmocrm::start(world(1), Options::default());
    let crm = connect(&oauth_table(&fake, &code(0)), Path::new("/dev/null/amocrm"));
    let error = works(&*crm).await.unwrap_err();
    assert_eq!((error.label(), fake.requests()), ("file", 0));
    assert!(
        told(&error).contains("/dev/null/amocrm"),
        "{}",
        told(&error)
    );
}

#[tokio::test]
async fn two_refusals_at_once_lead_to_one_renewal() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    let table = oauth_table(&fake, &format!("refresh_token = \"{FIRST_REFRESH}\""));
    // Two connectors stand for two processes: they share the folder and nothing else.
    let (one, two) = (
        connect(&table, folder.path()),
        connect(&table, folder.path()),
    );
    works(&*one).await.unwrap();
    works(&*two).await.unwrap();
    for _ in 0..3 {
        let before = fake.rotations();
        fake.expire_access_tokens();
        let (a, b, c, d) = tokio::join!(works(&*one), works(&*one), works(&*two), works(&*two));
        a.and(b).and(c).and(d).unwrap();
        assert_eq!(fake.rotations(), before + 1);
    }
}

#[tokio::test]
async fn a_new_code_in_the_configuration_wins_over_the_stored_pair() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    works(&*connect(&oauth_table(&fake, &code(0)), folder.path()))
        .await
        .unwrap();
    works(&*connect(&oauth_table(&fake, &code(1)), folder.path()))
        .await
        .unwrap();
    assert_eq!(fake.rotations(), 2);
    assert_eq!(stored(folder.path())["origin"], CODES[1]);
}

#[tokio::test]
async fn a_revoked_integration_is_told_once_and_not_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    let crm = connect(&oauth_table(&fake, &code(0)), folder.path());
    works(&*crm).await.unwrap();
    fake.set_mood(Mood::Revoked);
    let exchanges = || {
        fake.log()
            .iter()
            .filter(|line| line.starts_with("POST"))
            .count()
    };
    let before = exchanges();
    for _ in 0..3 {
        let error = works(&*crm).await.unwrap_err();
        assert!(
            matches!(&error, CrmError::Unauthorized(text) if text.contains("crm.authorization_code"))
        );
        assert!(!format!("{error:?}").contains("refresh-1"));
    }
    assert_eq!(exchanges(), before + 1);
}

#[tokio::test]
async fn a_lost_answer_is_tried_once_more_and_then_told() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    let table = oauth_table(&fake, &code(0));
    works(&*connect(&table, folder.path())).await.unwrap();
    fake.expire_access_tokens();
    fake.set_mood(Mood::LoseTokenAnswer);
    // A live lookup does not try again by itself.
    let crm = connect(&table, folder.path());
    let error = find(&*crm, CALLER).await.unwrap_err();
    assert_eq!(error.label(), "unreachable");
    assert_eq!(stored(folder.path())["pending"], true);
    fake.set_mood(Mood::Fine);
    let error = works(&*crm).await.unwrap_err();
    assert!(
        told(&error).contains("answer to an earlier renewal was lost"),
        "{}",
        told(&error)
    );
    works(&*connect(&oauth_table(&fake, &code(1)), folder.path()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_renewal_that_never_arrived_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    let table = oauth_table(&fake, &code(0));
    let crm = connect(&table, folder.path());
    fake.set_mood(Mood::LimitedHtml);
    // `check` sends one request and does not repeat it.
    assert_eq!(crm.check().await[1].level, Level::Fault);
    assert_eq!(stored(folder.path())["pending"], false);
    fake.set_mood(Mood::Fine);
    works(&*crm).await.unwrap();
    assert_eq!(fake.rotations(), 1);
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_cut_a_renewal_short() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    let crm = connect(&oauth_table(&fake, &code(0)), folder.path());
    fake.set_mood(Mood::Slow(Duration::from_millis(100)));
    tokio::select! {
        _ = find(&*crm, CALLER) => panic!("the slow account was fast"),
        () = until(|| fake.requests() == 1) => {}
    }
    until(|| {
        folder.path().join("tokens.json").exists() && stored(folder.path())["pending"] == false
    })
    .await;
    fake.set_mood(Mood::Fine);
    works(&*crm).await.unwrap();
    assert_eq!(fake.rotations(), 1);
}

#[test]
fn a_kill_between_renewal_and_saving_leaves_a_file_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeAmocrm::start(world(1), Options::default());
    let table = oauth_table(&fake, &code(0));
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    runtime().block_on(async {
        works(&*connect(&table, folder.path())).await.unwrap();
        fake.expire_access_tokens();
        fake.set_mood(Mood::HoldTokenAnswer);
        let crm = connect(&table, folder.path());
        tokio::select! {
            _ = find(&*crm, CALLER) => panic!("the answer was held back"),
            () = until(|| fake.rotations() == 2) => {}
        }
    });
    // The runtime is gone, and with it whatever was under way.
    let left = stored(folder.path());
    assert_eq!(
        (&left["pair"]["refresh"], &left["pending"]),
        (&"refresh-1".into(), &true.into())
    );
    fake.set_mood(Mood::Fine);
    runtime().block_on(async {
        let error = works(&*connect(&table, folder.path())).await.unwrap_err();
        assert!(told(&error).contains("was lost"), "{}", told(&error));
        works(&*connect(&oauth_table(&fake, &code(1)), folder.path()))
            .await
            .unwrap();
    });
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
