//! Drives the lab in `tests/lab`: a private Asterisk, its phones and its callers.
//!
//! Everything ends by itself: on drop, and should the test be killed, after [`LIFETIME_SECONDS`].

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::{pryamo, wait_for};

const LIFETIME_SECONDS: u32 = 300;

/// The versions that `PRYAMO_TEST_ASTERISK` names, `16 22`; nothing where it is unset.
///
/// Without it the seam is left out, which is said in one line, and fails where `CI` is set.
#[expect(
    clippy::disallowed_methods,
    reason = "says which seams this run has, and is no setting of pryamo"
)]
pub fn asterisk_versions() -> Vec<String> {
    static SAID: Once = Once::new();
    let wanted = std::env::var("PRYAMO_TEST_ASTERISK").unwrap_or_default();
    if wanted.trim().is_empty() {
        // Past the test harness, which swallows what a passing test prints.
        SAID.call_once(|| {
            let line = "left out: calls through a real Asterisk; PRYAMO_TEST_ASTERISK is not set\n";
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        });
        assert!(
            std::env::var_os("CI").is_none(),
            "with CI set no seam may be left out"
        );
    }
    wanted.split_whitespace().map(str::to_owned).collect()
}

/// A dialplan that asks the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialplan {
    /// The vendor page's, unchanged.
    Vendor,
    /// The one that pryamo prints.
    Recommended,
}

impl Dialplan {
    /// A file with it, which asks at this address.
    fn write(self, folder: &Path, forward_url: &str) -> PathBuf {
        match self {
            Self::Vendor => dialplans().join("vendor.conf"),
            Self::Recommended => {
                let address = forward_url
                    .trim_start_matches("http://")
                    .trim_end_matches("/forward");
                let config = format!("[forward]\nlisten = \"{address}\"\n");
                print_dialplan(folder, &config, &["--for", "asterisk"], "")
            }
        }
    }

    /// How long it waits for the daemon.
    pub fn patience(self) -> Duration {
        match self {
            Self::Vendor => Duration::from_secs(5),
            Self::Recommended => Duration::from_secs(3),
        }
    }
}

pub fn dialplans() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/dialplans")
}

/// What `pryamo dialplan` prints with this configuration, in a file, with something behind it.
pub fn print_dialplan(folder: &Path, config: &str, arguments: &[&str], more: &str) -> PathBuf {
    let file = folder.join("printed.toml");
    let standard = "[asterisk]\nstandard = \"ivr-1,s,1\"\n";
    std::fs::write(&file, format!("{config}{standard}")).unwrap();
    let mut all = vec!["dialplan", "--config", file.to_str().unwrap()];
    all.extend(arguments);
    let printed = pryamo(folder, &all);
    assert_eq!(printed.code, 0, "{}", printed.err);
    let path = folder.join("printed.conf");
    std::fs::write(&path, printed.out + more).unwrap();
    path
}

/// A call from outside.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The number as it stands in the SIP address, `%26` for `&`.
    pub from: String,
    /// The name that the trunk sends.
    pub name: String,
    /// The number dialled; tells the results apart, so it must be another one for every call.
    pub to: String,
}

/// Where a call went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The caller's name when the call ended.
    pub name: String,
    /// `101`, `102`, `103`, `ivr`, `invalid` or `none`.
    pub went: String,
}

/// A running Asterisk; stopped when dropped.
pub struct Lab {
    folder: TempDir,
    run: PathBuf,
    said: HashMap<String, Outcome>,
}

impl Lab {
    /// Starts this version with this dialplan, asking at `forward_url`, and both phones.
    pub fn start(version: &str, dialplan: Dialplan, forward_url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let conf = dialplan.write(folder.path(), forward_url);
        let lab = Self::start_with(version, &conf, forward_url);
        lab.phone("101", "answer");
        lab.phone("102", "answer");
        lab
    }

    /// Starts this version with this file as its `extensions_custom.conf`; no phone is on.
    pub fn start_with(version: &str, conf: &Path, forward_url: &str) -> Self {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab");
        let lab = Self {
            folder: tempfile::Builder::new().prefix("lab").tempdir().unwrap(),
            run: home.join("run-asterisk"),
            said: HashMap::new(),
        };
        lab.tell(&[
            "start",
            "--version",
            version,
            "--dialplan",
            conf.to_str().unwrap(),
            "--forward-url",
            forward_url,
            "--lifetime",
            &LIFETIME_SECONDS.to_string(),
        ]);
        lab
    }

    /// Switches a phone on that behaves so, or `off`.
    pub fn phone(&self, number: &str, mode: &str) {
        self.tell(&["phone", number, mode]);
    }

    /// The same, and keeps every message that the phone gets, for [`Lab::invites`].
    pub fn recording_phone(&self, number: &str, mode: &str) {
        let messages = self.messages_of(number);
        let messages = messages.to_str().unwrap();
        let keep = ["-trace_msg", "-message_file", messages];
        self.tell(&[&["phone", number, mode][..], &keep].concat());
    }

    fn messages_of(&self, number: &str) -> PathBuf {
        let name = format!("log/phone-{number}.messages");
        self.folder.path().join(name)
    }

    /// The INVITEs that a recording phone got, byte by byte.
    pub fn invites(&self, number: &str) -> Vec<Vec<u8>> {
        const RECEIVED: &[u8] = b"message received [";
        let log = std::fs::read(self.messages_of(number)).unwrap();
        let mut invites = Vec::new();
        let mut rest = log.as_slice();
        while let Some(at) = memchr::memmem::find(rest, RECEIVED) {
            rest = &rest[at + RECEIVED.len()..];
            // `message received [873] bytes :`, an empty line, and so many bytes.
            let end = memchr::memchr(b']', rest).unwrap();
            let length: usize = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
            let begin = memchr::memmem::find(rest, b"\n\n").unwrap() + 2;
            let message = &rest[begin..begin + length];
            if message.starts_with(b"INVITE ") {
                invites.push(message.to_vec());
            }
            rest = &rest[begin + length..];
        }
        invites
    }

    /// What Asterisk's console answers.
    pub fn console(&self, command: &str) -> String {
        self.tell(&["cli", command])
    }

    /// How the console is asked, for `asterisk.command`.
    pub fn console_command(&self) -> String {
        let root = self.variable("ROOT");
        let conf = self.etc().join("asterisk.conf");
        format!(
            "/usr/bin/env PATH=/usr/bin:/bin {root}/exec usr/sbin/asterisk -C {}",
            conf.display()
        )
    }

    /// Where its Manager Interface listens.
    pub fn ami_address(&self) -> std::net::SocketAddr {
        let port: u16 = self.variable("AMI_PORT").parse().unwrap();
        std::net::SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// The folder of its configuration.
    pub fn etc(&self) -> PathBuf {
        self.folder.path().join("etc")
    }

    /// A line of the lab's `env`.
    pub fn variable(&self, name: &str) -> String {
        let env = std::fs::read_to_string(self.folder.path().join("env")).unwrap();
        let mut lines = env.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap().to_owned()
    }

    /// Makes these calls, so many a second, each held so long, and gives where each one went.
    pub fn calls(&mut self, callers: &[Caller], per_second: u32, hold: Duration) -> Vec<Outcome> {
        let mut list = String::new();
        for Caller { from, name, to } in callers {
            writeln!(list, "{from};{name};{to}").unwrap();
        }
        let path = self.folder.path().join("callers");
        std::fs::write(&path, list).unwrap();
        self.tell(&[
            "calls",
            path.to_str().unwrap(),
            "-r",
            &per_second.to_string(),
            "-d",
            &hold.as_millis().to_string(),
        ]);
        callers
            .iter()
            .map(|caller| self.outcome(&caller.to))
            .collect()
    }

    /// Makes one call; gives where it went, and how long it took besides being held.
    pub fn call(&mut self, from: &str, to: &str) -> (Outcome, Duration) {
        const HOLD_MS: u64 = 200;
        let began = Instant::now();
        let hold = HOLD_MS.to_string();
        self.tell(&["call", "--from", from, "--to", to, "--hold", &hold]);
        let took = began
            .elapsed()
            .saturating_sub(Duration::from_millis(HOLD_MS));
        (self.outcome(to), took)
    }

    /// Makes a call whose caller hangs up after `wait`, unanswered.
    pub fn give_up(&mut self, from: &str, to: &str, wait: Duration) {
        let wait = wait.as_millis().to_string();
        self.tell(&["give-up", "--from", from, "--to", to, "--hold", &wait]);
    }

    /// Makes a call whose caller hangs up a moment after it rings.
    pub fn leave(&mut self, from: &str, to: &str) {
        self.tell(&["leave", "--from", from, "--to", to]);
    }

    /// The id of the call to `to`, which is over.
    pub fn call_id(&mut self, to: &str) -> String {
        self.outcome(to);
        let log = self.read("calls.tsv");
        let mut lines = log.lines().map(|line| line.split('\t'));
        let found = lines.find_map(|mut fields| {
            let id = fields.next()?;
            (fields.next()? == to).then(|| id.to_owned())
        });
        found.unwrap()
    }

    /// Who was rung for this call, in their order.
    pub fn rung_for(&self, call_id: &str) -> Vec<String> {
        let log = self.read("rings.tsv");
        let of_call = log.lines().filter_map(|line| {
            let (id, rest) = line.split_once('\t')?;
            (id == call_id).then(|| rest.split('\t').next().unwrap().to_owned())
        });
        of_call.collect()
    }

    /// Waits until the call to `to` is over.
    pub fn await_end(&mut self, to: &str) {
        self.outcome(to);
    }

    /// What the phone of this extension showed for the calls from `caller`.
    pub fn shown(&self, extension: &str, caller: &str) -> Vec<String> {
        let log = self.read(&format!("phone-{extension}.log"));
        let address = format!("<sip:{caller}@");
        log.lines()
            .filter_map(|line| line.split_once("from=")?.1.split_once(&address))
            .map(|(name, _)| unquote(name.trim()))
            .collect()
    }

    /// The extensions that were rung since the start.
    pub fn rung(&self) -> Vec<String> {
        let log = self.read("rings.tsv");
        log.lines()
            .filter_map(|line| line.split('\t').nth(1).map(str::to_owned))
            .collect()
    }

    /// What the dialplan did, step by step.
    pub fn steps(&self) -> String {
        self.read("full")
    }

    fn read(&self, log: &str) -> String {
        let path = self.folder.path().join("log").join(log);
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Waits for the line of the call that dialled `to`.
    fn outcome(&mut self, to: &str) -> Outcome {
        wait_for(&format!("the result of the call to {to}"), || {
            if !self.said.contains_key(to) {
                self.said = results(&self.read("calls.tsv"));
            }
            self.said.get(to).cloned()
        })
    }

    fn tell(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.run)
            .arg(self.folder.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "run-asterisk {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("calls:\n{}", self.read("calls.tsv"));
            eprintln!("Asterisk's troubles:\n{}", self.read("trouble"));
        }
        // What could not be stopped ends with its lifetime.
        let _ = Command::new(&self.run)
            .arg(self.folder.path())
            .arg("stop")
            .output();
    }
}

/// The records of `calls.tsv`, by the number dialled. A caller's number may hold a line break.
fn results(log: &str) -> HashMap<String, Outcome> {
    const TABS: usize = 5;
    let mut found = HashMap::new();
    let mut record = String::new();
    for line in log.split_inclusive('\n') {
        record.push_str(line);
        if record.matches('\t').count() < TABS || !record.ends_with('\n') {
            continue;
        }
        let fields: Vec<&str> = record.trim_end_matches('\n').split('\t').collect();
        if let [_, to, .., name, went, _] = fields.as_slice() {
            let outcome = Outcome {
                name: (*name).to_owned(),
                went: (*went).to_owned(),
            };
            found.insert((*to).to_owned(), outcome);
        }
        record.clear();
    }
    found
}

/// A SIP display name without its quotes and their escapes.
pub fn unquote(written: &str) -> String {
    let inner = written
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return written.to_owned();
    };
    let mut plain = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' {
            letters.next()
        } else {
            Some(letter)
        });
    }
    plain
}
