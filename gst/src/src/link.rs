//! The subscriber behind the element, which any thread may interrupt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pagecast::ipc::wire::RefusalCode;
use pagecast::{Message, RecvError, Subscriber, SubscriberOptions};

use super::imp::lock;
use super::settings::Settings;

/// How long a publisher that is there may take to say whether it is live.
const ANSWER: Duration = Duration::from_secs(1);

/// A subscriber, or none.
#[derive(Default)]
pub(super) struct Link {
    subscriber: Mutex<Option<Arc<Subscriber>>>,
    interrupted: AtomicBool,
}

impl Link {
    /// Makes a subscriber, which asks for dma-bufs first if that is wanted; it connects when it first receives.
    pub(super) fn open(
        &self,
        settings: &Settings,
        name: &str,
        dma_bufs: bool,
    ) -> Result<(), gst::ErrorMessage> {
        let wrong = |text: String| gst::error_msg!(gst::ResourceError::Settings, ("{text}"));
        let uri = settings.address().map_err(wrong)?;
        let remote = settings.remote().map_err(wrong)?;
        let subscriber = Subscriber::open(&uri, settings.options(name, remote, dma_bufs));
        let subscriber = subscriber.map_err(|error| wrong(error.to_string()))?;
        let mut slot = lock(&self.subscriber);
        if self.interrupted.load(Ordering::SeqCst) {
            subscriber.interrupt();
        }
        *slot = Some(Arc::new(subscriber));
        Ok(())
    }

    pub(super) fn close(&self) {
        let subscriber = lock(&self.subscriber).take();
        drop(subscriber);
    }

    pub(super) fn subscriber(&self) -> Option<Arc<Subscriber>> {
        lock(&self.subscriber).clone()
    }

    pub(super) fn interrupt(&self) {
        let slot = lock(&self.subscriber);
        self.interrupted.store(true, Ordering::SeqCst);
        if let Some(subscriber) = slot.as_ref() {
            subscriber.interrupt();
        }
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    pub(super) fn resume(&self) {
        let slot = lock(&self.subscriber);
        self.interrupted.store(false, Ordering::SeqCst);
        if let Some(subscriber) = slot.as_ref() {
            subscriber.resume();
        }
    }
}

/// Asks a publisher that is there whether it is live, without taking a share of its budget.
pub(super) fn ask_whether_live(settings: &Settings) -> Option<bool> {
    let uri = settings.address().ok()?;
    if uri.contains("mode=listen") {
        return None; // it comes to us, and only once
    }
    let remote = settings.remote().ok()?;
    let options =
        SubscriberOptions { observe: true, reconnect: false, remote, ..SubscriberOptions::default() };
    let observer = Subscriber::open(&uri, options).ok()?;
    let until = Instant::now() + ANSWER;
    loop {
        match observer.recv(Some(until.saturating_duration_since(Instant::now()))) {
            Ok(Message::Connected(welcome)) => return Some(welcome.live),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// What can be done about an error, in words.
pub(super) fn remedy(error: &RecvError) -> &'static str {
    match error {
        RecvError::Connect { .. } => {
            "start the publisher first, check the address and its permissions, or set reconnect=true to wait \
             for it"
        }
        RecvError::Refused { code, .. } => match code {
            RefusalCode::Version => "use the same release of Pagecast at both ends",
            RefusalCode::Access => {
                "let the publisher admit this one: by its perms on the same host, by its networks from another"
            }
            RefusalCode::NoRoom => {
                "ask for fewer credits, raise the publisher's pool-limit, or end another subscriber"
            }
            RefusalCode::Face => {
                "set face=auto or another face; who may have dma-bufs is the publisher's choice"
            }
            RefusalCode::Evicted => "hold fewer frames, or raise the publisher's hold-timeout",
            _ => "the publisher's log says more",
        },
        RecvError::NoAnswer { .. } => "let the publisher's process go on, or start it again",
        RecvError::Fault(_) => "make sure that the other end is a Pagecast publisher of the same release",
        RecvError::Remote { .. } => {
            "start the publisher first, check the address and the network, or set reconnect=true to wait for it"
        }
        RecvError::Uri(_) => "write unix:NAME, unix:/path, or tcp://, rdma:// or remote://HOST:PORT",
        _ => "the publisher's log says more",
    }
}
