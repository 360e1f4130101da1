//! Thousands who only hold a connection, drip, or flood the hooks: callers notice nothing of them.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, PATIENCE, Site, ask, connect, posting, raw, request, value};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::world::{Happened, List, SharedWorld, What, World, call_of};

/// Connections on which nothing is ever asked.
const IDLE: usize = 5_000;
/// Connections on which a question comes byte by byte.
const SLOW: usize = 1_000;
/// Calls meanwhile.
const CALLS: usize = 300;
/// A dialplan waits so long; an answer behind it is none.
const LONGEST: Duration = Duration::from_secs(2);
const CONTACTS: u64 = 100;
const SECRET: &str = "made-up-secret";
/// Notices of cards that do not exist, from each of those who send them.
const NOTICES: usize = 3_000;
const SENDERS: usize = 4;

/// Calls so often; every answer must be right and come soon. Gives the longest time.
fn call(address: SocketAddr, query: &str, number: &str, calls: usize) -> Duration {
    let question = request("GET", &format!("/forward?{query}"));
    let mut longest = Duration::ZERO;
    for call in 0..calls {
        let began = Instant::now();
        let answer = ask(address, &question).expect("a caller is answered");
        let took = began.elapsed();
        assert_eq!(value(&answer.body, "number").as_deref(), Some(number));
        assert!(took < LONGEST, "call {call} took {took:?}");
        longest = longest.max(took);
    }
    longest
}

#[test]
fn five_thousand_idle_and_a_thousand_slow_connections_hold_no_caller_up() {
    rlimit::increase_nofile_limit(16_384).unwrap();
    let site =
        Site::with_csv("id;name;phone;responsible;extension\n1;Иван Петров;79161234501;Анна;101\n");
    let daemon = Daemon::start(&site);
    let done = AtomicBool::new(false);
    let ready = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| hold(daemon.address, &done, &ready));
        scope.spawn(|| drip(daemon.address, &done, &ready));
        crate::daemon::wait_for("all of them", || {
            (ready.load(Ordering::Acquire) == 2).then_some(())
        });
        let query = "phone=79161234501&trunk=7495";
        let longest = call(daemon.address, query, "101", CALLS);
        println!("the longest of {CALLS} answers took {longest:?}");
        done.store(true, Ordering::Release);
    });
}

/// Holds connections, and opens another for each that the daemon closes.
fn hold(address: SocketAddr, done: &AtomicBool, ready: &AtomicUsize) {
    let mut held: Vec<TcpStream> = (0..IDLE).map(|_| connect(address)).collect();
    for stream in &held {
        stream.set_nonblocking(true).unwrap();
    }
    ready.fetch_add(1, Ordering::Release);
    while !done.load(Ordering::Acquire) {
        for stream in &mut held {
            // Nothing to read yet means that it is still open.
            if stream.peek(&mut [0]).is_ok() {
                *stream = connect(address);
                stream.set_nonblocking(true).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sends a byte on each connection, again and again, and begins anew where the daemon has enough.
fn drip(address: SocketAddr, done: &AtomicBool, ready: &AtomicUsize) {
    let begin = || {
        let mut stream = connect(address);
        stream.write_all(b"GET /forward?phone=").unwrap();
        stream
    };
    let mut slow: Vec<TcpStream> = (0..SLOW).map(|_| begin()).collect();
    ready.fetch_add(1, Ordering::Release);
    while !done.load(Ordering::Acquire) {
        for stream in &mut slow {
            if stream.write_all(b"7").is_err() {
                *stream = begin();
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_notices_holds_no_caller_up_and_hides_no_true_one() {
    let world = World::office(CONTACTS).shared();
    let options = Options {
        per_second: 1000.0,
        ..Options::default()
    };
    let fake = FakeBitrix24::start(SharedWorld::clone(&world), options).await;
    let site = Site::new(&format!(
        "[match]\nlive_lookup_ms = 0\n[sync]\nchanges_every_seconds = 86400\n\
         [[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nlimits = {{ requests_per_second = 1000 }}\n\
         hook_secret = \"{SECRET}\"\nurl = \"{}\"\n",
        fake.url()
    ));
    let daemon = Daemon::start(&site);
    let target = format!("/hooks/sales/{SECRET}");
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (fake, target, sent) = (&fake, &target, &sent);
            scope.spawn(move || {
                for notice in 0..NOTICES {
                    let happened = Happened {
                        list: List::Contacts,
                        id: 1_000_000 + (sender * NOTICES + notice) as u64,
                        what: What::Changed,
                    };
                    // Every third knows no secret.
                    let target = if notice % 3 == 0 {
                        "/hooks/sales/wrong"
                    } else {
                        target
                    };
                    for (kind, body) in fake.hook_bodies(&happened) {
                        raw(daemon.address, &posting(target, &kind, body.as_bytes()));
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let query = call_of(1);
        let longest = call(daemon.address, &query, "101", CALLS);
        println!("the longest of {CALLS} answers took {longest:?}");
    });
    assert!(sent.load(Ordering::Relaxed) >= SENDERS * NOTICES);
    // Behind all of these a true one is taken.
    let happened = {
        let mut world = world.write().unwrap();
        let entry = world
            .contacts
            .iter_mut()
            .find(|entry| entry.id == 7)
            .unwrap();
        entry.responsible = 2;
        entry.modified = fake.clock();
        Happened {
            list: List::Contacts,
            id: 7,
            what: What::Reassigned(1),
        }
    };
    for (kind, body) in fake.hook_bodies(&happened) {
        let answer = raw(daemon.address, &posting(&target, &kind, body.as_bytes()));
        assert_eq!(answer.status, 200);
    }
    let began = Instant::now();
    while daemon.rings(&call_of(7)).as_deref() != Some("102") {
        assert!(began.elapsed() < 4 * PATIENCE, "the true notice was lost");
        std::thread::sleep(Duration::from_millis(100));
    }
}
