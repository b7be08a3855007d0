//! How a tree of relays on many hosts behaves, by simulation: every node keeps real books ([`Fanout`]) and every link a
//! real window ([`Window`]); only time and the network are made up.
//!
//! A node sends to its children one after the other; a frame takes `per_send` of its time plus its bytes over its way out,
//! and then `hop` until the child has a copy. With the last byte the sender has its frame back; the child's return opens
//! the window, `hop` later.

pub mod measure;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use pagecast::Policy;
use pagecast::ipc::budget::Share;
use pagecast::ipc::fanout::{Ask, Delivery, Fanout, Rules};
use pagecast::ipc::ledger::{FrameId, SubscriberId};
use pagecast_remote::window::Window;

/// What a hop costs.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// From the end of a transfer until the other end has it.
    pub hop: Duration,
    /// A node's time for one frame and child.
    pub per_send: Duration,
    /// Bytes per second of a node's way out.
    pub bandwidth: f64,
}

/// A tree and what flows through it.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// Subscribers at its end.
    pub leaves: usize,
    /// Children of one node, at most.
    pub fan_out: usize,
    /// Frames published.
    pub frames: u64,
    /// Time between two of them.
    pub interval: Duration,
    /// Bytes of one.
    pub bytes: u64,
    /// How long a leaf has it in hand.
    pub in_hand: Duration,
    /// What a link may have of its sender's frames: under way, and waiting.
    pub share: Share,
    /// Frames that a leaf may have.
    pub leaf_window: u32,
    /// Every so many leaves, one that returns nothing; 0: none.
    pub stalled_every: usize,
    /// Whether relays have frames for all shares of their children, as they must.
    pub relays_have_enough: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Links between the publisher and a leaf.
    pub hops: usize,
    /// Nodes between them.
    pub relays: usize,
    /// Frames that leaves which return theirs got.
    pub delivered: u64,
    /// Frames that these did not get.
    pub lost: u64,
    /// Frames that stalled leaves got.
    pub stalled_got: u64,
    /// From publication to a leaf, microseconds, sorted.
    pub latency_us: Vec<u32>,
    /// The most frames that one relay had, and the publisher.
    pub relay_frames: usize,
    /// As above.
    pub publisher_frames: usize,
    /// The most children of one node.
    pub links: usize,
}

impl Outcome {
    /// The latency that so much of all deliveries kept, e.g. 0.5.
    pub fn latency(&self, part: f64) -> u32 {
        let last = self.latency_us.len().saturating_sub(1);
        self.latency_us.get((last as f64 * part) as usize).copied().unwrap_or(0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Publish,
    /// The last byte of a frame for this child has left.
    Sent(usize, FrameId),
    /// A frame, its number at the sender and its birth, is at a node.
    Arrive(usize, FrameId, u64),
    /// A node has given a frame back.
    Return(usize, FrameId),
}

struct Node {
    parent: usize,
    /// What the parent knows it as.
    name: SubscriberId,
    first_child: usize,
    /// Of the link from the parent.
    window: Window,
    waiting: VecDeque<(FrameId, u64)>,
    /// With the frame's number at the parent, and its birth.
    books: Fanout<(FrameId, u64), ()>,
    /// Until when it sends, nanoseconds.
    busy: u64,
    frames: usize,
    most_frames: usize,
}

struct Simulation {
    tree: Tree,
    costs: Costs,
    start: Instant,
    now: u64,
    nodes: Vec<Node>,
    first_leaf: usize,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    sequence: u64,
    published: u64,
    outcome: Outcome,
}

/// Lets a tree run until nothing is under way.
pub fn simulate(tree: Tree, costs: Costs) -> Outcome {
    let mut simulation = Simulation::new(tree, costs);
    simulation.after(0, Happening::Publish);
    while let Some(Reverse((at, _, happening))) = simulation.queue.pop() {
        simulation.now = at;
        simulation.handle(happening);
    }
    simulation.finish()
}

impl Simulation {
    fn new(tree: Tree, costs: Costs) -> Self {
        let mut levels = vec![tree.leaves];
        while levels[levels.len() - 1] > 1 {
            levels.push(levels[levels.len() - 1].div_ceil(tree.fan_out));
        }
        levels.reverse();
        if levels.len() == 1 {
            levels.insert(0, 1);
        }
        let hops = levels.len() - 1;
        let relays = levels[1..hops].iter().sum();
        let mut simulation = Self {
            tree,
            costs,
            start: Instant::now(),
            now: 0,
            nodes: Vec::new(),
            first_leaf: 1 + relays,
            queue: BinaryHeap::new(),
            sequence: 0,
            published: 0,
            outcome: Outcome { hops, relays, ..Outcome::default() },
        };
        simulation.grow(&levels);
        simulation
    }

    /// Makes the nodes, level by level, and admits each with its parent.
    fn grow(&mut self, levels: &[usize]) {
        let rules = Rules { max_subscribers: self.tree.fan_out as u32, ..Rules::default() };
        let root = u32::MAX / 2;
        let needed = self.tree.fan_out as u32 * self.tree.share.frames();
        let relay = if self.tree.relays_have_enough { needed } else { needed / 2 };
        let node = |parent, name, first_child, capacity: u32| Node {
            parent,
            name,
            first_child,
            window: Window::new(Some(capacity.saturating_add(1))),
            waiting: VecDeque::new(),
            books: Fanout::new(rules.clone(), capacity),
            busy: 0,
            frames: 0,
            most_frames: 0,
        };
        self.nodes.push(node(0, SubscriberId(0), 1, root));
        let mut first_of_level = 1;
        for (depth, &count) in levels.iter().enumerate().skip(1) {
            let first_of_parents = first_of_level - levels[depth - 1];
            let is_leaf = depth == levels.len() - 1;
            for at in 0..count {
                let parent = first_of_parents + at / self.tree.fan_out;
                let ask = Ask { share: self.tree.share, policy: Policy::DropOldest, keep: 1, rate: None };
                let (name, _) = self.nodes[parent].books.admit(ask).expect("room for a child");
                let capacity = if is_leaf { self.tree.leaf_window - 1 } else { relay };
                let first_child = first_of_level + count + at * self.tree.fan_out;
                self.nodes.push(node(parent, name, first_child, capacity));
                let links = self.nodes[parent].books.subscribers().count();
                self.outcome.links = self.outcome.links.max(links);
            }
            first_of_level += count;
        }
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence, happening)));
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_nanos(self.now)
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Publish => {
                self.published += 1;
                self.publish(0, FrameId(0), self.now);
                if self.published < self.tree.frames {
                    self.after(self.tree.interval.as_nanos() as u64, Happening::Publish);
                }
            }
            Happening::Arrive(node, frame, born) if node >= self.first_leaf => self.arrive(node, frame, born),
            Happening::Arrive(node, frame, born) => self.publish(node, frame, born),
            Happening::Sent(node, frame) => {
                let (parent, name) = (self.nodes[node].parent, self.nodes[node].name);
                self.nodes[parent].books.give_back(name, frame).expect("it held that frame");
                self.pump(parent, name);
                self.free(parent);
            }
            Happening::Return(node, frame) => {
                self.nodes[node].window.returned(frame.0).expect("it had that frame");
                self.transfer(node);
            }
        }
    }

    fn arrive(&mut self, leaf: usize, frame: FrameId, born: u64) {
        if self.is_stalled(leaf) {
            self.outcome.stalled_got += 1;
            return;
        }
        self.outcome.delivered += 1;
        self.outcome.latency_us.push(((self.now - born) / 1000) as u32);
        let back = (self.tree.in_hand + self.costs.hop).as_nanos() as u64;
        self.after(back, Happening::Return(leaf, frame));
    }

    fn is_stalled(&self, leaf: usize) -> bool {
        self.tree.stalled_every > 0 && (leaf - self.first_leaf).is_multiple_of(self.tree.stalled_every)
    }

    fn publish(&mut self, at: usize, frame: FrameId, born: u64) {
        let now = self.instant();
        let node = &mut self.nodes[at];
        node.frames += 1;
        node.most_frames = node.most_frames.max(node.frames);
        node.books.publish((frame, born), now, Duration::from_nanos(born));
        for name in node.books.subscribers().collect::<Vec<_>>() {
            self.pump(at, name);
        }
        self.free(at);
    }

    /// Hands the link to a child what its share allows.
    fn pump(&mut self, at: usize, child: SubscriberId) {
        let now = self.instant();
        while let Some(delivery) = self.nodes[at].books.next(child, now) {
            let Delivery::Frame(frame, (_, born)) = delivery else { continue };
            let to = self.nodes[at].first_child + child.0 as usize - 1;
            self.nodes[to].waiting.push_back((frame, born));
            self.transfer(to);
        }
    }

    /// Sends what the window of a child allows.
    fn transfer(&mut self, child: usize) {
        let wire = Duration::from_secs_f64(self.tree.bytes as f64 / self.costs.bandwidth);
        let cost = (self.costs.per_send + wire).as_nanos() as u64;
        while self.nodes[child].window.has_room(self.tree.bytes) {
            let Some((frame, born)) = self.nodes[child].waiting.pop_front() else { break };
            self.nodes[child].window.sent(frame.0, self.tree.bytes);
            let parent = self.nodes[child].parent;
            let sender = &mut self.nodes[parent];
            sender.busy = sender.busy.max(self.now) + cost;
            let sent = sender.busy - self.now;
            self.after(sent, Happening::Sent(child, frame));
            self.after(sent + self.costs.hop.as_nanos() as u64, Happening::Arrive(child, frame, born));
        }
    }

    /// What nobody below claims any more goes back to whom it came from.
    fn free(&mut self, at: usize) {
        let freed = self.nodes[at].books.take_freed();
        self.nodes[at].frames -= freed.len();
        for (frame, _) in freed {
            if at > 0 {
                self.after(self.costs.hop.as_nanos() as u64, Happening::Return(at, frame));
            }
        }
    }

    fn finish(mut self) -> Outcome {
        let healthy =
            (self.first_leaf..self.nodes.len()).filter(|leaf| !self.is_stalled(*leaf)).count() as u64;
        self.outcome.lost = healthy * self.tree.frames - self.outcome.delivered;
        self.outcome.latency_us.sort_unstable();
        self.outcome.publisher_frames = self.nodes[0].most_frames;
        let relays = &self.nodes[1..self.first_leaf];
        self.outcome.relay_frames = relays.iter().map(|node| node.most_frames).max().unwrap_or(0);
        self.outcome
    }
}
