//! Receiving on a tokio runtime, without a thread per subscriber.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::link::LinkState;
use super::{Message, RecvError, Subscriber, SubscriberOptions};
use crate::frame::Frame;

/// A link's socket as the runtime watches it.
struct Watched(Arc<LinkState>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket().as_fd()
    }
}

/// A [`Subscriber`] whose messages are awaited. Dropping a future that has not finished loses nothing.
pub struct AsyncSubscriber {
    subscriber: Subscriber,
    watched: Option<AsyncFd<Watched>>,
}

impl std::fmt::Debug for AsyncSubscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.subscriber.fmt(f)
    }
}

impl AsyncSubscriber {
    /// As [`Subscriber::open`].
    ///
    /// # Errors
    /// As [`Subscriber::open`].
    pub fn open(uri: &str, options: SubscriberOptions) -> Result<Self, RecvError> {
        Ok(Self { subscriber: Subscriber::open(uri, options)?, watched: None })
    }

    /// What it can be asked at any time: figures, stream, requests.
    pub fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    /// The next message. Must be awaited on a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// As [`Subscriber::recv`], except for a time-out.
    pub async fn recv(&mut self) -> Result<Message, RecvError> {
        loop {
            match self.subscriber.recv(Some(Duration::ZERO)) {
                Err(RecvError::Timeout) => self.wait().await?,
                result => return result,
            }
        }
    }

    /// The next frame; other messages are passed over.
    ///
    /// # Errors
    /// As [`Subscriber::next_frame`], except for a time-out.
    pub async fn next_frame(&mut self) -> Result<Frame, RecvError> {
        loop {
            match self.recv().await? {
                Message::Frame(frame) => return Ok(frame),
                Message::Event(event) if event.name == crate::stream::EOS => return Err(RecvError::Closed),
                _ => {}
            }
        }
    }

    async fn wait(&mut self) -> Result<(), RecvError> {
        let (link, pause) = self.subscriber.pending();
        let Some(link) = link else {
            self.watched = None;
            tokio::time::sleep(pause).await;
            return Ok(());
        };
        let system = |error: std::io::Error| RecvError::Runtime(error.to_string());
        if !self.watched.as_ref().is_some_and(|watched| Arc::ptr_eq(&watched.get_ref().0, &link)) {
            self.watched = None;
            // SAFETY: `Watched` keeps the link, which owns the socket and never replaces it, so that the
            // descriptor stays open and the same for as long as it is registered.
            let watched =
                unsafe { AsyncFd::register_with_interest(Watched(link.clone()), Interest::READABLE) };
            self.watched = Some(watched.map_err(|failed| system(failed.into()))?);
        }
        // From here on whoever drops a frame sends its return itself.
        link.set_receiving(true);
        link.flush();
        if let Some(watched) = &self.watched {
            watched.readable().await.map_err(system)?.clear_ready();
        }
        link.set_receiving(false);
        Ok(())
    }
}
