//! The properties of `pagecastsrc`.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;
use pagecast::ipc::socket::{Uri, UriError};
use pagecast::{FaceSet, Policy, PoolOptions, Rate, RemoteOptions, SubscriberOptions};

/// How a subscriber that falls behind is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstPagecastSrcPolicy")]
#[repr(i32)]
pub enum AskedPolicy {
    /// What the publisher does by default.
    #[default]
    #[enum_value(name = "What the publisher does by default", nick = "publisher")]
    Publisher,
    /// As its upstream demands.
    #[enum_value(name = "block if the publisher is not live, drop-oldest if it is", nick = "auto")]
    Auto,
    /// Lose nothing.
    #[enum_value(name = "The publisher waits for us, up to its deadline", nick = "block")]
    Block,
    /// Lose what waited longest.
    #[enum_value(name = "The frame that waited longest makes room", nick = "drop-oldest")]
    DropOldest,
    /// Lose what comes.
    #[enum_value(name = "The frame that arrives is not taken", nick = "drop-newest")]
    DropNewest,
    /// Only the newest waits.
    #[enum_value(name = "Only the newest frame waits for us", nick = "latest")]
    Latest,
}

impl AskedPolicy {
    fn policy(self) -> Option<Policy> {
        match self {
            Self::Publisher => None,
            Self::Auto => Some(Policy::Auto),
            Self::Block => Some(Policy::Block),
            Self::DropOldest => Some(Policy::DropOldest),
            Self::DropNewest => Some(Policy::DropNewest),
            Self::Latest => Some(Policy::Latest),
        }
    }
}

/// The face by which frames are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstPagecastSrcFace")]
#[repr(i32)]
pub enum AskedFace {
    /// dma-bufs where downstream prefers them or takes nothing else, or the publisher has nothing else; else memory.
    #[default]
    #[enum_value(
        name = "dma-buf where downstream prefers it or the publisher has nothing else; else memory",
        nick = "auto"
    )]
    Auto,
    /// Sealed memory that only the publisher can write.
    #[enum_value(name = "Memory that only the publisher can write", nick = "memory")]
    Memory,
    /// dma-bufs, for elements that import them.
    #[enum_value(name = "dma-buf, for elements that import it", nick = "dma-buf")]
    DmaBuf,
}

/// The kinds of addresses that unixfdsrc knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstPagecastSrcSocketType")]
#[repr(i32)]
pub enum SocketType {
    /// A path.
    #[default]
    #[enum_value(name = "socket-path is a path", nick = "path")]
    Path,
    /// An abstract name.
    #[enum_value(
        name = "socket-path is a name in the runtime folder, where permissions protect it",
        nick = "abstract"
    )]
    Abstract,
}

/// What is set on the element.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) uri: Option<String>,
    pub(super) socket_path: Option<String>,
    pub(super) socket_type: SocketType,
    /// `None` until somebody sets it: the publisher decides.
    pub(super) is_live: Option<bool>,
    pub(super) latest: bool,
    pub(super) max_framerate: gst::Fraction,
    pub(super) reconnect: bool,
    pub(super) face: AskedFace,
    pub(super) policy: AskedPolicy,
    pub(super) credits: u32,
    identity: Option<String>,
    pub(super) insecure: bool,
    pub(super) networks: Option<String>,
    pub(super) pool_limit: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            uri: None,
            socket_path: None,
            socket_type: SocketType::default(),
            is_live: None,
            latest: false,
            max_framerate: gst::Fraction::new(0, 1),
            reconnect: true,
            face: AskedFace::default(),
            policy: AskedPolicy::default(),
            credits: 0,
            identity: None,
            insecure: false,
            networks: None,
            pool_limit: PoolOptions::default().limit,
        }
    }
}

impl Settings {
    /// Where the publisher is.
    pub(super) fn address(&self) -> Result<String, String> {
        let text = match (&self.uri, &self.socket_path) {
            (Some(uri), _) => uri.clone(),
            (None, Some(path)) => self.path_uri(path).map_err(|error| error.to_string())?,
            (None, None) => {
                return Err("neither uri nor socket-path is set: set uri=unix:NAME, \
                            uri=unix:/path/of/the/socket, or uri=tcp://HOST:PORT (rdma://, remote://) as the publisher \
                            has it"
                    .to_owned());
            }
        };
        let mut uris = text.split_whitespace();
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Ok(uri.to_owned()),
            _ => Err(format!("uri is {text:?}: a source has exactly one")),
        }
    }

    pub(super) fn remote(&self) -> Result<RemoteOptions, String> {
        let networks = self.networks.as_deref().unwrap_or_default();
        crate::remote::options(networks, self.identity.as_deref(), self.insecure)
    }

    fn path_uri(&self, path: &str) -> Result<String, UriError> {
        if path.starts_with('/') || self.socket_type == SocketType::Abstract {
            return Uri::unix(path).map(|uri| uri.to_string());
        }
        let here = std::env::current_dir().unwrap_or_default();
        Uri::unix(&here.join(path).to_string_lossy()).map(|uri| uri.to_string())
    }

    /// The rate asked for, if it is limited.
    pub(super) fn rate(&self) -> Option<Rate> {
        let positive = |number: i32| u32::try_from(number).ok().filter(|number| *number > 0);
        let frames = positive(self.max_framerate.numer())?;
        Some(Rate { frames, seconds: positive(self.max_framerate.denom())? })
    }

    /// What the publisher is asked for.
    pub(super) fn options(&self, name: &str, remote: RemoteOptions, dma_bufs: bool) -> SubscriberOptions {
        SubscriberOptions {
            policy: self.policy.policy(),
            credits: (self.credits > 0).then_some(self.credits),
            max_rate: self.rate(),
            latest: self.latest,
            reconnect: self.reconnect,
            faces: self.faces(dma_bufs),
            any_face: self.face == AskedFace::Auto,
            name: format!("{}/{name}", SubscriberOptions::default().name),
            pool: PoolOptions { limit: self.pool_limit, ..PoolOptions::default() },
            remote,
            ..SubscriberOptions::default()
        }
    }

    /// The faces that are asked for first.
    fn faces(&self, dma_bufs: bool) -> FaceSet {
        match self.face {
            AskedFace::Auto if dma_bufs => FaceSet::DMA_BUF,
            AskedFace::Auto | AskedFace::Memory => FaceSet::MEMORY,
            AskedFace::DmaBuf => FaceSet::DMA_BUF,
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "uri" => self.uri = text(value),
            "socket-path" => self.socket_path = text(value),
            "socket-type" => assign(&mut self.socket_type, value),
            "is-live" => self.is_live = value.get().ok(),
            "latest" => assign(&mut self.latest, value),
            "max-framerate" => assign(&mut self.max_framerate, value),
            "reconnect" => assign(&mut self.reconnect, value),
            "face" => assign(&mut self.face, value),
            "policy" => assign(&mut self.policy, value),
            "credits" => assign(&mut self.credits, value),
            "identity" => self.identity = text(value),
            "insecure" => assign(&mut self.insecure, value),
            "networks" => self.networks = text(value),
            "pool-limit" => assign(&mut self.pool_limit, value),
            _ => {}
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "uri" => self.uri.to_value(),
            "socket-path" => self.socket_path.to_value(),
            "socket-type" => self.socket_type.to_value(),
            "latest" => self.latest.to_value(),
            "max-framerate" => self.max_framerate.to_value(),
            "reconnect" => self.reconnect.to_value(),
            "face" => self.face.to_value(),
            "policy" => self.policy.to_value(),
            "credits" => self.credits.to_value(),
            "identity" => self.identity.to_value(),
            "insecure" => self.insecure.to_value(),
            "networks" => self.networks.to_value(),
            "pool-limit" => self.pool_limit.to_value(),
            _ => return None,
        })
    }
}

fn text(value: &glib::Value) -> Option<String> {
    value.get::<Option<String>>().ok().flatten().filter(|text| !text.is_empty())
}

fn assign<'a, T: glib::value::FromValue<'a>>(field: &mut T, value: &'a glib::Value)
where
    <T as glib::value::FromValue<'a>>::Checker:
        glib::value::ValueTypeChecker<Error = glib::value::ValueTypeMismatchError>,
{
    if let Ok(value) = value.get() {
        *field = value;
    }
}

pub(super) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let mut all = addresses();
        all.extend(service());
        all.extend(figures());
        all
    });
    PROPERTIES.as_ref()
}

fn addresses() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("uri")
            .nick("URI")
            .blurb(
                "Where the publisher is: unix:NAME, unix:/path, or tcp://, rdma:// or remote://HOST:PORT; \
                 ?mode=listen waits for a publisher that connects",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("socket-path")
            .nick("Socket path")
            .blurb("Where the publisher is, as shmsrc and unixfdsrc have it; uri goes before it")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<SocketType>("socket-type")
            .nick("Socket type")
            .blurb("What socket-path is, as unixfdsrc has it")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("shm-area-name")
            .nick("Name of the shared memory area")
            .blurb("Always null: pages are shared by descriptors and have no name (accepted for shmsrc)")
            .read_only()
            .build(),
        glib::ParamSpecString::builder("identity")
            .nick("Identity")
            .blurb("Folder of the identity for TLS with other hosts, as 'pagecast keygen' makes it")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("insecure")
            .nick("Insecure")
            .blurb("Whether a link to another host may be in clear text; excludes identity")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("networks")
            .nick("Networks")
            .blurb(
                "From where a publisher may come to tcp://…?mode=listen, as 10.0.0.0/8 fd00::/8; while empty, \
                 from this host only",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("pool-limit")
            .nick("Pool limit")
            .blurb("The most bytes of pages for frames that come from another host")
            .minimum(4096)
            .default_value(PoolOptions::default().limit)
            .mutable_ready()
            .build(),
    ]
}

fn service() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecBoolean::builder("is-live")
            .nick("Is live")
            .blurb(
                "Whether frames come only in PLAYING, with times of this pipeline's clock. While it is not \
                 set, the publisher says whether it is live; one that is not there yet when the element goes \
                 to PAUSED is waited for in PAUSED",
            )
            .default_value(false)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("latest")
            .nick("Latest")
            .blurb("Of the frames that have arrived, pass on only the newest")
            .mutable_ready()
            .build(),
        gst::ParamSpecFraction::builder("max-framerate")
            .nick("Maximum frame rate")
            .blurb("The most frames per second that the publisher is to send us (0/1: all)")
            .minimum(gst::Fraction::new(0, 1))
            .maximum(gst::Fraction::new(i32::MAX, 1))
            .default_value(gst::Fraction::new(0, 1))
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("reconnect")
            .nick("Reconnect")
            .blurb(
                "Wait for the publisher, and for its return when the link ends without EOS; otherwise the end \
                 of the link is EOS, and a publisher that is not there is an error",
            )
            .default_value(true)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<AskedFace>("face")
            .nick("Face")
            .blurb("The face by which the frames' pages are reached")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<AskedPolicy>("policy")
            .nick("Policy")
            .blurb("What is to happen when this element falls behind; the publisher may forbid it")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("credits")
            .nick("Credits")
            .blurb("Frames this pipeline may hold at a time; the publisher may grant fewer (0: its choice)")
            .mutable_ready()
            .build(),
    ]
}

fn figures() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("frames, dropped, copied, bytes, reconnects, epoch, credits, mailbox, latency_us and more")
            .read_only()
            .build(),
    ]
}
