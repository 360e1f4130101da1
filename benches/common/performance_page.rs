//! Puts a benchmark's figures into `docs/performance.md`.
//!
//! A run with `PRYAMO_BENCH_SIZES` is a trial: its figures go into a copy of the page in the target folder.

use std::fs;
use std::path::{Path, PathBuf};

/// The page.
const PAGE: &str = "performance.md";

/// Where the page lies.
pub(crate) fn folder() -> PathBuf {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    if std::env::var_os("PRYAMO_BENCH_SIZES").is_none() {
        return docs;
    }
    let trial = Path::new(env!("CARGO_TARGET_TMPDIR")).join("performance");
    fs::create_dir_all(&trial).unwrap();
    if !trial.join(PAGE).exists() {
        fs::copy(docs.join(PAGE), trial.join(PAGE)).unwrap();
    }
    trial
}

/// Between the marks of this name. A page without them stays as it is.
pub(crate) fn write(name: &str, figures: &str) {
    let (begin, end) = (
        format!("<!-- {name}: begin -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let path = folder().join(PAGE);
    let Ok(page) = fs::read_to_string(&path) else {
        return;
    };
    let Some((before, rest)) = page.split_once(&begin) else {
        return;
    };
    let Some((_, behind)) = rest.split_once(&end) else {
        return;
    };
    fs::write(path, format!("{before}{begin}{figures}{end}{behind}")).unwrap();
}

/// The memory of this machine.
pub(crate) fn memory_gib() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1);
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024 / 1024
}
