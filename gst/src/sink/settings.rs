//! The properties.

use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use pagecast::ipc::socket::Uri;
use pagecast::{PoolOptions, PublisherOptions, RemoteOptions};

use super::{Backing, Policy};

/// Times that never come.
const NEVER: u64 = u64::MAX;

/// The properties as they were set.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) uri: Option<String>,
    pub(super) socket_path: Option<String>,
    policy: Policy,
    block_deadline: u64,
    pub(super) credits: u32,
    hold_timeout: u64,
    max_clients: u32,
    wait_for_connection: bool,
    wait_for_clients: u32,
    pool_limit: u64,
    shm_size: u32,
    backing: Backing,
    backing_device: Option<String>,
    pub(super) reserve: u32,
    perms: u32,
    buffer_time: i64,
    identity: Option<String>,
    insecure: bool,
    networks: String,
}

impl Default for Settings {
    fn default() -> Self {
        let options = PublisherOptions::default();
        let nanoseconds = |time: Duration| time.as_nanos() as u64;
        Self {
            uri: None,
            socket_path: None,
            policy: Policy::Auto,
            block_deadline: options.block_deadline.map_or(NEVER, nanoseconds),
            credits: 0,
            hold_timeout: 0,
            max_clients: options.max_subscribers,
            wait_for_connection: false,
            wait_for_clients: 0,
            pool_limit: options.limit,
            shm_size: 0,
            backing: Backing::Auto,
            backing_device: None,
            reserve: 2,
            perms: options.perms,
            buffer_time: -1,
            identity: None,
            insecure: false,
            networks: String::new(),
        }
    }
}

impl Settings {
    /// The addresses to serve.
    pub(super) fn address(&self) -> Result<String, String> {
        match (&self.uri, &self.socket_path) {
            (Some(uri), _) if !uri.trim().is_empty() => Ok(uri.clone()),
            (_, Some(path)) if !path.is_empty() => path_uri(path),
            _ => Err(
                "set uri (unix:NAME, unix:/path, or tcp://, rdma:// or remote://HOST:PORT) or socket-path"
                    .to_owned(),
            ),
        }
    }

    pub(super) fn pool(&self) -> Result<PoolOptions, String> {
        let device = self.backing_device.as_deref().filter(|device| !device.is_empty());
        let backing = self.backing.choice(device).map_err(|error| error.to_string())?;
        Ok(PoolOptions { backing, limit: self.limit(), ..PoolOptions::default() })
    }

    pub(super) fn remote(&self) -> Result<RemoteOptions, String> {
        crate::remote::options(&self.networks, self.identity.as_deref(), self.insecure)
    }

    /// How long a client may hold the pipeline per stall; `None` for ever.
    pub(super) fn block_deadline(&self) -> Option<Duration> {
        (self.block_deadline != NEVER).then(|| Duration::from_nanos(self.block_deadline))
    }

    pub(super) fn publisher(&self, live: bool, remote: RemoteOptions) -> PublisherOptions {
        let defaults = PublisherOptions::default();
        PublisherOptions {
            policy: self.policy.into(),
            live,
            credits: if self.credits == 0 { defaults.credits } else { Some(self.credits) },
            max_subscribers: self.max_clients,
            limit: self.limit(),
            reserve: self.reserve,
            block_deadline: self.block_deadline(),
            hold_timeout: (self.hold_timeout != 0).then(|| Duration::from_nanos(self.hold_timeout)),
            perms: self.perms,
            remote,
            ..defaults
        }
    }

    /// Clients without which nothing is published.
    pub(super) fn wanted_clients(&self) -> usize {
        self.wait_for_clients.max(u32::from(self.wait_for_connection)) as usize
    }

    /// Whether nothing is published while there is no client at all.
    pub(super) fn waits_for_connection(&self) -> bool {
        self.wait_for_connection
    }

    fn limit(&self) -> u64 {
        self.pool_limit.max(u64::from(self.shm_size))
    }

    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        let wrong = "the type is checked by GObject";
        match name {
            "uri" => self.uri = value.get().expect(wrong),
            "socket-path" => self.socket_path = value.get().expect(wrong),
            "policy" => self.policy = value.get().expect(wrong),
            "block-deadline" => self.block_deadline = value.get().expect(wrong),
            "credits" => self.credits = value.get().expect(wrong),
            "hold-timeout" => self.hold_timeout = value.get().expect(wrong),
            "max-clients" => self.max_clients = value.get().expect(wrong),
            "wait-for-connection" => self.wait_for_connection = value.get().expect(wrong),
            "wait-for-clients" => self.wait_for_clients = value.get().expect(wrong),
            "pool-limit" => self.pool_limit = value.get().expect(wrong),
            "shm-size" => self.shm_size = value.get().expect(wrong),
            "backing" => self.backing = value.get().expect(wrong),
            "backing-device" => self.backing_device = value.get().expect(wrong),
            "reserve" => self.reserve = value.get().expect(wrong),
            "perms" => self.perms = value.get().expect(wrong),
            "buffer-time" => self.buffer_time = value.get().expect(wrong),
            "identity" => self.identity = value.get().expect(wrong),
            "insecure" => self.insecure = value.get().expect(wrong),
            "networks" => self.networks = value.get::<Option<String>>().expect(wrong).unwrap_or_default(),
            _ => unreachable!("{name} is not writable"),
        }
    }

    pub(super) fn get(&self, name: &str) -> glib::Value {
        match name {
            "uri" => self.uri.to_value(),
            "socket-path" => self.socket_path.to_value(),
            "policy" => self.policy.to_value(),
            "block-deadline" => self.block_deadline.to_value(),
            "credits" => self.credits.to_value(),
            "hold-timeout" => self.hold_timeout.to_value(),
            "max-clients" => self.max_clients.to_value(),
            "wait-for-connection" => self.wait_for_connection.to_value(),
            "wait-for-clients" => self.wait_for_clients.to_value(),
            "pool-limit" => self.pool_limit.to_value(),
            "shm-size" => self.shm_size.to_value(),
            "backing" => self.backing.to_value(),
            "backing-device" => self.backing_device.to_value(),
            "reserve" => self.reserve.to_value(),
            "perms" => self.perms.to_value(),
            "buffer-time" => self.buffer_time.to_value(),
            "identity" => self.identity.to_value(),
            "insecure" => self.insecure.to_value(),
            "networks" => self.networks.to_value(),
            _ => unreachable!("there is no property {name}"),
        }
    }
}

/// The URI of a path, which may be relative to where the program runs.
fn path_uri(path: &str) -> Result<String, String> {
    let absolute = std::path::absolute(path).map_err(|error| format!("{path}: {error}"))?;
    let address = absolute.into_os_string().into_string().map_err(|_| format!("{path:?} is not UTF-8"))?;
    Uri::unix(&address).map(|uri| uri.to_string()).map_err(|error| error.to_string())
}

pub(super) fn properties() -> Vec<glib::ParamSpec> {
    let defaults = Settings::default();
    let mut all = addresses();
    all.extend(serving(&defaults));
    all.extend(pages(&defaults));
    all.extend(figures());
    all
}

fn addresses() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("uri")
            .nick("URI")
            .blurb(
                "Where to serve: unix:NAME (found by 'pagecast list'), unix:/path, tcp://, rdma:// or \
                 remote://HOST:PORT, or several separated by spaces; ?mode=connect reaches for a client that listens",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("socket-path")
            .nick("Socket path")
            .blurb("Path of the socket, as with shmsink and unixfdsink; the same as uri=unix:PATH")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("perms")
            .nick("Permissions")
            .blurb("Permissions of the socket; the default lets in only its owner (384 is 0600, 432 is 0660)")
            .maximum(0o7777)
            .default_value(Settings::default().perms)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("identity")
            .nick("Identity")
            .blurb("Folder of the identity for TLS with other hosts, as 'pagecast keygen' makes it")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("insecure")
            .nick("Insecure")
            .blurb("Serve other hosts at tcp:// in clear text, to whoever may come (networks); excludes identity")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("networks")
            .nick("Networks")
            .blurb("From where clients may come to tcp://, as 10.0.0.0/8 fd00::/8; while empty, from this host only")
            .mutable_ready()
            .build(),
    ]
}

fn serving(defaults: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecEnum::builder_with_default("policy", defaults.policy)
            .nick("Policy")
            .blurb("What happens to a client that falls behind and asks for no policy of its own")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("block-deadline")
            .nick("Block deadline")
            .blurb(
                "Nanoseconds that a client with policy block may hold the pipeline per stall; after that it \
                 loses frames (18446744073709551615 = for ever). The end of the stream waits as long, at most 10 s, \
                 for the next frame that a client gives back",
            )
            .default_value(defaults.block_deadline)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("credits")
            .nick("Credits")
            .blurb("Frames that a client may hold, unless it asks for fewer (0 = automatic)")
            .maximum(1024)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("hold-timeout")
            .nick("Hold timeout")
            .blurb(
                "Nanoseconds after which a client is cut off that keeps more frames than it may while newer \
                 ones appear (0 = never)",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-clients")
            .nick("Maximum of clients")
            .blurb("Clients at a time; more are refused")
            .minimum(1)
            .maximum(4096)
            .default_value(defaults.max_clients)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("wait-for-connection")
            .nick("Wait for connection")
            .blurb("Hold the stream until there is a client (default is false; shmsink's is true)")
            .default_value(defaults.wait_for_connection)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("wait-for-clients")
            .nick("Wait for clients")
            .blurb("Hold the stream until there are so many clients; it then goes on even if some leave")
            .maximum(4096)
            .mutable_playing()
            .build(),
        glib::ParamSpecInt64::builder("buffer-time")
            .nick("Buffer time")
            .blurb("Accepted for shmsink's sake, without effect: credits and policy say what may wait")
            .minimum(-1)
            .default_value(defaults.buffer_time)
            .mutable_playing()
            .build(),
    ]
}

fn pages(defaults: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecUInt64::builder("pool-limit")
            .nick("Pool limit")
            .blurb("The most bytes of pages; clients share them, whatever is left gets refused")
            .minimum(4096)
            .default_value(defaults.pool_limit)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("shm-size")
            .nick("Shared memory size")
            .blurb("As with shmsink: raises pool-limit to this if it is larger, never lowers it")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("backing", defaults.backing)
            .nick("Backing")
            .blurb("Where the pages come from")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("backing-device")
            .nick("Backing device")
            .blurb("With backing=dma-heap the heap's name (system), with drm-dumb a path as /dev/dri/card0 (the first)")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("reserve")
            .nick("Reserve")
            .blurb(
                "Buffers that clients never get: of our pages, and of an upstream pool of fixed size, from \
                 which frames are then copied",
            )
            .maximum(1024)
            .default_value(defaults.reserve)
            .mutable_ready()
            .build(),
    ]
}

fn figures() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecUInt::builder("num-clients")
            .nick("Number of clients")
            .blurb("Clients that are connected now")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "Those of every sink (average-rate, dropped, rendered) and those of the publisher; \
                 clients-dropped counts frames that clients lost",
            )
            .read_only()
            .build(),
    ]
}
