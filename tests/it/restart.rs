//! Restarts under load: with a port that somebody else holds, as systemd does, no caller notices one.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::daemon::{Daemon, PATIENCE, Site, ask, free_listener, request, value, wait_for};

const CLIENTS: &str = "\
id;kind;name;phone;responsible;extension
1;contact;Иван Петров;79161234501;Анна Соколова;101
";
/// What follows the common part of the configuration.
const LIST: &str =
    "[fastagi]\nlisten = \"\"\n[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n";
const RESTARTS: usize = 5;
const CALLERS: usize = 8;
/// Calls between two restarts, at least.
const CALLS: usize = 40;

fn site(address: SocketAddr) -> Site {
    let site = Site::at(address, LIST);
    std::fs::write(site.path("clients.csv"), CLIENTS).unwrap();
    site
}

/// Starts a daemon as systemd does: the port is its third file, and it is told so.
fn start_with(site: &Site, port: &TcpListener, notices: &UnixDatagram) -> Daemon {
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(site.path("daemon.log"))
        .unwrap();
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    let address = notices.local_addr().unwrap();
    let process = Command::new("/bin/sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_pryamo"), "serve"])
        .arg("--config")
        .arg(site.config())
        .env("NOTIFY_SOCKET", address.as_pathname().unwrap())
        .stdin(Stdio::from(OwnedFd::from(port.try_clone().unwrap())))
        .stdout(Stdio::inherit())
        .stderr(log)
        .spawn()
        .unwrap();
    let daemon = Daemon::of(site, process);
    wait_for_notice(notices, "READY=1");
    daemon
}

fn wait_for_notice(notices: &UnixDatagram, expected: &str) {
    let mut buffer = [0; 256];
    let read = notices.recv(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer[..read]).trim(), expected);
}

/// Calls over new connections until `done`; every answer must be right.
fn call_on(address: SocketAddr, done: &AtomicBool, count: &AtomicUsize) {
    while !done.load(Ordering::Relaxed) {
        let question = request("GET", "/forward?phone=79161234501&trunk=7495");
        let answer = ask(address, &question).expect("no call is lost");
        assert_eq!(value(&answer.body, "number").as_deref(), Some("101"));
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn wait_for_calls(count: &AtomicUsize) {
    let before = count.load(Ordering::Relaxed);
    wait_for("calls", || {
        (count.load(Ordering::Relaxed) >= before + CALLS).then_some(())
    });
}

#[test]
fn no_call_is_lost_or_wrong_while_pryamo_restarts_behind_a_port_that_systemd_holds() {
    let port = free_listener();
    let site = site(port.local_addr().unwrap());
    let notices = UnixDatagram::bind(site.path("notices")).unwrap();
    notices.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut daemon = start_with(&site, &port, &notices);
    wait_for("/readyz", || {
        (daemon.get("/readyz").status == 200).then_some(())
    });
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| call_on(site.address, &done, &count));
        }
        for _ in 0..RESTARTS {
            wait_for_calls(&count);
            assert_eq!(daemon.stop(), Some(0));
            wait_for_notice(&notices, "STOPPING=1");
            daemon = start_with(&site, &port, &notices);
        }
        wait_for_calls(&count);
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_port_that_is_handed_over_and_named_nowhere_is_told() {
    let port = free_listener();
    let other = free_listener().local_addr().unwrap();
    let site = site(other);
    let notices = UnixDatagram::bind(site.path("notices")).unwrap();
    notices.set_read_timeout(Some(PATIENCE)).unwrap();
    let daemon = start_with(&site, &port, &notices);
    let log = daemon.logged("nobody answers at this port");
    assert!(
        log.contains(&port.local_addr().unwrap().to_string()),
        "{log}"
    );
}
