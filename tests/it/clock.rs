//! The machine's clock jumps, by a day, a year, back again: calls, changes, notices and the journal
//! go on. The clock is libfaketime's (package `faketime`), read anew at each look; what counts time
//! that passes is left alone, as it is by a real jump.

use crate::daemon::{Daemon, Site, posting, wait_for};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::world::{Happened, List, SharedWorld, What, World, call_of};

const SECRET: &str = "made-up-secret";
/// What the package's own command preloads, on the machines that Debian is built for.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
const JUMPS: [&str; 7] = ["+0", "+1d", "+0", "-1d", "+365d", "-2h", "+0"];

/// Whom a client rings.
fn rung(daemon: &Daemon, client: u64) -> Option<String> {
    daemon.rings(&call_of(client))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_costs_no_call_and_no_change() {
    let world = World::office(50).shared();
    let fake = FakeBitrix24::start(SharedWorld::clone(&world), Options::default()).await;
    let site = Site::new(&format!(
        "[match]\nlive_lookup_ms = 0\n[sync]\nchanges_every_seconds = 2\n[[crm]]\nname = \"sales\"\n\
         kind = \"bitrix24\"\nhook_secret = \"{SECRET}\"\nurl = \"{}\"\n",
        fake.url()
    ));
    let jump = |to: &str| std::fs::write(site.path("clock"), to).unwrap();
    jump("+0");
    let library = LIBRARIES
        .iter()
        .find(|path| std::path::Path::new(path).exists());
    let environment = [
        (
            "LD_PRELOAD",
            library.expect("libfaketime; see tests/install").to_string(),
        ),
        (
            "FAKETIME_TIMESTAMP_FILE",
            site.path("clock").display().to_string(),
        ),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let daemon = Daemon::start_in(&site, &environment);
    wait_for("the first mirror", || {
        (daemon.get("/readyz").status == 200).then_some(())
    });
    for (place, to) in JUMPS.into_iter().enumerate() {
        jump(to);
        for client in 1..=50 {
            assert!(
                rung(&daemon, client).is_some_and(|rung| !rung.is_empty()),
                "{to}"
            );
        }
        // One change is only asked for, of the other a notice tells.
        for (client, is_told) in [(1 + 2 * place as u64, false), (2 + 2 * place as u64, true)] {
            let former = give_to_another(&fake, &world, client);
            if is_told {
                tell(&daemon, &fake, client, former);
            }
            wait_for(
                &format!("the change of client {client} behind {to}"),
                || (rung(&daemon, client) == Some((100 + 3 - former).to_string())).then_some(()),
            );
        }
    }
    // The year ahead has taken nothing from the journal.
    let calls = u64::try_from(JUMPS.len()).unwrap() * 50;
    wait_for("every call in the journal", || {
        let listed = site.run(&["journal", "--limit", "5000", "--json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed.out).ok()?;
        (listed.as_array()?.len() as u64 >= calls).then_some(())
    });
    assert_eq!(fake.violations(), Vec::<String>::new());
}

/// Changes whose client somebody is; gives the former one.
fn give_to_another(fake: &FakeBitrix24, world: &SharedWorld, client: u64) -> u64 {
    let mut world = world.write().unwrap();
    let entry = &mut world.contacts[usize::try_from(client - 1).unwrap()];
    let former = entry.responsible;
    entry.responsible = 3 - former;
    entry.modified = fake.clock();
    former
}

fn tell(daemon: &Daemon, fake: &FakeBitrix24, client: u64, former: u64) {
    let happened = Happened {
        list: List::Contacts,
        id: client,
        what: What::Reassigned(former),
    };
    let target = format!("/hooks/sales/{SECRET}");
    for (kind, body) in fake.hook_bodies(&happened) {
        let answer = daemon.raw(&posting(&target, &kind, body.as_bytes()));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}
