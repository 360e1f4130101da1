//! Webhooks that an account has switched off, and what is sent while it blocks us.

use std::time::Duration;

use pryamo::crm::{Hook, Level};
use pryamo::record::EntityKind;

use super::notices::pass;
use super::{CALLER, account, asked, changes, find, told, walk, world};
use crate::fake_amocrm::{FakeAmocrm, Mood, Options};

// Webhooks.

#[tokio::test]
async fn webhooks_are_looked_at_once_an_hour() {
    let (fake, crm) = account(1, Options::default());
    fake.subscribe("https://pbx.example/hooks/retail/s3cret");
    for (minutes, looks) in [(0, 1), (1, 1), (60, 2), (10, 2), (51, 3)] {
        pass(Duration::from_mins(minutes)).await;
        crm.news(None).await.unwrap();
        assert_eq!(asked(&fake, "/webhooks"), looks);
        assert_eq!(asked(&fake, "/account"), looks);
    }
}

#[tokio::test]
async fn check_tells_of_a_webhook_that_is_off() {
    let (fake, crm) = account(1, Options::default());
    let told = async || {
        let findings = crm.check().await;
        findings
            .into_iter()
            .find(|finding| finding.text.contains("pbx.example"))
    };
    assert_eq!(told().await, None);
    fake.subscribe("https://pbx.example/hooks/wholesale/s3cret");
    assert_eq!(told().await, None);
    fake.subscribe("https://pbx.example/hooks/retail/s3cret");
    assert_eq!(told().await.unwrap().level, Level::Good);
    fake.switch_webhooks(false);
    let finding = told().await.unwrap();
    assert_eq!(finding.level, Level::Fault);
    assert!(finding.mend.contains("switch it on again"));
    assert!(!format!("{finding:?}").contains("s3cret"));
    fake.switch_webhooks(true);
    assert_eq!(told().await.unwrap().level, Level::Good);
}

#[tokio::test]
async fn the_made_up_accounts_webhooks_are_an_administrators() {
    for (admin, statuses) in [(true, [201, 201, 200, 204, 404]), (false, [403; 5])] {
        let options = Options {
            admin,
            ..Options::default()
        };
        let fake = FakeAmocrm::start(world(1), options);
        let http = pryamo::crm::http_client(None).unwrap();
        let url = format!("{}/api/v4/webhooks", fake.url());
        let body = r#"{"destination": "https://pbx.example/x", "settings": ["add_contact"]}"#;
        let requests = [
            http.post(&url).body(body),
            http.post(&url).body(body),
            http.get(&url)
                .query(&[("filter[destination]", "https://pbx.example/x")]),
            http.delete(&url).body(body),
            http.delete(&url).body(body),
        ];
        for (request, expected) in requests.into_iter().zip(statuses) {
            let answer = request.bearer_auth(fake.token()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), expected);
        }
    }
}

// A block.

#[tokio::test]
async fn while_blocked_one_request_in_ten_minutes_is_sent_whoever_asks() {
    let (fake, crm) = account(9, Options::default());
    let (_, cursor) = (crm.employees().await, crm.news(None).await.unwrap().cursor);
    fake.set_mood(Mood::Blocked);
    let everybody = async || {
        let ids = [3_u64.into()];
        let hook = Hook {
            content_type: "",
            body: b"leads[add][0][id]=1",
        };
        let outcomes = tokio::join!(
            walk(&*crm, EntityKind::Contact),
            changes(&*crm, 0),
            crm.read(EntityKind::Contact, &ids),
            crm.news(cursor.clone()),
            find(&*crm, CALLER),
            crm.employees(),
        );
        let errors = [
            outcomes.0.unwrap_err(),
            outcomes.1.unwrap_err(),
            outcomes.2.unwrap_err(),
            outcomes.3.unwrap_err(),
            outcomes.4.unwrap_err(),
            outcomes.5.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.label(), "blocked");
            let text = told(&error);
            for part in ["support", "address", "subdomain"] {
                assert!(text.contains(part), "{text}");
            }
        }
        assert_eq!(crm.receive(hook).await.unwrap().len(), 1);
        assert!(
            crm.check()
                .await
                .iter()
                .any(|it| it.mend.contains("support"))
        );
    };
    // Those that were under way together are refused together.
    assert_eq!(find(&*crm, CALLER).await.unwrap_err().label(), "blocked");
    let before = fake.requests();
    everybody().await;
    assert_eq!(fake.requests(), before);
    for minutes in [9, 11, 10] {
        pass(Duration::from_mins(minutes)).await;
        let before = fake.requests();
        everybody().await;
        everybody().await;
        assert_eq!(fake.requests() - before, usize::from(minutes > 9));
    }
    fake.set_mood(Mood::Fine);
    pass(Duration::from_mins(11)).await;
    changes(&*crm, 0).await.unwrap();
    assert!(!find(&*crm, CALLER).await.unwrap().is_empty());
}
