//! Calls at a steady rate, without and with a full sync of the whole table under way.
//!
//! The daemon has both cores, as in life. The callers are on one of them and go before all others there:
//! what they wait for is an answer, never their own turn.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::api::Api;
use crate::company::Company;
use crate::load::{ask, connect};
use crate::machine::{self, Memory, Server};
use crate::mix::mix;
use crate::pace::{percentiles, until_next};

/// Calls a second.
pub(crate) const RATE: f64 = 200.0;
/// How long a round lasts; with a sync, at least.
pub(crate) const ROUND: Duration = Duration::from_secs(15);
/// Between two looks at how the sync stands; in rounds without one, too.
const LOOK: Duration = Duration::from_millis(50);
/// Behind a sync that is quicker the next one is ordered before it ends, or much of a round would pass
/// without. One and no more: each order has the employees read, too.
const QUICK: Duration = Duration::from_secs(5);
/// The part of a round with a sync that must have one.
const LEAST_SHARE: f64 = 0.9;

/// Rounds without, or rounds with.
pub(crate) struct Side {
    pub(crate) latencies: Histogram<u64>,
    seconds: f64,
    looks: u64,
    looks_at_sync: u64,
}

impl Default for Side {
    fn default() -> Self {
        Self {
            latencies: Histogram::new(3).unwrap(),
            seconds: 0.0,
            looks: 0,
            looks_at_sync: 0,
        }
    }
}

impl Side {
    /// The part of the time in which a sync ran.
    fn share(&self) -> f64 {
        self.looks_at_sync as f64 / self.looks as f64
    }

    /// Cells of a table: calls, percentiles, the sync's part of the time.
    pub(crate) fn row(&self) -> String {
        format!(
            "{} in {:.0} s | {} | {:.0} %",
            self.latencies.len(),
            self.seconds,
            percentiles(&self.latencies),
            100.0 * self.share()
        )
    }
}

/// Both.
pub(crate) struct Steady {
    pub(crate) without: Side,
    pub(crate) with: Side,
    /// Of the daemon, behind all of it.
    pub(crate) memory: Memory,
    /// Whether the callers did go first.
    pub(crate) first: bool,
}

impl Steady {
    /// p99 beside a sync to p99 without.
    pub(crate) fn ratio(&self) -> f64 {
        let p99 = |side: &Side| side.latencies.value_at_percentile(99.0) as f64;
        p99(&self.with) / p99(&self.without)
    }
}

/// Rounds in the order without, with, with, without; `sync` is how long one takes.
pub(crate) fn measure(server: &Server, company: &Company, api: &Api, sync: Duration) -> Steady {
    let mut steady = Steady {
        without: Side::default(),
        with: Side::default(),
        memory: server.memory(),
        first: machine::go_first(true),
    };
    round(&mut steady.without, company, api, None);
    // One round of twice the length: a sync that takes longer is waited for, with all its parts.
    round(&mut steady.with, company, api, Some(sync));
    round(&mut steady.without, company, api, None);
    machine::go_first(false);
    steady.memory = server.memory();
    assert!(
        steady.with.share() >= LEAST_SHARE,
        "a sync ran only {:.0} % of the time",
        100.0 * steady.with.share()
    );
    assert_eq!(steady.without.looks_at_sync, 0, "a sync nobody ordered");
    steady
}

fn round(side: &mut Side, company: &Company, api: &Api, sync: Option<Duration>) {
    company.warm();
    let api = api.clone();
    let watcher = std::thread::spawn(move || {
        // Threads take over how their maker is scheduled.
        machine::go_first(false);
        match sync {
            None => look_on(&api),
            Some(sync) => keep_syncing(&api, sync),
        }
    });
    let began = Instant::now();
    let seed = mix(1 + side.latencies.len());
    let latencies = calls_until(company, seed, || watcher.is_finished());
    side.seconds += began.elapsed().as_secs_f64();
    side.latencies.add(latencies).unwrap();
    let (looks, looks_at_sync) = watcher.join().expect("the sync goes well");
    side.looks += looks;
    side.looks_at_sync += looks_at_sync;
}

/// Looks how the mirror stands for a round; how often, and how often a sync was under way.
fn look_on(api: &Api) -> (u64, u64) {
    let began = Instant::now();
    let (mut looks, mut at_sync) = (0, 0);
    while began.elapsed() < ROUND {
        looks += 1;
        at_sync += u64::from(api.status().is_walking());
        std::thread::sleep(LOOK);
    }
    (looks, at_sync)
}

/// The same for two rounds, with one sync after another until the last one is done.
fn keep_syncing(api: &Api, sync: Duration) -> (u64, u64) {
    let began = Instant::now();
    // A quick one is over before the next usual look.
    let pause = LOOK.min(sync / 8);
    let mut ticket = api.order_sync();
    let mut before = ticket;
    let (mut looks, mut at_sync) = (0, 0);
    loop {
        let status = api.status();
        let is_done = status.has_done(ticket);
        looks += 1;
        at_sync += u64::from(status.is_walking());
        if began.elapsed() >= ROUND * 2 {
            if is_done {
                return (looks, at_sync);
            }
        } else if is_done || (sync < QUICK && status.has_done(before)) {
            before = ticket;
            ticket = api.order_sync();
        }
        std::thread::sleep(pause);
    }
}

/// Calls come as they like, so many a second, whether or not earlier ones have their answer;
/// latencies in microseconds, connecting included.
fn calls_until(company: &Company, seed: u64, is_over: impl Fn() -> bool) -> Histogram<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let latencies = Rc::new(RefCell::new(Histogram::new(3).unwrap()));
    let all = tokio::task::LocalSet::new();
    let company = Rc::new(company.clone());
    runtime.block_on(all.run_until(async {
        let began = Instant::now();
        let (mut due, mut draw) = (Duration::ZERO, seed);
        let mut under_way = Vec::new();
        while !is_over() {
            draw = draw.wrapping_add(1);
            let random = mix(draw);
            due += until_next(random, RATE);
            tokio::time::sleep_until((began + due).into()).await;
            let one = call(Rc::clone(&company), mix(random), Rc::clone(&latencies));
            under_way.push(tokio::task::spawn_local(one));
        }
        for one in under_way {
            one.await.expect("a right answer");
        }
    }));
    drop(all);
    Rc::into_inner(latencies).unwrap().into_inner()
}

async fn call(company: Rc<Company>, draw: u64, latencies: Rc<RefCell<Histogram<u64>>>) {
    let caller = company.caller(draw);
    let (call_id, expected) = (format!("{draw}.1"), caller.answer());
    let began = Instant::now();
    let mut stream = connect(company.http).await;
    ask(&mut stream, company.http, caller, &call_id, &expected).await;
    let took = began.elapsed().as_micros() as u64;
    latencies.borrow_mut().record(took).unwrap();
}
