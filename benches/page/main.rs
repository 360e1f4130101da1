//! The operators' page on a million numbers and a million journal entries.
//!
//! Two things, printed and written into `docs/performance.md`: how long each page takes, and what ten
//! live pages cost the callers who wait behind `/forward`. `PRYAMO_BENCH_NUMBERS`,
//! `PRYAMO_BENCH_ENTRIES`, `PRYAMO_BENCH_ROUNDS` and `PRYAMO_BENCH_RATE` make it smaller or longer;
//! then nothing is written. Ends with a failure where a page's median is too long.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a benchmark may stop at a fault, prints its results and looks at the clock"
)]

mod browser;
mod calls;
mod company;
mod daemon;
#[path = "../common/pace.rs"]
mod pace;
mod pages;
#[path = "../common/performance_page.rs"]
mod performance_page;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/warm.rs"]
mod warm;

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use crate::browser::Browser;
use crate::company::Company;
use crate::daemon::Daemon;

/// No page may take longer, median.
const GOAL_MS: f64 = 200.0;
/// p99 of `/forward` with ten live pages against none.
const GOAL_RATIO: f64 = 1.2;

/// How large everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Numbers in the directory.
    pub numbers: u64,
    /// Entries in the journal.
    pub entries: u64,
    /// Rounds with pages, and as many without.
    pub rounds: usize,
    /// Calls a second.
    pub rate: u64,
}

impl Size {
    const FULL: Self = Self {
        numbers: 1_000_000,
        entries: 1_000_000,
        rounds: 24,
        rate: 200,
    };

    fn wanted() -> Self {
        let named = |name: &str, usual: u64| {
            std::env::var(name).map_or(usual, |value| value.parse().expect("a number"))
        };
        Self {
            numbers: named("PRYAMO_BENCH_NUMBERS", Self::FULL.numbers),
            entries: named("PRYAMO_BENCH_ENTRIES", Self::FULL.entries),
            rounds: named("PRYAMO_BENCH_ROUNDS", Self::FULL.rounds as u64) as usize,
            rate: named("PRYAMO_BENCH_RATE", Self::FULL.rate),
        }
    }
}

fn main() -> ExitCode {
    // `cargo test` runs benchmarks too, only to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let size = Size::wanted();
    let folder = tempfile::tempdir().unwrap();
    let company = Company::make(folder.path(), size);
    let taken_over = company.take_over();
    let daemon = Daemon::start(&company.config);
    daemon.set_password();
    let mut browser = Browser::sign_in(daemon.address, "en");
    let shown = pages::measure(&mut browser, &company);
    println!("\n{}", shown.table());
    let memory = daemon.memory_mib();
    let live = calls::measure(&daemon, &company);
    let page_memory = daemon.memory_mib();
    drop(daemon);

    let worst = shown.worst_median_ms();
    let mut report = format!(
        "The slowest page: **{worst:.0} ms** median (goal: below {GOAL_MS:.0} ms).\n\n{}\n",
        shown.table()
    );
    let rest = [
        (
            "All cards looked through, for Hygiene",
            seconds(shown.survey),
        ),
        (
            "The whole journal as CSV",
            format!(
                "{} for {} MiB",
                seconds(shown.export),
                shown.export_bytes / 1024 / 1024
            ),
        ),
        (
            "A journal of format 1 taken over at its first opening",
            seconds(taken_over),
        ),
        (
            "The journal's file",
            format!("{} MiB", company.journal_bytes() / 1024 / 1024),
        ),
        (
            "Memory of the daemon, behind all these pages",
            format!("{memory} MiB, at last {page_memory} MiB"),
        ),
    ];
    writeln!(report, "| besides | |\n|---|---:|").unwrap();
    for (what, figure) in rest {
        writeln!(report, "| {what} | {figure} |").unwrap();
    }
    writeln!(
        report,
        "\n`/forward` p99 with ten live pages against none: **{:.2}** over all calls, {:.2} in the median round (goal: at most {GOAL_RATIO}).\n\n{}",
        live.ratio(),
        live.median_ratio(),
        live.table()
    )
    .unwrap();
    println!("\n{report}");
    if size == Size::FULL {
        let figures = format!("{report}\n{}", surroundings(size));
        performance_page::write("page", &figures);
    }
    if worst > GOAL_MS {
        println!("a page takes longer than {GOAL_MS:.0} ms");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// With what the figures were taken.
fn surroundings(size: Size) -> String {
    // Not those that this process may use: it has kept itself on one by now.
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = processors.matches("processor\t:").count();
    format!(
        "{} numbers, {} entries over {} days, {} calls a second; pryamo {}, {cores} cores, {} GiB of memory, {}.\n",
        size.numbers,
        size.entries,
        company::DAYS,
        size.rate,
        env!("CARGO_PKG_VERSION"),
        performance_page::memory_gib(),
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
    )
}
