//! Walks over all cards while calls come in, and parts that keep their own pace.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::daemon::{Daemon, Line, Site, value, wait_for};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::world::{Entry, LONG_AGO, SharedWorld, World, call_of};

const CONTACTS: u64 = 4000;
const COMPANY: &str = "phone=84951112233&trunk=s&callid=1";

fn world() -> SharedWorld {
    let company = Entry {
        id: 9,
        name: "Ромашка".to_owned(),
        responsible: 1,
        phones: vec!["8 (495) 111-22-33".to_owned()],
        modified: LONG_AGO,
        ..Entry::default()
    };
    World {
        companies: vec![company],
        ..World::office(CONTACTS)
    }
    .shared()
}

async fn slow_portal(world: &SharedWorld) -> (FakeBitrix24, Site) {
    let options = Options {
        page_ms: 100.0,
        per_second: 20.0,
        ..Options::default()
    };
    let fake = FakeBitrix24::start(SharedWorld::clone(world), options).await;
    let config = format!(
        "[match]\nlive_lookup_ms = 0\n[sync]\nchanges_every_seconds = 1\n[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nbatch_pages = 10\nlimits = {{ requests_per_second = 20.0 }}\nurl = \"{}\"\n",
        fake.url()
    );
    (fake, Site::new(&config))
}

/// What the daemon says of the contacts' walk.
fn is_walking(daemon: &Daemon, site: &Site) -> bool {
    let token = std::fs::read_to_string(site.path("data").join("control.token")).unwrap();
    let request = format!(
        "GET /api/v1/sync HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let body = daemon.raw(request.as_bytes()).body;
    let statuses: serde_json::Value = serde_json::from_str(&body).unwrap();
    statuses[0]["kinds"]["contact"]["walking"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_walk_never_makes_a_lookup_miss() {
    let (_fake, site) = slow_portal(&world()).await;
    let daemon = Daemon::start(&site);
    let over = AtomicBool::new(false);
    let (ran, asked) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut line = Line::open(&daemon);
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                let id = asked % CONTACTS + 1;
                let answer = line.forward(&call_of(id));
                assert_eq!(
                    value(&answer, "number").as_deref(),
                    Some("101"),
                    "client {id}"
                );
                asked += 1;
                // Asterisk asks hundreds a second at most.
                std::thread::sleep(Duration::from_millis(1));
            }
            asked
        });
        let ran = site.run(&["sync", "--full"]);
        over.store(true, Ordering::Relaxed);
        (ran, asking.join().unwrap())
    });
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains("sales: contact: up to date, 4000 cards"),
        "{}",
        ran.out
    );
    println!("{asked} calls while all cards were walked over again");
    assert!(asked > 1000, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_walk_over_one_kind_holds_up_no_other() {
    let world = world();
    let (fake, site) = slow_portal(&world).await;
    let daemon = Daemon::start(&site);
    let ordered = std::thread::scope(|scope| {
        let ordered = scope.spawn(|| site.run(&["sync", "--full"]));
        wait_for("the walk", || is_walking(&daemon, &site).then_some(()));
        {
            let mut world = world.write().unwrap();
            world.companies[0].responsible = 2;
            world.companies[0].modified = fake.clock();
        }
        wait_for("the company's new responsible", || {
            (daemon.rings(COMPANY).as_deref() == Some("102")).then_some(())
        });
        assert!(is_walking(&daemon, &site), "the walk is still under way");
        ordered.join().unwrap()
    });
    assert_eq!(ordered.code, 0, "{ordered:?}");
}
