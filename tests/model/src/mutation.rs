//! Faults that can be put into the model on purpose. A property that holds with all of them would prove nothing.

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// A vault-manager answers writes when it sends a version, not when that is committed.
    AnswersBeforeCreated,
    /// A vault-manager answers reads from the overlay of the version that is on its way.
    ReadsOverlay,
    /// A vault-manager does not compare the head that a request carries.
    IgnoresHeads,
    /// A vault-manager calls a newer head a rollback without reading the store anew.
    NeverReloads,
    /// A vault-manager takes everything that waited for a reload as having been read for, what came after the store was read too.
    ReloadsForLatecomers,
    /// A vault-manager that lost its vault to another writer goes on with what it has.
    OutlivesItsVault,
    /// A vault-manager that lost its vault to another writer leaves what it had to the next process, and its supervisor keeps that.
    ParksWhatItLost,
    /// A vault-manager executes every write that comes, known sequence number or not.
    ForgetsOutcomes,
    /// A write whose put was unclear counts as not sent.
    TakesUnclearForNotSent,
    /// A write under whose name the store has something counts as committed.
    TakesExistsForCreated,
    /// A vault is opened again although a put of it has not ended.
    ReopensOverLatePut,
    /// The end of a late put is not noticed.
    ForgetsLatePut,
    /// Vaults leave for others although they have something to do.
    EvictsBusy,
    /// The store overwrites.
    Overwrites,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::AnswersBeforeCreated,
        Self::ReadsOverlay,
        Self::IgnoresHeads,
        Self::NeverReloads,
        Self::ReloadsForLatecomers,
        Self::OutlivesItsVault,
        Self::ParksWhatItLost,
        Self::ForgetsOutcomes,
        Self::TakesUnclearForNotSent,
        Self::TakesExistsForCreated,
        Self::ReopensOverLatePut,
        Self::ForgetsLatePut,
        Self::EvictsBusy,
        Self::Overwrites,
    ];
}
