//! Identities in folders, and who trusts whom.

use std::path::PathBuf;

use pagecast::remote::secure::{CERTIFICATE, TRUSTED, generate};

use crate::Place;

/// Identities in a folder of this test.
#[derive(Debug)]
pub struct Ids(PathBuf);

impl Ids {
    /// New ones with these names; everybody in `circle` trusts the others of it.
    ///
    /// # Panics
    /// If they cannot be made.
    pub fn new(place: &Place, names: &[&str], circle: &[&str]) -> Self {
        let ids = Self(place.path().to_owned());
        for name in names {
            generate(&ids.0.join(name), name, false).expect("an identity");
        }
        for (owner, other) in circle.iter().flat_map(|a| circle.iter().map(move |b| (a, b))) {
            if owner != other {
                ids.trust(owner, other);
            }
        }
        ids
    }

    fn file(&self, owner: &str, other: &str) -> PathBuf {
        self.0.join(owner).join(TRUSTED).join(format!("{other}.pem"))
    }

    /// From now on `owner` trusts `other`.
    ///
    /// # Panics
    /// If there is no such identity.
    pub fn trust(&self, owner: &str, other: &str) {
        let certificate = self.0.join(other).join(CERTIFICATE);
        std::fs::copy(certificate, self.file(owner, other)).expect("a copy");
    }

    /// From now on it does not.
    ///
    /// # Panics
    /// If it did not before.
    pub fn distrust(&self, owner: &str, other: &str) {
        std::fs::remove_file(self.file(owner, other)).expect("it was trusted");
    }

    /// The option of a peer that says who it is.
    pub fn of(&self, name: &str) -> String {
        format!("identity={}", self.0.join(name).display())
    }
}
