//! What is done to the node in one round: which part is hurt, how, and after how many operations. It follows from seed and round
//! alone, so that a round that failed can be asked for again.

use std::fmt;
use std::time::Duration;

use super::dice::Dice;

/// Vaults in use at the same time; each has devices of its own.
pub const VAULTS: u64 = 3;
/// Tasks that write and read through one session of a vault; one more only reads, through another.
pub const WRITERS: u64 = 2;
/// Operations of one task in a round.
pub const OPERATIONS: u64 = 6;
/// Secrets of one vault.
pub const NAMES: u64 = 3;

/// A part of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The process of one vault.
    Manager,
    /// The enclave's own process.
    Supervisor,
    /// The parent.
    Parent,
    /// The NATS server.
    Nats,
    /// The key service.
    Kms,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Manager, Self::Supervisor, Self::Parent, Self::Nats, Self::Kms];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manager => "vault-manager",
            Self::Supervisor => "supervisor",
            Self::Parent => "parent",
            Self::Nats => "nats-server",
            Self::Kms => "kms",
        })
    }
}

/// How a part is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL, and a new one is started at once (a vault-manager: by the next request).
    Kill,
    /// SIGSTOP, and SIGCONT after this.
    Pause(Duration),
    /// Away for so long; meanwhile the supervisor is killed and started anew, so that it needs every key again.
    Away(Duration),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// When so many operations of the round have ended.
    pub after: u64,
    /// And so much later: other operations are under way then.
    pub later: Duration,
    /// Who.
    pub part: Part,
    /// How.
    pub blow: Blow,
    /// Which of several.
    pub which: u64,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, later, part, blow, which } = self;
        write!(f, "after {after} operations and {later:?}: ")?;
        match blow {
            Blow::Kill => write!(f, "kill -9 {part}")?,
            Blow::Pause(time) => write!(f, "stop {part} for {time:?}")?,
            Blow::Away(time) => write!(f, "{part} away for {time:?}, supervisor killed meanwhile")?,
        }
        if *part == Part::Manager { write!(f, " (number {which} of those there are)") } else { Ok(()) }
    }
}

/// A round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The run's seed.
    pub seed: u64,
    /// The round, from 0.
    pub round: u64,
    /// The faults, in order.
    pub strikes: Vec<Strike>,
}

impl Plan {
    /// The plan of a round in which only `parts` are hurt.
    ///
    /// # Panics
    /// When `parts` is empty.
    pub fn new(seed: u64, round: u64, parts: &[Part]) -> Self {
        let mut dice = Dice::new(seed, &[round, u64::MAX]);
        // A third of the tasks' operations is left over, so that life after the last fault is seen too.
        let last = VAULTS * (WRITERS + 1) * OPERATIONS * 2 / 3;
        let count = dice.one_of(&[1, 1, 2, 2, 3]);
        let mut strikes: Vec<_> = (0..count).map(|_| Strike::new(&mut dice, last, parts)).collect();
        strikes.sort_by_key(|strike| strike.after);
        Self { seed, round, strikes }
    }
}

impl Strike {
    fn new(dice: &mut Dice, last: u64, parts: &[Part]) -> Self {
        let part = loop {
            let part = dice.one_of(parts);
            // The key service matters to cold starts only, and its absence takes long: one in four of its turns.
            if part != Part::Kms || parts == [Part::Kms] || dice.below(4) == 0 {
                break part;
            }
        };
        let blow = match (part, dice.below(3)) {
            (Part::Kms, _) => Blow::Away(Duration::from_millis(dice.between(50, 400))),
            // Longer than a request may take: its supervisor has to end it.
            (Part::Manager, 0) => Blow::Pause(Duration::from_millis(dice.one_of(&[100, 1500]))),
            (_, 0) => Blow::Pause(Duration::from_millis(dice.between(20, 400))),
            (_, _) => Blow::Kill,
        };
        Self {
            after: dice.below(last),
            later: Duration::from_micros(dice.below(3000)),
            part,
            blow,
            which: dice.below(VAULTS * 2),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, round {}", self.seed, self.round)?;
        self.strikes.iter().try_for_each(|strike| write!(f, "\n  {strike}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_plan() {
        for round in 0..50 {
            assert_eq!(Plan::new(5, round, &Part::ALL), Plan::new(5, round, &Part::ALL));
        }
        let plans = |seed| (0..50).map(|round| Plan::new(seed, round, &Part::ALL).strikes).collect::<Vec<_>>();
        assert_ne!(plans(5), plans(6));
    }

    #[test]
    fn every_part_is_hurt_in_every_way_and_in_time() {
        let strikes: Vec<_> = (0..500).flat_map(|round| Plan::new(1, round, &Part::ALL).strikes).collect();
        for part in Part::ALL {
            let of = |wanted: fn(&Blow) -> bool| strikes.iter().any(|s| s.part == part && wanted(&s.blow));
            assert_eq!(of(|blow| *blow == Blow::Kill), part != Part::Kms, "{part}");
            assert_eq!(of(|blow| matches!(blow, Blow::Pause(_))), part != Part::Kms, "{part}");
            assert_eq!(of(|blow| matches!(blow, Blow::Away(_))), part == Part::Kms, "{part}");
        }
        assert!(strikes.iter().all(|strike| strike.after < VAULTS * (WRITERS + 1) * OPERATIONS));
    }
}
