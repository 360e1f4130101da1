//! `pryamo replay`: a CDR file through today's rules.

use std::fs::File;
use std::io::{BufReader, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::{DONE, ReplayArguments, ask, is_in_use, plain};
use crate::config::Config;
use crate::directory::Directory;
use crate::replay::{
    self, Call, Calls, Counter, Line, MOST_QUESTIONS, Question, Read, Reader, Report, Verdict,
};
use crate::router::Router;
use crate::serve;

/// Rows printed of a table; the rest is in the JSON.
const MOST_ROWS: usize = 15;
/// Between two looks at the bar.
const LINES_A_LOOK: u64 = 1000;

/// Who judges: this process, or the daemon that holds the directory.
enum Judge {
    Here(Box<Router>, Arc<dyn Directory>),
    Daemon(ask::Daemon),
}

impl Judge {
    fn open(config: &Config) -> Result<Self> {
        match serve::open_directory(config) {
            Ok(directory) => {
                let router = serve::replay_router(config, &directory)?;
                Ok(Self::Here(Box::new(router), directory))
            }
            Err(error) if is_in_use(&error) => Ok(Self::Daemon(ask::Daemon::of(config).owner()?)),
            Err(error) => Err(error.into()),
        }
    }

    async fn judge(&self, calls: &[Call]) -> Result<Vec<Verdict>> {
        let questions = calls.iter().map(|call| Question {
            phone: call.caller.clone(),
            did: call.did.clone(),
            at: call.start,
        });
        match self {
            Self::Here(router, directory) => {
                let employees = directory.roster();
                let mut verdicts = Vec::with_capacity(calls.len());
                for question in questions {
                    verdicts.push(replay::judge(router, &employees, question).await);
                }
                Ok(verdicts)
            }
            Self::Daemon(daemon) => {
                let questions: Vec<Question> = questions.collect();
                let verdicts: Vec<Verdict> = daemon.post("/api/v1/replay", &questions).await?;
                if verdicts.len() != calls.len() {
                    bail!(
                        "the daemon judged {} of {} calls",
                        verdicts.len(),
                        calls.len()
                    );
                }
                Ok(verdicts)
            }
        }
    }
}

/// Reads the file, judges its calls, prints the figures.
pub(super) async fn run(config: &Config, arguments: &ReplayArguments) -> Result<u8> {
    let report = replay(config, arguments).await?;
    if let Some(path) = &arguments.html {
        let name = arguments.file.file_name().unwrap_or_default();
        let language = arguments.lang.into();
        let zone = config.office.zone();
        let page = replay::page(&report, &name.to_string_lossy(), language, &zone);
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if arguments.output.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_report(&report);
    }
    if let (Some(path), false) = (&arguments.html, arguments.output.json) {
        println!("\nthe page is in {}", path.display());
    }
    Ok(DONE)
}

async fn replay(config: &Config, arguments: &ReplayArguments) -> Result<Report> {
    let path = &arguments.file;
    let (source, bar) = open(path)?;
    let judge = Judge::open(config)?;
    let zone = config.office.zone();
    let mut reader = Reader::new(source, arguments.did_column.clone(), zone.clone());
    let pattern = config.matching.extension_pattern.clone();
    let mut calls = Calls::new(config.phone.region, pattern);
    let mut counter = Counter::new(zone);
    let mut batch = Vec::new();
    let mut legs = 0_u64;
    loop {
        let done = match reader.read()? {
            Read::End => break,
            Read::Nothing => None,
            Read::Damaged => {
                counter.damaged(reader.lines);
                None
            }
            Read::Row(row) => {
                legs += 1;
                calls.push(*row)
            }
        };
        if reader.lines.is_multiple_of(LINES_A_LOOK) {
            bar.set_position(reader.bytes);
        }
        batch.extend(done.filter(|call| !counter.left_out(call)));
        if batch.len() >= MOST_QUESTIONS {
            count(&judge, &mut counter, &mut batch).await?;
        }
    }
    while let Some(call) = calls.pop() {
        batch.extend(Some(call).filter(|call| !counter.left_out(call)));
        if batch.len() >= MOST_QUESTIONS {
            count(&judge, &mut counter, &mut batch).await?;
        }
    }
    count(&judge, &mut counter, &mut batch).await?;
    bar.finish_and_clear();
    if legs == 0 {
        bail!(
            "{} is no Asterisk CDR file: no line has the columns of Master.csv (cdr_csv), nor a first line that names `start` or `calldate` and `src`",
            path.display()
        );
    }
    Ok(counter.report(reader.lines))
}

async fn count(judge: &Judge, counter: &mut Counter, batch: &mut Vec<Call>) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let verdicts = judge.judge(batch).await?;
    for (call, verdict) in batch.iter().zip(&verdicts) {
        counter.add(call, verdict);
    }
    batch.clear();
    Ok(())
}

fn open(path: &Path) -> Result<(BufReader<File>, ProgressBar)> {
    let fault = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(fault)?;
    let size = file.metadata().with_context(fault)?.len();
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(size)
    } else {
        ProgressBar::hidden()
    };
    let style = "{bar:30} {bytes} of {total_bytes}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    Ok((BufReader::with_capacity(1 << 20, file), bar))
}

fn print_report(report: &Report) {
    println!("{:>9}  calls from outside", report.calls);
    println!(
        "{:>9}  of known callers{}",
        report.known,
        share(report.known, report.calls)
    );
    println!(
        "{:>9}  reached their own person then{}",
        report.own_then,
        share(report.own_then, report.known)
    );
    println!(
        "{:>9}  would ring their own person first now{}",
        report.own_now,
        share(report.own_now, report.known)
    );
    println!(
        "\nleft out: {} outgoing, {} internal, {} with a hidden number; {} of {} lines could not be read{}",
        report.outgoing,
        report.internal,
        report.without_number,
        report.damaged,
        report.lines,
        named(&report.damaged_lines)
    );
    if report.known == 0 && report.calls > 0 {
        println!("nobody is known: is the mirror there? `pryamo check` tells");
    }
    let hours: Vec<Line> = report
        .by_hour
        .iter()
        .filter(|hour| hour.calls > 0)
        .cloned()
        .collect();
    for (title, lines, unnamed) in [
        ("EMPLOYEE", &report.by_employee, "(all others)"),
        ("NUMBER DIALLED", &report.by_did, "(not in the file)"),
        ("HOUR", &hours, ""),
    ] {
        print_table(title, lines, unnamed);
    }
}

fn print_table(title: &str, lines: &[Line], unnamed: &str) {
    if lines.is_empty() {
        return;
    }
    println!(
        "\n{title:<32} {:>8} {:>8} {:>14} {:>14}",
        "calls", "known", "own then", "own now"
    );
    let most = if title == "HOUR" { 24 } else { MOST_ROWS };
    for line in lines.iter().take(most) {
        let name = if line.name.is_empty() {
            unnamed
        } else {
            &line.name
        };
        let own = |count: u64| format!("{count}{}", share(count, line.known));
        println!(
            "{:<32} {:>8} {:>8} {:>14} {:>14}",
            plain(name),
            line.calls,
            line.known,
            own(line.own_then),
            own(line.own_now)
        );
    }
    if lines.len() > most {
        println!("and {} more: --json has them", lines.len() - most);
    }
}

/// ` (45 %)`; nothing of nothing.
fn share(part: u64, whole: u64) -> String {
    (part * 100 + whole / 2)
        .checked_div(whole)
        .map_or_else(String::new, |percent| format!(" ({percent} %)"))
}

fn named(lines: &[u64]) -> String {
    let Some(first) = lines.first() else {
        return String::new();
    };
    format!(", the first is line {first}")
}
