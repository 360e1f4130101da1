//! What a size costs apart from answering: the first filling, starts, a sync that finds nothing new.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::company::Company;
use crate::machine::{Cores, Server};
use crate::mix::mix;

/// Starts of which the median counts.
pub(crate) const STARTS: u64 = 5;
/// Syncs of which the median counts, unless they take long.
const SYNCS: usize = 3;
/// So long: one is enough.
const LONG: Duration = Duration::from_secs(10);

/// The first filling.
pub(crate) struct Filling {
    /// From the start of the process until all is mirrored.
    pub(crate) took: Duration,
    /// The directory's file behind it, the daemon having ended in order.
    pub(crate) directory_bytes: u64,
}

/// Lets the daemon read the table for the first time.
pub(crate) fn fill(company: &Company) -> Filling {
    let began = Instant::now();
    let mut server = Server::pryamo(&company.config(), company.http, Cores::All);
    let api = Api::of(&mut server, company);
    api.wait_until_whole(company.numbers);
    let took = began.elapsed();
    drop(server);
    Filling {
        took,
        directory_bytes: company.directory_bytes(),
    }
}

/// Starts the daemon and waits until it has done what it does at every start.
pub(crate) fn start(company: &Company, cores: Cores) -> (Server, Api) {
    let config = match cores {
        Cores::First => company.config_of_one_thread(),
        Cores::FirstWithJournal => company.config_with_journal(),
        Cores::All => company.config(),
    };
    let started = jiff::Timestamp::now();
    let mut server = Server::pryamo(&config, company.http, cores);
    let api = Api::of(&mut server, company);
    api.wait_until_whole(company.numbers);
    api.wait_until_quiet(started);
    (server, api)
}

/// From the start of the process to the first right answer; each process is killed.
pub(crate) fn first_answer(company: &Company) -> Duration {
    median((0..STARTS).map(|nth| {
        let began = Instant::now();
        let mut server = Server::pryamo(&company.config(), company.http, Cores::All);
        while !is_answered(company, mix(nth)) {
            server.assert_alive();
            assert!(began.elapsed() < Duration::from_mins(5), "no answer");
            std::thread::sleep(Duration::from_micros(200));
        }
        let took = began.elapsed();
        server.kill();
        took
    }))
}

/// Says whether the daemon gives the right answer; it may not listen yet, a wrong answer is a fault.
fn is_answered(company: &Company, random: u64) -> bool {
    let caller = company.caller(random);
    let Ok(mut stream) = TcpStream::connect(company.http) else {
        return false;
    };
    let request = format!(
        "GET /forward?phone=%2B{} HTTP/1.1\r\nHost: pryamo\r\nConnection: close\r\n\r\n",
        caller.phone
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.ends_with(&caller.answer()),
        "a wrong answer for +{} after a start:\n{answer}",
        caller.phone
    );
    true
}

/// How long a full sync of the unchanged table takes, while nobody calls.
pub(crate) fn sync(api: &Api) -> Duration {
    let mut took = Vec::new();
    while took.len() < SYNCS && took.iter().all(|took| *took < LONG) {
        let began = Instant::now();
        let ticket = api.order_sync();
        api.wait("the sync", |status| status.has_done(ticket));
        took.push(began.elapsed());
    }
    median(took)
}

fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    times[times.len() / 2]
}
