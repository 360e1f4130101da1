//! What a portal tells of people besides their extensions: departments, absences, the working day;
//! and more fields of cards.

use futures::future::join_all;
use jiff::civil::{DateTime, datetime};
use pryamo::crm::{Crm, CrmError, Finding, Level, Since};
use pryamo::record::{Employee, EntityKind, Staff, Workday};
use serde_json::json;

use super::recorded::replay_with;
use super::{at_speed, connect, connect_for, contacts, drain, phone, user};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::world::{Appointment, Department, SharedWorld, User, World};

const ALL_SCOPES: [&str; 5] = ["crm", "user_basic", "department", "calendar", "timeman"];

/// A portal that is no bottleneck, with these scopes.
async fn portal(world: &SharedWorld, scopes: &[&'static str]) -> FakeBitrix24 {
    let options = Options {
        speed: 100.0,
        scopes: scopes.to_vec(),
        ..Options::default()
    };
    FakeBitrix24::start(SharedWorld::clone(world), options).await
}

fn fast(fake: &FakeBitrix24, settings: &str) -> std::sync::Arc<dyn Crm> {
    connect(&fake.url(), &format!("{settings}\n{}", at_speed(100.0)))
}

/// Departments below each other, every fourth with a head.
fn deep(count: u64) -> SharedWorld {
    let department = |id: u64| Department {
        id,
        name: format!("Отдел {id}"),
        parent: (id > 1).then_some(id / 2),
        head: id.is_multiple_of(4).then_some(1),
    };
    let world = World {
        departments: (1..=count).map(department).collect(),
        ..contacts(1)
    };
    world.shared()
}

fn shown(staff: &Staff) -> Vec<String> {
    let line = |it: &pryamo::record::Department| {
        let head = it.head.as_ref().map_or("-", |head| head.as_str());
        let parent = it.parent.as_deref().unwrap_or("-");
        format!("{} {} {parent} {head}", it.id, it.name)
    };
    staff.departments.iter().map(line).collect()
}

fn to_mend(findings: &[Finding]) -> Vec<String> {
    // The made-up portal knows no encryption.
    let bad = findings
        .iter()
        .filter(|it| it.level != Level::Good && !it.text.contains("http://"));
    bad.map(|it| format!("{:?} {}; {}", it.level, it.text, it.mend))
        .collect()
}

#[tokio::test]
async fn departments_come_from_all_pages_with_parents_and_heads() {
    let fake = portal(&deep(120), &ALL_SCOPES).await;
    let staff = fast(&fake, "").employees().await.unwrap();
    let told = shown(&staff);
    assert_eq!(told.len(), 120);
    assert_eq!(
        told[..4],
        [
            "1 Отдел 1 - -",
            "2 Отдел 2 1 -",
            "3 Отдел 3 1 -",
            "4 Отдел 4 2 1"
        ]
    );
    assert_eq!(told[119], "120 Отдел 120 60 1");
    assert_eq!(fake.violations(), [""; 0]);
}

#[tokio::test]
async fn a_missing_right_leaves_its_part_out_and_check_says_which_to_tick() {
    let world = deep(3);
    world.write().unwrap().users[0].workday = Some("OPENED");
    let fake = portal(&world, &["crm", "user_basic"]).await;
    let crm = fast(&fake, "absences = true\nworkday = true");
    let staff = crm.employees().await.unwrap();
    assert_eq!((staff.employees.len(), staff.departments.len()), (3, 0));
    assert!(
        staff
            .employees
            .iter()
            .all(|it| it.workday.is_none() && it.absences.is_empty())
    );
    let found = to_mend(&crm.check().await);
    for (finding, scope) in found.iter().zip(["`calendar`", "`timeman`"]) {
        let mends = finding.contains("tick the right") && finding.contains("`crm.url`");
        assert!(
            finding.starts_with("Warning") && finding.contains(scope) && mends,
            "{finding}"
        );
    }
    assert_eq!(found.len(), 2, "{found:?}");
    // Heads are a comfort: nothing is broken without them.
    let told = crm.check().await;
    assert!(
        told.iter()
            .any(|finding| finding.text.contains("no right `department`"))
    );

    let fake = portal(&world, &ALL_SCOPES).await;
    let crm = fast(&fake, "absences = true\nworkday = true");
    assert_eq!(to_mend(&crm.check().await), [""; 0]);
    fake.set_mood(Mood::ScopeMissing("department"));
    assert!(crm.employees().await.unwrap().departments.is_empty());
    fake.set_mood(Mood::Well);
    assert_eq!(crm.employees().await.unwrap().departments.len(), 3);
}

/// Repeats take seconds, so both are tried at the same time.
#[tokio::test]
async fn a_passing_fault_of_a_part_wipes_nothing() {
    let known = async |ill: &'static str| {
        let world = deep(3);
        let today = datetime(2026, 11, 22, 0, 0, 0, 0);
        world.write().unwrap().users[0].calendar = vec![away(today, today, true)];
        let fake = portal(&world, &ALL_SCOPES).await;
        let crm = fast(&fake, "");
        let first = crm.employees().await.unwrap();
        assert_eq!(first.employees[0].absences.len(), 1);
        fake.set_mood(Mood::Fails(ill));
        assert_eq!(crm.employees().await.unwrap(), first, "{ill}");
        // Of what the mirror has, a new daemon knows nothing: the reading had better fail.
        let restarted = fast(&fake, "");
        let error = restarted.employees().await.unwrap_err();
        assert!(error.to_string().contains(ill), "{error}");
        fake.set_mood(Mood::Well);
        assert_eq!(restarted.employees().await.unwrap(), first);
    };
    tokio::join!(known("department.get"), known("calendar.accessibility.get"));
}

fn away(from: DateTime, to: DateTime, whole_days: bool) -> Appointment {
    Appointment {
        name: "Отпуск".to_owned(),
        from,
        to,
        whole_days,
        means: "absent",
    }
}

fn spans(employee: &Employee) -> Vec<String> {
    let absences = employee.absences.iter();
    absences
        .map(|it| format!("{}..{} {}", it.from, it.until, it.what))
        .collect()
}

/// The portal's clock shows 15:00 on 22 November, three hours before Greenwich.
#[tokio::test]
async fn absences_are_those_of_the_next_days_by_the_portals_clock() {
    let at = |day, hour| datetime(2026, 11, day, hour, 0, 0, 0);
    let mut world = contacts(1);
    world.users[0].calendar = vec![
        away(at(25, 0), at(30, 0), true),
        away(at(23, 0), at(24, 0), true),
        away(at(22, 16), at(22, 18), false),
        away(at(20, 0), at(21, 0), true),
        Appointment {
            means: "busy",
            ..away(at(22, 10), at(22, 11), false)
        },
    ];
    // Dismissed: nobody asks for her.
    world.users[1].calendar = vec![away(at(22, 0), at(22, 0), true)];
    let fake = portal(&world.shared(), &ALL_SCOPES).await;
    let timed = "2026-11-22T13:00:00Z..2026-11-22T15:00:00Z Отпуск";
    let whole = "2026-11-22T21:00:00Z..2026-11-24T21:00:00Z Отпуск";
    let staff = fast(&fake, "").employees().await.unwrap();
    assert_eq!(spans(&staff.employees[0]), [timed, whole]);
    assert!(staff.employees[1..].iter().all(|it| it.absences.is_empty()));
    let busy = "2026-11-22T07:00:00Z..2026-11-22T08:00:00Z Отпуск";
    let crm = fast(&fake, "absent_when = ['absent', 'busy']");
    let staff = crm.employees().await.unwrap();
    assert_eq!(spans(&staff.employees[0]), [busy, timed, whole]);

    let before = fake.requests().len();
    let staff = fast(&fake, "absences = false").employees().await.unwrap();
    assert!(staff.employees[0].absences.is_empty());
    assert_eq!(
        fake.requests().len(),
        before + 2,
        "calendars were asked for"
    );
    assert_eq!(fake.violations(), [""; 0]);
}

#[tokio::test]
async fn calendars_of_many_are_one_request() {
    let today = datetime(2026, 11, 22, 0, 0, 0, 0);
    let busy = |id| User {
        active: true,
        calendar: vec![away(today, today, true)],
        ..user(id)
    };
    let world = World {
        users: (1..=450).map(busy).collect(),
        ..World::default()
    };
    let fake = portal(&world.shared(), &ALL_SCOPES).await;
    let staff = fast(&fake, "").employees().await.unwrap();
    assert!(staff.employees.iter().all(|it| it.absences.len() == 1));
    let batches: Vec<usize> = fake
        .requests()
        .iter()
        .filter(|it| it.method == "batch")
        .map(|it| it.commands.len())
        .collect();
    assert_eq!(batches, [5]);
}

/// Whoever may be rung: everybody active with an extension.
fn with_clocks(count: u64) -> SharedWorld {
    let clocked = |id: u64| User {
        active: true,
        extension: Some((100 + id).to_string()),
        workday: Some(["OPENED", "PAUSED", "CLOSED", "EXPIRED"][usize::try_from(id % 4).unwrap()]),
        ..user(id)
    };
    let world = World {
        users: (1..=count).map(clocked).collect(),
        ..World::default()
    };
    world.shared()
}

#[tokio::test]
async fn working_days_are_read_where_asked_for_of_those_who_may_be_rung() {
    let world = with_clocks(60);
    {
        let mut world = world.write().unwrap();
        world.users[0].extension = None;
        world.users[1].active = false;
    }
    let fake = portal(&world, &ALL_SCOPES).await;
    let staff = fast(&fake, "").employees().await.unwrap();
    assert!(staff.employees.iter().all(|it| it.workday.is_none()));
    let staff = fast(&fake, "workday = true").employees().await.unwrap();
    let told: Vec<Option<Workday>> = staff.employees.iter().map(|it| it.workday).collect();
    assert_eq!(told[..2], [None, None]);
    let (open, paused, closed) = (Workday::Open, Workday::Paused, Workday::Closed);
    let expected = [closed, open, paused, closed].map(Some);
    assert_eq!(told[2..6], expected);
    assert!(told[2..].iter().all(Option::is_some));
    let requests = fake.requests();
    let clocks = requests
        .iter()
        .filter(|it| it.commands.concat().contains("timeman.status"));
    let sizes: Vec<usize> = clocks.map(|it| it.commands.len()).collect();
    assert_eq!(sizes, [25, 25, 8]);
    assert_eq!(fake.violations(), [""; 0]);
}

#[tokio::test]
async fn the_clocks_never_spend_more_of_the_portals_time_than_allowed() {
    let options = Options {
        speed: 100.0,
        scopes: ALL_SCOPES.to_vec(),
        clock_ms: 330.0,
        // A third of a second each: enough for 30.
        operating_seconds: 10.0,
        ..Options::default()
    };
    let fake = FakeBitrix24::start(with_clocks(60), options).await;
    let limits = "limits = { requests_per_second = 200.0, operating_seconds = 0.1 }";
    let crm = connect(&fake.url(), &format!("workday = true\n{limits}"));
    for _ in 0..2 {
        let staff = crm.employees().await.unwrap();
        assert_eq!(staff.employees.len(), 60);
        let known = staff.employees.iter().filter(|it| it.workday.is_some());
        assert!(known.count() <= 30);
    }
    assert_eq!(fake.violations(), [""; 0]);
}

#[tokio::test]
async fn recorded_departments_absences_and_clocks_are_read() {
    let names = [
        "user_get",
        "department_get",
        "batch_calendar",
        "batch_timeman",
    ];
    let staff = replay_with(&names, "workday = true")
        .await
        .employees()
        .await
        .unwrap();
    let expected = [
        "1 Head office - -",
        "3 Sales 1 18",
        "4 Storage 3 -",
        "5  1 -",
    ];
    assert_eq!(shown(&staff), expected);
    let [anna, _, vera, gleb] = &staff.employees[..] else {
        panic!("{staff:?}");
    };
    assert_eq!(
        spans(anna),
        ["2026-11-22T21:00:00Z..2026-11-24T21:00:00Z Отпуск"]
    );
    assert_eq!(spans(gleb), ["2026-11-22T13:00:00Z..2026-11-22T14:30:00Z "]);
    assert_eq!(
        (spans(vera).len(), anna.workday),
        (0, Some(Workday::Paused))
    );
    let names = ["user_get", "department_get", "batch_calendar_array_form"];
    let again = replay_with(&names, "").await.employees().await.unwrap();
    assert_eq!(spans(&again.employees[0]), spans(anna));
}

/// What departments, calendars and clocks answer, and how the first reading ends.
const DAMAGED: &[(&str, &str)] = &[
    (
        "department_get.missing_field batch_calendar batch_timeman",
        "shape",
    ),
    (
        "department_get.wrong_type batch_calendar batch_timeman",
        "shape",
    ),
    (
        "department_get.empty_list batch_calendar batch_timeman",
        "well",
    ),
    ("department_get.html", "unreachable"),
    ("insufficient_scope batch_calendar batch_timeman", "well"),
    ("department_get batch_calendar.missing_field", "shape"),
    ("department_get batch_calendar.wrong_type", "shape"),
    (
        "department_get batch_calendar.empty_list batch_timeman",
        "well",
    ),
    ("department_get batch_calendar.html", "unreachable"),
    ("department_get insufficient_scope batch_timeman", "well"),
    (
        "department_get batch_calendar batch_timeman.missing_field",
        "well",
    ),
    (
        "department_get batch_calendar batch_timeman.wrong_type",
        "well",
    ),
    (
        "department_get batch_calendar batch_timeman.empty_list",
        "well",
    ),
    (
        "department_get batch_calendar batch_timeman.unknown_user",
        "well",
    ),
    ("department_get batch_calendar insufficient_scope", "well"),
];

#[tokio::test]
async fn damaged_parts_fail_the_first_reading_but_clocks_never_do() {
    let reads = DAMAGED.iter().map(|(names, expected)| async move {
        let all: Vec<&str> = std::iter::once("user_get")
            .chain(names.split(' '))
            .collect();
        let read = replay_with(&all, "workday = true").await.employees().await;
        let label = read.as_ref().map_or_else(CrmError::label, |_| "well");
        assert_eq!(label, *expected, "{names}: {read:?}");
        if let Ok(staff) = read {
            let has_clock = names.ends_with("batch_timeman");
            assert_eq!(staff.employees[0].workday.is_some(), has_clock, "{names}");
        }
    });
    join_all(reads).await;
}

#[tokio::test]
async fn any_field_is_mirrored_whichever_way_a_card_comes() {
    let mut world = contacts(2);
    world.contacts[0].more = vec![
        ("TYPE_ID", json!("CLIENT")),
        ("SOURCE_ID", json!("WEB")),
        ("UF_CRM_VIP", json!(true)),
        ("UF_CRM_LIST", json!(["опт", 45])),
        ("UF_CRM_GAPS", json!({"1": "a", "3": "b"})),
        (
            "EMAIL",
            json!([{"ID": "7", "VALUE": "a@example.com"}, {"ID": "8", "VALUE": "b@example.com"}]),
        ),
        ("UF_CRM_EMPTY", json!([])),
        ("UF_CRM_UNWANTED", json!("x")),
    ];
    let fake = portal(&world.shared(), &ALL_SCOPES).await;
    let wanted = [
        "TYPE_ID",
        "SOURCE_ID",
        "UF_CRM_VIP",
        "UF_CRM_LIST",
        "UF_CRM_GAPS",
        "EMAIL",
        "UF_CRM_EMPTY",
    ];
    let crm = connect_for(&wanted, &fake.url());
    let since = Since {
        time: jiff::Timestamp::UNIX_EPOCH,
        highest_id: None,
    };
    let (walked, _) = drain(crm.walk(EntityKind::Contact, None)).await;
    let (changed, _) = drain(crm.changes(EntityKind::Contact, since)).await;
    let read = crm.read(EntityKind::Contact, &[3.into()]).await.unwrap();
    let found = crm.find(phone(79_000_000_003)).await.unwrap();
    let ways = [
        &walked[0].cards[0],
        &changed[0].cards[0],
        &read.cards[0],
        &found[0],
    ];
    for card in ways {
        let fields = card
            .fields
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let expected = [
            "EMAIL=a@example.com, b@example.com",
            "SOURCE_ID=WEB",
            "TYPE_ID=CLIENT",
            "UF_CRM_GAPS=a, b",
            "UF_CRM_LIST=опт, 45",
            "UF_CRM_VIP=Y",
        ];
        assert_eq!(fields.collect::<Vec<_>>(), expected);
    }
    assert!(walked[0].cards[1].fields.is_empty());
}
