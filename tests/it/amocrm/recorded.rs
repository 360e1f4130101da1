//! The connector against recorded answers.

use pryamo::crm::{CrmError, Cursor, Level};
use pryamo::record::{EntityKind, Stage};

use super::{CALLER, Replay, cards, changes, connect, find, ids, oauth_keys, told, walk};

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
    let replay = Replay::start(&["users", "account_groups"]).await;
    let staff = replay.crm().employees().await.unwrap();
    let groups: Vec<(&str, &str)> = staff
        .departments
        .iter()
        .map(|group| (group.id.as_str(), group.name.as_str()))
        .collect();
    assert_eq!(groups, [("0", "Отдел продаж"), ("3", "Опт")]);
    assert!(replay.seen.lock().unwrap()[1].contains("with=users_groups"));
    let employees = staff.employees;
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
async fn damaged_groups_wipe_no_names_and_unnamed_ones_still_may_have_a_head() {
    for name in ["account_groups_missing_field", "account_groups_wrong_type"] {
        // Nothing was read in this life: what the mirror has is better.
        let replay = Replay::start(&["users", name]).await;
        let error = replay.crm().employees().await.unwrap_err();
        assert_eq!(error.label(), "shape", "{name}");
        let replay = Replay::start(&["users", "account_groups", "users", name]).await;
        let crm = replay.crm();
        let first = crm.employees().await.unwrap();
        assert_eq!(crm.employees().await.unwrap(), first, "{name}");
    }
    for name in ["account", "account_groups_empty_list", "forbidden_403"] {
        let replay = Replay::start(&["users", name]).await;
        let groups = replay.crm().employees().await.unwrap().departments;
        let ids: Vec<&str> = groups.iter().map(|group| group.id.as_str()).collect();
        assert_eq!(ids, ["3"], "{name}");
    }
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
        (vec!["account", "users", "webhooks_204"], None, ""),
        (vec!["account", "users", "webhooks"], None, ""),
        (vec!["account", "users", "webhooks_forbidden"], None, ""),
        (
            vec!["account", "users", "webhooks_disabled"],
            Some(Level::Fault),
            "switch it on again",
        ),
        (
            vec!["account", "users", "webhooks_missing_field"],
            Some(Level::Fault),
            "destination",
        ),
        (
            vec![
                "account_filters_off",
                "users",
                "contacts_short_page",
                "webhooks_204",
            ],
            Some(Level::Warning),
            "ignores filters",
        ),
        (
            vec!["account", "users_forbidden", "webhooks_forbidden"],
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
