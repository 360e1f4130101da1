//! The administrator's own code: a small script that runs inside limits and is read again when its
//! file changes.
//!
//! The language is Rhai: no files, no network, no clock, nothing but what it is handed. A script is
//! stopped after so many steps and so much time; its fault is an error for whoever called it. What it
//! is called for, `rules::script` knows.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use rhai::{AST, Dynamic, Engine, EvalAltResult, Scope};

/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How deep functions may call each other.
const MOST_CALLS: usize = 16;
/// How deep an expression may nest, outside and inside of functions.
const MOST_NESTING: (usize, usize) = (64, 32);
/// The longest text, in bytes.
const LONGEST_TEXT: usize = 16_384;
/// The longest list, and the largest map.
const MOST_ITEMS: usize = 1024;
/// What `print` may say in one run.
const MOST_PRINTED: usize = 20;

/// What a script may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Steps of the interpreter.
    pub steps: u64,
    /// Time of one run.
    pub time: Duration,
}

/// A script that can be run.
pub struct Script {
    path: PathBuf,
    engine: Engine,
    program: Arc<ArcSwap<AST>>,
    limits: Limits,
    // Dropped, it ends the thread that looks at the file.
    _watched: mpsc::Sender<()>,
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    /// What the function returned.
    pub value: Dynamic,
    /// What the script printed, a line each.
    pub printed: Vec<String>,
}

impl Script {
    /// Reads and compiles the script in `path`, and follows the file from then on: a later version
    /// that does not compile changes nothing and is told in the log.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, String> {
        let seen = stamp(path);
        let program = Arc::new(ArcSwap::from_pointee(compile(path)?));
        let (watched, end) = mpsc::channel();
        let followed = Arc::clone(&program);
        let file = path.to_owned();
        std::thread::Builder::new()
            .name("script".to_owned())
            .spawn(move || follow(&file, seen, &followed, &end))
            .map_err(|error| format!("cannot follow {}: {error}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            engine: engine(limits.steps),
            program,
            limits,
            _watched: watched,
        })
    }

    /// Calls a function of the script. The error is one line for the administrator.
    pub fn call(&self, function: &str, arguments: Vec<Dynamic>) -> Result<Ran, String> {
        RUN.with_borrow_mut(|run| {
            run.ends = Instant::now().checked_add(self.limits.time);
            run.printed.clear();
        });
        let program = self.program.load();
        let mut scope = Scope::new();
        let called = self
            .engine
            .call_fn(&mut scope, &program, function, arguments);
        let value = called.map_err(|error| self.told(&error))?;
        let printed = RUN.with_borrow_mut(|run| std::mem::take(&mut run.printed));
        Ok(Ran { value, printed })
    }

    fn told(&self, error: &EvalAltResult) -> String {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        match error {
            EvalAltResult::ErrorTerminated(..) => {
                format!(
                    "{file}: took longer than {} ms and was stopped",
                    self.limits.time.as_millis()
                )
            }
            EvalAltResult::ErrorTooManyOperations(_) => {
                format!(
                    "{file}: took more than {} steps and was stopped",
                    self.limits.steps
                )
            }
            other => format!("{file}: {}", other.to_string().replace('\n', " ")),
        }
    }
}

/// A run on this thread. The interpreter is shared by all threads, since it takes long to make.
#[derive(Default)]
struct Run {
    ends: Option<Instant>,
    printed: Vec<String>,
}

thread_local! {
    static RUN: RefCell<Run> = RefCell::default();
}

fn is_over() -> bool {
    RUN.with_borrow(|run| run.ends.is_some_and(|ends| Instant::now() > ends))
}

fn print(text: &str) {
    RUN.with_borrow_mut(|run| {
        if run.printed.len() < MOST_PRINTED {
            run.printed.push(text.to_owned());
        }
    });
}

fn engine(steps: u64) -> Engine {
    let mut engine = Engine::new();
    engine
        .set_max_operations(steps)
        .set_max_call_levels(MOST_CALLS)
        .set_max_expr_depths(MOST_NESTING.0, MOST_NESTING.1)
        .set_max_string_size(LONGEST_TEXT)
        .set_max_array_size(MOST_ITEMS)
        .set_max_map_size(MOST_ITEMS)
        .set_max_modules(0)
        .disable_symbol("eval")
        .disable_symbol("import")
        .on_progress(|_| is_over().then(|| Dynamic::from("took too long".to_owned())))
        .on_print(print)
        .on_debug(|_, _, _| {});
    engine
}

fn compile(path: &Path) -> Result<AST, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    engine(0).compile(text).map_err(|error| {
        format!(
            "{}: {}",
            path.display(),
            error.to_string().replace('\n', " ")
        )
    })
}

/// When a file changed last, and its length; `None` while it is not there.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn follow(
    path: &Path,
    mut seen: Option<(SystemTime, u64)>,
    program: &ArcSwap<AST>,
    end: &mpsc::Receiver<()>,
) {
    while end.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = stamp(path);
        if now.is_none() || now == seen {
            continue;
        }
        seen = now;
        match compile(path) {
            Ok(compiled) => {
                program.store(Arc::new(compiled));
                tracing::info!(file = %path.display(), "the script is read again");
            }
            Err(error) => {
                tracing::error!(
                    error,
                    "the script has changed and is wrong; the former one stays"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        steps: 10_000,
        time: Duration::from_millis(500),
    };

    fn script(text: &str) -> Result<(tempfile::TempDir, Script), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("route.rhai");
        std::fs::write(&path, text).unwrap();
        Script::open(&path, LIMITS).map(|script| (folder, script))
    }

    #[test]
    fn what_runs_wild_is_stopped_and_told() {
        for (body, told) in [
            ("loop { }", "steps"),
            ("route()", "overflow"),
            ("let a = []; loop { a.push(1); }", "route.rhai"),
            ("let s = \"x\"; loop { s += s; }", "route.rhai"),
            ("throw \"no\"", "no"),
            ("no_such_function(1)", "no_such_function"),
            ("1 / 0", "zero"),
        ] {
            let (_folder, script) = script(&format!("fn route() {{ {body} }}")).unwrap();
            let error = script.call("route", Vec::new()).unwrap_err();
            assert!(error.to_lowercase().contains(told), "{body}: {error}");
        }
    }

    #[test]
    fn files_and_other_scripts_are_out_of_reach() {
        for text in ["import \"os\" as os;", "fn route() { eval(\"1\") }"] {
            assert!(script(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_it_prints_comes_back() {
        let (_folder, script) = script("fn route() { print(`a ${1 + 1}`); 7 }").unwrap();
        let ran = script.call("route", Vec::new()).unwrap();
        assert_eq!(ran.printed, ["a 2"]);
        assert_eq!(ran.value.as_int(), Ok(7));
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_wrong_one_is_not() {
        let (folder, script) = script("fn route() { 1 }").unwrap();
        let path = folder.path().join("route.rhai");
        let value = || {
            script
                .call("route", Vec::new())
                .unwrap()
                .value
                .as_int()
                .unwrap()
        };
        let await_value = |wanted: i64| {
            let began = Instant::now();
            while value() != wanted {
                assert!(
                    began.elapsed() < Duration::from_secs(30),
                    "never became {wanted}"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        std::fs::write(&path, "fn route() { 22 }").unwrap();
        await_value(22);
        std::fs::write(&path, "fn route() { ").unwrap();
        std::fs::write(folder.path().join("next"), "fn route() { 3333 }").unwrap();
        assert_eq!(value(), 22);
        std::fs::rename(folder.path().join("next"), &path).unwrap();
        await_value(3333);
    }
}
