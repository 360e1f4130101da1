//! The port at which callers wait, and the threads that answer there.
//!
//! Threads of their own, so that neither a sync nor a slow log holds a caller up; and as many for what
//! is not answered at once, so that it does not hold up what is.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::answering::Current;
use super::standing::Standing;
use super::{StartError, refused};
use crate::http_server::callers::{Answer, Asked, Port, Question, serve_others};

/// By the configuration that is in force when somebody asks.
#[derive(Clone)]
struct InForce(Current);

impl Answer for InForce {
    fn ask(&self, question: &Question<'_>) -> Option<Asked> {
        self.0.load().web.ask(question)
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        Arc::clone(&self.0.load().web).answer(request, peer)
    }
}

/// Answers on `count` threads until `stop`.
pub(super) fn answer(
    listener: &TcpListener,
    current: &Current,
    count: usize,
    standing: &Standing,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let answer = InForce(Arc::clone(current));
    let (clock, stop) = (&standing.clock, &standing.stop);
    let (hand_over, handed) = mpsc::unbounded_channel();
    let others = Builder::new_multi_thread()
        .worker_threads(count)
        .thread_name("answer-others")
        .enable_all()
        .build()
        .map_err(refused("set up threads for all that takes longer"))?;
    let handle = others.handle().clone();
    let serve = serve_others(handed, answer.clone(), Arc::clone(clock), stop.clone());
    let mut threads = vec![start("answer-others", move || others.block_on(serve))?];
    for number in 0..count {
        let port = Port {
            listener: listener.try_clone().map_err(refused("share the port"))?,
            answer: answer.clone(),
            clock: Arc::clone(clock),
            others: handle.clone(),
            hand_over: hand_over.clone(),
            stop: stop.clone(),
        };
        threads.push(start(&format!("answer-{number}"), move || {
            if let Err(error) = port.serve() {
                tracing::error!(%error, "a thread cannot answer");
            }
        })?);
    }
    Ok(threads)
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread
        .spawn(work)
        .map_err(refused("start a thread that answers"))
}
