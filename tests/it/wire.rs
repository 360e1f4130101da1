//! A wire between pryamo and a server that can be bad: it delays, cuts, halves, corrupts and hangs.
//!
//! What it corrupts can be noticed: the protocols here carry no checksum, and over TLS, which they are
//! meant for, every change is.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::messy::Dice;

/// How often a connection looks for a change of mood.
const LOOK: Duration = Duration::from_millis(20);
/// A byte that stands in no answer: no JSON, no number and no header may hold it.
const NOISE: u8 = 0x01;

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Carries what it is given.
    Well,
    /// Each piece of an answer comes so many milliseconds late.
    Slow(u64),
    /// New connections are closed at once.
    Refused,
    /// A connection ends before the first byte of an answer.
    Cut,
    /// A connection ends in the middle of an answer.
    Half,
    /// A byte of each answer is another one.
    Corrupt,
    /// Nothing comes back, and the connection stays.
    Hang,
}

/// A running wire; ends with its value.
pub struct Wire {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    server: SocketAddr,
    mood: Mutex<Mood>,
    /// Changes of mood: what hung before one is cut.
    turns: AtomicUsize,
    ended: AtomicBool,
    dice: Mutex<Dice>,
    spoilt: AtomicUsize,
}

impl Wire {
    /// Listens at `listener` and leads to `server`.
    pub fn lay(listener: TcpListener, server: SocketAddr, dice: Dice) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            mood: Mutex::new(Mood::Well),
            turns: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            dice: Mutex::new(dice),
            spoilt: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.carry(&stream));
            }
        });
        Self { shared, address }
    }

    /// Where pryamo finds the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections it has spoilt.
    pub fn spoilt(&self) -> usize {
        self.shared.spoilt.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn below(&self, end: usize) -> usize {
        let drawn = self.dice.lock().unwrap().below(end as u64);
        usize::try_from(drawn).unwrap()
    }

    /// Both ways of one connection.
    fn carry(&self, client: &TcpStream) {
        if self.mood() == Mood::Refused {
            self.spoilt.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Ok(server) = TcpStream::connect(self.server) else {
            return;
        };
        let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else {
            return;
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ask_on(from_client, &to_server);
                let _ = to_server.shutdown(Shutdown::Both);
            });
            self.answer_on(&server, client);
            let _ = server.shutdown(Shutdown::Both);
            let _ = client.shutdown(Shutdown::Both);
        });
    }

    /// Carries answers until either side ends, or the mood ends it.
    fn answer_on(&self, mut server: &TcpStream, mut client: &TcpStream) {
        let turn = self.turns.load(Ordering::Relaxed);
        let is_same_turn = || self.turns.load(Ordering::Relaxed) == turn;
        let mut hung = false;
        let mut buffer = [0; 16 * 1024];
        server.set_read_timeout(Some(LOOK)).unwrap();
        loop {
            use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
            let read = match server.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {
                    if self.ended.load(Ordering::Relaxed) || (hung && !is_same_turn()) {
                        return;
                    }
                    continue;
                }
                Err(_) => return,
            };
            if hung && !is_same_turn() {
                return;
            }
            let mood = self.mood();
            if !matches!(mood, Mood::Well | Mood::Slow(_)) {
                self.spoilt.fetch_add(1, Ordering::Relaxed);
            }
            let piece = &mut buffer[..read];
            let (sent, goes_on) = match mood {
                Mood::Well => (client.write_all(piece), true),
                Mood::Slow(milliseconds) => {
                    std::thread::sleep(Duration::from_millis(milliseconds));
                    (client.write_all(piece), true)
                }
                Mood::Corrupt => {
                    piece[self.below(read)] = NOISE;
                    (client.write_all(piece), true)
                }
                Mood::Half => (client.write_all(&piece[..self.below(read)]), false),
                Mood::Cut | Mood::Refused => (Ok(()), false),
                Mood::Hang => {
                    hung = true;
                    (Ok(()), true)
                }
            };
            if sent.is_err() || !goes_on {
                return;
            }
        }
    }
}

/// Carries questions as they are.
fn ask_on(mut client: TcpStream, mut server: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        if server.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}
