//! The daemon's own addresses: how its mirror stands, and an order to walk over all cards again.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::company::Company;
use crate::machine::Server;

/// Longer than any sync of ten million numbers may take.
const PATIENCE: Duration = Duration::from_mins(30);

/// Somebody who may give orders.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    address: SocketAddr,
    token: String,
}

/// How the mirror stands.
#[derive(Debug, Clone)]
pub(crate) struct Status(Value);

impl Api {
    /// Knocks until the daemon answers.
    pub(crate) fn of(server: &mut Server, company: &Company) -> Self {
        let began = Instant::now();
        while !answers(server.address) {
            server.assert_alive();
            assert!(began.elapsed() < PATIENCE, "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self {
            address: server.address,
            token: company.control_token(),
        }
    }

    /// How the mirror stands now, without any fault.
    pub(crate) fn status(&self) -> Status {
        let told = self.ask("GET", "/api/v1/sync", "");
        let status = Status(told.get(0).expect("a mirror").clone());
        status.assert_well();
        status
    }

    /// Orders a full sync; gives the ticket.
    pub(crate) fn order_sync(&self) -> u64 {
        let told = self.ask("POST", "/api/v1/sync", r#"{"order": {"full": true}}"#);
        told.get("bench").and_then(Value::as_u64).expect("a ticket")
    }

    /// Waits until the mirror is so.
    pub(crate) fn wait(&self, what: &str, is_so: impl Fn(&Status) -> bool) {
        let began = Instant::now();
        loop {
            let status = self.status();
            if is_so(&status) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
            // Exact enough for what takes long, and no load then.
            std::thread::sleep(
                (began.elapsed() / 100).clamp(Duration::from_millis(2), Duration::from_millis(200)),
            );
        }
    }

    /// Waits until all cards and employees are there, read by this process or an earlier one.
    pub(crate) fn wait_until_whole(&self, numbers: u64) {
        self.wait("the mirror", Status::is_whole);
        let ready = self.ask("GET", "/readyz", "");
        let parts = ready.get("mirrors").and_then(Value::as_array);
        let contacts = parts
            .into_iter()
            .flatten()
            .find(|part| part["kind"] == "contact");
        let records = contacts.and_then(|part| part["records"].as_u64());
        assert_eq!(records, Some(numbers), "contacts in the mirror:\n{ready}");
    }

    /// Waits until this process has read the employees, for which it reads the whole table through.
    pub(crate) fn wait_until_quiet(&self, started: jiff::Timestamp) {
        self.wait("the employees", |status| {
            status.employees_at().is_some_and(|at| at >= started) && !status.is_walking()
        });
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_mins(1)))
            .unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: pryamo\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        serde_json::from_str(body).expect("JSON")
    }
}

/// The port alone is too little: it is taken before the token is written.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    let asked = b"GET /healthz HTTP/1.1\r\nHost: pryamo\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(asked).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200 ")
}

impl Status {
    fn kinds(&self) -> impl Iterator<Item = &Value> {
        let kinds = self.0["kinds"].as_object();
        kinds.into_iter().flat_map(serde_json::Map::values)
    }

    fn is_whole(&self) -> bool {
        let has_kinds = self.kinds().next().is_some();
        let is_whole = |kind: &Value| kind["whole_at"].is_string();
        has_kinds && self.kinds().all(is_whole) && self.employees_at().is_some()
    }

    /// Whether any kind of cards is walked over now.
    pub(crate) fn is_walking(&self) -> bool {
        self.kinds().any(|kind| kind["walking"] == true)
    }

    /// Whether the order with this ticket is done.
    pub(crate) fn has_done(&self, ticket: u64) -> bool {
        self.0["done_ticket"].as_u64() >= Some(ticket)
    }

    fn employees_at(&self) -> Option<jiff::Timestamp> {
        self.0["employees_at"].as_str()?.parse().ok()
    }

    /// Stops where the sync did not do what it was asked to.
    fn assert_well(&self) {
        let kinds = self.kinds().map(|kind| &kind["error"]);
        let mut errors = kinds.chain([&self.0["employees_error"]]);
        assert!(errors.all(Value::is_null), "the sync failed: {}", self.0);
    }
}
