//! Numbers that look random and come out the same in every run.

/// xorshift, from a seed that is not zero.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A row of numbers; another seed makes another row.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// The next number, less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
