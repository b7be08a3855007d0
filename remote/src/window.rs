//! What a subscriber may hold, counted at the publisher.
//!
//! The frames of a remote link are copies: who keeps them keeps nothing of the publisher's. The window bounds
//! what the subscriber must have room for, and what is under way.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::PeerFault;
use crate::limits::{MAX_WINDOW, SMALL, SMALL_PER_FRAME, WINDOW};

/// The frames that a subscriber has not returned.
#[derive(Debug)]
pub struct Window {
    frames: u32,
    used: u32,
    held: HashMap<u64, u32>,
}

impl Window {
    /// A window of as many frames as were asked for, within the limits.
    pub fn new(asked: Option<u32>) -> Self {
        Self { frames: asked.unwrap_or(WINDOW).clamp(1, MAX_WINDOW), used: 0, held: HashMap::new() }
    }

    /// The frames that may be held at a time. Of small ones [`SMALL_PER_FRAME`] count as one.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Frames held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether a frame of `size` bytes may be sent.
    pub fn has_room(&self, size: u64) -> bool {
        self.used + weight(size) <= self.frames * SMALL_PER_FRAME
    }

    /// A frame of `size` bytes is sent.
    pub fn sent(&mut self, frame: u64, size: u64) {
        let weight = weight(size);
        if self.held.insert(frame, weight).is_none() {
            self.used += weight;
        }
    }

    /// The subscriber returns a frame.
    ///
    /// # Errors
    /// [`PeerFault::NotHeld`]: it must be cut off.
    pub fn returned(&mut self, frame: u64) -> Result<(), PeerFault> {
        let weight = self.held.remove(&frame).ok_or(PeerFault::NotHeld(frame))?;
        self.used -= weight;
        Ok(())
    }
}

/// What a frame counts, of [`SMALL_PER_FRAME`] for one that is not small.
pub(crate) fn weight(size: u64) -> u32 {
    if size <= SMALL { 1 } else { SMALL_PER_FRAME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_at_its_number_of_frames_and_opens_with_a_return() {
        let mut window = Window::new(Some(3));
        for frame in 0..3 {
            assert!(window.has_room(SMALL + 1));
            window.sent(frame, SMALL + 1);
        }
        assert!(!window.has_room(SMALL + 1) && !window.has_room(0));
        assert_eq!(window.returned(1), Ok(()));
        assert!(window.has_room(SMALL + 1));
        assert_eq!(window.held(), 2);
    }

    #[test]
    fn so_many_small_frames_count_as_one() {
        let mut window = Window::new(Some(1));
        for frame in 0..u64::from(SMALL_PER_FRAME) {
            assert!(window.has_room(SMALL), "{frame}");
            window.sent(frame, SMALL);
            assert!(!window.has_room(SMALL + 1));
        }
        assert!(!window.has_room(0));
    }

    #[test]
    fn what_is_not_held_cannot_be_returned_nor_anything_twice() {
        let mut window = Window::new(None);
        window.sent(7, 1);
        assert_eq!(window.returned(8), Err(PeerFault::NotHeld(8)));
        assert_eq!(window.returned(7), Ok(()));
        assert_eq!(window.returned(7), Err(PeerFault::NotHeld(7)));
    }

    #[test]
    fn what_is_asked_for_is_granted_within_limits() {
        assert_eq!(Window::new(None).frames(), WINDOW);
        assert_eq!(Window::new(Some(0)).frames(), 1);
        assert_eq!(Window::new(Some(MAX_WINDOW)).frames(), MAX_WINDOW);
        assert_eq!(Window::new(Some(MAX_WINDOW + 1)).frames(), MAX_WINDOW);
    }
}
