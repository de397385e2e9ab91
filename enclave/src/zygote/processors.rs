//! Which processors a vault-manager may run on.

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::Place;

/// The processors of a machine whose vault-managers can have a home.
#[derive(Debug)]
pub(super) struct Processors {
    all: CpuSet,
    home: CpuSet,
}

impl Processors {
    /// None if there are not two of them.
    pub(super) fn of_the_machine() -> Option<Self> {
        Self::of(sched_getaffinity(Pid::from_raw(0)).ok()?)
    }

    fn of(all: CpuSet) -> Option<Self> {
        let [first, _] = numbers(&all)[..] else { return None };
        let mut home = CpuSet::new();
        home.set(first).ok()?;
        Some(Self { all, home })
    }

    /// Moves a process there. Nothing but speed depends on it.
    pub(super) fn put(&self, pid: Pid, place: Place) -> Result<(), Errno> {
        let set = match place {
            Place::Home => &self.home,
            Place::Anywhere => &self.all,
        };
        sched_setaffinity(pid, set)
    }
}

fn numbers(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::count()).filter(|number| set.is_set(*number) == Ok(true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        for number in numbers {
            set.set(*number).unwrap();
        }
        set
    }

    #[test]
    fn a_home_is_the_first_of_two() {
        let processors = Processors::of(set(&[3, 5])).unwrap();
        assert_eq!((processors.home, processors.all), (set(&[3]), set(&[3, 5])));
        for others in [&[][..], &[0], &[0, 1, 2]] {
            assert!(Processors::of(set(others)).is_none(), "{others:?}");
        }
    }

    #[test]
    fn a_process_goes_where_it_is_put() {
        // A thread of this process: the kernel takes its number for a process's.
        std::thread::spawn(|| {
            let this = Pid::from_raw(0);
            let all = sched_getaffinity(this).unwrap();
            let [first, second, ..] = numbers(&all)[..] else { return };
            let all = set(&[first, second]);
            sched_setaffinity(this, &all).unwrap();
            let processors = Processors::of_the_machine().unwrap();
            assert_eq!(processors.home, set(&[first]));
            for (place, there) in [(Place::Home, processors.home), (Place::Anywhere, all)] {
                processors.put(this, place).unwrap();
                assert_eq!(sched_getaffinity(this).unwrap(), there);
            }
        })
        .join()
        .unwrap();
    }
}
