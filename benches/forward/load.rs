//! As many questions as a server can answer: rounds by turns, the loader on a core of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::company::{Caller, Company, answer};
use crate::fastagi;
use crate::machine::Server;
use crate::pace::percentiles;

/// Questions in flight.
pub(crate) const IN_FLIGHT: usize = 64;
/// How long a round lasts.
pub(crate) const ROUND: Duration = Duration::from_secs(3);
/// Rounds of each server and way.
pub(crate) const ROUNDS: usize = 4;

/// How questions are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP, a new connection each time.
    New,
    /// HTTP, connections kept alive.
    Kept,
    /// FastAGI, a conversation each time.
    Agi,
}

/// Who answers.
#[derive(Clone, Copy)]
enum Answering<'a> {
    Pryamo(&'a Company),
    /// The same to everybody.
    Nginx(&'a Company),
}

/// All rounds of a size.
#[derive(Default)]
pub(crate) struct Loads {
    pub(crate) pryamo_new: Load,
    pub(crate) nginx_new: Load,
    pub(crate) agi: Load,
    pub(crate) pryamo_kept: Load,
    pub(crate) nginx_kept: Load,
    pub(crate) journal_new: Load,
    pub(crate) nginx_beside_journal: Load,
}

/// The same with the journal, into which the calls go.
pub(crate) fn measure_journal(
    loads: &mut Loads,
    pryamo: &Server,
    nginx: &Server,
    company: &Company,
) {
    use Answering::{Nginx, Pryamo};
    for _ in 0..ROUNDS {
        company.warm();
        loads.journal_new.round(pryamo, Pryamo(company), Way::New);
        let beside = &mut loads.nginx_beside_journal;
        beside.round(nginx, Nginx(company), Way::New);
    }
}

/// Both servers by turns, so that whatever else the machine does falls upon both.
pub(crate) fn measure(pryamo: &Server, nginx: &Server, company: &Company) -> Loads {
    use Answering::{Nginx, Pryamo};
    let mut loads = Loads::default();
    for _ in 0..ROUNDS {
        company.warm();
        loads.pryamo_new.round(pryamo, Pryamo(company), Way::New);
        loads.nginx_new.round(nginx, Nginx(company), Way::New);
        loads.agi.round(pryamo, Pryamo(company), Way::Agi);
    }
    for _ in 0..ROUNDS {
        company.warm();
        loads.pryamo_kept.round(pryamo, Pryamo(company), Way::Kept);
        loads.nginx_kept.round(nginx, Nginx(company), Way::Kept);
    }
    loads
}

/// All rounds of a server and way.
pub(crate) struct Load {
    latencies: Histogram<u64>,
    seconds: f64,
    cpu_seconds: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            latencies: Histogram::new(3).unwrap(),
            seconds: 0.0,
            cpu_seconds: 0.0,
        }
    }
}

impl Load {
    fn round(&mut self, server: &Server, answering: Answering<'_>, way: Way) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let address = match (answering, way) {
            (Answering::Pryamo(company), Way::Agi) => company.agi,
            _ => server.address,
        };
        let cpu = server.cpu_seconds();
        let began = Instant::now();
        let latencies = runtime.block_on(async {
            // The loader never sleeps: else the slower server would pay for waking it at every answer.
            tokio::spawn(async {
                loop {
                    tokio::task::yield_now().await;
                }
            });
            let workers = (0..IN_FLIGHT as u64)
                .map(|worker| ask_on(address, answering, way, worker, began + ROUND));
            futures::future::join_all(workers).await
        });
        self.seconds += began.elapsed().as_secs_f64();
        self.cpu_seconds += server.cpu_seconds() - cpu;
        for latencies in latencies {
            self.latencies.add(latencies).unwrap();
        }
    }

    fn requests(&self) -> f64 {
        self.latencies.len() as f64
    }

    pub(crate) fn per_cpu_second(&self) -> f64 {
        self.requests() / self.cpu_seconds
    }

    /// Cells of a table: requests a second, percentiles, requests per CPU second.
    pub(crate) fn row(&self) -> String {
        format!(
            "{:.0} | {} | {:.0}",
            self.requests() / self.seconds,
            percentiles(&self.latencies),
            self.per_cpu_second()
        )
    }
}

/// Puts one question after another until `end`; latencies in microseconds, connecting included.
async fn ask_on(
    address: SocketAddr,
    answering: Answering<'_>,
    way: Way,
    worker: u64,
    end: Instant,
) -> Histogram<u64> {
    let mut latencies = Histogram::new(3).unwrap();
    let mut random = worker.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut kept = None;
    while Instant::now() < end {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (caller, expected) = match answering {
            Answering::Pryamo(company) => {
                let caller = company.caller(random);
                (caller, caller.answer())
            }
            Answering::Nginx(company) => (company.caller(random), answer(101)),
        };
        // Each call has an id of its own, as Asterisk gives it.
        let call_id = format!("1795347631.{random}");
        let began = Instant::now();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connect(address).await,
        };
        if way == Way::Agi {
            fastagi::ask(&mut stream, address, caller, &call_id).await;
        } else {
            ask(&mut stream, address, caller, &call_id, &expected).await;
        }
        latencies
            .record(began.elapsed().as_micros() as u64)
            .unwrap();
        if way == Way::Kept {
            kept = Some(stream);
        }
    }
    latencies
}

/// A new connection from one of many source addresses: one alone runs out of ports.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    static SOURCE: AtomicU32 = AtomicU32::new(0);
    let source = SOURCE.fetch_add(1, Ordering::Relaxed) / 64 % 200 + 2;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket
        .bind(SocketAddr::from(([127, 0, 0, source as u8], 0)))
        .unwrap();
    let stream = socket.connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks as `CURL()` does, and stops at a wrong answer.
pub(crate) async fn ask(
    stream: &mut TcpStream,
    address: SocketAddr,
    caller: Caller,
    call_id: &str,
    expected: &str,
) {
    let phone = caller.phone;
    let request = format!(
        "GET /forward?phone=%2B{phone}&trunk=74951234567&callid={call_id} HTTP/1.1\r\n\
         Host: {address}\r\nUser-Agent: asterisk-libcurl-agent/1.0\r\nAccept: */*\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = [0_u8; 2048];
    let mut filled = 0;
    while !buffer[..filled].ends_with(expected.as_bytes()) {
        let count = stream.read(&mut buffer[filled..]).await.unwrap();
        filled += count;
        let answer = String::from_utf8_lossy(&buffer[..filled]);
        assert!(
            answer.ends_with(expected) || (count > 0 && !is_whole(&answer)),
            "a wrong answer for +{phone}, expected {expected}:\n{answer}"
        );
    }
}

/// Says whether nothing more will come, right or wrong.
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| {
        length
            .parse()
            .is_ok_and(|length: usize| body.len() >= length)
    })
}
