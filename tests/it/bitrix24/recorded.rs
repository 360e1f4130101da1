//! What the connector makes of recorded answers, healthy and damaged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use pryamo::crm::{Crm, CrmError, Cursor, Finding, Level, Page};
use pryamo::record::{EmployeeId, EntityId, EntityKind, Stage};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{CODE, at_speed, connect, drain, ids, label, phone, printed};

/// A recorded answer; status 0 means that none ever comes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cassette {
    source: String,
    date: String,
    pub status: u16,
    location: Option<String>,
    pub body: Value,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/cassettes/bitrix24")
}

pub fn cassette(name: &str) -> Cassette {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json")));
    serde_json::from_str(&text.unwrap_or_else(|error| panic!("{name}: {error}"))).unwrap()
}

/// A server that answers with these cassettes, one a request, the last one for ever.
async fn replay(names: &[&str]) -> Arc<dyn Crm> {
    replay_with(names, "").await
}

/// The same to a connector with more settings.
pub async fn replay_with(names: &[&str], settings: &str) -> Arc<dyn Crm> {
    let cassettes: Vec<Cassette> = names.iter().map(|name| cassette(name)).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut place = 0;
        while let Ok((stream, _)) = listener.accept().await {
            let cassette = cassettes[place.min(cassettes.len() - 1)].clone();
            place += 1;
            tokio::spawn(play(stream, cassette));
        }
    });
    connect(
        &format!("http://{address}/rest/17/{CODE}/"),
        &format!("{settings}\n{}", at_speed(100.0)),
    )
}

async fn play(mut stream: TcpStream, cassette: Cassette) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut wanted = usize::MAX;
    while request.len() < wanted {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some(head) = text.find("\r\n\r\n") {
            let length = text[..head].split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
            wanted = head + 4 + length.unwrap_or(0);
        }
    }
    if cassette.status == 0 {
        std::future::pending::<()>().await;
    }
    let body = match &cassette.body {
        Value::String(text) => text.clone(),
        body => body.to_string(),
    };
    let location = cassette.location.map(|to| format!("location: {to}\r\n"));
    let head = format!(
        "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n{}\r\n",
        cassette.status,
        body.len(),
        location.unwrap_or_default()
    );
    stream.write_all((head + body.as_str()).as_bytes()).await
}

async fn replay_walk(kind: EntityKind, name: &str) -> (Vec<Page>, Option<CrmError>) {
    drain(replay(&[name]).await.walk(kind, None)).await
}

#[test]
fn every_cassette_says_where_it_comes_from() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let cassette = cassette(path.file_stem().unwrap().to_str().unwrap());
        assert!(!cassette.source.is_empty(), "{path:?}");
        assert!(
            cassette.date.parse::<jiff::civil::Date>().is_ok(),
            "{path:?}"
        );
        count += 1;
    }
    assert!(count > 60, "{count} cassettes");
}

#[tokio::test]
async fn no_answer_upsets_the_connector_or_brings_out_the_secret() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if cassette(name).status == 0 {
            continue;
        }
        let crm = replay(&[name]).await;
        if let Err(error) = crm.find(phone(79_000_000_001)).await {
            let text = printed(&error);
            assert!(!text.contains(CODE), "{name}: {text}");
        }
        let findings = format!("{:?}", replay(&[name]).await.check().await);
        assert!(!findings.contains(CODE), "{name}: {findings}");
    }
}

#[tokio::test]
async fn recorded_lists_become_pages() {
    use EntityKind::{Company, Contact, Deal, Lead};
    let table: &[(EntityKind, &str, &[u64], &str)] = &[
        (Contact, "batch_contact_list", &[156, 157, 160], "well"),
        (Contact, "batch_array_form", &[156, 157, 160], "well"),
        (Company, "batch_company_list", &[9], "well"),
        (Lead, "batch_lead_list", &[31, 32, 33], "well"),
        (Deal, "batch_deal_list", &[41, 42], "well"),
        (Contact, "batch_contact_list.missing_field", &[], "shape"),
        (Company, "batch_company_list.missing_field", &[], "shape"),
        (Lead, "batch_lead_list.missing_field", &[], "shape"),
        (Deal, "batch_deal_list.missing_field", &[], "shape"),
        (Contact, "batch_contact_list.wrong_type", &[], "shape"),
        (Company, "batch_company_list.wrong_type", &[], "shape"),
        (Lead, "batch_lead_list.wrong_type", &[], "shape"),
        (Deal, "batch_deal_list.wrong_type", &[], "shape"),
        (Contact, "batch_contact_list.empty_list", &[], "well"),
        (Company, "batch_company_list.empty_list", &[], "well"),
        (Lead, "batch_lead_list.empty_list", &[], "well"),
        (Deal, "batch_deal_list.empty_list", &[], "well"),
        (Contact, "batch_without_result", &[], "shape"),
        (Contact, "batch_first_error", &[], "refused"),
        (Contact, "broken_json", &[], "shape"),
        (Contact, "user_get", &[], "shape"),
        (Contact, "expired_token", &[], "unauthorized"),
        (Contact, "no_auth_found", &[], "unauthorized"),
        (Contact, "insufficient_scope", &[], "forbidden"),
        (Contact, "overload_limit", &[], "blocked"),
        (Contact, "empty_error", &[], "refused"),
        (Contact, "redirect", &[], "refused"),
    ];
    for (kind, name, expected, outcome) in table {
        let (pages, error) = replay_walk(*kind, name).await;
        assert_eq!(label(error.as_ref()), *outcome, "{name}: {error:?}");
        assert_eq!(ids(&pages), *expected, "{name}");
        if error.is_none() {
            assert_eq!(pages[0].cursor, None, "{name}");
            let began: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
            assert_eq!(pages[0].server_time, Some(began), "{name}");
        }
    }
}

#[tokio::test]
async fn a_gateways_error_page_is_no_answer_however_often_it_is_asked() {
    let names = [
        "batch_contact_list.html",
        "batch_company_list.html",
        "batch_lead_list.html",
        "batch_deal_list.html",
        "html_502",
    ];
    let walks = names.map(|name| replay_walk(EntityKind::Contact, name));
    for (pages, error) in join_all(walks).await {
        assert!(pages.is_empty());
        assert_eq!(label(error.as_ref()), "unreachable");
    }
}

#[tokio::test]
async fn a_recorded_contact_arrives_as_written() {
    let (pages, _) = replay_walk(EntityKind::Contact, "batch_contact_list").await;
    let [full, without, odd] = &pages[0].cards[..] else {
        panic!("{pages:?}");
    };
    assert_eq!(full.name, "Test Person");
    assert_eq!(full.phones, ["8 (900) 000-00-01", "+79000000002"]);
    assert_eq!(full.links, [(EntityKind::Company, EntityId::from(9))]);
    assert_eq!(full.responsible, Some(EmployeeId::new("17")));
    assert_eq!(full.modified, "2026-11-20T07:00:00Z".parse().ok());
    assert_eq!(without.name, "Without");
    assert!(without.phones.is_empty() && without.links.is_empty());
    assert_eq!((odd.name.as_str(), &odd.responsible), ("Нужный", &None));
    assert_eq!(odd.modified, None);
}

#[tokio::test]
async fn recorded_leads_and_deals_know_their_stage_and_links() {
    let (pages, _) = replay_walk(EntityKind::Lead, "batch_lead_list").await;
    let leads = &pages[0].cards;
    let stages: Vec<Stage> = leads.iter().map(|lead| lead.stage).collect();
    assert_eq!(stages, [Stage::Open, Stage::Closed, Stage::Junk]);
    let names: Vec<&str> = leads.iter().map(|lead| lead.name.as_str()).collect();
    assert_eq!(names, ["Lev Example", "Lead 32", "Lead 33"]);
    let (pages, _) = replay_walk(EntityKind::Deal, "batch_deal_list").await;
    let [open, closed] = &pages[0].cards[..] else {
        panic!("{pages:?}");
    };
    assert_eq!((open.stage, closed.stage), (Stage::Open, Stage::Closed));
    let links = [
        (EntityKind::Contact, EntityId::from(156)),
        (EntityKind::Company, EntityId::from(9)),
    ];
    assert_eq!(open.links, links);
}

#[tokio::test]
async fn a_full_page_with_an_empty_one_behind_it_ends_the_walk() {
    let (pages, error) = replay_walk(EntityKind::Contact, "batch_full_page_then_empty").await;
    assert!(error.is_none());
    assert_eq!(ids(&pages), (1..=50).collect::<Vec<u64>>());
    assert_eq!(pages[0].cursor, None);
}

#[tokio::test]
async fn what_stands_before_a_fault_in_a_batch_is_taken() {
    for name in ["batch_full_page_then_restart", "batch_result_error_object"] {
        let crm = replay(&[name, "batch_contact_list"]).await;
        let (pages, error) = drain(crm.walk(EntityKind::Contact, None)).await;
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!(pages.len(), 2, "{name}");
        assert_eq!(pages[0].cards.len(), 50, "{name}");
        assert_eq!(pages[0].cursor, Some(Cursor("50".into())), "{name}");
        assert_eq!(ids(&pages[1..]), [156, 157, 160], "{name}");
    }
}

#[tokio::test]
async fn recorded_users_become_employees() {
    let employees = replay(&["user_get", "department_get", "batch_calendar"])
        .await
        .employees()
        .await
        .unwrap()
        .employees;
    let told: Vec<(&str, bool, Option<&str>)> = employees
        .iter()
        .map(|e| (e.name.as_str(), e.active, e.extension.as_deref()))
        .collect();
    let expected = [
        ("Anna Example", true, Some(" 101 ")),
        ("Boris Example", false, None),
        ("Vera", true, None),
        ("Gleb Example", true, None),
    ];
    assert_eq!(told, expected);
    assert_eq!(employees[0].phones, ["+7 900 000-00-09"]);
    assert_eq!(employees[0].departments, ["3"]);
    assert_eq!(employees[1].email.as_deref(), Some("boris@example.com"));
}

#[tokio::test]
async fn damaged_users_are_an_error_and_never_an_empty_success() {
    let outcomes = [
        ("user_get.missing_field", "shape"),
        ("user_get.wrong_type", "shape"),
        ("user_get.empty_list", "shape"),
        ("user_get.html", "unreachable"),
        ("insufficient_scope", "forbidden"),
    ];
    let reads = outcomes.map(|(name, expected)| async move {
        let error = replay(&[name]).await.employees().await.unwrap_err();
        assert_eq!(error.label(), expected, "{name}: {error}");
    });
    join_all(reads).await;
}

#[tokio::test]
async fn recorded_hits_become_cards() {
    let table: &[(&[&str], &[u64], &str)] = &[
        (&["findbycomm_none"], &[], "well"),
        (&["findbycomm_hits", "found_contacts"], &[156, 160], "well"),
        (
            &["findbycomm_hits", "found_contacts.missing_field"],
            &[],
            "shape",
        ),
        (
            &["findbycomm_hits", "found_contacts.wrong_type"],
            &[],
            "shape",
        ),
        // The portal names cards that the webhook may not read, and then leaves them out.
        (
            &["findbycomm_hits", "found_contacts.empty_list"],
            &[],
            "well",
        ),
        (
            &["findbycomm_hits", "found_contacts.html"],
            &[],
            "unreachable",
        ),
        (
            &["findbycomm_hits", "found_strangers"],
            &[],
            "filter_ignored",
        ),
        (&["findbycomm_hits.missing_field"], &[], "shape"),
        (&["findbycomm_hits.wrong_type"], &[], "shape"),
        (&["findbycomm_hits.empty_list"], &[], "well"),
        (&["findbycomm_hits.html"], &[], "unreachable"),
        (&["search_crm_entities_one"], &[], "shape"),
        (&["query_limit_exceeded"], &[], "rate_limited"),
        (&["operation_time_limit"], &[], "rate_limited"),
        (&["html_502"], &[], "unreachable"),
    ];
    for (names, expected, outcome) in table {
        let found = replay(names).await.find(phone(79_000_000_001)).await;
        assert_eq!(
            label(found.as_ref().err()),
            *outcome,
            "{names:?}: {found:?}"
        );
        let found: Vec<String> = found
            .unwrap_or_default()
            .iter()
            .map(|card| card.id.to_string())
            .collect();
        let expected: Vec<String> = expected.iter().map(u64::to_string).collect();
        assert_eq!(found, expected, "{names:?}");
    }
}

#[tokio::test]
async fn a_refusal_for_now_is_waited_out() {
    let refusals = ["query_limit_exceeded", "operation_time_limit", "html_502"];
    let reads = refusals.map(|refusal| async move {
        let crm = replay(&[refusal, "user_get", "department_get", "batch_calendar"]).await;
        let began = tokio::time::Instant::now();
        assert_eq!(
            crm.employees().await.unwrap().employees.len(),
            4,
            "{refusal}"
        );
        let least = match refusal {
            // So says the portal's `operating_reset_at`, measured on its own clock.
            "operation_time_limit" => Duration::from_millis(1500),
            _ => Duration::from_secs(1),
        };
        assert!(began.elapsed() >= least, "{refusal}");
    });
    join_all(reads).await;
}

#[tokio::test]
async fn a_portal_that_never_answers_holds_nobody_for_good() {
    let crm = replay(&["never_answers", "findbycomm_none"]).await;
    let number = phone(79_000_000_001);
    let patience = Duration::from_millis(100);
    assert!(
        tokio::time::timeout(patience, crm.find(number))
            .await
            .is_err()
    );
    assert_eq!(crm.find(number).await.unwrap(), []);
}

#[tokio::test]
async fn a_renamed_portal_is_told_with_its_new_host() {
    let crm = replay(&["redirect"]).await;
    let error = crm.find(phone(79_000_000_001)).await.unwrap_err();
    let text = printed(&error);
    assert!(
        text.contains("renamed.example") && text.contains("`crm.url`"),
        "{text}"
    );
    assert!(!text.contains(CODE), "{text}");
}

#[tokio::test]
async fn a_check_tells_what_the_webhook_lacks() {
    let findings = replay(&["check"]).await.check().await;
    let told: Vec<(Level, &str)> = findings
        .iter()
        .map(|f| (f.level, f.text.as_str()))
        .collect();
    let expected = [
        (
            Level::Warning,
            "`crm.url` begins with http://: the secret and the clients' numbers travel unencrypted, though only within this machine",
        ),
        (Level::Good, "the portal answers, as to user 17"),
        (
            Level::Warning,
            "employees come without e-mail and own phones",
        ),
        (
            Level::Good,
            "heads of departments are not known: the webhook has no right `department`",
        ),
        (
            Level::Good,
            "absences are not read: the webhook has no right `calendar`",
        ),
        (
            Level::Warning,
            "the webhook's owner is no administrator and may see fewer cards",
        ),
        (Level::Good, "the CRM runs in simple mode, without leads"),
        (
            Level::Good,
            "no application (`crm.client_id`): changes are found by asking for them; the notices of an outgoing webhook are believed without `crm.application_token`",
        ),
    ];
    assert_eq!(told, expected);
    let mended = |f: &Finding| f.level == Level::Good || f.mend.contains("`crm.url` of `sales`");
    assert!(findings.iter().skip(1).all(mended), "{findings:?}");
}

#[tokio::test]
async fn a_check_of_a_refused_webhook_is_a_fault_with_its_mend() {
    let findings = replay(&["no_auth_found"]).await.check().await;
    let fault = findings.last().unwrap();
    assert_eq!(fault.level, Level::Fault);
    assert!(fault.text.contains("NO_AUTH_FOUND"), "{fault:?}");
    assert!(
        fault.mend.contains("make a new incoming webhook"),
        "{fault:?}"
    );
}
