//! What an administrator sets for an employee, through a daemon: the next call finds it, and so does
//! the daemon after a restart.

use serde_json::{Value, json};

use crate::daemon::{Answer, Daemon, Site};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::world::{World, call_of};

fn asked(site: &Site, daemon: &Daemon, method: &str, target: &str, body: &str) -> Answer {
    let token = std::fs::read_to_string(site.path("data").join("control.token")).unwrap();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    daemon.raw(request.as_bytes())
}

fn set(site: &Site, daemon: &Daemon, who: &str, row: &Value) -> Answer {
    let target = format!("/api/v1/employees/{who}");
    asked(site, daemon, "PUT", &target, &row.to_string())
}

fn listed(site: &Site, daemon: &Daemon, id: &str) -> Value {
    let all = asked(site, daemon, "GET", "/api/v1/employees", "").json();
    let all = all.as_array().unwrap().iter();
    all.clone().find(|one| one["id"] == id).unwrap().clone()
}

/// amoCRM has no field for an extension: nobody can be rung until somebody sets one.
fn office() -> (FakeAmocrm, Site) {
    let fake = FakeAmocrm::start(World::office(1).shared(), fake_amocrm::Options::default());
    let table = format!(
        "[[crm]]\nname = \"retail\"\nkind = \"amocrm\"\n{}[crm.employees]\n\
         2 = {{ extension = \"102\" }}\n",
        fake.table()
    );
    let site = Site::new(&table);
    (fake, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_set_by_the_api_is_rung_at_once_and_after_a_restart() {
    let (fake, site) = office();
    let mut daemon = Daemon::start(&site);
    assert_eq!(daemon.rings(&call_of(1)).as_deref(), Some(""));

    let answer = set(
        &site,
        &daemon,
        "retail/1",
        &json!({"extension": 101, "mobile": ""}),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["extension"], "101");
    assert_eq!(daemon.rings(&call_of(1)).as_deref(), Some("101"));
    let first = listed(&site, &daemon, "1");
    assert_eq!(first["origins"]["extension"], "page");
    assert_eq!(first["own_row"]["extension"], "101");

    daemon.stop();
    let mut daemon = Daemon::start(&site);
    assert_eq!(daemon.rings(&call_of(1)).as_deref(), Some("101"));

    let exported = site.run(&["employees", "--export"]);
    assert_eq!(exported.code, 0, "{}", exported.err);
    assert!(exported.out.contains("\"retail\""), "{}", exported.out);
    // A further table of this CRM's employees would be one too many: only its lines are pasted.
    let lines = exported.out.split("[crm.employees]\n").nth(1).unwrap();
    let removed = set(&site, &daemon, "retail/1%40example.com", &json!({}));
    assert_eq!(removed.status, 200, "{}", removed.body);
    assert_eq!(daemon.rings(&call_of(1)).as_deref(), Some(""));
    assert_eq!(listed(&site, &daemon, "1")["own_row"], Value::Null);

    daemon.stop();
    let table = format!(
        "[[crm]]\nname = \"retail\"\nkind = \"amocrm\"\n{}[crm.employees]\n{lines}",
        fake.table()
    );
    site.configure(&table);
    let daemon = Daemon::start(&site);
    assert_eq!(daemon.rings(&call_of(1)).as_deref(), Some("101"));
    assert_eq!(
        listed(&site, &daemon, "1")["origins"]["extension"],
        "config"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_is_refused_with_its_reason() {
    let (_fake, site) = office();
    let daemon = Daemon::start(&site);
    for (who, row, status, says) in [
        (
            "retail/1",
            json!({"extension": "+79161234567"}),
            422,
            "extension_pattern",
        ),
        (
            "retail/1",
            json!({"deputy": "nobody"}),
            422,
            "`nobody` is nobody in retail",
        ),
        ("retail/1", json!({"extention": "101"}), 400, "extention"),
        ("retail/1", json!("101"), 400, "101"),
        (
            "retail/99",
            json!({"extension": "101"}),
            404,
            "no employee 99",
        ),
        (
            "sales/1",
            json!({"extension": "101"}),
            404,
            "no [[crm]] is named `sales`",
        ),
    ] {
        let answer = set(&site, &daemon, who, &row);
        assert_eq!(answer.status, status, "{who} {row}: {}", answer.body);
        let text = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(text.contains(says), "{who} {row}: {text}");
    }
    let stranger = daemon.raw(
        b"PUT /api/v1/employees/retail/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    );
    assert_eq!(stranger.status, 401);
    assert_eq!(daemon.rings(&call_of(1)).as_deref(), Some(""));
    // The configuration's word counts; the page's is kept beside it.
    let answer = set(
        &site,
        &daemon,
        "retail/2",
        &json!({"extension": "202", "hours": "24/7"}),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let second = listed(&site, &daemon, "2");
    assert_eq!(second["extension"], "102");
    assert_eq!(
        (&second["origins"]["extension"], &second["origins"]["hours"]),
        (&json!("config"), &json!("page"))
    );
    assert_eq!(second["own_row"]["extension"], "202");
}
