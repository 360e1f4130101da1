//! Ratios, tables and charts for `docs/performance.md`.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use crate::chart::{self, Line};
use crate::life::{Filling, STARTS};
use crate::load::{IN_FLIGHT, Loads, ROUND, ROUNDS};
use crate::machine::{Memory, NGINX};
use crate::steady::{self, Steady};
use crate::{performance_page, sizes};

/// All that was measured with one size.
pub(crate) struct Figures {
    pub(crate) numbers: u64,
    pub(crate) filling: Filling,
    pub(crate) loads: Loads,
    /// Behind the rounds.
    pub(crate) memory: Memory,
    pub(crate) first_answer: Duration,
    /// A sync that found nothing new.
    pub(crate) sync: Duration,
    pub(crate) steady: Steady,
}

impl Figures {
    fn size(&self) -> String {
        sizes::words(self.numbers)
    }

    /// pryamo's to nginx's requests per CPU second: new connections, kept alive, FastAGI, new
    /// connections with the journal.
    fn ratios(&self) -> [f64; 4] {
        let Loads {
            pryamo_new,
            nginx_new,
            agi,
            pryamo_kept,
            nginx_kept,
            journal_new,
            nginx_beside_journal,
        } = &self.loads;
        [
            pryamo_new.per_cpu_second() / nginx_new.per_cpu_second(),
            pryamo_kept.per_cpu_second() / nginx_kept.per_cpu_second(),
            agi.per_cpu_second() / nginx_new.per_cpu_second(),
            journal_new.per_cpu_second() / nginx_beside_journal.per_cpu_second(),
        ]
    }

    fn file_bytes(&self) -> f64 {
        self.filling.directory_bytes as f64 / self.numbers as f64
    }

    fn a_second(&self, took: Duration) -> String {
        format!("{:.0}", self.numbers as f64 / took.as_secs_f64())
    }
}

/// The whole block.
pub(crate) fn text(all: &[Figures]) -> String {
    // Writing into a string does not fail.
    let mut text = ratios(all);
    let _ = writeln!(text, "\n{}", loads(all));
    let _ = writeln!(text, "{}", calls(all));
    let _ = writeln!(text, "{}", costs(all));
    let _ = writeln!(text, "{}", surroundings(all));
    text
}

fn ratios(all: &[Figures]) -> String {
    let mut text = String::from(
        "pryamo to nginx, requests per second of the server's CPU time, and p99 beside a sync to p99 without:\n\n\
         | numbers | new connections (goal: at least 0.95) | kept alive (goal: at least 0.8) | \
         new connections, calls into the journal | FastAGI to nginx's new connections | \
         p99 beside a full sync (goal: at most 1.5) |\n|---|---:|---:|---:|---:|---:|\n",
    );
    for one in all {
        let [new, kept, agi, journal] = one.ratios();
        let _ = writeln!(
            text,
            "| {} | **{new:.2}** | **{kept:.2}** | {journal:.2} | {agi:.2} | **{:.2}** |",
            one.size(),
            one.steady.ratio()
        );
    }
    text + "\n![Requests per CPU second](performance/ratio.svg)\n"
}

fn loads(all: &[Figures]) -> String {
    let mut text = String::from(
        "| numbers | questions | server | requests/s | p50 | p99 | p999 | requests per CPU second |\n\
         |---|---|---|---:|---:|---:|---:|---:|\n",
    );
    let nginx = "nginx `return 200`";
    for one in all {
        let loads = &one.loads;
        for (way, server, load) in [
            ("new connections", "pryamo", &loads.pryamo_new),
            ("new connections", nginx, &loads.nginx_new),
            ("the same, into the journal", "pryamo", &loads.journal_new),
            ("FastAGI", "pryamo", &loads.agi),
            ("kept alive", "pryamo", &loads.pryamo_kept),
            ("kept alive", nginx, &loads.nginx_kept),
        ] {
            let _ = writeln!(
                text,
                "| {} | {way} | {server} | {} |",
                one.size(),
                load.row()
            );
        }
    }
    text
}

fn calls(all: &[Figures]) -> String {
    let mut text = format!(
        "Calls at a steady {} a second, a new connection each, the daemon on all cores:\n\n\
         | numbers | full sync | calls | p50 | p99 | p999 | sync ran |\n|---|---|---:|---:|---:|---:|---:|\n",
        steady::RATE
    );
    for one in all {
        let steady = &one.steady;
        let _ = writeln!(text, "| {} | none | {} |", one.size(), steady.without.row());
        let _ = writeln!(
            text,
            "| {} | under way | {} |",
            one.size(),
            steady.with.row()
        );
    }
    text
}

fn costs(all: &[Figures]) -> String {
    let mut text = String::from(
        "| numbers | first filling | numbers/s | sync, nothing new | numbers/s | file, bytes a number | \
         start to first answer | memory behind the rounds, most | behind the syncs, most |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let memory = |memory: Memory| format!("{:.0} MiB, {:.0}", memory.now_mib, memory.most_mib);
    for one in all {
        let _ = writeln!(
            text,
            "| {} | {:.1} s | {} | {:.1} s | {} | {:.0} | {:.0} ms | {} | {} |",
            one.size(),
            one.filling.took.as_secs_f64(),
            one.a_second(one.filling.took),
            one.sync.as_secs_f64(),
            one.a_second(one.sync),
            one.file_bytes(),
            one.first_answer.as_secs_f64() * 1000.0,
            memory(one.memory),
            memory(one.steady.memory),
        );
    }
    text + "\n![Memory](performance/memory.svg)\n![The directory's file](performance/file.svg)\n\
            ![From the start to the first answer](performance/start.svg)\n"
}

/// How and with what the figures were taken.
fn surroundings(all: &[Figures]) -> String {
    let nginx = Command::new(NGINX).arg("-v").output().unwrap().stderr;
    let nginx = String::from_utf8_lossy(&nginx);
    let callers = if all.iter().all(|one| one.steady.first) {
        "callers at a steady rate before all other work on their core"
    } else {
        "callers at a steady rate at the usual priority"
    };
    format!(
        "`cargo bench --bench forward`: {IN_FLIGHT} requests in flight, {ROUNDS} rounds of {} s each by turns, {callers}, \
         rounds of {} s without a sync around one at least twice as long with it, median of {STARTS} starts; \
         pryamo {}, {}, {}, {} GiB of memory, {}.",
        ROUND.as_secs(),
        steady::ROUND.as_secs(),
        env!("CARGO_PKG_VERSION"),
        nginx.trim().replace("nginx version: ", ""),
        sizes::versions(),
        performance_page::memory_gib(),
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
    )
}

/// How all of it grows.
pub(crate) fn draw(all: &[Figures]) {
    let line = |name: &'static str, figure: &dyn Fn(&Figures) -> f64| -> Line {
        let points = all.iter().map(|one| (one.numbers, figure(one)));
        (name, points.collect())
    };
    chart::draw(
        "ratio",
        "Requests per CPU second, nginx = 1",
        "pryamo to nginx",
        &[
            line("new connections", &|one| one.ratios()[0]),
            line("kept alive", &|one| one.ratios()[1]),
            line("FastAGI to nginx's new connections", &|one| one.ratios()[2]),
        ],
    );
    chart::draw(
        "memory",
        "Memory of the process",
        "MiB",
        &[
            line("behind the rounds", &|one| one.memory.now_mib),
            line("the most, with syncs", &|one| one.steady.memory.most_mib),
        ],
    );
    chart::draw(
        "file",
        "The directory's file",
        "bytes a number",
        &[line("file and log", &Figures::file_bytes)],
    );
    chart::draw(
        "start",
        "From the start of the process to the first right answer",
        "milliseconds",
        &[line("after a kill", &|one| {
            one.first_answer.as_secs_f64() * 1000.0
        })],
    );
}
