//! What a run came to: a line of the table, and files.

use std::fmt;
use std::fs;
use std::path::Path;

use super::chart;
use super::parts::{Link, Mode};
use super::scene::Scene;

/// Cores that the hosts used for a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds since the first picture that counts, at the moment's end.
    pub(crate) at: f64,
    /// How long it was.
    pub(crate) seconds: f64,
    /// Of host 1 and of host 2.
    pub(crate) cores: [f64; 2],
}

/// One mode over one link.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) mode: Mode,
    /// What lay between the hosts, if anything did.
    pub(crate) link: String,
    last: Option<u64>,
    /// Pictures with a right mark.
    pictures: usize,
    /// Pictures whose mark could not be read.
    pub(crate) wrong: u64,
    missing: u64,
    /// Pictures that came after a later one, or twice.
    disordered: u64,
    /// Numbers and ages in microseconds of the pictures that count.
    pub(crate) ages: Vec<(u64, u64)>,
    pub(crate) samples: Vec<Sample>,
}

impl Case {
    pub(crate) fn new(mode: Mode, link: &Link) -> Self {
        let link = if mode == Mode::None { "-".to_owned() } else { link.to_string() };
        let (ages, samples) = (Vec::new(), Vec::new());
        Self { mode, link, last: None, pictures: 0, wrong: 0, missing: 0, disordered: 0, ages, samples }
    }

    /// A picture came.
    pub(crate) fn picture(&mut self, number: u64, micros: u64, counts: bool) {
        self.pictures += 1;
        let expected = self.last.map_or(number, |last| last + 1);
        match number.checked_sub(expected) {
            Some(missing) => self.missing += missing,
            None => self.disordered += 1,
        }
        self.last = Some(number);
        if counts {
            self.ages.push((number, micros));
        }
    }

    /// Pictures that came, whatever they were.
    pub(crate) fn seen(&self) -> usize {
        self.pictures + self.wrong as usize
    }

    /// Whether every picture came, right and in its turn.
    pub(crate) fn is_right(&self) -> bool {
        self.pictures > 0 && self.wrong + self.missing + self.disordered == 0
    }

    /// Mean cores of each host.
    pub(crate) fn cores(&self) -> [f64; 2] {
        let all = self.samples.iter().map(|sample| sample.seconds).sum::<f64>().max(f64::MIN_POSITIVE);
        [0, 1].map(|host| {
            self.samples.iter().map(|sample| sample.cores[host] * sample.seconds).sum::<f64>() / all
        })
    }

    /// The age that this part of the pictures did not exceed, in milliseconds.
    pub(crate) fn age(&self, part: f64) -> f64 {
        let mut ages = self.ages.iter().map(|(_, micros)| *micros).collect::<Vec<_>>();
        ages.sort_unstable();
        let at = (part * ages.len() as f64) as usize;
        ages.get(at.min(ages.len().saturating_sub(1))).map_or(f64::NAN, |micros| *micros as f64 / 1000.0)
    }

    pub(crate) fn heading() -> &'static str {
        "MODE    LINK           FRAMES  WRONG  MISSING  DISORDERED  HOST 1 cores  HOST 2 cores  p50 ms  p99 ms  max ms"
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, link, pictures, wrong, missing, disordered, .. } = self;
        let [one, two] = self.cores();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| self.age(part));
        write!(
            f,
            "{mode:<7} {link:<13} {pictures:>7} {wrong:>6} {missing:>8} {disordered:>11} {one:>13.3} {two:>13.3} \
             {p50:>7.2} {p99:>7.2} {max:>7.2}"
        )
    }
}

/// Writes cores.csv, latency.csv and offload.svg.
pub(crate) fn write(folder: &Path, cases: &[Case], scene: &Scene) -> std::io::Result<()> {
    let mut cores = "mode,link,seconds,host_1_cores,host_2_cores\n".to_owned();
    let mut latency = "mode,link,frame,latency_us\n".to_owned();
    for case in cases {
        let Case { mode, link, .. } = case;
        for Sample { at, cores: [one, two], .. } in &case.samples {
            cores += &format!("{mode},{link},{at:.3},{one:.4},{two:.4}\n");
        }
        case.ages
            .iter()
            .for_each(|(number, micros)| latency += &format!("{mode},{link},{number},{micros}\n"));
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join("cores.csv"), cores)?;
    fs::write(folder.join("latency.csv"), latency)?;
    fs::write(folder.join("offload.svg"), chart::draw(cases, scene))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(numbers: &[u64]) -> Case {
        let mut case = Case::new(Mode::Full, &Link::TcpServerSink);
        numbers.iter().for_each(|number| case.picture(*number, 1000 * number, true));
        case
    }

    #[test]
    fn what_is_wrong_missing_or_out_of_order_is_counted() {
        assert!(case(&[5, 6, 7]).is_right());
        assert!(!case(&[]).is_right());
        assert_eq!(case(&[5, 6, 9]).missing, 2);
        for wrong in [&[5, 7][..], &[5, 5], &[5, 4]] {
            assert!(!case(wrong).is_right(), "{wrong:?}");
        }
        let mut unreadable = case(&[1, 2]);
        unreadable.wrong += 1;
        assert!(!unreadable.is_right() && unreadable.seen() == 3);
    }

    #[test]
    fn ages_and_cores_are_those_of_all_samples() {
        let mut case = case(&(1..=100).collect::<Vec<_>>());
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| case.age(part)), [1.0, 51.0, 100.0, 100.0]);
        for (seconds, one) in [(1.0, 0.5), (3.0, 1.5)] {
            case.samples.push(Sample { at: 0.0, seconds, cores: [one, 0.0] });
        }
        assert_eq!(case.cores(), [1.25, 0.0]);
    }
}
