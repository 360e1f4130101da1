//! `/forward` beside nginx `return 200` with a body of the same size, in one run.
//!
//! Both servers run on core 0 with one worker, the loader on core 1, 64 requests in flight, rounds by
//! turns. Printed and written into `docs/performance.md`: requests a second, latency, and the figure
//! that a noisy machine moves least, requests per second of the server's own CPU time.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a benchmark may stop at a fault, prints its results and looks at the clock"
)]

#[path = "common/performance_page.rs"]
mod performance_page;

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pryamo::config::Config;
use pryamo::directory::{Change, SyncState};
use pryamo::phone::E164;
use pryamo::record::{Card, CrmName, Employee, EmployeeId, EntityId, EntityKind};
use pryamo::serve;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// Numbers in the directory.
const NUMBERS: u64 = 1_000_000;
/// The first of them; each is followed by the next odd one, so that half of a range is unknown.
const FIRST: u64 = 79_160_000_000;
/// Requests in flight.
const IN_FLIGHT: usize = 64;
/// How long a round lasts.
const ROUND: Duration = Duration::from_secs(3);
/// Rounds of each server and mode.
const ROUNDS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    NewConnection,
    KeepAlive,
}

fn main() {
    // `cargo test` runs benchmarks too, only to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let config = lay_out(folder.path());
    println!(
        "a directory of {NUMBERS} numbers was made in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    pin_to(std::process::id(), 1);
    let pryamo = start_pryamo(&config);
    let nginx = start_nginx(folder.path());
    let mut table = String::from(
        "| connections | server | requests/s | p50 | p99 | p999 | requests per CPU second |\n|---|---|---:|---:|---:|---:|---:|\n",
    );
    let mut ratios = String::new();
    for (mode, name, goal) in [
        (Mode::NewConnection, "a new one each time", 0.95),
        (Mode::KeepAlive, "kept alive", 0.8),
    ] {
        let mut totals = [Total::default(), Total::default()];
        for _ in 0..ROUNDS {
            totals[0].add(&measure(&pryamo, mode));
            totals[1].add(&measure(&nginx, mode));
        }
        for (server, total) in [("pryamo", &totals[0]), ("nginx `return 200`", &totals[1])] {
            writeln!(table, "| {name} | {server} | {} |", total.row()).unwrap();
        }
        let ratio = totals[0].per_cpu_second() / totals[1].per_cpu_second();
        writeln!(ratios, "- {name}: **{ratio:.2}** (goal: at least {goal})").unwrap();
    }
    println!("\n{table}\npryamo to nginx, requests per CPU second:\n{ratios}");
    write_page(&table, &ratios);
}

/// Makes the directory and the configuration of a company with that many numbers.
fn lay_out(folder: &Path) -> Config {
    fs::write(folder.join("clients.csv"), "id;phone\n").unwrap();
    let text = format!(
        "data_dir = \"{0}/data\"\n[forward]\nlisten = \"127.0.0.1:{1}\"\nthreads = 1\n[match]\nlive_lookup_ms = 0\n\
         [log]\nlevel = \"warn\"\n[[crm]]\nname = \"bench\"\nkind = \"csv\"\nfile = \"none.csv\"\n",
        folder.display(),
        free_port()
    );
    fs::write(folder.join("pryamo.toml"), &text).unwrap();
    let config = Config::parse(&text, Some(folder.join("pryamo.toml")), &[]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fill(&config));
    config
}

async fn fill(config: &Config) {
    let directory = serve::open_directory(config).unwrap();
    let crm = CrmName::new("bench");
    let employees = (0..100).map(|number| Employee {
        extension: Some((100 + number).to_string()),
        ..Employee::new(
            EmployeeId::new(&number.to_string()),
            &format!("Employee {number}"),
        )
    });
    directory
        .add_employees(&crm, employees.collect())
        .await
        .unwrap();
    for start in (0..NUMBERS).step_by(20_000) {
        let cards = (start..start + 20_000).map(|number| {
            let mut card = Card::new(EntityKind::Contact, EntityId::from(number + 1));
            "Иван Петров".clone_into(&mut card.name);
            card.responsible = Some(EmployeeId::new(&(number % 100).to_string()));
            (card, vec![E164::from_digits(FIRST + number * 2).unwrap()])
        });
        let change = Change {
            crm: crm.clone(),
            kind: EntityKind::Contact,
            cards: cards.collect(),
            walk: 1,
            unread: Vec::new(),
            keep_newer: None,
            state: Some(SyncState::default()),
        };
        directory.apply(change).await.unwrap();
    }
}

/// A server under test; ends with its value.
struct Server {
    child: Child,
    /// The process that does the work.
    worker: u32,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, so that nginx's master ends its worker too.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

fn start_pryamo(config: &Config) -> Server {
    let child = Command::new("taskset")
        .args(["-c", "0", env!("CARGO_BIN_EXE_pryamo"), "serve", "--config"])
        .arg(config.path.as_ref().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .expect("taskset (util-linux) starts");
    let worker = child.id();
    wait_for(config.forward.listen);
    Server {
        child,
        worker,
        address: config.forward.listen,
    }
}

fn start_nginx(folder: &Path) -> Server {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let body = "number=101&name=%D0%98%D0%B2%D0%B0%D0%BD%20%D0%9F%D0%B5%D1%82%D1%80%D0%BE%D0%B2";
    let text = format!(
        "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; default_type text/plain;\n\
         client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d; scgi_temp_path {0}/e;\n\
         server {{ listen {address}; location / {{ return 200 '{body}'; }} }} }}\n",
        folder.display()
    );
    let config = folder.join("nginx.conf");
    fs::write(&config, text).unwrap();
    let child = Command::new("taskset")
        .args(["-c", "0", "/usr/sbin/nginx", "-c"])
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx is installed (package nginx-light)");
    wait_for(address);
    let master = child.id();
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
    let worker = children.split_whitespace().next().unwrap().parse().unwrap();
    Server {
        child,
        worker,
        address,
    }
}

fn wait_for(address: SocketAddr) {
    for _ in 0..200 {
        if std::net::TcpStream::connect(address).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing answers at {address}");
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn pin_to(process: u32, core: u32) {
    let pinned = Command::new("taskset")
        .args(["-cp", &core.to_string(), &process.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(
        pinned.is_ok_and(|status| status.success()),
        "taskset pins the loader"
    );
}

/// What a round showed.
struct Round {
    latencies: Histogram<u64>,
    took: Duration,
    cpu_seconds: f64,
}

fn measure(server: &Server, mode: Mode) -> Round {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let cpu = cpu_seconds(server.worker);
    let began = Instant::now();
    let latencies = runtime.block_on(async {
        // The loader never sleeps: else the slower server would pay for waking it at every answer.
        tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let workers =
            (0..IN_FLIGHT as u64).map(|worker| load(server.address, mode, worker, began + ROUND));
        futures::future::join_all(workers).await
    });
    let mut all = Histogram::new(3).unwrap();
    for latencies in latencies {
        all.add(latencies).unwrap();
    }
    Round {
        latencies: all,
        took: began.elapsed(),
        cpu_seconds: cpu_seconds(server.worker) - cpu,
    }
}

/// Sends one request after another until `end`; latencies in microseconds, connecting included.
async fn load(address: SocketAddr, mode: Mode, worker: u64, end: Instant) -> Histogram<u64> {
    static SOURCE: AtomicU32 = AtomicU32::new(0);
    let mut latencies = Histogram::new(3).unwrap();
    let mut random = worker.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut kept = None;
    let mut buffer = [0_u8; 2048];
    while Instant::now() < end {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let phone = FIRST + random % NUMBERS * 2;
        let request = format!(
            "GET /forward?phone=%2B{phone}&trunk=74951234567&callid=1795347631.12 HTTP/1.1\r\n\
             Host: {address}\r\nUser-Agent: asterisk-libcurl-agent/1.0\r\nAccept: */*\r\n\r\n"
        );
        let began = Instant::now();
        let mut stream = if let Some(stream) = kept.take() {
            stream
        } else {
            // Many source addresses: one alone runs out of ports.
            let source = SOURCE.fetch_add(1, Ordering::Relaxed) / 64 % 200 + 2;
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket
                .bind(SocketAddr::from(([127, 0, 0, source as u8], 0)))
                .unwrap();
            let stream = socket.connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        };
        stream.write_all(request.as_bytes()).await.unwrap();
        let count = stream.read(&mut buffer).await.unwrap();
        let answer = &buffer[..count];
        assert!(
            answer.ends_with(b"%D0%B2"),
            "{}",
            String::from_utf8_lossy(answer)
        );
        latencies
            .record(began.elapsed().as_micros() as u64)
            .unwrap();
        if mode == Mode::KeepAlive {
            kept = Some(stream);
        }
    }
    latencies
}

/// User and system time of a process.
fn cpu_seconds(process: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let nanoseconds: u64 = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    nanoseconds as f64 / 1e9
}

/// All rounds of a server and mode.
#[derive(Default)]
struct Total {
    latencies: Option<Histogram<u64>>,
    seconds: f64,
    cpu_seconds: f64,
}

impl Total {
    fn add(&mut self, round: &Round) {
        let all = self
            .latencies
            .get_or_insert_with(|| Histogram::new(3).unwrap());
        all.add(&round.latencies).unwrap();
        self.seconds += round.took.as_secs_f64();
        self.cpu_seconds += round.cpu_seconds;
    }

    fn requests(&self) -> f64 {
        self.latencies.as_ref().map_or(0, Histogram::len) as f64
    }

    fn per_cpu_second(&self) -> f64 {
        self.requests() / self.cpu_seconds
    }

    fn row(&self) -> String {
        let at = |percentile| {
            let micros = self
                .latencies
                .as_ref()
                .unwrap()
                .value_at_percentile(percentile);
            format!("{:.2} ms", micros as f64 / 1000.0)
        };
        format!(
            "{:.0} | {} | {} | {} | {:.0}",
            self.requests() / self.seconds,
            at(50.0),
            at(99.0),
            at(99.9),
            self.per_cpu_second()
        )
    }
}

/// Puts the figures into `docs/performance.md`, between its marks.
fn write_page(table: &str, ratios: &str) {
    let nginx = Command::new("/usr/sbin/nginx")
        .arg("-v")
        .output()
        .unwrap()
        .stderr;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let figures = format!(
        "pryamo to nginx, requests per second of the server's CPU time:\n\n{ratios}\n{table}\n\
         {NUMBERS} numbers, {IN_FLIGHT} requests in flight, {ROUNDS} rounds of {} s each by turns; pryamo {}, {}, \
         {cores} cores, {} GiB of memory, {}.\n",
        ROUND.as_secs(),
        env!("CARGO_PKG_VERSION"),
        String::from_utf8_lossy(&nginx)
            .trim()
            .replace("nginx version: ", ""),
        performance_page::memory_gib(),
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
    );
    performance_page::write("forward", &figures);
}
