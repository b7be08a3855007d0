//! What holds for a whole stream until it is replaced.

use std::sync::Arc;

use pagecast_ipc::wire::Sticky;

/// The name under which caps travel.
pub const CAPS: &str = "caps";

/// The event that ends a stream.
pub const EOS: &str = "eos";

/// Sticky values (caps, segment, tags, …) as they were at one point of the stream, in order of first use.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    values: Vec<Arc<Sticky>>,
}

impl Stream {
    /// The value under `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.iter().find(|sticky| sticky.name == name).map(|sticky| sticky.data.as_slice())
    }

    /// The caps, in GStreamer's notation, e.g. `video/x-raw, format=NV12, width=1920, height=1080`.
    pub fn caps(&self) -> Option<&str> {
        self.get(CAPS).and_then(|data| std::str::from_utf8(data).ok())
    }

    /// All values, in order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Sticky>> {
        self.values.iter()
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// This stream with one value set; `None` if it is the same already.
    pub(crate) fn with(&self, name: &str, data: &[u8]) -> Option<Self> {
        if self.get(name) == Some(data) {
            return None;
        }
        let mut changed = self.clone();
        changed.set(Arc::new(Sticky { name: name.to_owned(), data: data.to_vec() }));
        Some(changed)
    }

    /// Sets one value.
    pub(crate) fn set(&mut self, value: Arc<Sticky>) {
        match self.values.iter_mut().find(|sticky| sticky.name == value.name) {
            Some(old) => *old = value,
            None => self.values.push(value),
        }
    }

    /// The values here that `before` has not, or has otherwise.
    pub(crate) fn changed_since<'a>(
        &'a self,
        before: Option<&'a Stream>,
    ) -> impl Iterator<Item = &'a Arc<Sticky>> {
        self.values.iter().filter(move |value| {
            !before.is_some_and(|before| before.values.iter().any(|old| Arc::ptr_eq(old, value)))
        })
    }
}
