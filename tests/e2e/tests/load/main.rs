//! What one vault, or a crowd, can take from the others: each behaviour a file. They run one after the other, since each measures.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may stop at the first surprise, and says what it measured"
)]

mod attacked_vault;
mod greedy_vaults;
mod herd;
mod neighbour;
mod overload;
mod strangers;
