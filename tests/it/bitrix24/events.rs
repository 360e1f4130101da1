//! Events that the portal keeps for the application until we fetch them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use pryamo::crm::{Crm, CrmError, Level, News};
use pryamo::record::{EntityKind, Event};
use serde_json::{Value, json};

use super::recorded::cassette;
use super::{application, at_speed, connect_in, contacts, hook, label, portal_with};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::world::{Happened, List, What};

async fn portal(options: Options) -> FakeBitrix24 {
    portal_with(&contacts(3).shared(), options).await
}

/// The connector of an installed application.
async fn installed(fake: &FakeBitrix24, folder: &Path) -> Arc<dyn Crm> {
    let crm = connect_in(folder, &fake.url(), &application(fake));
    crm.receive(hook(&fake.install_form())).await.unwrap();
    crm
}

fn restarted(fake: &FakeBitrix24, folder: &Path) -> Arc<dyn Crm> {
    connect_in(folder, &fake.url(), &application(fake))
}

fn happen(fake: &FakeBitrix24, id: u64, what: What) {
    fake.happened(&Happened {
        list: List::Contacts,
        id,
        what,
    });
}

fn told(news: &News) -> Vec<(EntityKind, String, Event)> {
    let notices = news.notices.iter();
    notices
        .map(|notice| (notice.kind, notice.id.as_str().to_owned(), notice.event))
        .collect()
}

fn changed(ids: &[u64]) -> Vec<(EntityKind, String, Event)> {
    ids.iter()
        .map(|id| (EntityKind::Contact, id.to_string(), Event::Changed))
        .collect()
}

#[tokio::test]
async fn events_are_bound_once_fetched_and_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let crm = installed(&fake, folder.path()).await;
    assert!(crm.has_news());
    assert_eq!(crm.news(None).await.unwrap(), News::default());
    assert_eq!(fake.bound().len(), 12);
    happen(&fake, 3, What::Changed);
    happen(&fake, 6, What::Added);
    fake.empty_record();
    happen(&fake, 9, What::Deleted);
    happen(&fake, 3, What::Reassigned(2));
    let before = fake.requests().len();
    let news = crm.news(None).await.unwrap();
    assert_eq!(fake.requests().len(), before + 1);
    let mut expected = changed(&[6]);
    expected.push((EntityKind::Contact, "9".into(), Event::Gone));
    expected.extend(changed(&[3]));
    assert_eq!(told(&news), expected);
    assert!(!news.more);
    assert_eq!(fake.queue().len(), 4);
    crm.confirm(&news.receipt.unwrap()).await.unwrap();
    assert_eq!(fake.queue(), [""; 0]);
    // What is confirmed is not confirmed again.
    let before = fake.requests().len();
    let news = crm.news(news.cursor).await.unwrap();
    assert_eq!(news, News::default());
    assert_eq!(fake.requests().len(), before + 1);
    assert_eq!(fake.violations(), [""; 0]);
}

#[tokio::test]
async fn only_events_of_mirrored_kinds_are_bound_and_only_missing_ones() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let crm = installed(&fake, folder.path()).await;
    crm.news(None).await.unwrap();
    let binds = || {
        let requests = fake.requests();
        let commands = requests.iter().flat_map(|request| &request.commands);
        commands
            .filter(|line| line.starts_with("event.bind"))
            .count()
    };
    assert_eq!(binds(), 12);
    restarted(&fake, folder.path()).news(None).await.unwrap();
    assert_eq!(binds(), 12);
}

#[tokio::test]
async fn a_full_page_says_that_there_is_more() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let crm = installed(&fake, folder.path()).await;
    crm.news(None).await.unwrap();
    for id in 1..=120 {
        happen(&fake, id, What::Changed);
    }
    let mut cursor = None;
    let mut counts = Vec::new();
    loop {
        let news = crm.news(cursor).await.unwrap();
        counts.push(news.notices.len());
        cursor = news.cursor;
        if !news.more {
            break;
        }
    }
    assert_eq!(counts, [50, 50, 20]);
    // The cursor that was stored last confirms the processes before it.
    assert_eq!(fake.queue().len(), 20);
    crm.news(cursor).await.unwrap();
    assert_eq!(fake.queue().len(), 0);
}

#[tokio::test]
async fn events_that_were_fetched_and_not_stored_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let crm = installed(&fake, folder.path()).await;
    crm.news(None).await.unwrap();
    happen(&fake, 3, What::Changed);
    happen(&fake, 6, What::Changed);
    assert_eq!(told(&crm.news(None).await.unwrap()), changed(&[3, 6]));
    // The same process asks again: it has not stored them.
    assert_eq!(told(&crm.news(None).await.unwrap()), changed(&[3, 6]));
    // It dies, and so does its successor.
    drop(crm);
    for _ in 0..2 {
        let crm = restarted(&fake, folder.path());
        let news = crm.news(None).await.unwrap();
        assert_eq!(told(&news), changed(&[3, 6]));
        assert!(news.more && news.receipt.is_some());
    }
    // Meanwhile something new has come; it waits its turn.
    happen(&fake, 9, What::Changed);
    let crm = restarted(&fake, folder.path());
    let left = crm.news(None).await.unwrap();
    assert_eq!(told(&left), changed(&[3, 6]));
    let news = crm.news(left.cursor).await.unwrap();
    assert_eq!(told(&news), changed(&[9]));
    assert_eq!(fake.queue(), ["ONCRMCONTACTUPDATE 9"]);
}

#[tokio::test]
async fn events_that_were_stored_and_not_confirmed_do_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let crm = installed(&fake, folder.path()).await;
    crm.news(None).await.unwrap();
    happen(&fake, 3, What::Changed);
    let stored = crm.news(None).await.unwrap().cursor;
    drop(crm);
    let crm = restarted(&fake, folder.path());
    assert_eq!(crm.news(stored).await.unwrap(), News::default());
    assert_eq!(fake.queue(), [""; 0]);
}

#[tokio::test]
async fn a_lost_answer_loses_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let crm = installed(&fake, folder.path()).await;
    crm.news(None).await.unwrap();
    happen(&fake, 3, What::Deleted);
    fake.set_mood(Mood::LoseNews);
    let error = crm.news(None).await.err();
    assert_eq!(label(error.as_ref()), "unreachable");
    let news = crm.news(None).await.unwrap();
    let expected = (EntityKind::Contact, "3".to_owned(), Event::Gone);
    assert_eq!(told(&news), [expected]);
    crm.confirm(&news.receipt.unwrap()).await.unwrap();
    assert_eq!(fake.queue(), [""; 0]);
}

#[tokio::test]
async fn a_plan_without_reservation_has_events_too() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        has_reservation: false,
        ..Options::default()
    };
    let fake = portal(options).await;
    let crm = installed(&fake, folder.path()).await;
    crm.news(None).await.unwrap();
    happen(&fake, 3, What::Changed);
    let news = crm.news(None).await.unwrap();
    assert_eq!(told(&news), changed(&[3]));
    assert_eq!((news.receipt, news.cursor), (None, None));
    assert_eq!(fake.queue(), [""; 0]);
}

#[tokio::test]
async fn a_new_installation_is_bound_anew() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let crm = installed(&fake, folder.path()).await;
    crm.news(None).await.unwrap();
    let form = fake.reinstall();
    assert_eq!(fake.bound(), [""; 0]);
    crm.news(None).await.unwrap();
    assert_eq!(fake.bound(), [""; 0], "nobody has told us yet");
    crm.receive(hook(&form)).await.unwrap();
    crm.news(None).await.unwrap();
    assert_eq!(fake.bound().len(), 12);
    // An update brings no tokens, and drops the bindings all the same.
    let _ = fake.reinstall();
    let update = "event=ONAPPUPDATE&auth[domain]=127.0.0.1&auth[application_token]=t0kenexample";
    crm.receive(hook(update)).await.unwrap();
    crm.news(None).await.unwrap();
    assert_eq!(fake.bound().len(), 12);
    assert_eq!(fake.exchanges(), 0);
}

#[tokio::test]
async fn an_application_without_an_administrator_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        is_admin: false,
        ..Options::default()
    };
    let fake = portal(options).await;
    let crm = installed(&fake, folder.path()).await;
    let Err(CrmError::Forbidden { text, .. }) = crm.news(None).await else {
        panic!("offline events were bound by a common user");
    };
    assert!(text.contains("administrator"), "{text}");
}

#[tokio::test]
async fn a_check_says_how_changes_reach_us() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let crm = connect_in(folder.path(), &fake.url(), &application(&fake));
    let findings = crm.check().await;
    let faults: Vec<_> = findings
        .iter()
        .filter(|finding| finding.level == Level::Fault)
        .collect();
    assert_eq!(faults.len(), 1, "{findings:?}");
    assert!(faults[0].mend.contains("`crm.client_id`"), "{faults:?}");
    assert!(findings.last().unwrap().text.contains("found by asking"));
    crm.receive(hook(&fake.install_form())).await.unwrap();
    let last = |findings: Vec<pryamo::crm::Finding>| findings.last().unwrap().text.clone();
    assert!(last(crm.check().await).contains("when pryamo first fetches"));
    assert_eq!(fake.bound(), [""; 0], "a check binds nothing");
    crm.news(None).await.unwrap();
    assert!(last(crm.check().await).contains("12 of 12 events"));
}

/// A portal that answers with recorded answers: to each method the first that is left, the last one
/// for ever.
pub async fn recorded_portal(answers: &[(&'static str, Vec<(u16, Value)>)]) -> String {
    let answers = Arc::new(Mutex::new(answers.to_vec()));
    let answer = move |uri: Uri| {
        let path = uri.path().trim_matches('/').to_owned();
        let mut answers = answers.lock().unwrap();
        let left = answers
            .iter_mut()
            .find(|(method, _)| path.ends_with(method));
        let (_, left) = left.unwrap_or_else(|| panic!("{path} was asked"));
        let (status, body) = match left.len() {
            1 => left[0].clone(),
            _ => left.remove(0),
        };
        let status = StatusCode::from_u16(status).unwrap();
        let response: Response = match body {
            Value::String(text) => (status, text).into_response(),
            body => (status, Json(body)).into_response(),
        };
        std::future::ready(response)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/")
}

/// The settings of an application that begins with a refresh token.
pub fn recorded_application(url: &str) -> String {
    format!(
        "client_id = 'local.1'\nclient_secret = '{}'\nrefresh_token = 'r1example'\n\
         oauth_url = '{url}'\n{}",
        super::CLIENT_SECRET,
        at_speed(100.0)
    )
}

pub fn play(name: &str) -> (u16, Value) {
    let cassette = cassette(name);
    (cassette.status, cassette.body)
}

#[tokio::test]
async fn recorded_events_become_notices() {
    let gone = (EntityKind::Contact, "156".to_owned(), Event::Gone);
    let table = [
        ("event_offline_get", Ok(vec![gone.clone()])),
        ("event_offline_get.missing_field", Ok(vec![gone.clone()])),
        ("event_offline_get.wrong_type", Ok(vec![gone])),
        ("event_offline_get.empty_list", Ok(vec![])),
        ("event_offline_get.html", Err("unreachable")),
    ];
    let bound: Vec<Value> = ["CONTACT", "COMPANY", "LEAD", "DEAL"]
        .iter()
        .flat_map(|kind| ["ADD", "UPDATE", "DELETE"].map(|verb| format!("OnCrm{kind}{verb}")))
        .map(|name| json!({"event": name, "connector_id": "", "offline": "1"}))
        .collect();
    for (name, expected) in table {
        let folder = tempfile::tempdir().unwrap();
        let url = recorded_portal(&[
            ("oauth/token", vec![play("oauth_refresh_rotated")]),
            ("event.get", vec![(200, json!({"result": bound}))]),
            (
                "feature.get",
                vec![(200, json!({"result": {"value": "Y"}}))],
            ),
            (
                "event.offline.list",
                vec![(200, json!({"result": [], "total": 0}))],
            ),
            ("event.offline.get", vec![play(name)]),
        ])
        .await;
        let crm = connect_in(folder.path(), &url, &recorded_application(&url));
        let news = crm.news(None).await;
        let read = news.as_ref().map(told).map_err(CrmError::label);
        assert_eq!(read, expected, "{name}");
        if let Ok(news) = news {
            let receipt = news.receipt.map(|receipt| receipt.0);
            let some = (!news.notices.is_empty()).then(|| "p1example".to_owned());
            assert_eq!(receipt, some, "{name}");
        }
    }
}
