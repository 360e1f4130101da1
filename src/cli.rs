//! The commands: what a person types, and what they read.
//!
//! Standard output holds the result, standard error holds logs, progress and errors. Exit codes: 0
//! done, 1 failed, 2 bad usage or configuration, 3 `check` found something to mend, 4 `explain`
//! found nobody.
#![expect(
    clippy::print_stdout,
    reason = "this is where commands print their results"
)]

mod ask;
mod check;
mod console;
mod dialplan;
mod journal;
mod password;
mod reload;
mod replay;
mod setup;
mod shadow;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use sd_notify::NotifyState;
use tracing_subscriber::EnvFilter;

use crate::background;
use crate::config::{self, Config, ConfigError, LogFormat};
use crate::demo;
use crate::directory::{DirectoryError, OpenError};
use crate::fault;
use crate::secret;
use crate::serve::{self, Daemon, StartError};
use crate::sync::import;

/// Done.
const DONE: u8 = 0;
/// Failed.
const FAILED: u8 = 1;
/// Bad usage or configuration.
const USAGE: u8 = 2;

/// Puts every caller through to their own person.
#[derive(Debug, Parser)]
#[command(name = "pryamo", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, value_name = "FILE", help = CONFIG_HELP)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const CONFIG_HELP: &str =
    "The configuration [default: $PRYAMO_CONFIG, ./pryamo.toml, /etc/pryamo/pryamo.toml]";

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 bad usage or configuration, \
    3 check found something to mend, 4 explain found nobody.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon.
    #[command(after_help = "Example: pryamo serve --config /etc/pryamo/pryamo.toml")]
    Serve,
    /// Asks the few things needed, tries each at once, and writes the configuration.
    #[command(after_help = "Example: pryamo setup\n\
        Or without any question: pryamo setup --yes --crm amocrm --url https://demo.amocrm.ru --token-file token --pbx none")]
    Setup(setup::SetupArguments),
    /// Runs the daemon with a made-up company; no set-up at all.
    #[command(after_help = "Example: pryamo demo\nIt prints curl lines to try.")]
    Demo(DemoArguments),
    /// Asks each CRM, the directory and the PBX one harmless question; a line per finding.
    #[command(after_help = "Example: pryamo check\nExits with 3 if something is to mend.")]
    Check(Json),
    /// Tells who would get this call, and why; places no call.
    #[command(
        after_help = "Example: pryamo explain '8 (916) 123-45-67' --did 74951234567\n\
        Exits with 4 if nobody would be rung."
    )]
    Explain(ExplainArguments),
    /// Brings the mirror up to date now.
    #[command(after_help = "Example: pryamo sync --crm sales --full")]
    Sync(SyncArguments),
    /// Takes a table exported from the CRM's own interface, as a first mirror without any key.
    #[command(after_help = "Example: pryamo import CONTACT_20261122.csv --crm sales")]
    Import(ImportArguments),
    /// Lists employees, their extensions, who cannot be rung and why.
    #[command(after_help = "Example: pryamo employees")]
    Employees(EmployeesArguments),
    /// Prints the dialplan that asks pryamo; puts it in place, or takes it out.
    #[command(after_help = "Example: pryamo dialplan --install")]
    Dialplan(dialplan::DialplanArguments),
    /// Shows what was decided for calls, and what came of it.
    #[command(after_help = "Example: pryamo journal --follow")]
    Journal(JournalArguments),
    /// Runs the calls of an Asterisk CDR file through today's rules.
    #[command(
        after_help = "Example: pryamo replay /var/log/asterisk/cdr-csv/Master.csv --html calls.html\n\
        Reads Master.csv of cdr_csv, or a table exported with its column names."
    )]
    Replay(ReplayArguments),
    /// Makes the running daemon read its configuration again, without losing a call.
    #[command(after_help = "Example: pryamo reload\nA bad file changes nothing.")]
    Reload(Json),
    /// Shows where pryamo and the former module, asked in the background, disagree.
    #[command(after_help = "Example: pryamo shadow\n\
        Needs `shadow = \"http://127.0.0.1:8078/forward\"` in the configuration.")]
    Shadow(Json),
    /// Sets who may see the operators' page.
    #[command(after_help = "Example: pryamo password anna --viewer\n\
        Asks for the password; without a terminal reads it from standard input.")]
    Password(password::PasswordArguments),
    /// Prints the settings in force, secrets starred; or every option with its default.
    #[command(after_help = "Example: pryamo config --example > /etc/pryamo/pryamo.toml")]
    Config(ConfigArguments),
}

#[derive(Debug, Args)]
struct Json {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// Ends by itself after so many minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
}

#[derive(Debug, Args)]
struct ExplainArguments {
    /// The caller's number, written in any way.
    #[arg(allow_hyphen_values = true)]
    phone: String,
    /// The number dialled.
    #[arg(long)]
    did: Option<String>,
    /// When the call comes: 2026-11-22T15:00, with an offset or in this machine's zone.
    #[arg(long, value_name = "TIME", value_parser = a_time)]
    at: Option<String>,
    /// Who was rung in vain already, a comma list: 101,102.
    #[arg(long, value_name = "NUMBERS")]
    tried: Option<String>,
    #[command(flatten)]
    output: Json,
}

/// Refuses what is no time; the daemon reads it once more.
fn a_time(written: &str) -> Result<String, String> {
    crate::api::read_time(written).map(|_| written.to_owned())
}

#[derive(Debug, Args)]
struct EmployeesArguments {
    /// Prints what was set for employees on the page, as lines for the configuration.
    #[arg(long, conflicts_with = "json")]
    export: bool,
    #[command(flatten)]
    output: Json,
}

#[derive(Debug, Args)]
struct SyncArguments {
    /// Only this CRM.
    #[arg(long, value_name = "NAME")]
    crm: Option<String>,
    /// Walks all cards again; lookups go on meanwhile.
    #[arg(long)]
    full: bool,
    /// Deletes what the CRM no longer has, however much it is.
    #[arg(long, requires = "full")]
    accept_deletions: bool,
    #[command(flatten)]
    output: Json,
}

#[derive(Debug, Args)]
struct ImportArguments {
    /// The exported file.
    file: PathBuf,
    /// The CRM that it comes from: its `name` in the configuration.
    #[arg(long, value_name = "NAME")]
    crm: String,
    #[command(flatten)]
    output: Json,
}

#[derive(Debug, Args)]
struct JournalArguments {
    /// Goes on as calls come; Ctrl-C ends it.
    #[arg(long, short)]
    follow: bool,
    /// How many calls are shown, the newest ones.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Only calls of this number, written in any way.
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    phone: Option<String>,
    #[command(flatten)]
    output: Json,
}

#[derive(Debug, Args)]
struct ReplayArguments {
    /// The CDR file.
    file: PathBuf,
    /// The column that holds the number dialled: its name, or its place counted from 1.
    #[arg(long, value_name = "COLUMN")]
    did_column: Option<String>,
    /// Writes a page with charts, which needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The language of the page.
    #[arg(long, value_enum, default_value_t = Lang::Ru)]
    lang: Lang,
    #[command(flatten)]
    output: Json,
}

/// The languages of the page.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Lang {
    /// Russian.
    Ru,
    /// English.
    En,
}

impl From<Lang> for crate::replay::Language {
    fn from(lang: Lang) -> Self {
        match lang {
            Lang::Ru => Self::Ru,
            Lang::En => Self::En,
        }
    }
}

/// Text from outside as a terminal may show it: nothing in it moves the cursor or turns the line round.
fn plain(text: &str) -> String {
    let turns = |letter: char| {
        matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}')
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|letter| {
            if letter.is_control() || turns(letter) {
                ' '
            } else {
                letter
            }
        })
        .collect()
}

#[derive(Debug, Args)]
struct ConfigArguments {
    /// Prints every option with its default.
    #[arg(long)]
    example: bool,
    #[command(flatten)]
    output: Json,
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    if let Err(error) = secret::keep_memory_private() {
        eprintln!("pryamo: a core dump of this process would hold its secrets: {error}");
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where nobody reads, nobody is told.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { DONE });
        }
    };
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("pryamo: {}", fault::told(error.as_ref()));
            let is_usage = error
                .chain()
                .any(|cause| cause.is::<ConfigError>() || cause.is::<crate::crm::SettingsError>());
            ExitCode::from(if is_usage { USAGE } else { FAILED })
        }
    }
}

fn run(arguments: Arguments) -> Result<u8> {
    if let Command::Config(ConfigArguments { example: true, .. }) = arguments.command {
        print!("{}", config::example());
        return Ok(DONE);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(background::give_way)
        .enable_all()
        .build()?;
    if let Command::Demo(demo) = arguments.command {
        return runtime.block_on(run_demo(demo.minutes));
    }
    if let Command::Setup(setup) = arguments.command {
        return runtime.block_on(setup::run(arguments.config.as_deref(), setup));
    }
    let config = match Config::load(arguments.config.as_deref()) {
        Err(error) if matches!(arguments.command, Command::Reload(_)) => {
            return Ok(reload::refused(&error));
        }
        loaded => loaded?,
    };
    let done = match arguments.command {
        Command::Serve => runtime.block_on(run_serve(&config)),
        Command::Check(output) => runtime.block_on(check::run(&config, output.json)),
        Command::Explain(explain) => runtime.block_on(ask::explain(&config, &explain)),
        Command::Sync(sync) => runtime.block_on(ask::sync(&config, &sync)),
        Command::Import(import) => runtime.block_on(run_import(&config, &import)),
        Command::Employees(employees) => runtime.block_on(ask::employees(&config, &employees)),
        Command::Dialplan(dialplan) => runtime.block_on(dialplan::run(&config, &dialplan)),
        Command::Journal(journal) => runtime.block_on(journal::run(&config, &journal)),
        Command::Replay(replay) => runtime.block_on(replay::run(&config, &replay)),
        Command::Reload(output) => runtime.block_on(reload::run(&config, output.json)),
        Command::Shadow(output) => runtime.block_on(shadow::run(&config, output.json)),
        Command::Password(asked) => password::run(&config, &asked),
        Command::Config(output) => show_config(&config, output.output.json),
        Command::Demo(_) | Command::Setup(_) => Ok(DONE),
    };
    // A thread that still waits for a file or a name must not hold the command up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

fn show_config(config: &Config, json: bool) -> Result<u8> {
    let shown = config::show(config);
    if json {
        let table: toml::Table = toml::from_str(&shown)?;
        println!("{}", serde_json::to_string_pretty(&table)?);
    } else {
        if let Some(path) = &config.path {
            println!("# {}", path.display());
        }
        print!("{shown}");
    }
    Ok(DONE)
}

/// Logs go to standard error through a thread of their own: a slow reader must not slow a call.
fn log_to_stderr(log: &config::Log) -> tracing_appender::non_blocking::WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    // What it says of each certificate that is not believed is told by whoever asked.
    let silent = "rustls_platform_verifier=off";
    let filter = EnvFilter::new(format!("warn,{silent},pryamo={}", log.level.as_str()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    // A second subscriber in one process is refused; the first one stays.
    let _ = match log.format {
        LogFormat::Plain => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_target(false)
            .try_init(),
    };
    guard
}

async fn run_serve(config: &Config) -> Result<u8> {
    let _log = log_to_stderr(&config.log);
    if config.crms.is_empty() {
        tracing::warn!("the configuration has no [[crm]]: every call goes the standard route");
    }
    // Before anything else: unheard, the signal would end the process.
    let hangup = hangup();
    let daemon = Daemon::start(config, serve::clock()).await?;
    tracing::info!(address = %daemon.address, crms = config.crms.len(), data_dir = %config.data_dir.display(), "pryamo answers");
    tell_systemd(NotifyState::Ready);
    tokio::select! {
        () = wait_for_stop() => {}
        () = reload_on(hangup, &daemon) => {}
    }
    tracing::info!("pryamo stops");
    tell_systemd(NotifyState::Stopping);
    daemon.stop().await;
    Ok(DONE)
}

/// Tells systemd how we stand, where it has started us (`Type=notify`).
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told how pryamo stands");
    }
}

fn hangup() -> Option<tokio::signal::unix::Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    let heard = signal(SignalKind::hangup());
    let told = |error| tracing::warn!(%error, "SIGHUP cannot be heard");
    heard.map_err(told).ok()
}

/// Reads the configuration again at each SIGHUP, for ever.
async fn reload_on(hangup: Option<tokio::signal::unix::Signal>, daemon: &Daemon) {
    if let Some(mut hangup) = hangup {
        while hangup.recv().await.is_some() {
            // What came of it is in the log.
            let _ = daemon.reload().await;
        }
    }
    std::future::pending::<()>().await;
}

async fn wait_for_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        match signal(kind) {
            Ok(signal) => signals.push(signal),
            Err(error) => tracing::warn!(%error, "a signal cannot be heard"),
        }
    }
    let heard = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(heard).await;
}

async fn run_demo(minutes: u64) -> Result<u8> {
    let folder = Folder::make()?;
    let config = demo::lay_out(&folder.0)?;
    let _log = log_to_stderr(&config.log);
    let daemon = Daemon::start(&config, serve::clock()).await?;
    let base = format!("http://{}", daemon.address);
    ask::wait_until_ready(&base).await?;
    println!("pryamo answers for a made-up company at {base}\n");
    for question in &demo::QUESTIONS {
        let answer = ask::get_text(&format!("{base}/forward?{}", question.query)).await?;
        println!("# {}", question.shows);
        println!("curl '{base}/forward?{}'", question.query);
        println!(
            "{}\n",
            if answer.is_empty() {
                "(empty)"
            } else {
                &answer
            }
        );
    }
    println!("# the operators' page\n{base}/\n");
    println!("# the same decision step by step");
    // As it was called: `make demo` does not install it.
    let own = std::env::args()
        .next()
        .unwrap_or_else(|| "pryamo".to_owned());
    println!(
        "{own} explain 89161234504 --config {}",
        folder.0.join("pryamo.toml").display()
    );
    println!("curl '{base}/api/v1/route?phone=89161234504'\n");
    println!(
        "In a dialplan: Set(HASH(forwardHash)=${{CURL({base}/forward?phone=${{CALLERID(num)}}&trunk=${{EXTEN}}&callid=${{CHANNEL(linkedid)}})}})"
    );
    println!("Ctrl-C ends it; it ends by itself after {minutes} minutes.");
    tokio::select! {
        () = wait_for_stop() => {}
        () = tokio::time::sleep(Duration::from_secs(minutes.saturating_mul(60))) => {}
    }
    daemon.stop().await;
    Ok(DONE)
}

/// A folder that goes with the demo.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("pryamo-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now, the system removes later.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Imports through the daemon if one runs here, else straight into the directory.
async fn run_import(config: &Config, arguments: &ImportArguments) -> Result<u8> {
    let table = config
        .crms
        .iter()
        .find(|table| table.name.as_str() == arguments.crm);
    let Some(table) = table else {
        let known: Vec<&str> = config
            .crms
            .iter()
            .map(|table| table.name.as_str())
            .collect();
        anyhow::bail!(
            "no [[crm]] is named `{}`; there is {}",
            arguments.crm,
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        );
    };
    let bytes = read_import(&arguments.file)?;
    let bar = ask::spinner(&format!("importing {}", arguments.file.display()));
    let report = match serve::open_directory(config) {
        Ok(directory) => {
            let region = config.region_of(table);
            import::import(&*directory, &table.name, region, &bytes).await?
        }
        Err(error) if is_in_use(&error) => ask::import(config, &arguments.crm, bytes).await?,
        Err(error) => return Err(error.into()),
    };
    bar.finish_and_clear();
    if arguments.output.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_import(&report);
    }
    Ok(DONE)
}

fn read_import(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    if size > crate::api::LARGEST_IMPORT as u64 {
        anyhow::bail!(
            "{} has {size} bytes; at most {} are taken, split it",
            path.display(),
            crate::api::LARGEST_IMPORT
        );
    }
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn is_in_use(error: &StartError) -> bool {
    matches!(
        error,
        StartError::Directory(OpenError::Directory(DirectoryError::InUse { .. }))
    )
}

fn print_import(report: &import::ImportReport) {
    let kinds: Vec<String> = report
        .cards
        .iter()
        .map(|(kind, count)| format!("{count} of kind {kind}"))
        .collect();
    println!("imported: {}; {} numbers", kinds.join(", "), report.phones);
    if report.without_phone > 0 {
        println!("{} cards have no readable number", report.without_phone);
    }
    if report.skipped > 0 {
        println!("{} lines were left out:", report.skipped);
        for line in &report.skipped_lines {
            println!("  {line}");
        }
    }
    if !report.unread_columns.is_empty() {
        println!("columns not used: {}", report.unread_columns.join(", "));
    }
    if !report.without_extension.is_empty() {
        println!(
            "without an extension, give them one in [crm.employees]: {}",
            report.without_extension.join(", ")
        );
    }
}
