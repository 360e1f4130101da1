//! The application's pair of tokens: renewed by one, kept through every death, refused once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pryamo::crm::{Crm, CrmError};
use serde_json::{Value, json};

use super::events::{play, recorded_application, recorded_portal};
use super::{CLIENT_SECRET, application, connect_in, contacts, hook, phone, portal_with, printed};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options, Rotation};

async fn portal(options: Options) -> FakeBitrix24 {
    portal_with(&contacts(3).shared(), options).await
}

/// A connector that does everything as the application.
fn connector(fake: &FakeBitrix24, folder: &Path) -> Arc<dyn Crm> {
    connect_in(folder, &fake.address(), &application(fake))
}

async fn installed(fake: &FakeBitrix24, folder: &Path) -> Arc<dyn Crm> {
    let crm = connector(fake, folder);
    crm.receive(hook(&fake.install_form())).await.unwrap();
    crm
}

async fn works(crm: &dyn Crm) -> Result<(), CrmError> {
    crm.employees().await.map(drop)
}

fn stored(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("tokens.json")).unwrap()).unwrap()
}

/// How many exchanges were asked for, answered or not.
fn asked(fake: &FakeBitrix24) -> usize {
    let requests = fake.requests();
    let is_exchange = |request: &&_| -> bool {
        let request: &crate::fake_bitrix24::Request = request;
        request.method == "oauth/token"
    };
    requests.iter().filter(is_exchange).count()
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_token_from_elsewhere_begins_and_is_renewed_when_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let settings = format!(
        "{}\nrefresh_token = '{}'",
        application(&fake),
        fake.authorise()
    );
    let crm = connect_in(folder.path(), &fake.address(), &settings);
    works(&*crm).await.unwrap();
    fake.expire_access_tokens();
    works(&*crm).await.unwrap();
    assert_eq!(fake.exchanges(), 2);
    // The configured token is spent by now; the stored pair descends from it.
    works(&*connect_in(folder.path(), &fake.address(), &settings))
        .await
        .unwrap();
    assert_eq!(fake.exchanges(), 2);
    let statuses: Vec<u16> = fake.requests().iter().map(|r| r.status).collect();
    // An exchange, then users, departments and calendars; the same with an old token first.
    let expected = [200, 200, 200, 200, 401, 200, 200, 200, 200, 200, 200, 200];
    assert_eq!(statuses, expected);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(folder.path().join("tokens.json"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        access_life_seconds: 30.0,
        ..Options::default()
    };
    let fake = portal(options).await;
    let crm = installed(&fake, folder.path()).await;
    // The first answer tells the portal's clock; then the end is seen to be near.
    works(&*crm).await.unwrap();
    works(&*crm).await.unwrap();
    assert_eq!(fake.exchanges(), 1);
    assert!(fake.requests().iter().all(|request| request.status == 200));
}

#[tokio::test]
async fn refusals_at_once_lead_to_one_renewal() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let one = installed(&fake, folder.path()).await;
    // The second stands for another process: it shares the folder and nothing else.
    let two = connector(&fake, folder.path());
    works(&*two).await.unwrap();
    for round in 1..=3 {
        fake.expire_access_tokens();
        let (a, b, c, d) = tokio::join!(works(&*one), works(&*one), works(&*two), works(&*two));
        a.and(b).and(c).and(d).unwrap();
        assert_eq!(fake.exchanges(), round);
    }
}

#[tokio::test]
async fn a_pair_outlives_the_processs_death_at_every_step() {
    for rotation in [Rotation::Strict, Rotation::Lenient] {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            rotation,
            ..Options::default()
        };
        let fake = portal(options).await;
        drop(installed(&fake, folder.path()).await);

        // Before the mark.
        fake.expire_access_tokens();
        works(&*connector(&fake, folder.path())).await.unwrap();
        assert_eq!(fake.exchanges(), 1);

        // Behind the mark, and the request was never sent.
        let mut marked = stored(folder.path());
        assert_eq!(marked["pending"], false);
        marked["pending"] = json!(true);
        std::fs::write(folder.path().join("tokens.json"), marked.to_string()).unwrap();
        fake.expire_access_tokens();
        works(&*connector(&fake, folder.path())).await.unwrap();
        assert_eq!(fake.exchanges(), 2);
        assert_eq!(stored(folder.path())["pending"], false);

        // The new pair was saved: it is used as it is.
        works(&*connector(&fake, folder.path())).await.unwrap();
        assert_eq!(fake.exchanges(), 2);

        // The request was processed, and the answer lost.
        fake.expire_access_tokens();
        fake.set_mood(Mood::LoseTokenAnswer);
        let crm = connector(&fake, folder.path());
        let found = crm.find(phone(79_000_000_003)).await;
        assert!(found.is_err());
        assert_eq!(stored(folder.path())["pending"], true);
        drop(crm);
        let after = works(&*connector(&fake, folder.path())).await;
        if rotation == Rotation::Lenient {
            after.unwrap();
            continue;
        }
        let error = after.unwrap_err().to_string();
        assert!(error.contains("was lost"), "{error}");
        assert!(error.contains("install the application again"), "{error}");
        // Installed again, all is well.
        works(&*installed(&fake, folder.path()).await)
            .await
            .unwrap();
        works(&*connector(&fake, folder.path())).await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_cut_a_renewal_short() {
    let folder = tempfile::tempdir().unwrap();
    let fake = portal(Options::default()).await;
    let crm = installed(&fake, folder.path()).await;
    works(&*crm).await.unwrap();
    fake.expire_access_tokens();
    fake.set_mood(Mood::Slow(50));
    tokio::select! {
        _ = crm.find(phone(79_000_000_003)) => panic!("the slow portal was fast"),
        () = until(|| stored(folder.path())["pending"] == true) => {}
    }
    until(|| stored(folder.path())["pending"] == false).await;
    fake.set_mood(Mood::Well);
    works(&*crm).await.unwrap();
    assert_eq!((fake.exchanges(), asked(&fake)), (1, 1));
}

#[tokio::test]
async fn a_refused_renewal_is_told_with_what_to_do_and_not_repeated() {
    let table = [
        ("invalid_grant", "install the application again"),
        ("INVALID_GRANT", "install the application again"),
        ("invalid_client", "`crm.client_secret`"),
        ("wrong_client", "`crm.client_secret`"),
        ("PAYMENT_REQUIRED", "pay for it"),
    ];
    for (code, mend) in table {
        let folder = tempfile::tempdir().unwrap();
        let fake = portal(Options::default()).await;
        let crm = installed(&fake, folder.path()).await;
        works(&*crm).await.unwrap();
        fake.expire_access_tokens();
        fake.set_mood(Mood::TokenRefused(code));
        let secrets = ["access-", "refresh-", CLIENT_SECRET];
        for _ in 0..3 {
            let error = works(&*crm).await.unwrap_err();
            assert_eq!(error.label(), "unauthorized", "{code}");
            let text = printed(&error);
            assert!(text.contains(mend), "{code}: {text}");
            assert!(
                secrets.iter().all(|secret| !text.contains(secret)),
                "{text}"
            );
        }
        assert_eq!(asked(&fake), 1, "{code}");
        // The old token is asked with once, and never again.
        let requests = fake.requests().len();
        assert!(crm.news(None).await.is_err());
        assert_eq!(fake.requests().len(), requests, "{code}");
        // A new installation is another token.
        fake.set_mood(Mood::Well);
        crm.receive(hook(&fake.install_form())).await.unwrap();
        works(&*crm).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_server_that_is_ill_for_a_moment_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        rotation: Rotation::Lenient,
        ..Options::default()
    };
    let fake = portal(options).await;
    let crm = installed(&fake, folder.path()).await;
    works(&*crm).await.unwrap();
    fake.expire_access_tokens();
    // A background request tries again.
    fake.set_mood(Mood::TokenHtml502);
    works(&*crm).await.unwrap();
    assert_eq!(asked(&fake), 2);
    assert_eq!(fake.exchanges(), 1);
}

#[tokio::test]
async fn recorded_answers_of_the_token_server_are_read() {
    let folder = tempfile::tempdir().unwrap();
    // The first answer names no server of the vendor's, or the second exchange would go there.
    let mut first = play("oauth_refresh_rotated");
    first.1["access_token"] = json!("a1example");
    first.1["server_endpoint"] = json!("http://127.0.0.1/rest/");
    let url = recorded_portal(&[
        ("oauth/token", vec![first, play("oauth_refresh_rotated")]),
        ("user.get", vec![play("expired_token"), play("user_get")]),
        ("department.get", vec![play("department_get")]),
        ("batch", vec![play("batch_calendar")]),
    ])
    .await;
    let crm = connect_in(folder.path(), &url, &recorded_application(&url));
    assert!(!crm.employees().await.unwrap().employees.is_empty());
    let kept = stored(folder.path());
    assert_eq!(kept["pair"]["refresh"], "r2example");
    assert_eq!(kept["notes"]["member_id"], "m1example");

    let folder = tempfile::tempdir().unwrap();
    let url = recorded_portal(&[("oauth/token", vec![play("oauth_refresh_wrong_client")])]).await;
    let crm = connect_in(folder.path(), &url, &recorded_application(&url));
    let error = crm.employees().await.unwrap_err().to_string();
    assert!(error.contains("WRONG_CLIENT"), "{error}");
    assert!(error.contains("`crm.client_secret`"), "{error}");
}
