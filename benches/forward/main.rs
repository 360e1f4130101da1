//! `/forward` and FastAGI beside nginx `return 200` with the same body, and what a large directory costs.
//!
//! 10 thousand, 1 million and 10 million numbers one after another (`PRYAMO_BENCH_SIZES=10000,100000` for
//! others, then nothing is written into the docs). Under load both servers run on core 0 with one
//! worker, the loader on core 1, 64 requests in flight, rounds by turns, the directory in the system's
//! cache; the figure that a noisy machine moves least is requests per second of the server's own CPU
//! time. Every answer is compared with the right one. Printed and written into `docs/performance.md` with charts.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a benchmark may stop at a fault, prints its results and looks at the clock"
)]

mod api;
#[path = "../common/chart.rs"]
mod chart;
mod company;
mod fastagi;
mod life;
mod load;
mod machine;
#[path = "../common/mix.rs"]
mod mix;
#[path = "../common/pace.rs"]
mod pace;
#[path = "../common/performance_page.rs"]
mod performance_page;
#[path = "../common/process.rs"]
mod process;
mod report;
#[path = "../common/sizes.rs"]
mod sizes;
mod steady;
#[path = "../common/warm.rs"]
mod warm;

use std::path::Path;
use std::time::Instant;

use crate::company::Company;
use crate::machine::{Cores, Server};
use crate::report::Figures;

fn main() {
    // `cargo test` runs benchmarks too, only to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let began = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    process::pin(std::process::id(), 1);
    let nginx = Server::nginx(folder.path());
    let sizes = sizes::wanted().into_iter();
    let all: Vec<Figures> = sizes
        .map(|numbers| measure(folder.path(), &nginx, numbers, began))
        .collect();
    let text = report::text(&all);
    println!("\n{text}");
    performance_page::write("forward", &text);
    report::draw(&all);
}

fn measure(folder: &Path, nginx: &Server, numbers: u64, began: Instant) -> Figures {
    let size = sizes::words(numbers);
    let say = |what: &str| println!("{:5.0} s  {size}: {what}", began.elapsed().as_secs_f64());
    say("the table is written");
    let company = Company::make(folder, numbers);
    say("it is read for the first time");
    let filling = life::fill(&company);
    say("rounds beside nginx");
    let (server, _) = life::start(&company, Cores::First);
    let mut loads = load::measure(&server, nginx, &company);
    let memory = server.memory();
    drop(server);
    let (server, _) = life::start(&company, Cores::FirstWithJournal);
    load::measure_journal(&mut loads, &server, nginx, &company);
    drop(server);
    say("starts");
    let first_answer = life::first_answer(&company);
    say("syncs");
    let (server, api) = life::start(&company, Cores::All);
    let sync = life::sync(&api);
    say("calls without and with a sync");
    let steady = steady::measure(&server, &company, &api, sync);
    drop(server);
    company.remove();
    say("done");
    Figures {
        numbers,
        filling,
        loads,
        memory,
        first_answer,
        sync,
        steady,
    }
}
