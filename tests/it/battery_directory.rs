//! What every store of [`KINDS`] must do. A new store adds a row there and nothing here.
//!
//! The last tests are the embedded store's own: its file as others may find or leave it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use pryamo::directory::{
    CardRef, Change, Count, CrmRules, Directory, DirectoryError, Findings, KINDS, Kind, Left,
    LeftCard, OpenError, Opening, Origin, Origins, Override, OwnRow, RosterRules, Survey, Surveyor,
    SyncState, Tally, Unseen,
};
use pryamo::phone::{E164, Region};
use pryamo::record::{
    Absence, Card, CrmName, Employee, EmployeeId, Entity, EntityId, EntityKind, Stage,
};

use EntityKind::{Company, Contact, Deal, Lead};

/// A folder with one kind of store in it.
pub(crate) struct Bench {
    kind: &'static Kind,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn open(&self) -> Arc<dyn Directory> {
        open(self.kind, self.folder.path(), RosterRules::default()).expect("the store opens")
    }
}

fn open(kind: &Kind, folder: &Path, rules: RosterRules) -> Result<Arc<dyn Directory>, OpenError> {
    let data_dir = folder.join("data");
    (kind.open)(toml::Table::new(), Opening { data_dir, rules })
}

pub(crate) fn benches() -> Vec<Bench> {
    let bench = |kind| Bench {
        kind,
        folder: tempfile::tempdir().unwrap(),
    };
    let benches: Vec<_> = KINDS.iter().map(bench).collect();
    assert!(!benches.is_empty());
    benches
}

pub(crate) fn sales() -> CrmName {
    CrmName::new("sales")
}

pub(crate) fn retail() -> CrmName {
    CrmName::new("retail")
}

pub(crate) fn phone(number: u64) -> E164 {
    E164::from_digits(79_160_000_000 + number).unwrap()
}

pub(crate) fn instant(written: &str) -> Timestamp {
    written.parse().unwrap()
}

pub(crate) fn card(kind: EntityKind, id: &str, name: &str) -> Card {
    let mut card = Card::new(kind, EntityId::new(id));
    name.clone_into(&mut card.name);
    card
}

fn linked(kind: EntityKind, id: &str, links: &[(EntityKind, &str)]) -> Card {
    let mut card = card(kind, id, id);
    card.links = links
        .iter()
        .map(|(kind, id)| (*kind, EntityId::new(id)))
        .collect();
    card
}

pub(crate) fn change(crm: &CrmName, kind: EntityKind, cards: Vec<(Card, Vec<E164>)>) -> Change {
    Change {
        crm: crm.clone(),
        kind,
        cards,
        walk: 1,
        unread: Vec::new(),
        keep_newer: None,
        state: None,
    }
}

fn at_cursor(cursor: &str) -> SyncState {
    SyncState {
        walk: 1,
        cursor: Some(cursor.to_owned()),
        walking: true,
        ..SyncState::default()
    }
}

/// The names found, sorted.
async fn names(store: &Arc<dyn Directory>, phone: E164) -> Vec<String> {
    let found = store.lookup(phone, false).await.unwrap();
    let mut names: Vec<_> = found.into_iter().map(|entity| entity.name).collect();
    names.sort();
    names
}

async fn one(store: &Arc<dyn Directory>, phone: E164) -> Entity {
    let mut found = store.lookup(phone, false).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test]
async fn a_card_comes_out_as_it_went_in() {
    for bench in benches() {
        let store = bench.open();
        let mut full = card(Lead, "17", "Ёлкина «Анна» O'Neil 李 🦊 \u{200b}");
        full.company = Some("ООО «Ромашка»".to_owned());
        full.responsible = Some(EmployeeId::new("502"));
        full.modified = Some(instant("2026-11-22T10:00:00.25Z"));
        full.stage = Stage::Junk;
        full.fields = BTreeMap::from([
            ("UF_CRM_VIP".to_owned(), "да".to_owned()),
            (String::new(), String::new()),
        ]);
        let bare = card(Lead, "", "");
        let page = vec![(full.clone(), vec![phone(1)]), (bare, vec![phone(2)])];
        store.apply(change(&sales(), Lead, page)).await.unwrap();

        let expected = Entity {
            crm: sales(),
            kind: Lead,
            id: full.id,
            name: full.name,
            company: full.company,
            responsible: full.responsible,
            modified: full.modified,
            stage: full.stage,
            fields: full.fields,
        };
        assert_eq!(one(&store, phone(1)).await, expected);
        let bare = one(&store, phone(2)).await;
        assert_eq!((bare.id.as_str(), bare.name.as_str()), ("", ""));
        assert_eq!(
            (bare.company, bare.responsible, bare.modified),
            (None, None, None)
        );
        assert_eq!((bare.stage, bare.fields.len()), (Stage::Open, 0));
        assert_eq!(store.lookup(phone(3), true).await.unwrap(), []);
    }
}

#[tokio::test]
async fn the_newest_commit_is_seen_at_once() {
    for bench in benches() {
        let store = bench.open();
        for round in 0..200 {
            let name = format!("round {round}");
            let page = vec![(card(Contact, "1", &name), vec![phone(1)])];
            store.apply(change(&sales(), Contact, page)).await.unwrap();
            assert_eq!(names(&store, phone(1)).await, [name]);
        }
    }
}

#[tokio::test]
async fn a_card_is_replaced_whole() {
    for bench in benches() {
        let store = bench.open();
        let mut old = card(Contact, "1", "old");
        old.company = Some("old".to_owned());
        old.fields.insert("A".to_owned(), "old".to_owned());
        let page = vec![(old, vec![phone(1), phone(2), phone(2)])];
        store.apply(change(&sales(), Contact, page)).await.unwrap();
        let page = vec![(card(Contact, "1", "new"), vec![phone(2), phone(3)])];
        store.apply(change(&sales(), Contact, page)).await.unwrap();

        assert!(names(&store, phone(1)).await.is_empty());
        assert_eq!(names(&store, phone(2)).await, ["new"]);
        let new = one(&store, phone(3)).await;
        assert_eq!((new.company, new.fields.len()), (None, 0));
    }
}

#[tokio::test]
async fn a_phone_moves_from_card_to_card() {
    for bench in benches() {
        let store = bench.open();
        let page = |first: Vec<E164>, second: Vec<E164>| {
            vec![
                (card(Contact, "1", "first"), first),
                (card(Contact, "2", "second"), second),
            ]
        };
        let both = page(vec![phone(1)], vec![phone(2)]);
        store.apply(change(&sales(), Contact, both)).await.unwrap();
        let swapped = page(vec![phone(2)], vec![phone(1)]);
        store
            .apply(change(&sales(), Contact, swapped))
            .await
            .unwrap();
        assert_eq!(names(&store, phone(1)).await, ["second"]);
        assert_eq!(names(&store, phone(2)).await, ["first"]);

        let shared = page(vec![phone(3)], vec![phone(3)]);
        store
            .apply(change(&sales(), Contact, shared))
            .await
            .unwrap();
        assert_eq!(names(&store, phone(3)).await, ["first", "second"]);
        let first_alone = page(vec![phone(3)], vec![]);
        store
            .apply(change(&sales(), Contact, first_alone))
            .await
            .unwrap();
        assert_eq!(names(&store, phone(3)).await, ["first"]);
    }
}

#[tokio::test]
async fn replay_changes_nothing() {
    for bench in benches() {
        let store = bench.open();
        let mut page = change(
            &sales(),
            Deal,
            vec![
                (linked(Deal, "1", &[(Contact, "5")]), vec![phone(1)]),
                (
                    linked(Deal, "1", &[(Contact, "6"), (Company, "7")]),
                    vec![phone(2)],
                ),
                (linked(Deal, "2", &[(Contact, "5")]), vec![]),
            ],
        );
        page.state = Some(at_cursor("2"));
        let contacts = vec![(card(Contact, "5", "five"), vec![phone(5)])];
        store
            .apply(change(&sales(), Contact, contacts))
            .await
            .unwrap();
        for _ in 0..2 {
            store.apply(page.clone()).await.unwrap();
            assert!(
                names(&store, phone(1)).await.is_empty(),
                "the last of a page counts"
            );
            assert_eq!(names(&store, phone(2)).await, ["1"]);
            assert_eq!(store.lookup(phone(5), true).await.unwrap().len(), 2);
            assert_eq!(
                store.sync_state(&sales(), Deal).await.unwrap(),
                at_cursor("2")
            );
            let unseen = store.count_unseen(&sales(), Deal, 1).await.unwrap();
            assert_eq!(
                unseen,
                Unseen {
                    unseen: 0,
                    total: 2
                }
            );
        }
    }
}

#[tokio::test]
async fn crms_and_kinds_keep_apart() {
    for bench in benches() {
        let store = bench.open();
        for crm in [sales(), retail()] {
            for kind in EntityKind::ALL {
                let name = format!("{crm} {kind}");
                let page = vec![(card(kind, "1", &name), vec![phone(1)])];
                store.apply(change(&crm, kind, page)).await.unwrap();
            }
        }
        assert_eq!(names(&store, phone(1)).await.len(), 8);
        store
            .delete(&sales(), Lead, &[EntityId::new("1"), EntityId::new("9")])
            .await
            .unwrap();
        let left = store.lookup(phone(1), false).await.unwrap();
        assert_eq!(left.len(), 7);
        for entity in left {
            assert_eq!(entity.name, format!("{} {}", entity.crm, entity.kind));
            assert_ne!((&entity.crm, entity.kind), (&sales(), Lead));
        }
        let other = CrmName::new("other");
        store
            .delete(&other, Lead, &[EntityId::new("1")])
            .await
            .unwrap();
        assert_eq!(store.crms().await.unwrap(), [retail(), sales()]);
    }
}

#[tokio::test]
async fn ids_are_numbers_or_text_and_never_confused() {
    for bench in benches() {
        let store = bench.open();
        let ids = ["7", "007", "+7", "7.0", "seven", "9223372036854775808", "Ы"];
        let page = ids
            .map(|id| (card(Contact, id, id), vec![phone(7)]))
            .to_vec();
        store.apply(change(&sales(), Contact, page)).await.unwrap();
        let found = store.lookup(phone(7), false).await.unwrap();
        assert_eq!(found.len(), ids.len());
        assert!(found.iter().all(|entity| entity.id.as_str() == entity.name));
        store
            .delete(&sales(), Contact, &[EntityId::new("007")])
            .await
            .unwrap();
        let left = names(&store, phone(7)).await;
        assert!(left.len() == ids.len() - 1 && !left.contains(&"007".to_owned()));
    }
}

#[tokio::test]
async fn deals_of_a_caller_are_added_when_wanted() {
    for bench in benches() {
        let store = bench.open();
        let contact = linked(Contact, "1", &[(Company, "2")]);
        store
            .apply(change(&sales(), Contact, vec![(contact, vec![phone(1)])]))
            .await
            .unwrap();
        let company = card(Company, "2", "Ромашка");
        store
            .apply(change(&sales(), Company, vec![(company, vec![phone(1)])]))
            .await
            .unwrap();
        let deals = vec![
            (
                linked(Deal, "10", &[(Contact, "1"), (Company, "2")]),
                vec![],
            ),
            (linked(Deal, "11", &[(Contact, "1")]), vec![]),
            (linked(Deal, "12", &[(Contact, "99")]), vec![]),
            (linked(Deal, "A", &[(Company, "2")]), vec![]),
        ];
        store.apply(change(&sales(), Deal, deals)).await.unwrap();
        // The same identifiers in another CRM lead nowhere.
        let foreign = vec![(linked(Deal, "77", &[(Contact, "1")]), vec![])];
        store.apply(change(&retail(), Deal, foreign)).await.unwrap();

        assert_eq!(names(&store, phone(1)).await.len(), 2);
        let deals = |found: Vec<Entity>| {
            let mut ids: Vec<_> = found
                .into_iter()
                .filter(|entity| entity.kind == Deal)
                .map(|entity| entity.id.as_str().to_owned())
                .collect();
            ids.sort();
            ids
        };
        let found = store.lookup(phone(1), true).await.unwrap();
        assert_eq!(deals(found), ["10", "11", "A"]);

        let moved = vec![(linked(Deal, "11", &[(Contact, "99")]), vec![])];
        store.apply(change(&sales(), Deal, moved)).await.unwrap();
        store
            .delete(&sales(), Deal, &[EntityId::new("A")])
            .await
            .unwrap();
        let found = store.lookup(phone(1), true).await.unwrap();
        assert_eq!(deals(found), ["10"]);
    }
}

#[tokio::test]
async fn a_company_lends_its_name() {
    for bench in benches() {
        let store = bench.open();
        let mut own = linked(Contact, "1", &[(Company, "7")]);
        own.company = Some("own".to_owned());
        let contacts = vec![
            (own, vec![phone(1)]),
            (linked(Contact, "2", &[(Company, "7")]), vec![phone(2)]),
            (linked(Contact, "3", &[(Company, "C-7")]), vec![phone(3)]),
            (
                linked(Contact, "4", &[(Contact, "7"), (Company, "7")]),
                vec![phone(4)],
            ),
            (linked(Contact, "5", &[(Company, "404")]), vec![phone(5)]),
        ];
        store
            .apply(change(&sales(), Contact, contacts))
            .await
            .unwrap();
        assert_eq!(one(&store, phone(2)).await.company, None);
        let companies = vec![
            (card(Company, "7", "seven"), vec![]),
            (card(Company, "C-7", "text"), vec![]),
        ];
        store
            .apply(change(&sales(), Company, companies))
            .await
            .unwrap();
        for (number, expected) in [
            (1, Some("own")),
            (2, Some("seven")),
            (3, Some("text")),
            (4, Some("seven")),
            (5, None),
        ] {
            let found = one(&store, phone(number)).await;
            assert_eq!(found.company.as_deref(), expected, "contact {number}");
        }
        let renamed = vec![(card(Company, "7", "eight"), vec![])];
        store
            .apply(change(&sales(), Company, renamed))
            .await
            .unwrap();
        assert_eq!(
            one(&store, phone(2)).await.company.as_deref(),
            Some("eight")
        );
    }
}

#[tokio::test]
async fn what_a_walk_has_not_seen_is_counted_and_deleted() {
    for bench in benches() {
        let store = bench.open();
        let nothing = store.count_unseen(&sales(), Contact, 1).await.unwrap();
        assert_eq!(
            nothing,
            Unseen {
                unseen: 0,
                total: 0
            }
        );
        // More than a store may delete at once.
        let cards = |ids: std::ops::Range<u64>| {
            ids.map(|id| (card(Contact, &id.to_string(), "a"), vec![phone(id)]))
                .collect()
        };
        store
            .apply(change(&sales(), Contact, cards(0..12_000)))
            .await
            .unwrap();
        let text = vec![(card(Contact, "text", "a"), vec![phone(20_000)])];
        store.apply(change(&sales(), Contact, text)).await.unwrap();
        store
            .apply(change(&sales(), Lead, vec![(card(Lead, "1", "a"), vec![])]))
            .await
            .unwrap();
        let second = Change {
            walk: 2,
            ..change(&sales(), Contact, cards(100..200))
        };
        store.apply(second).await.unwrap();
        // A live lookup that still knows of the walk before takes no mark away.
        store
            .apply(change(&sales(), Contact, cards(150..160)))
            .await
            .unwrap();

        let unseen = store.count_unseen(&sales(), Contact, 2).await.unwrap();
        assert_eq!(
            unseen,
            Unseen {
                unseen: 11_901,
                total: 12_001
            }
        );
        assert_eq!(
            store.delete_unseen(&sales(), Contact, 2).await.unwrap(),
            11_901
        );
        assert_eq!(store.delete_unseen(&sales(), Contact, 2).await.unwrap(), 0);
        let unseen = store.count_unseen(&sales(), Contact, 2).await.unwrap();
        assert_eq!(
            unseen,
            Unseen {
                unseen: 0,
                total: 100
            }
        );
        for (number, expected) in [(99, 0), (100, 1), (155, 1), (199, 1), (200, 0), (20_000, 0)] {
            assert_eq!(
                names(&store, phone(number)).await.len(),
                expected,
                "{number}"
            );
        }
        let lead = Count {
            crm: sales(),
            kind: Lead,
            cards: 1,
        };
        assert!(store.counts().await.unwrap().contains(&lead));
    }
}

#[tokio::test]
async fn a_page_and_its_state_are_one() {
    for bench in benches() {
        let store = bench.open();
        assert_eq!(
            store.sync_state(&sales(), Contact).await.unwrap(),
            SyncState::default()
        );
        let full = SyncState {
            identity: "bitrix24 demo".to_owned(),
            walk: 1,
            cursor: Some("на \"кавычках\"".to_owned()),
            walking: true,
            all_seen: true,
            walk_began: Some(instant("2026-11-22T10:00:00Z")),
            whole_at: Some(instant("2026-11-21T10:00:00.123Z")),
            changes_until: Some(instant("2026-11-22T10:00:01Z")),
            highest_id: Some(501),
            fresh_at: Some(instant("2026-11-22T10:00:02Z")),
            reading: "RU".to_owned(),
            shrunk: Some(Unseen {
                unseen: 5,
                total: 10,
            }),
        };
        let mut page = change(
            &sales(),
            Contact,
            vec![(card(Contact, "1", "a"), vec![phone(1)])],
        );
        page.state = Some(full.clone());
        store.apply(page.clone()).await.unwrap();
        assert_eq!(store.sync_state(&sales(), Contact).await.unwrap(), full);
        assert_eq!(
            store.sync_state(&sales(), Lead).await.unwrap(),
            SyncState::default()
        );
        page.state = None;
        store.apply(page).await.unwrap();
        assert_eq!(store.sync_state(&sales(), Contact).await.unwrap(), full);
        store
            .set_sync_state(&sales(), Contact, &at_cursor("9"))
            .await
            .unwrap();
        store
            .set_sync_state(&retail(), Lead, &at_cursor("8"))
            .await
            .unwrap();
        assert_eq!(
            store.sync_state(&sales(), Contact).await.unwrap(),
            at_cursor("9")
        );
        assert_eq!(store.crms().await.unwrap(), [retail(), sales()]);
        assert_eq!(names(&store, phone(1)).await, ["a"]);
    }
}

fn employee(id: &str, extension: Option<&str>) -> Employee {
    Employee {
        extension: extension.map(str::to_owned),
        email: Some(format!("{id}@example.com")),
        phones: vec![format!("+7 916 000-00-{id}")],
        departments: vec!["1".to_owned()],
        ..Employee::new(EmployeeId::new(id), &format!("Employee {id}"))
    }
}

#[tokio::test]
async fn employees_are_replaced_and_put_into_the_roster() {
    for bench in benches() {
        let own = Override {
            extension: Some("777".to_owned()),
            ..Override::default()
        };
        let overrides = [("12@Example.com".to_owned(), own)].into_iter();
        let rules = RosterRules {
            crms: HashMap::from([
                (sales(), CrmRules::new(Region::default(), overrides)),
                (retail(), CrmRules::default()),
            ]),
            ..RosterRules::default()
        };
        let now = instant("2026-11-22T10:00:00Z");
        let id = EmployeeId::new;
        {
            let store = open(bench.kind, bench.folder.path(), rules.clone()).unwrap();
            assert!(store.roster().is_empty());
            let first = vec![employee("11", Some("101")), employee("12", None)];
            store
                .replace_employees(&sales(), first.into(), now)
                .await
                .unwrap();
            let other = vec![employee("13", Some("+79161234567"))];
            store
                .replace_employees(&retail(), other.into(), now)
                .await
                .unwrap();
            let before = store.roster();
            assert_eq!(before.len(), 3);
            let second = vec![employee("12", None), employee("14", Some("104"))];
            store
                .replace_employees(&sales(), second.into(), now)
                .await
                .unwrap();
            assert_eq!(before.len(), 3, "a roster once taken stays as it is");
        }
        let store = open(bench.kind, bench.folder.path(), rules).unwrap();
        let roster = store.roster();
        assert_eq!(roster.len(), 3);
        assert!(roster.get(&sales(), &id("11")).is_none());
        assert!(roster.get(&sales(), &id("13")).is_none());
        let extension = |crm: &CrmName, who: &str| {
            let colleague = roster.get(crm, &id(who)).unwrap();
            colleague.extension.as_ref().ok().map(ToString::to_string)
        };
        assert_eq!(extension(&sales(), "12").as_deref(), Some("777"));
        assert_eq!(extension(&sales(), "14").as_deref(), Some("104"));
        assert_eq!(extension(&retail(), "13"), None);
        assert_eq!(roster.owner_of(phone(14)).unwrap().id, id("14"));
        assert_eq!(store.crms().await.unwrap(), [retail(), sales()]);
    }
}

#[tokio::test]
async fn new_rules_make_the_roster_anew_from_what_is_stored() {
    for bench in benches() {
        let rules = |crm: CrmName, extension: &str| {
            let own = Override {
                extension: Some(extension.to_owned()),
                ..Override::default()
            };
            let overrides = [("12".to_owned(), own)].into_iter();
            RosterRules {
                crms: HashMap::from([(crm, CrmRules::new(Region::default(), overrides))]),
                ..RosterRules::default()
            }
        };
        let store = open(bench.kind, bench.folder.path(), rules(sales(), "777")).unwrap();
        let now = instant("2026-11-22T10:00:00Z");
        for crm in [sales(), retail()] {
            let staff = vec![employee("12", None)];
            store
                .replace_employees(&crm, staff.into(), now)
                .await
                .unwrap();
        }
        let listed = || {
            let roster = store.roster();
            let all = roster.all();
            let told = all.iter().map(|one| {
                let extension = one.extension.as_ref().unwrap();
                format!("{} {extension}", one.crm)
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(listed(), ["sales 777"]);
        store.set_rules(rules(sales(), "778")).await.unwrap();
        assert_eq!(listed(), ["sales 778"]);
        // They hold for what comes later, too.
        let staff = vec![employee("12", None)];
        store
            .replace_employees(&sales(), staff.into(), now)
            .await
            .unwrap();
        assert_eq!(listed(), ["sales 778"]);
        store.set_rules(rules(retail(), "779")).await.unwrap();
        assert_eq!(listed(), ["retail 779"]);
    }
}

#[tokio::test]
async fn employees_are_added_to_those_there_are() {
    for bench in benches() {
        let rules = RosterRules {
            crms: HashMap::from([(sales(), CrmRules::default())]),
            ..RosterRules::default()
        };
        let store = open(bench.kind, bench.folder.path(), rules).unwrap();
        let now = instant("2026-11-22T10:00:00Z");
        let first = vec![employee("11", Some("101"))];
        store
            .replace_employees(&sales(), first.into(), now)
            .await
            .unwrap();
        let more = vec![employee("11", Some("999")), employee("12", Some("102"))];
        store.add_employees(&sales(), more).await.unwrap();
        let extensions: Vec<_> = store
            .roster()
            .all()
            .iter()
            .map(|colleague| colleague.extension.as_ref().unwrap().to_string())
            .collect();
        assert_eq!(extensions, ["101", "102"]);
    }
}

#[tokio::test]
async fn a_forgotten_crm_leaves_nothing() {
    for bench in benches() {
        let rules = RosterRules {
            crms: [sales(), retail()]
                .map(|crm| (crm, CrmRules::default()))
                .into(),
            ..RosterRules::default()
        };
        let store = open(bench.kind, bench.folder.path(), rules).unwrap();
        let now = instant("2026-11-22T10:00:00Z");
        for crm in [sales(), retail()] {
            for kind in EntityKind::ALL {
                let cards = (0..10).map(|id| {
                    (
                        linked(kind, &format!("{id}"), &[(Contact, "1")]),
                        vec![phone(id)],
                    )
                });
                let mut page = change(&crm, kind, cards.collect());
                page.walk = u64::MAX;
                page.state = Some(at_cursor("1"));
                store.apply(page).await.unwrap();
            }
            store
                .replace_employees(&crm, vec![employee("11", None)].into(), now)
                .await
                .unwrap();
        }
        store.forget(&sales()).await.unwrap();
        store.forget(&CrmName::new("other")).await.unwrap();

        assert_eq!(store.crms().await.unwrap(), [retail()]);
        let found = store.lookup(phone(1), true).await.unwrap();
        assert!(found.iter().all(|entity| entity.crm == retail()));
        assert_eq!(
            found.len(),
            4 + 9,
            "its own four, and the deals of contact 1"
        );
        let left = store.roster().all();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].crm, retail());
        assert_eq!(
            store.sync_state(&sales(), Lead).await.unwrap(),
            SyncState::default()
        );
        let counts = store.counts().await.unwrap();
        assert!(
            counts
                .iter()
                .all(|count| count.crm == retail() && count.cards == 10)
        );

        let back = vec![(card(Contact, "1", "back"), vec![phone(99)])];
        store.apply(change(&sales(), Contact, back)).await.unwrap();
        assert_eq!(one(&store, phone(99)).await.crm, sales());
    }
}

#[tokio::test]
async fn counts_tell_crm_and_kind() {
    for bench in benches() {
        let store = bench.open();
        assert_eq!(store.counts().await.unwrap(), []);
        let cards = |kind, many: u64| {
            (0..many)
                .map(|id| (card(kind, &id.to_string(), "a"), vec![]))
                .collect()
        };
        store
            .apply(change(&sales(), Contact, cards(Contact, 3)))
            .await
            .unwrap();
        store
            .apply(change(&sales(), Deal, cards(Deal, 2)))
            .await
            .unwrap();
        store
            .apply(change(&retail(), Contact, cards(Contact, 1)))
            .await
            .unwrap();
        let mut counts: Vec<_> = store.counts().await.unwrap();
        counts.sort_by(|a, b| (&a.crm, a.kind).cmp(&(&b.crm, b.kind)));
        let expected = [
            (retail(), Contact, 1),
            (sales(), Contact, 3),
            (sales(), Deal, 2),
        ]
        .map(|(crm, kind, cards)| Count { crm, kind, cards });
        assert_eq!(counts, expected);
    }
}

#[tokio::test]
async fn a_thousand_cards_may_share_a_number() {
    for bench in benches() {
        let store = bench.open();
        let card = |id: u64| {
            (
                card(Contact, &id.to_string(), "a"),
                vec![phone(1), phone(2)],
            )
        };
        let page = (0..1000).map(card).collect();
        store.apply(change(&sales(), Contact, page)).await.unwrap();
        assert_eq!(store.lookup(phone(1), true).await.unwrap().len(), 1000);
        assert_eq!(names(&store, phone(2)).await.len(), 1000);
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    for bench in benches() {
        {
            let store = bench.open();
            let contact = linked(Contact, "1", &[(Company, "2")]);
            let mut page = change(&sales(), Contact, vec![(contact, vec![phone(1)])]);
            page.state = Some(at_cursor("1"));
            store.apply(page).await.unwrap();
            let company = card(Company, "2", "Ромашка");
            store
                .apply(change(&sales(), Company, vec![(company, vec![])]))
                .await
                .unwrap();
            let deal = linked(Deal, "3", &[(Contact, "1")]);
            store
                .apply(change(&sales(), Deal, vec![(deal, vec![])]))
                .await
                .unwrap();
        }
        let store = bench.open();
        let found = store.lookup(phone(1), true).await.unwrap();
        let kinds: Vec<_> = found.iter().map(|entity| entity.kind).collect();
        assert_eq!(kinds, [Contact, Deal]);
        assert_eq!(found[0].company.as_deref(), Some("Ромашка"));
        assert_eq!(
            store.sync_state(&sales(), Contact).await.unwrap(),
            at_cursor("1")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lookup_sees_a_page_whole_or_not_at_all() {
    for bench in benches() {
        let store = bench.open();
        let page = |round: u64| {
            // All cards have the number of the round and one that stays; the company tells the round.
            let card = |id: u64| {
                let mut card = linked(Contact, &id.to_string(), &[(Company, "1")]);
                card.name = round.to_string();
                (card, vec![phone(1), phone(100 + round % 2)])
            };
            change(&sales(), Contact, (0..50).map(card).collect())
        };
        store.apply(page(0)).await.unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (store, done) = (Arc::clone(&store), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        let names = names(&store, phone(1)).await;
                        assert_eq!(names.len(), 50);
                        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
                        let round: u64 = names[0].parse().unwrap();
                        assert!(round >= last, "{round} after {last}");
                        last = round;
                        let parity = store.lookup(phone(100), false).await.unwrap();
                        assert!(matches!(parity.len(), 0 | 50), "{}", parity.len());
                        tokio::task::yield_now().await;
                    }
                    last
                })
            })
            .collect();
        for round in 1..=200 {
            store.apply(page(round)).await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.expect("every lookup was whole");
        }
    }
}

#[tokio::test]
async fn a_folder_has_one_owner() {
    for bench in benches() {
        let first = bench.open();
        let second = open(bench.kind, bench.folder.path(), RosterRules::default());
        let Err(OpenError::Directory(error @ DirectoryError::InUse { .. })) = second else {
            panic!("the second must be refused");
        };
        let folder = bench.folder.path().join("data");
        assert!(
            error.to_string().contains(&folder.display().to_string()),
            "{error}"
        );
        drop(first);
        bench.open();
    }
}

/// An embedded store that holds one contact, and its file.
async fn embedded() -> (Bench, std::path::PathBuf) {
    let kind = KINDS.iter().find(|kind| kind.name == "embedded").unwrap();
    let bench = Bench {
        kind,
        folder: tempfile::tempdir().unwrap(),
    };
    let store = bench.open();
    let cards = (0..1000).map(|id| (card(Contact, &id.to_string(), "a"), vec![phone(id)]));
    store
        .apply(change(&sales(), Contact, cards.collect()))
        .await
        .unwrap();
    let file = bench.folder.path().join("data/directory.sqlite");
    (bench, file)
}

fn refused(bench: &Bench) -> DirectoryError {
    match open(bench.kind, bench.folder.path(), RosterRules::default()) {
        Err(OpenError::Directory(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the file must be refused"),
    }
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (bench, file) = embedded().await;
    let by_hand = rusqlite::Connection::open(&file).unwrap();
    by_hand.pragma_update(None, "user_version", 99).unwrap();
    drop(by_hand);
    let error = refused(&bench);
    assert!(
        matches!(error, DirectoryError::Newer { found: 99, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("directory.sqlite"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        ("no database", |bytes| bytes.fill(b'x')),
        ("cut in the middle", |bytes| bytes.truncate(bytes.len() / 2)),
        ("cut inside the first page", |bytes| bytes.truncate(2000)),
        ("all but the first page overwritten", |bytes| {
            bytes[4096..].fill(0xa5);
        }),
        ("all but the first page blank", |bytes| {
            bytes[4096..].fill(0);
        }),
    ];
    for (what, damage) in damages {
        let (bench, file) = embedded().await;
        let mut bytes = std::fs::read(&file).unwrap();
        damage(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
        let error = refused(&bench);
        assert!(
            matches!(error, DirectoryError::Damaged { .. }),
            "{what}: {error:?}"
        );
        assert!(
            error.to_string().contains("directory.sqlite"),
            "{what}: {error}"
        );
    }
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_left_alone() {
    let (bench, file) = embedded().await;
    std::fs::remove_file(&file).unwrap();
    let foreign = rusqlite::Connection::open(&file).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(foreign);
    let error = refused(&bench);
    assert!(matches!(error, DirectoryError::Damaged { .. }), "{error:?}");
    let foreign = rusqlite::Connection::open(&file).unwrap();
    foreign.execute_batch("SELECT x FROM theirs").unwrap();
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_mirrored_anew() {
    let (bench, file) = embedded().await;
    std::fs::remove_file(&file).unwrap();
    let store = bench.open();
    assert_eq!(store.counts().await.unwrap(), []);
}

#[tokio::test]
async fn the_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (bench, file) = embedded().await;
    let _store = bench.open();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    for name in [
        "directory.sqlite",
        "directory.sqlite-wal",
        "directory.sqlite-shm",
        "lock",
    ] {
        assert_eq!(mode(&file.with_file_name(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_way = folder.path().join("data");
    std::fs::write(&in_the_way, "a file").unwrap();
    for kind in KINDS {
        let refused = open(kind, folder.path(), RosterRules::default());
        let Err(OpenError::Directory(error @ DirectoryError::Folder { .. })) = refused else {
            panic!("a file is no folder");
        };
        assert!(error.to_string().contains("data_dir"), "{error}");
    }
}

fn own_extension(extension: &str) -> OwnRow {
    OwnRow {
        extension: Some(extension.to_owned()),
        ..OwnRow::default()
    }
}

/// The rules of a configuration that has these CRMs and says nothing of their employees.
fn plain_rules(crms: &[CrmName]) -> RosterRules {
    RosterRules {
        crms: crms
            .iter()
            .map(|crm| (crm.clone(), CrmRules::default()))
            .collect(),
        ..RosterRules::default()
    }
}

#[tokio::test]
async fn what_is_set_for_an_employee_survives_all_but_forgetting() {
    for bench in benches() {
        let rules = plain_rules(&[sales(), retail()]);
        let now = instant("2026-11-22T10:00:00Z");
        let id = EmployeeId::new("11");
        let extension = |store: &Arc<dyn Directory>, crm: &CrmName| {
            let roster = store.roster();
            let colleague = roster.get(crm, &EmployeeId::new("11")).unwrap();
            let extension = colleague.extension.as_ref().ok();
            (
                extension.map(ToString::to_string),
                colleague.origins.extension,
            )
        };
        let of = |number: &str, origin| (Some(number.to_owned()), Some(origin));
        {
            let store = open(bench.kind, bench.folder.path(), rules.clone()).unwrap();
            store.set_own_row(&retail(), &id, None).await.unwrap();
            assert!(store.crms().await.unwrap().is_empty(), "nothing was set");
            for crm in [sales(), retail()] {
                // Before the employee is known, too.
                let row = Some(own_extension("501"));
                store.set_own_row(&crm, &id, row).await.unwrap();
                let staff = vec![employee("11", Some("101"))];
                store
                    .replace_employees(&crm, staff.into(), now)
                    .await
                    .unwrap();
                assert_eq!(extension(&store, &crm), of("501", Origin::Page));
            }
            let row = Some(own_extension("502"));
            store.set_own_row(&sales(), &id, row).await.unwrap();
            let staff = vec![employee("11", Some("102"))];
            store
                .replace_employees(&sales(), staff.into(), now)
                .await
                .unwrap();
        }
        let store = open(bench.kind, bench.folder.path(), rules).unwrap();
        assert_eq!(extension(&store, &sales()), of("502", Origin::Page));
        assert_eq!(
            store.own_rows().await.unwrap(),
            [
                (retail(), id.clone(), own_extension("501")),
                (sales(), id.clone(), own_extension("502")),
            ]
        );
        store.set_own_row(&sales(), &id, None).await.unwrap();
        assert_eq!(extension(&store, &sales()), of("102", Origin::Crm));
        store.forget(&retail()).await.unwrap();
        assert_eq!(store.own_rows().await.unwrap(), []);
    }
}

#[tokio::test]
async fn the_configuration_wins_over_the_page_and_the_page_over_the_crm() {
    for bench in benches() {
        let span = |from: &str| Absence {
            from: instant(from),
            until: instant("2027-01-01T00:00:00Z"),
            what: String::new(),
        };
        let config = Override {
            extension: Some("777".to_owned()),
            absences: vec![span("2026-12-30T00:00:00Z")],
            ..Override::default()
        };
        let overrides = [("11".to_owned(), config)].into_iter();
        let rules = RosterRules {
            crms: HashMap::from([(sales(), CrmRules::new(Region::default(), overrides))]),
            ..RosterRules::default()
        };
        let store = open(bench.kind, bench.folder.path(), rules).unwrap();
        let mut in_crm = employee("11", Some("101"));
        in_crm.mobiles = vec!["+7 916 000-00-11".to_owned()];
        in_crm.absences = vec![span("2026-12-01T00:00:00Z")];
        let mut other = in_crm.clone();
        other.id = EmployeeId::new("12");
        let staff = vec![in_crm, other];
        let now = instant("2026-11-22T10:00:00Z");
        store
            .replace_employees(&sales(), staff.into(), now)
            .await
            .unwrap();
        let row = OwnRow {
            mobile: Some("+7 916 000-00-77".to_owned()),
            deputy: Some("12".to_owned()),
            hours: Some("24/7".to_owned()),
            absent: vec!["2026-12-05".to_owned()],
            ..own_extension("501")
        };
        for id in ["11", "12"] {
            let row = Some(row.clone());
            let id = EmployeeId::new(id);
            store.set_own_row(&sales(), &id, row).await.unwrap();
        }
        let roster = store.roster();
        let both = roster.get(&sales(), &EmployeeId::new("11")).unwrap();
        assert_eq!(both.extension.as_ref().unwrap().as_str(), "777");
        assert_eq!(both.mobiles, [phone(77)]);
        let (page, crm, config) = (Origin::Page, Origin::Crm, Origin::Config);
        assert_eq!(
            both.origins,
            Origins {
                extension: Some(config),
                mobile: Some(page),
                deputy: Some(page),
                hours: Some(page),
                absences: vec![crm, config],
            }
        );
        assert_eq!(both.absences.len(), 2);
        assert_eq!(both.own_row.as_ref(), Some(&row));
        let page_only = roster.get(&sales(), &EmployeeId::new("12")).unwrap();
        assert_eq!(page_only.extension.as_ref().unwrap().as_str(), "501");
        assert_eq!(page_only.origins.absences, [crm, page]);
    }
}

#[tokio::test]
async fn an_extension_of_two_people_in_one_crm_is_a_conflict() {
    for bench in benches() {
        let rules = plain_rules(&[sales(), retail()]);
        let store = open(bench.kind, bench.folder.path(), rules).unwrap();
        let now = instant("2026-11-22T10:00:00Z");
        let mut dismissed = employee("14", Some("103"));
        dismissed.active = false;
        let staff = vec![
            employee("11", Some("101")),
            employee("12", Some("101")),
            employee("13", Some("103")),
            dismissed,
            employee("15", None),
        ];
        store
            .replace_employees(&sales(), staff.into(), now)
            .await
            .unwrap();
        let staff = vec![employee("13", Some("103"))];
        store
            .replace_employees(&retail(), staff.into(), now)
            .await
            .unwrap();
        let roster = store.roster();
        let conflicts = roster.conflicts();
        let [conflict] = conflicts.as_slice() else {
            panic!("{conflicts:?}");
        };
        assert_eq!(
            (&conflict.crm, conflict.extension.as_str()),
            (&sales(), "101")
        );
        let mut ids: Vec<_> = conflict
            .employees
            .iter()
            .map(|one| one.id.as_str())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, ["11", "12"]);
        let without: Vec<_> = roster.without_extension();
        assert_eq!(without.len(), 1);
        assert_eq!(without[0].id.as_str(), "15");
    }
}

fn owned(kind: EntityKind, id: &str, responsible: &str) -> Card {
    let mut card = card(kind, id, id);
    card.responsible = Some(EmployeeId::new(responsible));
    card
}

/// Two CRMs: 11 and 12 work in the one, 13 is dismissed; 12 works in the other too, as 92.
async fn store_for_a_survey(bench: &Bench) -> Arc<dyn Directory> {
    let rules = plain_rules(&[sales(), retail()]);
    let store = open(bench.kind, bench.folder.path(), rules).unwrap();
    let now = instant("2026-11-22T10:00:00Z");
    let mut dismissed = employee("13", None);
    dismissed.active = false;
    let staff = vec![employee("11", None), employee("12", None), dismissed];
    store
        .replace_employees(&sales(), staff.into(), now)
        .await
        .unwrap();
    let mut same = employee("92", None);
    same.email = Some("12@Example.com".to_owned());
    store
        .replace_employees(&retail(), vec![same].into(), now)
        .await
        .unwrap();
    store
}

#[tokio::test]
async fn a_survey_finds_what_is_to_be_mended() {
    for bench in benches() {
        let store = store_for_a_survey(&bench).await;
        assert_eq!(store.survey().await.unwrap(), Survey::default());
        let mut closed = owned(Lead, "closed", "13");
        closed.stage = Stage::Closed;
        let cards = [
            (Contact, owned(Contact, "1", "11"), vec![phone(1)]),
            (Company, owned(Company, "1", "12"), vec![phone(1), phone(2)]),
            (Contact, owned(Contact, "2", "12"), vec![phone(2)]),
            (Contact, owned(Contact, "3", "13"), vec![phone(2), phone(3)]),
            (Contact, owned(Contact, "4", "99"), vec![phone(3)]),
            (Contact, card(Contact, "5", "nobody's"), vec![phone(3)]),
            (Lead, closed, vec![phone(3)]),
        ];
        for (kind, card, phones) in cards {
            let mut page = change(&sales(), kind, vec![(card.clone(), phones)]);
            if matches!(card.id.as_str(), "2" | "closed") {
                page.unread = vec![(card.id.clone(), "ask Anna".to_owned())];
            }
            store.apply(page).await.unwrap();
        }
        let same_person = vec![(owned(Contact, "7", "92"), vec![phone(2)])];
        store
            .apply(change(&retail(), Contact, same_person))
            .await
            .unwrap();
        // Of a CRM that the configuration lacks.
        let other = vec![(owned(Contact, "8", "55"), vec![phone(1)])];
        let other = change(&CrmName::new("other"), Contact, other);
        store.apply(other).await.unwrap();

        let survey = store.survey().await.unwrap();
        assert_eq!(survey.shared.total, 1, "{survey:?}");
        let shared = &survey.shared.samples[0];
        assert_eq!(shared.phone, phone(1));
        let who = |card: &CardRef| card.responsible.as_ref().unwrap().to_string();
        let mut whose: Vec<_> = shared.cards.iter().map(who).collect();
        whose.sort();
        assert_eq!(whose, ["11", "12"]);
        let left = survey.left.samples.iter();
        let mut left: Vec<_> = left.map(|one| (one.card.id.to_string(), one.why)).collect();
        left.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [("3", Left::Dismissed), ("4", Left::Unknown)];
        assert_eq!(left, expected.map(|(id, why)| (id.to_owned(), why)));
        assert_eq!(survey.left.total, 2);
        let unread = &survey.unread;
        assert_eq!((unread.total, unread.samples.len()), (1, 1));
        assert_eq!(unread.samples[0].text, "ask Anna");
        assert_eq!(unread.samples[0].card.kind, Contact);
    }
}

#[tokio::test]
async fn what_is_no_number_goes_with_its_card() {
    for bench in benches() {
        let store = store_for_a_survey(&bench).await;
        let page = |unread: Option<&str>| {
            let cards = vec![(owned(Contact, "1", "11"), vec![phone(1)])];
            let mut page = change(&sales(), Contact, cards);
            let text = |text: &str| (EntityId::new("1"), text.to_owned());
            page.unread = unread.map(text).into_iter().collect();
            page
        };
        let texts = async || {
            let unread = store.survey().await.unwrap().unread;
            assert_eq!(unread.total, unread.samples.len() as u64);
            let texts = unread.samples.into_iter().map(|one| one.text);
            texts.collect::<Vec<_>>()
        };
        for (now, expected) in [
            (Some("first"), vec!["first"]),
            (Some("second"), vec!["second"]),
            (None, vec![]),
            (Some("third"), vec!["third"]),
        ] {
            // The card itself stays as it was.
            store.apply(page(now)).await.unwrap();
            assert_eq!(texts().await, expected);
        }
        let ids = [EntityId::new("1")];
        store.delete(&sales(), Contact, &ids).await.unwrap();
        assert_eq!(texts().await, Vec::<String>::new());
        store.apply(page(None)).await.unwrap();
        assert_eq!(
            texts().await,
            Vec::<String>::new(),
            "a new card with an old place"
        );
    }
}

#[tokio::test]
async fn a_survey_counts_all_and_keeps_some() {
    for bench in benches() {
        let store = store_for_a_survey(&bench).await;
        // More than one stretch, and numbers in two cards that a stretch may cut.
        let count = 25_000;
        let contacts = (0..count).map(|id| {
            let text = id.to_string();
            (owned(Contact, &text, "11"), vec![phone(id)])
        });
        let mut page = change(&sales(), Contact, contacts.collect());
        page.unread = (0..count)
            .map(|id| (EntityId::from(id), "?1".to_owned()))
            .collect();
        store.apply(page).await.unwrap();
        let companies = (0..count).map(|id| {
            let text = id.to_string();
            let responsible = if id % 2 == 0 { "12" } else { "13" };
            (owned(Company, &text, responsible), vec![phone(id)])
        });
        store
            .apply(change(&sales(), Company, companies.collect()))
            .await
            .unwrap();
        let survey = store.survey().await.unwrap();
        let totals = (survey.shared.total, survey.left.total, survey.unread.total);
        assert_eq!(totals, (count / 2, count / 2, count));
        let most = Tally::<LeftCard>::MOST_SAMPLES;
        assert_eq!(survey.shared.samples.len(), most);
        assert_eq!(survey.left.samples.len(), most);
        assert_eq!(survey.unread.samples.len(), most);
    }
}

#[tokio::test]
async fn a_surveyor_keeps_the_last_survey() {
    for bench in benches() {
        let store = store_for_a_survey(&bench).await;
        let now = instant("2026-11-22T10:00:00Z");
        let surveyor = Arc::new(Surveyor::new(
            Arc::clone(&store),
            Arc::new(move || now),
            tokio::runtime::Handle::current(),
        ));
        assert!(surveyor.latest().is_none() && !surveyor.is_running());
        let lost = vec![(owned(Contact, "1", "99"), vec![phone(1)])];
        store.apply(change(&sales(), Contact, lost)).await.unwrap();
        assert!(surveyor.refresh());
        // Nothing has run meanwhile: this runtime has one thread.
        assert!(!surveyor.refresh() && surveyor.is_running());
        surveyor.ended().await;
        let latest = surveyor.latest().unwrap();
        assert_eq!((latest.survey.left.total, latest.at), (1, now));
        assert!(surveyor.error().is_none());
        assert!(surveyor.refresh());
        let next = surveyor.after(Some(&latest)).await;
        surveyor.ended().await;
        assert!(!Arc::ptr_eq(&next, &latest));
        assert_eq!((surveyor.latest(), &next), (Some(latest), &next));
        assert!(Arc::ptr_eq(&surveyor.after(None).await, &next));
    }
}

#[tokio::test]
async fn a_day_keeps_the_last_of_its_findings() {
    for bench in benches() {
        let found = |left| Findings {
            shared: 1,
            left,
            unread: 3,
            without_extension: 4,
        };
        {
            let store = bench.open();
            assert_eq!(store.findings(i64::MIN).await.unwrap(), []);
            for (day, left) in [(20_779, 7), (20_780, 5), (20_778, 9), (20_780, 6)] {
                store.keep_findings(day, found(left)).await.unwrap();
            }
        }
        let store = bench.open();
        let all = [(20_778, found(9)), (20_779, found(7)), (20_780, found(6))];
        assert_eq!(store.findings(0).await.unwrap(), all);
        assert_eq!(store.findings(20_779).await.unwrap(), all[1..]);
        assert_eq!(store.findings(20_781).await.unwrap(), []);
    }
}

#[tokio::test]
async fn findings_of_the_newest_days_are_kept() {
    for bench in benches() {
        let store = bench.open();
        let kept = i64::from(Findings::DAYS_KEPT);
        for day in 0..kept + 3 {
            let found = Findings {
                shared: day.unsigned_abs(),
                ..Findings::default()
            };
            store.keep_findings(day, found).await.unwrap();
        }
        let days = async || {
            let kept = store.findings(0).await.unwrap();
            kept.iter().map(|(day, _)| *day).collect::<Vec<_>>()
        };
        assert_eq!(days().await, (3..kept + 3).collect::<Vec<_>>());
        // A clock that ran far ahead for a day costs one day.
        let ahead = kept + 100_000;
        store
            .keep_findings(ahead, Findings::default())
            .await
            .unwrap();
        let left: Vec<_> = (4..kept + 3).chain([ahead]).collect();
        assert_eq!(days().await, left);
    }
}

/// What each format has added, newest first, by the format before it.
const ADDED: [(i64, &[&str]); 4] = [
    (4, &["findings"]),
    (3, &["own_rows", "unread"]),
    (2, &["departments"]),
    (1, &["notices", "news"]),
];

/// The index of numbers as format 6 had it; format 5 had the first two columns alone.
const OLD_PHONES: &str = "
CREATE TABLE phones (
    phone INTEGER NOT NULL, entity INTEGER NOT NULL, source INTEGER NOT NULL, id ANY NOT NULL,
    name TEXT NOT NULL, company TEXT, responsible ANY, modified ANY, stage INTEGER NOT NULL,
    links ANY, fields TEXT, PRIMARY KEY (phone, entity)
) STRICT, WITHOUT ROWID;
DROP TABLE callers;
DROP TABLE crowded;
PRAGMA user_version = 6;
";
const BARE_PHONES: &str = "
ALTER TABLE phones RENAME TO new_phones;
CREATE TABLE phones (
    phone INTEGER NOT NULL, entity INTEGER NOT NULL, PRIMARY KEY (phone, entity)
) STRICT, WITHOUT ROWID;
INSERT INTO phones SELECT phone, entity FROM new_phones;
DROP TABLE new_phones;
PRAGMA user_version = 5;
";

/// Makes a file of the present format one of format 6.
fn go_back(by_hand: &rusqlite::Connection) {
    by_hand.execute_batch(OLD_PHONES).unwrap();
    let mut read = by_hand
        .prepare("SELECT entity, phones FROM entities WHERE phones IS NOT NULL")
        .unwrap();
    let mut put = by_hand
        .prepare(
            "INSERT INTO phones SELECT ?1, entity, source, id, name, company, responsible, modified,
                stage, links, fields FROM entities WHERE entity = ?2",
        )
        .unwrap();
    let mut rows = read.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let packed: Vec<u8> = row.get(1).unwrap();
        for bytes in packed.chunks(7) {
            let mut number = [0; 8];
            number[..7].copy_from_slice(bytes);
            put.execute((i64::from_le_bytes(number), row.get::<_, i64>(0).unwrap()))
                .unwrap();
        }
    }
}

/// The rows of numbers, and those of crowded ones.
type Index = (Vec<(i64, Vec<u8>)>, Vec<(i64, i64)>);

/// What lies under the numbers.
fn index(file: &Path) -> Index {
    let by_hand = rusqlite::Connection::open(file).unwrap();
    let mut callers = by_hand.prepare("SELECT phone, cards FROM callers").unwrap();
    let callers = callers.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let mut crowded = by_hand
        .prepare("SELECT phone, entity FROM crowded")
        .unwrap();
    let crowded = crowded.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    (
        callers.unwrap().map(Result::unwrap).collect(),
        crowded.unwrap().map(Result::unwrap).collect(),
    )
}

/// Puts more into a store than plain contacts: numbers of several cards, of many, and a full card.
async fn enrich(store: &Arc<dyn Directory>) {
    let mut full = linked(Lead, "L-1", &[(Contact, "1"), (Company, "2")]);
    full.company = Some("ООО «Ромашка»".to_owned());
    full.responsible = Some(EmployeeId::new("502"));
    full.modified = Some(instant("2026-11-22T10:00:00.25Z"));
    full.stage = Stage::Closed;
    full.fields = BTreeMap::from([("VIP".to_owned(), "да".to_owned())]);
    let mut leads = vec![(full, vec![phone(1), phone(5000)])];
    leads.extend((0..20).map(|id| {
        let phones = match id {
            0..8 => vec![phone(6000), phone(6001), phone(6002)],
            8 => vec![phone(6001), phone(6002)],
            _ => vec![phone(6002)],
        };
        (linked(Lead, &id.to_string(), &[(Company, "2")]), phones)
    }));
    store.apply(change(&sales(), Lead, leads)).await.unwrap();
}

#[tokio::test]
async fn an_older_index_of_numbers_is_taken_over_whole() {
    for bare in ["", BARE_PHONES] {
        let (bench, file) = embedded().await;
        enrich(&bench.open()).await;
        let before = index(&file);
        assert_eq!(before.0.len(), 1004);
        assert_eq!(before.1.len(), 9 + 20);
        let by_hand = rusqlite::Connection::open(&file).unwrap();
        go_back(&by_hand);
        by_hand.execute_batch(bare).unwrap();
        drop(by_hand);
        let store = bench.open();
        assert_eq!(names(&store, phone(5000)).await, ["L-1"]);
        assert_eq!(names(&store, phone(6002)).await.len(), 20);
        drop(store);
        assert_eq!(index(&file), before);
    }
}

#[tokio::test]
async fn every_older_format_is_taken_over() {
    // Format 6 had all tables, format 5 too, each older one lacks some.
    for formats in std::iter::once(None).chain((0..=ADDED.len()).map(Some)) {
        let (bench, file) = embedded().await;
        let by_hand = rusqlite::Connection::open(&file).unwrap();
        go_back(&by_hand);
        if formats.is_some() {
            by_hand.execute_batch(BARE_PHONES).unwrap();
        }
        for (format, tables) in &ADDED[..formats.unwrap_or_default()] {
            for table in *tables {
                by_hand.execute(&format!("DROP TABLE {table}"), []).unwrap();
            }
            by_hand.pragma_update(None, "user_version", format).unwrap();
        }
        drop(by_hand);
        let rules = plain_rules(&[sales()]);
        let store = open(bench.kind, bench.folder.path(), rules).unwrap();
        assert_eq!(names(&store, phone(1)).await, ["a"]);
        let now = instant("2026-11-22T10:00:00Z");
        let staff = vec![employee("11", None)];
        store
            .replace_employees(&sales(), staff.into(), now)
            .await
            .unwrap();
        let row = Some(own_extension("501"));
        store
            .set_own_row(&sales(), &EmployeeId::new("11"), row)
            .await
            .unwrap();
        let mut lost = change(&sales(), Contact, vec![(owned(Contact, "1", "11"), vec![])]);
        lost.unread = vec![(EntityId::new("1"), "lost".to_owned())];
        store.apply(lost).await.unwrap();
        let survey = store.survey().await.unwrap();
        assert_eq!(survey.unread.total, 1);
        let findings = Findings::of(&survey, &store.roster());
        store.keep_findings(20_779, findings).await.unwrap();
        drop(store);
        let store = bench.open();
        assert_eq!(store.own_rows().await.unwrap().len(), 1);
        assert_eq!(store.findings(0).await.unwrap(), [(20_779, findings)]);
    }
}

#[tokio::test]
async fn a_row_that_can_no_longer_be_read_harms_nobody() {
    let (bench, file) = embedded().await;
    let rules = plain_rules(&[sales()]);
    let now = instant("2026-11-22T10:00:00Z");
    {
        let store = open(bench.kind, bench.folder.path(), rules.clone()).unwrap();
        let staff = vec![employee("11", Some("101")), employee("12", Some("102"))];
        store
            .replace_employees(&sales(), staff.into(), now)
            .await
            .unwrap();
        for id in ["11", "12"] {
            let row = Some(own_extension("501"));
            let id = EmployeeId::new(id);
            store.set_own_row(&sales(), &id, row).await.unwrap();
        }
    }
    let by_hand = rusqlite::Connection::open(&file).unwrap();
    by_hand
        .execute_batch(
            "UPDATE own_rows SET json = '{\"colour\": 1}' WHERE id = '11';
            UPDATE own_rows SET json = '{\"hours\": \"nine to five\", \"mobile\": \"+79160000077\"}'
                WHERE id = '12'",
        )
        .unwrap();
    drop(by_hand);
    let store = open(bench.kind, bench.folder.path(), rules).unwrap();
    let roster = store.roster();
    let of = |id: &str| Arc::clone(roster.get(&sales(), &EmployeeId::new(id)).unwrap());
    assert_eq!(of("11").extension.as_ref().unwrap().as_str(), "101");
    assert_eq!(of("11").own_row, None);
    assert_eq!(of("12").mobiles, [phone(77)]);
    assert!(of("12").hours.is_none());
}
