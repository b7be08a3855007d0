//! Zero-copy frames for many consumers.
//!
//! A frame is written once, into pages that every consumer can reach. A [`Publisher`] sends the pages'
//! descriptors once and then a small message per frame; a [`Subscriber`] in another process maps them once
//! and reads. Pages are used again only when every holder has given them back or was cut off.
//!
//! ```no_run
//! use pagecast::{Description, Frame, Pool, PoolOptions, Publisher, PublisherOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::new(PoolOptions::default());
//! let publisher = Publisher::open("unix:cam0", PublisherOptions::default())?;
//! publisher.set_pool(&pool);
//! publisher.set_caps("video/x-raw, format=GRAY8, width=640, height=480, framerate=30/1")?;
//! for n in 0..100_u8 {
//!     let mut lease = pool.acquire(640 * 480)?;
//!     lease.as_mut_slice().fill(n);
//!     publisher.publish(&Frame::builder().lease(lease, 640 * 480).build()?)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! In another process:
//!
//! ```no_run
//! use pagecast::{Subscriber, SubscriberOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let subscriber = Subscriber::open("unix:cam0", SubscriberOptions::default())?;
//! loop {
//!     let frame = subscriber.next_frame(None)?;
//!     let guard = frame.read()?;
//!     let sum: u64 = guard.bytes(0).unwrap_or_default().iter().map(|byte| u64::from(*byte)).sum();
//!     guard.finish()?; // only now is what was read known to be this frame
//!     println!("frame {}: {sum}", frame.id());
//! }
//! # }
//! ```
//!
//! # Where is what
//!
//! | module | what |
//! |---|---|
//! | [`pool`] | buffers that are filled, published and used again |
//! | [`frame`] | segments, planes, times; reading with a guard |
//! | [`publisher`] | links, policies, budgets, figures |
//! | [`subscriber`] | receiving, reconnecting, figures |
//! | [`registration`] | the `mr` face: pages registered with RDMA devices |
//! | [`relay`] | receiving here to publish there, without a copy |
//! | [`remote`] | publishers and subscribers on other hosts |
//! | [`stream`] | caps, segment, tags |
#![deny(unsafe_op_in_unsafe_fn)]

pub mod clock;
pub mod frame;
pub mod latency;
pub mod pool;
pub mod publisher;
pub mod rate;
pub mod registration;
pub mod relay;
pub mod remote;
pub mod stream;
pub mod subscriber;

pub use frame::{
    Description, DrmFourcc, DrmModifier, Evicted, FenceError, Frame, FrameBuilder, FrameError, Picture,
    PictureError, PicturePlane, Pixels, PlaneView, ReadError, ReadGuard, Segment,
};
pub use pool::{Lease, Pool, PoolError, PoolOptions};
pub use publisher::{Hooks, Info, PublishError, Publisher, PublisherOptions};
pub use relay::{Relay, RelayError, RelayOptions};
pub use remote::RemoteOptions;
pub use stream::{EOS, Stream};
#[cfg(feature = "tokio")]
pub use subscriber::AsyncSubscriber;
pub use subscriber::{Message, RecvError, Subscriber, SubscriberOptions};

pub use pagecast_allocators as allocators;
pub use pagecast_allocators::{AccessMode, BackingChoice, Buffer, FaceKind, Fence, PageSize, Wants};
pub use pagecast_ipc as ipc;
pub use pagecast_ipc::policy::{Policy, Rate};
pub use pagecast_ipc::wire::{Clock, Event, FaceSet, FrameFlags, Meta, Plane, Sticky, Times};
pub use pagecast_verbs as verbs;
