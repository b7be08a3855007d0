//! Whether views of a buffer are views of the same pages.

use serde::Serialize;

/// What a view shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Evidence {
    /// It is what the others are compared with.
    Reference,
    /// So many page frames were compared, and all are the same.
    SamePageFrames(usize),
    /// The same file, whose pages are the same wherever it is mapped. Page frames could not be seen.
    SameFile(String),
    /// The dma-buf that the publisher names as this buffer's, by its inode. That its pages are those of the other faces is
    /// the publisher's word: the kernel shows nobody the page frames of a dma-buf's mapping.
    PublishersDmaBuf,
    /// The same place in the publisher's own memory. Page frames could not be seen.
    SameMapping(String),
    /// The first page that is another one.
    Different(usize),
    /// Why nothing can be said.
    NotSeen(String),
}

/// What all views together show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// All are of the same pages.
    Same,
    /// Those that could be compared are; of others nothing can be said.
    SameAsFarAsSeen,
    /// Some are not.
    Different,
    /// There was nothing to compare.
    NothingSeen,
}

impl Evidence {
    /// Compares page frames with those of the reference.
    pub(super) fn of_frames(reference: &[Option<u64>], seen: &[Option<u64>]) -> Self {
        let both = reference.iter().zip(seen).enumerate();
        let mut compared = 0;
        for (page, (a, b)) in both {
            match (a, b) {
                (Some(a), Some(b)) if a != b => return Self::Different(page),
                (Some(_), Some(_)) => compared += 1,
                _ => {}
            }
        }
        match compared {
            0 => Self::NotSeen("no page is mapped in on both sides at the moment".to_owned()),
            compared => Self::SamePageFrames(compared),
        }
    }

    fn is_same(&self) -> bool {
        matches!(self, Self::SamePageFrames(_) | Self::SameFile(_) | Self::SameMapping(_))
    }
}

impl Verdict {
    /// Of the views of one buffer, or of many.
    pub(super) fn of<'a>(evidence: impl IntoIterator<Item = &'a Evidence>) -> Self {
        let (mut same, mut unseen) = (0, 0);
        for evidence in evidence {
            match evidence {
                Evidence::Different(_) => return Self::Different,
                Evidence::NotSeen(_) | Evidence::PublishersDmaBuf => unseen += 1,
                evidence => same += usize::from(evidence.is_same()),
            }
        }
        match (same, unseen) {
            (0, _) => Self::NothingSeen,
            (_, 0) => Self::Same,
            _ => Self::SameAsFarAsSeen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_other_page_is_enough_to_be_different() {
        let all: Vec<_> = (100..104).map(Some).collect();
        assert_eq!(Evidence::of_frames(&all, &all), Evidence::SamePageFrames(4));
        let mut other = all.clone();
        other[1] = None;
        assert_eq!(Evidence::of_frames(&all, &other), Evidence::SamePageFrames(3));
        other[3] = Some(7);
        assert_eq!(Evidence::of_frames(&all, &other), Evidence::Different(3));
        assert!(matches!(Evidence::of_frames(&all, &[None, None]), Evidence::NotSeen(_)));
    }

    #[test]
    fn verdicts_claim_no_more_than_was_seen() {
        let same = Evidence::SamePageFrames(1);
        let unseen = Evidence::NotSeen(String::new());
        assert_eq!(Verdict::of([&Evidence::Reference]), Verdict::NothingSeen);
        assert_eq!(Verdict::of([&Evidence::Reference, &unseen]), Verdict::NothingSeen);
        assert_eq!(Verdict::of([&Evidence::Reference, &same]), Verdict::Same);
        assert_eq!(Verdict::of([&Evidence::Reference, &same, &unseen]), Verdict::SameAsFarAsSeen);
        assert_eq!(Verdict::of([&same, &unseen, &Evidence::Different(0)]), Verdict::Different);
    }
}
