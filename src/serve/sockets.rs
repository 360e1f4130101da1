//! The ports: taken, or handed over by whoever started us.
//!
//! systemd can hold the ports itself (`pryamo.socket`): callers who come while pryamo restarts then
//! wait for the next one instead of being refused. Facts: `sd_listen_fds(3)`, `systemd.socket(5)`.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, OnceLock};

use listenfd::ListenFd;
use tokio::net::TcpSocket;

use crate::fault;

/// Callers who may wait to be accepted; the kernel's own limit is 4096.
const BACKLOG: u32 = 4096;

/// Listens with room for a burst of callers who have not been accepted yet: beyond it the kernel
/// lets them wait a second, and the standard library's room is 128.
///
/// A port that was handed over for this very address is used instead of a new one.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    if let Some(listener) = take(&mut fault::lock(handed_over()), address) {
        listener.set_nonblocking(true)?;
        rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
        return Ok(listener);
    }
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As the standard library does: a restart must not wait for old connections to die.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Says which ports were handed over that no key of the configuration names: whoever knocks there
/// waits for an answer that never comes.
pub(super) fn tell_unused() {
    for listener in fault::lock(handed_over()).drain(..) {
        let address = listener.local_addr().map(|address| address.to_string());
        let address = address.unwrap_or_default();
        tracing::error!(
            address,
            "nobody answers at this port, which systemd holds: write the same address into pryamo.socket and the configuration"
        );
    }
}

/// What was handed over and not yet taken.
fn handed_over() -> &'static Mutex<Vec<TcpListener>> {
    static LISTENERS: OnceLock<Mutex<Vec<TcpListener>>> = OnceLock::new();
    LISTENERS.get_or_init(|| {
        let mut given = ListenFd::from_env();
        let taken = (0..given.len()).filter_map(|index| match given.take_tcp_listener(index) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a socket was handed over that is no TCP port");
                None
            }
        });
        Mutex::new(taken.collect())
    })
}

fn take(listeners: &mut Vec<TcpListener>, address: SocketAddr) -> Option<TcpListener> {
    let is_it = |listener: &TcpListener| listener.local_addr().is_ok_and(|own| own == address);
    let place = listeners.iter().position(is_it)?;
    Some(listeners.swap_remove(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_port_of_the_very_address_is_used_and_only_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut listeners = vec![listener];
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert!(take(&mut listeners, everywhere).is_none());
        assert!(take(&mut listeners, address).is_some());
        assert!(take(&mut listeners, address).is_none());
    }
}
