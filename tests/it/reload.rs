//! The configuration read again: by SIGHUP and by `pryamo reload`, while calls come.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Ran, Site, ask, free_address, posting, raw, request, value, wait_for};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::world::{Happened, List, SharedWorld, What, World, call_of};

const CLIENTS: &str = "\
id;kind;name;phone;responsible;extension
1;contact;Иван Петров;79161234501;Анна Соколова;101
2;contact;Мария Весна;79161234502;Борис Жуков;102
";
const LIST: &str =
    "[fastagi]\nlisten = \"\"\n[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n";
const TAKEN: &str = "the configuration was read again";
const REFUSED: &str = "nothing has changed";

fn site() -> Site {
    let site = Site::new(LIST);
    std::fs::write(site.path("clients.csv"), CLIENTS).unwrap();
    site
}

fn reload(site: &Site) -> Ran {
    let ran = site.run(&["reload"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

fn lines_with(daemon: &Daemon, text: &str) -> usize {
    daemon
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

/// Sends SIGHUP and waits for the line that says what came of it.
fn hang_up(daemon: &Daemon, expected: &str) {
    let before = lines_with(daemon, expected);
    daemon.signal("HUP");
    wait_for(expected, || {
        (lines_with(daemon, expected) > before).then_some(())
    });
}

/// Calls over new connections as fast as they are answered, until `done`; gives how many there were.
fn call_on(daemon: &Daemon, done: &AtomicBool) -> usize {
    let mut calls = 0;
    let mut rings = BTreeSet::new();
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        let query = format!("/forward?phone=79161234501&trunk=s&callid={calls}");
        let answer = ask(daemon.address, &request("GET", &query)).expect("no call is lost");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "call {calls} took {took:?}");
        assert_eq!(answer.status, 200);
        assert_eq!(value(&answer.body, "number").as_deref(), Some("101"));
        rings.extend(value(&answer.body, "ring"));
        calls += 1;
    }
    assert!(rings.len() > 1, "no reload was seen: {rings:?}");
    calls
}

#[test]
fn no_call_is_lost_wrong_or_slow_while_the_configuration_is_read_again() {
    let site = site();
    let daemon = Daemon::start(&site);
    let done = AtomicBool::new(false);
    let calls: usize = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| call_on(&daemon, &done)))
            .collect();
        for round in 0..30 {
            // The table of the list changes each time too: its mirror is made anew.
            site.configure(&format!(
                "[route]\nring_seconds = {}\n{LIST}limit_share = 0.{}\n",
                20 + round,
                1 + round % 9
            ));
            if round % 2 == 0 {
                hang_up(&daemon, TAKEN);
            } else {
                let token = std::fs::read_to_string(site.path("data/control.token")).unwrap();
                let request = format!(
                    "POST /api/v1/reload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                let answer = raw(daemon.address, request.as_bytes());
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
        done.store(true, Ordering::Relaxed);
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .sum()
    });
    println!("{calls} calls during 30 reloads");
    assert!(calls > 30, "{calls} calls");
    assert_eq!(daemon.metric("pryamo_reloads_total", "taken"), 30);
    let answered = daemon.metric("pryamo_answers_total", "");
    assert_eq!(answered, calls as u64);
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let site = site();
    let script = "fn route(incoming, candidates) { candidates }\n";
    std::fs::write(site.path("good.rhai"), script).unwrap();
    std::fs::write(site.path("bad.rhai"), "fn route(incoming {\n").unwrap();
    let daemon = Daemon::start(&site);
    let change = "[route]\nring_seconds = 33\n";
    for (bad, named) in [
        ("[[crm\n", "is no TOML"),
        ("[forwrad]\n", "did you mean `forward`"),
        ("[rules.script]\nfile = \"bad.rhai\"\n", "bad.rhai"),
        (
            "[ami]\nsecret_file = \"/nowhere/secret\"\n",
            "/nowhere/secret",
        ),
        (
            "[[crm]]\nname = \"b\"\nkind = \"bitrix24\"\nurl = \"nonsense\"\n",
            "crm `b`",
        ),
        (
            "[[crm]]\nname = \"b\"\nkind = \"csv\"\nfil = \"x\"\n",
            "did you mean `file`",
        ),
    ] {
        site.configure(&format!("{change}{LIST}{bad}"));
        hang_up(&daemon, REFUSED);
        // What the command below was told is written into the log too, and perhaps only now.
        wait_for(&format!("the log to name {named}"), || {
            let log = daemon.log();
            let told = log.lines().rfind(|line| line.contains(REFUSED))?;
            told.contains(named).then_some(())
        });
        let ran = site.run(&["reload"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(named), "{ran:?}");
        let answer = daemon.forward("phone=79161234501");
        assert_eq!(value(&answer, "ring").as_deref(), Some("20"), "{answer}");
    }
    site.configure(&format!(
        "{change}{LIST}[rules.script]\nfile = \"good.rhai\"\n"
    ));
    let ran = reload(&site);
    assert!(ran.out.contains("route.ring_seconds"), "{ran:?}");
    assert!(ran.out.contains("rules.script"), "{ran:?}");
    assert_eq!(
        value(&daemon.forward("phone=79161234501"), "ring").as_deref(),
        Some("33")
    );
}

#[test]
fn without_a_daemon_it_is_said_plainly() {
    let site = site();
    let ran = site.run(&["reload"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("no pryamo runs"), "{ran:?}");
    Daemon::start(&site).stop();
    let ran = site.run(&["reload"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("no pryamo answers"), "{ran:?}");
}

#[test]
fn an_extension_a_new_crm_and_a_removed_one_are_answered_at_once() {
    let site = site();
    let daemon = Daemon::start(&site);
    assert_eq!(daemon.rings("phone=79161234502").as_deref(), Some("102"));
    site.configure(&format!(
        "{LIST}[crm.employees]\n\"Борис Жуков\" = {{ extension = \"155\" }}\n"
    ));
    let ran = reload(&site);
    assert!(ran.out.contains("crm `list`: employees"), "{ran:?}");
    assert_eq!(daemon.rings("phone=79161234502").as_deref(), Some("155"));

    let other = "id;kind;name;phone;responsible;extension\n1;contact;Новый;79161234509;Глеб;109\n";
    std::fs::write(site.path("other.csv"), other).unwrap();
    site.configure(&format!(
        "{LIST}[[crm]]\nname = \"other\"\nkind = \"csv\"\nfile = \"other.csv\"\n"
    ));
    let ran = reload(&site);
    assert!(ran.out.contains("crm `other` (new)"), "{ran:?}");
    assert_eq!(daemon.rings("phone=79161234502").as_deref(), Some("102"));
    wait_for("the new CRM's client", || daemon.rings("phone=79161234509"));

    site.configure(LIST);
    let ran = reload(&site);
    assert!(ran.out.contains("crm `other` (gone)"), "{ran:?}");
    assert_eq!(daemon.rings("phone=79161234509"), None);
    assert_eq!(daemon.rings("phone=79161234501").as_deref(), Some("101"));
    let readyz = daemon.get("/readyz");
    assert_eq!(readyz.status, 200, "{}", readyz.body);
    assert!(!readyz.body.contains("other"), "{}", readyz.body);
    assert_eq!(reload(&site).out, "nothing to take over\n");
}

#[test]
fn keys_that_wait_for_a_restart_are_named_and_the_rest_is_taken_over() {
    let site = site();
    let mut daemon = Daemon::start(&site);
    let address = free_address();
    let config = format!(
        "data_dir = '{}'\n[forward]\nlisten = \"{address}\"\nthreads = 3\n[route]\nring_seconds = 44\n[journal]\ndays = 5\n{LIST}",
        site.path("data").display(),
    );
    std::fs::write(site.config(), config).unwrap();
    // The daemon is found where it listens, not where it will.
    let ran = reload(&site);
    let (taken, waiting) = ran.out.split_once("waits for a restart:").unwrap();
    assert!(taken.contains("route.ring_seconds"), "{ran:?}");
    for key in ["forward.listen", "forward.threads", "journal.days"] {
        assert!(waiting.contains(key) && !taken.contains(key), "{ran:?}");
    }
    daemon.logged("waits for a restart");
    let ring = |body: &str| value(body, "ring");
    assert_eq!(
        ring(&daemon.forward("phone=79161234501")).as_deref(),
        Some("44")
    );
    daemon.stop();
    let site = Site { address, ..site };
    let daemon = Daemon::start(&site);
    assert_eq!(
        ring(&daemon.forward("phone=79161234501")).as_deref(),
        Some("44")
    );
    assert_eq!(reload(&site).out, "nothing to take over\n");
}

/// A portal that is asked only at the start and when it tells of a change.
struct Portal {
    world: SharedWorld,
    fake: FakeBitrix24,
    site: Site,
}

impl Portal {
    async fn open() -> Self {
        let world = World::office(20).shared();
        let options = Options {
            per_second: 1000.0,
            ..Options::default()
        };
        let fake = FakeBitrix24::start(SharedWorld::clone(&world), options).await;
        let portal = Self {
            world,
            fake,
            site: Site::new(""),
        };
        portal.configure("", "made-up-secret", "");
        portal
    }

    fn configure(&self, before: &str, secret: &str, in_table: &str) {
        self.site.configure(&format!(
            "[fastagi]\nlisten = \"\"\n[match]\nlive_lookup_ms = 0\n[sync]\nchanges_every_seconds = 86400\n\
             employees_every_seconds = 86400\n{before}[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\n\
             limits = {{ requests_per_second = 1000 }}\nhook_secret = \"{secret}\"\nurl = \"{}\"\n{in_table}",
            self.fake.url()
        ));
    }

    /// Gives a client to the other employee and tells the daemon of it; gives the last status.
    fn reassign(&self, daemon: &Daemon, id: u64, secret: &str) -> u16 {
        {
            let mut world = self.world.write().unwrap();
            let entry = world
                .contacts
                .iter_mut()
                .find(|entry| entry.id == id)
                .unwrap();
            entry.responsible = 2;
            entry.modified = self.fake.clock();
        }
        let happened = Happened {
            list: List::Contacts,
            id,
            what: What::Reassigned(1),
        };
        let path = format!("/hooks/sales/{secret}");
        let mut status = 0;
        for (content_type, body) in self.fake.hook_bodies(&happened) {
            let bytes = posting(&path, &content_type, body.as_bytes());
            status = raw(daemon.address, &bytes).status;
        }
        status
    }

    fn wait_until_moved(daemon: &Daemon, id: u64) {
        wait_for(&format!("client {id} to ring 102"), || {
            (daemon.rings(&call_of(id)).as_deref() == Some("102")).then_some(())
        });
    }

    fn employees_read(&self) -> usize {
        let requests = self.fake.requests();
        let asks = |text: &String| text.starts_with("user.get");
        let is_it = |one: &&crate::fake_bitrix24::Request| {
            asks(&one.method) || one.commands.iter().any(asks)
        };
        requests.iter().filter(is_it).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crm_that_did_not_change_goes_on_and_a_changed_one_begins_anew() {
    let portal = Portal::open().await;
    let daemon = Daemon::start(&portal.site);
    let (before, read) = (portal.fake.requests().len(), portal.employees_read());
    assert!(read > 0);
    for round in 0..5 {
        let route = format!("[route]\nring_seconds = {}\n", 30 + round);
        portal.configure(&route, "made-up-secret", "did = [\"*\"]\n");
        reload(&portal.site);
    }
    assert_eq!(portal.reassign(&daemon, 3, "made-up-secret"), 200);
    Portal::wait_until_moved(&daemon, 3);
    // Whatever the reloads had asked for would have come before.
    let asked = portal.fake.requests().len() - before;
    assert!((1..=2).contains(&asked), "{asked} requests for one notice");
    assert_eq!(portal.employees_read(), read);
    // A changed table: the mirror is made anew and asks once.
    portal.configure("", "made-up-secret", "limit_share = 0.5\n");
    let ran = reload(&portal.site);
    assert!(ran.out.contains("crm `sales`: did, limit_share"), "{ran:?}");
    wait_for("the employees to be read again", || {
        (portal.employees_read() > read).then_some(())
    });
    assert_eq!(portal.reassign(&daemon, 4, "made-up-secret"), 200);
    Portal::wait_until_moved(&daemon, 4);
    assert_eq!(daemon.get("/readyz").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hooks_changed_secret_opens_its_door_and_the_former_one_no_longer() {
    let portal = Portal::open().await;
    let daemon = Daemon::start(&portal.site);
    portal.configure("", "another-secret", "");
    let ran = reload(&portal.site);
    assert!(ran.out.contains("crm `sales`: hook_secret"), "{ran:?}");
    assert!(!ran.out.contains("another-secret"), "{ran:?}");
    assert_eq!(portal.reassign(&daemon, 5, "made-up-secret"), 404);
    assert_eq!(portal.reassign(&daemon, 6, "another-secret"), 200);
    Portal::wait_until_moved(&daemon, 6);
    assert!(!daemon.log().contains("another-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_that_come_while_mirrors_are_replaced_are_not_lost() {
    let portal = Portal::open().await;
    let daemon = Daemon::start(&portal.site);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u32.. {
                let table = format!("limit_share = 0.{}\n", 5 + round % 5);
                portal.configure("", "made-up-secret", &table);
                reload(&portal.site);
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for id in 1..=20 {
            assert_eq!(portal.reassign(&daemon, id, "made-up-secret"), 200);
        }
        done.store(true, Ordering::Relaxed);
    });
    for id in 1..=20 {
        Portal::wait_until_moved(&daemon, id);
    }
}
