//! A day in little: calls all the time, changes, notices, reloads and open pages. Every answer is
//! right, and the memory stays where it is.
//!
//! `PRYAMO_TEST_SOAK` sets how many minutes it lasts (`make torture`: an hour); without it a moment.
#![expect(clippy::print_stdout, reason = "a soak tells its figures")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, PATIENCE, Site, ask, posting, raw, request, value, wait_for};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::messy::Dice;
use crate::page::{PASSWORD, Visitor, set_password};
use crate::world::{Happened, List, SharedWorld, What, World, call_of};

const MOMENT: Duration = Duration::from_secs(20);
const CONTACTS: u64 = 20_000;
const CALLS_PER_SECOND: u32 = 500;
const CALLERS: u32 = 5;
const PAGES: usize = 3;
const SECRET: &str = "made-up-secret";
/// Between two changes in the CRM.
const CHANGE_EVERY: Duration = Duration::from_millis(50);
const RELOAD_EVERY: Duration = Duration::from_secs(3);
const PAGE_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The mirror may be behind for so long.
const LATE: Duration = PATIENCE;
/// More than this is no longer flat: what caches and the allocator still take in the second half.
const MOST_GROWTH_PERCENT: u64 = 5;
/// What caches and the allocator still take in a moment.
const SOME_KIB: u64 = 16 * 1024;

/// Whose client somebody is, and since when.
#[derive(Clone, Copy)]
struct Known {
    responsible: u64,
    former: u64,
    since: Instant,
}

/// What goes on.
struct Soak {
    fake: FakeBitrix24,
    world: SharedWorld,
    site: Site,
    daemon: Daemon,
    known: RwLock<Vec<Known>>,
    over: AtomicBool,
    calls: AtomicU64,
    changes: AtomicU64,
    reloads: AtomicU64,
    pages: AtomicU64,
    /// KiB, at each look.
    memory: Mutex<Vec<u64>>,
}

#[expect(clippy::disallowed_methods, reason = "a knob of this test alone")]
fn lasts() -> Duration {
    std::env::var("PRYAMO_TEST_SOAK").map_or(MOMENT, |minutes| {
        Duration::from_secs(60 * minutes.parse::<u64>().expect("minutes"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_right_all_the_time_and_memory_stays_flat() {
    let soak = Soak::begin().await;
    let lasts = lasts();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let soak = &soak;
            scope.spawn(move || soak.call(Dice(u64::from(caller))));
        }
        for _ in 0..PAGES {
            scope.spawn(|| soak.look_on());
        }
        scope.spawn(|| soak.change());
        scope.spawn(|| soak.reload());
        scope.spawn(|| soak.weigh());
        while began.elapsed() < lasts {
            std::thread::sleep(LOOK_EVERY);
        }
        soak.over.store(true, Ordering::Release);
    });
    soak.judge(began.elapsed());
}

impl Soak {
    async fn begin() -> Self {
        let world = World::office(CONTACTS).shared();
        let options = Options {
            per_second: 1000.0,
            ..Options::default()
        };
        let fake = FakeBitrix24::start(SharedWorld::clone(&world), options).await;
        let site = Site::new(&format!(
            "[match]\nlive_lookup_ms = 0\n[sync]\nchanges_every_seconds = 2\nwalk_every_seconds = 20\n\
             [log]\nlevel = \"warn\"\n[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\n\
             limits = {{ requests_per_second = 1000 }}\nhook_secret = \"{SECRET}\"\nurl = \"{}\"\n",
            fake.url()
        ));
        let daemon = Daemon::start(&site);
        set_password(&site, "anna", "");
        let first = Known {
            responsible: 1,
            former: 1,
            since: Instant::now(),
        };
        Self {
            fake,
            world,
            site,
            daemon,
            known: RwLock::new(vec![first; usize::try_from(CONTACTS).unwrap()]),
            over: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            memory: Mutex::default(),
        }
    }

    /// Whether it is time to end; waits a while.
    fn goes_on(&self, pause: Duration) -> bool {
        std::thread::sleep(pause);
        !self.over.load(Ordering::Acquire)
    }

    /// One of those who call, each at a steady rate.
    fn call(&self, mut dice: Dice) {
        let pace = Duration::from_secs(1) * CALLERS / CALLS_PER_SECOND;
        let mut due = Instant::now();
        while self.goes_on(due.saturating_duration_since(Instant::now())) {
            due += pace;
            let client = 1 + dice.below(CONTACTS);
            let index = usize::try_from(client - 1).unwrap();
            let before = self.known.read().unwrap()[index];
            let question = request("GET", &format!("/forward?{}", call_of(client)));
            let answer = ask(self.address(), &question).expect("every call is answered");
            let after = self.known.read().unwrap()[index];
            let rung = value(&answer.body, "number");
            let own = |employee: u64| Some((100 + employee).to_string());
            let may_be_former = after.since.elapsed() < LATE;
            let is_right = rung == own(before.responsible)
                || rung == own(after.responsible)
                || (may_be_former && (rung == own(before.former) || rung == own(after.former)));
            assert!(is_right, "client {client}: {rung:?}");
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives clients to other employees, and tells of it by a notice most of the time.
    fn change(&self) {
        let mut dice = Dice(7);
        let target = format!("/hooks/sales/{SECRET}");
        while self.goes_on(CHANGE_EVERY) {
            let client = 1 + dice.below(CONTACTS);
            let place = usize::try_from(client - 1).unwrap();
            let former = self.known.read().unwrap()[place];
            // The change before it has long arrived.
            if former.since.elapsed() < LATE && former.former != former.responsible {
                continue;
            }
            let responsible = 3 - former.responsible;
            let changed = Known {
                responsible,
                former: former.responsible,
                since: Instant::now(),
            };
            self.known.write().unwrap()[place] = changed;
            {
                let mut world = self.world.write().unwrap();
                let entry = &mut world.contacts[place];
                entry.responsible = responsible;
                entry.modified = self.fake.clock();
            }
            let happened = Happened {
                list: List::Contacts,
                id: client,
                what: What::Reassigned(former.responsible),
            };
            for (kind, body) in self.fake.hook_bodies(&happened) {
                if dice.below(10) > 0 {
                    raw(self.address(), &posting(&target, &kind, body.as_bytes()));
                }
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reload(&self) {
        while self.goes_on(RELOAD_EVERY) {
            let ran = self.site.run(&["reload"]);
            assert_eq!(ran.code, 0, "{ran:?}");
            self.reloads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Somebody who looks at the pages, one after another.
    fn look_on(&self) {
        let mut visitor = Visitor::new(&self.daemon);
        visitor.sign_in("anna", PASSWORD);
        let paths = ["/", "/journal", "/employees", "/hygiene", "/mirrors"];
        for path in paths.iter().cycle() {
            if !self.goes_on(PAGE_EVERY) {
                return;
            }
            assert_eq!(visitor.get(path).status, 200, "{path}");
            self.pages.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn weigh(&self) {
        while self.goes_on(LOOK_EVERY) {
            let path = format!("/proc/{}/status", self.daemon.id());
            let status = std::fs::read_to_string(path).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().nth(1));
            let kib = kib.unwrap().parse::<u64>().unwrap();
            self.memory.lock().unwrap().push(kib);
        }
    }

    fn address(&self) -> SocketAddr {
        self.daemon.address
    }

    fn judge(&self, took: Duration) {
        let memory = self.memory.lock().unwrap();
        let mean = |part: &[u64]| part.iter().sum::<u64>() / part.len() as u64;
        let quarter = memory.len() / 4;
        // The first one fills caches.
        let (second, last) = (
            mean(&memory[quarter..2 * quarter]),
            mean(&memory[3 * quarter..]),
        );
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!(
            "{took:.0?}: {} calls, {} changes, {} reloads, {} pages; memory {second} KiB in the second quarter, {last} in the last",
            count(&self.calls),
            count(&self.changes),
            count(&self.reloads),
            count(&self.pages),
        );
        assert!(count(&self.calls) > 0 && count(&self.reloads) > 0 && count(&self.pages) > 0);
        let room = if lasts() > MOMENT { 0 } else { SOME_KIB };
        assert!(
            last < second * (100 + MOST_GROWTH_PERCENT) / 100 + room,
            "memory grows: {second} KiB, then {last} KiB"
        );
        // In the end every change has arrived.
        let known = self.known.read().unwrap();
        wait_for("every change in the mirror", || {
            let wrong = known.iter().enumerate().find(|(place, known)| {
                let rung = self.daemon.rings(&call_of(*place as u64 + 1));
                known.former != known.responsible
                    && rung != Some((100 + known.responsible).to_string())
            });
            wrong.is_none().then_some(())
        });
    }
}
