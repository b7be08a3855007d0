//! Asking a publisher for its figures, without being a subscriber.

use std::time::{Duration, Instant};

use pagecast::publisher::Info;
use pagecast::{Message, RecvError, Subscriber, SubscriberOptions};

use crate::address::Remote;
use crate::exit::{Exit, Failure};

/// An observer of one publisher.
pub(super) struct Observer(Subscriber);

impl Observer {
    /// Looks at the publisher at `uri`; with `reconnect` also if it comes later.
    pub(super) fn open(uri: &str, reconnect: bool, remote: &Remote) -> Result<Self, Failure> {
        let (observe, remote) = (true, remote.options([uri])?);
        let options = SubscriberOptions { observe, reconnect, remote, ..SubscriberOptions::default() };
        Ok(Self(Subscriber::open(uri, options)?))
    }

    /// Its figures now.
    pub(super) fn ask(&self, timeout: Duration) -> Result<Info, Failure> {
        let until = Instant::now() + timeout;
        self.0.query();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.0.recv(Some(left)) {
                Ok(Message::Connected(_)) => self.0.query(),
                Ok(Message::Info(text)) => return parse(&text),
                Ok(_) => {}
                Err(RecvError::Timeout) => {
                    let message = format!("the publisher did not answer within {timeout:?}: is it stopped?");
                    return Err(Failure::new(Exit::Timeout, message));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn parse(text: &[u8]) -> Result<Info, Failure> {
    let unknown =
        |error| format!("the publisher's answer cannot be read ({error}): is it of another version?");
    serde_json::from_slice(text).map_err(|error| Failure::failed(unknown(error)))
}
