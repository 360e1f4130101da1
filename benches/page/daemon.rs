//! The daemon under test: the package's own binary.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pryamo::config::Config;

use crate::browser::{NAME, PASSWORD};
use crate::process;

/// Ends with its value.
pub struct Daemon {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    config: std::path::PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Starts it and waits until it answers.
    pub fn start(config: &Config) -> Self {
        let path = config.path.clone().unwrap();
        let child = pryamo()
            .args(["serve", "--config"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(fs::File::create(path.with_extension("log")).unwrap())
            .spawn()
            .unwrap();
        let daemon = Self {
            child,
            address: config.forward.listen,
            config: path.clone(),
        };
        for _ in 0..200 {
            if TcpStream::connect(daemon.address).is_ok() {
                return daemon;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(path.with_extension("log")).unwrap();
        panic!("nothing answers at {}:\n{log}", daemon.address);
    }

    /// Lets an administrator in.
    pub fn set_password(&self) {
        let mut command = pryamo()
            .args(["password", NAME, "--config"])
            .arg(&self.config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = command.stdin.take().unwrap();
        input.write_all(PASSWORD.as_bytes()).unwrap();
        drop(input);
        assert!(command.wait().unwrap().success());
    }

    /// Its resident memory.
    pub fn memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap() / 1024
    }

    /// See [`process::cpu_seconds`].
    pub fn cpu_seconds(&self) -> f64 {
        process::cpu_seconds(self.child.id())
    }

    /// Keeps all its threads on one core.
    pub fn pin_to(&self, core: u32) {
        process::pin(self.child.id(), core);
    }
}

/// The command, without this benchmark's variables: it would take them for settings.
fn pryamo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pryamo"));
    command.env_clear();
    command
}
