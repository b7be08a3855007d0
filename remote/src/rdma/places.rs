//! Which place a frame gets; no I/O.
//!
//! Both ends count frames that have bytes. The subscriber grants places ahead of the frames, in their order: the number of a
//! place is the number of the frame that it is for, if that fits. If it does not, that place and all that were granted behind it
//! are void, for both ends, and the subscriber grants again from that frame on. So both know the same without asking.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::wire::Grant;
use crate::PeerFault;

/// Places granted at a time, for frames that are known and ahead of them; a receive is posted for each.
pub(super) const MAX_GRANTS: usize = 8;
/// Places granted ahead.
pub(super) const MAX_AHEAD: usize = 4;
/// Bytes of them: larger frames hide the way of a grant behind the bytes of the frame before.
pub(super) const MAX_BYTES_AHEAD: u64 = 32 << 20;
/// Frames after which places are granted for smaller ones, if all were smaller.
const RECENT: u32 = 32;

/// The publisher's side: places that it was granted and has not used.
#[derive(Debug, Default)]
pub(super) struct Granted {
    places: VecDeque<Grant>,
    /// The number of the last place.
    last: u32,
    /// Places are void until the one with this number comes again.
    again: Option<u32>,
    /// That place has come again, for a frame that is known.
    exact: bool,
}

impl Granted {
    /// The subscriber has granted a place.
    pub(super) fn push(&mut self, grant: Grant) -> Result<(), PeerFault> {
        match self.again {
            Some(first) if grant.slot == first => (self.again, self.exact) = (None, true),
            // It was on its way.
            Some(first) if grant.slot.wrapping_sub(first) < MAX_GRANTS as u32 => return Ok(()),
            None if grant.slot == self.last.wrapping_add(1) => {}
            _ => return Err(PeerFault::OutOfPlace("a place out of order")),
        }
        if self.places.len() >= MAX_GRANTS {
            let (value, limit) = (self.places.len() as u64 + 1, MAX_GRANTS as u64);
            return Err(PeerFault::OverLimit { what: "places", value, limit });
        }
        self.last = grant.slot;
        self.places.push_back(grant);
        Ok(())
    }

    /// The place for the next frame, if it is here and large enough.
    pub(super) fn take(&mut self, size: u64) -> Result<Option<Grant>, PeerFault> {
        let Some(grant) = self.places.pop_front() else { return Ok(None) };
        let exact = std::mem::take(&mut self.exact);
        if grant.length >= size {
            return Ok(Some(grant));
        }
        if exact {
            return Err(PeerFault::OutOfPlace("a place that is too small"));
        }
        self.places.clear();
        self.again = Some(grant.slot);
        Ok(None)
    }
}

/// A place that was granted before its frame was known.
#[derive(Debug)]
struct Ahead<T> {
    slot: u32,
    length: u64,
    what: T,
    /// Whether the publisher has said that it is filled.
    filled: bool,
}

/// What a frame gets at the subscriber.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<T> {
    /// One that was granted ahead, and whether it is filled.
    Ahead { slot: u32, what: T, filled: bool },
    /// One has to be granted now.
    Missing,
}

/// The subscriber's side: places that it has granted ahead, with what they are.
#[derive(Debug)]
pub(super) struct Granting<T> {
    ahead: VecDeque<Ahead<T>>,
    /// The number of the next place.
    next: u32,
    sizes: Sizes,
}

impl<T> Default for Granting<T> {
    fn default() -> Self {
        Self { ahead: VecDeque::new(), next: 1, sizes: Sizes::default() }
    }
}

impl<T> Granting<T> {
    /// Places that are ahead of frames.
    pub(super) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// One of the places that are ahead.
    pub(super) fn any(&self) -> Option<&T> {
        self.ahead.front().map(|place| &place.what)
    }

    /// A frame of that size is known.
    pub(super) fn frame(&mut self, size: u64) -> Result<Place<T>, PeerFault> {
        self.sizes.saw(size);
        let Some(place) = self.ahead.pop_front() else { return Ok(Place::Missing) };
        if place.length >= size {
            return Ok(Place::Ahead { slot: place.slot, what: place.what, filled: place.filled });
        }
        if place.filled || self.ahead.iter().any(|place| place.filled) {
            return Err(PeerFault::OutOfPlace("bytes in a place that is void"));
        }
        self.ahead.clear();
        self.next = place.slot;
        Ok(Place::Missing)
    }

    /// The number for a place that is granted now.
    pub(super) fn number(&mut self) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        number
    }

    /// The size of a place to grant ahead, where there should be one more.
    pub(super) fn wanted(&self) -> Option<u64> {
        let size = self.sizes.expected;
        let fits = (self.ahead.len() as u64 + 1).checked_mul(size).is_some_and(|all| all <= MAX_BYTES_AHEAD);
        (size > 0 && fits && self.ahead.len() < MAX_AHEAD).then_some(size)
    }

    /// A place was granted ahead.
    pub(super) fn granted(&mut self, slot: u32, length: u64, what: T) {
        self.ahead.push_back(Ahead { slot, length, what, filled: false });
    }

    /// The publisher says that a place is filled; whether it is one that is ahead.
    pub(super) fn filled(&mut self, slot: u32) -> Result<bool, PeerFault> {
        match self.ahead.iter_mut().find(|place| place.slot == slot) {
            Some(place) if place.filled => Err(PeerFault::OutOfPlace("an immediate")),
            Some(place) => {
                place.filled = true;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// What size frames have: that of the largest of late.
#[derive(Debug, Default)]
struct Sizes {
    expected: u64,
    largest: u64,
    count: u32,
}

impl Sizes {
    fn saw(&mut self, size: u64) {
        self.expected = self.expected.max(size);
        self.largest = self.largest.max(size);
        self.count += 1;
        if self.count == RECENT {
            *self = Self { expected: self.largest, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both ends, and what is on its way between them.
    #[derive(Default)]
    struct World {
        publisher: Granted,
        subscriber: Granting<()>,
        /// Frames whose record was sent and that have no place, at the publisher.
        placeless: VecDeque<u64>,
        records: VecDeque<u64>,
        grants: VecDeque<Grant>,
        immediates: VecDeque<u32>,
        /// The places that frames got, as each end knows it.
        written: Vec<u32>,
        known: Vec<u32>,
        /// Of frames that are known, those that are not filled.
        open: Vec<u32>,
        filled: usize,
    }

    impl World {
        fn send(&mut self, size: u64) {
            self.records.push_back(size);
            self.placeless.push_back(size);
        }

        fn write(&mut self) -> Result<(), PeerFault> {
            while let Some(size) = self.placeless.front()
                && let Some(grant) = self.publisher.take(*size)?
            {
                assert!(grant.length >= *size, "a frame that does not fit");
                self.placeless.pop_front();
                self.written.push(grant.slot);
                self.immediates.push_back(grant.slot);
            }
            Ok(())
        }

        fn hear_grant(&mut self) -> Result<(), PeerFault> {
            self.grants.pop_front().map_or(Ok(()), |grant| self.publisher.push(grant))?;
            self.write()
        }

        fn grant(&mut self, length: u64) -> u32 {
            let slot = self.subscriber.number();
            self.grants.push_back(Grant { slot, rkey: 0, address: 0, length });
            slot
        }

        fn hear_record(&mut self) -> Result<(), PeerFault> {
            if self.open.len() >= MAX_GRANTS {
                return Ok(());
            }
            let Some(size) = self.records.pop_front() else { return Ok(()) };
            let slot = match self.subscriber.frame(size)? {
                Place::Ahead { slot, filled: true, .. } => {
                    self.filled += 1;
                    self.known.push(slot);
                    return Ok(());
                }
                Place::Ahead { slot, .. } => slot,
                Place::Missing => self.grant(size),
            };
            self.known.push(slot);
            self.open.push(slot);
            Ok(())
        }

        fn grant_ahead(&mut self) {
            if self.open.len() + self.subscriber.ahead() < MAX_GRANTS
                && let Some(size) = self.subscriber.wanted()
            {
                let slot = self.grant(size);
                self.subscriber.granted(slot, size, ());
            }
        }

        fn hear_immediate(&mut self) -> Result<(), PeerFault> {
            let Some(slot) = self.immediates.pop_front() else { return Ok(()) };
            if !self.subscriber.filled(slot)? {
                let at = self.open.iter().position(|open| *open == slot).expect("a place that is granted");
                self.open.remove(at);
                self.filled += 1;
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn both_ends_agree_and_every_frame_gets_a_place_that_fits(
            sizes in proptest::collection::vec(prop_oneof![Just(100u64), 1u64..300, Just(MAX_BYTES_AHEAD + 1)], 1..80),
            turns in proptest::collection::vec(0u8..5, 0..600),
        ) {
            let mut world = World::default();
            let mut sizes_left = sizes.iter().copied();
            let rest = (0..40 * sizes.len()).map(|turn| (turn % 5) as u8);
            for turn in turns.into_iter().chain(rest) {
                match turn {
                    0 => {
                        if let Some(size) = sizes_left.next() {
                            world.send(size);
                            world.write()?;
                        }
                    }
                    1 => world.hear_record()?,
                    2 => world.hear_grant()?,
                    3 => world.hear_immediate()?,
                    _ => world.grant_ahead(),
                }
                prop_assert!(world.subscriber.ahead() <= MAX_AHEAD);
                prop_assert!(world.open.len() + world.subscriber.ahead() <= MAX_GRANTS);
            }
            prop_assert_eq!(world.filled, sizes.len(), "each is whole");
            prop_assert_eq!(&world.written, &world.known);
            prop_assert!(world.written.iter().copied().eq(1..=sizes.len() as u32), "a frame's place has its number");
        }
    }

    #[test]
    fn places_are_for_frames_of_the_size_of_late() {
        let mut granting = Granting::<()>::default();
        assert_eq!(granting.wanted(), None, "before a size is known");
        for size in [7, 1000, 5] {
            granting.frame(size).expect("no fault");
        }
        assert_eq!(granting.wanted(), Some(1000));
        for _ in 0..2 * RECENT {
            granting.frame(5).expect("no fault");
        }
        assert_eq!(granting.wanted(), Some(5));
        granting.frame(MAX_BYTES_AHEAD + 1).expect("no fault");
        assert_eq!(granting.wanted(), None);
    }
}
