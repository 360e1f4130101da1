//! The port at which callers wait: a loop over epoll that answers the usual question on the spot.
//!
//! Nearly all that arrives there is one short GET over a connection of its own, answered from memory
//! within microseconds. So the thread that accepts a connection reads from it at once, answers, and
//! only then asks to be told of more: six system calls for a call, and no task for any of it. Whatever
//! is not that question, or cannot be answered at once, goes with its connection to [`serve_others`],
//! where hyper takes it from there. Knows nothing of what is served.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use memchr::memmem;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use slab::Slab;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::mender::mend_head;
use super::{
    ACCEPT_PAUSE, GRACE, IDLE, LAST_QUESTION, LONGEST_HEAD, MOST_WAITING, MendedStream, builder,
    converse, finish,
};

/// The wall clock, for the date of an answer.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
/// An answer's body, `text/plain`, of a request that is answered 200 in any case.
pub type Asked = Pin<Box<dyn Future<Output = String> + Send>>;

/// Connections taken at a stretch: then those that are open have their turn, and other threads.
const MOST_ACCEPTED: usize = 16;
/// Events taken at a stretch.
const MOST_EVENTS: usize = 256;
/// Headers of a usual question: libcurl sends four.
const MOST_HEADERS: usize = 16;
/// How often idle connections are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How every usual question begins.
const BEGINNING: &[u8] = b"GET /";

const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// What is answered at such a port.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Begins to answer a usual question; `None` for all that [`Answer::answer`] must see.
    fn ask(&self, question: &Question<'_>) -> Option<Asked>;

    /// Answers any request.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Body>> + Send + use<Self>;
}

/// A GET without a body.
pub struct Question<'a> {
    /// Path and query. A byte that may not stand there may be encoded or raw.
    pub target: &'a str,
    /// Who asks.
    pub peer: SocketAddr,
    headers: &'a [httparse::Header<'a>],
}

impl Question<'_> {
    /// Says whether there is a header of this name.
    pub fn has(&self, name: &str) -> bool {
        let mut names = self.headers.iter().map(|header| header.name);
        names.any(|other| other.eq_ignore_ascii_case(name))
    }
}

/// A connection that the port's threads leave to [`serve_others`].
pub struct Handed {
    stream: TcpStream,
    peer: SocketAddr,
    /// What must be written first.
    first: First,
    /// What was read and not yet looked at.
    arrived: Vec<u8>,
}

enum First {
    Nothing,
    /// The rest of an answer.
    Rest(Vec<u8>, After),
    /// An answer that takes longer.
    Answer(Asked, After),
}

/// What becomes of a connection behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Stays,
    Closes,
}

/// What becomes of a connection that something was read from.
enum Next {
    /// More is waited for.
    Keep,
    Close,
    Hand(First),
}

/// What one thread needs to answer at the port.
pub struct Port<A> {
    /// Shared with the other threads; does not block.
    pub listener: TcpListener,
    /// What is answered.
    pub answer: A,
    /// The wall clock.
    pub clock: Clock,
    /// Where [`serve_others`] runs; answers that take longer have their timers there.
    pub others: Handle,
    /// Leads there. Each item is an open connection, so the limit of open files is its limit.
    pub hand_over: UnboundedSender<Handed>,
    /// When to stop.
    pub stop: CancellationToken,
}

impl<A: Answer> Port<A> {
    /// Answers until told to stop; then whoever had knocked, and what is asked at once.
    ///
    /// Fails only before the first question, if the system refuses what is always there.
    pub fn serve(self) -> io::Result<()> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let once = EventFlags::IN | EventFlags::ONESHOT;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), once)?;
        let (told, stopped) = (Arc::clone(&stop), self.stop.clone());
        self.others.spawn(async move {
            stopped.cancelled().await;
            // Only a full counter fails, and then it was told already.
            let _ = rustix::io::write(&told, &1_u64.to_ne_bytes());
        });
        let _timers = self.others.enter();
        let mut thread = Thread {
            listener: Some(self.listener),
            epoll,
            open: Slab::new(),
            hand_over: self.hand_over,
            speaker: Speaker::new(self.answer, self.clock),
            looked: Instant::now(),
            listen_at: None,
        };
        thread.listen()?;
        thread.run();
        Ok(())
    }
}

/// A connection that is open.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// The beginning of a head.
    partial: Vec<u8>,
    /// Since when a whole head is waited for.
    since: Instant,
}

struct Thread<A> {
    /// Taken away by a stop.
    listener: Option<TcpListener>,
    epoll: OwnedFd,
    open: Slab<Connection>,
    hand_over: UnboundedSender<Handed>,
    speaker: Speaker<A>,
    /// When idle connections were last looked for.
    looked: Instant,
    /// When connections are taken again, where the system could give none.
    listen_at: Option<Instant>,
}

impl<A: Answer> Thread<A> {
    fn run(&mut self) {
        loop {
            let wait = match self.listen_at {
                Some(_) => Some(ACCEPT_PAUSE),
                None if self.open.is_empty() => None,
                None => Some(LOOK),
            };
            if self.turn(wait) {
                return self.stop();
            }
            self.tend();
        }
    }

    /// Waits for events, at most so long, and sees to them; says whether it is time to stop.
    fn turn(&mut self, wait: Option<Duration>) -> bool {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); MOST_EVENTS];
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let came = match epoll::wait(&self.epoll, &mut events, wait.as_ref()) {
            Ok((came, _)) => came,
            Err(Errno::INTR) => return false,
            Err(error) => {
                tracing::error!(%error, "a thread can no longer wait for callers");
                return true;
            }
        };
        self.speaker.now = Instant::now();
        let mut stop = false;
        for event in came {
            match event.data.u64() {
                LISTENER => {
                    self.accept(MOST_ACCEPTED);
                }
                STOP => stop = true,
                key => self.read(usize::try_from(key).unwrap_or(usize::MAX)),
            }
        }
        stop
    }

    fn listen(&self) -> rustix::io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        // One knock wakes one thread.
        let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
        epoll::add(&self.epoll, listener, EventData::new_u64(LISTENER), flags)
    }

    /// Takes connections that wait, and answers those that have asked already; says whether there may
    /// be more.
    fn accept(&mut self, most: usize) -> bool {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        for _ in 0..most {
            let Some(listener) = &self.listener else {
                return false;
            };
            match acceptfrom_with(listener, flags) {
                Ok((stream, peer)) => {
                    // Who asks is known of every connection of a network.
                    if let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
                        self.welcome(stream.into(), peer);
                    }
                }
                Err(Errno::AGAIN) => return false,
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    let _ = epoll::delete(&self.epoll, listener);
                    self.listen_at = Some(self.speaker.now + ACCEPT_PAUSE);
                    return false;
                }
            }
        }
        true
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        let mut connection = Connection {
            stream,
            peer,
            partial: Vec::new(),
            since: self.speaker.now,
        };
        match self.speaker.converse(&mut connection) {
            Next::Close => {}
            Next::Hand(first) => self.hand(connection, first),
            Next::Keep => {
                let place = self.open.vacant_entry();
                let key = EventData::new_u64(place.key() as u64);
                let flags = EventFlags::IN | EventFlags::RDHUP;
                match epoll::add(&self.epoll, &connection.stream, key, flags) {
                    Ok(()) => {
                        place.insert(connection);
                    }
                    Err(error) => tracing::warn!(%error, "cannot keep a connection open"),
                }
            }
        }
    }

    /// Reads from an open connection and answers what is asked.
    fn read(&mut self, key: usize) {
        let Some(connection) = self.open.get_mut(key) else {
            return;
        };
        match self.speaker.converse(connection) {
            Next::Keep => {}
            // Closing it takes it from what is waited for, too.
            Next::Close => drop(self.open.remove(key)),
            Next::Hand(first) => {
                let connection = self.open.remove(key);
                let _ = epoll::delete(&self.epoll, &connection.stream);
                self.hand(connection, first);
            }
        }
    }

    fn hand(&self, connection: Connection, first: First) {
        let handed = Handed {
            stream: connection.stream,
            peer: connection.peer,
            first,
            arrived: connection.partial,
        };
        if self.hand_over.send(handed).is_err() {
            tracing::error!("nobody takes over a connection; it is closed");
        }
    }

    /// Closes connections that were idle for too long, and listens again after a pause.
    fn tend(&mut self) {
        let now = self.speaker.now;
        if self.listen_at.is_some_and(|at| at <= now) {
            self.listen_at = match self.listen() {
                Ok(()) => None,
                Err(_) => Some(now + ACCEPT_PAUSE),
            };
        }
        if now.duration_since(self.looked) >= LOOK {
            self.looked = now;
            self.open
                .retain(|_, connection| now.duration_since(connection.since) < IDLE);
        }
    }

    /// Lets in whoever had knocked and answers what is asked at once.
    fn stop(&mut self) {
        self.speaker.after = After::Closes;
        let mut more = MOST_WAITING;
        while more > 0 && self.accept(MOST_ACCEPTED) {
            more = more.saturating_sub(MOST_ACCEPTED);
        }
        // Closing the port sends those away who knock from now on; whoever else holds it would keep it
        // among what is waited for.
        if let Some(listener) = self.listener.take() {
            let _ = epoll::delete(&self.epoll, &listener);
        }
        let told = Instant::now();
        while !self.open.is_empty() && told.elapsed() < GRACE {
            if told.elapsed() >= LAST_QUESTION {
                self.open
                    .retain(|_, connection| !connection.partial.is_empty());
            }
            self.turn(Some(ACCEPT_PAUSE));
        }
    }
}

/// Reads questions and writes answers.
struct Speaker<A> {
    answer: A,
    clock: Clock,
    buffer: Vec<u8>,
    written: Vec<u8>,
    /// The date as an answer has it, and when it was made.
    date: (String, Option<Instant>),
    /// When the events under way came.
    now: Instant,
    /// What becomes of connections behind their answers.
    after: After,
}

/// What stands at the beginning of what was read.
enum Read {
    /// Less than a head.
    Part,
    /// Begun to be answered: the length of its head.
    Asked(usize, Asked, After),
    /// No usual question.
    Other,
}

impl<A: Answer> Speaker<A> {
    fn new(answer: A, clock: Clock) -> Self {
        Self {
            answer,
            clock,
            buffer: vec![0; LONGEST_HEAD],
            written: Vec::with_capacity(1024),
            date: (String::new(), None),
            now: Instant::now(),
            after: After::Stays,
        }
    }

    /// Reads once and answers all that is asked; what is left stays in `partial`.
    fn converse(&mut self, connection: &mut Connection) -> Next {
        let mut buffer = std::mem::take(&mut self.buffer);
        let next = self.converse_through(&mut buffer, connection);
        self.buffer = buffer;
        next
    }

    fn converse_through(&mut self, buffer: &mut [u8], connection: &mut Connection) -> Next {
        let count = match connection.stream.read(buffer) {
            Ok(0) => return Next::Close,
            Ok(count) => count,
            Err(error) if is_early(&error) => return Next::Keep,
            Err(_) => return Next::Close,
        };
        let arrived = buffer.get(..count).unwrap_or_default();
        if connection.partial.is_empty() {
            let (used, next) = self.answer_all(arrived, connection);
            let rest = arrived.get(used..).unwrap_or_default();
            connection.partial.extend_from_slice(rest);
            return next;
        }
        let mut arrived_before = std::mem::take(&mut connection.partial);
        arrived_before.extend_from_slice(arrived);
        let (used, next) = self.answer_all(&arrived_before, connection);
        arrived_before.drain(..used);
        connection.partial = arrived_before;
        next
    }

    /// Answers one question after the other; how much of `arrived` they were, and what comes next.
    fn answer_all(&mut self, arrived: &[u8], connection: &mut Connection) -> (usize, Next) {
        let mut used = 0;
        loop {
            let rest = arrived.get(used..).unwrap_or_default();
            if rest.is_empty() {
                return (used, Next::Keep);
            }
            match self.read(rest, connection.peer) {
                Read::Part => return (used, Next::Keep),
                Read::Other => return (used, Next::Hand(First::Nothing)),
                Read::Asked(length, mut asked, after) => {
                    used += length;
                    let Poll::Ready(body) = poll_once(&mut asked) else {
                        return (used, Next::Hand(First::Answer(asked, after)));
                    };
                    if let Some(next) = self.write(&body, after, &connection.stream) {
                        return (used, next);
                    }
                    connection.since = self.now;
                }
            }
        }
    }

    fn read(&self, bytes: &[u8], peer: SocketAddr) -> Read {
        if !bytes.iter().zip(BEGINNING).all(|(one, other)| one == other) {
            return Read::Other;
        }
        let read = self.parse(bytes, peer).unwrap_or_else(|_| {
            // In its address stands what may not stand there: the mender wants the head whole.
            let Some(end) = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
                return Read::Part;
            };
            let mended = bytes.get(..end).and_then(mend_head).unwrap_or_default();
            match self.parse(&mended, peer) {
                Ok(Read::Asked(_, asked, after)) => Read::Asked(end, asked, after),
                _ => Read::Other,
            }
        });
        match read {
            Read::Part if bytes.len() >= LONGEST_HEAD => Read::Other,
            read => read,
        }
    }

    fn parse(&self, bytes: &[u8], peer: SocketAddr) -> Result<Read, httparse::Error> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        Ok(match request.parse(bytes)? {
            httparse::Status::Complete(length) => self.ask(&request, length, peer),
            httparse::Status::Partial => Read::Part,
        })
    }

    fn ask(&self, request: &httparse::Request<'_, '_>, length: usize, peer: SocketAddr) -> Read {
        let (Some("GET"), Some(target), Some(1)) = (request.method, request.path, request.version)
        else {
            return Read::Other;
        };
        let mut after = self.after;
        for header in &*request.headers {
            match wish(header) {
                Wish::Nothing => {}
                Wish::Close => after = After::Closes,
                Wish::Other => return Read::Other,
            }
        }
        let question = Question {
            target,
            peer,
            headers: request.headers,
        };
        match self.answer.ask(&question) {
            Some(asked) => Read::Asked(length, asked, after),
            None => Read::Other,
        }
    }

    /// Writes an answer; what comes next, unless it is the next question.
    fn write(&mut self, body: &str, after: After, mut stream: &TcpStream) -> Option<Next> {
        self.compose(body, after);
        let written = match stream.write(&self.written) {
            Ok(written) => written,
            Err(error) if is_early(&error) => 0,
            Err(_) => return Some(Next::Close),
        };
        let rest = self.written.get(written..).unwrap_or_default();
        match after {
            _ if !rest.is_empty() => Some(Next::Hand(First::Rest(rest.to_vec(), after))),
            After::Stays => None,
            After::Closes => Some(Next::Close),
        }
    }

    fn compose(&mut self, body: &str, after: After) {
        let (date, made) = &mut self.date;
        if made.is_none_or(|made| self.now.duration_since(made) >= LOOK) {
            *date = date_of((self.clock)());
            *made = Some(self.now);
        }
        compose(&mut self.written, body, after, date);
    }
}

/// Makes the bytes of an answer.
fn compose(written: &mut Vec<u8>, body: &str, after: After, date: &str) {
    written.clear();
    let mut put = |text: &str| written.extend_from_slice(text.as_bytes());
    put("HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: ");
    put(&body.len().to_string());
    if after == After::Closes {
        put("\r\nconnection: close");
    }
    put("\r\ndate: ");
    put(date);
    put("\r\n\r\n");
    put(body);
}

/// A moment as RFC 9110 has it in a `Date`.
fn date_of(now: Timestamp) -> String {
    let printer = rfc2822::DateTimePrinter::new();
    printer
        .timestamp_to_rfc9110_string(&now)
        .unwrap_or_default()
}

/// What a header says of how its request must be served.
enum Wish {
    Nothing,
    Close,
    /// What only hyper does: a body, another protocol.
    Other,
}

fn wish(header: &httparse::Header<'_>) -> Wish {
    let is = |name: &str| header.name.eq_ignore_ascii_case(name);
    match header.name.len() {
        6 if is("expect") => Wish::Other,
        7 if is("upgrade") => Wish::Other,
        14 if is("content-length") => Wish::Other,
        17 if is("transfer-encoding") => Wish::Other,
        10 if is("connection") => match header.value {
            value if value.eq_ignore_ascii_case(b"close") => Wish::Close,
            value if value.eq_ignore_ascii_case(b"keep-alive") => Wish::Nothing,
            _ => Wish::Other,
        },
        _ => Wish::Nothing,
    }
}

fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Has an answer made, if that needs no waiting. A panic becomes an empty body.
fn poll_once(asked: &mut Asked) -> Poll<String> {
    let mut context = Context::from_waker(Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| asked.as_mut().poll(&mut context)));
    polled.unwrap_or_else(|_| {
        tracing::error!("an answer failed inside; it is empty");
        Poll::Ready(String::new())
    })
}

/// Serves what the threads of a port hand over, until all of them have ended and the answers under
/// way are finished.
pub async fn serve_others<A: Answer>(
    mut handed: UnboundedReceiver<Handed>,
    answer: A,
    clock: Clock,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    while let Some(connection) = handed.recv().await {
        let (answer, clock, stop) = (answer.clone(), Arc::clone(&clock), stop.clone());
        connections.spawn(go_on(connection, answer, clock, stop));
    }
    finish(&connections).await;
}

/// Ends what was begun on a connection, and leaves the rest of it to hyper.
async fn go_on<A: Answer>(handed: Handed, answer: A, clock: Clock, stop: CancellationToken) {
    let peer = handed.peer;
    let begun = async {
        let mut stream = tokio::net::TcpStream::from_std(handed.stream)?;
        let (bytes, after) = match handed.first {
            First::Nothing => (Vec::new(), After::Stays),
            First::Rest(bytes, after) => (bytes, after),
            First::Answer(asked, after) => {
                let body = asked.await;
                let mut bytes = Vec::new();
                compose(&mut bytes, &body, after, &date_of(clock()));
                (bytes, after)
            }
        };
        tokio::time::timeout(IDLE, stream.write_all(&bytes)).await??;
        Ok::<_, io::Error>((after == After::Stays).then_some(stream))
    };
    match begun.await {
        Ok(Some(stream)) => {
            let stream = MendedStream::begun(stream, &handed.arrived);
            let answer = move |request, peer| answer.answer(request, peer);
            converse(&builder(), stream, peer, answer, stop).await;
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%peer, %error, "connection ended early"),
    }
}

/// Reads a head as it came and as the mender leaves it: both must ask the same.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) {
    use percent_encoding::percent_decode_str;

    #[derive(Clone)]
    struct Echo;
    impl Answer for Echo {
        fn ask(&self, question: &Question<'_>) -> Option<Asked> {
            Some(Box::pin(std::future::ready(question.target.to_owned())))
        }

        fn answer(
            &self,
            _request: Request<Incoming>,
            _peer: SocketAddr,
        ) -> impl Future<Output = Response<Body>> + Send + use<> {
            async { Response::default() }
        }
    }

    let speaker = Speaker::new(Echo, Arc::new(|| Timestamp::UNIX_EPOCH));
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let Read::Asked(length, mut asked, _) = speaker.read(bytes, peer) else {
        return;
    };
    let head = bytes.get(..length).unwrap_or_default();
    if memmem::find(head, b"\r\n\r\n") != Some(length - 4) {
        // Lines that end without a carriage return: the mender leaves them alone.
        return;
    }
    let mended = mend_head(head).unwrap_or_else(|| head.to_vec());
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    assert!(
        request
            .parse(&mended)
            .is_ok_and(|status| status.is_complete())
    );
    let target = match poll_once(&mut asked) {
        Poll::Ready(target) => target,
        Poll::Pending => String::new(),
    };
    let decoded = |target: &str| percent_decode_str(target).collect::<Vec<u8>>();
    assert_eq!(decoded(&target), decoded(request.path.unwrap_or_default()));
}
