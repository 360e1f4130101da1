//! A disk that fills up, and one that becomes read-only, under a running daemon: a file system of a
//! few megabytes in a namespace of the daemon's own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use pryamo::directory::{KINDS, Opening, RosterRules};
use pryamo::record::{CrmName, EntityKind};

use crate::daemon::{Daemon, Site, wait_for};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::world::{SharedWorld, World, call_of, client};

const CARDS: u64 = 300;

/// Starts a daemon whose `data_dir` is a file system of four megabytes.
fn start_on_a_small_disk(site: &Site) -> Daemon {
    let data = site.path("data");
    std::fs::create_dir(&data).unwrap();
    let log = std::fs::File::create(site.path("daemon.log")).unwrap();
    let script = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; mount -t tmpfs -o size=4m,mode=700 none \"$0\" && exec \"$@\"";
    let process = Command::new("unshare")
        .args(["--map-root-user", "--mount", "/bin/sh", "-c", script])
        .arg(&data)
        .arg(env!("CARGO_BIN_EXE_pryamo"))
        .arg("serve")
        .arg("--config")
        .arg(site.config())
        .current_dir(site.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .stderr(log)
        .spawn()
        .unwrap();
    let daemon = Daemon::of(site, process);
    wait_for("/readyz", || {
        (daemon.get("/readyz").status == 200).then_some(())
    });
    daemon
}

/// The daemon's `data_dir` as it sees it.
fn inside(daemon: &Daemon, site: &Site) -> PathBuf {
    let path = site.path("data");
    PathBuf::from(format!("/proc/{}/root{}", daemon.id(), path.display()))
}

/// Makes the store's files as unwritable as a file system that went read-only makes them: whoever has
/// them open is refused too.
fn freeze(site: &Site, how: &str) {
    let files = ["directory.sqlite", "directory.sqlite-wal"];
    let done = Command::new("chattr")
        .arg(how)
        .args(files.map(|name| site.path("data").join(name)))
        .status()
        .unwrap();
    assert!(done.success(), "chattr {how} wants root");
}

/// Lets the files be removed, however the test ends.
struct Frozen<'a>(&'a Site);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        freeze(self.0, "-i");
    }
}

fn fill(path: &std::path::Path) {
    let mut ballast = std::fs::File::create(path).unwrap();
    let block = vec![1_u8; 4096];
    while ballast.write_all(&block).is_ok() {}
}

/// What `/readyz` says of the contacts' last failure.
fn told(daemon: &Daemon) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(&daemon.get("/readyz").body).unwrap();
    let mirrors = body["mirrors"].as_array().unwrap();
    let contacts = mirrors.iter().find(|mirror| mirror["kind"] == "contact");
    contacts.unwrap()["error"].as_str().map(str::to_owned)
}

/// Calls of every known client, each answered as before.
fn all_are_answered(daemon: &Daemon, moved: u64) {
    for id in 1..=CARDS {
        let expected = if id <= moved { "102" } else { "101" };
        let rung = daemon.rings(&call_of(id));
        assert_eq!(rung.as_deref(), Some(expected), "client {id}");
    }
}

/// The first clients get another responsible.
fn move_clients(world: &SharedWorld, count: u64, modified: i64) {
    let mut world = world.write().unwrap();
    for entry in world.contacts.iter_mut().filter(|entry| entry.id <= count) {
        entry.responsible = 2;
        entry.modified = modified;
    }
    // More than fits into what is left of the log.
    let last = world.contacts.last().unwrap().id;
    for id in last + 1..=last + 2000 {
        world.contacts.push(client(id, modified));
    }
}

async fn portal(world: &SharedWorld) -> (FakeBitrix24, Site) {
    let options = Options {
        per_second: 1000.0,
        ..Options::default()
    };
    let fake = FakeBitrix24::start(SharedWorld::clone(world), options).await;
    let config = format!(
        "[match]\nlive_lookup_ms = 0\n[sync]\nchanges_every_seconds = 1\n[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nlimits = {{ requests_per_second = 1000 }}\nurl = \"{}\"\n",
        fake.url()
    );
    (fake, Site::new(&config))
}

fn wait_for_changes(daemon: &Daemon, moved: u64) {
    wait_for("the changes to arrive", || {
        (daemon.rings(&call_of(moved)).as_deref() == Some("102")).then_some(())
    });
    wait_for("the trouble to be over", || {
        told(daemon).is_none().then_some(())
    });
    all_are_answered(daemon, moved);
}

/// Opens a copy of the store as it lies on the disk now.
async fn whole_cards(daemon: &Daemon, site: &Site, data: &std::path::Path) -> u64 {
    daemon.signal("STOP");
    let copy = site.path("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(data).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    daemon.signal("CONT");
    let opening = Opening {
        data_dir: copy,
        rules: RosterRules::default(),
    };
    let store = (KINDS[0].open)(toml::Table::new(), opening).unwrap();
    let counts = store.counts().await.unwrap();
    let contacts = counts
        .iter()
        .find(|count| count.kind == EntityKind::Contact && count.crm == CrmName::new("sales"));
    contacts.unwrap().cards
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_no_call_and_damages_nothing() {
    let world = World::office(CARDS).shared();
    let (fake, site) = portal(&world).await;
    let daemon = start_on_a_small_disk(&site);
    all_are_answered(&daemon, 0);

    let ballast = inside(&daemon, &site).join("ballast");
    fill(&ballast);
    move_clients(&world, 10, fake.clock());
    let error = wait_for("the full disk to be told", || told(&daemon));
    assert!(error.contains("full"), "{error}");
    daemon.logged("it answers with what it has");
    all_are_answered(&daemon, 0);

    std::fs::remove_file(&ballast).unwrap();
    wait_for_changes(&daemon, 10);
    let data = inside(&daemon, &site);
    assert_eq!(whole_cards(&daemon, &site, &data).await, CARDS + 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_stops_no_call_and_damages_nothing() {
    let world = World::office(CARDS).shared();
    let (fake, site) = portal(&world).await;
    let daemon = Daemon::start(&site);
    all_are_answered(&daemon, 0);

    freeze(&site, "+i");
    let frozen = Frozen(&site);
    move_clients(&world, 20, fake.clock());
    let error = wait_for("the read-only disk to be told", || told(&daemon));
    assert!(error.contains("disk I/O error"), "{error}");
    all_are_answered(&daemon, 0);

    drop(frozen);
    wait_for_changes(&daemon, 20);
    let data = site.path("data");
    assert_eq!(whole_cards(&daemon, &site, &data).await, CARDS + 2000);
}
