//! What must hold in every state.

/// A promise. The first one that a state breaks is written into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Promise {
    /// Every write that was answered as done is in the store's chain, at or below the version that the answer named.
    Answered,
    /// Versions are contiguous, each follows the one before it, and none is ever replaced.
    Kept,
    /// No two versions carry the same write.
    Once,
    /// No device gets an answer from an older state than one that it was answered from before.
    Forward,
    /// No request is answered from an older state than the one whose head it carries. This is what stands in for a lease while there is
    /// none: a resident whose vault another owner has written to may still answer, but only devices that have not heard of it.
    Heads,
    /// What a process shows or holds as committed stands in the store.
    Durable,
    /// A process does not seal a second body for a version before it knows what became of the first, and no process does while a put of
    /// that version by its node has not ended.
    OneBody,
    /// A process that was told that its vault may be another's keeps nothing of it, and leaves nothing.
    Dropped,
    /// A vault that leaves for others has nothing to do, unless it came back from what was parked and found no place.
    Idle,
    /// A store that shows all it has is never called a liar: no device is told of a rollback or a fork.
    Believed,
    /// A vault-manager breaks no rule that its supervisor holds it to.
    Obedient,
}

impl Promise {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Answered,
        Self::Kept,
        Self::Once,
        Self::Forward,
        Self::Heads,
        Self::Durable,
        Self::OneBody,
        Self::Dropped,
        Self::Idle,
        Self::Believed,
        Self::Obedient,
    ];

    /// As a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Answered => "an answered write stands in the store",
            Self::Kept => "no version is overwritten and none is missing",
            Self::Once => "no write is executed twice",
            Self::Forward => "no device is answered from less than it was answered from before",
            Self::Heads => "no device that has seen a newer head is answered from an older state",
            Self::Durable => "nothing is shown that is not durable",
            Self::OneBody => "no second body is sealed for a version whose fate is unknown",
            Self::Dropped => "who lost a vault holds nothing of it",
            Self::Idle => "nothing with work in flight is evicted",
            Self::Believed => "an honest store is not called a liar",
            Self::Obedient => "no vault-manager breaks its supervisor's rules",
        }
    }
}
