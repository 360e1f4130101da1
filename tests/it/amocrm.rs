//! The amoCRM connector: against recorded answers, and against the made-up account.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use pryamo::crm::amocrm::KIND;
use pryamo::crm::{Common, Crm, CrmError, Cursor, Level, Page, Since};
use pryamo::phone::E164;
use pryamo::record::{Card, CrmName, EntityKind, Stage};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fake_amocrm::{
    CLIENT_ID, CLIENT_SECRET, CODES, FIRST_REFRESH, FakeAmocrm, Mood, Options, REDIRECT_URI, Search,
};
use crate::world::{self, Entry, SharedWorld, User, World};

const ALL: [EntityKind; 3] = [EntityKind::Contact, EntityKind::Company, EntityKind::Deal];
const CALLER: u64 = 79_000_000_001;

/// Plays recorded answers in their order; the last one over and over.
struct Replay {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Replay {
    async fn start(names: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Vec<String> = names.iter().map(|name| recorded(name, &url)).collect();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                let index = {
                    let mut noted = noted.lock().unwrap();
                    noted.push(request);
                    (noted.len() - 1).min(answers.len() - 1)
                };
                let _ = stream.write_all(answers[index].as_bytes()).await;
            }
        });
        Self { url, seen }
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn table(&self, access: &str) -> String {
        let limits = "limits = { requests_per_second = 5000, retry_ms = 1, timeout_ms = 5000 }";
        format!("url = \"{}\"\n{access}\n{limits}\n", self.url)
    }

    fn crm(&self) -> Arc<dyn Crm> {
        connect(
            &self.table("token = \"long-lived\""),
            Path::new("/nonexistent"),
        )
    }
}

/// The whole request: closing with a body unread would reset the connection.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).await.unwrap();
        request.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let announced = head
            .to_lowercase()
            .split_once("content-length: ")
            .map(|(_, rest)| {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse::<usize>().unwrap()
            });
        if body.len() >= announced.unwrap_or(0) {
            return text;
        }
    }
}

fn recorded(name: &str, url: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cassettes/amocrm");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    let cassette: Value = serde_json::from_str(&text).unwrap();
    assert!(
        cassette["source"].is_string() && cassette["date"].is_string(),
        "{name}"
    );
    let body = match &cassette["body"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        json => json.to_string().replace("https://demo.amocrm.ru", url),
    };
    let mut head = vec![
        format!("HTTP/1.1 {} Recorded", cassette["status"]),
        "connection: close".to_owned(),
    ];
    for (key, value) in cassette["headers"].as_object().unwrap() {
        head.push(format!("{key}: {}", value.as_str().unwrap()));
    }
    if cassette["status"] != 204 {
        head.push(format!("content-length: {}", body.len()));
    }
    format!("{}\r\n\r\n{body}", head.join("\r\n"))
}

fn common(state_dir: &Path, fields: &[&str]) -> Common {
    Common {
        name: CrmName::new("retail"),
        wanted: ALL.to_vec(),
        fields: fields.iter().map(ToString::to_string).collect(),
        share: 0.8,
        state_dir: state_dir.to_owned(),
        config_dir: "/nonexistent".into(),
    }
}

fn connect_with(table: &str, state_dir: &Path, fields: &[&str]) -> Arc<dyn Crm> {
    (KIND.open)(toml::from_str(table).unwrap(), common(state_dir, fields)).unwrap()
}

fn connect(table: &str, state_dir: &Path) -> Arc<dyn Crm> {
    connect_with(table, state_dir, &[])
}

async fn walk(crm: &dyn Crm, kind: EntityKind) -> Result<Vec<Page>, CrmError> {
    collect(crm.walk(kind, None)).await
}

fn at(time: Timestamp) -> Since {
    Since {
        time,
        highest_id: None,
    }
}

async fn changes(crm: &dyn Crm, since: i64) -> Result<Vec<Page>, CrmError> {
    let since = Timestamp::from_second(since).unwrap();
    collect(crm.changes(EntityKind::Contact, at(since))).await
}

async fn collect(
    stream: impl futures::Stream<Item = Result<Page, CrmError>>,
) -> Result<Vec<Page>, CrmError> {
    let pages: Vec<_> = stream.collect().await;
    pages.into_iter().collect()
}

fn cards(pages: &[Page]) -> Vec<&Card> {
    pages.iter().flat_map(|page| &page.cards).collect()
}

fn ids(pages: &[Page]) -> Vec<u64> {
    cards(pages).iter().map(|card| id(card)).collect()
}

fn id(card: &Card) -> u64 {
    card.id.as_str().parse().unwrap()
}

async fn find(crm: &dyn Crm, digits: u64) -> Result<Vec<String>, CrmError> {
    let cards = crm.find(E164::from_digits(digits).unwrap()).await?;
    Ok(cards
        .iter()
        .map(|card| format!("{} {}", card.kind, card.id))
        .collect())
}

/// The error with its causes, as a log would print it.
fn told(error: &CrmError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

// Recorded answers.

#[tokio::test]
async fn an_empty_list_is_one_empty_page_that_tells_the_time() {
    let replay = Replay::start(&["contacts_204"]).await;
    let pages = walk(&*replay.crm(), EntityKind::Contact).await.unwrap();
    assert_eq!((pages.len(), pages[0].cards.len()), (1, 0));
    assert_eq!(pages[0].cursor, None);
    assert_eq!(
        pages[0].server_time,
        Some("2026-11-22T12:00:00Z".parse().unwrap())
    );
    let pages = changes(&*replay.crm(), 1_795_348_800).await.unwrap();
    assert_eq!((pages.len(), pages[0].cards.len()), (1, 0));
}

#[tokio::test]
async fn a_full_page_with_a_link_goes_on_and_204_ends_it() {
    let replay = Replay::start(&["contacts_page", "contacts_204"]).await;
    let pages = walk(&*replay.crm(), EntityKind::Contact).await.unwrap();
    assert_eq!(ids(&pages), (1..=250).collect::<Vec<_>>());
    assert_eq!(
        pages[0].cursor,
        Some(Cursor(r#"{"page":2,"limit":250}"#.to_owned()))
    );
    assert_eq!(pages[1].cursor, None);
}

#[tokio::test]
async fn a_short_page_is_not_the_end() {
    let replay = Replay::start(&["contacts_short_page", "contacts_last_page"]).await;
    let pages = walk(&*replay.crm(), EntityKind::Contact).await.unwrap();
    assert_eq!(ids(&pages), [3001, 3002, 3003]);
    let first = replay.seen.lock().unwrap()[0].clone();
    assert!(
        first.starts_with("GET /api/v4/contacts?order%5Bid%5D=asc&page=1&limit=250 "),
        "{first}"
    );
    assert!(
        first.contains("authorization: Bearer long-lived"),
        "{first}"
    );
    assert!(first.contains("user-agent: pryamo/"), "{first}");
}

#[tokio::test]
async fn phones_are_read_in_every_form_that_amocrm_writes_them() {
    let cases: [(&str, &[&str]); 3] = [
        ("contacts_null_fields", &[]),
        (
            "contacts_phones",
            &[
                "8 (900) 000-00-01",
                "+79000000002",
                "8(812)0000001 доб. 123",
                "нет",
            ],
        ),
        ("contacts_enum", &["+79000000001"]),
    ];
    for (name, phones) in cases {
        let replay = Replay::start(&[name]).await;
        let pages = walk(&*replay.crm(), EntityKind::Contact).await.unwrap();
        assert_eq!(cards(&pages)[0].phones, phones, "{name}");
    }
}

#[tokio::test]
async fn a_contact_without_company_has_no_link_and_a_deleted_one_is_left_out() {
    let replay = Replay::start(&["contacts_no_company"]).await;
    let pages = walk(&*replay.crm(), EntityKind::Contact).await.unwrap();
    assert!(cards(&pages).iter().all(|card| card.links.is_empty()));
    let replay = Replay::start(&["contacts_deleted_row"]).await;
    let pages = walk(&*replay.crm(), EntityKind::Contact).await.unwrap();
    assert_eq!(ids(&pages), [3001]);
}

#[tokio::test]
async fn companies_and_deals_are_read() {
    let replay = Replay::start(&["companies"]).await;
    let pages = walk(&*replay.crm(), EntityKind::Company).await.unwrap();
    assert_eq!(cards(&pages)[0].phones, ["+7 495 000-00-01"]);
    let replay = Replay::start(&["leads"]).await;
    let pages = walk(&*replay.crm(), EntityKind::Deal).await.unwrap();
    let written: Vec<(Stage, Vec<String>)> = cards(&pages)
        .iter()
        .map(|card| {
            let links = card.links.iter().map(|(kind, id)| format!("{kind} {id}"));
            (card.stage, links.collect())
        })
        .collect();
    let links = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        written,
        [
            (
                Stage::Open,
                links(&["contact 3001", "contact 3002", "company 4001"])
            ),
            (Stage::Closed, links(&["company 4001"])),
            (Stage::Closed, links(&["contact 3001"])),
        ]
    );
    assert!(replay.seen.lock().unwrap()[0].contains("with=contacts"));
}

#[tokio::test]
async fn an_ignored_filter_is_made_up_for_by_the_order_and_told_when_that_is_ignored_too() {
    let replay = Replay::start(&["contacts_filter_ignored"]).await;
    let pages = changes(&*replay.crm(), 1_795_340_000).await.unwrap();
    assert_eq!((ids(&pages), replay.requests()), (vec![3005, 3001], 1));
    let replay = Replay::start(&["contacts_filter_and_order_ignored"]).await;
    let error = changes(&*replay.crm(), 1_795_340_000).await.unwrap_err();
    assert_eq!(error.label(), "filter_ignored");
}

#[tokio::test]
async fn users_are_employees_without_extension() {
    let replay = Replay::start(&["users"]).await;
    let employees = replay.crm().employees().await.unwrap();
    let anna = &employees[0];
    assert_eq!(
        (anna.name.as_str(), anna.active, &anna.extension),
        ("Анна Примерова", true, &None)
    );
    assert_eq!(anna.email.as_deref(), Some("user501@example.com"));
    assert_eq!(
        (anna.phones.as_slice(), anna.departments.as_slice()),
        (&["+79000000501".to_owned()][..], &["3".to_owned()][..])
    );
    assert!(!employees[1].active && employees[1].phones.is_empty());
}

#[tokio::test]
async fn no_users_at_all_is_never_a_success() {
    for (name, label) in [
        ("users_204", "shape"),
        ("users_empty_list", "shape"),
        ("users_forbidden", "forbidden"),
    ] {
        let replay = Replay::start(&[name]).await;
        let error = replay.crm().employees().await.unwrap_err();
        assert_eq!(error.label(), label, "{name}");
        if label == "forbidden" {
            assert!(
                error.to_string().contains("let an administrator"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_search_brings_claims_and_204_means_nobody() {
    // Which of the two searches comes first is open; both answers fit either.
    let replay = Replay::start(&["search_204"]).await;
    assert_eq!(find(&*replay.crm(), CALLER).await.unwrap(), [""; 0]);
    assert_eq!(replay.requests(), 2);
    assert!(
        replay
            .seen
            .lock()
            .unwrap()
            .iter()
            .all(|request| request.contains("query=9000000001"))
    );
    let replay = Replay::start(&["search_contacts"]).await;
    let found = find(&*replay.crm(), CALLER).await.unwrap();
    assert_eq!(found[..2], ["contact 3001", "contact 3009"]);
}

#[tokio::test]
async fn every_refusal_has_its_meaning_and_its_number_of_tries() {
    let cases = [
        ("unauthorized_401", "unauthorized", 1, "`crm.token`"),
        ("bad_request_400", "refused", 1, "`filter.updated_at.from`"),
        ("unpaid_402", "refused", 1, "unpaid"),
        ("forbidden_403", "forbidden", 1, "Access denied"),
        ("blocked_403", "blocked", 1, "support"),
        ("limited_429_json", "rate_limited", 1, "300 s"),
        ("limited_429_html", "rate_limited", 4, "wait"),
        ("bad_gateway_502", "unreachable", 4, "502"),
        // 250, 125, 62, 31 and 25 rows.
        ("too_heavy_504", "unreachable", 5, "504"),
        ("contacts_next_elsewhere", "shape", 1, "another host"),
    ];
    for (name, label, requests, part) in cases {
        let replay = Replay::start(&[name]).await;
        let error = walk(&*replay.crm(), EntityKind::Contact).await.unwrap_err();
        assert_eq!(
            (error.label(), replay.requests()),
            (label, requests),
            "{name}: {error:?}"
        );
        assert!(told(&error).contains(part), "{name}: {}", told(&error));
    }
}

#[tokio::test]
async fn a_live_lookup_is_sent_once_whatever_comes_back() {
    for (name, label) in [
        ("limited_429_html", "rate_limited"),
        ("bad_gateway_502", "unreachable"),
        ("too_heavy_504", "unreachable"),
    ] {
        let replay = Replay::start(&[name]).await;
        let error = find(&*replay.crm(), CALLER).await.unwrap_err();
        assert_eq!(error.label(), label, "{name}");
        assert!(replay.requests() <= 2, "{name}");
        assert!(
            !format!("{error:?}{}", told(&error)).contains("9000000001"),
            "{name}: {error:?}"
        );
    }
}

#[tokio::test]
async fn damaged_pages_are_told_without_quoting_them() {
    let lists = [
        ("contacts", EntityKind::Contact),
        ("companies", EntityKind::Company),
        ("leads", EntityKind::Deal),
    ];
    for (list, kind) in lists {
        for damage in ["missing_field", "wrong_type", "html"] {
            let name = format!("{list}_{damage}");
            let replay = Replay::start(&[&name]).await;
            let error = walk(&*replay.crm(), kind).await.unwrap_err();
            assert_eq!(error.label(), "shape", "{name}");
            let text = told(&error);
            assert!(
                text.contains(&format!("GET /api/v4/{list}")),
                "{name}: {text}"
            );
            assert!(!format!("{error:?}").contains("7900"), "{name}: {error:?}");
        }
        let replay = Replay::start(&[&format!("{list}_empty_list")]).await;
        let pages = walk(&*replay.crm(), kind).await.unwrap();
        assert_eq!((pages.len(), pages[0].cards.len()), (1, 0), "{list}");
    }
    for damage in ["missing_field", "wrong_type", "html"] {
        let replay = Replay::start(&[&format!("users_{damage}")]).await;
        let error = replay.crm().employees().await.unwrap_err();
        assert_eq!(error.label(), "shape", "{damage}");
        assert!(
            !format!("{error:?}").contains("7900"),
            "{damage}: {error:?}"
        );
    }
}

#[tokio::test]
async fn check_reads_the_account_in_whatever_state_it_is() {
    let cases = [
        (vec!["account", "users"], None, ""),
        (
            vec!["account_filters_off", "users", "contacts_short_page"],
            Some(Level::Warning),
            "ignores filters",
        ),
        (
            vec!["account", "users_forbidden"],
            Some(Level::Fault),
            "administrator",
        ),
        (
            vec!["account_missing_field"],
            Some(Level::Fault),
            "subdomain",
        ),
        (vec!["account_wrong_type"], Some(Level::Fault), "crm.url"),
        (vec!["account_html"], Some(Level::Fault), "crm.url"),
        (vec!["unauthorized_401"], Some(Level::Fault), "crm.token"),
        (vec!["blocked_403"], Some(Level::Fault), "support"),
    ];
    for (names, level, part) in cases {
        let replay = Replay::start(&names).await;
        let findings = replay.crm().check().await;
        assert!(findings[0].text.contains("http://"), "{findings:?}");
        let worst = findings[1..]
            .iter()
            .find(|finding| finding.level != Level::Good);
        assert_eq!(
            worst.map(|finding| finding.level),
            level,
            "{names:?}: {findings:?}"
        );
        let text = worst.map(|finding| format!("{} {}", finding.text, finding.mend));
        assert!(
            text.unwrap_or_default().contains(part),
            "{names:?}: {findings:?}"
        );
    }
}

#[tokio::test]
async fn a_code_is_exchanged_and_what_comes_back_damaged_is_not_used() {
    let access = oauth_keys("authorization_code = \"first-code\"");
    for (name, label) in [
        ("oauth_granted", None),
        ("oauth_granted_without_time", None),
        ("oauth_missing_field", Some("shape")),
        ("oauth_wrong_type", Some("shape")),
        ("oauth_html", Some("shape")),
        ("oauth_revoked", Some("unauthorized")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let replay = Replay::start(&[name, "contacts_204"]).await;
        let crm = connect(&replay.table(&access), folder.path());
        let outcome = walk(&*crm, EntityKind::Contact).await;
        assert_eq!(outcome.as_ref().err().map(CrmError::label), label, "{name}");
        if label.is_none() {
            let second = replay.seen.lock().unwrap()[1].clone();
            assert!(
                second.contains("authorization: Bearer access-1"),
                "{second}"
            );
        } else {
            assert_eq!(replay.requests(), 1, "{name}");
        }
    }
}

// The made-up account.

fn world(contacts: u64) -> SharedWorld {
    let entry = |id: u64, phone: String| Entry {
        id,
        name: format!("Имя{id}"),
        last_name: "Фамилия".to_owned(),
        responsible: 501,
        phones: vec![phone],
        modified: 1_795_000_000 + i64::try_from(id * 7919 % 100_000).unwrap(),
        ..Entry::default()
    };
    let user = |id: u64, active| User {
        id,
        first_name: "Анна".to_owned(),
        last_name: "Примерова".to_owned(),
        active,
        mobile: Some(format!("+7900000{id:04}")),
        email: format!("user{id}@example.com"),
        ..User::default()
    };
    World {
        users: vec![user(501, true), user(502, false)],
        contacts: (1..=contacts)
            .map(|id| entry(id, format!("+7{}", 9_000_000_000 + id)))
            .collect(),
        companies: vec![
            entry(4001, "+74950000001".to_owned()),
            entry(4002, "8 (900) 000-00-01".to_owned()),
        ],
        deals: vec![
            Entry {
                contacts: vec![1, 2],
                company: Some(4001),
                ..entry(6001, String::new())
            },
            Entry {
                contacts: vec![1],
                stage: world::Stage::Closed,
                ..entry(6002, String::new())
            },
            Entry {
                contacts: vec![3],
                ..entry(6003, String::new())
            },
        ],
        ..World::default()
    }
    .shared()
}

fn account(contacts: u64, options: Options) -> (FakeAmocrm, Arc<dyn Crm>) {
    let fake = FakeAmocrm::start(world(contacts), options);
    let crm = connect(&fake.table(), Path::new("/nonexistent"));
    (fake, crm)
}

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
    assert_eq!(crm.employees().await.unwrap().len(), 2);
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
    let fake = FakeAmocrm::start(world(1), Options::default());
    let crm = connect_with(
        &fake.table(),
        Path::new("/nonexistent"),
        &["9001", "NONE", "tags"],
    );
    let pages = walk(&*crm, EntityKind::Contact).await.unwrap();
    let fields: Vec<_> = cards(&pages)[0].fields.iter().collect();
    assert_eq!(fields, [(&"9001".to_owned(), &"+79000000001".to_owned())]);
}

// OAuth.

fn oauth_keys(first: &str) -> String {
    format!(
        "client_id = \"{CLIENT_ID}\"\nclient_secret = \"{CLIENT_SECRET}\"\n\
         redirect_uri = \"{REDIRECT_URI}\"\n{first}"
    )
}

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
    let refused = fake
        .log()
        .iter()
        .filter(|line| line.starts_with("GET"))
        .count();
    assert_eq!(refused, 3);
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
