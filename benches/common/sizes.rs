//! How many numbers a benchmark fills the directory with.

use std::process::Command;

/// Told apart by what is the bottleneck: all in the processor's cache, in SQLite's, in the system's.
const ALL: [u64; 3] = [10_000, 1_000_000, 10_000_000];

/// The usual ones, or those of `PRYAMO_BENCH_SIZES`, as in `10000,1000000`.
pub(crate) fn wanted() -> Vec<u64> {
    let Ok(list) = std::env::var("PRYAMO_BENCH_SIZES") else {
        return ALL.to_vec();
    };
    let size = |text: &str| text.trim().parse().expect("PRYAMO_BENCH_SIZES: numbers");
    list.split(',').map(size).collect()
}

/// A size as people say it.
pub(crate) fn words(numbers: u64) -> String {
    match numbers {
        millions if millions >= 1_000_000 && millions.is_multiple_of(1_000_000) => {
            format!("{} million", millions / 1_000_000)
        }
        thousands if thousands >= 1_000 && thousands.is_multiple_of(1_000) => {
            format!("{} thousand", thousands / 1_000)
        }
        few => few.to_string(),
    }
}

/// With what the figures were taken, but for the machine's memory and the day.
pub(crate) fn versions() -> String {
    let rustc = Command::new(std::env::var("RUSTC").unwrap_or("rustc".to_owned()))
        .arg("--version")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let rustc: Vec<&str> = rustc.split_whitespace().take(2).collect();
    let kernel = std::fs::read_to_string("/proc/version").unwrap_or_default();
    format!(
        "{}, Linux {}, {} cores",
        rustc.join(" "),
        kernel.split_whitespace().nth(2).unwrap_or("unknown"),
        cores()
    )
}

/// The machine's cores: not those that this process may use, for it may keep itself on one.
pub(crate) fn cores() -> usize {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    processors.matches("processor\t:").count().max(1)
}
