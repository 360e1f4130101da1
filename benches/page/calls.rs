//! What ten live pages cost the callers who wait behind `/forward`.
//!
//! The daemon runs on core 0, callers and browsers on core 1, browsers only when no caller wants it. The
//! directory lies in the system's cache: a caller who waits for the disk does not wait for a page.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::browser::Browser;
use crate::company::{Company, MAIN_DID, mix};
use crate::daemon::Daemon;
use crate::pace::{percentiles, until_next};
use crate::process::pin;
use crate::warm::warm;

/// Pages that are open.
const PAGES: usize = 10;
/// How long a round counts.
const ROUND: Duration = Duration::from_secs(5);
/// Calls come for so long before it counts: pages open meanwhile.
const BEFORE: Duration = Duration::from_secs(1);

/// All rounds with pages, or all without.
struct Side {
    pages: usize,
    latencies: Histogram<u64>,
    /// Of each round, microseconds.
    p99s: Vec<u64>,
    fetched: u64,
    cpu_seconds: f64,
    seconds: f64,
}

/// Both.
pub struct Measured([Side; 2]);

/// Rounds by turns.
pub fn measure(daemon: &Daemon, company: &Company) -> Measured {
    daemon.pin_to(0);
    pin(std::process::id(), 1);
    let browsers: Vec<Browser> = (0..PAGES)
        .map(|_| Browser::sign_in(daemon.address, "ru"))
        .collect();
    let side = |pages| Side {
        pages,
        latencies: Histogram::new(3).unwrap(),
        p99s: Vec::new(),
        fetched: 0,
        cpu_seconds: 0.0,
        seconds: 0.0,
    };
    let mut sides = [side(0), side(PAGES)];
    for number in 0..company.size.rounds {
        for side in &mut sides {
            warm(&company.config.data_dir);
            let live = LivePages::open(browsers.iter().take(side.pages));
            let calls = Calls::new(daemon.address, company, (number * 2 + side.pages) as u64);
            calls.come(BEFORE);
            let (fetched, cpu, began) = (live.fetched(), daemon.cpu_seconds(), Instant::now());
            let latencies = calls.come(ROUND);
            side.seconds += began.elapsed().as_secs_f64();
            side.cpu_seconds += daemon.cpu_seconds() - cpu;
            side.fetched += live.fetched() - fetched;
            println!("{} pages: {}", side.pages, percentiles(&latencies));
            side.latencies.add(&latencies).unwrap();
            side.p99s.push(latencies.value_at_percentile(99.0));
            live.close();
        }
    }
    Measured(sides)
}

/// Browsers that look at Now.
struct LivePages {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    fetched: Arc<AtomicU64>,
}

impl LivePages {
    fn open<'a>(browsers: impl Iterator<Item = &'a Browser>) -> Self {
        let (stop, fetched) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = browsers.map(|browser| {
            let (browser, stop, fetched) =
                (browser.clone(), Arc::clone(&stop), Arc::clone(&fetched));
            std::thread::spawn(move || look_on(browser, &stop, &fetched))
        });
        Self {
            threads: threads.collect(),
            stop,
            fetched,
        }
    }

    fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    fn close(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// What `now.html` does: hears of calls, and asks for the page again.
fn look_on(mut browser: Browser, stop: &AtomicBool, fetched: &AtomicU64) {
    use std::io::ErrorKind::{Interrupted, WouldBlock};
    give_way();
    let page = browser.get("/");
    let page = String::from_utf8(page.body).unwrap();
    let (_, address) = page.split_once("sse-connect=\"").unwrap();
    let (address, _) = address.split_once('"').unwrap();
    let mut events = browser.send("GET", address, "");
    events
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut buffer = [0; 16 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let read = match events.read(&mut buffer) {
            Ok(0) => panic!("the events have ended"),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => continue,
            Err(error) => panic!("{error}"),
        };
        let told = String::from_utf8_lossy(buffer.get(..read).unwrap());
        if told.contains("event: call") {
            let page = browser.get("/");
            assert!(page.body.len() > 1000);
            fetched.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// This thread runs when no other wants the core: a caller who waits for a browser here would count as
/// one who waits for an answer. Politeness (nice) is too little, it is asked only at the next tick.
fn give_way() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    let idle = Command::new("chrt")
        .args(["--idle", "--pid", "0"])
        .arg(thread.file_name().unwrap())
        .status();
    assert!(
        idle.is_ok_and(|status| status.success()),
        "chrt (util-linux)"
    );
}

/// Callers.
struct Calls<'a> {
    address: SocketAddr,
    company: &'a Company,
    seed: u64,
}

impl<'a> Calls<'a> {
    fn new(address: SocketAddr, company: &'a Company, seed: u64) -> Self {
        Self {
            address,
            company,
            seed: mix(seed),
        }
    }

    /// They come as they like, so many a second, whether or not earlier ones have their answer;
    /// latencies in microseconds, connecting included.
    fn come(&self, during: Duration) -> Histogram<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let latencies = Rc::new(RefCell::new(Histogram::new(3).unwrap()));
        let all = tokio::task::LocalSet::new();
        all.spawn_local({
            let latencies = Rc::clone(&latencies);
            let (address, rate) = (self.address, self.company.size.rate as f64);
            let mut draw = self.seed ^ during.as_secs();
            let numbers: Vec<u64> = (0..4096)
                .map(|nth| self.company.phone(mix(draw ^ nth)))
                .collect();
            async move {
                let began = Instant::now();
                let mut due = Duration::ZERO;
                for phone in numbers.iter().cycle() {
                    draw = mix(draw);
                    due += until_next(draw, rate);
                    if due > during {
                        break;
                    }
                    tokio::time::sleep_until((began + due).into()).await;
                    tokio::task::spawn_local(call(address, *phone, draw, Rc::clone(&latencies)));
                }
            }
        });
        runtime.block_on(all);
        Rc::into_inner(latencies).unwrap().into_inner()
    }
}

async fn call(address: SocketAddr, phone: u64, draw: u64, latencies: Rc<RefCell<Histogram<u64>>>) {
    let request = format!(
        "GET /forward?phone=%2B{phone}&trunk={MAIN_DID}&callid={draw}.1 HTTP/1.1\r\n\
         Host: {address}\r\nUser-Agent: asterisk-libcurl-agent/1.0\r\nAccept: */*\r\n\r\n"
    );
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0_u8; 2048];
    let read = stream.read(&mut answer).await.unwrap();
    let took = began.elapsed();
    assert!(answer.get(..read).unwrap().starts_with(b"HTTP/1.1 200 "));
    latencies
        .borrow_mut()
        .record(took.as_micros() as u64)
        .unwrap();
}

impl Measured {
    /// p99 with pages to p99 without.
    pub fn ratio(&self) -> f64 {
        let [none, ten] = &self.0;
        let p99 = |side: &Side| side.latencies.value_at_percentile(99.0) as f64;
        p99(ten) / p99(none)
    }

    /// The same of the median round on either side: a busy neighbour on the machine spoils single rounds.
    pub fn median_ratio(&self) -> f64 {
        let [none, ten] = &self.0;
        let median = |side: &Side| {
            let mut p99s = side.p99s.clone();
            p99s.sort_unstable();
            *p99s.get(p99s.len() / 2).expect("a round") as f64
        };
        median(ten) / median(none)
    }

    /// Both sides.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| live pages | calls | p50 | p99 | p999 | pages fetched a second | daemon's CPU |\n|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for side in &self.0 {
            writeln!(
                table,
                "| {} | {} | {} | {:.1} | {:.0} % |",
                side.pages,
                side.latencies.len(),
                percentiles(&side.latencies),
                side.fetched as f64 / side.seconds,
                100.0 * side.cpu_seconds / side.seconds
            )
            .unwrap();
        }
        table
    }
}
