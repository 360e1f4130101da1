//! FastAGI's port, and a thread of its own that answers there.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;

use super::answering::Current;
use super::sockets::bind;
use super::{StartError, refused};
use crate::pbx::fastagi::{FastAgi, Settings};

/// Takes the port. One that nobody wrote down may be somebody else's: calls are answered without it.
pub(super) fn listen(settings: &Settings) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = settings.address() else {
        return Ok(None);
    };
    let bound = bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    match bound {
        Ok(listener) => Ok(Some(listener)),
        Err(cause) if settings.is_wanted() => Err(StartError::ListenForFastAgi(address, cause)),
        Err(error) => {
            tracing::error!(%address, %error, "FastAGI is not answered: its port cannot be had; set `fastagi.listen` to a free one, or to \"\" if nobody asks there");
            Ok(None)
        }
    }
}

/// Answers there until `stop`, so that neither a sync nor a slow log holds a caller up.
pub(super) fn answer(
    listener: Option<TcpListener>,
    current: &Current,
    stop: &CancellationToken,
) -> Result<Option<JoinHandle<()>>, StartError> {
    let Some(listener) = listener else {
        return Ok(None);
    };
    let current = Arc::clone(current);
    let stop = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(refused("set up the thread that answers FastAGI"))?;
    let thread = std::thread::Builder::new()
        .name("fastagi".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let agi = || Arc::clone(&current.load().agi);
                        FastAgi::serve(agi, listener, stop).await;
                    }
                    Err(error) => tracing::error!(%error, "FastAGI is not answered"),
                }
            });
        });
    thread
        .map(Some)
        .map_err(refused("start the thread that answers FastAGI"))
}
