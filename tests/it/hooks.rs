//! What CRMs send to `/hooks`, and what becomes of it. The portal's own check for changes is put off
//! for a day, so that whatever arrives here came by a notice.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::daemon::{Answer, Daemon, Site, free_address, posting, raw, request, wait_for};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::world::{Happened, List, SharedWorld, What, World, call_of};

const CONTACTS: u64 = 100;
const SECRET: &str = "made-up-secret";

/// A portal, and a daemon that learns of changes from notices alone.
struct Office {
    world: SharedWorld,
    fake: FakeBitrix24,
    site: Site,
}

impl Office {
    async fn open(more: &str) -> Self {
        let world = World::office(CONTACTS).shared();
        let options = Options {
            per_second: 1000.0,
            ..Options::default()
        };
        let fake = FakeBitrix24::start(SharedWorld::clone(&world), options).await;
        let config = format!(
            "{more}[match]\nlive_lookup_ms = 0\n[sync]\nchanges_every_seconds = 86400\n\
             second_look_seconds = 1\n[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\n\
             limits = {{ requests_per_second = 1000 }}\nhook_secret = \"{SECRET}\"\nurl = \"{}\"\n",
            fake.url()
        );
        Self {
            world,
            fake,
            site: Site::new(&config),
        }
    }

    /// Tells the daemon of what has happened.
    fn tell(&self, address: SocketAddr, happened: Happened) {
        for (content_type, body) in self.fake.hook_bodies(&happened) {
            let answer = post(address, &hook(SECRET), &content_type, body.as_bytes());
            assert_eq!(answer.status, 200, "{body}");
        }
    }

    fn reassign(&self, id: u64) -> Happened {
        let mut world = self.world.write().unwrap();
        let found = world.contacts.iter_mut().find(|entry| entry.id == id);
        let entry = found.unwrap();
        entry.responsible = 2;
        entry.modified = self.fake.clock();
        happened(id, What::Reassigned(1))
    }

    fn delete(&self, id: u64) -> Happened {
        let mut world = self.world.write().unwrap();
        world.contacts.retain(|entry| entry.id != id);
        happened(id, What::Deleted)
    }
}

fn happened(id: u64, what: What) -> Happened {
    Happened {
        list: List::Contacts,
        id,
        what,
    }
}

fn hook(secret: &str) -> String {
    format!("/hooks/sales/{secret}")
}

fn post(address: SocketAddr, path: &str, content_type: &str, body: &[u8]) -> Answer {
    raw(address, &posting(path, content_type, body))
}

fn rings(daemon: &Daemon, id: u64) -> Option<String> {
    daemon.rings(&call_of(id))
}

fn wait_until(daemon: &Daemon, id: u64, expected: Option<&str>) {
    wait_for(&format!("contact {id} to ring {expected:?}"), || {
        (rings(daemon, id).as_deref() == expected).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_the_secret_learns_nothing_and_is_counted() {
    let office = Office::open("").await;
    let daemon = Daemon::start(&office.site);
    let form = "application/x-www-form-urlencoded";
    let (_, body) = office
        .fake
        .hook_bodies(&office.reassign(1))
        .into_iter()
        .next()
        .unwrap();
    let asked = |path: &str| post(daemon.address, path, form, body.as_bytes());
    let unknown = asked("/hooks/nobody/made-up-secret");
    assert_eq!(unknown.status, 404);
    for path in [
        hook("wrong"),
        hook(""),
        hook("made-up-secre"),
        "/hooks/sales".to_owned(),
    ] {
        let answer = asked(&path);
        assert_eq!(
            (answer.status, &answer.body),
            (404, &unknown.body),
            "{path}"
        );
    }
    let got = daemon.get(&hook(SECRET));
    assert_eq!((got.status, &got.body), (404, &unknown.body));
    assert_eq!(daemon.metric("pryamo_hooks_total", "wrong_secret"), 3);
    assert!(daemon.log().contains("wrong secret"), "{}", daemon.log());
    assert!(!daemon.log().contains("made-up"), "{}", daemon.log());
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(rings(&daemon, 1).as_deref(), Some("101"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_answered_at_once_and_survives_a_kill() {
    let office = Office::open("").await;
    let mut daemon = Daemon::start(&office.site);
    office.fake.set_mood(Mood::Hang);
    let asked_at = Instant::now();
    office.tell(daemon.address, office.reassign(7));
    let took = asked_at.elapsed();
    assert!(took < Duration::from_secs(2), "amoCRM waits 2 s: {took:?}");
    daemon.kill();
    office.fake.set_mood(Mood::Well);
    let daemon = Daemon::start_unready(&office.site);
    wait_until(&daemon, 7, Some("102"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_deleted_only_if_its_crm_says_so_and_no_longer_shows_it() {
    let office = Office::open("").await;
    let daemon = Daemon::start(&office.site);
    // Said to be deleted, but there.
    office.tell(daemon.address, happened(1, What::Deleted));
    // Gone, but only said to be changed.
    office.delete(2);
    office.tell(daemon.address, happened(2, What::Changed));
    // Both.
    office.tell(daemon.address, office.delete(3));
    wait_until(&daemon, 3, None);
    // Queued behind all of these.
    office.tell(daemon.address, office.reassign(4));
    wait_until(&daemon, 4, Some("102"));
    assert_eq!(rings(&daemon, 1).as_deref(), Some("101"));
    assert_eq!(rings(&daemon, 2).as_deref(), Some("101"));
    // The walk finds what no notice could prove.
    let ran = office.site.run(&["sync", "--full"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(rings(&daemon, 2), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_source_deletes_nothing_by_notices_either() {
    let office = Office::open("").await;
    let daemon = Daemon::start(&office.site);
    // The webhook's owner no longer sees the contacts, and everything is said to be deleted.
    office.world.write().unwrap().contacts.clear();
    for id in 1..=CONTACTS {
        office.tell(daemon.address, happened(id, What::Deleted));
    }
    wait_for("the alarm", || {
        let readyz = daemon.get("/readyz").body;
        readyz.contains("\"doubts_deletions\":true").then_some(())
    });
    wait_for("the queue to be empty", || {
        let waiting = daemon.get("/metrics").body;
        waiting
            .contains("pryamo_notices_waiting{crm=\"sales\"} 0")
            .then_some(())
    });
    let left = (1..=CONTACTS).filter(|id| rings(&daemon, *id).is_some());
    let left = left.count();
    assert!(left >= 80, "{left} contacts are left");
    assert_eq!(
        daemon.metric("pryamo_mirror_doubts_deletions", "contact"),
        1
    );
    let checked = office.site.run(&["check"]);
    assert!(
        checked.out.contains("--accept-deletions"),
        "{}",
        checked.out
    );
    assert!(daemon.log().contains("suspiciously"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_and_a_wrong_order_change_nothing() {
    let office = Office::open("").await;
    let daemon = Daemon::start(&office.site);
    let late: Vec<Happened> = (1..=20).map(|id| office.reassign(id)).collect();
    for happened in late.iter().rev().chain(&late).chain(late.iter().rev()) {
        office.tell(daemon.address, *happened);
    }
    for id in 1..=20 {
        wait_until(&daemon, id, Some("102"));
    }
    let reads = office
        .fake
        .requests()
        .iter()
        .filter(|request| request.commands.iter().any(|line| line.contains("%40ID")))
        .count();
    assert!(reads <= 20, "{reads} readings for 60 notices");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_notice_is_refused_and_harms_nobody() {
    let office = Office::open("").await;
    let daemon = Daemon::start(&office.site);
    let form = "application/x-www-form-urlencoded";
    let huge = vec![b'a'; 5 << 20];
    for (content_type, body, expected) in [
        (form, &b"\xff\xfe"[..], 400),
        (form, b"", 400),
        ("application/json", b"{", 400),
        (form, &huge[..], 413),
    ] {
        let answer = post(daemon.address, &hook(SECRET), content_type, body);
        assert_eq!(answer.status, expected, "{content_type}");
    }
    assert_eq!(rings(&daemon, 1).as_deref(), Some("101"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_may_have_an_address_of_their_own() {
    let own = free_address();
    let office = Office::open(&format!("[hooks]\nlisten = \"{own}\"\n")).await;
    let daemon = Daemon::start(&office.site);
    office.tell(own, office.reassign(9));
    wait_until(&daemon, 9, Some("102"));
    let form = "application/x-www-form-urlencoded";
    let asked = request("GET", &format!("/forward?{}", call_of(1)));
    assert_eq!(raw(own, &asked).status, 404);
    let there = post(daemon.address, &hook(SECRET), form, b"event=X");
    assert_eq!(there.status, 404);
}
