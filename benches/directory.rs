//! What a lookup and a page cost in each store of [`KINDS`], its files in the system's cache.
//!
//! `cargo bench --bench directory` builds a base of each size first; `PRYAMO_BENCH_SIZES=10000,1000000`
//! leaves the largest out, which takes minutes, and writes nothing into the docs. A whole run puts its medians
//! into `docs/performance.md`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a bench that fails may panic, shows its figures and looks at the clock"
)]

#[path = "common/chart.rs"]
mod chart;
#[path = "common/mix.rs"]
mod mix;
#[path = "common/performance_page.rs"]
mod performance_page;
#[path = "common/sizes.rs"]
mod sizes;
#[path = "common/warm.rs"]
mod warm;

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use criterion::{Criterion, Throughput, criterion_group};
use futures::FutureExt;
use jiff::Timestamp;
use pryamo::directory::{Change, Directory, KINDS, Opening, RosterRules};
use pryamo::phone::E164;
use pryamo::record::{Card, CrmName, EmployeeId, EntityId, EntityKind};
use tokio::runtime::Runtime;

use crate::mix::mix;

/// Cards in one transaction while a base is built.
const BULK_CARDS: u64 = 20_000;
/// Cards in one page of a CRM that gives much at once (amoCRM: 250).
const PAGE_CARDS: u64 = 250;

/// The number of card `id`: eight ranges of mobile numbers, in no order.
fn phone(id: u64) -> E164 {
    let area = 900 + id % 8;
    E164::from_digits(70_000_000_000 + area * 10_000_000 + mix(id) % 10_000_000).unwrap()
}

/// A contact as CRMs have them: two words, a responsible, a date, often a company.
fn card(id: u64, edition: u64) -> (Card, Vec<E164>) {
    let mut card = Card::new(EntityKind::Contact, EntityId::from(id * 2));
    card.name = format!("Константинов Илья {}", edition + id % 100);
    card.responsible = Some(EmployeeId::new(&(mix(id) % 500).to_string()));
    card.modified = Timestamp::from_second(1_700_000_000 + i64::try_from(id).unwrap()).ok();
    if !id.is_multiple_of(3) {
        card.links = vec![(EntityKind::Company, EntityId::from(id / 4))];
    }
    (card, vec![phone(id)])
}

fn page(cards: impl Iterator<Item = u64>, edition: u64) -> Change {
    Change {
        crm: CrmName::new("sales"),
        kind: EntityKind::Contact,
        cards: cards.map(|id| card(id, edition)).collect(),
        walk: edition,
        unread: Vec::new(),
        keep_newer: None,
        state: None,
    }
}

/// A store with this many contacts; the folder must outlive it.
fn base(
    runtime: &Runtime,
    kind: &pryamo::directory::Kind,
    numbers: u64,
) -> (Arc<dyn Directory>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let opening = Opening {
        data_dir: folder.path().to_owned(),
        rules: RosterRules::default(),
    };
    let store = (kind.open)(toml::Table::new(), opening).ok().unwrap();
    for from in (0..numbers).step_by(usize::try_from(BULK_CARDS).unwrap()) {
        let bulk = page(from..numbers.min(from + BULK_CARDS), 0);
        runtime.block_on(store.apply(bulk)).unwrap();
    }
    (store, folder)
}

fn directory(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for kind in KINDS {
        for numbers in sizes::wanted() {
            let (store, folder) = base(&runtime, kind, numbers);
            let mut group = criterion.benchmark_group(format!("{} {numbers}", kind.name));
            let mut draw = 0;
            let mut lookups = |name: &str, of: &dyn Fn(u64) -> E164| {
                warm::warm(folder.path());
                group.throughput(Throughput::Elements(1));
                group.bench_function(name, |bencher| {
                    bencher.iter(|| {
                        draw += 1;
                        let asked = store.lookup(of(mix(draw)), false);
                        // The embedded store answers at the first poll.
                        black_box(asked.now_or_never().unwrap().unwrap())
                    });
                });
            };
            lookups("known", &|random| phone(random % numbers));
            lookups("unknown", &|random| {
                E164::from_digits(499_000_000_000 + random % 1_000_000_000).unwrap()
            });
            let mut edition = 1;
            group.throughput(Throughput::Elements(PAGE_CARDS));
            for (name, step) in [("page of changed cards", 1), ("page of unchanged cards", 0)] {
                group.bench_function(name, |bencher| {
                    bencher.iter(|| {
                        edition += step;
                        let ids = (0..PAGE_CARDS).map(|nth| nth + mix(edition) % (numbers / 2));
                        runtime.block_on(store.apply(page(ids, edition))).unwrap();
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, directory);

fn main() {
    // `cargo test` runs benchmarks too, only to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let began = SystemTime::now();
    benches();
    Criterion::default().configure_from_args().final_summary();
    write_page(began);
}

/// What is measured of each store and size, and how the page calls it.
const MEASURED: [(&str, &str); 4] = [
    ("known", "a known number"),
    ("unknown", "an unknown number"),
    ("page of changed cards", "a page of 250 cards, each changed"),
    (
        "page of unchanged cards",
        "a page of 250 cards, none changed",
    ),
];

/// Puts the medians into the page. A run of a part of them writes nothing.
fn write_page(began: SystemTime) {
    let all = sizes::wanted();
    let mut text = String::from("| median |");
    for numbers in &all {
        let _ = write!(text, " {} |", sizes::words(*numbers));
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(all.len()));
    let mut lookups = Vec::new();
    for kind in KINDS {
        for (name, words) in MEASURED {
            let medians = all.iter().map(|numbers| {
                let nanoseconds = median(&format!("{} {numbers}/{name}", kind.name), began)?;
                Some((*numbers, nanoseconds / 1000.0))
            });
            let Some(medians) = medians.collect::<Option<Vec<(u64, f64)>>>() else {
                println!("{name} was left out: the page stays as it was");
                return;
            };
            let _ = write!(text, "| {words} |");
            for (_, micros) in &medians {
                let _ = match micros {
                    large if *large >= 1000.0 => write!(text, " {:.1} ms |", large / 1000.0),
                    small => write!(text, " {small:.2} µs |"),
                };
            }
            text.push('\n');
            if name.ends_with("known") {
                lookups.push((words, medians));
            }
        }
    }
    let _ = writeln!(
        text,
        "\n![A lookup](performance/lookup.svg)\n\n`cargo bench --bench directory`: pryamo {}, {}, {} GiB of memory, {}.",
        env!("CARGO_PKG_VERSION"),
        sizes::versions(),
        performance_page::memory_gib(),
        Timestamp::now().strftime("%Y-%m-%d"),
    );
    performance_page::write("directory", &text);
    chart::draw(
        "lookup",
        "A lookup in the directory, median",
        "microseconds",
        &lookups,
    );
}

/// What criterion has found since then, in nanoseconds.
fn median(measured: &str, since: SystemTime) -> Option<f64> {
    let found = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("criterion")
        .join(measured)
        .join("new/estimates.json");
    let written = std::fs::metadata(&found).ok()?.modified().ok()?;
    let estimates = std::fs::read_to_string(found).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&estimates).ok()?;
    let median = estimates.pointer("/median/point_estimate")?.as_f64()?;
    (written >= since).then_some(median)
}
