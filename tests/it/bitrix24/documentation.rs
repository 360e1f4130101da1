//! Whether the made-up portal behaves as the vendor documents, or tests against it mean nothing.

use std::collections::BTreeMap;

use pryamo::record::EntityKind;
use serde_json::{Value, json};

use super::recorded::cassette;
use super::{CLIENT_SECRET, CODE, contact, contacts, fast_portal, phone};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::world::{Entry, Happened, List, What, World};

/// The made-up portal answers in the recorded shape, so that tests against it mean something.
#[tokio::test]
async fn the_fake_answers_in_the_recorded_shapes() {
    let mut world = contacts(1);
    world.leads.push(contact(3));
    world.companies.push(contact(3));
    let (fake, _) = fast_portal(world).await;
    let body = json!({"PHONE_NUMBER": "8 900 000-00-03"});
    let (status, told) = ask(&fake, "telephony.externalCall.searchCrmEntities", &body).await;
    assert_eq!(status, 200);
    for name in ["search_crm_entities_one", "search_crm_entities_three"] {
        let recorded = cassette(name).body;
        assert_eq!(keys(&told["result"][0]), keys(&recorded["result"][0]));
        assert_eq!(
            keys(&told["result"][0]["ASSIGNED_BY"]),
            keys(&recorded["result"][0]["ASSIGNED_BY"])
        );
        assert_eq!(keys(&told["time"]), keys(&recorded["time"]));
    }
    assert_eq!(told["result"].as_array().unwrap().len(), 3);
    let cmd = json!({"cmd": {"p00": "crm.contact.list?start=-1&select[]=ID&select[]=PHONE"}});
    let (_, told) = ask(&fake, "batch", &cmd).await;
    let recorded = cassette("batch_contact_list").body;
    assert_eq!(keys(&told["result"]), keys(&recorded["result"]));
    assert_eq!(told["result"]["result_error"], json!([]));
    assert_eq!(
        keys(&told["result"]["result"]["p00"][0]["PHONE"][0]),
        keys(&recorded["result"]["result"]["p00"][0]["PHONE"][0])
    );
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

async fn ask(fake: &FakeBitrix24, method: &str, body: &Value) -> (u16, Value) {
    let http = pryamo::crm::http_client(None).unwrap();
    let url = format!("{}{method}", fake.url());
    let response = http.post(url).json(body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn the_fake_takes_every_form_of_request() {
    let (fake, _) = fast_portal(contacts(120)).await;
    let http = pryamo::crm::http_client(None).unwrap();
    let url = format!("{}crm.contact.list.json", fake.url());
    let query = "filter[>ID]=6&select[]=ID&start=0";
    let by_get = http.get(format!("{url}?{query}")).send().await.unwrap();
    let by_get: Value = by_get.json().await.unwrap();
    assert_eq!(by_get["result"][0], json!({"ID": "9"}));
    assert_eq!(
        (&by_get["total"], &by_get["next"]),
        (&json!(118), &json!(50))
    );
    let form = [("filter[>ID]", "6"), ("select[]", "ID"), ("start", "-1")];
    let by_form = http.post(&url).form(&form).send().await.unwrap();
    let by_form: Value = by_form.json().await.unwrap();
    assert_eq!(by_form["result"], by_get["result"]);
    assert_eq!((&by_form["total"], by_form.get("next")), (&json!(0), None));

    let (status, body) = ask(&fake, "crm.nothing.list", &json!({})).await;
    assert_eq!(
        (status, &body["error"]),
        (404, &json!("ERROR_METHOD_NOT_FOUND"))
    );
    let (status, body) = ask(&fake, "event.bind", &json!({})).await;
    assert_eq!((status, &body["error"]), (403, &json!("WRONG_AUTH_TYPE")));
    let wrong = fake.url().replace(CODE, "other");
    let response = http.post(format!("{wrong}scope")).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(fake.violations(), [""; 0]);

    let cmd: BTreeMap<String, &str> = (0..51).map(|n| (format!("c{n:02}"), "scope")).collect();
    let (_, body) = ask(&fake, "batch", &json!({"cmd": cmd})).await;
    let error = &body["result"]["result_error"]["c50"]["error"];
    assert_eq!(error, "ERROR_BATCH_LENGTH_EXCEEDED");
    assert_eq!(fake.violations(), ["a batch of 51 commands"]);
}

#[tokio::test]
async fn the_fake_enforces_its_bucket() {
    let fake = FakeBitrix24::start(World::default().shared(), Options::default()).await;
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(ask(&fake, "scope", &json!({})).await.0);
    }
    assert!(statuses[..50].iter().all(|status| *status == 200));
    assert!(statuses.contains(&503));
    assert!(!fake.violations().is_empty());
}

#[tokio::test]
async fn the_fakes_phone_search_hides_types_behind_twenty_hits() {
    let mut world = contacts(1);
    let same = |id| Entry {
        phones: vec!["8 (900) 000-00-03".into()],
        ..contact(id)
    };
    world.leads = (1..=25).map(same).collect();
    let (fake, crm) = fast_portal(world).await;
    let body = json!({"type": "PHONE", "values": ["79000000003"]});
    let (_, told) = ask(&fake, "crm.duplicate.findbycomm", &body).await;
    assert_eq!(told["result"]["LEAD"].as_array().unwrap().len(), 20);
    assert_eq!(told["result"].get("CONTACT"), None);
    // Which is why the connector asks for each type.
    let found = crm.find(phone(79_000_000_003)).await.unwrap();
    assert!(found.iter().any(|card| card.kind == EntityKind::Contact));
}

/// Asks as the application.
async fn ask_as(fake: &FakeBitrix24, token: &Value, method: &str, body: Value) -> (u16, Value) {
    let http = pryamo::crm::http_client(None).unwrap();
    let mut body = body;
    body["auth"] = token.clone();
    let url = format!("{}rest/{method}", fake.address());
    let response = http.post(url).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn exchange(fake: &FakeBitrix24, refresh: &str, secret: &str) -> (u16, Value) {
    let http = pryamo::crm::http_client(None).unwrap();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "local.1example"),
        ("client_secret", secret),
        ("refresh_token", refresh),
    ];
    let url = format!("{}oauth/token/", fake.address());
    let response = http.post(url).form(&form).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn the_fakes_token_server_answers_as_recorded_and_rotates() {
    let (fake, _) = fast_portal(contacts(1)).await;
    let first = fake.authorise();
    let (status, told) = exchange(&fake, &first, "wrong").await;
    let recorded = cassette("oauth_refresh_wrong_client");
    assert_eq!((status, told), (recorded.status, recorded.body));
    let (status, told) = exchange(&fake, &first, CLIENT_SECRET).await;
    assert_eq!(status, 200);
    assert_eq!(keys(&told), keys(&cassette("oauth_refresh_rotated").body));
    let (status, spent) = exchange(&fake, &first, CLIENT_SECRET).await;
    assert_eq!((status, &spent["error"]), (400, &json!("invalid_grant")));
    let token = &told["access_token"];
    let (status, _) = ask_as(&fake, token, "scope", json!({})).await;
    assert_eq!(status, 200);
    fake.expire_access_tokens();
    let (status, expired) = ask_as(&fake, token, "scope", json!({})).await;
    let recorded = cassette("expired_token");
    assert_eq!((status, expired), (recorded.status, recorded.body));
    let (status, unknown) = ask_as(&fake, &json!("x"), "scope", json!({})).await;
    assert_eq!((status, &unknown["error"]), (401, &json!("NO_AUTH_FOUND")));
}

#[tokio::test]
async fn the_fakes_queue_reserves_lists_and_clears() {
    let (fake, _) = fast_portal(contacts(1)).await;
    let (_, told) = exchange(&fake, &fake.authorise(), CLIENT_SECRET).await;
    let token = &told["access_token"];
    let happened = |id, what| {
        fake.happened(&Happened {
            list: List::Contacts,
            id,
            what,
        });
    };
    happened(1, What::Added);
    assert_eq!(fake.queue(), [""; 0], "nothing is bound");
    for event in ["OnCrmContactAdd", "ONCRMCONTACTUPDATE"] {
        let bind = json!({"event": event, "event_type": "offline"});
        let (_, bound) = ask_as(&fake, token, "event.bind", bind.clone()).await;
        assert_eq!(bound["result"], json!(true));
        let (status, again) = ask_as(&fake, token, "event.bind", bind).await;
        assert_eq!((status, &again["error"]), (400, &json!("ERROR_CORE")));
    }
    let unknown = json!({"event": "ONNOTHING", "event_type": "offline"});
    let (_, unknown) = ask_as(&fake, token, "event.bind", unknown).await;
    assert_eq!(unknown["error"], "ERROR_EVENT_NOT_FOUND");
    // One record for each card, its last state.
    happened(1, What::Added);
    happened(2, What::Added);
    happened(1, What::Changed);
    happened(3, What::Deleted);
    assert_eq!(fake.queue(), ["ONCRMCONTACTADD 2", "ONCRMCONTACTUPDATE 1"]);
    let reserve = json!({"clear": 0, "limit": 1});
    let (_, one) = ask_as(&fake, token, "event.offline.get", reserve.clone()).await;
    let (_, two) = ask_as(&fake, token, "event.offline.get", reserve.clone()).await;
    let (_, none) = ask_as(&fake, token, "event.offline.get", reserve).await;
    assert_eq!(
        one["result"]["events"][0]["EVENT_DATA"]["FIELDS"]["ID"],
        "2"
    );
    assert_eq!(
        two["result"]["events"][0]["EVENT_DATA"]["FIELDS"]["ID"],
        "1"
    );
    assert_eq!(none["result"]["events"], json!([]));
    let recorded = cassette("event_offline_get").body;
    assert_eq!(
        keys(&one["result"]["events"][0]),
        keys(&recorded["result"]["events"][0])
    );
    // A card that changes again while it is reserved has a further record.
    happened(1, What::Changed);
    let (_, listed) = ask_as(&fake, token, "event.offline.list", json!({})).await;
    assert_eq!(listed["total"], 3);
    let filter = json!({"filter": {">PROCESS_ID": ""}});
    let (_, reserved) = ask_as(&fake, token, "event.offline.list", filter).await;
    assert_eq!(reserved["total"], 2);
    let process = &one["result"]["process_id"];
    assert_eq!(&reserved["result"][0]["PROCESS_ID"], process);
    let clear = json!({"process_id": process});
    ask_as(&fake, token, "event.offline.clear", clear).await;
    assert_eq!(fake.queue(), ["ONCRMCONTACTUPDATE 1"; 2]);
    let (_, rest) = ask_as(&fake, token, "event.offline.get", json!({})).await;
    assert_eq!(rest["result"]["process_id"], Value::Null);
    assert_eq!(fake.queue(), ["ONCRMCONTACTUPDATE 1"]);
}
