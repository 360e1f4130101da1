//! HTTP connections, their limits, and request lines that Asterisk wrote raw.
//!
//! Asterisk opens a connection for every call and leaves it open until the call ends, possibly hours
//! later: so idle connections are closed after a few seconds and never counted against anybody.
//! Knows nothing of what is served.

pub mod callers;
mod mender;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::mender::Mender;

/// How long a connection may be idle, or a request's head may take to arrive.
pub const IDLE: Duration = Duration::from_secs(5);
/// How long answers under way may take after the server was told to stop.
pub const GRACE: Duration = Duration::from_secs(5);
/// The longest request head.
const LONGEST_HEAD: usize = 16 * 1024;
/// Behind a stop, a question on an open connection is waited for so long.
const LAST_QUESTION: Duration = Duration::from_millis(250);
/// Connections that are still let in behind a stop: all that the kernel keeps waiting.
const MOST_WAITING: usize = 4096;
/// How long to wait when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until `stop`, then lets the answers under way finish.
///
/// `answer` is called for every request with the address of who asks; it cannot fail.
pub async fn serve<A, F>(listener: TcpListener, answer: A, stop: CancellationToken)
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let builder = builder();
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let stream = MendedStream::new(stream);
        let connection = converse(&builder, stream, peer, answer.clone(), stop.clone());
        connections.spawn(connection);
    }
    for (stream, peer) in waiting(listener) {
        let stream = MendedStream::new(stream);
        let connection = converse(&builder, stream, peer, answer.clone(), stop.clone());
        connections.spawn(connection);
    }
    finish(&connections).await;
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(LONGEST_HEAD);
    builder
}

/// Lets the answers under way finish.
async fn finish(connections: &TaskTracker) {
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("stopped with connections still open");
    }
}

/// Answers on one connection until either side ends it; behind `stop`, what is asked at once.
fn converse<A, F>(
    builder: &http1::Builder,
    stream: MendedStream,
    peer: SocketAddr,
    answer: A,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + use<A, F>
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answered = answer(request, peer);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    async move {
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                // A connection that nothing was read from would be closed at once.
                let last = tokio::time::timeout(LAST_QUESTION, connection.as_mut()).await;
                if let Ok(ended) = last {
                    ended
                } else {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended early");
        }
    }
}

/// Those who had knocked when the server was told to stop: closing the port would send them away.
fn waiting(listener: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let listener = listener.into_std().ok();
    let accepted = std::iter::from_fn(move || {
        let (stream, peer) = listener.as_ref()?.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer))
    });
    accepted.take(MOST_WAITING)
}

/// A connection whose request lines are made legal on the way in.
struct MendedStream {
    inner: TcpStream,
    mender: Mender,
    /// The other side has ended the connection.
    ended: bool,
}

impl MendedStream {
    fn new(inner: TcpStream) -> Self {
        Self {
            inner,
            mender: Mender::default(),
            ended: false,
        }
    }

    /// A connection from which this much was read already.
    fn begun(inner: TcpStream, arrived: &[u8]) -> Self {
        let mut stream = Self::new(inner);
        stream.mender.mend(arrived);
        stream
    }
}

impl AsyncRead for MendedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            if self.mender.hand_out(buffer) {
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            match Pin::new(&mut self.inner).poll_read(context, buffer) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            let arrived = buffer.filled().get(before..).unwrap_or_default();
            self.ended = arrived.is_empty();
            if self.ended || self.mender.passes(arrived) {
                return Poll::Ready(Ok(()));
            }
            let arrived = arrived.to_vec();
            buffer.set_filled(before);
            self.mender.mend(&arrived);
        }
    }
}

impl AsyncWrite for MendedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.ended {
            // Nothing is left to come: closing, which follows, tells the other side as well.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Sends bytes through both readers of heads.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8], parted_at: usize) {
    mender::fuzz(bytes, parted_at);
    callers::fuzz(bytes);
}
