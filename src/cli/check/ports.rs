//! `pryamo check` and the ports: free, held by the running daemon, or by somebody else.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::config::Config;
use crate::crm::Finding;

/// The first process.
const INIT: &str = "1";
/// What the kernel writes for a socket that listens.
const LISTENS: &str = "0A";
/// Descriptors of one process that are looked at.
const MOST_DESCRIPTORS: usize = 4096;

/// Every port but that of `/forward`, which is judged by what answers there.
pub(super) fn check(config: &Config, daemon_runs: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(address) = config.fastagi.address() {
        let may_lack = !config.fastagi.is_wanted();
        found.push(judge(
            address,
            "fastagi.listen",
            "FastAGI",
            daemon_runs,
            may_lack,
        ));
    }
    if let Some(address) = config.page.listen.filter(|_| config.page.enabled) {
        found.push(judge(
            address,
            "page.listen",
            "the page",
            daemon_runs,
            false,
        ));
    }
    if let Some(address) = config.hooks.listen {
        found.push(judge(address, "hooks.listen", "/hooks", daemon_runs, false));
    }
    found
}

/// What is to be said where nothing answered at `forward.listen`.
pub(super) fn silent(address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(format!(
            "does not run ({address} is free); start it with `pryamo serve`"
        )),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Finding::fault(
            format!(
                "{address} is taken by {}, which does not answer as pryamo does",
                holder(address)
            ),
            "stop it (the vendor's module?), or change `forward.listen`",
        ),
        Err(error) => cannot(address, "forward.listen", &error),
    }
}

fn judge(address: SocketAddr, key: &str, what: &str, daemon_runs: bool, may_lack: bool) -> Finding {
    match (TcpListener::bind(address), daemon_runs) {
        (Ok(_), false) => Finding::good(format!("{address} is free for {what}")),
        (Ok(_), true) if may_lack => Finding::good(format!(
            "the running daemon could not have {address}: {what} is off, which only AGI() would miss"
        )),
        (Ok(_), true) => Finding::warning(
            format!("the running daemon does not listen at {address} for {what}"),
            format!(
                "restart it: it was started before `{key}` was set, or could not have the port then"
            ),
        ),
        (Err(error), _) if error.kind() == ErrorKind::AddrInUse => {
            let holder = holder(address);
            if daemon_runs && (holder.starts_with("pryamo ") || holder == NOT_SEEN) {
                Finding::good(format!("{address} is held by {holder} for {what}"))
            } else if may_lack {
                Finding::good(format!(
                    "{address} is taken by {holder}; {what} stays off, which only AGI() would miss"
                ))
            } else {
                Finding::fault(
                    format!("{address}, wanted for {what}, is taken by {holder}"),
                    format!("stop that program, or change `{key}`"),
                )
            }
        }
        (Err(error), _) => cannot(address, key, &error),
    }
}

fn cannot(address: SocketAddr, key: &str, error: &std::io::Error) -> Finding {
    let mend = match error.kind() {
        ErrorKind::AddrNotAvailable => {
            format!("`{key}` must be an address of this machine; `ip addr` lists them")
        }
        ErrorKind::PermissionDenied => format!("choose a port above 1023 in `{key}`"),
        _ => format!("change `{key}`"),
    };
    Finding::fault(format!("cannot listen at {address}: {error}"), mend)
}

const NOT_SEEN: &str = "a program that only root may see";

/// Which program listens at this port, as far as this user may see.
pub(super) fn holder(address: SocketAddr) -> String {
    holder_below(Path::new("/proc"), address.port()).unwrap_or_else(|| NOT_SEEN.to_owned())
}

fn holder_below(proc: &Path, port: u16) -> Option<String> {
    let tables = ["net/tcp", "net/tcp6"].map(|name| fs::read_to_string(proc.join(name)));
    let tables = tables.into_iter().flatten().collect::<Vec<_>>().join("\n");
    let inode = tables.lines().find_map(|line| listening(line, port))?;
    let socket = format!("socket:[{inode}]");
    let mut by_systemd = None;
    for entry in fs::read_dir(proc).ok()?.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let holds = descriptors
            .flatten()
            .take(MOST_DESCRIPTORS)
            .filter_map(|one| fs::read_link(one.path()).ok())
            .any(|target| target.as_os_str() == socket.as_str());
        if holds {
            let program = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let told = format!("{} (process {id})", super::super::plain(program.trim()));
            if id != INIT {
                return Some(told);
            }
            // It holds the port for somebody (`pryamo.socket`), who may hold it too.
            by_systemd = Some(told);
        }
    }
    by_systemd
}

/// The inode of a line of `/proc/net/tcp` if it is a socket that listens at this port.
fn listening(line: &str, port: u16) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (_, written) = words.get(1)?.rsplit_once(':')?;
    let is_it = u16::from_str_radix(written, 16) == Ok(port) && *words.get(3)? == LISTENS;
    is_it.then_some(*words.get(9)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_port_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let told = holder(address);
        assert!(
            told.ends_with(&format!("(process {})", std::process::id())),
            "{told}"
        );
        drop(listener);
        assert_eq!(holder(address), NOT_SEEN);
    }
}
