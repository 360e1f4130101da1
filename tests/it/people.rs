//! What the CRM knows of people, through a daemon: heads stand in for the dismissed, and an
//! administrator sees who is away.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{TimeZone, offset};
use serde_json::Value;

use crate::daemon::{Daemon, Site};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::world::{Appointment, Department, User, World, call_of};

/// An office whose first employee is dismissed, in a department with a head of its own below one
/// with the third as its head.
fn office() -> World {
    let mut world = World::office(1);
    world.users[0].active = false;
    world.users[0].departments = vec![7];
    world.users[1].departments = vec![7];
    world.users.push(User {
        id: 3,
        first_name: "Вера".to_owned(),
        active: true,
        extension: Some("103".to_owned()),
        email: "3@example.com".to_owned(),
        departments: vec![5],
        ..User::default()
    });
    let department = |id, name: &str, parent, head| Department {
        id,
        name: name.to_owned(),
        parent,
        head,
    };
    world.departments = vec![
        department(5, "Компания", None, Some(3)),
        department(7, "Продажи", Some(5), None),
    ];
    world
}

fn employees(daemon: &Daemon, site: &Site) -> Vec<Value> {
    let token = std::fs::read_to_string(site.path("data").join("control.token")).unwrap();
    let request = format!(
        "GET /api/v1/employees HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    serde_json::from_str(&daemon.raw(request.as_bytes()).body).unwrap()
}

fn today() -> (i64, Date) {
    let now = pryamo::serve::clock()();
    let date = now.to_zoned(TimeZone::fixed(offset(3))).date();
    (now.as_second(), date)
}

fn midnight(date: Date) -> DateTime {
    date.to_datetime(Time::midnight())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_stands_in_for_the_dismissed_and_who_is_away_is_shown() {
    let (now, today) = today();
    let mut world = office();
    world.users[1].calendar = vec![Appointment {
        name: "Отпуск".to_owned(),
        from: midnight(today.yesterday().unwrap()),
        // Far from any midnight.
        to: midnight(today.tomorrow().unwrap()),
        whole_days: true,
        means: "absent",
    }];
    world.users[1].workday = Some("PAUSED");
    world.users[2].workday = Some("OPENED");
    let options = Options {
        clock_start: now,
        scopes: vec!["crm", "user_basic", "department", "calendar", "timeman"],
        ..Options::default()
    };
    let fake = FakeBitrix24::start(world.shared(), options).await;
    let table = format!(
        "[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nurl = \"{}\"\nworkday = true\n\
         [crm.employees]\n3 = {{ deputy = \"2@example.com\", hours = \"24/7\" }}\n",
        fake.url()
    );
    let site = Site::new(&table);
    let daemon = Daemon::start(&site);
    let route = daemon.get(&format!("/api/v1/route?{}", call_of(1))).json();
    assert_eq!(
        (&route["number"], &route["reason"]),
        (&"103".into(), &"head".into())
    );

    let listed = employees(&daemon, &site);
    let one = |id: &str| listed.iter().find(|it| it["id"] == id).unwrap();
    let (second, vera) = (one("2"), one("3"));
    assert_eq!(second["away"]["what"], "Отпуск");
    assert_eq!(second["absences"].as_array().unwrap().len(), 1);
    assert_eq!(second["workday"], "paused");
    assert_eq!(second["in_departments"][0]["name"], "Продажи");
    assert_eq!(second["in_departments"][0]["is_head"], false);
    assert_eq!(
        (&vera["away"], &vera["workday"]),
        (&Value::Null, &"open".into())
    );
    assert_eq!(vera["in_departments"][0]["is_head"], true);
    assert_eq!(vera["deputy_employee"]["id"], "2");

    let printed = site.run(&["employees"]).out;
    let line = |id: &str| {
        printed
            .lines()
            .find(|line| line.contains(id))
            .unwrap()
            .to_owned()
    };
    assert!(line("101").contains("dismissed"), "{printed}");
    let second = line("102");
    let notes = ["away until", "(Отпуск)", "on a break", "in Продажи"];
    assert!(notes.iter().all(|note| second.contains(note)), "{second}");
    let vera = line("103");
    let notes = ["works 24/7", "deputy Сотрудник 2", "head of Компания"];
    assert!(notes.iter().all(|note| vera.contains(note)), "{vera}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_a_head_gets_one_from_the_configuration() {
    let fake = FakeAmocrm::start(office().shared(), fake_amocrm::Options::default());
    let table = format!(
        "[[crm]]\nname = \"retail\"\nkind = \"amocrm\"\n{}[crm.employees]\n\
         1 = {{ extension = \"101\" }}\n2 = {{ extension = \"102\" }}\n3 = {{ extension = \"103\" }}\n\
         [crm.departments]\n\"продажи\" = {{ head = \"2@example.com\" }}\n",
        fake.table()
    );
    let site = Site::new(&table);
    let daemon = Daemon::start(&site);
    let route = daemon.get(&format!("/api/v1/route?{}", call_of(1))).json();
    assert_eq!(
        (&route["number"], &route["reason"]),
        (&"102".into(), &"head".into())
    );
    let listed = employees(&daemon, &site);
    let second = listed.iter().find(|it| it["id"] == "2").unwrap();
    assert_eq!(second["in_departments"][0]["is_head"], true);
    assert!(
        daemon
            .rings(&call_of(1))
            .is_some_and(|number| number == "102")
    );
}
