//! What goes wrong in a schedule, and how often. A part that works is as important as one that does not: most schedules trouble few parts,
//! so that what follows from one kind of trouble is seen without the noise of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use casemate_enclave::keys::cache::Policy;
use casemate_protocol::link::Tuning;

use crate::dice::Dice;
use crate::event::Trouble;

/// Chances in thousandths, and what is set up how. All of it follows from the seed.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Frames that are lost.
    pub loses: u64,
    /// Frames that are late.
    pub delays: u64,
    /// Frames that come twice, the second one at any time.
    pub doubles: u64,
    /// Calls to the store that go wrong.
    pub store: u64,
    /// Calls to the key service that go wrong.
    pub kms: u64,
    /// How often a part dies, hangs or is cut off.
    pub troubles: Vec<Trouble>,
    /// Nodes over the one store.
    pub nodes: usize,
    /// Devices' programs, each with a vault of its own.
    pub programs: usize,
    /// Writes of one program.
    pub writes: u64,
    /// When all trouble ends.
    pub calm_at: Duration,
    /// Limits of the routers.
    pub tuning: Tuning,
    /// How long shard keys serve.
    pub policy: Policy,
    calm: Arc<AtomicBool>,
}

impl Weather {
    /// The weather of a seed.
    pub fn draw(dice: &mut Dice) -> Self {
        let mut some = |chance: u64, most: u64| if dice.chance(chance) { 5 + dice.roll(most) } else { 0 };
        let (loses, delays, doubles) = (some(400, 80), some(400, 120), some(400, 150));
        let (store, kms) = (some(500, 200), some(400, 300));
        let nodes = if dice.chance(250) { 2 } else { 1 };
        let programs = 1 + usize::try_from(dice.roll(3)).expect("small");
        let calm_at = dice.millis(4_000, 16_000);
        let count = if dice.chance(600) { 1 + dice.roll(5) } else { 0 };
        let troubles = (0..count).map(|_| trouble(dice, nodes, programs)).collect();
        let tuning = Tuning {
            // Fewer places than vaults: opening one closes another.
            vault_limit: 1 + u32::try_from(dice.roll(3)).expect("small"),
            idle_ms: 1000 + dice.roll(9000),
            queue_per_vault: if dice.chance(100) { 2 } else { 64 },
            versions_kept: [0, 3, 4096, 4096][usize::try_from(dice.roll(4)).expect("small")],
            store_timeout_ms: 500 + dice.roll(3000),
            opens_per_second: 50,
            creates_per_second: 50,
            ..Tuning::default()
        };
        let ttl = dice.millis(2_000, 10_000);
        let policy = Policy { ttl, hard_limit: ttl * 3, ..Policy::default() };
        let calm = Arc::default();
        let writes = 3 + dice.roll(9);
        Self { loses, delays, doubles, store, kms, troubles, nodes, programs, writes, calm_at, tuning, policy, calm }
    }

    /// Whether all trouble is over.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// All trouble is over.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// Whether something of this chance happens, which it does no more once all trouble is over.
    pub fn strikes(&self, dice: &mut Dice, per_mille: u64) -> bool {
        dice.chance(per_mille) && !self.is_calm()
    }
}

fn trouble(dice: &mut Dice, nodes: usize, programs: usize) -> Trouble {
    let index = |dice: &mut Dice, count: usize| {
        usize::try_from(dice.roll(u64::try_from(count).expect("small"))).expect("small")
    };
    let (node, program) = (index(dice, nodes), index(dice, programs));
    match dice.roll(8) {
        0 | 1 => Trouble::ManagerDies(program),
        2 => Trouble::ManagerHangs(program),
        3 => Trouble::EnclaveDies(node),
        4 => Trouble::LinkCut(node),
        5 => Trouble::ProgramDies(program),
        6 => Trouble::MemoryShort(node),
        _ => Trouble::OperatorEvicts(program),
    }
}
