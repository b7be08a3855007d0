//! Who is let in, and on what terms.

use std::sync::Arc;

use nix::unistd::geteuid;
use pagecast_ipc::budget::Share;
use pagecast_ipc::fanout::Ask;
use pagecast_ipc::ledger::SubscriberId;
use pagecast_ipc::policy::Policy;
use pagecast_ipc::socket::Seqpacket;
use pagecast_ipc::wire::limits::MAX_INFO_PART;
use pagecast_ipc::wire::{
    FaceSet, Hello, PacketBuilder, Packets, RefusalCode, Role, ToPublisher, ToSubscriber, Welcome,
};

use super::core::Core;
use super::member::{Member, Obstacle};
use super::service;
use super::shared::Shared;
use crate::remote::Origin;

/// The largest message with its bookkeeping in the kernel, for the size of send buffers.
const MESSAGE_COST: usize = 1024;
/// Descriptors one subscriber may leave unseen.
const MOST_UNSEEN: u64 = 8;

/// Why somebody is not let in.
#[derive(Debug)]
pub(super) struct Refusal {
    code: RefusalCode,
    text: String,
}

/// Somebody without a share.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// It has not said hello.
    Stranger {
        /// Whether there is room for one more observer.
        may_observe: bool,
    },
    /// It asks and watches.
    Observer {
        /// From this host: no bridge to another.
        local: bool,
    },
}

/// What to do with somebody who has said something.
pub(super) enum Answer {
    /// Close the link.
    End,
    /// It asks and watches.
    Observe,
    /// It wants frames.
    Admit(Box<Hello>),
}

/// Whether this process may come at all.
pub(super) fn may_enter(shared: &Shared, socket: &Seqpacket) -> Result<(), Refusal> {
    let refusal = |text: String| Refusal { code: RefusalCode::Access, text };
    let peer = socket.peer().map_err(|error| refusal(error.to_string()))?;
    let core = shared.lock();
    if core.closing {
        return Err(closing());
    }
    core.options.access.admits(&peer).map_err(|error| refusal(error.to_string()))
}

fn closing() -> Refusal {
    Refusal { code: RefusalCode::Closing, text: "the publisher ends".to_owned() }
}

pub(super) fn refuse(socket: &Seqpacket, refusal: &Refusal) {
    let _ = send(socket, 0, &ToSubscriber::Refused(refusal.code, refusal.text.clone()));
}

fn send(socket: &Seqpacket, epoch: u32, message: &ToSubscriber) -> bool {
    let mut record = Vec::new();
    message.encode(&mut record);
    let mut packet = PacketBuilder::default();
    packet.push(&record);
    socket.send(&packet.bytes(epoch), &[]).is_ok()
}

/// Reads what somebody without a share says.
pub(super) fn answer(shared: &Arc<Shared>, socket: &Seqpacket, bytes: &[u8], asker: Asker) -> Answer {
    let Ok(mut packets) = Packets::open(bytes) else { return Answer::End };
    let (observer, local, may_observe) = match asker {
        Asker::Observer { local } => (true, local, true),
        Asker::Stranger { may_observe } => (false, false, may_observe),
    };
    let answer = if observer { Answer::Observe } else { Answer::End };
    while let Ok(Some(record)) = packets.next_record() {
        match ToPublisher::decode(record) {
            // It stands alone: what follows may be said only by who was let in.
            Ok(ToPublisher::Hello(hello)) if !observer => {
                return match packets.next_record() {
                    Ok(None) => greet(shared, socket, hello, may_observe),
                    _ => Answer::End,
                };
            }
            Ok(ToPublisher::Query) if observer => {
                if !inform(shared, socket, local) {
                    return Answer::End;
                }
            }
            _ => return Answer::End,
        }
    }
    answer
}

fn greet(shared: &Arc<Shared>, socket: &Seqpacket, hello: Hello, may_observe: bool) -> Answer {
    let Some(version) = hello.common_version() else {
        let text = format!(
            "protocol versions {} to {} are not spoken here: use the same release at both ends",
            hello.version_min, hello.version_max
        );
        refuse(socket, &Refusal { code: RefusalCode::Version, text });
        return Answer::End;
    };
    match hello.role {
        Role::Observer if !may_observe => {
            let text = "as many observers as may be are here already: try again later".to_owned();
            refuse(socket, &Refusal { code: RefusalCode::NoRoom, text });
            Answer::End
        }
        Role::Observer => {
            let core = shared.lock();
            if core.closing {
                drop(core);
                refuse(socket, &closing());
                return Answer::End;
            }
            let welcome = welcome(&core, version, None, Share { credits: 0, mailbox: 0 }, FaceSet::empty());
            let epoch = core.epoch;
            drop(core);
            if send(socket, epoch, &ToSubscriber::Welcome(welcome)) { Answer::Observe } else { Answer::End }
        }
        _ => Answer::Admit(Box::new(hello)),
    }
}

fn inform(shared: &Shared, socket: &Seqpacket, local: bool) -> bool {
    let info = if local && may_know_addresses(socket) { shared.info_with_buffers() } else { shared.info() };
    let epoch = shared.lock().epoch;
    let Ok(json) = serde_json::to_vec(&info) else { return false };
    let parts = json.chunks(MAX_INFO_PART).collect::<Vec<_>>();
    let last = parts.len() - 1;
    let told =
        |(at, part): (usize, &&[u8])| send(socket, epoch, &ToSubscriber::Info(part.to_vec(), at == last));
    parts.iter().enumerate().all(told)
}

/// Who could look into this process anyway is told where its pages are.
fn may_know_addresses(socket: &Seqpacket) -> bool {
    socket.peer().is_ok_and(|peer| peer.uid == 0 || peer.uid == geteuid().as_raw())
}

/// Gives a newcomer its share and brings it up to the stream. `None` if there is no room for it.
pub(super) fn admit(
    shared: &Arc<Shared>,
    socket: Seqpacket,
    origin: Option<Origin>,
    hello: &Hello,
) -> Option<SubscriberId> {
    let peer = socket.peer().ok()?;
    let mut core = shared.lock();
    // It may have closed since this one came.
    if core.closing {
        drop(core);
        refuse(&socket, &closing());
        return None;
    }
    let allowed = if core.options.access.dma_buf_for(&peer) { FaceSet::all() } else { FaceSet::MEMORY };
    let faces = hello.faces & allowed;
    if faces.is_empty() {
        drop(core);
        let text = "it may have none of the faces that it can use: ask for the memory face".to_owned();
        refuse(&socket, &Refusal { code: RefusalCode::Face, text });
        return None;
    }
    let ask = ask(&core, hello, origin.is_some());
    let (id, share) = match core.books.admit(ask) {
        Ok(admitted) => admitted,
        Err(no_room) => {
            drop(core);
            refuse(&socket, &Refusal { code: RefusalCode::NoRoom, text: no_room.to_string() });
            return None;
        }
    };
    let messages = share.credits as usize + 64;
    let _ = socket.set_buffers(messages * MESSAGE_COST, messages * MESSAGE_COST);
    let welcome = welcome(&core, hello.common_version()?, Some((id, ask)), share, faces);
    let unseen = MOST_UNSEEN.min(shared.descriptor_share(core.options.max_subscribers));
    let mut member = Member::new(socket, peer, origin, hello, faces, core.epoch, unseen);
    let told = member.tell(&ToSubscriber::Welcome(welcome)).is_ok();
    let (stream, clock) = (core.stream.clone(), core.clock);
    // What the socket does not take now of the stream follows.
    if !told || !matches!(member.prepare(&stream, clock), Ok(()) | Err(Obstacle::Later)) {
        core.books.leave(id);
        return None;
    }
    service::watch(&shared.epoll, id, std::os::fd::AsFd::as_fd(&*member.socket), false, true);
    core.members.insert(id, member);
    core.totals.admitted += 1;
    let subscriber = core.subscriber_info(id);
    drop(core);
    shared.changed.notify_all();
    if let (Some(subscriber), Some(call)) = (subscriber, &shared.hooks.connected) {
        call(&subscriber);
    }
    Some(id)
}

/// What a subscriber gets of what it asks, before the budget is looked at.
fn ask(core: &Core, hello: &Hello, bridge: bool) -> Ask {
    let options = &core.options;
    let ours = options.policy.resolve(options.live);
    let policy = match hello.policy.map(|policy| policy.resolve(options.live)) {
        // To hold the producer, for everyone, is the publisher's choice.
        Some(Policy::Block) if ours != Policy::Block => ours,
        Some(policy) if !options.force_policy => policy,
        _ => ours,
    };
    Ask {
        share: core.share(hello.credits, bridge),
        policy,
        keep: hello.keep.min(options.max_keep),
        rate: hello.rate,
    }
}

fn welcome(
    core: &Core,
    version: u16,
    member: Option<(SubscriberId, Ask)>,
    share: Share,
    faces: FaceSet,
) -> Welcome {
    Welcome {
        version,
        subscriber: member.map_or(0, |(id, _)| id.0),
        pid: std::process::id(),
        policy: member.map(|(_, ask)| ask.policy),
        credits: share.credits,
        mailbox: share.mailbox,
        faces,
        live: core.options.live,
        name: core.options.name.clone(),
    }
}
