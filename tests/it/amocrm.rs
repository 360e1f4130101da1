//! The amoCRM connector: against recorded answers, and against the made-up account.

mod made_up;
mod news;
mod notices;
mod oauth;
mod recorded;
mod watch;

use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use jiff::Timestamp;
use pryamo::crm::amocrm::KIND;
use pryamo::crm::{Common, Crm, CrmError, Page, Since};
use pryamo::phone::E164;
use pryamo::record::{Card, CrmName, EntityKind};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fake_amocrm::{CLIENT_ID, CLIENT_SECRET, FakeAmocrm, Options, REDIRECT_URI};
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
        asked_lately: false,
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

fn oauth_keys(first: &str) -> String {
    format!(
        "client_id = \"{CLIENT_ID}\"\nclient_secret = \"{CLIENT_SECRET}\"\n\
         redirect_uri = \"{REDIRECT_URI}\"\n{first}"
    )
}

/// How many requests have this in them.
fn asked(fake: &FakeAmocrm, part: &str) -> usize {
    fake.log().iter().filter(|line| line.contains(part)).count()
}
