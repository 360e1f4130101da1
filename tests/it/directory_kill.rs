//! kill -9 at any moment loses nothing that was acknowledged and leaves nothing half done.
//!
//! The test runs itself again as a child, which stores pages and prints each one that the store has
//! acknowledged. This proves the recovery, not the order in which a disk writes: a kill keeps the
//! system's cache.
#![expect(clippy::print_stdout, reason = "a run that fails has told its seed")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pryamo::directory::{Change, Directory, KINDS, Opening, RosterRules, SyncState};
use pryamo::phone::E164;
use pryamo::record::{Card, CrmName, EntityId, EntityKind};

/// Set for the child alone: the folder to work in.
const FOLDER: &str = "PRYAMO_TEST_KILL_FOLDER";
/// Set for the child alone: the kind of store.
const KIND: &str = "PRYAMO_TEST_KILL_KIND";
const ROUNDS: u64 = 20;
/// Pages go round: page n takes the place of page n - GROUPS.
const GROUPS: u64 = 7;
const SEED: u64 = 0x5eed_2026_1122;

#[tokio::test]
async fn kill_at_any_moment_loses_nothing() {
    println!("seed {SEED:#x}");
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let mut seed = SEED;
        let mut acknowledged = 0;
        for round in 0..ROUNDS {
            let before = acknowledged;
            acknowledged = run_and_kill(kind.name, folder.path(), &mut seed).max(before);
            let store = open(kind.name, folder.path());
            let stored = stored_pages(&store).await;
            assert!(
                stored == acknowledged || stored == acknowledged + 1,
                "round {round}: {acknowledged} pages were acknowledged, {stored} are there"
            );
            for group in 0..GROUPS {
                check_group(&store, stored, group).await;
            }
            acknowledged = stored;
        }
        println!("{}: {acknowledged} pages in {ROUNDS} lives", kind.name);
        assert!(acknowledged > ROUNDS);
        if kind.name == "embedded" {
            let file = rusqlite::Connection::open(folder.path().join("directory.sqlite")).unwrap();
            let verdict: String = file
                .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                .unwrap();
            assert_eq!(verdict, "ok");
        }
    }
}

/// Not a test of its own: what the child does.
#[tokio::test]
async fn child_stores_pages_until_killed() {
    let (Some(folder), Some(kind)) = (std::env::var_os(FOLDER), std::env::var_os(KIND)) else {
        return;
    };
    let store = open(kind.to_str().unwrap(), Path::new(&folder));
    let mut page = stored_pages(&store).await;
    loop {
        page += 1;
        store.apply(change(page)).await.unwrap();
        // Past the test harness, which would keep the line to itself.
        writeln!(std::io::stdout(), "\nacknowledged {page}").unwrap();
    }
}

/// Lets a child live for a random while; the last page that it acknowledged.
fn run_and_kill(kind: &str, folder: &Path, seed: &mut u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("directory_kill::child_stores_pages_until_killed")
        .env(FOLDER, folder)
        .env(KIND, kind)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut pages = lines.filter_map(|line| {
        line.unwrap()
            .strip_prefix("acknowledged ")?
            .parse::<u64>()
            .ok()
    });
    let wanted = usize::try_from(random(seed) % 40).unwrap();
    let last = pages.by_ref().take(wanted + 1).last();
    // The moment itself, somewhere inside a commit or between two.
    std::thread::sleep(Duration::from_micros(random(seed) % 4000));
    child.kill().unwrap();
    let later = pages.last();
    child.wait().unwrap();
    later.or(last).expect("the child acknowledged a page")
}

fn open(kind: &str, folder: &Path) -> Arc<dyn Directory> {
    let kind = KINDS.iter().find(|row| row.name == kind).unwrap();
    let opening = Opening {
        data_dir: folder.to_owned(),
        rules: RosterRules::default(),
    };
    (kind.open)(toml::Table::new(), opening).expect("the store opens after a kill")
}

fn crm() -> CrmName {
    CrmName::new("sales")
}

/// Every fifth page is large, so that many kills fall inside a transaction.
fn cards_of(group: u64) -> u64 {
    if group.is_multiple_of(5) { 600 } else { 20 }
}

/// A number that card `card` has on page `page` and on no other.
fn phone(page: u64, card: u64) -> E164 {
    E164::from_digits(79_000_000_000 + page * 1000 + card).unwrap()
}

fn change(page: u64) -> Change {
    let group = page % GROUPS;
    let card = |number: u64| {
        let mut card = Card::new(EntityKind::Deal, EntityId::from(group * 1000 + number));
        card.name = page.to_string();
        card.links = vec![(EntityKind::Contact, EntityId::from(page))];
        (card, vec![phone(page, number)])
    };
    Change {
        crm: crm(),
        kind: EntityKind::Deal,
        cards: (0..cards_of(group)).map(card).collect(),
        walk: page,
        unread: Vec::new(),
        keep_newer: None,
        state: Some(SyncState {
            walk: page,
            cursor: Some(page.to_string()),
            ..SyncState::default()
        }),
    }
}

async fn stored_pages(store: &Arc<dyn Directory>) -> u64 {
    let state = store.sync_state(&crm(), EntityKind::Deal).await.unwrap();
    state.cursor.map_or(0, |cursor| cursor.parse().unwrap())
}

/// The newest page of a group is there to its last card, and nothing is left of the one before.
async fn check_group(store: &Arc<dyn Directory>, stored: u64, group: u64) {
    let Some(page) = (stored.saturating_sub(GROUPS - 1)..=stored)
        .rfind(|page| page % GROUPS == group && *page > 0)
    else {
        return;
    };
    for card in 0..cards_of(group) {
        let found = store.lookup(phone(page, card), false).await.unwrap();
        let names: Vec<_> = found.iter().map(|entity| entity.name.as_str()).collect();
        assert_eq!(names, [page.to_string()], "card {card} of page {page}");
        if let Some(before) = page.checked_sub(GROUPS) {
            let old = store.lookup(phone(before, card), false).await.unwrap();
            assert!(
                old.is_empty(),
                "card {card} still has its phone of page {before}"
            );
        }
    }
}

/// A small generator (splitmix64): the same moments each time, as far as a machine allows.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
