//! A real pryamo process with a configuration and data of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a daemon may take to answer at all.
const START: Duration = Duration::from_secs(20);

/// A daemon; killed when dropped.
pub struct Daemon {
    child: Option<Child>,
    pub folder: TempDir,
    pub port: u16,
}

impl Daemon {
    /// Lays out a configuration, `data_dir`, port and log already in it, and starts the daemon.
    pub async fn start(config: &str) -> Self {
        let mut daemon = Self::lay_out(config);
        daemon.restart().await;
        daemon
    }

    /// Lays out a configuration without starting anything.
    pub fn lay_out(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let text = format!(
            "data_dir = \"{}\"\n[forward]\nlisten = \"127.0.0.1:{port}\"\n{config}",
            folder.path().join("data").display()
        );
        std::fs::write(folder.path().join("pryamo.toml"), text).unwrap();
        Self {
            child: None,
            folder,
            port,
        }
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("pryamo.toml")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts it, and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pryamo"))
            .args(["serve", "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(
                began.elapsed() < START,
                "the daemon does not answer:\n{}",
                self.log()
            );
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the daemon ended:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub async fn get(&self, path: &str) -> String {
        let client = pryamo::crm::local_client(Duration::from_secs(30)).unwrap();
        client
            .get(format!("http://127.0.0.1:{}{path}", self.port))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// The body of `/forward` for this query.
    pub async fn forward(&self, query: &str) -> String {
        self.get(&format!("/forward?{query}")).await
    }

    pub async fn readyz(&self) -> Value {
        serde_json::from_str(&self.get("/readyz").await).unwrap()
    }

    /// Waits until every mirror is whole; gives how long that took.
    pub async fn wait_until_ready(&self, longest: Duration) -> Duration {
        let began = Instant::now();
        loop {
            let readiness = self.readyz().await;
            if readiness["ready"] == true {
                return began.elapsed();
            }
            assert!(
                began.elapsed() < longest,
                "not ready: {readiness}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs another command of pryamo with this daemon's configuration.
    pub fn command(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_pryamo"))
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .output()
            .unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One kept-alive connection, for asking much.
pub struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    pub async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: vec![0; 4096],
        }
    }

    pub async fn forward(&mut self, query: &str) -> String {
        let request = format!("GET /forward?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut length = 0;
        loop {
            length += self.stream.read(&mut self.buffer[length..]).await.unwrap();
            let answer = std::str::from_utf8(&self.buffer[..length]).unwrap();
            let Some((head, body)) = answer.split_once("\r\n\r\n") else {
                continue;
            };
            let expected = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .and_then(|count| count.parse::<usize>().ok())
                .unwrap();
            if body.len() >= expected {
                assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
                return body.to_owned();
            }
        }
    }
}

/// The value of a key of an answer; `None` if the key is missing.
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

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
