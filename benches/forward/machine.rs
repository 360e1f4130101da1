//! Processes on this machine: the servers under test, their cores, processor time and memory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::{company, process, sizes};

/// Installed with the package nginx-light.
pub(crate) const NGINX: &str = "/usr/sbin/nginx";

/// Where a server may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Where nginx runs too; the loader has another.
    First,
    /// The same, with the journal.
    FirstWithJournal,
    /// As in life.
    All,
}

/// A server under test; ends with its value.
pub(crate) struct Server {
    child: Child,
    /// The process that does the work.
    worker: u32,
    /// Where it answers HTTP.
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // SIGTERM, so that nginx's master ends its worker too.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the daemon; whether it answers already is for others to see.
    pub(crate) fn pryamo(config: &Path, address: SocketAddr, cores: Cores) -> Self {
        let cores = match cores {
            Cores::First | Cores::FirstWithJournal => "0".to_owned(),
            Cores::All => format!("0-{}", sizes::cores() - 1),
        };
        let log = fs::File::create(config.with_extension("log")).unwrap();
        let child = Command::new("taskset")
            .args(["-c", &cores, env!("CARGO_BIN_EXE_pryamo")])
            .args(["serve", "--config"])
            .arg(config)
            // The daemon would take it for a setting of its own.
            .env_remove("PRYAMO_BENCH_SIZES")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("taskset (util-linux) starts");
        Self {
            worker: child.id(),
            child,
            address,
        }
    }

    /// Starts nginx with an answer as `/forward` gives it, for whatever it is asked.
    pub(crate) fn nginx(folder: &Path) -> Self {
        let address = free_address();
        let text = format!(
            "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; default_type text/plain;\n\
             client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d; scgi_temp_path {0}/e;\n\
             server {{ listen {address}; location / {{ return 200 '{1}'; }} }} }}\n",
            folder.display(),
            company::answer(101)
        );
        let config = folder.join("nginx.conf");
        fs::write(&config, text).unwrap();
        let child = Command::new("taskset")
            .args(["-c", "0", NGINX, "-c"])
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed (package nginx-light)");
        let mut server = Self {
            worker: child.id(),
            child,
            address,
        };
        server.wait();
        let master = server.child.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let children = children.unwrap();
        server.worker = children.split_whitespace().next().unwrap().parse().unwrap();
        server
    }

    fn wait(&self) {
        for _ in 0..200 {
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("nothing answers at {}", self.address);
    }

    /// Stops with a clear word if it has ended by itself.
    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the server at {} has ended: {status}", self.address);
        }
    }

    /// Ends it without a word of warning, as a power cut does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// See [`process::cpu_seconds`].
    pub(crate) fn cpu_seconds(&self) -> f64 {
        process::cpu_seconds(self.worker)
    }

    /// Its memory now, and the most that it ever had.
    pub(crate) fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.worker)).unwrap();
        let mib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap() / 1024.0
        };
        Memory {
            now_mib: mib("VmRSS:"),
            most_mib: mib("VmHWM:"),
        }
    }
}

/// Resident memory of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now_mib: f64,
    pub(crate) most_mib: f64,
}

/// An address on which nobody listens, below the ports that outgoing connections get: somebody who
/// knocks there until a server listens might be connected to himself.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 4000) as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + start.wrapping_add(step) % 4000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        }
    }
}

/// Lets this thread go before all others on its core, or not any more; false where nobody may.
pub(crate) fn go_first(first: bool) -> bool {
    let thread = fs::read_link("/proc/thread-self").unwrap();
    let policy = if first {
        ["--rr", "--pid", "1"]
    } else {
        ["--other", "--pid", "0"]
    };
    let set = Command::new("chrt")
        .args(policy)
        .arg(thread.file_name().unwrap())
        .stderr(Stdio::null())
        .status();
    set.is_ok_and(|status| status.success())
}
