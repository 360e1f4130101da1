//! A `pryamo serve` process of a test's own: its configuration, folder and port.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything here may take before the test fails. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` gives something; fails the test when it never does.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An address on which nobody listens.
///
/// Below the ports that the kernel gives to outgoing connections: there somebody who knocks until a
/// daemon listens may be connected to himself, and the daemon finds its port taken.
pub fn free_address() -> SocketAddr {
    free_listener().local_addr().unwrap()
}

/// Listens on such a port: a process that another test starts at this moment may hold it a while longer
/// than we do, so that it cannot be had again at once.
pub fn free_listener() -> TcpListener {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 4000).unwrap();
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 3000 + start.wrapping_add(step) % 4000;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener;
        }
    }
}

/// A folder with a configuration in it, ready for a daemon.
pub struct Site {
    pub folder: Arc<TempDir>,
    pub address: SocketAddr,
}

impl Site {
    /// `crms` is what follows the common part: `[[crm]]` tables, and whatever else a test sets.
    pub fn new(crms: &str) -> Self {
        Self::at(free_address(), crms)
    }

    /// The same at an address that is asked already.
    pub fn at(address: SocketAddr, crms: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let site = Self { folder, address };
        site.configure(crms);
        site
    }

    /// Writes the configuration anew, with something else behind its common part.
    pub fn configure(&self, crms: &str) {
        let config = format!(
            "data_dir = '{}'\n[forward]\nlisten = \"{}\"\n{crms}",
            self.path("data").display(),
            self.address
        );
        // At once: a daemon that reads it meanwhile must not see half of it.
        let beside = self.path("pryamo.toml.new");
        std::fs::write(&beside, config).unwrap();
        std::fs::rename(beside, self.config()).unwrap();
    }

    /// A CSV file as the only CRM, named `list`.
    pub fn with_csv(rows: &str) -> Self {
        Self::with_csv_at(free_address(), rows)
    }

    /// The same at an address that is asked already.
    pub fn with_csv_at(address: SocketAddr, rows: &str) -> Self {
        let site = Self::at(
            address,
            "[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n",
        );
        std::fs::write(site.path("clients.csv"), rows).unwrap();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("pryamo.toml")
    }

    /// Runs another command of pryamo with this configuration.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(arguments, &[])
    }

    /// The same with something in its environment.
    pub fn run_in(&self, arguments: &[&str], environment: &[(&str, String)]) -> Ran {
        let config = self.config();
        let mut command = command(self.folder.path());
        command.args(arguments).arg("--config").arg(config);
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        command.output().unwrap().into()
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The binary under test, untouched by the environment of whoever runs the tests.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pryamo"));
    command.current_dir(folder).stdin(Stdio::null());
    // `pryamo check` must not find an Asterisk of this machine.
    command.env("PATH", "");
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("PRYAMO_") {
            command.env_remove(key);
        }
    }
    command
}

/// Runs a command of pryamo to its end.
pub fn pryamo(folder: &Path, arguments: &[&str]) -> Ran {
    command(folder).args(arguments).output().unwrap().into()
}

/// Starts a command of pryamo; its standard error goes to `log` in `folder`.
pub fn start(folder: &Path, arguments: &[&str], log: &str, stdout: Stdio) -> Child {
    start_with(folder, arguments, log, stdout, &[])
}

/// The same with something in its environment.
fn start_with(
    folder: &Path,
    arguments: &[&str],
    log: &str,
    stdout: Stdio,
    environment: &[(&str, String)],
) -> Child {
    let log = std::fs::File::create(folder.join(log)).unwrap();
    command(folder)
        .args(arguments)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdout(stdout)
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    pub address: SocketAddr,
    process: Child,
    log: PathBuf,
    // Gone before its daemon is, the folder would take the daemon's start with it.
    _folder: Arc<TempDir>,
}

impl Daemon {
    /// Starts it and waits until its first mirror is whole.
    pub fn start(site: &Site) -> Self {
        let daemon = Self::start_unready(site);
        wait_for("/readyz", || {
            (daemon.get("/readyz").status == 200).then_some(())
        });
        daemon
    }

    /// Starts it and waits until it answers, whether or not a mirror is there.
    pub fn start_unready(site: &Site) -> Self {
        Self::start_in(site, &[])
    }

    /// The same with something in its environment.
    pub fn start_in(site: &Site, environment: &[(&str, String)]) -> Self {
        let config = site.config();
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let folder = site.folder.path();
        let stdout = Stdio::inherit();
        let process = start_with(folder, &arguments, "daemon.log", stdout, environment);
        Self::of(site, process)
    }

    /// Takes over a daemon that was started some other way, and waits until it answers.
    pub fn of(site: &Site, process: Child) -> Self {
        let mut daemon = Self {
            address: site.address,
            process,
            log: site.path("daemon.log"),
            _folder: Arc::clone(&site.folder),
        };
        wait_for("the daemon's port", || {
            let ended = daemon.process.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {}", daemon.log());
            TcpStream::connect(daemon.address).ok()
        });
        daemon
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The log once it says this: a thread of its own writes it, behind what it tells of.
    pub fn logged(&self, text: &str) -> String {
        wait_for(&format!("the log to say `{text}`"), || {
            let log = self.log();
            log.contains(text).then_some(log)
        })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    pub fn get(&self, target: &str) -> Answer {
        self.raw(&request("GET", target))
    }

    /// The body of `/forward`; any other status than 200 fails the test.
    pub fn forward(&self, query: &str) -> String {
        let answer = self.get(&format!("/forward?{query}"));
        assert_eq!(answer.status, 200, "{query}");
        answer.body
    }

    /// Sends these bytes on a connection of their own and reads the answer to its end.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read_answer(stream)
    }

    /// The same at another address of a daemon.
    pub fn raw_at(address: SocketAddr, bytes: &[u8]) -> Answer {
        let mut stream = connect(address);
        stream.write_all(bytes).unwrap();
        read_answer(stream)
    }

    /// Whom `/forward` rings; `None` for the standard route.
    pub fn rings(&self, query: &str) -> Option<String> {
        value(&self.forward(query), "number")
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// The sum of a counter over all its labels that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        let body = self.get("/metrics").body;
        body.lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Sends a signal by its name, `STOP` or `CONT`, to this process alone.
    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(sent.unwrap().success(), "kill -{name} {pid}");
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        // Fails only where it has ended already.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }

    /// Asks it to stop and gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.process.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

/// One kept-alive connection, for asking much.
pub struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    pub fn open(daemon: &Daemon) -> Self {
        Self {
            stream: daemon.connect(),
            buffer: vec![0; 4096],
        }
    }

    /// The body of `/forward`; any other status than 200 fails the test.
    pub fn forward(&mut self, query: &str) -> String {
        let request = format!("GET /forward?{query} HTTP/1.1\r\nHost: x\r\n\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            length += self.stream.read(&mut self.buffer[length..]).unwrap();
            let answer = Answer::parse(&self.buffer[..length]);
            let promised = answer
                .head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if promised.is_some_and(|count| count == answer.body.len().to_string()) {
                assert_eq!(answer.status, 200, "{query}");
                return answer.body;
            }
        }
    }
}

/// The value of a key of `/forward`'s answer; `None` if the key is missing.
pub fn value(answer: &str, key: &str) -> Option<String> {
    let value = answer
        .split('&')
        .find_map(|pair| pair.strip_prefix(&format!("{key}=")))?;
    Some(
        percent_encoding::percent_decode_str(value)
            .decode_utf8()
            .unwrap()
            .into_owned(),
    )
}

/// A connection that waits no longer than a test may.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends these bytes to an address that may refuse them before their end.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    read_answer(stream)
}

fn read_answer(mut stream: TcpStream) -> Answer {
    let mut read = Vec::new();
    // A server that refuses before it has read all may reset the connection.
    let _ = stream.read_to_end(&mut read);
    Answer::parse(&read)
}

/// Sends these bytes to a daemon that may be dead or die over them: then there is no answer.
pub fn ask(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    let mut read = Vec::new();
    stream.read_to_end(&mut read)?;
    match Answer::parse(&read) {
        Answer { status: 0, .. } => Err(std::io::ErrorKind::UnexpectedEof.into()),
        answer => Ok(answer),
    }
}

/// A request whose connection ends with its answer.
pub fn request(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The same with a body.
pub fn posting(target: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 0 if there was none.
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self {
            status: status.unwrap_or(0),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}
